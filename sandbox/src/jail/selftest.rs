//! Tries to get out of a jail before the first task goes in.
//!
//! Asked once, when a sandbox starts. Invariant: a jail that one attempt gets out of is not used;
//! a level is what was found to hold, not what was asked for.

use std::{fmt, io::Write as _, net::TcpListener, time::Duration};

use serde::Serialize;
use serde_json::json;

use super::{Controller, Jail, ZygoteConfig, kernel};
use crate::{Interpreter, Job, Level, SandboxError, Status, classify, watch::Ended};

const ATTEMPTS: &str = include_str!("selftest.py");
const TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt to get out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// True when it failed, as it should.
    pub held: bool,
}

/// What the self-test found, and what the jail is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SelfTest {
    /// Every attempt.
    pub checks: Vec<Check>,
    /// The version of Landlock; `None` leaves the second wall around files out.
    pub landlock: Option<u32>,
    /// What control groups are in charge of; nothing where none can be made.
    pub cgroups: Vec<Controller>,
    /// True where a job that asks for it can connect to other machines.
    pub network: bool,
    /// The engine, where the level is that of containers.
    #[cfg(feature = "docker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<crate::EngineInfo>,
}

impl fmt::Display for SelfTest {
    /// `20 of 20 ways out closed; Landlock 7, cgroups v2`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.checks.iter().filter(|check| check.held).count();
        write!(out, "{held} of {} ways out closed; ", self.checks.len())?;
        #[cfg(feature = "docker")]
        if let Some(engine) = &self.engine {
            return write!(out, "{engine}");
        }
        match self.landlock {
            Some(version) => write!(out, "Landlock {version}")?,
            None => out.write_str("no Landlock")?,
        }
        match &self.cgroups[..] {
            [] => out.write_str(", no cgroups")?,
            [Controller::Unified, ..] => out.write_str(", cgroups v2")?,
            _ => out.write_str(", cgroups v1")?,
        }
        if self.network { out.write_str(", network on request") } else { Ok(()) }
    }
}

/// Runs every attempt as a task of the jail.
///
/// # Errors
/// [`SandboxError::Unavailable`] when the task does not come to its end, or one attempt gets out.
pub(super) async fn run(
    jail: &Jail,
    interpreter: &Interpreter,
    plan: &ZygoteConfig,
) -> Result<SelfTest, SandboxError> {
    let run = async |job: &Job| jail.run(interpreter, job).await;
    Ok(SelfTest {
        checks: attempts(jail.level(), run).await?,
        landlock: kernel::landlock_version(),
        cgroups: plan.groups.as_ref().map(super::Groups::controllers).unwrap_or_default(),
        network: plan.spec.network,
        #[cfg(feature = "docker")]
        engine: None,
    })
}

/// What came of every attempt, as a task that `run` runs at `level`.
pub(crate) async fn attempts(
    level: Level,
    run: impl AsyncFnOnce(&Job) -> Result<Ended, SandboxError>,
) -> Result<Vec<Check>, SandboxError> {
    let failed = SandboxError::system("prepare the self-test of the sandbox");
    let (bait, listener) = bait().map_err(failed)?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    // Each container has files of its own.
    let shares_files = level != Level::Docker;
    let context = json!({ "file": bait.path, "port": port, "shares_files": shares_files });
    let job = Job::execute(ATTEMPTS).global("context", context).timeout(TIMEOUT);
    let mode = job.mode;
    let outcome = classify::outcome(run(&job).await?, mode, level);
    if outcome.status != Status::Ok {
        let why = outcome.error.map(|error| error.headline()).unwrap_or_default();
        let stderr = outcome.stderr.text;
        return Err(SandboxError::unavailable(format!("its self-test failed: {why} {stderr}")));
    }
    let checks: Vec<(String, bool)> = serde_json::from_value(outcome.result)
        .map_err(|error| SandboxError::unavailable(format!("its self-test says {error}")))?;
    let open: Vec<_> = checks.iter().filter(|(_, held)| !held).map(|(name, _)| &**name).collect();
    if !open.is_empty() || checks.is_empty() {
        return Err(SandboxError::unavailable(format!(
            "its self-test got out by: {}",
            open.join(", ")
        )));
    }
    Ok(checks.into_iter().map(|(name, held)| Check { name, held }).collect())
}

/// A file of the machine, gone when dropped.
struct Bait {
    path: std::path::PathBuf,
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What must be out of reach: a file that everyone may read, and a port that everyone may use.
fn bait() -> std::io::Result<(Bait, TcpListener)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);

    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("gleitzeit-bait-{}-{number}", std::process::id());
    // The directory that `TMPDIR` names may be missing; any will do that a task does not see.
    let dirs = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into()];
    let put = |dir: &std::path::PathBuf| {
        let path = dir.join(&name);
        std::fs::File::create_new(&path)?.write_all(b"out of reach\n")?;
        Ok::<_, std::io::Error>(path)
    };
    let path = dirs.iter().find_map(|dir| put(dir).ok()).ok_or_else(|| {
        let message = format!(
            "no file can be made in any of {dirs:?}; set TMPDIR to a directory \
                               that can be written"
        );
        std::io::Error::other(message)
    })?;
    let bait = Bait { path };
    Ok((bait, TcpListener::bind(("127.0.0.1", 0))?))
}
