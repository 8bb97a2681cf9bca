//! Tries to get out of a jail before the first task goes in.
//!
//! Asked once, when a sandbox starts. Invariant: a jail that one attempt gets out of is not used;
//! a level is what was found to hold, not what was asked for.

use std::{io::Write as _, net::TcpListener, time::Duration};

use serde_json::json;

use super::Check;
use crate::{Job, Level, SandboxError, Status, classify, watch::Ended};

const ATTEMPTS: &str = include_str!("attempts.py");
const TIMEOUT: Duration = Duration::from_secs(10);

/// The result of every attempt, run as one task at `level`.
pub(crate) async fn run(
    level: Level,
    run_job: impl AsyncFnOnce(&Job) -> Result<Ended, SandboxError>,
) -> Result<Vec<Check>, SandboxError> {
    let failed = SandboxError::system("prepare the self-test of the sandbox");
    let (bait, listener) = bait().map_err(failed)?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    // Each container has files of its own.
    let shares_files = level != Level::Docker;
    let context = json!({ "file": bait.path, "port": port, "shares_files": shares_files });
    let job = Job::execute(ATTEMPTS).global("context", context).timeout(TIMEOUT);
    let mode = job.mode;
    let outcome = classify::outcome(run_job(&job).await?, mode, level);
    if outcome.status != Status::Ok {
        let why = outcome.error.map(|error| error.headline()).unwrap_or_default();
        let stderr = outcome.stderr.text;
        return Err(SandboxError::unavailable(format!("its self-test failed: {why} {stderr}")));
    }
    let checks: Vec<(String, bool)> = serde_json::from_value(outcome.result).map_err(|error| {
        SandboxError::unavailable(format!("its self-test returned an invalid report: {error}"))
    })?;
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

/// Resources that must be out of reach: a file that every user may read, and a port that every user
/// may connect to.
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
