//! Every written value is read back as it was.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{
    Outcome, same,
    sample::{at, change, completed, events, of_spec, workflow},
    shorten,
};
use crate::{
    resources::ResourceRequirements,
    retry::RetryPolicy,
    store::{NewWorkflow, Store, Submitted, WorkflowChange},
    task::{OnDependencyFailure, Priority, TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec, WorkflowStatus},
};

/// Writes a workflow and compares what is read.
async fn keeps(store: &dyn Store, new: NewWorkflow) -> Outcome {
    let NewWorkflow { record, events, .. } = new.clone();
    same!(store.submit(vec![new]).await?, [Submitted::Created], "the first submission");
    same!(store.workflow(&record.id).await?, Some(record.clone()), "workflow {}", record.id);
    same!(store.events(&record.id, 0, 10_000).await?, events, "events of {}", record.id);
    Ok(())
}

pub(super) async fn a_workflow_is_read_back_as_it_was_submitted(store: &dyn Store) -> Outcome {
    let full = TaskSpec::new("full", "python/v1.0:execute")
        .named("the full one")
        .params(json!({"code": "x = 1", "list": [1, 2.5, null, true]}))
        .after("plain")
        .priority(Priority::Urgent)
        .timeout(Duration::from_millis(1_500))
        .total_timeout(Duration::from_hours(1))
        .retry(RetryPolicy::default())
        .resources(ResourceRequirements::default())
        .on_dependency_failure(OnDependencyFailure::Run);
    let spec = WorkflowSpec::new("full")
        .id("full")
        .timeout(Duration::from_mins(1))
        .max_parallel_tasks(3)
        .input("x", json!({"deep": [{"er": 1}]}))
        .task(TaskSpec::new("plain", "echo/echo"))
        .task(full)
        .task(TaskSpec::new("", "echo/echo").params(json!([1, "two"])));
    keeps(store, of_spec("full", spec)).await?;
    keeps(store, workflow("empty", 0)).await?;
    keeps(store, workflow("plain", 3)).await
}

pub(super) async fn tasks_that_moved_before_the_submission_are_kept(store: &dyn Store) -> Outcome {
    let mut new = workflow("moved", 4);
    new.record.status = WorkflowStatus::Running;
    new.record.started_at = Some(at(7));
    new.record.tasks[0].status = TaskStatus::Queued;
    new.record.tasks[1].due_at = Some(at(8));
    new.record.tasks[2].name = "renamed".into();
    new.events = events(&new.record.id, 1, 3);
    new.record.last_sequence = 3;
    keeps(store, new).await
}

pub(super) async fn odd_texts_survive(store: &dyn Store) -> Outcome {
    let texts = [
        "a\u{0}b",
        "\u{0}",
        "back\\slash \\0 \\",
        "'quotes' \"double\" `back`",
        "%_$1 ? :x; DROP TABLE tasks --",
        "emoji 🦀 e\u{301} \u{202e}",
        "line\nbreak\r\n\ttab \u{7f}\u{1b}",
        " ",
    ];
    for text in texts {
        let id = format!("id {text}");
        let task = TaskSpec::new(format!("task {text}"), "echo/echo").named(text);
        let spec = WorkflowSpec::new(text)
            .id(id.as_str())
            .input(text, text)
            .task(task.params(json!({ text: text })));
        let mut new = of_spec(&id, spec);
        new.record.tasks[0] = completed(&new.record.tasks[0], json!({ text: [text] }));
        new.record.tasks[0].provider_id = Some(text.into());
        keeps(store, new).await?;
    }
    let found = store.list(crate::store::ListFilter {
        name: Some("a\u{0}b".into()),
        ..crate::store::ListFilter::default()
    });
    let names: Vec<_> = found.await?.into_iter().map(|summary| summary.name).collect();
    same!(names, [Arc::from("a\u{0}b")], "the list by an odd name");
    Ok(())
}

/// A thousand floating-point numbers of all sizes: a reader that rounds gets some of them wrong.
fn floats() -> Value {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let all = std::iter::repeat_with(|| {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        f64::from_bits(bits)
    });
    all.filter(|number| number.is_finite()).take(1_000).collect()
}

pub(super) async fn numbers_survive(store: &dyn Store) -> Outcome {
    let numbers = json!([
        0,
        -1,
        u64::MAX,
        i64::MIN,
        9_007_199_254_740_993_u64,
        0.1,
        1.0 / 3.0,
        5e-324,
        f64::MAX,
        -0.0,
        1e21,
        1.0
    ]);
    keeps(store, of_spec("floats", WorkflowSpec::new("floats").input("all", floats()))).await?;
    let mut new = workflow("numbers", 1);
    let task = &mut new.record.tasks[0];
    *task = completed(task, numbers);
    task.attempts = u32::MAX;
    task.duration = Some(f64::MIN_POSITIVE);
    task.started_at = Some(at(-60_000_000_000_000_000));
    keeps(store, new).await
}

pub(super) async fn a_large_result_survives_and_may_be_shared(store: &dyn Store) -> Outcome {
    let result = json!({"text": "é\u{0}x".repeat(350_000)});
    let mut expected = Vec::new();
    for id in ["large-1", "large-2"] {
        let new = workflow(id, 2);
        let mut record = new.record.clone();
        store.submit(vec![new]).await?;
        let tasks = record.tasks.iter().map(|task| completed(task, result.clone())).collect();
        let outcome = WorkflowChange { tasks, ..change(&record.id, 1) };
        super::sample::apply(&mut record, &outcome);
        store.record(vec![outcome]).await?;
        expected.push(record);
    }
    for record in &expected {
        same!(store.workflow(&record.id).await?, Some(record.clone()), "a large result");
    }
    same!(store.unsettled().await?, expected, "large results at recovery");
    // What was submitted may be large as well.
    let spec = WorkflowSpec::new("large-3")
        .input("x", "y".repeat(1 << 20))
        .task(TaskSpec::new("a", "echo/echo"));
    keeps(store, of_spec("large-3", spec)).await
}

/// A reader that has no room for all results together gets them one at a time.
pub(super) async fn an_outline_and_its_results_are_the_workflow(store: &dyn Store) -> Outcome {
    let new = workflow("outline", 5);
    let mut expected = new.record.clone();
    store.submit(vec![new]).await?;
    let results =
        [json!("é\u{0}x".repeat(350_000)), json!("y".repeat(9_000)), json!([1]), json!(null)];
    let tasks = expected.tasks.iter().zip(results).map(|(task, it)| completed(task, it)).collect();
    let outcome = WorkflowChange { tasks, ..change(&expected.id, 1) };
    super::sample::apply(&mut expected, &outcome);
    store.record(vec![outcome]).await?;
    let Some(mut outline) = store.outline(&expected.id).await? else {
        return Err(super::Broken("there is no outline".into()));
    };
    for task in &mut outline.tasks {
        let result = store.result(&expected.id, task.index).await?;
        same!(result, expected.tasks[task.index as usize].result, "result {}", task.index);
        if task.is_result_left_out() {
            task.result = result;
        }
    }
    same!(outline, expected, "an outline with the results that it left out");
    same!(store.result(&expected.id, 5).await?, None, "the result of no task");
    same!(store.result(&"none".into(), 0).await?, None, "a result of no workflow");
    same!(store.outline(&"none".into()).await?, None, "an outline of no workflow");
    Ok(())
}

pub(super) async fn ten_thousand_tasks_are_one_workflow(store: &dyn Store) -> Outcome {
    let new = workflow("wide", 10_000);
    let mut record: WorkflowRecord = new.record.clone();
    keeps(store, new).await?;
    let tasks: Vec<TaskRecord> =
        record.tasks.iter().skip(1).map(|task| completed(task, Value::from(task.index))).collect();
    let outcome = WorkflowChange {
        tasks,
        events: events(&record.id, 2, 9_999),
        ..change(&record.id, 10_000)
    };
    super::sample::apply(&mut record, &outcome);
    store.record(vec![outcome]).await?;
    same!(store.workflow(&record.id).await?, Some(record.clone()), "10,000 tasks");
    same!(store.events(&record.id, 9_998, 10).await?, events(&record.id, 9_999, 2), "the tail");
    Ok(())
}

pub(super) async fn what_is_not_there_is_not_found(store: &dyn Store) -> Outcome {
    let nobody = "nobody".into();
    same!(store.workflow(&nobody).await?, None, "an unknown workflow");
    same!(store.events(&nobody, 0, 10).await?, [], "events of an unknown workflow");
    same!(store.unsettled().await?, [], "recovery of an empty store");
    same!(store.list(crate::store::ListFilter::default()).await?, [], "a list of nothing");
    same!(store.prune(at(0), 10).await?, 0, "pruning of nothing");
    Ok(())
}
