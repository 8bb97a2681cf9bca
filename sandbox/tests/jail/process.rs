//! In a jail: the same behaviour, and what only a jail can promise.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gleitzeit_sandbox::{
    Interpreter, JailSettings, Job, Level, Limits, Sandbox, SandboxError, Status,
};
use serde_json::json;

use crate::support::{self, Bench, jail_settings};

/// Slow machines are slow, but not this slow: what stalls waits for 20 seconds and more.
const PROMPTLY: Duration = Duration::from_secs(10);

/// Everything of a task stays within its own directory, and is gone before the next one begins.
#[tokio::test]
async fn each_task_finds_its_directory_empty() {
    let bench = Bench::new().await;
    let code = "
import os
found = os.listdir()
os.makedirs('d/e')
open('d/e/f', 'w').write('x')
os.chmod('d/e', 0)
os.chmod('.', 0)
result = [os.getcwd(), found]";
    for _ in 0..3 {
        let outcome = bench.execute(code).await;
        assert_eq!(outcome.result, json!(["/task", []]), "{outcome:?}");
    }
    let deep =
        "import os\nfor n in range(150):\n    os.mkdir('d'); os.chdir('d')\n    open('f', 'w')";
    assert_eq!(bench.execute(deep).await.status, Status::Ok);
    assert_eq!(bench.execute("import os\nos.listdir()").await.result, json!([]));
}

/// A directory tree that cannot be cleared away costs its zygote, not the next task.
#[tokio::test]
async fn what_cannot_be_cleared_is_replaced() {
    let bench = Bench::new().await;
    let code = "import os\nfor n in range(1000):\n    os.mkdir('d' * 200); os.chdir('d' * 200)";
    assert_eq!(bench.execute(code).await.status, Status::Ok);
    assert_eq!(bench.execute("import os\nos.listdir()").await.result, json!([]));
}

/// The service's own variables reach no task, in whatever way it looks for them.
#[tokio::test]
async fn the_environment_of_the_service_is_not_visible() {
    let bench = Bench::new().await;
    let code = "
import ctypes, os
names = [bytes(name) for name in os.environb]
C = ctypes.CDLL(None)
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(C, 'environ')
at = 0
while environ and environ[at]:
    names.append(environ[at]); at += 1
try: names.append(open('/proc/self/environ', 'rb').read())
except FileNotFoundError: pass
own = (b'HOME', b'USER', b'LOGNAME')
result = repr([name for name in names if name.split(b'=')[0] not in own])";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.result, json!("[]"), "{outcome:?}");
}

/// A task is a user that the machine does not have, in a machine without a name of its own, and not
/// the first process there.
#[tokio::test]
async fn a_task_is_nobody_nowhere() {
    let bench = Bench::new().await;
    let code = "
import os
result = [os.getuid(), os.geteuid(), os.getgid(), os.uname().nodename, os.getppid(), os.getpid() > 1]";
    let outcome = bench.execute(code).await;
    let id = 1_900_000_000;
    assert_eq!(outcome.result, json!([id, id, id, "sandbox", 1, true]), "{outcome:?}");
    assert_eq!(outcome.sandbox, Level::Process);
}

/// Default signals work, which they would not in the first process of a namespace.
#[tokio::test]
async fn an_abort_is_an_abort_and_leaves_no_core() {
    let bench = Bench::new().await;
    let outcome = bench.execute("import os\nos.abort()").await;
    assert_eq!((outcome.exit_code, outcome.signal), (-6, Some(6)), "{outcome:?}");
    assert_eq!(bench.execute("import os\nos.listdir()").await.result, json!([]));
}

/// What was printed and spent by then is reported, and the end is the kill's, not a courtesy's.
#[tokio::test]
async fn a_timeout_kills_at_once_and_keeps_the_output() {
    let bench = Bench::new().await;
    let code = "
import signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print('started', flush=True)
while True: pass";
    // What comes before the loop takes its time, too, on a slow machine.
    let limit = Duration::from_secs(2);
    let outcome = bench.run(Job::execute(code).timeout(limit)).await;
    assert_eq!((outcome.status, outcome.exit_code), (Status::Timeout, -1), "{outcome:?}");
    assert_eq!((outcome.signal, &*outcome.stdout.text), (None, "started\n"));
    assert!(outcome.execution_time >= limit && outcome.execution_time < PROMPTLY);
    // Told by the kernel, as the task cannot any more.
    assert!(outcome.cpu_time.unwrap() > Duration::ZERO && outcome.max_rss_bytes.unwrap() > 1 << 20);
}

/// No process comes out of a task: not by fork, not by a program, not by a thread's flags.
#[tokio::test]
async fn a_task_starts_no_process() {
    let bench = Bench::new().await;
    let code = "
import ctypes, os, subprocess, sys
refused = []
def attempt(what):
    try: what()
    except OSError as error: refused.append(error.errno)
attempt(os.fork)
attempt(lambda: os.posix_spawn(sys.executable, ['python3'], {}))
attempt(lambda: os.execv(sys.executable, ['python3']))
attempt(lambda: subprocess.run([sys.executable]))
C = ctypes.CDLL(None, use_errno=True)
def clone():
    number = {'x86_64': 56, 'aarch64': 220}[os.uname().machine]
    if C.syscall(number, 17, 0, 0, 0, 0) < 0: raise OSError(ctypes.get_errno(), 'clone')
attempt(clone)
result = refused";
    assert_eq!(bench.execute(code).await.result, json!([1, 1, 1, 1, 1]));
}

/// A cancelled call is a killed task, and its place is free again.
#[tokio::test]
async fn a_dropped_call_frees_its_slot_at_once() {
    let bench = Bench::new().await;
    for _ in 0..5 {
        let hang = bench.sandbox.run(Job::execute("while True: pass"));
        assert!(tokio::time::timeout(Duration::from_millis(30), hang).await.is_err());
    }
    let begin = Instant::now();
    assert_eq!(bench.execute("1").await.result, json!(1));
    assert!(begin.elapsed() < PROMPTLY, "{:?}", begin.elapsed());
}

/// One place does one thing at a time; whoever is too many is told so.
#[tokio::test]
async fn tasks_wait_for_a_slot_and_the_queue_has_an_end() {
    let bench = Bench::with(&JailSettings { queue_max: 2, ..jail_settings() }).await;
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
    // Two wait, and one has a place, when it was free by then.
    assert!((2..=3).contains(&times.len()) && times.len() + busy == 6, "{times:?}");
    times.sort_by(|one, two| one.partial_cmp(two).unwrap());
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{times:?} overlap");
}

/// Several places work at once.
#[tokio::test]
async fn slots_work_side_by_side() {
    let bench = Bench::with(&JailSettings { workers: 3, ..jail_settings() }).await;
    let code = "import time\nbegin = time.monotonic()\ntime.sleep(0.5)\nresult = [begin, time.monotonic()]";
    // A sandbox starts with one place; the others are there as soon as their zygotes are.
    let begin = Instant::now();
    loop {
        let (one, two, three) =
            tokio::join!(bench.execute(code), bench.execute(code), bench.execute(code));
        let times = [one.result, two.result, three.result];
        let latest = times.iter().filter_map(|time| time[0].as_f64()).fold(0.0, f64::max);
        if times.iter().all(|time| time[1].as_f64().unwrap() > latest) {
            break;
        }
        assert!(begin.elapsed() < support::AMPLE, "{times:?}");
    }
}

/// Zygotes are replaced while tasks go on, and none of them notices.
#[tokio::test]
async fn zygotes_are_replaced_without_a_gap() {
    for settings in [
        JailSettings { recycle_tasks: 3, ..jail_settings() },
        JailSettings { recycle_age: Duration::from_millis(50), ..jail_settings() },
    ] {
        let bench = Bench::with(&settings).await;
        let mut numbers = Vec::new();
        for n in 0..60 {
            let outcome = bench.execute(&format!("import os\nresult = [{n}, os.getpid()]")).await;
            assert_eq!(outcome.result[0], json!(n), "{outcome:?}");
            numbers.push(outcome.result[1].as_u64().unwrap());
        }
        let restarts = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(restarts >= 2, "{restarts} replacements: {numbers:?}");
        bench.sandbox.stop().await;
    }
}

/// Memory, files, threads and processor time have an end, each by its own name where it has one.
#[tokio::test]
async fn resources_have_an_end() {
    let bench = Bench::with(&JailSettings { task_bytes: 4 << 20, ..jail_settings() }).await;
    let many = bench.execute("for n in range(20000): open(f'f{n}', 'w').close()").await;
    assert!(many.error.unwrap().message.contains("No space left"), "inodes");
    let large = bench.execute("open('f', 'wb').write(b'x' * (8 << 20))").await;
    assert!(large.error.unwrap().message.contains("No space left"), "bytes");
    let open = bench.execute("files = [open(f'f{n}', 'w') for n in range(100)]").await;
    assert!(open.error.unwrap().message.contains("Too many open files"));
    let limits = Limits { memory_bytes: 96 << 20, ..Limits::default() };
    let hog = Job { limits: limits.clone(), ..Job::execute("x = bytearray(200 << 20)") };
    let outcome = bench.run(hog).await;
    assert_eq!(outcome.status, Status::MemoryLimit, "{outcome:?}");
    let threads = "
import threading, time
started = 0
try:
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start(); started += 1
except (RuntimeError, MemoryError): pass
import os
print(started, flush=True)
os._exit(0)";
    let limits = Limits { memory_bytes: 8 << 30, ..Limits::default() };
    let outcome = bench.run(Job { limits, ..Job::execute(threads) }).await;
    let started: u64 = outcome.stdout.text.trim().parse().unwrap();
    assert!((10..300).contains(&started), "{started} threads");
}

/// Memory that no address space counts is counted by the control group, where there is one.
#[tokio::test]
async fn the_kernel_counts_memory_where_it_can() {
    let bench = Bench::new().await;
    if bench.sandbox.self_test().unwrap().cgroups.is_empty() {
        println!("SKIPPED: memory by control groups (none can be made here)");
        return;
    }
    // Sixteen files in memory of a size that is allowed each, and not together.
    let code = "for n in range(16): open(f'f{n}', 'wb').write(b'x' * (15 << 20))\nresult = n";
    let limits = Limits { memory_bytes: 48 << 20, file_bytes: 16 << 20, ..Limits::default() };
    let outcome = bench.run(Job { limits: limits.clone(), ..Job::execute(code) }).await;
    assert_eq!(outcome.status, Status::MemoryLimit, "{outcome:?}");
    let limits = Limits { memory_bytes: 256 << 20, file_bytes: 256 << 20, ..limits };
    let outcome = bench.run(Job { limits, ..Job::execute(code) }).await;
    assert_eq!(outcome.result, json!(15), "{outcome:?}");
}

/// A task with a limit of the processor is held back by the kernel; where no group can do that, a
/// sandbox with one does not start.
#[tokio::test]
async fn the_kernel_limits_the_processor_where_it_is_asked_to() {
    let settings = JailSettings { cpu_millicores: Some(250), workers: 1, ..jail_settings() };
    let sandbox = match Sandbox::jailed(support::python().as_ref(), &settings).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            assert!(error.to_string().contains("`cpu_millicores` needs control groups"), "{error}");
            println!("SKIPPED: a limit of the processor (no control group can set one here)");
            return;
        }
    };
    let burn = "import time\nwhile time.process_time() < 0.5: pass\nresult = 'burnt'";
    assert_eq!(sandbox.run(Job::execute(burn)).await.unwrap().result, json!("burnt"));
    let limited: Vec<PathBuf> = support::groups()
        .into_iter()
        .filter(|group| {
            let says = |file: &str, what: &str| {
                std::fs::read_to_string(group.join(file)).is_ok_and(|text| text.trim() == what)
            };
            says("cpu.max", "25000 100000") || says("cpu.cfs_quota_us", "25000")
        })
        .collect();
    assert!(!limited.is_empty(), "{:?}", support::groups());
    let is_held_back = limited.iter().any(|group| {
        let text = std::fs::read_to_string(group.join("cpu.stat")).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.is_some_and(|count| count.trim() != "0")
    });
    assert!(is_held_back, "a quarter of a core is not a limit to half a second of it");
    sandbox.stop().await;
}

/// Random numbers differ from task to task, although all come from one process.
#[tokio::test]
async fn tasks_share_no_random_numbers() {
    let bench = Bench::new().await;
    let code = "import os, random, uuid\nresult = [random.random(), os.urandom(8).hex(), uuid.uuid4().hex]";
    let (one, two) = (bench.execute(code).await.result, bench.execute(code).await.result);
    for at in 0..3 {
        assert_ne!(one[at], two[at], "{one} and {two}");
    }
}

/// What one task does to its interpreter no other one sees.
#[tokio::test]
async fn tasks_see_nothing_of_each_other() {
    let bench = Bench::new().await;
    let poison = "
import builtins, json, sys
builtins.PROBE_POISON = 1
json.dumps = None
sys.path.append('/task')
sys.modules['math'] = None
open('shadow.py', 'w').write('')";
    assert_eq!(bench.execute(poison).await.status, Status::Ok);
    let code = "
import builtins, json, math, sys
result = [hasattr(builtins, 'PROBE_POISON'), json.dumps([1]), math.floor(1.5), '/task' in sys.path]";
    assert_eq!(bench.execute(code).await.result, json!([false, "[1]", 1, false]));
}

/// Without a launcher there is a clear error, and never a weaker sandbox.
#[tokio::test]
async fn without_a_launcher_there_is_a_clear_error() {
    let python = support::python();
    let none = JailSettings { launcher: None, ..jail_settings() };
    let error = Sandbox::jailed(python.as_ref(), &none).await.unwrap_err().to_string();
    assert!(
        error.contains("gleitzeit::sandbox::init()") && error.contains("`launcher`"),
        "{error}"
    );
    for (wrong, part) in [
        ("/no/such/program", "launcher `/no/such/program` cannot"),
        ("/bin/true", "without output"),
    ] {
        let settings = JailSettings { launcher: Some(wrong.into()), ..jail_settings() };
        let error = Sandbox::jailed(python.as_ref(), &settings).await.unwrap_err();
        assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(part), "{wrong}: {error}");
    }
}

/// A launcher in the service's directory is found, although it starts in another one.
#[tokio::test]
async fn a_launcher_is_named_relative_to_the_service() {
    let here = std::env::current_dir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_gleitzeit-sandbox-init"));
    let up = here.components().skip(1).map(|_| "..").collect::<PathBuf>();
    let relative = Path::new(".").join(up).join(program.strip_prefix("/").unwrap());
    let settings = JailSettings { launcher: Some(relative), ..jail_settings() };
    let sandbox = Sandbox::jailed(support::python().as_ref(), &settings).await.unwrap();
    assert_eq!(sandbox.run(Job::execute("result = 1")).await.unwrap().result, json!(1));
    sandbox.stop().await;
}

/// The self-test had a try at every wall, and says what the jail is made of.
#[tokio::test]
async fn the_self_test_reports_what_holds() {
    let bench = Bench::new().await;
    let self_test = bench.sandbox.self_test().unwrap();
    assert!(self_test.checks.len() >= 10 && self_test.checks.iter().all(|check| check.held));
    let text = self_test.to_string();
    assert!(
        text.contains(&format!("{0} of {0} ways out closed", self_test.checks.len())),
        "{text}"
    );
}

/// A directory that is shown may hold the socket of a service; showing it does not open it.
#[tokio::test]
async fn a_socket_in_a_read_only_path_is_no_way_out() {
    let read_only_paths = tempfile::tempdir().unwrap();
    let path = read_only_paths.path().join("socket");
    let listener = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let settings = JailSettings {
        read_only_paths: vec![read_only_paths.path().to_owned()],
        ..jail_settings()
    };
    let bench = Bench::with(&settings).await;
    let code = "
import os, socket, stat
result = stat.S_ISSOCK(os.stat(context).st_mode)
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM, socket.SOCK_RAW):
    for send in (lambda one: one.sendto(b'out', context),
                 lambda one: one.sendmsg([b'out'], [], 0, context)):
        try:
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            send(one)
        except (OSError, AttributeError): pass";
    let outcome = bench.run(Job::execute(code).global("context", json!(path))).await;
    assert_eq!(outcome.result, json!(true), "it cannot even be seen: {outcome:?}");
    assert!(listener.recv(&mut [0; 16]).is_err(), "it was heard: {outcome:?}");
}

/// A database in the task's own directory works, with every way it has to lock and to write.
#[tokio::test]
async fn databases_lock_their_own_files() {
    let bench = Bench::new().await;
    let code = "
import sqlite3, threading
for mode in ('delete', 'wal', 'truncate'):
    one = sqlite3.connect(mode, check_same_thread=False)
    assert one.execute('pragma journal_mode = ' + mode).fetchone() == (mode,), mode
    one.execute('create table t (n integer)')
    two = sqlite3.connect(mode, check_same_thread=False)
    for n in range(20):
        with (one if n % 2 else two) as db: db.execute('insert into t values (?)', (n,))
    thread = threading.Thread(target=lambda: two.execute('insert into t values (20)') and two.commit())
    thread.start(); thread.join()
    assert one.execute('select count(*) from t').fetchone() == (21,), mode
    one.execute('pragma integrity_check')
    one.close(); two.close()
result = 'stored'";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.result, json!("stored"), "{outcome:?}");
}

/// Locks of the task's own files exclude each other, and one that has to wait gets its turn.
#[tokio::test]
async fn locks_within_a_task_are_locks() {
    let bench = Bench::new().await;
    let code = "
import fcntl, threading, time
one, two = open('f', 'w'), open('f', 'w')
fcntl.flock(one, fcntl.LOCK_EX)
try: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB); refused = False
except BlockingIOError: refused = True
order = []
def second():
    fcntl.flock(two, fcntl.LOCK_EX)
    order.append('second')
thread = threading.Thread(target=second)
thread.start()
time.sleep(0.1)
order.append('first')
fcntl.flock(one, fcntl.LOCK_UN)
thread.join()
fcntl.lockf(one, fcntl.LOCK_EX)
result = [refused, order]";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.result, json!([true, ["first", "second"]]), "{outcome:?}");
}

/// What libraries do with sockets and threads of their own works behind the filter.
#[tokio::test]
async fn pairs_of_sockets_and_threads_work() {
    let bench = Bench::new().await;
    let code = "
import asyncio, concurrent.futures, multiprocessing.dummy, socket
async def main():
    here, there = socket.socketpair()
    here.setblocking(False); there.setblocking(False)
    reader, kept = await asyncio.open_connection(sock=here)
    _, writer = await asyncio.open_connection(sock=there)
    data = b'x' * (4 << 20)
    writer.writelines([data[:1000], data[1000:]])
    writer.write_eof()
    got = await reader.read(-1)
    loop = asyncio.get_running_loop()
    kept.close()
    return [got == data, await loop.run_in_executor(None, lambda: 7)]
sent = asyncio.run(main())
squares = []
workers = [multiprocessing.dummy.Process(target=squares.append, args=(n * n,)) for n in range(50)]
for one in workers: one.start()
for one in workers: one.join()
with concurrent.futures.ThreadPoolExecutor(32) as pool: names = len(list(pool.map(str, range(100))))
result = [sent, sum(squares), names]";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.result, json!([[true, 7], 40425, 100]), "{outcome:?}");
}

/// What a task reads from standard input is memory that it cannot make more of.
#[tokio::test]
async fn standard_input_does_not_grow() {
    let bench = Bench::new().await;
    let code = "
import os
refused = []
for what in (lambda: os.write(0, b'x'), lambda: os.ftruncate(0, 1 << 20)):
    try: what()
    except OSError as error: refused.append(error.errno)
result = [input(), refused]";
    let job = Job { stdin: "hello\n".to_owned(), ..Job::execute(code) };
    let outcome = bench.run(job).await;
    assert_eq!(outcome.result, json!(["hello", [1, 1]]), "{outcome:?}");
}

/// The times of a directory would be a message to the next task.
#[tokio::test]
async fn a_task_leaves_no_message_in_times() {
    let bench = Bench::new().await;
    let code = "
import os
found = os.stat('/task').st_mtime_ns
os.utime('/task', ns=(424242424242, 424242424242))
result = found";
    for _ in 0..3 {
        let outcome = bench.execute(code).await;
        assert_ne!(outcome.result, json!(424_242_424_242_u64), "{outcome:?}");
    }
}

/// Only who stops a task says that it was stopped.
#[tokio::test]
async fn a_task_does_not_say_how_it_was_ended() {
    let bench = Bench::new().await;
    for status in ["timeout", "killed"] {
        let code = format!(
            "import os\nbody = b'{{\"status\":\"{status}\"}}'\n\
             os.write(3, len(body).to_bytes(4, 'big') + body)\nos._exit(0)"
        );
        let outcome = bench.execute(&code).await;
        assert_eq!(outcome.status, Status::Error, "{outcome:?}");
        assert_eq!(outcome.error.unwrap().kind, "BrokenReply");
    }
}

/// The service goes before its tasks, which has to stop them in time.
#[tokio::test]
async fn a_task_yields_to_the_service() {
    let bench = Bench::new().await;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The tests may themselves run with another priority than 0.
    let own: i64 = stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse().unwrap();
    let code = "import os\nresult = os.getpriority(os.PRIO_PROCESS, 0)";
    assert_eq!(bench.execute(code).await.result, json!((own + 5).min(19)));
}

/// A virtual environment with a project that is installed in editable form, by a path and by a
/// finder, and with a line of code that leaves a trace where it can write.
struct Environment {
    dir: tempfile::TempDir,
}

impl Environment {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = Interpreter::probe(support::python().as_ref()).await.unwrap();
        let version = base.version();
        let packages = format!("env/lib/python{}.{}/site-packages", version.major, version.minor);
        let real = std::fs::canonicalize(base.path()).unwrap();
        let home = real.parent().unwrap().display().to_string();
        let at = dir.path().display().to_string();
        let finder = format!(
            "import sys, importlib.util\nMAPPING = {{'mapped': '{at}/hook/mapped'}}\nclass Finder:\n    @classmethod\n    def find_spec(cls, name, path=None, target=None):\n        if name in MAPPING:\n            return importlib.util.spec_from_file_location(name, MAPPING[name] + '/__init__.py')\ndef install(): sys.meta_path.append(Finder)\n"
        );
        for (file, text) in [
            ("env/pyvenv.cfg".to_owned(), format!("home = {home}\n")),
            (format!("{packages}/plain.py"), "V = 1".to_owned()),
            (format!("{packages}/project.pth"), format!("{at}/project\n")),
            (format!("{packages}/finder_module.py"), finder),
            (
                format!("{packages}/finder.pth"),
                "import finder_module; finder_module.install()\n".to_owned(),
            ),
            (format!("{packages}/trace.pth"), format!("import os; open('{at}/trace', 'w')\n")),
            ("project/lib/__init__.py".to_owned(), "V = 2".to_owned()),
            ("project/.env".to_owned(), "secret".to_owned()),
            ("project/.git/config".to_owned(), "secret".to_owned()),
            ("hook/mapped/__init__.py".to_owned(), "V = 3".to_owned()),
            ("hook/.env".to_owned(), "secret".to_owned()),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::create_dir(dir.path().join("env/bin")).unwrap();
        std::os::unix::fs::symlink(real, dir.path().join("env/bin/python")).unwrap();
        Self { dir }
    }

    async fn sandbox(&self) -> Sandbox {
        let python = self.dir.path().join("env/bin/python");
        Sandbox::jailed(&python, &jail_settings()).await.unwrap()
    }
}

/// Packages of an environment are found, also editable ones, and nothing else of their projects is
/// shown. No line of a package runs outside of the jail, and none runs for a task that needs it not.
#[tokio::test]
async fn packages_are_found_and_their_code_stays_inside() {
    let environment = Environment::new().await;
    let sandbox = environment.sandbox().await;
    let code = "
import sys, os
count = len(sys.meta_path)
import plain, lib, mapped
seen = []
for place in {os.path.dirname(path) for path in sys.path} | set(sys.path):
    for name in ('.env', '.git/config', 'hook/.env', 'project/.env'):
        try: seen.append(open(os.path.join(place, name)).read())
        except OSError: pass
result = [plain.V, lib.V, mapped.V, len(sys.meta_path) - count, seen]";
    let outcome = sandbox.run(Job::execute(code)).await.unwrap();
    assert_eq!(outcome.result, json!([1, 2, 3, 1, []]), "{outcome:?}");
    // It could not be written in the jail either, which is said where the code is looked at.
    assert!(outcome.stderr.text.contains("trace.pth: "), "{outcome:?}");
    assert!(!environment.dir.path().join("trace").exists(), "code of a package ran outside");
    let quiet = sandbox.run(Job::execute("import plain\nplain.V")).await.unwrap();
    assert_eq!((quiet.result, &*quiet.stderr.text), (json!(1), ""));
    sandbox.stop().await;
}

/// Without zygotes beforehand, they are made as tasks need them, and not more.
#[tokio::test]
async fn slots_are_filled_when_they_are_needed() {
    let settings = JailSettings { workers: 4, prefork: false, ..jail_settings() };
    let sandbox = Sandbox::jailed(support::python().as_ref(), &settings).await.unwrap();
    let children = || {
        let own = format!("/proc/self/task/{}/children", nix::unistd::gettid());
        std::fs::read_to_string(own).unwrap_or_default().split_whitespace().count()
    };
    for _ in 0..3 {
        assert_eq!(sandbox.run(Job::execute("1")).await.unwrap().status, Status::Ok);
    }
    assert_eq!(children(), 1, "one launcher for one task at a time");
    let wait = Job::execute("import time\ntime.sleep(1)").timeout(support::AMPLE);
    let both = tokio::join!(sandbox.run(wait.clone()), sandbox.run(wait));
    assert_eq!((both.0.unwrap().status, both.1.unwrap().status), (Status::Ok, Status::Ok));
    assert_eq!(children(), 2);
    sandbox.stop().await;
    assert_eq!(children(), 0);
}
