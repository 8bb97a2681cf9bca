//! Any program can be the host.

use std::{sync::Arc, thread, time::Duration};

use gleitzeit::{
    BlockingRuntime, Follow, Handle, Runtime, Subscription, WorkflowRecord, WorkflowStatus,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::whole::{
    echo_builder, echo_runtime, echo_task, echo_workflow, settings, within,
};

fn check(ended: &Arc<WorkflowRecord>) {
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!({ "text": "only" })));
}

/// A host keeps these in its own state, whatever threads it has.
#[test]
fn handles_can_be_kept_and_used_anywhere() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Handle>();
    sent::<Runtime>();
    sent::<BlockingRuntime>();
    sent::<Follow>();
    sent::<Subscription>();
}

/// The common host; its tasks move between threads while they wait for the runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_runs_inside_a_multi_threaded_tokio_program() {
    let runtime = echo_runtime().await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let handle = runtime.handle();
        tasks.spawn(async move { handle.run(echo_workflow(&format!("w{number}"))).await.unwrap() });
    }
    let mut ended = 0;
    while let Some(record) = within("a workflow", tasks.join_next()).await {
        check(&record.unwrap());
        ended += 1;
    }
    assert_eq!(ended, 16);
    runtime.stop(Duration::from_secs(10)).await;
}

/// A tokio program with a single thread, which must not be blocked by the start or the stop.
#[tokio::test]
async fn it_runs_inside_a_single_threaded_tokio_program() {
    let runtime = echo_runtime().await;
    check(&runtime.handle().run(echo_workflow("w")).await.unwrap());
    runtime.stop(Duration::from_secs(10)).await;
}

/// actix-web has a `System` of its own on the thread; the runtime's is another.
#[actix_web::test]
async fn it_runs_inside_an_actix_web_program() {
    let runtime = echo_runtime().await;
    check(&runtime.handle().run(echo_workflow("w")).await.unwrap());
    runtime.stop(Duration::from_secs(10)).await;
    assert!(actix::System::is_registered(), "the host's system is gone");
    // Stopping the runtime's system must not have stopped the host's.
    actix_web::rt::spawn(async {}).await.unwrap();
}

/// A program without any async code; its threads share the handle.
#[test]
fn it_runs_inside_a_plain_program() {
    let runtime = echo_builder(settings("")).start_blocking().unwrap();
    check(&runtime.run(echo_workflow("first")).unwrap());
    let id = runtime.submit(echo_workflow("second")).unwrap();
    check(&runtime.wait(&id).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|number| {
            let handle = runtime.handle();
            thread::spawn(move || {
                let waiter = tokio::runtime::Builder::new_current_thread().build().unwrap();
                waiter.block_on(handle.run(echo_workflow(&format!("t{number}")))).unwrap()
            })
        })
        .collect();
    for thread in threads {
        check(&thread.join().unwrap());
    }
    let listed = runtime.block_on(runtime.handle().list(gleitzeit::ListFilter::default()));
    assert_eq!(listed.unwrap().len(), 6);
    assert!(runtime.stop(Duration::from_secs(10)).unsettled.is_empty());
}

/// A handle asks nothing of the runtime it is used in: no timer, no I/O, no tokio at all.
#[test]
fn a_handle_works_without_tokio() {
    let runtime = echo_builder(settings("")).start_blocking().unwrap();
    let ended = futures_util_block_on(runtime.handle().run(echo_workflow("w")));
    check(&ended.unwrap());
    runtime.stop(Duration::from_secs(10));
}

/// The least executor there can be.
fn futures_util_block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        let mut context = std::task::Context::from_waker(&waker);
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        thread::park();
    }
}

/// A program may use gleitzeit, and a library of it too, without knowing of each other.
#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_in_one_process_do_not_see_each_other() {
    let (one, other) = tokio::join!(echo_runtime(), echo_runtime());
    let workflow = |name: &str| echo_workflow(name).id("same");
    let (here, there) = (one.handle(), other.handle());
    let (first, second) = tokio::join!(here.run(workflow("one")), there.run(workflow("other")));
    check(&first.unwrap());
    check(&second.unwrap());
    let name = |record: Option<Arc<WorkflowRecord>>| record.unwrap().name.to_string();
    assert_eq!(name(one.handle().workflow(&"same".into()).await.unwrap()), "one");
    assert_eq!(name(other.handle().workflow(&"same".into()).await.unwrap()), "other");

    one.stop(Duration::from_secs(10)).await;
    // The end of one runtime is nothing to the other.
    let chain = echo_workflow("after").task(echo_task("next").after("only"));
    check(&within("the other runtime", other.handle().run(chain)).await.unwrap());
    other.stop(Duration::from_secs(10)).await;
}
