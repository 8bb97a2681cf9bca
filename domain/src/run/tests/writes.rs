//! What is written, and when events are published.

use super::*;

/// A dependent or a waiter that hears of an outcome must find it in the store.
#[test]
fn an_outcome_is_published_once_it_is_stored() {
    let mut run = run_of([task("a"), task("b")]);
    begin(&mut run, 0);
    assert_eq!(event_types(&mut run), ["task:queued", "workflow:started", "task:started"]);
    run.finish(0, 1, Ok(json!(1).into()), None, at(3), 0.0);
    begin(&mut run, 1);
    assert_eq!(event_types(&mut run), [""; 0], "what follows an outcome waits with it");
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [0]);
    assert_eq!(event_types(&mut run), [""; 0], "it is being written");
    run.finish(1, 1, Ok(json!(2).into()), None, at(4), 0.0);
    assert!(run.take_change().is_none(), "one write of a workflow at a time");
    run.committed();
    assert_eq!(event_types(&mut run), ["task:completed", "task:queued", "task:started"]);
    assert!(run.is_uncommitted());
    run.take_change().unwrap();
    run.committed();
    assert_eq!(event_types(&mut run), ["task:completed"]);
}

/// Nobody hears of a workflow that is not stored, whatever has become of it by then.
#[test]
fn what_became_of_a_new_run_is_written_with_it() {
    let mut run = new_run_of([task("a"), task("b"), task("c").retry(retrying(3))]);
    complete(&mut run, 0);
    begin(&mut run, 1);
    let attempt = begin(&mut run, 2);
    run.finish(2, attempt, Err(lost()), None, at(3), 0.0);
    begin(&mut run, 2);
    assert_eq!(event_types(&mut run), [""; 0], "nothing of it is stored");
    assert!(run.is_uncommitted() && run.take_change().is_none());
    let new = run.take_new();
    let sequences: Vec<_> = new.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=new.record.last_sequence).collect::<Vec<_>>());
    let stored = |index: usize| (new.record.tasks[index].status, new.record.tasks[index].attempts);
    assert_eq!(stored(0), (Completed, 1));
    assert_eq!(stored(1), (Pending, 0), "a first attempt starts over after a crash");
    assert_eq!(stored(2), (TaskStatus::Executing, 2), "the one before it counts");
    assert_eq!(event_types(&mut run), [""; 0], "it is being written");
    run.committed();
    assert_eq!(event_types(&mut run).len(), sequences.len());
    assert!(!run.is_uncommitted(), "all of it was written");
    run.finish(1, 1, Ok(json!(1).into()), None, at(4), 0.0);
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [1]);
    assert!(change.workflow.is_none(), "its beginning was written before");
}

/// What goes on while a write fails is not lost, and stands behind what was to be written.
#[test]
fn a_new_run_is_taken_again_with_all_its_events() {
    let mut run = new_run_of([task("a"), task("b")]);
    complete(&mut run, 0);
    let refused = run.take_new();
    complete(&mut run, 1);
    run.was_not_stored(refused.events);
    assert_eq!(event_types(&mut run), [""; 0]);
    let new = run.take_new();
    let sequences: Vec<_> = new.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=new.record.last_sequence).collect::<Vec<_>>());
    assert!(new.record.tasks.iter().all(|task| task.status == Completed));
}

/// A history has no gaps and nothing twice, however writes and steps interleave.
#[test]
fn changes_join_without_a_gap() {
    let mut run = run_of([task("a"), task("b"), task("c")]);
    let mut sequences = Vec::new();
    for index in 0..3 {
        complete(&mut run, index);
        let change = run.take_change().unwrap();
        sequences.extend(change.events.iter().map(|event| event.sequence));
        assert_eq!(change.last_sequence, *sequences.last().unwrap());
        run.committed();
    }
    // The first one was written with the submission.
    assert_eq!(sequences, (2..=run.record().last_sequence).collect::<Vec<_>>());
}

/// After a crash the workflow must not be told to begin once more.
#[test]
fn the_beginning_is_stored_with_the_first_outcome() {
    let mut run = run_of([task("a"), task("b")]);
    begin(&mut run, 0);
    assert!(!run.is_uncommitted(), "a start alone is not worth a write");
    run.finish(0, 1, Ok(json!(1).into()), None, at(3), 0.0);
    let state = run.take_change().unwrap().workflow.unwrap();
    assert_eq!((state.status, state.started_at), (WorkflowStatus::Running, Some(at(2))));
    run.committed();
    complete(&mut run, 1);
    assert_eq!(run.take_change().unwrap().workflow, None, "it is stored once");
    run.committed();
    let mut again =
        Run::resume(Arc::clone(run.plan()), SubscriberCount::default(), run.into_record());
    assert!(again.conclude(at(9)));
    let types: Vec<_> =
        again.take_change().unwrap().events.iter().map(|e| e.data.event_type()).collect();
    assert_eq!(types, ["workflow:completed"]);
}

/// A task that changed twice before a write is written once, as it is.
#[test]
fn a_change_names_a_task_once() {
    let mut run =
        run_of([task("a").retry(retrying(2)), task("b"), task("c"), task("d"), task("e")]);
    begin(&mut run, 0);
    run.finish(0, 1, Err(lost()), None, at(3), 0.0);
    for index in 1..5 {
        complete(&mut run, index);
    }
    run.queue(0, at(8)).unwrap();
    run.start(0, "p".into(), at(8)).unwrap();
    run.finish(0, 2, Ok(json!(1).into()), None, at(9), 0.0);
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(change.tasks[0].status, TaskStatus::Completed);
}

/// A clock that is set right meanwhile does not turn the order of events round.
#[test]
fn events_never_go_back_in_time() {
    let mut run = new_run_of([task("a")]);
    run.queue(0, at(50)).unwrap();
    run.start(0, "p".into(), at(20)).unwrap();
    let events = run.take_new().events;
    assert!(events.is_sorted_by_key(|event| event.timestamp), "{events:?}");
}

/// All of it, so that nothing lies before its own beginning.
#[test]
fn a_run_that_was_started_by_a_wrong_clock_is_moved_whole() {
    let mut run = new_run_of([task("a")]);
    complete(&mut run, 0);
    run.shift(TimeDelta::seconds(-100));
    let NewWorkflow { record, events, .. } = run.take_new();
    assert_eq!((record.created_at, record.started_at), (at(-100), Some(at(-98))));
    assert_eq!(record.tasks[0].completed_at, Some(at(-97)));
    let times: Vec<i64> = events.iter().map(|event| event.timestamp.timestamp()).collect();
    assert_eq!(times, [-100, -99, -98, -98, -97]);
}

/// Events are kept for listeners only while there are some; the store gets them all.
#[test]
fn nothing_is_kept_for_listeners_that_are_not_there() {
    let mut run = run_of([task("a")]);
    run.subscribers.set(0);
    complete(&mut run, 0);
    let change = run.take_change().unwrap();
    assert_eq!(change.events.len(), 4);
    run.committed();
    assert_eq!(event_types(&mut run), [""; 0]);
}

/// What was recovered leaves a trace, which is written with the next change and not by itself.
#[test]
fn a_recovery_is_written_with_the_next_change() {
    let mut run = cut_off(retrying(3), 1);
    assert!(run.take_change().is_none());
    let attempt = begin(&mut run, 0);
    assert_eq!(attempt, 2);
    run.finish(0, attempt, Ok(json!(1).into()), None, at(10), 0.0);
    let change = run.take_change().unwrap();
    let event_types: Vec<_> = change.events.iter().map(|event| event.data.event_type()).collect();
    assert_eq!(
        event_types,
        [
            "workflow:recovered",
            "task:interrupted",
            "task:queued",
            "workflow:started",
            "task:started",
            "task:completed"
        ]
    );
}

/// The start of a long call is a row of its task, and tells that the workflow runs; once.
#[test]
fn a_long_start_is_written_by_itself() {
    let mut run = run_of([task("a"), task("b")]);
    begin(&mut run, 0);
    assert!(run.take_change().is_none(), "a start alone is not worth a write");
    run.record_start(0);
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks.len(), 1);
    assert_eq!(change.tasks[0].status, TaskStatus::Executing);
    assert_eq!(change.workflow.map(|state| state.status), Some(WorkflowStatus::Running));
    run.committed();
    begin(&mut run, 1);
    run.record_start(1);
    assert_eq!(run.take_change().unwrap().workflow, None);
}
