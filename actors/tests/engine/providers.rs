//! Providers that are missing, added late, panic or are removed: the tasks that wait, fail or continue.

use std::time::Duration;

use gleitzeit_actors::load_balancer::{GetProviders, RemoveProvider, RestartProvider};
use gleitzeit_domain::{
    error::ErrorCode,
    retry::Backoff::Fixed,
    task::{
        Priority::Low,
        TaskStatus::{Completed, Failed},
    },
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Ending, Harness, Setup, assert_at, code, of, quick, retries, secs, statuses, task,
};

fn other(id: &str) -> TaskSpec {
    TaskSpec::new(id, "other/run").params(json!({}))
}

/// A task whose method no provider serves fails after `provider_wait`, with the method's name.
#[actix::test]
async fn a_method_without_a_provider_fails_after_the_wait() {
    let setup = Setup { provider_wait: secs(12), ..Setup::default() };
    let mut harness = setup.open().await;
    let record = harness.run(WorkflowSpec::new("nobody").task(other("t"))).await;
    let error = of(&record, "t").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::MethodNotSupported);
    assert!(error.message.contains("other/v1.0:run"), "{error}");
    assert_at(harness.script.now(), secs(12));
    harness.finish().await;
}

/// A provider that is never ready counts as unavailable, which may be retried.
#[actix::test]
async fn a_provider_that_is_down_is_unavailable_after_the_wait() {
    let setup = Setup { provider_wait: secs(12), ..Setup::default() };
    let mut harness = setup.open().await;
    harness.register(harness.script.broken_provider("down", "other/v1.0")).await;
    let spec = WorkflowSpec::new("down").task(other("once")).task(other("twice").retry(retries(
        2,
        Fixed,
        secs(3),
    )));
    let record = harness.run(spec).await;
    assert_eq!(code(&record, "once"), Some(ErrorCode::ProviderNotAvailable));
    let error = of(&record, "twice").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::TaskRetryExhausted);
    let last = error.data.as_ref().unwrap()["last_error"]["code"].clone();
    assert_eq!(last, ErrorCode::ProviderNotAvailable.number());
    assert_at(harness.script.now(), secs(12 + 3 + 12));
    harness.finish().await;
}

/// Without a wait, a missing provider is reported at once.
#[actix::test]
async fn without_a_wait_a_missing_provider_fails_at_once() {
    let mut harness = Setup { provider_wait: Duration::ZERO, ..Setup::default() }.open().await;
    let record = harness.run(WorkflowSpec::new("nobody").task(other("t"))).await;
    assert_eq!(code(&record, "t"), Some(ErrorCode::MethodNotSupported));
    assert_at(harness.script.now(), secs(0));
    harness.finish().await;
}

/// A provider that appears while tasks wait for it serves them at once, by priority.
#[actix::test]
async fn a_provider_that_is_added_late_serves_waiting_tasks() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("late").task(other("a")).task(other("b"));
    let sent = harness.submit(spec).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    assert!(harness.script.calls().is_empty());
    harness.add_provider("late", "other/v1.0", Some(1)).await;
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert_eq!(of(&record, "a").provider_id, Some("late".into()));
    assert_at(harness.script.now(), secs(20));
    harness.finish().await;
}

/// A task that waits for a busy provider waits as long as it takes; `provider_wait` is for those
/// that are down.
#[actix::test]
async fn a_busy_provider_is_waited_for() {
    let providers = vec![("main", Some(1))];
    let setup = Setup { provider_wait: secs(5), providers, ..Setup::default() };
    let mut harness = setup.open().await;
    let spec =
        WorkflowSpec::new("busy").task(task("first", json!({"sleep": 200}))).task(quick("second"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert_at(harness.script.calls_of("second")[0].began, secs(200));
    harness.finish().await;
}

/// A call that panics fails as the provider's fault; the calls beside it, begun or not, and its
/// lease are untouched, and the provider is back for its retry.
#[actix::test]
async fn a_panic_fails_its_own_call_only() {
    for (moment, sleep) in [("now", 0.0), ("later", 0.5)] {
        let mut harness = Setup::default().open_or_again(moment == "later").await;
        let beside = (0..6).map(|n| task(&format!("b{n}"), json!({"sleep": 1})));
        let spec = WorkflowSpec::new("panic")
            .task(task("before", json!({"sleep": 3})))
            .task(task("panics", json!({"panic": moment, "sleep": sleep})));
        let record = harness.run(beside.fold(spec, WorkflowSpec::task)).await;
        let failed = of(&record, "panics");
        let error = failed.error.clone().unwrap();
        assert_eq!(error.code, ErrorCode::ProviderUnhealthy, "{moment}");
        assert!(error.message.contains("as the script says"), "{error}");
        let others = record.tasks.iter().filter(|task| task.id.as_str() != "panics");
        for beside in others {
            assert_eq!(beside.status, Completed, "{moment}: {:?}", beside.error);
            assert_eq!(beside.attempts, 1, "{moment}: {}", beside.id);
        }
        harness.until("provider:restarted", |_| true).await;
        assert_eq!(
            harness.run(WorkflowSpec::new("after").task(quick("t"))).await.status,
            WorkflowStatus::Completed
        );
        harness.finish().await;
    }
}

/// Calls that a provider has not begun when it breaks down go to another one at once.
#[actix::test]
async fn calls_not_begun_go_to_another_provider() {
    let providers = vec![("one", None), ("two", None)];
    let mut harness = Setup { providers, ..Setup::default() }.open().await;
    let spec = WorkflowSpec::new("panic").task(task("panics", json!({"panic": "now"})));
    let beside = (0..9).map(|n| quick(&format!("b{n}")));
    let record = harness.run(beside.fold(spec, WorkflowSpec::task)).await;
    for beside in &record.tasks[1..] {
        assert_eq!((beside.status, beside.attempts), (Completed, 1), "{:?}", beside.error);
        let served_by = harness.script.calls_of(beside.id.as_str())[0].provider.clone();
        assert_eq!(beside.provider_id, Some(served_by.as_str().into()));
    }
    assert_at(harness.script.now(), secs(0));
    harness.finish().await;
}

/// A provider that breaks down for good takes only the calls that made it do so; the others wait
/// their time for it.
#[actix::test]
async fn a_wait_for_a_provider_that_fails_for_good_ends() {
    let setup = Setup { provider_wait: secs(20), ..Setup::default() };
    let mut harness = setup.open().await;
    // One more than the restarts that are allowed.
    let panics = (0..6).map(|n| task(&format!("p{n}"), json!({"panic": "now"})));
    let spec = panics.fold(WorkflowSpec::new("broken"), WorkflowSpec::task);
    let record = harness.run(spec.task(quick("last").priority(Low))).await;
    let codes: Vec<_> = record.tasks.iter().map(|task| code(&record, task.id.as_str())).collect();
    assert_eq!(codes[..6], [Some(ErrorCode::ProviderUnhealthy); 6]);
    assert_eq!(codes[6], Some(ErrorCode::ProviderNotAvailable));
    assert_eq!(harness.script.calls().len(), 6);
    harness.until("provider:failed", |_| true).await;
    harness.finish().await;
}

/// A task whose provider panicked runs again on the new instance, where its policy allows it.
#[actix::test]
async fn a_panic_can_be_retried() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("again")
        .task(task("t", json!({"panic": "once", "value": 1})).retry(retries(2, Fixed, secs(5))));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed]);
    assert_eq!(of(&record, "t").attempts, 2);
    let status = harness.actors.addresses.balancer.send(GetProviders).await.unwrap().remove(0);
    assert_eq!((status.generation, status.restarts), (2, 1));
    harness.finish().await;
}

/// After a failed attempt another provider is preferred, if there is one.
#[actix::test]
async fn a_retry_uses_another_provider() {
    let providers = vec![("one", None), ("two", None)];
    let mut harness = Setup { providers, ..Setup::default() }.open().await;
    let tasks = (0..10).map(|n| {
        let fails = task(&format!("t{n}"), json!({"fail": "CONNECTION_LOST", "times": 1}));
        fails.retry(retries(2, Fixed, secs(1)))
    });
    let record = harness.run(tasks.fold(WorkflowSpec::new("else"), WorkflowSpec::task)).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    for task in &record.tasks {
        let calls = harness.script.calls_of(task.id.as_str());
        assert_ne!(calls[0].provider, calls[1].provider, "{}", task.id);
    }
    harness.finish().await;
}

/// A provider that is removed ends its calls within the deadline; tasks in line for it go to
/// another one.
#[actix::test]
async fn a_removed_provider_hands_on_its_tasks() {
    let providers = vec![("going", Some(1))];
    let mut harness = Setup { providers, ..Setup::default() }.open().await;
    let spec = WorkflowSpec::new("handed on")
        .task(task("cut", json!({"sleep": 100})))
        .task(task("in-line", json!({})));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "cut").await;
    harness.add_provider("staying", "test/v1.0", Some(1)).await;
    let remove = RemoveProvider { id: "going".into(), deadline: secs(10) };
    harness.actors.addresses.balancer.send(remove).await.unwrap().unwrap();
    assert_eq!(harness.script.calls_of("cut")[0].ending, Ending::Dropped);
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Failed, Completed]);
    assert_eq!(code(&record, "cut"), Some(ErrorCode::ProviderUnhealthy));
    assert_eq!(of(&record, "in-line").provider_id, Some("staying".into()));
    harness.finish().await;
}

/// Asking for a provider that is not there names what is wrong.
#[actix::test]
async fn an_unknown_provider_is_not_found() {
    let harness = Harness::open().await;
    let restart =
        harness.actors.addresses.balancer.send(RestartProvider("nobody".into())).await.unwrap();
    assert_eq!(restart.unwrap_err().code, ErrorCode::ProviderNotFound);
    let remove = RemoveProvider { id: "nobody".into(), deadline: secs(0) };
    let removed = harness.actors.addresses.balancer.send(remove).await.unwrap();
    assert_eq!(removed.unwrap_err().code, ErrorCode::ProviderNotFound);
    harness.finish().await;
}
