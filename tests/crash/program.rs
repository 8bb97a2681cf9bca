//! What a process of a test does: an engine over the shared database, and a client of it.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use gleitzeit::{
    EngineCounts, Handle, ListFilter, Runtime, Store, TaskRecord, TaskStatus, WorkflowId,
    WorkflowSpec, WorkflowSummary, domain::store::lease::Resolution, runtime::open_store,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    journal::{self, Line},
    process::{Orders, Role, say},
    workload,
};

/// Between two looks at a state that another process changes.
const POLL: Duration = Duration::from_millis(5);

/// Nothing is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Between submissions that are to come while others are being written: so much in the second
/// round, twice that in the third.
const APART: Duration = Duration::from_micros(50);

/// At most so many.
const ROUNDS: u32 = 20;

/// More workflows than a test has.
const ALL: ListFilter =
    ListFilter { status: None, name: None, since: None, until: None, limit: 1_000_000, offset: 0 };

/// The whole life of a process.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn live(orders: Orders) {
    let store = open_store(&workload::settings(&orders.store)).await.unwrap();
    let runtime = workload::builder(&orders.store, &orders.folder, &orders.name)
        .store(Arc::clone(&store))
        .start()
        .await
        .unwrap();
    let client = Client { handle: runtime.handle(), store, orders };
    let mut input = input();
    say("started");
    match client.orders.role {
        Role::First => client.leave_behind().await,
        Role::Retries => client.leave_retries().await,
        Role::Worker => client.do_share().await,
        Role::Helper => client.help(&mut input).await,
        Role::Last => client.finish(&client.orders.shares).await,
        Role::Stream => client.stream(&mut input).await,
    }
    let orders = client.orders.clone();
    client.write_lost_leases().await;
    drop(client);
    end(runtime, &orders).await;
    write_passes(&orders.folder);
}

/// Stops; a stream has calls that never end, and a disk that others keep busy.
async fn end(runtime: Runtime, orders: &Orders) {
    let is_stream = orders.role == Role::Stream;
    let deadline = if is_stream { Duration::from_secs(1) } else { Duration::from_secs(10) };
    let report = runtime.stop(deadline).await;
    assert!(report.stored, "{report:?}");
    for (workflow, task) in report.abandoned {
        let (process, task) = (orders.name.clone(), format!("{workflow}/{task}"));
        journal::append(&orders.folder, &Line::Cut { process, task });
    }
}

/// Lines that the process reads from its standard input; closed with it.
type Input = mpsc::UnboundedReceiver<String>;

fn input() -> Input {
    let (sender, input) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    input
}

/// How often this process has come to each failpoint, where it was asked to count.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "there are none"))]
fn write_passes(folder: &Path) {
    #[cfg(feature = "failpoints")]
    {
        let passes = gleitzeit_failpoint::passes();
        let lines: Vec<String> =
            passes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !lines.is_empty() {
            std::fs::write(folder.join("passes"), lines.join("\n")).unwrap();
        }
    }
}

/// True for a failpoint that this process counts, and has not come to.
#[cfg(feature = "failpoints")]
fn is_missed(failpoint: &str) -> bool {
    let passes = gleitzeit_failpoint::passes();
    passes.iter().any(|(name, count)| *name == failpoint && *count == 0)
}

#[cfg(not(feature = "failpoints"))]
fn is_missed(_: &str) -> bool {
    false
}

/// On a fast machine a process may be done before it renews its lease.
fn must_renew() -> bool {
    let failpoint = std::env::var("GLEITZEIT_FAILPOINT").unwrap_or_default();
    failpoint == "count" || failpoint.starts_with("store.lease.renew")
}

fn ids(specs: &[WorkflowSpec]) -> Vec<String> {
    specs.iter().filter_map(|spec| Some(spec.id.as_ref()?.to_string())).collect()
}

struct Client {
    handle: Handle,
    store: Arc<dyn Store>,
    orders: Orders,
}

impl Client {
    fn folder(&self) -> &Path {
        &self.orders.folder
    }

    /// Submits all at once; what is accepted is written down. Their ids.
    async fn submit(&self, specs: Vec<WorkflowSpec>) -> Vec<String> {
        join_all(specs.into_iter().map(|spec| async {
            let id = self.handle.submit(spec).await.unwrap();
            let workflow = id.to_string();
            journal::append(self.folder(), &Line::Accepted { workflow });
            id.to_string()
        }))
        .await
    }

    async fn wait(&self, id: &str) {
        let id = WorkflowId::from(id);
        let waited = tokio::time::timeout(TIMEOUT, self.handle.wait(&id)).await;
        let record = waited.unwrap_or_else(|_| panic!("{id} has not settled")).unwrap();
        assert!(record.status.is_settled(), "{id}: {}", record.status);
    }

    async fn wait_all(&self, ids: impl IntoIterator<Item = String>) {
        join_all(ids.into_iter().map(|id| async move { self.wait(&id).await })).await;
    }

    /// Whoever lost its lease was taken for dead: what it ran was run again elsewhere.
    async fn write_lost_leases(&self) {
        let stats = self.handle.stats().await.unwrap();
        if stats.leases_lost > 0 {
            let process = self.orders.name.clone();
            let (leases, refused) = (stats.leases_lost, stats.fenced_writes);
            journal::append(self.folder(), &Line::Lost { process, leases, refused });
        }
    }

    /// Waits until a task that is stored has come to a status.
    async fn await_status(&self, workflow: &str, task: usize, status: TaskStatus) {
        let reached = async {
            loop {
                let record = self.store.workflow(&workflow.into()).await.unwrap();
                if record.is_some_and(|record| record.tasks[task].status == status) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let reached = tokio::time::timeout(TIMEOUT, reached).await;
        reached.unwrap_or_else(|_| panic!("{workflow}, task {task}: not {status}"));
    }

    /// The first process: work that is half done.
    async fn leave_behind(&self) {
        self.submit(workload::old()).await;
        self.wait_all(ids(&workload::old())).await;
        let now = chrono::Utc::now().to_rfc3339();
        std::fs::write(self.folder().join("old-before"), now).unwrap();
        // The one that waits for its second attempt comes last: it does not wait for ever.
        let (waiting, others) = workload::left_over()
            .into_iter()
            .partition(|spec| spec.id.as_ref().is_some_and(|id| id.as_str() == "left-retry"));
        self.submit(others).await;
        for unconfirmed in workload::UNCONFIRMED {
            self.await_status(unconfirmed, 0, TaskStatus::Executing).await;
        }
        self.await_status("left-half", 0, TaskStatus::Completed).await;
        self.await_status("left-settled", 0, TaskStatus::Failed).await;
        self.wait("left-settled").await;
        self.submit(waiting).await;
        self.await_status("left-retry", 0, TaskStatus::RetryPending).await;
        say("ready");
        std::future::pending::<()>().await;
    }

    /// Tasks that wait for their second attempt.
    async fn leave_retries(&self) {
        let specs = workload::retrying();
        let ids = ids(&specs);
        self.submit(specs).await;
        for id in ids {
            self.await_status(&id, 0, TaskStatus::RetryPending).await;
        }
        say("ready");
        std::future::pending::<()>().await;
    }

    /// All that a client asks of a runtime: about its own share, and what it found left over.
    async fn do_share(&self) {
        let work = async {
            for share in &self.orders.shares {
                self.work_through(share).await;
            }
        };
        // Somebody else may have been faster.
        let _ = self.handle.retry(&"left-settled".into()).await;
        tokio::join!(work, self.settle_left_over());
        self.forget_old().await;
    }

    async fn settle_left_over(&self) {
        let is_left = |it: &WorkflowSummary| it.id.as_str().starts_with("left-");
        let settled = async {
            while self.unsettled().await.iter().any(is_left) {
                self.resolve_all().await;
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(TIMEOUT, settled).await.expect("what was left over has not settled");
    }

    /// Submits a share, sees it end, and stops what would not; the neighbour stops the last one, or
    /// whoever is alone.
    async fn work_through(&self, share: &str) {
        let mut all = workload::ending(share);
        all.extend(workload::endless(share));
        self.submit(all).await;
        self.enqueue(workload::enqueued(share)).await;
        self.wait_all(ids(&workload::ending(share))).await;
        if must_renew() {
            // What is to be stopped keeps the lease needed until it was renewed often enough.
            tokio::time::sleep(workload::RENEWALS).await;
        }
        self.stop_endless(share).await;
        let neighbour = self.orders.neighbour.as_deref().unwrap_or(share);
        self.stop_asked(neighbour).await;
        self.wait_all(ids(&workload::endless(share))).await;
        self.wait(&workload::id(share, "enqueued")).await;
        // Nobody could go on with those of a helper that is told to stop.
        if self.orders.role != Role::Helper {
            self.submit_unnamed().await;
        }
        // Submitted again, it is known.
        self.submit(workload::ending(share)).await;
        // Settled, it cannot be stopped.
        self.stop_endless(share).await;
        let chain = workload::id(share, "chain").into();
        assert!(!self.handle.events(&chain, 0, 1_000).await.unwrap().is_empty());
    }

    /// Workflows that nobody can submit again, each while others are being written. How fast that
    /// must be depends on the machine: where it matters, until some had ended before their write,
    /// and some had not.
    async fn submit_unnamed(&self) {
        for round in 0..ROUNDS {
            let one_by_one = workload::unnamed().into_iter().map(|spec| async move {
                // Nothing else is to be done on this thread.
                std::thread::sleep(APART * round);
                self.submit(vec![spec]).await
            });
            self.wait_all(join_all(one_by_one).await.into_iter().flatten()).await;
            if !["engine.early.stored", "engine.early.behind"].into_iter().any(is_missed) {
                return;
            }
        }
    }

    /// Stores a workflow for whoever claims it.
    async fn enqueue(&self, spec: WorkflowSpec) {
        let id = self.handle.enqueue(spec).await.unwrap();
        let workflow = id.to_string();
        journal::append(self.folder(), &Line::Accepted { workflow });
    }

    /// Stops what would go on for ever; where an earlier life or another process did so, that is
    /// told by an error.
    async fn stop_endless(&self, share: &str) {
        let _ = self.handle.cancel(&workload::id(share, "cancelled").into(), "unwanted").await;
        let part = workload::id(share, "part").into();
        let _ = self.handle.cancel_task(&part, &"hold".into(), "unwanted").await;
    }

    /// The same for that which its own process does not stop.
    async fn stop_asked(&self, share: &str) {
        let asked = WorkflowId::from(workload::id(share, "asked"));
        while self.store.workflow(&asked).await.unwrap().is_none() {
            tokio::time::sleep(POLL).await;
        }
        let _ = self.handle.cancel(&asked, "unwanted").await;
    }

    /// A person looks at what is in doubt, and gives word on each.
    async fn resolve_all(&self) {
        for summary in self.store.list(ALL).await.unwrap() {
            if summary.outcome_unknown_count > 0 {
                self.resolve_tasks(&summary.id).await;
            }
        }
    }

    /// The word goes by the id: it is done, it is to be done again, it failed; else it need not be
    /// done any more, and the rest of `left-word` is run all the same. Somebody else may be faster:
    /// then it is an error.
    async fn resolve_tasks(&self, id: &WorkflowId) {
        let Some(record) = self.handle.workflow(id).await.unwrap() else { return };
        let unconfirmed = |task: &&TaskRecord| task.status == TaskStatus::OutcomeUnknown;
        for task in record.tasks.iter().filter(unconfirmed) {
            journal::append(self.folder(), &Line::Word { task: format!("{id}/{}", task.id) });
            let verdict = match id.as_str() {
                "left-done" => Resolution::Completed { result: json!({ "by": "person" }) },
                "left-again" => Resolution::Retry,
                "left-failed" => Resolution::Failed { message: "it was not done".into() },
                _ => {
                    let _ = self.handle.cancel_task(id, &task.id, "nobody knows").await;
                    continue;
                }
            };
            let _ = self.handle.resolve(id, &task.id, verdict).await;
        }
        if id.as_str() == "left-word" {
            self.wait(id.as_str()).await;
            let _ = self.handle.retry(id).await;
        }
    }

    async fn forget_old(&self) {
        let before = std::fs::read_to_string(self.folder().join("old-before"));
        if let Ok(before) = before {
            self.store.prune(before.parse().unwrap(), 1_000).await.unwrap();
        }
    }

    async fn help(&self, input: &mut Input) {
        let work = async {
            for share in &self.orders.shares {
                self.work_through(share).await;
            }
            std::future::pending::<()>().await;
        };
        let shares = tokio::select! {
            () = work => None,
            shares = input.recv() => shares,
        };
        if let Some(shares) = shares {
            let shares: Vec<String> = shares.split(' ').map(str::to_owned).collect();
            self.finish(&shares).await;
        }
    }

    /// Does all that is left, of these shares and of what is there, and finds nothing left over.
    async fn finish(&self, shares: &[String]) {
        let mut specs = Vec::new();
        for share in shares {
            specs.extend(workload::ending(share));
            specs.extend(workload::endless(share));
            specs.push(workload::enqueued(share));
        }
        self.submit(specs).await;
        let settled = async {
            loop {
                let unsettled = self.unsettled().await;
                if unsettled.is_empty() {
                    return;
                }
                for summary in unsettled {
                    match summary.id.as_str().rsplit_once('-') {
                        Some((share, "cancelled" | "part")) => self.stop_endless(share).await,
                        Some((share, "asked")) => self.stop_asked(share).await,
                        _ => {}
                    }
                }
                self.resolve_all().await;
                tokio::time::sleep(POLL).await;
            }
        };
        let is_settled = tokio::time::timeout(TIMEOUT, settled).await.is_ok();
        assert!(is_settled, "not settled: {:#?}", self.unsettled().await);
        self.check_leftovers().await;
    }

    /// Share after share, two at a time, until told to stop.
    async fn stream(&self, input: &mut Input) {
        let one = |half: &'static str| async move {
            for number in 0.. {
                self.work_through(&format!("{}{half}{number}", self.orders.name)).await;
            }
        };
        tokio::select! {
            () = one("a") => {}
            () = one("b") => {}
            _ = input.recv() => {}
        }
    }

    async fn unsettled(&self) -> Vec<WorkflowSummary> {
        let mut all = self.store.list(ALL).await.unwrap();
        all.retain(|summary| !summary.status.is_settled());
        all
    }

    /// An engine whose workflows have all settled holds nothing.
    async fn check_leftovers(&self) {
        let empty = async {
            while self.handle.engine_counts().await.unwrap() != EngineCounts::default() {
                tokio::time::sleep(POLL).await;
            }
        };
        let is_empty = tokio::time::timeout(TIMEOUT, empty).await.is_ok();
        assert!(is_empty, "left over: {:?}", self.handle.engine_counts().await.unwrap());
    }
}
