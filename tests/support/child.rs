//! A test that runs a second time as a process of its own, to be killed or measured.
//!
//! The process says what it does in lines that begin with `@`, between those of the test harness.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// The arguments of a process: the URL of its store, and a folder for everything else.
const STORE: &str = "GLEITZEIT_TEST_CHILD_STORE";
const FOLDER: &str = "GLEITZEIT_TEST_CHILD_FOLDER";

/// In the second process: its arguments.
pub(crate) fn arguments() -> Option<(String, PathBuf)> {
    let store = std::env::var(STORE).ok()?;
    Some((store, PathBuf::from(std::env::var_os(FOLDER)?)))
}

/// Passes the arguments to a command that runs this program again.
pub(crate) fn pass_arguments(command: &mut Command, store: &str, folder: &Path) {
    command.env(STORE, store).env(FOLDER, folder);
}

/// In the second process: says something.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // One write a line, so that lines of several threads do not mix.
    out.write_all(format!("\n@{text}\n").as_bytes()).expect("a reader");
    out.flush().expect("a reader");
}

/// The second process, seen from the first; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs the test of this name again.
    pub(crate) fn start(test: &str, store: &str, folder: &Path) -> Self {
        Self::start_to_die(test, store, folder, None)
    }

    /// The same; it is killed when it comes to this failpoint.
    pub(crate) fn start_to_die(
        test: &str,
        store: &str,
        folder: &Path,
        failpoint: Option<&str>,
    ) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("its own path"));
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(STORE, store)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(name) = failpoint {
            command.env("GLEITZEIT_FAILPOINT", format!("{name}:1"));
        }
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next thing that it says; `None` when it has ended.
    pub(crate) fn says(&mut self) -> Option<String> {
        let mut lines = self.lines.by_ref().map(|line| line.expect("text"));
        lines.find_map(|line| line.strip_prefix('@').map(str::to_owned))
    }

    /// Sends it a line to read.
    pub(crate) fn send(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(format!("{line}\n").as_bytes()).expect("a reader");
    }

    /// Ends it as the kernel does when memory runs out: SIGKILL, no last words.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("its own child");
        self.child.wait().expect("its own child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
