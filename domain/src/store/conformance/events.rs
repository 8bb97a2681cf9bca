//! The history of a workflow has no gap, however it was written and however it is read.

use super::{
    Outcome, same,
    sample::{change, events, workflow},
    shorten,
};
use crate::store::{Store, WorkflowChange};

pub(super) async fn events_are_read_in_order_and_in_parts(store: &dyn Store) -> Outcome {
    let new = workflow("history", 1);
    let id = new.record.id.clone();
    store.submit(vec![new, workflow("other", 1)]).await?;
    let next = WorkflowChange { events: events(&id, 2, 9), ..change(&id, 10) };
    store.record(vec![next]).await?;
    for after in 0..12 {
        for limit in [0, 1, 3, 100] {
            let expected: Vec<_> = events(&id, 1, 10)
                .into_iter()
                .filter(|event| event.sequence > after)
                .take(limit)
                .collect();
            let events_read = store.events(&id, after, limit).await?;
            same!(events_read, expected, "events after {after}, at most {limit}");
        }
    }
    same!(store.events(&id, u64::MAX, 10).await?, [], "events after the last one there can be");
    let other = "other".into();
    same!(store.events(&other, 0, 10).await?, events(&other, 1, 1), "another's events");
    let last = store.workflow(&id).await?.map(|record| record.last_sequence);
    same!(last, Some(10), "the last sequence");
    Ok(())
}

pub(super) async fn events_may_be_written_in_any_portions(store: &dyn Store) -> Outcome {
    let new = workflow("portions", 1);
    let id = new.record.id.clone();
    store.submit(vec![new]).await?;
    let mut last = 1;
    for portion in (0..40).map(|turn| turn % 7 * (turn % 3)) {
        let next = WorkflowChange {
            events: events(&id, last + 1, portion),
            ..change(&id, last + portion)
        };
        last += portion;
        store.record(vec![next]).await?;
    }
    same!(store.events(&id, 0, 10_000).await?, events(&id, 1, last), "the history");
    for after in [1, 5, last - 1, last] {
        let events_read = store.events(&id, after, 10_000).await?;
        same!(events_read, events(&id, after + 1, last - after), "the history after {after}");
    }
    Ok(())
}

pub(super) async fn the_last_sequence_is_kept_without_events(store: &dyn Store) -> Outcome {
    let new = workflow("silent", 1);
    let id = new.record.id.clone();
    store.submit(vec![new]).await?;
    store.record(vec![change(&id, 7)]).await?;
    let last = store.workflow(&id).await?.map(|record| record.last_sequence);
    same!(last, Some(7), "the last sequence of a change without events");
    let at_recovery: Vec<_> =
        store.unsettled().await?.iter().map(|record| record.last_sequence).collect();
    same!(at_recovery, [7], "the last sequence at recovery");
    Ok(())
}
