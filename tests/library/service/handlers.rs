//! A call reaches its handler with its types, and what it gives or says reaches the task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gleitzeit::{
    Effect, ErrorCode, EventData, RetryPolicy, TaskSpec, TaskStatus, WorkflowSpec,
    schemars::{self, JsonSchema},
    service::{CallContext, HandlerError, Service},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{one, start, stop};
use crate::support::whole::within;

#[derive(Deserialize, JsonSchema)]
struct Add {
    left: i32,
    #[serde(default)]
    right: i32,
    more: Option<Vec<u8>>,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    sum: i32,
}

async fn add(input: Add, _: CallContext) -> Result<Sum, HandlerError> {
    let more: i32 = input.more.unwrap_or_default().into_iter().map(i32::from).sum();
    Ok(Sum { sum: input.left + input.right + more })
}

fn calculator() -> Service {
    Service::new("calc", "v1.0").method("add", add).pure()
}

/// `2.0` is an integer to every schema, so the handler gets one.
#[tokio::test]
async fn parameters_reach_the_handler_as_its_type() {
    let runtime = start(calculator()).await;
    for (params, sum) in [
        (json!({ "left": 1, "right": 2 }), 3),
        (json!([4]), 4),
        (json!({ "left": 2.0, "more": [1.0, 3], "right": -1 }), 5),
        (json!({ "left": 1, "more": null }), 1),
    ] {
        let ended = runtime.handle().run(one("calc/add", params.clone())).await.unwrap();
        let result = ended.tasks[0].result.as_deref();
        assert_eq!(result, Some(&json!({ "sum": sum })), "{params}: {:?}", ended.tasks[0].error);
    }
    stop(runtime).await;
}

/// The types are checked before anything is stored or run.
#[tokio::test]
async fn a_workflow_with_a_wrong_parameter_is_refused_at_its_submission() {
    let runtime = start(calculator()).await;
    for (params, message) in [
        (json!({ "left": "x" }), "/left"),
        (json!({ "left": 3_000_000_000_u32 }), "maximum"),
        (json!({ "left": 1, "rihgt": 2 }), "rihgt"),
    ] {
        let error = runtime.handle().submit(one("calc/add", params)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidParams);
        assert!(error.to_string().contains(message), "{error}");
    }
    stop(runtime).await;
}

#[derive(Debug, thiserror::Error)]
#[error("the bank is closed")]
struct Closed;

#[derive(Serialize, JsonSchema)]
struct Attempts {
    attempts: u32,
}

/// Fails twice, then tells how often it was called.
fn shaky(how: fn() -> HandlerError) -> Service {
    let calls = Arc::new(AtomicU32::new(0));
    let handler = move |(): (), call: CallContext| {
        let calls = Arc::clone(&calls);
        async move {
            let attempts = calls.fetch_add(1, Ordering::SeqCst) + 1;
            assert_eq!(call.attempt(), attempts);
            if attempts < 3 { Err(how()) } else { Ok(Attempts { attempts }) }
        }
    };
    let policy = RetryPolicy {
        max_attempts: 5,
        base_delay: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    Service::new("bank", "v1.0").method("pay", handler).retry(policy)
}

async fn attempts(service: Service) -> (TaskStatus, u32) {
    let runtime = start(service).await;
    let ended = within("its end", runtime.handle().run(one("bank/pay", json!({})))).await.unwrap();
    stop(runtime).await;
    (ended.tasks[0].status, ended.tasks[0].attempts)
}

/// Most errors of a handler are a peer's; those that are not say so.
#[tokio::test]
async fn an_error_is_retried_unless_the_handler_says_otherwise() {
    let completed = (TaskStatus::Completed, 3);
    let failed = (TaskStatus::Failed, 1);
    let closed: fn() -> HandlerError = || Closed.into();
    assert_eq!(attempts(shaky(closed)).await, completed);
    assert_eq!(attempts(shaky(|| HandlerError::from(Closed).terminal())).await, failed);
    // A call that must not run twice is repeated only where its handler vouches for it.
    assert_eq!(attempts(shaky(closed).at_most_once()).await, failed);
    let vouched: fn() -> HandlerError = || HandlerError::from(Closed).retryable();
    assert_eq!(attempts(shaky(vouched).at_most_once()).await, completed);
}

/// No attempt begins before the handler's pause is over, whatever the policy's pause is.
#[tokio::test]
async fn retry_after_is_never_cut_short() {
    const PAUSE: Duration = Duration::from_millis(80);
    let service = shaky(|| HandlerError::from(Closed).retry_after(PAUSE));
    let runtime = start(service).await;
    let handle = runtime.handle();
    let ended = within("its end", handle.run(one("bank/pay", json!({})))).await.unwrap();
    assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!({ "attempts": 3 })));
    let events = handle.events(&ended.id, 0, 100).await.unwrap();
    let due = events.iter().filter_map(|event| match &event.data {
        EventData::TaskRetryScheduled { due_at, delay, .. } => {
            assert!(*delay >= PAUSE.as_secs_f64(), "{delay}");
            Some(*due_at)
        }
        _ => None,
    });
    let starts = events.iter().filter(|event| matches!(event.data, EventData::TaskStarted { .. }));
    let due: Vec<_> = due.collect();
    assert_eq!(due.len(), 2);
    // A store keeps microseconds.
    let slack = chrono::TimeDelta::microseconds(1);
    for (start, due) in starts.skip(1).zip(due) {
        assert!(start.timestamp + slack >= due, "{start:?} before {due}");
    }
    stop(runtime).await;
}

/// The words of the source are in the task's error, with the code that the handler chose.
#[tokio::test]
async fn the_tasks_error_is_the_handlers() {
    let handler = |(): (), _: CallContext| async move {
        let error = HandlerError::from(Closed).code(ErrorCode::AuthenticationFailed);
        Err::<(), _>(error.data(json!({ "until": "nine" })).terminal())
    };
    let runtime = start(Service::new("bank", "v1.0").method("pay", handler)).await;
    let ended = runtime.handle().run(one("bank/pay", json!({}))).await.unwrap();
    let error = ended.tasks[0].error.as_deref().unwrap();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::AuthenticationFailed, "the bank is closed")
    );
    assert_eq!(error.data.as_deref(), Some(&json!({ "until": "nine" })));
    stop(runtime).await;
}

#[derive(Serialize, JsonSchema)]
struct Seen {
    key: String,
    workflow: String,
    task: String,
    attempt: u32,
    remaining: f64,
    cancelled: bool,
}

/// What a call knew before, a typed handler knows.
#[tokio::test]
async fn the_context_has_what_the_call_knows() {
    let handler = |(): (), call: CallContext| async move {
        assert_eq!(call.call().method_name(), "look");
        assert!(call.deadline().is_some());
        Ok::<_, HandlerError>(Seen {
            key: call.idempotency_key(),
            workflow: call.workflow_id().to_string(),
            task: call.task_id().to_string(),
            attempt: call.attempt(),
            remaining: call.remaining().as_secs_f64(),
            cancelled: call.is_cancelled(),
        })
    };
    let service = Service::new("eye", "v1.0").method("look", handler).describe("Looks.").pure();
    let runtime = start(service).await;
    let task = TaskSpec::new("t", "eye/look").timeout(Duration::from_mins(1));
    let ended = runtime.handle().run(WorkflowSpec::new("w").id("w1").task(task)).await.unwrap();
    let seen = ended.tasks[0].result.as_deref().unwrap();
    assert_eq!(
        (&seen["key"], &seen["workflow"], &seen["task"]),
        (&json!("w1/t"), &json!("w1"), &json!("t"))
    );
    assert_eq!((&seen["attempt"], &seen["cancelled"]), (&json!(1), &json!(false)));
    let remaining = seen["remaining"].as_f64().unwrap();
    assert!(remaining > 0.0 && remaining <= 60.0, "{remaining}");
    let catalog = runtime.handle().protocols().await.unwrap();
    let method = &catalog.get(&"eye/v1.0".parse().unwrap()).unwrap().methods["look"];
    assert_eq!((method.description.as_deref(), method.effect), (Some("Looks."), Effect::Pure));
    stop(runtime).await;
}

/// A result that the types promise and serde breaks is the handler's fault, and named.
#[tokio::test]
async fn what_serde_reads_otherwise_than_the_schema_fails_the_task_at_once() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "it is never read")]
    struct When {
        #[serde(deserialize_with = "even")]
        number: u32,
    }
    fn even<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u32, D::Error> {
        let number = u32::deserialize(input)?;
        if number % 2 == 0 { Ok(number) } else { Err(serde::de::Error::custom("odd")) }
    }
    let handler = |_: When, _: CallContext| async move { Ok::<_, HandlerError>(()) };
    let runtime = start(Service::new("pair", "v1.0").method("of", handler)).await;
    let ended = runtime.handle().run(one("pair/of", json!({ "number": 3 }))).await.unwrap();
    let error = ended.tasks[0].error.as_deref().unwrap();
    assert_eq!((error.code, ended.tasks[0].attempts), (ErrorCode::InvalidParams, 1));
    assert!(error.message.contains("When`: number: odd"), "{error}");
    stop(runtime).await;
}

/// A service comes while the runtime runs, and its provider goes; a wrong one changes nothing.
#[tokio::test]
async fn a_service_is_registered_at_run_time() {
    let runtime = start(calculator()).await;
    let handle = runtime.handle();
    let later = || Service::new("later", "v1.0").method("add", add).pure();
    handle.register_service(later()).await.unwrap();
    let ended = handle.run(one("later/add", json!([1, 2]))).await.unwrap();
    assert_eq!(ended.output::<serde_json::Value>().unwrap(), json!({ "sum": 3 }));
    let taken = handle.register_service(later()).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::ConfigurationError, "{taken}");
    // The same protocol, another provider of it.
    handle.register_service(later().provider_id("second")).await.unwrap();
    let other = Service::new("later", "v1.0").method("other", add);
    let other = handle.register_service(other.provider_id("third")).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::InvalidRequest, "{other}");
    let empty = handle.register_service(Service::new("empty", "v1.0")).await.unwrap_err();
    assert_eq!(empty.code, ErrorCode::ConfigurationError, "{empty}");
    assert_eq!(handle.providers().await.unwrap().len(), 3);
    stop(runtime).await;
}
