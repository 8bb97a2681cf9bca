//! Cancelled, timed out and reopened runs.

use super::*;

/// A skipped task names the one that failed, whatever stands between them.
#[test]
fn tasks_that_never_ran_name_their_cause() {
    let mut run = run_of([task("a"), task("b"), task("c")]);
    begin(&mut run, 0);
    run.finish(0, 1, Err(TaskError::failed("bad")), None, at(3), 0.0);
    run.upstream_failed(1, 0, at(3));
    run.fail_dependency(2, 0, at(3));
    assert_eq!(statuses(&run), [Failed, UpstreamFailed, Failed]);
    for index in [1, 2] {
        let error = run.task(index).error.clone().unwrap();
        assert_eq!(error.code, ErrorCode::TaskDependencyFailed);
        assert_eq!(error.data.as_ref().unwrap()["failed_task_id"], "a");
    }
    // Told a second time, as after a restart: nothing happens.
    let before = run.record().last_sequence;
    run.upstream_failed(1, 0, at(4));
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
        assert!(run.signal().epoch() > epoch, "attempts under way are notified");
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
    run.upstream_failed(2, 1, at(3));
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
