//! Single workflows: found by the beginning of their ids, listed by time, deleted.

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;

use super::{
    Outcome, same,
    sample::{at, change, completed, settles, state, workflow},
    shorten,
};
use crate::{
    event::{Event, EventData},
    id::WorkflowId,
    store::{Amendment, Deletion, ListFilter, Store, Submitted, WorkflowChange},
    workflow::{WorkflowSpec, WorkflowStatus},
};

pub(super) async fn ids_are_found_by_their_beginning(store: &dyn Store) -> Outcome {
    // Orders of languages put signs and capitals elsewhere.
    let ids = ["ab", "ab-1", "ab_2", "aB", "abc", "ab\u{10ffff}", "ab\\", "b", "a", "ab ", "ac"];
    for id in ids {
        store.submit(vec![workflow(id, 1)]).await?;
    }
    let mut all: Vec<&str> = ids.to_vec();
    all.sort_unstable();
    for prefix in ["ab", "a", "ab-", "ab\\", "ab\u{10ffff}", "", "x", "ac"] {
        let found = store.ids(prefix, 100).await?;
        let found: Vec<&str> = found.iter().map(WorkflowId::as_str).collect();
        let wanted = all.iter().copied().filter(|id| id.starts_with(prefix));
        same!(found, wanted.collect::<Vec<_>>(), "ids that begin with {prefix:?}");
    }
    let two = store.ids("ab", 2).await?;
    same!(two, ["ab".into(), "ab ".into()] as [WorkflowId; 2], "the first two");
    Ok(())
}

pub(super) async fn a_list_is_bounded_by_times(store: &dyn Store) -> Outcome {
    for number in 0..5_i64 {
        let mut new = workflow(&format!("w{number}"), 1);
        new.record.created_at = at(0) + TimeDelta::seconds(number);
        store.submit(vec![new]).await?;
    }
    let second = |number| Some(at(0) + TimeDelta::seconds(number));
    for (since, until, wanted) in [
        (second(3), None, &["w4", "w3"][..]),
        (None, second(2), &["w1", "w0"]),
        (second(1), second(3), &["w2", "w1"]),
        (second(2).map(|it| it + TimeDelta::nanoseconds(1)), second(4), &["w3"]),
        (second(9), None, &[]),
    ] {
        let listed = store.list(ListFilter { since, until, ..ListFilter::default() }).await?;
        let ids: Vec<&str> = listed.iter().map(|summary| summary.id.as_str()).collect();
        same!(ids, wanted, "from {since:?} up to {until:?}");
    }
    Ok(())
}

pub(super) async fn a_settled_workflow_may_be_amended(store: &dyn Store) -> Outcome {
    let new = workflow("a", 2);
    store.submit(vec![new.clone()]).await?;
    let mut spec = WorkflowSpec::clone(&new.record.spec);
    spec.inputs.insert("city".to_owned(), json!("x".repeat(100_000)));
    let spec = Arc::new(spec);
    let id = new.record.id.clone();
    let amendment = |sequence: u64| {
        let inputs = spec.inputs.clone();
        let data = EventData::WorkflowInputsChanged { inputs };
        let event = Event { timestamp: at(9), workflow_id: Some(id.clone()), sequence, data };
        Amendment { id: id.clone(), spec: Arc::clone(&spec), event }
    };
    let last = new.record.last_sequence;
    same!(store.amend(amendment(last + 1)).await?, false, "one that is not settled");
    store.record(vec![settles(&new, WorkflowStatus::Failed, at(5))]).await?;
    let stored = store.workflow(&id).await?.map(|it| (it.last_sequence, it.spec));
    let (last, before) = stored.unwrap_or_else(|| (0, Arc::new(WorkflowSpec::new(""))));
    same!(before, Arc::clone(&new.record.spec), "the submission before");
    same!(store.amend(amendment(last)).await?, false, "an event that is there");
    same!(store.amend(amendment(last + 2)).await?, false, "an event after a gap");
    same!(store.amend(amendment(last + 1)).await?, true, "the next event");
    let stored = store.workflow(&id).await?.map(|it| (it.last_sequence, it.spec));
    same!(stored, Some((last + 1, Arc::clone(&spec))), "the amended workflow");
    let events = store.events(&id, last, 10).await?;
    same!(events, [amendment(last + 1).event], "the event");
    let other = Amendment { id: "nobody".into(), ..amendment(1) };
    same!(store.amend(other).await?, false, "an unknown workflow");
    Ok(())
}

pub(super) async fn settled_workflows_are_deleted(store: &dyn Store) -> Outcome {
    let large = json!({ "text": "x".repeat(100_000) });
    for id in ["a", "b", "open"] {
        let new = workflow(id, 1);
        store.submit(vec![new.clone()]).await?;
        if id == "open" {
            continue;
        }
        let task = completed(&new.record.tasks[0], large.clone());
        let ends = settles(&new, WorkflowStatus::Completed, at(5));
        store.record(vec![WorkflowChange { tasks: vec![task], ..ends }]).await?;
    }
    let ids = ["a", "nobody", "open", "a"].map(WorkflowId::from);
    let answers = store.delete(&ids[..3]).await?;
    let wanted = [Deletion::Deleted, Deletion::Unknown, Deletion::Unsettled];
    same!(answers, wanted, "a settled one, an unknown one, an open one");
    same!(store.delete(&ids[3..]).await?, [Deletion::Unknown], "once more");
    same!(store.delete(&[]).await?, [] as [Deletion; 0], "nothing");
    same!(store.workflow(&ids[0]).await?, None, "the deleted workflow");
    same!(store.events(&ids[0], 0, 10).await?.len(), 0, "its events");
    let left = store.workflow(&"b".into()).await?.and_then(|it| it.tasks[0].result.clone());
    same!(left.as_deref(), Some(&large), "a result that another one refers to");
    // A late write passes it over, and its id is free.
    let late =
        WorkflowChange { workflow: Some(state(WorkflowStatus::Failed)), ..change(&ids[0], 9) };
    store.record(vec![late]).await?;
    same!(store.submit(vec![workflow("a", 2)]).await?, [Submitted::Created], "the id again");
    let again = store.workflow(&ids[0]).await?;
    same!(again.map(|it| (it.tasks.len(), it.status)), Some((2, WorkflowStatus::Pending)), "anew");
    same!(store.workflow(&ids[2]).await?.is_some(), true, "the open workflow");
    Ok(())
}
