//! Retries: how often, when, and of which errors. Every time is one of the paused clock.

use std::time::Duration;

use gleitzeit_domain::{
    error::ErrorCode,
    event::EventData,
    random::Random,
    retry::{
        Backoff::{Exponential, Fixed, Linear},
        RetryOn, RetryPolicy,
    },
    task::TaskStatus::{Completed, Failed},
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::json;

use crate::support::{Harness, Setup, assert_at, code, of, quick, retries, secs, statuses, task};

/// Runs one task with a policy; when each of its attempts began.
async fn times(
    harness: &mut Harness,
    script: serde_json::Value,
    policy: RetryPolicy,
) -> Vec<Duration> {
    let begun = harness.script.now();
    let known = harness.script.calls_of("t").len();
    let spec = WorkflowSpec::new("retries").task(task("t", script).retry(policy));
    harness.run(spec).await;
    harness.script.calls_of("t")[known..]
        .iter()
        .map(|call| call.began.saturating_sub(begun))
        .collect()
}

fn assert_times(actual: &[Duration], expected: &[u64]) {
    assert_eq!(actual.len(), expected.len(), "attempts: {actual:?}");
    for (actual, expected) in actual.iter().zip(expected) {
        assert_at(*actual, secs(*expected));
    }
}

/// The pauses are those of the policy, to the millisecond, each under the cap.
#[actix::test]
async fn attempts_begin_when_the_policy_says() {
    let mut harness = Harness::open().await;
    let always = || json!({"fail": "CONNECTION_LOST"});
    let capped = |backoff| RetryPolicy { max_delay: secs(5), ..retries(5, backoff, secs(1)) };
    let fixed = times(&mut harness, always(), capped(Fixed)).await;
    assert_times(&fixed, &[0, 1, 2, 3, 4]);
    let linear = times(&mut harness, always(), capped(Linear)).await;
    assert_times(&linear, &[0, 1, 3, 6, 10]);
    let exponential = times(&mut harness, always(), capped(Exponential)).await;
    assert_times(&exponential, &[0, 1, 3, 7, 12]);
    harness.finish().await;
}

/// A task that fails twice and then works has completed, with three attempts and no error left.
#[actix::test]
async fn a_task_completes_on_a_later_attempt() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("second wind")
        .task(
            task("t", json!({"fail": "PROVIDER_OVERLOADED", "times": 2, "value": 7}))
                .retry(retries(3, Fixed, secs(10))),
        )
        .task(task("next", json!({"value": "${t}"})));
    let sent = harness.submit(spec).await.unwrap();
    let id = sent.id.clone();
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert_eq!((of(&record, "t").attempts, &of(&record, "t").error), (3, &None));
    let published = harness.published(&id);
    let of_t: Vec<&str> = published.iter().filter_map(|it| it.strip_suffix(" t")).collect();
    let attempt = ["task:queued", "task:started", "task:retry_scheduled"];
    let expected = [&attempt[..], &attempt, &attempt[..2], &["task:completed"]].concat();
    assert_eq!(of_t, expected);
    harness.finish().await;
}

/// A dependent waits through the pauses: it begins when the last attempt has succeeded.
#[actix::test]
async fn nothing_else_waits_through_the_pauses_of_a_retry() {
    let setup = Setup::default();
    let mut harness = Setup {
        engine: gleitzeit_actors::execution_engine::EngineSettings {
            max_concurrent_tasks: 1,
            ..setup.engine.clone()
        },
        ..setup
    }
    .open()
    .await;
    let spec = WorkflowSpec::new("pause")
        .task(task("t", json!({"fail": "CONNECTION_LOST", "times": 1})).retry(retries(
            2,
            Fixed,
            secs(100),
        )))
        .task(quick("dependent").after("t"))
        .task(quick("other"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed; 3]);
    assert_at(harness.script.calls_of("dependent")[0].began, secs(100));
    assert_at(harness.script.calls_of("other")[0].began, secs(0));
    harness.finish().await;
}

/// All attempts used up: the error says so, and keeps the last one's.
#[actix::test]
async fn used_up_attempts_end_as_retry_exhausted() {
    let mut harness = Harness::open().await;
    let any = RetryOn::Any(gleitzeit_domain::retry::AnyError::Any);
    let spec = WorkflowSpec::new("exhausted")
        .task(task("net", json!({"fail": "CONNECTION_REFUSED"})).retry(retries(3, Fixed, secs(1))))
        .task(
            task("asked", json!({"fail": "TASK_EXECUTION_FAILED"}))
                .retry(RetryPolicy { retry_on: any, ..retries(2, Fixed, secs(1)) }),
        )
        .task(task("once", json!({"fail": "CONNECTION_REFUSED"})).retry(RetryPolicy::never()));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed; 3]);
    for (id, attempts, last) in
        [("net", 3, ErrorCode::ConnectionRefused), ("asked", 2, ErrorCode::TaskExecutionFailed)]
    {
        let error = of(&record, id).error.clone().unwrap();
        assert_eq!(error.code, ErrorCode::TaskRetryExhausted, "{id}");
        let data = error.data.as_ref().unwrap();
        assert_eq!(data["attempts"], attempts);
        assert_eq!(data["last_error"]["code"], last.number());
        assert_eq!(of(&record, id).attempts, attempts);
    }
    assert_eq!(code(&record, "once"), Some(ErrorCode::ConnectionRefused), "nothing was exhausted");
    harness.finish().await;
}

/// A failure that would repeat is not retried, unless the policy asks for it by code.
#[actix::test]
async fn only_errors_worth_it_are_retried() {
    let mut harness = Harness::open().await;
    let only = |codes: &[ErrorCode]| RetryPolicy {
        retry_on: RetryOn::Codes(codes.to_vec()),
        ..retries(3, Fixed, secs(1))
    };
    let own = json!({"fail": "TASK_EXECUTION_FAILED"});
    let plain = retries(3, Fixed, secs(1));
    let attempts = [
        (own.clone(), plain.clone(), 1),
        (json!({"fail": "TASK_EXECUTION_FAILED", "retryable": true}), plain.clone(), 3),
        (json!({"fail": "CONNECTION_LOST", "retryable": false}), plain, 1),
        (own.clone(), only(&[ErrorCode::TaskExecutionFailed]), 3),
        (own, only(&[ErrorCode::ConnectionLost]), 1),
        (json!({"fail": "CONNECTION_LOST"}), only(&[ErrorCode::ProviderTimeout]), 1),
    ];
    for (script, policy, expected) in attempts {
        let begun = times(&mut harness, script.clone(), policy).await;
        assert_eq!(begun.len(), expected, "{script}");
    }
    harness.finish().await;
}

/// A provider's `retry_after` counts if it is later than the policy.
#[actix::test]
async fn a_providers_retry_after_is_honoured() {
    let mut harness = Harness::open().await;
    let asks = |pause| json!({"fail": "PROVIDER_OVERLOADED", "retry_after": pause});
    let policy = || RetryPolicy { max_delay: secs(2), ..retries(3, Fixed, secs(2)) };
    assert_times(&times(&mut harness, asks(90), policy()).await, &[0, 90, 180]);
    assert_times(&times(&mut harness, asks(1), policy()).await, &[0, 2, 4]);
    harness.finish().await;
}

/// The jitter depends on the seed of the settings: the same seed, the same pauses, each between
/// half and all of what the policy says.
#[actix::test]
async fn jitter_follows_the_seed() {
    let mut setup = Setup::default();
    setup.engine.seed = 42;
    let mut harness = setup.open().await;
    let policy = RetryPolicy { jitter: true, ..retries(4, Fixed, secs(100)) };
    let begun = times(&mut harness, json!({"fail": "CONNECTION_LOST"}), policy).await;
    let pauses: Vec<Duration> =
        begun.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let mut random = Random::seeded(42);
    for pause in &pauses {
        assert_at(*pause, secs(100).mul_f64(0.5 + random.unit() / 2.0));
    }
    assert!(pauses[0].abs_diff(pauses[1]) > secs(1), "no jitter: {pauses:?}");
    harness.finish().await;
}

/// The event has the time of the next attempt, so that a person need not guess.
#[actix::test]
async fn a_scheduled_retry_reports_its_time() {
    let mut harness = Harness::open().await;
    let failing = task("t", json!({"fail": "CONNECTION_LOST", "times": 1}));
    let spec: TaskSpec = failing.retry(retries(4, Fixed, secs(30)));
    let sent = harness.submit(WorkflowSpec::new("told").task(spec)).await.unwrap();
    let event = harness.until("task:retry_scheduled", |_| true).await;
    let EventData::TaskRetryScheduled {
        attempt_count, max_retries, delay, due_at, error_code, ..
    } = &event.data
    else {
        panic!("{event:?}");
    };
    assert_eq!((*attempt_count, *max_retries), (1, 3));
    assert!((delay - 30.0).abs() < 0.001, "{delay}");
    assert_eq!(*due_at, event.timestamp + secs(30));
    assert_eq!(*error_code, ErrorCode::ConnectionLost);
    let waiting = harness.stored(&sent.id).await;
    assert_eq!(of(&waiting, "t").due_at.map(|at| at.timestamp()), Some(due_at.timestamp()));
    sent.end().await;
    harness.finish().await;
}
