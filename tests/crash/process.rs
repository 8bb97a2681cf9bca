//! A test that runs again as processes of its own, seen from the first.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

#[cfg(feature = "failpoints")]
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Nothing that a test waits for takes this long, on the slowest machine.
const TIMEOUT: Duration = Duration::from_secs(100);

/// The arguments of a process, in JSON.
const ORDERS: &str = "GLEITZEIT_TEST_ORDERS";

/// What a process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Leaves work behind, and waits to be killed.
    First,
    /// Leaves tasks that wait for another attempt, and waits to be killed.
    Retries,
    /// Does its share, and stops.
    Worker,
    /// Does its share, and waits to be told: to do what is left, or to stop.
    Helper,
    /// Does what is left of all shares, and stops.
    Last,
    /// Submits without end, until it is killed or told to stop.
    Stream,
}

/// The orders of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The URL of its store.
    pub(crate) store: String,
    /// The folder for everything else.
    pub(crate) folder: PathBuf,
    /// Its name.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The shares of work that it submits.
    pub(crate) shares: Vec<String>,
    /// Whose share it has a hand in.
    pub(crate) neighbour: Option<String>,
}

impl Orders {
    /// In a process that was started by a test: its orders.
    pub(crate) fn from_env() -> Option<Self> {
        Some(serde_json::from_str(&std::env::var(ORDERS).ok()?).unwrap())
    }
}

/// Says a word to whoever started this process.
pub(crate) fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    // One write, on a line of its own between those of the test harness.
    out.write_all(format!("\n@{word}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    name: String,
    stderr: PathBuf,
}

/// What is said of a process that came to its end before it came to its failpoint.
pub(crate) const ENDED_WELL: &str = "was not killed, but ended well";

impl Process {
    /// Runs the test of this name again. `failpoint` is what it reads from its environment.
    pub(crate) fn start(test: &str, orders: &Orders, failpoint: Option<&str>) -> Self {
        let stderr = orders.folder.join(format!("{}.stderr", orders.name));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ORDERS, serde_json::to_string(orders).unwrap())
            .env_remove("GLEITZEIT_FAILPOINT")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr).unwrap());
        if let Some(failpoint) = failpoint {
            command.env("GLEITZEIT_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, name: orders.name.clone(), stderr }
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Tells it to do what is left of these shares and of all that is there, and to stop.
    pub(crate) fn finish(&mut self, shares: &[&str]) {
        let line = format!("{}\n", shares.join(" "));
        // It may have died; that is seen when it is waited for.
        let _ = self.child.stdin.as_mut().unwrap().write_all(line.as_bytes());
    }

    /// Tells it to stop.
    pub(crate) fn stop(&mut self) {
        self.child.stdin = None;
    }

    /// Does something that waits for it; when that takes too long, it is killed, and that is an
    /// error.
    fn patiently<T>(&mut self, wait: impl FnOnce(&mut Self) -> T) -> Result<T, String> {
        let id = Pid::from_raw(self.child.id().try_into().unwrap());
        let (ended, ends) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let is_late = ends.recv_timeout(TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout);
            is_late && kill(id, Signal::SIGKILL).is_ok()
        });
        let waited = wait(self);
        drop(ended);
        if watch.join().unwrap() {
            return Err(format!("{} took too long{}", self.name, self.last_words()));
        }
        Ok(waited)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        self.patiently(|it| {
            // `Child::wait` closes its input first: that would tell it to stop.
            let input = it.child.stdin.take();
            let status = it.child.wait().unwrap();
            it.child.stdin = input;
            status
        })
    }

    /// Waits until it says a word.
    pub(crate) fn says(&mut self, word: &str) -> Result<(), String> {
        let word = format!("@{word}\n");
        let is_printed = self.patiently(|it| {
            let mut line = String::new();
            while it.stdout.read_line(&mut line).unwrap() > 0 && line != word {
                line.clear();
            }
            line == word
        })?;
        if is_printed {
            return Ok(());
        }
        let status = self.wait()?;
        Err(format!("{} ended with {status} before it said {word}{}", self.name, self.last_words()))
    }

    /// Waits until it was stopped by SIGSTOP.
    #[cfg(feature = "failpoints")]
    pub(crate) fn stops(&mut self) -> Result<(), String> {
        let id = Pid::from_raw(self.child.id().try_into().unwrap());
        let status = self.patiently(|_| waitpid(id, Some(WaitPidFlag::WUNTRACED)).unwrap())?;
        if status == WaitStatus::Stopped(id, Signal::SIGSTOP) {
            return Ok(());
        }
        Err(format!("{} was not stopped: {status:?}{}", self.name, self.last_words()))
    }

    /// Waits until it was killed.
    pub(crate) fn dies(&mut self) -> Result<(), String> {
        let status = self.wait()?;
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return Ok(());
        }
        if status.success() {
            return Err(format!("{} {ENDED_WELL}", self.name));
        }
        Err(format!("{} was not killed, but ended with {status}{}", self.name, self.last_words()))
    }

    /// Waits until it has ended well.
    pub(crate) fn ends(&mut self) -> Result<(), String> {
        let status = self.wait()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{} ended with {status}{}", self.name, self.last_words()))
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.len().saturating_sub(30);
        format!(":\n    {}", lines[last..].join("\n    "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
