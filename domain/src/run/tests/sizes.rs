//! Bounds on results and errors.

use super::*;

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

/// Its start was being written as a call ended: that write does not hold the result, so the result
/// must reach the next one.
#[test]
fn a_result_is_kept_until_a_write_holds_it() {
    let large = || json!(vec!["x".repeat(9_000); 2]);
    for is_new in [false, true] {
        let mut run = if is_new { new_run_of } else { run_of }([task("a"), task("b")]);
        run.drop_stored_results();
        begin(&mut run, 0);
        run.record_start(0);
        if is_new {
            run.take_new();
        } else {
            assert_eq!(run.take_change().unwrap().tasks[0].status, TaskStatus::Executing);
        }
        run.finish(0, 1, Ok(large().into()), None, at(3), 0.0);
        run.committed();
        assert!(!run.is_lean(), "no write holds the result");
        let change = run.take_change().unwrap();
        assert_eq!(change.tasks[0].status, Completed);
        assert_eq!(change.tasks[0].result.as_deref(), Some(&large()));
        run.committed();
        assert!(run.task(0).result.is_none() && run.is_lean());
    }
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
