//! Without a jail: what code gives, and that nothing is left of it that this level can prevent.

mod behaviour;
mod support;

use std::time::{Duration, Instant};

use gleitzeit_sandbox::{Interpreter, Job, Level, Limits, SandboxError, Status};
use serde_json::json;
use support::{Bench, is_alive, until};

/// The level of this file's tests.
const LEVEL: Level = Level::None;
/// Set for the process that plays the service to be killed: the file for the numbers of its job's
/// processes.
const MARKER: &str = "SANDBOX_TEST_MARKER";

/// Code that forks, writes both numbers to `marker` in one step, leaves a file and sleeps.
fn forking_code(marker: &std::path::Path) -> String {
    let marker = marker.to_str().unwrap_or_default();
    format!(
        "
import os, time
child = os.fork()
if child:
    with open({marker:?} + '~', 'w') as f:
        f.write(f'{{os.getpid()}} {{child}}')
    os.rename({marker:?} + '~', {marker:?})
    open('file', 'w').write('x')
time.sleep(60)"
    )
}

/// Slow machines are slow, but not this slow: what stalls waits for 20 seconds and more.
const PROMPTLY: Duration = Duration::from_secs(10);

/// The time is up for all that the job started, and what it had said by then is kept.
#[tokio::test]
async fn a_timeout_kills_the_whole_group_and_keeps_the_output() {
    let bench = Bench::new().await;
    let code = "
import os, time
child = os.fork()
if child == 0:
    time.sleep(60)
print(child)
print('started')
while True: pass";
    let begin = Instant::now();
    let outcome = bench.run(Job::execute(code).timeout(Duration::from_secs(2))).await;
    assert_eq!((outcome.status, outcome.exit_code), (Status::Timeout, -1), "{outcome:?}");
    assert!(begin.elapsed() < PROMPTLY, "{:?}", begin.elapsed());
    assert!(outcome.execution_time >= Duration::from_secs(2));
    assert!(outcome.stdout.text.ends_with("started\n"), "{outcome:?}");
    let child = outcome.stdout.text.lines().next().unwrap().parse().unwrap();
    until("the child is dead", || !is_alive(child)).await;
}

/// Moving to another process group does not help either.
#[tokio::test]
async fn leaving_the_group_does_not_help() {
    let bench = Bench::new().await;
    let code = "import os, time\nos.setpgid(0, os.getpgid(os.getppid()))\ntime.sleep(60)";
    let outcome = bench.run(Job::execute(code).timeout(Duration::from_millis(500))).await;
    assert_eq!(outcome.status, Status::Timeout, "{outcome:?}");
}

/// The end of a job is the end of its process: who else holds its pipe is of no concern.
#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_stalls_nothing() {
    let bench = Bench::new().await;
    let code = "
import os, time
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(30)
    os._exit(0)
print('done')
result = child";
    let begin = Instant::now();
    let outcome = bench.execute(code).await;
    assert!(begin.elapsed() < PROMPTLY, "{:?}", begin.elapsed());
    assert_eq!((outcome.status, &*outcome.stdout.text), (Status::Ok, "done\n"));
    // It left the group, which this level cannot prevent; the test cleans up after it.
    let pid = nix::unistd::Pid::from_raw(outcome.result.as_i64().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Children that the code forgot go with it, also when it ends well.
#[tokio::test]
async fn children_left_behind_are_killed() {
    let bench = Bench::new().await;
    let code = "import os, time\nresult = os.fork()\nif result == 0: time.sleep(60)";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
    let child = outcome.result.as_u64().unwrap();
    until("the child is dead", || !is_alive(child)).await;
}

/// A caller that goes away takes the job with it, children and directory included.
#[tokio::test]
async fn a_dropped_job_leaves_nothing() {
    let bench = Bench::new().await;
    let marker = bench.root.path().join("pids");
    let code = forking_code(&marker);
    let running = tokio::spawn({
        let sandbox = bench.sandbox.clone();
        async move { sandbox.run(Job::execute(code)).await }
    });
    until("the job runs", || marker.exists()).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let pids: Vec<u64> = std::fs::read_to_string(&marker)
        .unwrap()
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 2);
    until("both are gone", || pids.iter().all(|pid| !is_alive(*pid))).await;
    until("the task is reaped", || !std::path::Path::new(&format!("/proc/{}", pids[0])).exists())
        .await;
    std::fs::remove_file(marker).unwrap();
    until("its directory is gone", || bench.task_dirs().is_empty()).await;
}

/// What a job takes it gives back, however it ends.
#[tokio::test]
async fn many_jobs_leak_nothing() {
    let bench = Bench::new().await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    bench.execute("1").await;
    let before = descriptors();
    for round in 0..40 {
        let hang = Job::execute("while True: pass").timeout(Duration::from_millis(150));
        let (one, two, three, four) = tokio::join!(
            bench.execute("print(1)"),
            bench.execute("1 / 0"),
            bench.execute("import os; os.abort()"),
            bench.run(hang),
        );
        let statuses = [one.status, two.status, three.status, four.status];
        let expected = [Status::Ok, Status::Error, Status::Killed, Status::Timeout];
        assert_eq!(statuses, expected, "round {round}");
        drop(
            tokio::time::timeout(Duration::from_millis(20), bench.execute("while True: pass"))
                .await,
        );
    }
    until("descriptors are back", || descriptors() <= before).await;
    until("children are gone", || children().is_empty()).await;
    until("directories are gone", || bench.task_dirs().is_empty()).await;
}

/// Every child of this process that runs Python, zombies included, except other tests' jobs, which
/// run in other processes or have ended by then.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let tasks = std::fs::read_dir(format!("/proc/{own}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// A limit of memory for the job is none for the service's patience: a job may end in any way.
#[tokio::test]
async fn a_fork_bomb_and_a_memory_hog_end_with_their_time() {
    let bench = Bench::new().await;
    let limits =
        Limits { timeout: Duration::from_millis(600), memory_bytes: 64 << 20, ..Limits::default() };
    let code = "import os, time\nfor _ in range(6): os.fork()\ntime.sleep(60)";
    let begin = Instant::now();
    let outcome = bench.run(Job { limits, ..Job::execute(code) }).await;
    assert_eq!(outcome.status, Status::Timeout, "{outcome:?}");
    assert!(begin.elapsed() < PROMPTLY);
}

/// Killed with -9, the service takes its tasks with it: the kernel sees to that, not the service.
#[tokio::test]
async fn jobs_die_with_the_service() {
    if let Some(marker) = std::env::var_os(MARKER) {
        // This is the service: it runs one job for as long as it is let.
        let code = forking_code(std::path::Path::new(&marker));
        let outcome = Bench::new().await.execute(&code).await;
        panic!("the service outlived its job: {outcome:?}");
    }
    let root = tempfile::tempdir().unwrap();
    let marker = root.path().join("pids");
    let mut service = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobs_die_with_the_service"])
        .env(MARKER, &marker)
        .env("TMPDIR", root.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the job runs", || marker.exists()).await;
    let pids: Vec<u64> = std::fs::read_to_string(&marker)
        .unwrap()
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
    service.kill().unwrap();
    service.wait().unwrap();
    until("no orphan is left", || pids.iter().all(|pid| !is_alive(*pid))).await;
}

/// An interpreter that is not there, or is none, is named with its path.
#[tokio::test]
async fn an_unusable_interpreter_is_named() {
    for path in ["/no/such/python3", "/bin/false", "/bin/cat"] {
        let error = Interpreter::probe(path.as_ref()).await.unwrap_err();
        assert!(matches!(error, SandboxError::Interpreter { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

/// The service's own variables reach no task, in whatever way it looks for them.
#[tokio::test]
async fn the_environment_of_the_service_is_not_visible() {
    let bench = Bench::new().await;
    let code = "open('/proc/self/environ').read()";
    let outcome = bench.execute(code).await;
    let seen = outcome.result.as_str().unwrap();
    assert!(std::env::var_os("PATH").is_some() && !seen.contains("PATH"), "{seen}");
}

/// A forked child that runs off the end of the code is not the task.
#[tokio::test]
async fn a_forked_child_sends_no_reply() {
    let bench = Bench::new().await;
    let code = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nresult = 'parent' if pid else 'child'";
    assert_eq!(bench.execute(code).await.result, json!("parent"));
}

/// Every job starts in an empty directory of its own, and nothing of it stays.
#[tokio::test]
async fn each_job_has_a_directory_of_its_own() {
    let bench = Bench::new().await;
    let code = "import os\nfound = os.listdir()\nos.mkdir('d')\nopen('d/f', 'w').write('x')\nresult = [os.getcwd(), found]";
    let (first, second) = tokio::join!(bench.execute(code), bench.execute(code));
    assert_ne!(first.result[0], second.result[0], "{first:?}");
    assert_eq!((&first.result[1], &second.result[1]), (&json!([]), &json!([])));
    support::until("directories are gone", || bench.task_dirs().is_empty()).await;
}
