//! The time to read a task's parameters at submission, and to render them at dispatch.
//!
//! Claims: a literal tree costs nothing to render, whatever its size; a tree with references costs
//! its copy and the values put in.

use std::{hint::black_box, iter, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gleitzeit_domain::{
    reference::{EnvValue, Scope, TaskView, Template},
    task::TaskStatus,
};
use serde_json::{Map, Value, json};

/// A workflow whose only task has this result.
struct OneTask {
    result: Value,
    inputs: Map<String, Value>,
}

impl Scope for OneTask {
    fn task(&self, _: u32) -> Option<TaskView<'_>> {
        Some(TaskView {
            status: TaskStatus::Completed,
            result: Some(&self.result),
            error: None,
            duration: Some(0.1),
            provider_id: None,
        })
    }

    fn inputs(&self) -> &Map<String, Value> {
        &self.inputs
    }

    fn workflow_id(&self) -> &'static str {
        "workflow"
    }

    fn workflow_name(&self) -> &'static str {
        "bench"
    }

    fn env(&self, _: &str) -> EnvValue<'_> {
        EnvValue::NotListed
    }
}

/// Parameters as tasks have them, from the most common to the largest.
fn cases() -> [(&'static str, Value); 4] {
    let line = json!({"role": "user", "content": "A line of plain text, as long as lines are."});
    let mut lines: Vec<Value> = iter::repeat_n(line, 1000).collect();
    let literal_big = json!({ "messages": lines.clone() });
    lines.extend((0..100).map(|at| json!(format!("Item ${{numbers.values[{at}]}} of 100"))));
    [
        ("literal", json!({"text": "hello", "count": 3, "options": {"deep": [1, 2, 3]}})),
        ("literal_big", literal_big),
        (
            "three_references",
            json!({
                "model": "llama3.2",
                "prompt": "Sort ${numbers.values[0]} in ${inputs.city}",
                "data": "${numbers.result.name}",
            }),
        ),
        ("big", json!({ "messages": lines })),
    ]
}

fn bound(parameters: &Arc<Value>) -> Template {
    let mut template = Template::parse(Arc::clone(parameters)).expect("well-formed");
    template.bind(&mut |name| (name == "numbers").then_some(0), iter::empty).expect("known task");
    template
}

fn references(criterion: &mut Criterion) {
    let scope = OneTask {
        result: json!({"values": (0..100).collect::<Vec<_>>(), "name": "first"}),
        inputs: Map::from_iter([("city".to_owned(), json!("Berlin"))]),
    };
    for (name, parameters) in cases() {
        let parameters = Arc::new(parameters);
        criterion.bench_function(&format!("references/parse_and_bind/{name}"), |bench| {
            bench.iter_batched(
                || Arc::clone(&parameters),
                |parameters| bound(&parameters),
                BatchSize::SmallInput,
            );
        });
        let template = bound(&parameters);
        criterion.bench_function(&format!("references/render/{name}"), |bench| {
            bench.iter(|| template.render(black_box(&scope)).expect("every value exists"));
        });
    }
}

criterion_group!(benches, references);
criterion_main!(benches);
