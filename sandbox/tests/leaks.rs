//! That nothing is left of a jail: no process, no descriptor, no file, no control group.
//!
//! What belongs to this process is counted, so that one test at a time has it to itself.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::time::Duration;

use gleitzeit_sandbox::{JailSettings, Job, Level, SandboxError, Status};
use serde_json::json;
use support::{Bench, jail_settings, until};
use tokio::sync::{Mutex, MutexGuard};

/// The level of this file's tests.
const LEVEL: Level = Level::Process;

/// Set for the process that plays the service to be killed: the file for the numbers of all that it
/// started.
const MARKER: &str = "SANDBOX_TEST_MARKER";

/// The whole process, for one test.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// A zygote that dies takes its task with it, and is followed by another one.
#[tokio::test]
async fn a_dead_zygote_is_followed_by_another() {
    let _alone = alone().await;
    let bench = Bench::new().await;
    let running = tokio::spawn({
        let sandbox = bench.sandbox.clone();
        async move { sandbox.run(Job::execute("import time\ntime.sleep(60)")).await }
    });
    until("the task runs", || descendants().len() >= 3).await;
    // The launcher is our child, its child is the zygote.
    let launcher = children_of(std::process::id())[0];
    let zygote = children_of(launcher)[0];
    let pid = nix::unistd::Pid::from_raw(zygote.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(bench.execute("1").await.result, json!(1));
    // The tests that follow look for what is left.
    bench.sandbox.stop().await;
}

/// Stopped, a sandbox leaves nothing behind: no process, no descriptor, no control group.
#[tokio::test]
async fn a_stopped_sandbox_leaves_nothing() {
    let _alone = alone().await;
    // The runtime's own descriptors are there before.
    Bench::new().await.sandbox.stop().await;
    let before = descriptors();
    let bench = Bench::with(&JailSettings { workers: 2, ..jail_settings() }).await;
    let hang = bench.sandbox.run(Job::execute("while True: pass"));
    assert!(tokio::time::timeout(Duration::from_millis(50), hang).await.is_err());
    bench.sandbox.stop().await;
    assert!(matches!(bench.sandbox.run(Job::execute("1")).await, Err(SandboxError::Closed)));
    drop(bench);
    until("all processes are gone", || descendants().is_empty()).await;
    until("all descriptors are closed", || descriptors() <= before).await;
    assert_eq!(support::groups(), Vec::<std::path::PathBuf>::new());
}

/// Dropped without a word, it is gone as well.
#[tokio::test]
async fn a_dropped_sandbox_ends_its_jails() {
    let _alone = alone().await;
    let bench = Bench::new().await;
    assert!(!descendants().is_empty());
    drop(bench);
    until("all processes are gone", || descendants().is_empty()).await;
    until("all control groups are gone", || support::groups().is_empty()).await;
}

/// Killed with -9, the service takes its jails with it, and what runs in them.
#[tokio::test]
async fn jails_die_with_the_service() {
    if let Some(marker) = std::env::var_os(MARKER) {
        // This is the service: it runs one task for as long as it is let.
        let bench = Bench::new().await;
        let hang = bench.execute("import time\ntime.sleep(60)");
        let write_pids = async {
            until("the next child waits", || descendants().len() >= 4).await;
            let text = format!("{marker:?}").trim_matches('"').to_owned();
            std::fs::write(text.clone() + "~", format!("{:?}", descendants())).unwrap();
            std::fs::rename(text.clone() + "~", text).unwrap();
        };
        let (outcome, ()) = tokio::join!(hang, write_pids);
        panic!("the service outlived its task: {outcome:?}");
    }
    let _alone = alone().await;
    let root = tempfile::tempdir().unwrap();
    let marker = root.path().join("pids");
    let mut service = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jails_die_with_the_service"])
        .env(MARKER, &marker)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the task runs", || marker.exists()).await;
    let text = std::fs::read_to_string(&marker).unwrap();
    let pids: Vec<u64> = serde_json::from_str(&text).unwrap();
    // A launcher, a zygote, a child that works and one that waits.
    assert!(pids.len() == 4 && pids.iter().all(|pid| support::is_alive(*pid)), "{pids:?}");
    service.kill().unwrap();
    service.wait().unwrap();
    until("no orphan is left", || !pids.iter().any(|pid| support::is_alive(*pid))).await;
}

/// Twenty thousand tasks in a row leave what there was before them.
#[tokio::test]
async fn twenty_thousand_tasks_leave_nothing() {
    let _alone = alone().await;
    let bench = Bench::with(&JailSettings { workers: 2, ..jail_settings() }).await;
    let code = "open('file', 'w').write('x' * 1000)\nprint('x')\nresult = 1";
    let rounds = async |count: usize| {
        let lane = async || {
            for _ in 0..count / 2 {
                assert_eq!(bench.execute(code).await.status, Status::Ok);
            }
        };
        tokio::join!(lane(), lane());
    };
    Box::pin(rounds(500)).await;
    let before = (descriptors(), memory());
    Box::pin(rounds(20_000)).await;
    settled(&bench, before).await;
}

/// Nor do tasks that crash, hang, print without end or eat memory, nor callers that go away.
#[tokio::test]
async fn two_thousand_hostile_tasks_leave_nothing() {
    let _alone = alone().await;
    let bench = Bench::with(&JailSettings { workers: 2, ..jail_settings() }).await;
    let kinds = [
        ("import os\nos.abort()", Status::Killed),
        ("while True: pass", Status::Timeout),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", Status::OutputLimit),
        ("x = bytearray(1 << 30)", Status::MemoryLimit),
        ("for n in range(300): open(f'f{n}', 'w').close()", Status::Ok),
    ];
    let rounds = async |count: usize| {
        let lane = async |from: usize| {
            for n in 0..count / 2 {
                let (code, status) = kinds[(n + from) % kinds.len()];
                // Long enough for all that ends by itself, on a busy machine as well.
                let limit = if status == Status::Timeout { 30 } else { 10_000 };
                let job = Job::execute(code).timeout(Duration::from_millis(limit));
                let outcome = bench.run(job).await;
                assert_eq!(outcome.status, status, "{code}: {outcome:?}");
                if n % 10 == 0 {
                    let hang = bench.sandbox.run(Job::execute("while True: pass"));
                    let _ = tokio::time::timeout(Duration::from_millis(2), hang).await;
                }
            }
        };
        tokio::join!(lane(0), lane(2));
    };
    Box::pin(rounds(50)).await;
    let before = (descriptors(), memory());
    Box::pin(rounds(2_000)).await;
    settled(&bench, before).await;
}

/// Everything is as it was, the tasks' directory is empty, and nothing is left of a stopped sandbox.
async fn settled(bench: &Bench, (open, resident): (usize, u64)) {
    // Each place has a launcher, a zygote and a child that waits, and nothing else.
    until("the places are as before", || descendants().len() == 6).await;
    until("descriptors are as before", || descriptors() <= open).await;
    let grown = memory().saturating_sub(resident);
    assert!(grown < resident / 20 + (2 << 20), "{grown} bytes more than {resident}");
    let files = bench.execute("import os\nos.listdir()").await;
    assert_eq!(files.result, json!([]));
    bench.sandbox.stop().await;
    until("all processes are gone", || descendants().is_empty()).await;
    assert_eq!(support::groups(), Vec::<std::path::PathBuf>::new());
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes of this process that are resident.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    // Kernels for 64-bit ARM also come with pages of 16 and 64 KiB.
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap();
    pages * u64::try_from(page).unwrap()
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// Every process below this one, zombies included.
fn descendants() -> Vec<u32> {
    let mut found = children_of(std::process::id());
    let mut at = 0;
    while at < found.len() {
        found.extend(children_of(found[at]));
        at += 1;
    }
    found
}
