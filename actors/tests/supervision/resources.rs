//! Resources under contention: never more than there is, always given back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use gleitzeit_actors::{
    execution_engine::Shutdown,
    resource_manager::{Acquire, CancelWaiting, Grant, Need, ResourceLease},
};
use gleitzeit_domain::{
    error::ErrorCode,
    resources::{ResourceRequirements, Resources},
    retry::{AnyError, RetryOn, RetryPolicy},
    task::{Priority, TaskStatus},
    workflow::TaskSpec,
};
use tokio::{sync::oneshot, time::Instant};

use crate::support::{
    Harness, Setup, assert_completed, many, one,
    provider::{Gate, Script},
    task,
};

const TOTAL: Resources = Resources {
    slots: 0,
    cpu_millicores: 4_000,
    memory_mib: 100,
    gpu_memory_mib: 16,
    disk_mib: 50,
    bandwidth_mbps: 10,
};

fn small() -> Setup {
    let mut setup = Setup { resources: TOTAL, ..Setup::default() };
    setup.engine.max_concurrent_tasks = 64;
    setup
}

fn memory(mib: u64) -> ResourceRequirements {
    ResourceRequirements { memory_mb: Some(mib), ..ResourceRequirements::default() }
}

/// Sleeps for as long as the task's name is, so that ends come one by one.
fn working() -> Script {
    Script::executing(|_, call| async move {
        let millis = 5 + call.task_id.as_str().bytes().map(u64::from).sum::<u64>() % 23;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(serde_json::json!({ "memory": call.resources.memory_mib }))
    })
}

/// The sum of the live leases is exact at every moment that anyone samples.
#[actix::test]
async fn a_thousand_tasks_never_take_more_than_there_is() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let script = working();
    harness.employ(script.spec("p")).await;
    let needs = |at: usize| ResourceRequirements {
        cpu_cores: Some([0.0, 0.1, 0.5, 1.25, 4.0][at % 5]),
        memory_mb: Some([0, 1, 30, 51, 100][(at / 5) % 5]),
        gpu_memory_mb: Some([0, 0, 16, 3][at % 4]),
        disk_space_mb: Some((at % 50) as u64),
        network_bandwidth_mbps: Some([1, 0, 10][at % 3]),
        execution_timeout: None,
    };
    let spec = many(1_000, |at| task(&format!("t{at}")).resources(needs(at)));
    let (_, mut ending) = harness.submit(spec).await;
    let mut samples = 0;
    let mut most = Resources::default();
    let record = loop {
        let report = harness.resources().await;
        assert!(report.taken.fits_in(&report.total), "{report:?}");
        most.memory_mib = most.memory_mib.max(report.taken.memory_mib);
        most.cpu_millicores = most.cpu_millicores.max(report.taken.cpu_millicores);
        samples += 1;
        tokio::select! {
            record = &mut ending => break record,
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    };
    assert_completed(Arc::clone(&record));
    assert_eq!(record.tasks.len(), 1_000);
    assert!(samples > 1_000, "looked {samples} times");
    // There was contention, and what there is was used.
    assert_eq!((most.memory_mib, most.cpu_millicores), (100, 4_000));
    // Each had what it asked for.
    assert_eq!(record.tasks[24].result.as_ref().unwrap()["memory"], 100);
    harness.assert_nothing_left().await;
}

/// No amount of waiting would help, nor would another attempt.
#[actix::test]
async fn a_need_above_the_total_is_refused_at_once_and_not_repeated() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let script = working();
    harness.employ(script.spec("p")).await;
    let retry = RetryPolicy { jitter: false, ..RetryPolicy::default() };
    let begun = Instant::now();
    let too_much = task("big").resources(memory(101)).retry(retry);
    let refused = harness.run_task(too_much).await;
    assert_eq!((refused.status, refused.attempts), (TaskStatus::Failed, 1));
    let error = refused.error.unwrap();
    assert_eq!(error.code, ErrorCode::ResourceExhausted);
    assert!(!error.is_retryable());
    assert!(error.message.contains("101") && error.message.contains("100"), "{error}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(script.diary.count("call"), 0);
    // All there is, is not too much.
    assert_completed(harness.run(one(task("all").resources(memory(100)))).await);
    harness.assert_nothing_left().await;
}

/// A large request is served although small ones keep arriving, before and after it.
#[actix::test]
async fn a_large_task_is_neither_starved_nor_in_the_way() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let script = working();
    harness.employ(script.spec("p")).await;
    let little = |count| many(count, |at| task(&format!("s{at}")).resources(memory(10)));
    let (_, older) = harness.submit(little(30)).await;
    script.diary.until("call s", 10).await;
    let large = task("large").resources(memory(100)).priority(Priority::Low);
    let (_, large) = harness.submit(one(large)).await;
    let (_, younger) = harness.submit(little(900)).await;
    assert_completed(large.await);
    let before = script.diary.count("call s");
    assert!(before < 900, "it came last, behind {before} small ones");
    // It did not make them wait before its turn: those that fit went on.
    assert!(before > 30, "nobody passed it: {before}");
    assert_completed(older.await);
    assert_completed(younger.await);
    harness.assert_nothing_left().await;
}

async fn acquire(harness: &Harness, need: Resources, priority: Priority) -> Grant {
    let need = Need { task: harness.task_key(), need, priority };
    harness.addresses.resources.send(Acquire(vec![need])).await.unwrap().remove(0)
}

fn mib(memory_mib: u64) -> Resources {
    Resources { memory_mib, ..Resources::default() }
}

async fn lease(harness: &Harness, amount: u64) -> ResourceLease {
    match acquire(harness, mib(amount), Priority::Normal).await {
        Grant::Leased(lease) => lease,
        other => panic!("not granted at once: {other:?}"),
    }
}

async fn wait(
    harness: &Harness,
    amount: u64,
    priority: Priority,
) -> oneshot::Receiver<ResourceLease> {
    match acquire(harness, mib(amount), priority).await {
        Grant::Waiting(lease) => lease,
        other => panic!("does not wait: {other:?}"),
    }
}

/// The order is priority, then age; who does not fit is passed over by who does.
#[actix::test]
async fn leases_go_by_priority_and_age_and_to_who_fits() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let (half, rest) = (lease(&harness, 50).await, lease(&harness, 50).await);
    let mut large = wait(&harness, 80, Priority::Normal).await;
    let mut second = wait(&harness, 50, Priority::Normal).await;
    let mut first = wait(&harness, 50, Priority::High).await;
    drop(half);
    harness.settle().await;
    let first = (&mut first).now_or_never().expect("the more urgent one is served").unwrap();
    assert!((&mut second).now_or_never().is_none());
    drop(rest);
    harness.settle().await;
    let second = (&mut second).now_or_never().expect("it fits, the large one does not").unwrap();
    assert!((&mut large).now_or_never().is_none());
    assert_eq!(harness.resources().await.taken.memory_mib, 100);
    drop((first, second));
    harness.settle().await;
    let large = (&mut large).now_or_never().expect("there is room now").unwrap();
    assert_eq!(large.held().memory_mib, 80);
}

/// A wait that was cancelled, or given up without a word, takes nothing.
#[actix::test]
async fn a_wait_that_ends_takes_nothing() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let held = lease(&harness, 100).await;
    let task = harness.task_key();
    let need = Need { task, need: mib(100), priority: Priority::Urgent };
    let granted = harness.addresses.resources.send(Acquire(vec![need])).await.unwrap().remove(0);
    let Grant::Waiting(cancelled) = granted else { panic!("{granted:?}") };
    drop(wait(&harness, 100, Priority::High).await);
    let last = wait(&harness, 100, Priority::Low).await;
    assert_eq!(harness.resources().await.waiting, 3);
    harness.addresses.resources.send(CancelWaiting(Arc::new(vec![task]))).await.unwrap();
    assert!(cancelled.await.is_err(), "the channel closes");
    drop(held);
    assert_eq!(last.await.unwrap().held().memory_mib, 100);
    harness.settle().await;
    let report = harness.resources().await;
    assert_eq!((report.taken, report.waiting), (Resources::default(), 0));
}

/// A provider that does whatever goes wrong.
fn troubled(gate: &Gate) -> Script {
    let gate = gate.clone();
    Script::executing(move |_, call| {
        let gate = gate.clone();
        async move {
            match call.task_id.as_str() {
                "panic" => panic!("on purpose"),
                "panic later" => {
                    tokio::task::yield_now().await;
                    panic!("on purpose");
                }
                "fail" => return Err(gleitzeit_domain::error::TaskError::failed("on purpose")),
                _ => gate.pass().await,
            }
            Ok(true.into())
        }
    })
}

fn all(id: &str) -> TaskSpec {
    task(id).resources(memory(100))
}

/// On no path does a lease get lost: after each the next task gets all there is.
#[actix::test]
async fn a_lease_is_released_on_every_path() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let gate = Gate::default();
    let script = troubled(&gate);
    harness.employ(script.spec("p")).await;
    for (id, code) in [
        ("panic", ErrorCode::ProviderUnhealthy),
        ("panic later", ErrorCode::ProviderUnhealthy),
        ("fail", ErrorCode::TaskExecutionFailed),
        ("time out", ErrorCode::TaskTimeout),
    ] {
        let failed = harness.run_task(all(id).timeout(Duration::from_secs(5))).await;
        assert_eq!(failed.error.unwrap().code, code, "{id}");
        harness.settle().await;
        assert_eq!(harness.resources().await.taken, Resources::default(), "{id}");
    }

    // Cancelled in its call, while another one waits for the lease, which is cancelled after it.
    let (id, running) = harness.submit(one(all("running"))).await;
    script.diary.until("call running", 1).await;
    let (waiting_id, waiting) = harness.submit(one(all("waiting"))).await;
    let (_, next) = harness.submit(one(all("next"))).await;
    harness.settle().await;
    assert_eq!(harness.resources().await.waiting, 2);
    harness.cancel(waiting_id).await;
    harness.cancel(id).await;
    assert_eq!(running.await.tasks[0].status, TaskStatus::Cancelled);
    assert_eq!(waiting.await.tasks[0].status, TaskStatus::Cancelled);
    gate.open(1);
    assert_completed(next.await);

    // The whole time of the task is over while it runs.
    let limited = all("limited").total_timeout(Duration::from_secs(3));
    let over = harness.run_task(limited).await;
    assert_eq!(over.error.unwrap().code, ErrorCode::TaskTimeout);
    assert_eq!(script.diary.count("call waiting"), 0);
    harness.assert_nothing_left().await;
}

/// A task that waits for a provider holds no lease: others can run.
#[actix::test]
async fn who_waits_for_a_provider_holds_nothing() {
    tokio::time::pause();
    let harness = Harness::new(small());
    harness.employ(working().spec("p")).await;
    let nobody = TaskSpec::new("nobody", "play/v1.0:run").resources(memory(100));
    let (_, nobody) = harness.submit(one(nobody)).await;
    harness.settle().await;
    assert_eq!(harness.resources().await.taken, Resources::default());
    assert_completed(harness.run(one(all("other"))).await);
    let refused = nobody.await;
    assert_eq!(refused.tasks[0].error.as_ref().unwrap().code, ErrorCode::MethodNotSupported);
    harness.assert_nothing_left().await;
}

/// Each attempt acquires a lease of its own; the pause between two holds none.
#[actix::test]
async fn a_retry_acquires_a_new_lease() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    let script = Script::executing(move |_, call| {
        let attempt = count.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            assert_eq!(call.resources.memory_mib, 100);
            match attempt {
                1 | 2 => Err(gleitzeit_domain::error::TaskError::failed("not yet")),
                _ => Ok(true.into()),
            }
        }
    });
    harness.employ(script.spec("p")).await;
    let retry = RetryPolicy {
        jitter: false,
        base_delay: Duration::from_secs(10),
        retry_on: RetryOn::Any(AnyError::Any),
        ..RetryPolicy::default()
    };
    let (_, ending) = harness.submit(one(all("again").retry(retry))).await;
    script.diary.until("call", 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(harness.resources().await.taken, Resources::default());
    assert_completed(ending.await);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    harness.assert_nothing_left().await;
}

/// Stopping abandons the call, and its lease with it.
#[actix::test]
async fn an_abandoned_call_releases_its_lease() {
    tokio::time::pause();
    let harness = Harness::new(small());
    let gate = Gate::default();
    let script = troubled(&gate);
    harness.employ(script.spec("p")).await;
    let (id, _ending) = harness.submit(one(all("held"))).await;
    script.diary.until("call", 1).await;
    assert_eq!(harness.resources().await.taken.memory_mib, 100);
    let shutdown = Shutdown { deadline: Duration::from_secs(3) };
    let report = harness.addresses.engine.send(shutdown).await.unwrap();
    assert_eq!(report.abandoned, [(id, "held".into())]);
    harness.settle().await;
    assert_eq!(harness.resources().await.taken, Resources::default());
    assert_eq!(harness.status("p").await.in_flight, 0);
}
