//! Several engines on one store: who runs what, and what becomes of one that lost its lease.

use std::{sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Apply, EngineSettings, Recover, Shutdown},
    memory_store::MemoryStore,
    monitor::GetStats,
};
use gleitzeit_domain::{
    error::ErrorCode,
    metrics::ExecutionStats,
    store::{
        Epoch, LeaseStore as _, NewWorkflow, Store as _,
        conformance::sample,
        lease::{Command, Request, Resolution},
    },
    task::TaskStatus::{Cancelled, Completed, Failed, OutcomeUnknown},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Ending, Harness, RefusingStore, Setup, code, quick, result, secs, statuses, task, within,
};

const TERM: Duration = secs(15);

fn shared() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default().with_timed_leases())
}

fn on(memory: &Arc<MemoryStore>, takes_over: bool) -> Setup {
    let engine = EngineSettings { takes_over, lease_term: TERM, ..EngineSettings::default() };
    Setup { engine, store: Arc::<MemoryStore>::clone(memory), ..Setup::default() }
}

/// An engine that runs what is submitted to it.
async fn own(memory: &Arc<MemoryStore>) -> Harness {
    on(memory, false).open().await
}

/// One more engine, that claims free workflows.
async fn worker(memory: &Arc<MemoryStore>) -> Harness {
    let mut harness = on(memory, true).open_again().await;
    harness.recover().await;
    harness
}

/// A workflow as another process stores it.
fn stored(spec: WorkflowSpec, epoch: Option<Epoch>) -> NewWorkflow {
    let id = spec.id.clone().expect("a stored workflow has an id");
    NewWorkflow { epoch, ..sample::of_spec(id.as_str(), spec) }
}

async fn stats(harness: &Harness) -> ExecutionStats {
    harness.actors.addresses.engine.send(GetStats).await.unwrap()
}

/// Waits until a workflow has settled, wherever it runs.
async fn settled(memory: &MemoryStore, id: &str) -> WorkflowStatus {
    within(async {
        loop {
            let record = memory.workflow(&id.into()).await.unwrap().unwrap();
            if record.status.is_settled() {
                return record.status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// A workflow that another process stores without an owner is run at once, without polling.
#[actix::test]
async fn a_free_workflow_is_claimed_when_notifications_arrive() {
    let memory = shared();
    let bystander = own(&memory).await;
    let worker = worker(&memory).await;
    let free = stored(WorkflowSpec::new("free").id("free").task(quick("a")), None);
    memory.submit(vec![free]).await.unwrap();
    assert_eq!(settled(&memory, "free").await, WorkflowStatus::Completed);
    assert!(worker.script.now() < secs(1), "{:?}", worker.script.now());
    assert!(bystander.script.calls().is_empty(), "it runs only what is submitted to it");
    worker.finish().await;
    bystander.finish().await;
}

/// A process that stops in order hands over at once: no lease has to expire.
#[actix::test]
async fn workflows_of_a_stopped_engine_continue_elsewhere_at_once() {
    let memory = shared();
    let mut first = own(&memory).await;
    let second = worker(&memory).await;
    let spec = WorkflowSpec::new("moved")
        .id("moved")
        .task(quick("done"))
        .task(task("runs", json!({"gate": "g"})).after("done"));
    first.submit(spec).await.unwrap();
    first.until_task("task:started", "runs").await;
    second.script.open("g");
    let stop = Shutdown { deadline: secs(0) };
    first.actors.addresses.engine.send(stop).await.unwrap();
    assert_eq!(settled(&memory, "moved").await, WorkflowStatus::Completed);
    assert!(second.script.now() < secs(1), "{:?}", second.script.now());
    assert_eq!(second.script.order(), ["runs"], "what had completed is not run again");
    second.finish().await;
}

/// A lease that is not renewed expires at the end of its term, and not before.
#[actix::test]
async fn a_dead_processes_workflows_are_taken_over_when_its_term_is_over() {
    let memory = shared();
    tokio::time::pause();
    let dead = memory.open_lease("dead", TERM).await.unwrap().epoch;
    let left = stored(WorkflowSpec::new("left").id("left").task(quick("a")), Some(dead));
    memory.submit(vec![left]).await.unwrap();
    let worker = worker(&memory).await;
    assert_eq!(settled(&memory, "left").await, WorkflowStatus::Completed);
    let began = worker.script.calls()[0].began;
    assert!(began + secs(1) > TERM && began < TERM + secs(1), "{began:?}");
    worker.finish().await;
}

/// A process that works keeps its lease, however long a task takes; once idle it asks for nothing,
/// and takes a lease again when there is work.
#[actix::test]
async fn a_lease_is_renewed_while_there_is_work() {
    let memory = shared();
    let mut busy = own(&memory).await;
    let idle = worker(&memory).await;
    let long = WorkflowSpec::new("long").task(task("t", json!({"sleep": 600})).timeout(secs(900)));
    let record = busy.run(long).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert!(idle.script.calls().is_empty(), "taken from a process that works");
    tokio::time::sleep(Duration::from_hours(1)).await;
    let late = busy.run(WorkflowSpec::new("late").task(quick("t"))).await;
    assert_eq!(late.status, WorkflowStatus::Completed);
    assert_eq!(stats(&busy).await.fenced_writes, 0);
    busy.finish().await;
    idle.finish().await;
}

/// A process that slept past its lease: what it writes late is refused and counted, what it ran is
/// dropped, and callers that wait there get the end from elsewhere.
#[actix::test]
async fn an_engine_that_lost_its_lease_writes_nothing_and_drops_what_it_ran() {
    let memory = shared();
    let mut first = own(&memory).await;
    let script = |gate: &str| task(gate, json!({"gate": gate, "value": {"by": "${inputs.by}"}}));
    let spec = WorkflowSpec::new("w").id("w").input("by", "x").task(script("g")).task(script("h"));
    let sent = first.submit(spec).await.unwrap();
    first.until_task("task:started", "g").await;
    first.until_task("task:started", "h").await;
    // What another process does once the term is over.
    memory.close_lease(Epoch(1)).await.unwrap();
    let second = worker(&memory).await;
    first.script.open("g");
    first.catch_up().await;
    assert_eq!(stats(&first).await.fenced_writes, 1);
    assert_eq!(stats(&first).await.leases_lost, 1);
    first.catch_up().await;
    let endings: Vec<Ending> = first.script.calls().iter().map(|call| call.ending).collect();
    assert_eq!(endings, [Ending::Done, Ending::Dropped], "the other call of it ends");
    second.script.open("g");
    second.script.open("h");
    let record = within(sent.end).await.unwrap().unwrap();
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert!(record.tasks.iter().all(|task| task.attempts == 1), "the late attempt counts nowhere");
    second.check_stored(&"w".into()).await;
    // It continues to serve, under a new lease.
    let next = WorkflowSpec::new("next").id("next").task(quick("a"));
    first.submit(next).await.unwrap().end().await;
    assert_eq!(settled(&memory, "next").await, WorkflowStatus::Completed);
    second.finish().await;
    first.actors.stop(secs(0)).await;
}

/// A submission under a lost lease is not acknowledged; it is stored under the next one.
#[actix::test]
async fn a_submission_that_meets_a_lost_lease_is_stored_under_the_next() {
    let memory = shared();
    let mut harness = own(&memory).await;
    harness.run(WorkflowSpec::new("first").task(quick("a"))).await;
    memory.close_lease(Epoch(1)).await.unwrap();
    let record = harness.run(WorkflowSpec::new("second").task(quick("a"))).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(stats(&harness).await.leases_lost, 1);
    harness.finish().await;
}

/// A start that gets no lease says so at once, and the next one gets it.
#[actix::test]
async fn a_lease_that_is_refused_at_once_is_an_error_and_no_wait() {
    let memory = shared();
    let free = stored(WorkflowSpec::new("free").id("free").task(quick("a")), None);
    memory.submit(vec![free]).await.unwrap();
    let store = RefusingStore::new(Arc::clone(&memory), 1);
    let harness = Setup { store, ..on(&memory, true) }.open_again().await;
    let recover = || harness.actors.addresses.engine.send(Recover { id: None, hold: false });
    let refused = within(recover()).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::PersistenceConnectionFailed, "{refused}");
    let recovered = within(recover()).await.unwrap().unwrap();
    assert_eq!(recovered.workflows, 1);
    assert_eq!(settled(&memory, "free").await, WorkflowStatus::Completed);
    harness.finish().await;
}

/// More workflows than one claim takes: each is claimed, and run once.
#[actix::test]
async fn many_workflows_are_taken_up_part_by_part() {
    const COUNT: usize = 2_500;
    let memory = shared();
    let ids: Vec<String> = (0..COUNT).map(|n| format!("w{n}")).collect();
    let spec = |id: &String| WorkflowSpec::new("many").id(id.as_str()).task(quick("a"));
    memory.submit(ids.iter().map(|id| stored(spec(id), None)).collect()).await.unwrap();
    let worker = worker(&memory).await;
    for id in &ids {
        assert_eq!(settled(&memory, id).await, WorkflowStatus::Completed, "{id}");
    }
    assert_eq!(worker.script.calls().len(), COUNT);
    worker.finish().await;
}

/// Another process can stop what runs here.
#[actix::test]
async fn requests_of_other_processes_are_done_and_answered() {
    let memory = shared();
    let mut harness = own(&memory).await;
    let spec = WorkflowSpec::new("w").id("w").task(task("a", json!({"gate": "never"})));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "a").await;
    let verdict = Resolution::Failed { message: "no".into() };
    let settle = Command::Resolve { task: "a".into(), resolution: verdict };
    let refused = memory.ask(Request { workflow: "w".into(), command: settle }).await.unwrap();
    let cancel = Command::Cancel { reason: "enough".into() };
    let done = memory.ask(Request { workflow: "w".into(), command: cancel }).await.unwrap();
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Cancelled);
    harness.catch_up().await;
    let refusal = memory.take_answer(refused).await.unwrap().unwrap().unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WorkflowInvalidState);
    assert_eq!(memory.take_answer(done).await.unwrap(), Some(Ok(())));
    harness.finish().await;
}

/// A call that must not run twice, cut off by a crash; what follows waits for it.
fn once() -> WorkflowSpec {
    let once = |id: &str| TaskSpec::new(id, "test/once").params(json!({"gate": "never"}));
    WorkflowSpec::new("once")
        .id("once")
        .task(once("good"))
        .task(once("bad"))
        .task(once("again"))
        .task(task("next", json!({"value": "${good.n}"})))
        .task(quick("never").after("bad"))
}

/// A person's word ends the doubt, and what depends on the task follows.
#[actix::test]
async fn a_persons_word_settles_a_task_of_unknown_outcome() {
    let memory = shared();
    let mut first = own(&memory).await;
    first.submit(once()).await.unwrap();
    for id in ["good", "bad", "again"] {
        first.until_task("task:started", id).await;
    }
    first.catch_up().await;
    first.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    let mut second = worker(&memory).await;
    second.catch_up().await;
    let record = second.state(&"once".into()).await.unwrap();
    assert_eq!(statuses(&record)[..3], [OutcomeUnknown; 3]);
    let settle = async |task: &str, verdict| {
        let command = Command::Resolve { task: task.into(), resolution: verdict };
        let settle = Apply { id: "once".into(), command };
        within(second.actors.addresses.engine.send(settle)).await.unwrap()
    };
    settle("good", Resolution::Completed { result: json!({"n": 7}) }).await.unwrap();
    let twice = settle("good", Resolution::Retry).await.unwrap_err();
    assert_eq!(twice.code, ErrorCode::WorkflowInvalidState);
    settle("bad", Resolution::Failed { message: "the bank says no".into() }).await.unwrap();
    second.script.open("never");
    let missing = settle("none", Resolution::Retry).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::TaskNotFound);
    settle("again", Resolution::Retry).await.unwrap();
    let record = second.wait(&"once".into()).await.unwrap();
    assert_eq!(record.status, WorkflowStatus::Failed);
    assert_eq!(statuses(&record)[..4], [Completed, Failed, Completed, Completed]);
    assert_eq!(code(&record, "bad"), Some(ErrorCode::TaskExecutionFailed));
    assert_eq!(result(&record, "next"), &json!(7));
    let mut order = second.script.order();
    order.sort();
    assert_eq!(order, ["again", "next"], "what the person settled is not run again");
    second.check_stored(&"once".into()).await;
    second.finish().await;
}

/// A workflow with an unknown outcome can be cancelled before that is resolved.
#[actix::test]
async fn a_task_of_unknown_outcome_can_be_cancelled() {
    let memory = shared();
    let mut first = own(&memory).await;
    let once = TaskSpec::new("a", "test/once").params(json!({"gate": "never"}));
    first.submit(WorkflowSpec::new("w").id("w").task(once)).await.unwrap();
    first.until_task("task:started", "a").await;
    first.catch_up().await;
    first.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    let mut second = worker(&memory).await;
    second.catch_up().await;
    second.cancel(&"w".into()).await.unwrap();
    assert_eq!(statuses(&second.stored(&"w".into()).await), [Cancelled]);
    second.finish().await;
}
