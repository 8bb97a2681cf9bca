//! The cost of checks: parameters before each call, results after it, a whole registration.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use gleitzeit_domain::{
    id::Capability,
    protocol::{builtin, catalog::ProtocolCatalog},
};
use serde_json::{Value, json};

/// Parameters of `python/execute` with nothing left to fill in.
fn complete() -> Arc<Value> {
    Arc::new(json!({"code": "result = 6 * 7", "timeout": 10, "imports": ["math"], "context": {}}))
}

fn parameters(bench: &mut Criterion) {
    let catalog = ProtocolCatalog::builtin();
    let execute = catalog.resolve(None, "python/execute").expect("built in");
    let chat = catalog.resolve(None, "llm/chat").expect("built in");
    let mut group = bench.benchmark_group("validation/params");

    let params = complete();
    assert!(Arc::ptr_eq(&execute.params.validate(&params).expect("valid"), &params));
    group.bench_function("complete", |b| b.iter(|| execute.params.validate(black_box(&params))));

    let short = Arc::new(json!({"code": "result = 6 * 7"}));
    group.bench_function("one default filled", |b| {
        b.iter(|| execute.params.validate(black_box(&short)));
    });

    let position = Arc::new(json!(["result = 6 * 7", 10]));
    group.bench_function("by position", |b| {
        b.iter(|| execute.params.validate(black_box(&position)));
    });

    let messages: Vec<Value> = (0..100)
        .map(|n| json!({"role": "user", "content": format!("message number {n}")}))
        .collect();
    let talk = Arc::new(json!({
        "messages": messages, "model": "m", "temperature": 0.7, "stream": false,
    }));
    group.bench_function("chat of 100 messages", |b| {
        b.iter(|| chat.params.validate(black_box(&talk)));
    });

    let wrong = Arc::new(json!({"code": "", "timeout": 99_999, "import": []}));
    assert_eq!(execute.params.validate(&wrong).map_err(|all| all.len()), Err(3));
    group.bench_function("three violations", |b| {
        b.iter(|| execute.params.validate(black_box(&wrong)));
    });
    group.finish();
}

fn results(bench: &mut Criterion) {
    let catalog = ProtocolCatalog::builtin();
    let execute = catalog.resolve(None, "python/execute").expect("built in");
    let returns = execute.returns.as_ref().expect("declared");
    let result = json!({
        "result": 42, "stdout": "", "stderr": "", "execution_time": 0.003, "exit_code": 0,
        "output": "", "success": true,
    });
    assert_eq!(returns.check(&result), []);
    bench.bench_function("validation/result", |b| b.iter(|| returns.check(black_box(&result))));
}

fn lookups(bench: &mut Criterion) {
    let catalog = ProtocolCatalog::builtin();
    let capability: Capability = "python/v1.0:execute".parse().expect("an id");
    let mut group = bench.benchmark_group("catalog");
    group.bench_function("method", |b| b.iter(|| catalog.method(black_box(&capability))));
    group.bench_function("resolve", |b| {
        b.iter(|| catalog.resolve(None, black_box("python/execute")));
    });
    group.bench_function("register python/v1.0", |b| {
        b.iter(|| ProtocolCatalog::new().register(black_box(builtin::python())));
    });
    group.finish();
}

criterion_group!(benches, parameters, results, lookups);
criterion_main!(benches);
