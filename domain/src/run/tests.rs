use proptest::prelude::*;
use serde_json::json;

use super::{measure::json_size, *};
use crate::{
    plan::{Draft, PlanDefaults},
    protocol::{Effect, MethodSpec, ProtocolSpec, catalog::ProtocolCatalog},
    retry::{AnyError, Backoff, RetryOn, RetryPolicy},
    task::TaskStatus::{Cancelled, Completed, Failed, Pending, Skipped},
    workflow::{TaskSpec, WorkflowSpec},
};

fn catalog() -> ProtocolCatalog {
    let open = |name: &str| MethodSpec { additional_params: true, ..MethodSpec::new(name) };
    let test = ProtocolSpec::new("test", "v1.0".parse().unwrap())
        .method(open("run"))
        .method(MethodSpec { effect: Effect::AtMostOnce, ..open("once") });
    let mut catalog = ProtocolCatalog::new();
    catalog.register(test).unwrap();
    catalog
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn retrying(max_attempts: u32) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        backoff: Backoff::Fixed,
        jitter: false,
        base_delay: Duration::from_secs(5),
        ..RetryPolicy::default()
    }
}

/// A run of these tasks that is not stored, with somebody listening.
fn new_run_of(tasks: impl IntoIterator<Item = TaskSpec>) -> Run {
    let spec = tasks.into_iter().fold(WorkflowSpec::new("w").id("w"), WorkflowSpec::task);
    let plan = Draft::new(spec).unwrap().plan(&catalog(), &PlanDefaults::default()).unwrap();
    let subscribers = SubscriberCount::default();
    subscribers.set(1);
    Run::new(Arc::new(plan), subscribers, at(0))
}

/// The same, stored.
fn run_of(tasks: impl IntoIterator<Item = TaskSpec>) -> Run {
    let mut run = new_run_of(tasks);
    run.take_new();
    run.committed();
    event_types(&mut run);
    run
}

fn task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "test/run")
}

/// The events that may be told now, by type.
fn event_types(run: &mut Run) -> Vec<&'static str> {
    let mut events = Vec::new();
    run.release_events(&mut events);
    events.iter().map(|event| event.data.event_type()).collect()
}

fn begin(run: &mut Run, index: u32) -> u32 {
    run.queue(index, at(1)).unwrap();
    run.start(index, "p".into(), at(2)).unwrap()
}

fn complete(run: &mut Run, index: u32) -> AttemptOutcome {
    let attempt = begin(run, index);
    run.finish(index, attempt, Ok(json!({"n": 1}).into()), None, at(3), 0.0)
}

fn lost() -> TaskError {
    TaskError::new(ErrorCode::ConnectionLost, "cut")
}

fn statuses(run: &Run) -> Vec<TaskStatus> {
    run.record().tasks.iter().map(|task| task.status).collect()
}

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
    assert_eq!(stored(1), (Pending, 0), "a first attempt begins anew after a crash");
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

/// Whoever answers late, for an attempt that is over, changes nothing.
#[test]
fn stale_ends_change_nothing() {
    let mut run = run_of([task("a").retry(retrying(3))]);
    assert_eq!(run.finish(0, 1, Ok(json!(1).into()), None, at(1), 0.0), AttemptOutcome::Stale);
    let first = begin(&mut run, 0);
    let pause = Duration::from_secs(5);
    assert_eq!(run.finish(0, first, Err(lost()), None, at(3), 0.0), AttemptOutcome::Retry(pause));
    assert_eq!(run.finish(0, first, Ok(json!(1).into()), None, at(3), 0.0), AttemptOutcome::Stale);
    let second = begin(&mut run, 0);
    assert_eq!(run.finish(0, first, Ok(json!(1).into()), None, at(4), 0.0), AttemptOutcome::Stale);
    let done = run.finish(0, second, Ok(json!(2).into()), None, at(5), 0.0);
    assert_eq!(done, AttemptOutcome::Settled(true));
    assert_eq!(run.finish(0, second, Err(lost()), None, at(6), 0.0), AttemptOutcome::Stale);
    assert_eq!(run.task(0).result.as_deref(), Some(&json!(2)));
    assert_eq!(run.unsettled(), 0);
}

/// A retry has a time that a restart can keep, and its error is there to be looked at.
#[test]
fn a_pending_retry_is_written_with_its_time() {
    let mut run = run_of([task("a").retry(retrying(2))]);
    begin(&mut run, 0);
    run.finish(0, 1, Err(lost()), Some(Duration::from_millis(1500)), at(10), 0.0);
    let change = run.take_change().unwrap();
    let stored = &change.tasks[0];
    assert_eq!((stored.status, stored.due_at), (TaskStatus::RetryPending, Some(at(15))));
    assert_eq!((stored.attempts, stored.duration), (1, Some(1.5)));
    assert_eq!(stored.error.as_ref().unwrap().code, ErrorCode::ConnectionLost);
    run.committed();
    assert!(event_types(&mut run).contains(&"task:retry_scheduled"));
    run.queue(0, at(15)).unwrap();
    assert_eq!(run.task(0).due_at, None);
}

/// Attempts that were used up are told as such, also where the policy repeats what would not
/// repeat itself; a single attempt fails with its own error.
#[test]
fn used_up_attempts_are_reported_with_the_last_error() {
    let any = RetryPolicy { retry_on: RetryOn::Any(AnyError::Any), ..retrying(2) };
    for (policy, error) in [(retrying(2), lost()), (any, TaskError::failed("ValueError"))] {
        let mut run = run_of([task("a").retry(policy)]);
        begin(&mut run, 0);
        assert!(matches!(
            run.finish(0, 1, Err(error.clone()), None, at(3), 0.0),
            AttemptOutcome::Retry(_)
        ));
        begin(&mut run, 0);
        let outcome = run.finish(0, 2, Err(error.clone()), None, at(4), 0.0);
        assert_eq!(outcome, AttemptOutcome::Settled(false));
        let last = run.task(0).error.clone().unwrap();
        assert_eq!(last.code, ErrorCode::TaskRetryExhausted);
        let data = last.data.clone().unwrap();
        assert_eq!(
            (&data["attempts"], &data["last_error"]["name"]),
            (&json!(2), &json!(error.code.name()))
        );
    }
    let mut run = run_of([task("a")]);
    begin(&mut run, 0);
    run.finish(0, 1, Err(lost()), None, at(3), 0.0);
    assert_eq!(run.task(0).error.as_ref().unwrap().code, ErrorCode::ConnectionLost);
}

/// A call that must not run twice is repeated only where nobody can have seen it: it had not
/// begun, or its provider says so.
#[test]
fn a_call_that_must_not_run_twice_is_not_repeated() {
    let once = || run_of([TaskSpec::new("a", "test/once").retry(retrying(3))]);
    let mut run = once();
    begin(&mut run, 0);
    let outcome = run.finish(0, 1, Err(lost()), None, at(3), 0.0);
    assert_eq!(outcome, AttemptOutcome::Settled(false));
    assert_eq!(run.task(0).error.as_ref().unwrap().code, ErrorCode::ConnectionLost);

    let mut run = once();
    run.queue(0, at(1)).unwrap();
    let refused = TaskError::new(ErrorCode::ProviderNotAvailable, "none");
    assert!(matches!(run.finish(0, 1, Err(refused), None, at(2), 0.0), AttemptOutcome::Retry(_)));

    let mut run = once();
    begin(&mut run, 0);
    let busy = lost().retry_after(Duration::from_secs(7));
    let outcome = run.finish(0, 1, Err(busy), None, at(3), 0.0);
    assert_eq!(outcome, AttemptOutcome::Retry(Duration::from_secs(7)));
}

/// What was cut off with the lease is in line again, and its attempt counts; what must not run twice
/// waits for a person. A late end of the old attempt changes nothing.
#[test]
fn an_interrupted_attempt_is_repeated_unless_it_must_not_be() {
    let mut run = run_of([task("a"), TaskSpec::new("b", "test/once")]);
    let attempt = begin(&mut run, 0);
    begin(&mut run, 1);
    assert_eq!(run.cut_off(0, attempt, at(3)), Interruption::Queued);
    assert_eq!(run.cut_off(0, attempt, at(3)), Interruption::Stale);
    assert_eq!(
        run.finish(0, attempt, Ok(json!(1).into()), None, at(4), 0.0),
        AttemptOutcome::Stale
    );
    assert_eq!(run.start(0, "p".into(), at(5)), Ok(2));
    assert_eq!(run.cut_off(1, 1, at(3)), Interruption::Unknown);
    assert_eq!(run.task(1).status, TaskStatus::OutcomeUnknown);
}

/// What did not begin loses nothing by it.
#[test]
fn an_attempt_that_was_held_back_keeps_its_number() {
    let mut run = run_of([task("a")]);
    run.queue(0, at(1)).unwrap();
    assert_eq!(run.hold_back(0, 1, at(2)), Interruption::Queued);
    assert_eq!(run.start(0, "p".into(), at(3)), Ok(1));
    run.cancel_task(0, &"enough".into(), at(4));
    assert_eq!(run.hold_back(0, 1, at(5)), Interruption::Stale);
}

/// A start that is stored and was not followed by a call leaves no doubt behind.
#[test]
fn a_stored_start_without_a_call_is_taken_back() {
    let mut run = run_of([TaskSpec::new("a", "test/once")]);
    let attempt = begin(&mut run, 0);
    run.save_start(0);
    assert_eq!(run.take_change().unwrap().tasks[0].status, TaskStatus::Executing);
    run.committed();
    assert_eq!(run.hold_back(0, attempt, at(3)), Interruption::Queued);
    assert_eq!(run.take_change().unwrap().tasks[0].status, TaskStatus::Queued);
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

/// Calls with an effect are counted from their end until a write takes them, bytes of all calls.
#[test]
fn ended_calls_count_until_they_are_written() {
    let mut run = run_of([task("a"), task("b"), task("c")]);
    complete(&mut run, 0);
    let one = run.unstored();
    assert_eq!(one.calls, 1);
    assert!(one.bytes > 7);
    run.queue(1, at(1)).unwrap();
    run.finish(1, 1, Err(TaskError::failed("no such file")), None, at(2), 0.0);
    assert_eq!(run.unstored().calls, 1, "the call had not begun");
    run.take_change().unwrap();
    assert_eq!(run.take_unstored().calls, 1);
    assert_eq!(run.unstored(), Unstored::default());
}

/// A result or an error that no store could hold fails the task, with what to do.
#[test]
fn results_and_errors_are_bounded() {
    let mut run = run_of([task("a"), task("b")]);
    run.limit_results(100);
    let attempt = begin(&mut run, 0);
    let long = json!({"text": "x".repeat(100)});
    run.finish(0, attempt, Ok(long.clone().into()), None, at(3), 0.0);
    let error = run.task(0).error.clone().unwrap();
    assert_eq!((error.code, run.task(0).status), (ErrorCode::TaskResultInvalid, Failed));
    assert!(error.message.contains("engine.max_result_mb"), "{error}");
    let attempt = begin(&mut run, 1);
    let error = TaskError::failed("é".repeat(1_000_000)).with_data(long);
    run.finish(1, attempt, Err(error), None, at(3), 0.0);
    let error = run.task(1).error.clone().unwrap();
    assert!(error.message.len() < 70_000 && error.message.ends_with("… (2000000 bytes)"));
    assert_eq!(error.data, None);
}

/// What is stored and large is not kept, except of what has ended.
#[test]
fn large_results_are_dropped_once_they_are_stored() {
    let large = || json!(vec!["x".repeat(9_000); 2]);
    let mut run = run_of([task("a"), task("b"), task("c")]);
    run.drop_stored_results();
    for index in 0..2 {
        let attempt = begin(&mut run, index);
        let value = if index == 0 { large() } else { json!(1) };
        run.finish(index, attempt, Ok(value.into()), None, at(3), 0.0);
    }
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks[0].result.as_deref(), Some(&large()));
    assert!(run.task(0).result.is_some() && !run.is_lean(), "it is not stored yet");
    run.committed();
    assert!(run.task(0).result.is_none() && run.is_lean());
    assert_eq!(run.task(1).result.as_deref(), Some(&json!(1)));
    let attempt = begin(&mut run, 2);
    run.finish(2, attempt, Ok(large().into()), None, at(3), 0.0);
    run.conclude(at(4));
    run.take_change().unwrap();
    run.committed();
    assert!(run.task(2).result.is_some(), "it has ended");
}

fn nested(depth: u32) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

/// What could not be read back is no result; stored, it would keep its workflow from recovery.
#[test]
fn a_result_that_is_nested_too_deeply_fails_its_task() {
    let mut run = run_of([task("a"), task("b"), task("c")]);
    begin(&mut run, 0);
    let deep = Ok(nested(NESTING_MAX).into());
    assert_eq!(run.finish(0, 1, deep, None, at(3), 0.0), AttemptOutcome::Settled(true));
    begin(&mut run, 1);
    let deeper = Ok(nested(NESTING_MAX + 1).into());
    assert_eq!(run.finish(1, 1, deeper, None, at(3), 0.0), AttemptOutcome::Settled(false));
    let error = run.task(1).error.clone().unwrap();
    assert_eq!((error.code, run.task(1).result.clone()), (ErrorCode::TaskResultInvalid, None));
    begin(&mut run, 2);
    let error = TaskError::failed("bad").with_data(nested(NESTING_MAX + 1));
    run.finish(2, 1, Err(error), None, at(3), 0.0);
    let error = run.task(2).error.clone().unwrap();
    assert_eq!((error.message.as_ref(), &error.data), ("bad", &None));
}

/// The size is that of compact JSON, so that a reader can tell a large result before it asks.
#[test]
fn sizes_are_those_of_compact_json() {
    let values = [
        json!(null),
        json!([true, false, 0, 7, 10, 12_345, -3, 1.5]),
        json!({"a": [], "b": {}, "key": ["x", "yz"]}),
        json!([[], {}]),
        json!({"q\"uo": "a\\b\n\r\t\u{1}\u{8}\u{c}\u{1f}é\u{7f}"}),
    ];
    for value in values {
        assert_eq!(json_size(&value, 10), Some(value.to_string().len() as u64), "{value}");
    }
}

/// A skipped task names the one that failed, whatever stands between them.
#[test]
fn tasks_that_never_ran_name_their_cause() {
    let mut run = run_of([task("a"), task("b"), task("c")]);
    begin(&mut run, 0);
    run.finish(0, 1, Err(TaskError::failed("bad")), None, at(3), 0.0);
    run.skip(1, 0, at(3));
    run.fail_dependency(2, 0, at(3));
    assert_eq!(statuses(&run), [Failed, Skipped, Failed]);
    for index in [1, 2] {
        let error = run.task(index).error.clone().unwrap();
        assert_eq!(error.code, ErrorCode::TaskDependencyFailed);
        assert_eq!(error.data.as_ref().unwrap()["failed_task_id"], "a");
    }
    // Told a second time, as after a restart: nothing happens.
    let before = run.record().last_sequence;
    run.skip(1, 0, at(4));
    run.fail_dependency(2, 0, at(4));
    assert_eq!((run.record().last_sequence, run.unsettled()), (before, 0));
}

/// A workflow ends with the first failure, not with the lowest place.
#[test]
fn a_workflow_fails_with_its_first_failure() {
    let mut run = run_of([task("a"), task("b")]);
    assert!(!run.conclude(at(1)), "tasks are open");
    begin(&mut run, 1);
    run.finish(1, 1, Err(TaskError::failed("second place")), None, at(3), 0.0);
    begin(&mut run, 0);
    run.finish(0, 1, Err(TaskError::failed("first place")), None, at(4), 0.0);
    assert!(run.conclude(at(6)));
    assert!(!run.conclude(at(7)), "it ends once");
    let record = run.record();
    assert_eq!((record.status, record.completed_at), (WorkflowStatus::Failed, Some(at(6))));
    let error = record.error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::WorkflowExecutionFailed);
    assert!(error.message.contains("task `b` is failed"), "{error}");
    assert!(!run.is_done(), "it is not written");
    run.take_change().unwrap();
    run.committed();
    assert!(run.is_done());
}

/// Each cause of a stop has its status, its code and its event; what is settled stays.
#[test]
fn a_stop_settles_everything_that_is_open() {
    let reason: Arc<str> = "enough".into();
    let limit = Duration::from_mins(1);
    let causes = [
        (StopCause::Cancelled { reason }, WorkflowStatus::Cancelled, ErrorCode::WorkflowCancelled),
        (StopCause::TimedOut { limit }, WorkflowStatus::TimedOut, ErrorCode::WorkflowTimeout),
    ];
    for (cause, status, code) in causes {
        let mut run = run_of([task("done"), task("runs"), task("waits"), task("queued")]);
        complete(&mut run, 0);
        begin(&mut run, 1);
        run.queue(3, at(2)).unwrap();
        let epoch = run.signal().epoch();
        assert!(run.stop(&cause, at(9)));
        assert!(run.signal().epoch() > epoch, "attempts under way are told");
        assert!(!run.stop(&cause, at(10)), "it stops once");
        assert_eq!(statuses(&run), [Completed, Cancelled, Cancelled, Cancelled]);
        assert_eq!((run.record().status, run.unsettled()), (status, 0));
        assert_eq!(run.record().error.as_ref().unwrap().code, code);
        run.take_change().unwrap();
        run.committed();
        let types = event_types(&mut run);
        let timeouts = types.iter().filter(|it| **it == "task:timeout").count();
        let expected = usize::from(status == WorkflowStatus::TimedOut);
        assert_eq!(timeouts, expected, "the one that was executing: {types:?}");
        assert_eq!(run.finish(1, 1, Ok(json!(1).into()), None, at(11), 0.0), AttemptOutcome::Stale);
    }
}

/// A task that ran out of its whole time is not tried again.
#[test]
fn a_task_that_ran_out_of_time_has_failed() {
    let mut run = run_of([task("a").retry(retrying(9))]);
    let attempt = begin(&mut run, 0);
    run.time_out(0, Duration::from_secs(3), at(5));
    assert_eq!(statuses(&run), [TaskStatus::Failed]);
    assert_eq!(run.task(0).error.as_ref().unwrap().code, ErrorCode::TaskTimeout);
    assert_eq!(
        run.finish(0, attempt, Ok(json!(1).into()), None, at(6), 0.0),
        AttemptOutcome::Stale
    );
}

/// Opened again, a workflow runs what did not complete, from its first attempt, and only that.
#[test]
fn a_reopened_workflow_keeps_what_completed() {
    let mut run = run_of([task("good"), task("bad"), task("behind")]);
    complete(&mut run, 0);
    begin(&mut run, 1);
    run.finish(1, 1, Err(TaskError::failed("bad")), None, at(3), 0.0);
    run.skip(2, 1, at(3));
    run.conclude(at(4));
    run.take_change().unwrap();
    run.committed();
    assert!(run.reopen());
    assert_eq!(statuses(&run), [Completed, Pending, Pending]);
    assert_eq!((run.unsettled(), run.task(1).attempts, run.task(1).error.clone()), (2, 0, None));
    assert_eq!((run.record().status, run.record().completed_at), (WorkflowStatus::Running, None));
    let change = run.take_change().unwrap();
    assert_eq!(change.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [1, 2]);
    run.committed();
    complete(&mut run, 1);
    complete(&mut run, 2);
    assert!(run.conclude(at(9)));
    assert_eq!(run.record().status, WorkflowStatus::Completed);
    assert!(!run.reopen(), "there is nothing left to be run");
}

/// A call that may have had its effect waits for a person, and is not counted as settled.
#[test]
fn an_unknown_outcome_keeps_the_workflow_open() {
    let mut run = run_of([TaskSpec::new("a", "test/once")]);
    begin(&mut run, 0);
    run.save_start(0);
    let stored = run.take_change().unwrap().tasks.remove(0);
    assert_eq!((stored.status, stored.attempts), (TaskStatus::Executing, 1));
    let mut again =
        Run::resume(Arc::clone(run.plan()), SubscriberCount::default(), run.into_record());
    again.outcome_unknown(0, at(9));
    again.outcome_unknown(0, at(9));
    assert_eq!((statuses(&again), again.unsettled()), (vec![TaskStatus::OutcomeUnknown], 1));
    assert!(!again.conclude(at(10)));
    let types: Vec<_> =
        again.take_change().unwrap().events.iter().map(|e| e.data.event_type()).collect();
    assert_eq!(types, ["task:outcome_unknown"]);
    assert!(again.cancel_task(0, &"seen to".into(), at(11)));
    assert!(again.conclude(at(12)));
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

/// A step that someone may take at any time.
#[derive(Debug, Clone, Copy)]
enum Step {
    Queue(u32),
    Start(u32),
    Finish(u32, u32, bool),
    Skip(u32, u32),
    Cancel(u32),
    TimeOut(u32),
    Unknown(u32),
    Conclude,
    Stop,
    Interrupt(u32, u32),
    Take,
    Committed,
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0..4_u32;
    prop_oneof![
        4 => index.clone().prop_map(Step::Queue),
        4 => index.clone().prop_map(Step::Start),
        4 => (index.clone(), 1..4_u32, any::<bool>()).prop_map(|(i, n, ok)| Step::Finish(i, n, ok)),
        1 => (index.clone(), 0..4_u32).prop_map(|(i, because)| Step::Skip(i, because)),
        1 => index.clone().prop_map(Step::Cancel),
        1 => index.clone().prop_map(Step::TimeOut),
        1 => (index.clone(), 1..4_u32).prop_map(|(i, n)| Step::Interrupt(i, n)),
        1 => index.prop_map(Step::Unknown),
        2 => Just(Step::Conclude),
        1 => Just(Step::Stop),
        3 => Just(Step::Take),
        3 => Just(Step::Committed),
    ]
}

fn take(run: &mut Run, step: Step) {
    match step {
        Step::Queue(index) => drop(run.queue(index, at(1))),
        Step::Start(index) => drop(run.start(index, "p".into(), at(1))),
        Step::Finish(index, attempt, ok) => {
            // An attempt that has not begun gives no result.
            let begun = run.task(index).status == TaskStatus::Executing;
            let outcome = if ok && begun { Ok(json!(1).into()) } else { Err(lost()) };
            run.finish(index, attempt, outcome, None, at(1), 0.0);
        }
        // Only what has not begun is decided by another task.
        Step::Skip(index, because) if run.task(index).status == TaskStatus::Pending => {
            run.skip(index, because, at(1));
        }
        Step::Cancel(index) => drop(run.cancel_task(index, &"enough".into(), at(1))),
        Step::TimeOut(index) if !run.task(index).status.is_settled() => {
            run.time_out(index, Duration::from_secs(1), at(1));
        }
        Step::Interrupt(index, attempt) => drop(run.cut_off(index, attempt, at(1))),
        Step::Unknown(index) => run.outcome_unknown(index, at(1)),
        Step::Conclude => drop(run.conclude(at(1))),
        Step::Stop => drop(run.stop(&StopCause::Cancelled { reason: "enough".into() }, at(1))),
        Step::Skip(..) | Step::TimeOut(_) | Step::Take | Step::Committed => {}
    }
}

proptest! {
    /// Whatever happens in whatever order: tasks step along the table, counts are exact, sequences
    /// have no gap, and nobody hears of an outcome that is not stored.
    #[test]
    fn no_order_of_steps_breaks_a_run(steps in prop::collection::vec(step(), 0..120)) {
        let tasks = ["a", "b", "c", "d"].map(|id| task(id).retry(retrying(2)));
        let mut run = run_of(tasks);
        let mut stored = 1;
        let mut taken = None;
        let mut expected = 1;
        for step in steps {
            let before = statuses(&run);
            match step {
                Step::Take => if let Some(change) = run.take_change() {
                    for event in &change.events {
                        prop_assert!(event.sequence > stored);
                    }
                    let first = change.events.first().map_or(stored + 1, |event| event.sequence);
                    prop_assert_eq!(first, stored + 1);
                    for task in &change.tasks {
                        prop_assert_eq!(task, run.task(task.index));
                    }
                    taken = Some(change.last_sequence);
                },
                Step::Committed => if let Some(last) = taken.take() {
                    stored = last;
                    run.committed();
                },
                step => take(&mut run, step),
            }
            for (from, to) in before.into_iter().zip(statuses(&run)) {
                prop_assert!(from == to || from.can_become(to), "{} to {}", from, to);
            }
            let open = statuses(&run).iter().filter(|status| !status.is_settled()).count();
            prop_assert_eq!(run.unsettled() as usize, open);
            let mut events = Vec::new();
            run.release_events(&mut events);
            for event in events {
                expected += 1;
                prop_assert_eq!(event.sequence, expected);
                let is_outcome = matches!(
                    event.data.event_type(),
                    "task:completed" | "task:failed" | "task:cancelled" | "task:skipped"
                        | "workflow:completed" | "workflow:failed" | "workflow:cancelled"
                );
                prop_assert!(!is_outcome || event.sequence <= stored, "{:?}", event);
            }
        }
    }
}

/// A task as a store has it whose call was cut off in this attempt, taken up by another process.
fn cut_off(policy: RetryPolicy, attempt: u32) -> Run {
    let run = run_of([task("a").retry(policy)]);
    let (plan, mut record) = (Arc::clone(run.plan()), run.into_record());
    record.tasks[0].attempts = attempt;
    let mut run = Run::resume(plan, SubscriberCount::default(), record);
    run.recovered(&"successor".into(), Epoch(7), Epoch(4), at(9));
    run.interrupted(0, at(9));
    run
}

/// A task that ends its process each time must come to an end; a crash is not the failure of a task
/// that is to be tried once.
#[test]
fn an_attempt_that_was_cut_off_counts() {
    for (max_attempts, attempt, status) in [
        (3, 2, Pending),
        (3, 3, Failed),
        (1, 1, Pending),
        (1, CUT_OFF_MAX - 1, Pending),
        (1, CUT_OFF_MAX, Failed),
    ] {
        let run = cut_off(retrying(max_attempts), attempt);
        assert_eq!(run.task(0).status, status, "attempt {attempt} of {max_attempts}");
        let error = run.task(0).error.as_ref().map(|error| error.code);
        assert_eq!(error, (status == Failed).then_some(ErrorCode::TaskRetryExhausted));
    }
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

/// An error may hold as much as a result, and takes the same room until it is stored.
#[test]
fn the_data_of_an_error_counts_as_what_is_not_stored() {
    let mut run = run_of([task("a"), task("b").retry(retrying(2))]);
    for index in 0..2 {
        let attempt = begin(&mut run, index);
        let error = lost().with_data(json!("x".repeat(10_000)));
        run.finish(index, attempt, Err(error), None, at(3), 0.0);
        assert!(run.unstored().bytes > 10_000 * u64::from(index + 1), "{:?}", run.unstored());
    }
}
