//! Where handlers run, and what a blocked thread costs others.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Barrier, Mutex, mpsc},
    thread::{self, ThreadId},
    time::Duration,
};

use gleitzeit::{
    ErrorCode, ProviderState, TaskSpec, WorkflowSpec,
    service::{CallContext, HandlerError, Service},
};
use serde_json::json;

use super::{builder, log, one, start, stop};
use crate::support::whole::within;

/// Two calls that wait for each other, each blocking its thread, need two threads.
#[tokio::test]
async fn handlers_run_on_as_many_threads_as_the_service_has() {
    let (both, seen) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(HashSet::new())));
    let threads: Arc<Mutex<HashSet<ThreadId>>> = Arc::clone(&seen);
    let meet = move |(): (), _: CallContext| {
        let (both, seen) = (Arc::clone(&both), Arc::clone(&seen));
        async move {
            seen.lock().unwrap().insert(thread::current().id());
            both.wait();
            Ok::<_, HandlerError>(())
        }
    };
    let service = Service::new("pair", "v1.0").method("meet", meet);
    let runtime = start(service.threads(NonZeroUsize::new(2).unwrap())).await;
    let two = WorkflowSpec::new("w")
        .task(TaskSpec::new("a", "pair/meet"))
        .task(TaskSpec::new("b", "pair/meet"));
    let ended = within("both", runtime.handle().run(two)).await.unwrap();
    assert_eq!(ended.error, None);
    assert_eq!(threads.lock().unwrap().len(), 2);
    stop(runtime).await;
}

/// A blocking method leaves the service's thread to the others.
#[tokio::test]
async fn a_blocking_method_holds_up_no_other() {
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let read = move |(): (), _: CallContext| {
        let released = Arc::clone(&released);
        async move {
            released.lock().unwrap().recv().unwrap();
            // A future of its own may be awaited there, too.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, HandlerError>("read")
        }
    };
    let other = |(): (), _: CallContext| async { Ok::<_, HandlerError>("other") };
    let service = Service::new("disk", "v1.0").method("read", read).blocking();
    let runtime = start(service.method("other", other)).await;
    let handle = runtime.handle();
    let blocked = handle.submit(one("disk/read", json!({}))).await.unwrap();
    let free = within("the other", handle.run(one("disk/other", json!({})))).await.unwrap();
    assert_eq!(free.tasks[0].result.as_deref(), Some(&json!("other")));
    release.send(()).unwrap();
    let ended = within("the reader", handle.wait(&blocked)).await.unwrap();
    assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!("read")));
    stop(runtime).await;
}

/// Code that cannot be interrupted sees that nobody waits for it any more.
#[tokio::test]
async fn a_cancelled_call_is_seen_wherever_it_runs() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let spin = move |(): (), call: CallContext| {
        let sender = sender.clone();
        async move {
            sender.send("began").unwrap();
            while !call.is_cancelled() {
                thread::yield_now();
            }
            sender.send("saw it").unwrap();
            Ok::<_, HandlerError>(())
        }
    };
    let service = Service::new("spin", "v1.0").method("on", spin.clone()).blocking();
    let service = service.method("pool", spin).threads(NonZeroUsize::new(2).unwrap());
    let runtime = start(service).await;
    let handle = runtime.handle();
    for method in ["spin/on", "spin/pool"] {
        let id = handle.submit(one(method, json!({}))).await.unwrap();
        assert_eq!(within("the call", received.recv()).await, Some("began"));
        handle.cancel(&id, "enough").await.unwrap();
        assert_eq!(within("its end", received.recv()).await, Some("saw it"));
    }
    stop(runtime).await;
}

/// A panic in another thread fails its call and renews the provider, as everywhere.
#[tokio::test]
async fn a_panic_fails_only_its_call() {
    for threads in [1, 2] {
        let panics = |(): (), _: CallContext| async {
            assert!(thread::current().name().is_none(), "no receipt");
            Ok::<_, HandlerError>(())
        };
        let fine = |(): (), _: CallContext| async { Ok::<_, HandlerError>(()) };
        let service = Service::new("shop", "v1.0").method("panics", panics).at_most_once();
        let service = service.method("fine", fine).threads(NonZeroUsize::new(threads).unwrap());
        let runtime = start(service).await;
        let handle = runtime.handle();
        let ended = within("it", handle.run(one("shop/panics", json!({})))).await.unwrap();
        let error = ended.tasks[0].error.as_deref().unwrap();
        assert_eq!(error.code, ErrorCode::ProviderUnhealthy);
        assert!(error.message.contains("no receipt"), "{error}");
        let ended = within("the next", handle.run(one("shop/fine", json!({})))).await.unwrap();
        assert_eq!(ended.error, None);
        assert_eq!(handle.providers().await.unwrap()[0].generation, 2);
        stop(runtime).await;
    }
}

/// The log names who blocks its thread, and a service blocks its own thread only.
#[tokio::test]
async fn a_provider_that_blocks_its_thread_is_named_and_hurts_only_itself() {
    log::capture();
    for threads in [1, 2] {
        let name = format!("stuck-{threads}");
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let block = move |(): (), _: CallContext| {
            let released = Arc::clone(&released);
            async move {
                released.lock().unwrap().recv().unwrap();
                Ok::<_, HandlerError>(())
            }
        };
        let fine = |(): (), _: CallContext| async { Ok::<_, HandlerError>(()) };
        let stuck = Service::new(name.clone(), "v1.0").method("block", block);
        let stuck = stuck.threads(NonZeroUsize::new(threads).unwrap());
        let fine = Service::new("other", "v1.0").method("fine", fine);
        let runtime = builder(stuck).service(fine).start().await.unwrap();
        let handle = runtime.handle();
        let blocked = handle.submit(one(&format!("{name}/block"), json!({}))).await.unwrap();
        let line = tokio::task::spawn_blocking({
            let quoted = format!("provider=\"{name}\"");
            move || log::wait_for(&["WARN", "blocks its thread", &quoted])
        });
        let line = within("the line", line).await.unwrap();
        assert!(line.contains("limit=100ms"), "{line}");
        // Others run meanwhile.
        let ended = within("the other", handle.run(one("other/fine", json!({})))).await.unwrap();
        assert_eq!(ended.error, None);
        let states = handle.workflow(&blocked).await.unwrap().unwrap();
        assert!(!states.status.is_settled());
        release.send(()).unwrap();
        within("the blocked one", handle.wait(&blocked)).await.unwrap();
        let quoted = format!("provider=\"{name}\"");
        let released = tokio::task::spawn_blocking({
            let quoted = quoted.clone();
            move || log::wait_for(&["INFO", "released its thread", &quoted])
        });
        within("the second line", released).await.unwrap();
        assert_eq!(log::count(&["blocks its thread", &quoted]), 1, "once, not at each look");
        assert!(
            handle.providers().await.unwrap().iter().all(|it| it.state == ProviderState::Serving)
        );
        stop(runtime).await;
    }
}
