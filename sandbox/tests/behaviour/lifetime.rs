//! When a job ends, at every level.

use std::time::{Duration, Instant};

use gleitzeit_sandbox::{Interpreter, Job, Status};

use crate::support::{self, Bench};

/// Slow machines are slow, but not this slow: what stalls waits for 20 seconds and more.
const PROMPTLY: Duration = Duration::from_secs(10);

/// Code that does not want to die dies.
#[tokio::test]
async fn no_signal_handler_puts_off_a_timeout() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import signal, time
for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGXCPU):
    signal.signal(n, signal.SIG_IGN)
while True:
    try: time.sleep(60)
    except BaseException: pass";
    let begin = Instant::now();
    let outcome = bench.run(Job::execute(code).timeout(Duration::from_millis(300))).await;
    assert_eq!(outcome.status, Status::Timeout);
    assert!(begin.elapsed() < PROMPTLY);
}

/// A thread that never ends is joined until the time is up, and not longer.
#[tokio::test]
async fn a_thread_left_over_ends_with_the_deadline() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()";
    let outcome = bench.run(Job::execute(code).timeout(Duration::from_millis(500))).await;
    assert_eq!(outcome.status, Status::Timeout);
}

/// The first 64 KiB stay; the rest is counted and costs nothing.
#[tokio::test]
async fn output_is_cut_and_counted() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import sys\nprint('x' * 100_000)\nsys.stderr.write('ü' * 50_000)\nresult = 1";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.status, Status::Ok);
    assert!(outcome.truncated());
    assert_eq!((outcome.stdout.text.len(), outcome.stdout.total_bytes), (65_536, 100_001));
    assert_eq!((outcome.stderr.text.len(), outcome.stderr.total_bytes), (65_536, 100_000));
    let whole = bench.execute("print('x')").await;
    assert!(!whole.truncated());
}

/// A job that prints without end is stopped long before its time is up.
#[tokio::test]
async fn a_flood_of_output_is_stopped() {
    let Some(bench) = Bench::open().await else { return };
    let begin = Instant::now();
    let outcome = bench.execute("while True: print('x' * 1000)").await;
    assert_eq!(outcome.status, Status::OutputLimit, "{outcome:?}");
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(outcome.stdout.text.len(), 65_536);
    assert!(outcome.stdout.total_bytes < 9 << 20);
    // Too fast to be stopped, but told all the same.
    let outcome = bench.execute("import os\nprint('x' * (9 << 20))").await;
    assert_eq!(outcome.status, Status::OutputLimit, "{outcome:?}");
}

/// The probe sees through shims and tells what it found.
#[tokio::test]
async fn the_probe_finds_the_real_interpreter() {
    let interpreter = Interpreter::probe(support::python().as_ref()).await.unwrap();
    assert!(interpreter.path().is_absolute(), "{interpreter:?}");
    let Some(bench) = Bench::open().await else { return };
    let outcome = bench.execute("import sys\n'%d.%d.%d' % sys.version_info[:3]").await;
    assert_eq!(outcome.result, serde_json::json!(interpreter.version().to_string()));
}
