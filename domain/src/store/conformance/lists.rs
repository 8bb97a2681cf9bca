//! Lists, loading at a start, and retention.

use std::sync::Arc;

use serde_json::json;

use super::{
    Outcome, same,
    sample::{at, change, completed, retry_pending, settles, state, workflow},
    shorten,
};
use crate::{
    error::{ErrorCode, TaskError},
    store::{ListFilter, Store, StoreError, Submitted, WorkflowChange},
    task::TaskStatus,
    workflow::WorkflowStatus,
};

async fn ids(store: &dyn Store, filter: ListFilter) -> Result<Vec<String>, StoreError> {
    let listed = store.list(filter).await?;
    Ok(listed.into_iter().map(|summary| summary.id.to_string()).collect())
}

async fn settle(store: &dyn Store, id: &str, status: WorkflowStatus) -> Result<(), StoreError> {
    store.record(vec![settles(&workflow(id, 1), status, at(5))]).await
}

pub(super) async fn a_list_shows_the_newest_first(store: &dyn Store) -> Outcome {
    for number in 0..60 {
        let mut new = workflow(&format!("w{number:02}"), 1);
        new.record.name = if number % 20 == 0 { "rare".into() } else { "frequent".into() };
        store.submit(vec![new]).await?;
        if number % 3 == 0 {
            settle(store, &format!("w{number:02}"), WorkflowStatus::Completed).await?;
        }
    }
    let all = ListFilter::default();
    let newest: Vec<String> = (10..60).rev().map(|number| format!("w{number:02}")).collect();
    same!(ids(store, all.clone()).await?, newest, "the default list");
    let some = ListFilter { limit: 2, offset: 3, ..all.clone() };
    same!(ids(store, some).await?, ["w56", "w55"], "a part");
    let name = Some("rare".to_owned());
    let rare = ListFilter { name: name.clone(), ..all.clone() };
    same!(ids(store, rare).await?, ["w40", "w20", "w00"], "of a name");
    let status = Some(WorkflowStatus::Completed);
    let completed = ListFilter { status, limit: 3, ..all.clone() };
    same!(ids(store, completed).await?, ["w57", "w54", "w51"], "of a status");
    let both = ListFilter { status: Some(WorkflowStatus::Pending), name, ..all.clone() };
    same!(ids(store, both).await?, ["w40", "w20"], "of a name and a status");
    let none: [&str; 0] = [];
    same!(ids(store, ListFilter { limit: 0, ..all.clone() }).await?, none, "at most none");
    let beyond = ListFilter { offset: 1000, limit: usize::MAX, ..all };
    same!(ids(store, beyond).await?, none, "beyond the end");
    Ok(())
}

pub(super) async fn a_list_counts_tasks(store: &dyn Store) -> Outcome {
    let new = workflow("a", 5);
    let id = new.record.id.clone();
    let tasks = new.record.tasks.clone();
    store.submit(vec![new]).await?;
    let mut unknown = tasks[1].clone();
    unknown.status = TaskStatus::OutcomeUnknown;
    let mut upstream_failed = tasks[2].clone();
    upstream_failed.status = TaskStatus::UpstreamFailed;
    let step = WorkflowChange {
        tasks: vec![
            completed(&tasks[0], json!(1)),
            unknown,
            upstream_failed,
            retry_pending(&tasks[3]),
        ],
        workflow: Some(state(WorkflowStatus::Running)),
        ..change(&id, 1)
    };
    store.record(vec![step]).await?;
    let summaries = store.list(ListFilter::default()).await?;
    let counts: Vec<_> = summaries
        .iter()
        .map(|it| (it.task_count, it.settled_count, it.outcome_unknown_count, it.waiting_count))
        .collect();
    same!(counts, [(5, 2, 1, 0)], "tasks, settled, of unknown outcome, waiting");
    let mut waiting = tasks[4].clone();
    waiting.status = TaskStatus::Queued;
    waiting.error = Some(Arc::new(TaskError::new(
        ErrorCode::ProviderNotAvailable,
        "waits for a provider: `p` is down",
    )));
    store.record(vec![WorkflowChange { tasks: vec![waiting], ..change(&id, 1) }]).await?;
    same!(store.list(ListFilter::default()).await?[0].waiting_count, 1, "waiting for a provider");
    settle(store, "a", WorkflowStatus::Cancelled).await?;
    let summaries = store.list(ListFilter::default()).await?;
    let listed: Vec<_> = summaries
        .iter()
        .map(|it| (it.status, it.created_at, it.completed_at, it.settled_count, &*it.name))
        .collect();
    let expected = (WorkflowStatus::Cancelled, at(1), Some(at(5)), 5, "name of a");
    same!(listed, [expected], "a settled workflow");
    Ok(())
}

pub(super) async fn recovery_finds_what_is_not_settled(store: &dyn Store) -> Outcome {
    let mut expected = Vec::new();
    let mut all = Vec::new();
    for number in 0..600 {
        let new = workflow(&format!("w{number:03}"), 2);
        all.push(settles(&new, WorkflowStatus::ALL[number % 6], at(5)));
        if all[number].workflow.as_ref().is_some_and(|state| !state.status.is_settled()) {
            let mut record = new.record.clone();
            let tasks = vec![retry_pending(&record.tasks[1])];
            all[number].tasks = tasks;
            super::sample::apply(&mut record, &all[number]);
            expected.push(record);
        }
        store.submit(vec![new]).await?;
    }
    store.record(all).await?;
    same!(store.unsettled().await?, expected, "what is not settled");
    Ok(())
}

pub(super) async fn a_reopened_workflow_is_found_again(store: &dyn Store) -> Outcome {
    let new = workflow("a", 1);
    let id = new.record.id.clone();
    store.submit(vec![new]).await?;
    settle(store, "a", WorkflowStatus::Failed).await?;
    same!(store.unsettled().await?, [], "once failed");
    let reopened =
        WorkflowChange { workflow: Some(state(WorkflowStatus::Running)), ..change(&id, 1) };
    store.record(vec![reopened]).await?;
    let found: Vec<_> = store.unsettled().await?.into_iter().map(|record| record.id).collect();
    same!(found, [id], "once reopened");
    same!(store.prune(at(1_000_000), 10).await?, 0, "a live workflow is not pruned");
    Ok(())
}

pub(super) async fn pruning_forgets_what_settled_before(store: &dyn Store) -> Outcome {
    for number in 0..10_i64 {
        let new = workflow(&format!("w{number}"), 2);
        store.submit(vec![new.clone()]).await?;
        let mut last = settles(&new, WorkflowStatus::Completed, at(number * 1000));
        last.tasks = vec![completed(&new.record.tasks[0], json!(number))];
        store.record(vec![last]).await?;
    }
    store.submit(vec![workflow("live", 1)]).await?;
    same!(store.prune(at(5000), 3).await?, 3, "at most three");
    same!(store.prune(at(5000), 100).await?, 2, "the other two that settled before");
    same!(store.prune(at(5000), 100).await?, 0, "no more");
    let left = ids(store, ListFilter::default()).await?;
    same!(left, ["live", "w9", "w8", "w7", "w6", "w5"], "what is left");
    same!(store.workflow(&"w0".into()).await?, None, "a forgotten workflow");
    same!(store.events(&"w0".into(), 0, 10).await?, [], "its events");
    same!(store.submit(vec![workflow("w0", 1)]).await?, [Submitted::Created], "its id is free");
    let again = store.workflow(&"w0".into()).await?;
    same!(again, Some(workflow("w0", 1).record), "nothing of it is left");
    Ok(())
}

pub(super) async fn pruning_keeps_what_others_refer_to(store: &dyn Store) -> Outcome {
    let result = json!("x".repeat(1 << 20));
    for id in ["old", "new"] {
        let new = workflow(id, 1);
        store.submit(vec![new.clone()]).await?;
        let mut last = settles(&new, WorkflowStatus::Completed, at(5));
        last.tasks = vec![completed(&new.record.tasks[0], result.clone())];
        store.record(vec![last]).await?;
    }
    same!(store.prune(at(6), 1).await?, 1, "one of two");
    let left = ids(store, ListFilter::default()).await?;
    let kept = match left.first() {
        Some(id) => store.workflow(&id.as_str().into()).await?,
        None => None,
    };
    let kept = kept.and_then(|record| record.tasks[0].result.clone());
    same!(kept.as_deref(), Some(&result), "the result that both had");
    same!(store.prune(at(6), 10).await?, 1, "the other one");
    Ok(())
}
