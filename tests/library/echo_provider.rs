//! The echo provider does what its parameters say, and nothing costs less.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use gleitzeit::providers::{
    conformance::{self, Sample},
    echo,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    protocol::catalog::ProtocolCatalog,
    provider::{Call, Placement},
};
use serde_json::{Value, json};

fn sample(method: &str, params: Value) -> Sample {
    Sample::new(&ProtocolCatalog::builtin(), &format!("echo/v1.0:{method}"), params).unwrap()
}

fn call(method: &str, params: Value, attempt: u32) -> Call {
    Call { attempt, ..sample(method, params).call("task") }
}

async fn run(call: Call) -> Result<Value, TaskError> {
    let provider = (echo::spec("echo").factory)().unwrap();
    provider.execute(call).await.map(|outcome| std::sync::Arc::unwrap_or_clone(outcome.value))
}

/// What every provider must hold to.
#[actix::test]
async fn echo_conforms() {
    let samples = [
        sample("echo", json!({ "n": 1 })).returning(json!({ "n": 1 })),
        sample("echo", json!({ "n": 2 })).returning(json!({ "n": 2 })),
        sample("sleep", json!({ "seconds": 0.001 })).returning(json!({ "seconds": 0.001 })),
        sample("ping", json!({ "message": "here" })),
        sample("timestamp", json!({})),
        sample("delay", json!({ "seconds": 0.001 })),
        sample("fail", json!({ "times": 0, "n": 3 })).returning(json!({ "times": 0, "n": 3 })),
    ];
    conformance::check(&echo::spec("echo"), &samples).await.unwrap();
}

/// The benchmarks measure the runtime, so the provider may not wait, nor leave its thread.
#[actix::test]
async fn an_echo_is_ready_at_once() {
    let spec = echo::spec("echo");
    assert_eq!(spec.placement, Placement::Control);
    let provider = (spec.factory)().unwrap();
    let call = call("echo", json!({ "a": [1, "x", null] }), 1);
    let outcome = provider.execute(call).now_or_never().expect("not ready at first poll").unwrap();
    assert_eq!(*outcome.value, json!({ "a": [1, "x", null] }));
}

/// Parameters that nobody else holds are handed back, not copied.
#[actix::test]
async fn an_echo_copies_nothing_that_it_owns() {
    let params = Arc::new(json!({ "text": "hello" }));
    let pointer = params["text"].as_str().unwrap().as_ptr();
    let value = run(Call { params, ..call("echo", json!({}), 1) }).await.unwrap();
    assert_eq!(value["text"].as_str().unwrap().as_ptr(), pointer);
}

/// Tests of timeouts and of the clock rely on it.
#[actix::test]
async fn sleep_takes_as_long_as_asked() {
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let value = run(call("sleep", json!({ "seconds": 90.5 }), 1)).await.unwrap();
    assert_eq!(value, json!({ "seconds": 90.5 }));
    let slept = begun.elapsed();
    assert!((90_500..90_510).contains(&slept.as_millis()), "{slept:?}");
    let endless = run(call("sleep", json!({ "seconds": 1e30 }), 1)).await.unwrap_err();
    assert_eq!(endless.code, ErrorCode::InvalidParams);
}

/// Files of Python Gleitzeit 0.0.4 call these, and read these fields.
#[actix::test]
async fn older_methods_answer_as_they_did() {
    tokio::time::pause();
    let time = |value: &Value| {
        let text = value["timestamp"].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp()
    };
    let ping = run(call("ping", json!({}), 1)).await.unwrap();
    assert_eq!(ping["response"], "pong");
    let ping = run(call("ping", json!({ "message": "here" }), 1)).await.unwrap();
    assert_eq!(ping["response"], "here");
    let stamp = run(call("timestamp", json!({}), 1)).await.unwrap();
    let seconds = stamp["unix_timestamp"].as_f64().unwrap().floor();
    assert_eq!(seconds.to_string(), time(&stamp).to_string());
    assert!(time(&stamp) >= time(&ping));
    let begun = tokio::time::Instant::now();
    let delay = run(call("delay", json!({ "seconds": 7.5, "x": [1] }), 1)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(7_500), "{:?}", begun.elapsed());
    assert_eq!(delay["delayed_for_seconds"], 7.5);
    assert_eq!(delay["parameters"], json!({ "seconds": 7.5, "x": [1] }));
    // Without a number it is a second.
    let delay = run(call("delay", json!({}), 1)).await.unwrap();
    assert_eq!(delay["delayed_for_seconds"], 1.0);
}

/// Tests of retries rely on it: the failing attempts are the first ones, and only those.
#[actix::test]
async fn fail_fails_as_often_and_as_asked() {
    let params = json!({ "message": "boom", "code": "CONNECTION_LOST", "times": 2 });
    for attempt in [1, 2] {
        let error = run(call("fail", params.clone(), attempt)).await.unwrap_err();
        assert_eq!(error, TaskError::new(ErrorCode::ConnectionLost, "boom"));
    }
    assert_eq!(run(call("fail", params.clone(), 3)).await.unwrap(), params);

    let always = run(call("fail", json!({}), 99)).await.unwrap_err();
    assert_eq!((always.code, always.is_retryable()), (ErrorCode::TaskExecutionFailed, false));
    let counted = run(call("fail", json!({ "times": 1 }), 1)).await.unwrap_err();
    assert!(counted.is_retryable(), "{counted}");
    let number = run(call("fail", json!({ "code": -30007 }), 1)).await.unwrap_err();
    assert_eq!(number.code, ErrorCode::ProviderOverloaded);
    let unknown = run(call("fail", json!({ "code": "NO_SUCH" }), 1)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::InvalidParams);
    assert!(unknown.message.contains("NO_SUCH"), "{unknown}");
}

/// Whoever claims that nothing ran twice needs a count that outlives the instance.
#[actix::test]
async fn calls_are_counted_over_all_instances() {
    let (spec, calls) = echo::spec_counted("echo");
    for _ in 0..2 {
        let provider = (spec.factory)().unwrap();
        provider.execute(call("echo", json!({}), 1)).await.unwrap();
        let dropped = provider.execute(call("sleep", json!({ "seconds": 60 }), 1));
        assert!(tokio::time::timeout(Duration::ZERO, dropped).await.is_err());
    }
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}
