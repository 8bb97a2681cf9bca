//! What the tests of the sandbox share: one probed interpreter and the usual questions.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

#[cfg(feature = "docker")]
pub mod engine;

use std::{path::PathBuf, time::Duration};

use gleitzeit_sandbox::{Interpreter, JailSettings, Job, Level, Outcome, Sandbox, SandboxSettings};

/// Longer than anything here takes, shorter than anyone waits.
pub const AMPLE: Duration = Duration::from_secs(20);

/// The interpreter to test with: `GLEITZEIT_TEST_PYTHON`, or this machine's own.
pub fn python() -> String {
    std::env::var("GLEITZEIT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Settings of a jail with one place, whose launcher is the one that is built beside the tests.
pub fn jail_settings() -> JailSettings {
    JailSettings {
        launcher: Some(env!("CARGO_BIN_EXE_gleitzeit-sandbox-init").into()),
        workers: 1,
        ..JailSettings::default()
    }
}

/// Settings of containers, one of which waits; `None`, and a word about it, without an engine.
#[cfg(feature = "docker")]
pub async fn docker_settings() -> Option<gleitzeit_sandbox::DockerSettings> {
    let name = std::thread::current().name().unwrap_or("containers").to_owned();
    let address = engine::address(&name)?;
    let image = engine::image(&engine::connect(&address).await, &python()).await;
    Some(gleitzeit_sandbox::DockerSettings {
        host: Some(address),
        workers: 2,
        pool_size: 1,
        ..gleitzeit_sandbox::DockerSettings::of(image)
    })
}

/// A sandbox over this machine's Python, at the level of the test's file. Without a jail its
/// directories are below one of the test's own.
pub struct Bench {
    pub sandbox: Sandbox,
    pub root: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let sandbox = match crate::LEVEL {
            Level::None => {
                let interpreter = Interpreter::probe(python().as_ref()).await.unwrap();
                Sandbox::new(interpreter, SandboxSettings { work_root: root.path().to_owned() })
            }
            _ => Sandbox::jailed(python().as_ref(), &jail_settings()).await.unwrap(),
        };
        assert_eq!(sandbox.level(), crate::LEVEL);
        Self { sandbox, root }
    }

    /// One at the level of the test's file; `None`, and a word about it, where it cannot be had.
    pub async fn open() -> Option<Self> {
        #[cfg(feature = "docker")]
        if crate::LEVEL == Level::Docker {
            return Self::in_containers(|_| ()).await;
        }
        Some(Self::new().await)
    }

    /// One with containers of an image of this machine's Python.
    #[cfg(feature = "docker")]
    pub async fn in_containers(
        set: impl FnOnce(&mut gleitzeit_sandbox::DockerSettings),
    ) -> Option<Self> {
        let mut settings = docker_settings().await?;
        set(&mut settings);
        let sandbox = Sandbox::docker("python3".as_ref(), &settings).await.unwrap();
        Some(Self { sandbox, root: tempfile::tempdir().unwrap() })
    }

    /// One in a jail of other settings.
    pub async fn with(settings: &JailSettings) -> Self {
        let sandbox = Sandbox::jailed(python().as_ref(), settings).await.unwrap();
        Self { sandbox, root: tempfile::tempdir().unwrap() }
    }

    pub async fn run(&self, job: Job) -> Outcome {
        tokio::time::timeout(AMPLE, self.sandbox.run(job)).await.unwrap().unwrap()
    }

    pub async fn execute(&self, code: &str) -> Outcome {
        self.run(Job::execute(code)).await
    }

    /// What is left below the root for tasks.
    pub fn task_dirs(&self) -> Vec<PathBuf> {
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

/// Control groups that this process has made and not removed.
pub fn groups() -> Vec<PathBuf> {
    let own = format!("gleitzeit-jail-{}-", std::process::id());
    let (mut found, mut ahead) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    // At whatever depth: version 2 has them where the service is, or above that.
    while let Some(dir) = ahead.pop() {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().starts_with(&own) {
                found.push(entry.path());
            }
            ahead.push(entry.path());
        }
    }
    found
}
