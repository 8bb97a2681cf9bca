mod sizes;
mod stops;
mod writes;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{measure::json_size, *};
use crate::{
    error::{ErrorCode, TaskError},
    plan::{Draft, PlanDefaults},
    protocol::{Effect, MethodSpec, ProtocolSpec, catalog::ProtocolCatalog},
    retry::{AnyError, Backoff, RetryOn, RetryPolicy},
    store::NewWorkflow,
    task::TaskStatus::{Cancelled, Completed, Failed, Pending, UpstreamFailed},
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

/// Attempts that were used up are reported as such, also where the policy repeats what would not
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
            run.upstream_failed(index, because, at(1));
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
                    "task:completed" | "task:failed" | "task:cancelled" | "task:upstream_failed"
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
