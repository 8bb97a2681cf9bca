//! Every known way out is tried, as root, as an ordinary user and without Landlock, and none is one.
//!
//! The programs in `escapes/` print `ESCAPED: …` when their way out worked; where only a supervisor
//! can tell, these tests do. A program's word is not enough: a random token is planted in a file
//! that everyone may read and in the service's own environment, and a listener waits on loopback;
//! the token must be in no output, and nobody must come to the listener.
#![expect(clippy::print_stdout, reason = "what was tried is a figure, and what was not is told")]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gleitzeit_sandbox::{JailSettings, Job, Outcome, Sandbox, SandboxError, Status};
use serde_json::{Value, json};

use crate::support;

/// Set for the process that plays the service: where its copy of the programs is.
const HOME: &str = "SANDBOX_TEST_HOME";
/// In that process's environment: the token.
const CANARY: &str = "GLEITZEIT_CANARY";
const INTERPRETER: &str = "SANDBOX_TEST_INTERPRETER";
const LAUNCHER: &str = "SANDBOX_TEST_LAUNCHER";
/// Nobody: a user without rights.
const NOBODY: u32 = 65534;
/// Long enough for a program that ends by itself, on a busy or an emulated machine as well.
const LIMIT: Duration = Duration::from_secs(30);
/// Programs that end only by being stopped, and how.
const STOPPED: [(&str, Status); 4] = [
    ("o11_sleep_past_timeout", Status::Timeout),
    ("d22_thread_bomb", Status::Timeout),
    ("d23_ignore_signals", Status::Timeout),
    ("d24_flood", Status::OutputLimit),
];
/// It lists the root, where Landlock does not keep it from that: the jail's own, with nothing in it
/// but the way to Python's files.
const LISTS_ROOT: &str = "d27_swapped_root";
/// Its proof is that exit functions run. They do, within the task and before its result is taken.
const RUNS_AT_EXIT: &str = "a37_atexit_late";

/// Stands between the service and its launcher, and says to the zygote that there is no Landlock.
const WITHOUT_LANDLOCK: &str = r#"
import os, sys
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1); os.dup2(null, 2)
    while True:
        data = os.read(0, 1 << 20)
        if not data: break
        data = data.replace(b'"landlock":true', b'"landlock":null')
        while data: data = data[os.write(write, data):]
    os._exit(0)
os.close(write)
os.dup2(read, 0)
os.close(read)
os.execv(os.path.join(os.path.dirname(sys.argv[0]), "init"), ["init", "sandbox-init"])
"#;

#[tokio::test]
async fn no_way_out_as_this_user() {
    service("no_way_out_as_this_user", None, "init").await;
}

#[tokio::test]
async fn no_way_out_as_an_ordinary_user() {
    if can_be_another() {
        service("no_way_out_as_an_ordinary_user", Some(NOBODY), "init").await;
    }
}

#[tokio::test]
async fn no_way_out_without_landlock() {
    service("no_way_out_without_landlock", None, "without-landlock").await;
}

#[tokio::test]
async fn no_way_out_as_an_ordinary_user_without_landlock() {
    if can_be_another() {
        let name = "no_way_out_as_an_ordinary_user_without_landlock";
        service(name, Some(NOBODY), "without-landlock").await;
    }
}

fn can_be_another() -> bool {
    let can = nix::unistd::geteuid().is_root() || std::env::var_os(HOME).is_some();
    if !can {
        println!("SKIPPED: escapes as an ordinary user from root (these tests run as one)");
    }
    can
}

/// Starts the test of this name again in a process of its own, as `user`, with the token in its
/// environment; its jails are built by that `launcher`.
async fn service(name: &str, user: Option<u32>, launcher: &str) {
    if std::env::var_os(HOME).is_some() {
        if name == HAND_OVER {
            hand_over().await;
        } else {
            attempts().await;
        }
        return;
    }
    let Some(interpreter) = interpreter(user) else {
        println!("SKIPPED: escapes as an ordinary user (no interpreter that one can start)");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = home.path().join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    copy(env!("CARGO_BIN_EXE_gleitzeit-sandbox-init").as_ref(), "init");
    let other = home.path().join("without-landlock");
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"];
    let python = python.into_iter().find(|path| Path::new(path).exists()).unwrap_or(&interpreter);
    fs::write(&other, format!("#!{python} -I\n{WITHOUT_LANDLOCK}")).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let bait = home.path().join("bait");
    let token = format!("token-{:x}", std::process::id()) + &random();
    fs::write(&bait, &token).unwrap();
    fs::create_dir(home.path().join("escapes")).unwrap();
    for (name, text) in probes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes")) {
        fs::write(home.path().join("escapes").join(name + ".py"), text).unwrap();
    }
    let mut command = Command::new(tests);
    command
        .args(["--exact", &format!("escapes::{name}"), "--nocapture"])
        .env(HOME, home.path())
        .env(CANARY, &token)
        .env(INTERPRETER, interpreter)
        .env(LAUNCHER, home.path().join(launcher))
        .current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{complaint}");
    assert!(report.contains("ways out were tried") || name == HAND_OVER, "{report}");
    println!("{report}");
}

/// One that `user` can start: the machine's own, as another may be below somebody's home.
fn interpreter(user: Option<u32>) -> Option<String> {
    if user.is_none() {
        return Some(support::python());
    }
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| {
            let mut command = Command::new(path);
            command.args(["-c", ""]).uid(NOBODY).gid(NOBODY).current_dir("/");
            command.status().is_ok_and(|status| status.success())
        })
        .map(str::to_owned)
}

fn random() -> String {
    let mut bytes = [0; 8];
    let mut source = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut bytes).unwrap();
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

/// Every program by its name.
fn probes(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "py"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn settings() -> JailSettings {
    let launcher = std::env::var_os(LAUNCHER).map(PathBuf::from);
    JailSettings { launcher, workers: 1, ..JailSettings::default() }
}

/// The test below, by which its service knows what to do.
const HAND_OVER: &str = "a_task_that_cannot_be_handed_over_has_not_run";

/// Descriptors that are on their way are counted for all processes of a user together. While there
/// are more than the service may have open, no task can be handed over: that is an error, and never
/// a task that has ended well; and nothing of it is left for the tasks that follow.
#[tokio::test]
async fn a_task_that_cannot_be_handed_over_has_not_run() {
    if can_be_another() {
        service(HAND_OVER, Some(NOBODY), "init").await;
    }
}

async fn hand_over() {
    use std::os::fd::AsRawFd as _;

    use nix::sys::{resource, socket};

    // Also for the zygote, which may have no more than the service.
    resource::setrlimit(resource::Resource::RLIMIT_NOFILE, 200, 200).unwrap();
    let interpreter = std::env::var(INTERPRETER).unwrap();
    let sandbox = Sandbox::jailed(interpreter.as_ref(), &settings()).await.unwrap();
    let write = || Job::execute("open('left', 'w').close()\nresult = 'written'");
    assert_eq!(sandbox.run(write()).await.unwrap().result, json!("written"));
    let (from, to) = socket::socketpair(
        socket::AddressFamily::Unix,
        socket::SockType::SeqPacket,
        None,
        socket::SockFlag::SOCK_CLOEXEC,
    )
    .unwrap();
    for count in [100, 253] {
        let numbers = vec![from.as_raw_fd(); count];
        socket::sendmsg::<()>(
            from.as_raw_fd(),
            &[std::io::IoSlice::new(b"x")],
            &[socket::ControlMessage::ScmRights(&numbers)],
            socket::MsgFlags::empty(),
            None,
        )
        .unwrap();
    }
    for _ in 0..3 {
        match tokio::time::timeout(Duration::from_secs(3), sandbox.run(write())).await {
            Ok(Ok(outcome)) => panic!("it has not run, and is said to have: {outcome:?}"),
            Ok(Err(error)) => assert!(error.is_transient() || !sandbox.is_serving(), "{error}"),
            // A new zygote is waited for, which cannot be had either.
            Err(_) => {}
        }
    }
    drop((from, to));
    let list_task = || Job::execute("import os\nresult = os.listdir()");
    let end = std::time::Instant::now() + LIMIT;
    let outcome = loop {
        match sandbox.run(list_task()).await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(outcome.result, json!([]), "{outcome:?}");
    for _ in 0..20 {
        assert_eq!(sandbox.run(write()).await.unwrap().result, json!("written"));
        assert_eq!(sandbox.run(list_task()).await.unwrap().result, json!([]));
    }
    sandbox.stop().await;
}

/// The service: runs every program in one jail, one after the other.
async fn attempts() {
    let home = PathBuf::from(std::env::var_os(HOME).unwrap());
    let token = std::env::var(CANARY).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let context = json!({
        "file": home.join("bait"),
        "port": listener.local_addr().unwrap().port(),
        "variable": CANARY,
    });
    let settings = settings();
    let interpreter = std::env::var(INTERPRETER).unwrap();
    let sandbox = Sandbox::jailed(interpreter.as_ref(), &settings).await.unwrap();
    let probes = probes(&home.join("escapes"));
    assert!(probes.len() >= 43 - 3 + 30, "{} programs", probes.len());
    let mut late = Duration::ZERO;
    for (name, text) in &probes {
        let Some(outcome) = attempt(&sandbox, name, text, &context).await else { continue };
        judge(name, &outcome, &token);
        if outcome.status == Status::Timeout {
            late = late.max(outcome.execution_time.saturating_sub(limit(name)));
        }
    }
    assert!(listener.accept().is_err(), "somebody came to the listener");
    assert_eq!(fs::read_to_string(home.join("bait")).unwrap(), token);
    // The jail is as good as new, and nothing of all that is left in it.
    let job = Job::execute("import os\nresult = os.listdir()");
    assert_eq!(sandbox.run(job).await.unwrap().result, json!([]));
    sandbox.stop().await;
    let children =
        fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid()));
    assert_eq!(children.unwrap_or_default(), "", "processes are left");
    assert!(late < Duration::from_secs(5), "a task outlived its time by {late:?}");
    println!(
        "{} ways out were tried as user {}: none is one; the latest end was {late:?} after its time",
        probes.len(),
        nix::unistd::geteuid(),
    );
}

fn limit(name: &str) -> Duration {
    if STOPPED.contains(&(name, Status::Timeout)) { Duration::from_secs(1) } else { LIMIT }
}

/// Runs one program; `None` where it was refused before it ran.
async fn attempt(sandbox: &Sandbox, name: &str, text: &str, context: &Value) -> Option<Outcome> {
    let mut job = Job::execute(text).global("context", context.clone()).timeout(limit(name));
    let params = text.lines().find_map(|line| line.strip_prefix("# params: "));
    if let Some(params) = params {
        let params: Value = serde_json::from_str(params).unwrap();
        let environment = params["environment"].as_object().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        job.environment =
            environment.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    }
    match sandbox.run(job).await {
        Ok(outcome) => Some(outcome),
        Err(SandboxError::Environment { .. }) if params.is_some() => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

fn judge(name: &str, outcome: &Outcome, token: &str) {
    let report = format!("{outcome:?}");
    assert!(!report.contains(token), "{name} has seen the token: {report}");
    let stopped = STOPPED.iter().find(|(stopped, _)| *stopped == name);
    if let Some((_, status)) = stopped {
        assert_eq!(outcome.status, *status, "{name}: {report}");
    } else {
        let ends =
            [Status::Ok, Status::Error, Status::Killed, Status::MemoryLimit, Status::OutputLimit];
        assert!(ends.contains(&outcome.status), "{name}: {report}");
    }
    if name == RUNS_AT_EXIT {
        assert_eq!(
            outcome.stdout.text,
            "DONE: judged by the supervisor\nESCAPED-LATE: atexit ran\n"
        );
        return;
    }
    let listed = &outcome.stdout.text;
    if name == LISTS_ROOT && listed.contains("'task'") && !listed.contains("'proc'") {
        let launcher = std::env::var(LAUNCHER).unwrap();
        assert!(launcher.ends_with("without-landlock"), "{report}");
        return;
    }
    assert!(!outcome.stdout.text.contains("ESCAPED"), "{name}: {report}");
    // Who neither was refused nor is for us to judge must have been stopped or have crashed.
    let stdout = outcome.stdout.text.trim_start();
    let spoke = stdout.starts_with("BLOCKED") || stdout.starts_with("DONE");
    assert!(
        spoke || outcome.status != Status::Ok || name == "o27_forge_result",
        "{name}: {report}"
    );
}
