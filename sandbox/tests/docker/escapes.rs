//! The ways out of `escapes/`, tried in containers: those that ask the operating system.
//!
//! As in a jail, a program's word is not enough: a random token is planted in a file of the machine
//! and in the service's environment, a listener waits on loopback, and the token must be in no
//! output. A container has files that a jail has not; what that lets be seen is named here.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use futures_util::StreamExt as _;
use gleitzeit_sandbox::{DockerSettings, Job, Outcome, Status};
use serde_json::{Value, json};

use crate::support::Bench;

const LIMIT: Duration = Duration::from_secs(10);
/// Programs that end only by being stopped, and how.
const STOPPED: [(&str, Status); 4] = [
    ("o11_sleep_past_timeout", Status::Timeout),
    ("d22_thread_bomb", Status::Timeout),
    ("d23_ignore_signals", Status::Timeout),
    ("d24_flood", Status::OutputLimit),
];
/// What a container lets be seen that a jail does not, and why that is no way out.
const SEEN: [(&str, &str); 5] = [
    ("b07_parent_environ", "its own variables, which are the image's"),
    ("d18_devices", "a terminal of its own"),
    ("d27_swapped_root", "the image's own files"),
    ("e02_lock_outside", "locks of the image's files, which each container has for itself"),
    ("e07_many_threads", "as many threads as `pids` allows"),
];

/// None of them is one.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_out_of_a_container() {
    let set = |settings: &mut DockerSettings| (settings.workers, settings.pool_size) = (3, 3);
    let Some(bench) = Bench::in_containers(set).await else { return };
    let mut probes: Vec<_> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escapes"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
            // Those of the letter `a` are about Python alone, and tried in a jail.
            .filter(|(name, _)| !name.starts_with('a'))
            .collect();
    probes.sort();
    assert!(probes.len() >= 90, "{} programs", probes.len());
    let home = tempfile::tempdir().unwrap();
    let bait = home.path().join("bait");
    let token = format!("token-{:x}-{:?}", std::process::id(), std::time::Instant::now());
    fs::write(&bait, &token).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let context = json!({ "file": bait, "port": port, "variable": "GLEITZEIT_CANARY" });
    let tried = futures_util::stream::iter(&probes).map(|(name, path)| {
        let text = fs::read_to_string(path).unwrap();
        let (bench, context, token) = (&bench, &context, &*token);
        async move {
            judge(name, &attempt(bench, name, &text, context).await, token);
        }
    });
    tried.buffer_unordered(3).collect::<Vec<()>>().await;
    assert!(listener.accept().is_err(), "somebody came to the listener");
    assert_eq!(fs::read_to_string(&bait).unwrap(), token);
    bench.sandbox.stop().await;
    println!("{} ways out of a container were tried: none is one", probes.len());
}

async fn attempt(bench: &Bench, name: &str, text: &str, context: &Value) -> Outcome {
    let ends = STOPPED.iter().any(|(stopped, _)| *stopped == name);
    let limit = if ends { Duration::from_secs(1) } else { LIMIT };
    let job = Job::execute(text).global("context", context.clone()).timeout(limit);
    match bench.sandbox.run(job).await {
        Ok(outcome) => outcome,
        Err(error) => panic!("{name}: {error}"),
    }
}

fn judge(name: &str, outcome: &Outcome, token: &str) {
    let report = format!("{outcome:?}");
    assert!(!report.contains(token), "{name} has seen the token: {report}");
    if let Some((_, status)) = STOPPED.iter().find(|(stopped, _)| *stopped == name) {
        assert_eq!(outcome.status, *status, "{name}: {report}");
    } else {
        assert_ne!(outcome.status, Status::PolicyViolation, "{name}: {report}");
    }
    let is_seen = SEEN.iter().any(|(seen, _)| *seen == name);
    assert!(is_seen || !outcome.stdout.text.contains("ESCAPED"), "{name}: {report}");
}
