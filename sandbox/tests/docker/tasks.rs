//! In containers: the same behaviour, and what only a container can promise.

use std::time::{Duration, Instant};

use gleitzeit_sandbox::{
    DockerSettings, Job, Level, Limits, Sandbox, SandboxError, Status, docker_available,
};
use serde_json::json;

use crate::support::{self, Bench};

/// Slow machines are slow, but not this slow: what stalls waits for 20 seconds and more.
const PROMPTLY: Duration = Duration::from_secs(10);

/// A task is a user without rights in a machine without a name, a network or a file to write, and
/// not the first process there.
#[tokio::test]
async fn a_task_is_nobody_nowhere() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import os
def refused(path):
    try: open(path, 'w'); return None
    except OSError as error: return error.errno
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())
result = {
    'ids': [os.getuid(), os.geteuid(), os.getgid(), sorted({65534, *os.getgroups()})],
    'processes': [os.getppid(), os.getpid() > 1],
    'name': os.uname().nodename,
    'directory': [os.getcwd(), os.listdir()],
    'capabilities': [int(status[name], 16) for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')],
    'privileges': [status['NoNewPrivs'], status['Seccomp']],
    'network': [line.split(':')[0].strip() for line in open('/proc/net/dev').read().splitlines()[2:]],
    'environment': sorted(os.environ),
    'outside': [refused(path) for path in ('/x', '/tmp/x', '/etc/x', '/dev/x')],
    'shared memory': os.path.exists('/dev/shm'),
}";
    let outcome = bench.execute(code).await;
    let expected = json!({
        "ids": [65534, 65534, 65534, [65534]],
        "processes": [1, true],
        "name": "sandbox",
        "directory": ["/task", []],
        "capabilities": [0, 0, 0, 0, 0],
        "privileges": ["1", "2"],
        "network": ["lo"],
        "environment": ["HOME", "LOGNAME", "USER"],
        "outside": [30, 30, 30, 13],
        "shared memory": false,
    });
    assert_eq!(outcome.result, expected, "{outcome:?}");
    assert_eq!(outcome.sandbox, Level::Docker);
}

/// Nothing of one task is left when the next one begins: it has another container.
#[tokio::test]
async fn each_task_has_a_container_of_its_own() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import os
found = os.listdir()
open('left', 'w').write('x')
result = [found, open('/proc/1/stat').read().split()[21]]";
    let (one, two) = (bench.execute(code).await.result, bench.execute(code).await.result);
    assert_eq!((&one[0], &two[0]), (&json!([]), &json!([])));
    assert_ne!(one[1], two[1], "the first process is another one");
}

/// The first process is out of a task's reach: it can neither be read nor written nor hit, and so
/// nobody but it tells how the task ended.
#[tokio::test]
async fn the_supervisor_is_out_of_reach() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import ctypes, os
reached = []
for path in ('mem', 'environ', 'fd/0', 'fd/1', 'maps', 'cwd', 'root/task'):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try: os.open(f'/proc/1/{path}', flags); reached.append(path)
        except OSError: pass
try: os.listdir('/proc/1/fd'); reached.append('descriptors')
except OSError: pass
for number in (0, 9, 15, 14, 19):
    try: os.kill(1, number); reached.append(f'signal {number}')
    except OSError: pass
C = ctypes.CDLL(None, use_errno=True)
if C.ptrace(0x4206, 1, 0, 0) == 0: reached.append('ptrace')
for fd in range(3, 64):
    try: os.write(fd, b'x\\0\\0\\0\\x45{\"status\":0,\"cpu_seconds\":0.0,\"peak_bytes\":0,\"out_of_memory\":false}')
    except OSError: pass
print(reached, flush=True)
os._exit(3)";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.stdout.text, "[]\n", "{outcome:?}");
    assert_eq!((outcome.exit_code, outcome.status), (3, Status::Error), "{outcome:?}");
}

/// What was printed and spent by then is reported, and the end is the kill's.
#[tokio::test]
async fn a_timeout_kills_and_keeps_the_output() {
    let Some(bench) = Bench::open().await else { return };
    let code = "print('started', flush=True)\nwhile True: pass";
    let limit = Duration::from_millis(500);
    let outcome = bench.run(Job::execute(code).timeout(limit)).await;
    assert_eq!((outcome.status, outcome.exit_code), (Status::Timeout, -1), "{outcome:?}");
    assert_eq!((outcome.signal, &*outcome.stdout.text), (None, "started\n"));
    assert!(outcome.execution_time >= limit && outcome.execution_time < PROMPTLY);
}

/// The memory that a task declares is what the kernel gives it, its files included.
#[tokio::test]
async fn memory_is_what_the_job_says() {
    let Some(bench) = Bench::open().await else { return };
    let ask = "
import os
for path in ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'):
    if os.path.exists(path): result = int(open(path).read())";
    let usual = bench.execute(ask).await;
    assert_eq!(usual.result, json!((512 + 256 + 32) << 20), "{usual:?}");
    let limits = Limits { memory_bytes: 1 << 30, file_bytes: 64 << 20, ..Limits::default() };
    let more = bench.run(Job { limits, ..Job::execute(ask) }).await;
    assert_eq!(more.result, json!((1024 + 64 + 32) << 20), "{more:?}");
    // Files in memory that are allowed each, and not together.
    let code = "for n in range(16): open(f'f{n}', 'wb').write(b'x' * (15 << 20))\nresult = n";
    let limits = Limits { memory_bytes: 48 << 20, file_bytes: 16 << 20, ..Limits::default() };
    let outcome = bench.run(Job { limits: limits.clone(), ..Job::execute(code) }).await;
    assert_eq!(outcome.status, Status::MemoryLimit, "{outcome:?}");
    let limits = Limits { memory_bytes: 256 << 20, file_bytes: 256 << 20, ..limits };
    let outcome = bench.run(Job { limits, ..Job::execute(code) }).await;
    assert_eq!(outcome.result, json!(15), "{outcome:?}");
}

/// Files, threads and processor time have an end.
#[tokio::test]
async fn resources_have_an_end() {
    let set = |settings: &mut DockerSettings| {
        settings.task_bytes = 4 << 20;
        settings.cpu_millicores = 250;
    };
    let Some(bench) = Bench::in_containers(set).await else { return };
    let many = bench.execute("for n in range(20000): open(f'f{n}', 'w').close()").await;
    assert!(many.error.unwrap().message.contains("No space left"), "inodes");
    let large = bench.execute("open('f', 'wb').write(b'x' * (8 << 20))").await;
    assert!(large.error.unwrap().message.contains("No space left"), "bytes");
    let threads = "
import os, threading, time
started = 0
try:
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start(); started += 1
except (RuntimeError, MemoryError): pass
print(started, flush=True)
os._exit(0)";
    let limits = Limits { memory_bytes: 8 << 30, ..Limits::default() };
    let outcome = bench.run(Job { limits, ..Job::execute(threads) }).await;
    let started: u64 = outcome.stdout.text.trim().parse().unwrap();
    assert!((10..64).contains(&started), "{started} threads");
    // A quarter of a core: as much work takes four times as long.
    let spin = "import time\nwhile time.process_time() < 0.5: pass";
    let outcome = bench.execute(spin).await;
    assert!(outcome.execution_time > Duration::from_millis(1100), "{outcome:?}");
}

/// Directories of the machine are shown where they are named, and only to be read.
#[tokio::test]
async fn read_only_paths_can_be_read_and_not_written() {
    let read_only_paths = tempfile::tempdir().unwrap();
    std::fs::write(read_only_paths.path().join("data"), "seen").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(read_only_paths.path(), mode).unwrap();
    let path = read_only_paths.path().to_owned();
    let Some(bench) = Bench::in_containers(|settings| settings.read_only_paths = vec![path]).await
    else {
        return;
    };
    let code = "
result = [open(context + '/data').read()]
try: open(context + '/new', 'w')
except OSError as error: result.append(error.errno)";
    let job = Job::execute(code).global("context", json!(read_only_paths.path()));
    assert_eq!(bench.run(job).await.result, json!(["seen", 30]));
}

/// One container does one thing; whoever is too many is told so.
#[tokio::test]
async fn tasks_wait_for_a_slot_and_the_queue_has_an_end() {
    let set = |settings: &mut DockerSettings| (settings.workers, settings.queue_max) = (1, 2);
    let Some(bench) = Bench::in_containers(set).await else { return };
    let sleep = "import time\nbegin = time.monotonic()\ntime.sleep(0.2)\nresult = [begin, time.monotonic()]";
    let run = || bench.sandbox.run(Job::execute(sleep));
    let ends = tokio::join!(run(), run(), run(), run(), run(), run());
    let (mut times, mut busy) = (Vec::new(), 0);
    for end in [ends.0, ends.1, ends.2, ends.3, ends.4, ends.5] {
        match end {
            Ok(outcome) => times.push((outcome.result[0].as_f64(), outcome.result[1].as_f64())),
            Err(SandboxError::Busy { waiting: 2 }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((2..=3).contains(&times.len()) && times.len() + busy == 6, "{times:?}");
    times.sort_by(|one, two| one.partial_cmp(two).unwrap());
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{times:?} overlap");
}

/// A cancelled call is a killed task, and its place is free again.
#[tokio::test]
async fn a_dropped_call_frees_its_slot() {
    let Some(bench) = Bench::open().await else { return };
    for _ in 0..3 {
        let hang = bench.sandbox.run(Job::execute("while True: pass"));
        assert!(tokio::time::timeout(Duration::from_millis(300), hang).await.is_err());
    }
    let begin = Instant::now();
    assert_eq!(bench.execute("1").await.result, json!(1));
    assert!(begin.elapsed() < PROMPTLY, "{:?}", begin.elapsed());
}

/// The self-test had a try at every wall, and says what the containers are made of.
#[tokio::test]
async fn the_self_test_reports_what_holds() {
    let Some(bench) = Bench::open().await else { return };
    let self_test = bench.sandbox.self_test().unwrap();
    assert!(self_test.checks.len() >= 10 && self_test.checks.iter().all(|check| check.held));
    let text = self_test.to_string();
    assert!(text.contains(&format!("{0} of {0} ways out closed; Docker", self_test.checks.len())));
    assert!(text.contains("runtime runc, image gleitzeit-test:"), "{text}");
}

/// What is missing is reported, with where and what to do, and nothing is pulled or replaced.
#[tokio::test]
async fn a_missing_engine_is_reported_at_the_start() {
    let nowhere = DockerSettings {
        host: Some("unix:///no/such/socket".to_owned()),
        ..DockerSettings::of("x")
    };
    let wrong = DockerSettings { host: Some("ftp://x".to_owned()), ..nowhere.clone() };
    for (settings, parts) in [
        (nowhere, ["`unix:///no/such/socket`", "docker.io"]),
        (wrong, ["`ftp://x` is no address", "unix://PATH"]),
    ] {
        let error = docker_available(&settings).await.unwrap_err();
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
    let Some(settings) = support::docker_settings().await else { return };
    let no_image =
        DockerSettings { image: "gleitzeit-test:missing".to_owned(), ..settings.clone() };
    let no_runtime = DockerSettings { runtime: Some("no-such".to_owned()), ..settings.clone() };
    for (settings, parts) in [
        (no_image, ["image `gleitzeit-test:missing` is not at", "never pulled"]),
        (no_runtime, ["has no runtime `no-such`", "runc"]),
    ] {
        let error = Sandbox::docker("python3".as_ref(), &settings).await.unwrap_err();
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
    let error = Sandbox::docker("no-such-python".as_ref(), &settings).await.unwrap_err();
    assert!(matches!(error, SandboxError::Interpreter { .. }), "{error}");
    assert!(error.to_string().contains("`no-such-python`"), "{error}");
}
