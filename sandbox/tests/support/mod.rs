//! What the tests of the sandbox share: one probed interpreter and the usual questions.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::{path::PathBuf, time::Duration};

use gleitzeit_sandbox::{Interpreter, Job, Outcome, Sandbox, Settings};

/// Longer than anything here takes, shorter than anyone waits.
pub const AMPLE: Duration = Duration::from_secs(20);

/// The interpreter to test with: `GLEITZEIT_TEST_PYTHON`, or this machine's own.
pub fn python() -> String {
    std::env::var("GLEITZEIT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// A sandbox over this machine's Python, whose directories are below one of the test's own.
pub struct Bench {
    pub sandbox: Sandbox,
    pub root: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let interpreter = Interpreter::probe(python().as_ref()).await.unwrap();
        let sandbox = Sandbox::new(interpreter, Settings { work_root: root.path().to_owned() });
        Self { sandbox, root }
    }

    pub async fn run(&self, job: Job) -> Outcome {
        tokio::time::timeout(AMPLE, self.sandbox.run(job)).await.unwrap().unwrap()
    }

    pub async fn execute(&self, code: &str) -> Outcome {
        self.run(Job::execute(code)).await
    }

    /// What is left below the root for tasks.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// True while there is a process of this number that is not a zombie.
pub fn is_alive(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

/// Waits until `true`; the real clock, as processes know no other.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + AMPLE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "not within {AMPLE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
