//! A directory to run the program in, and what it answered.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// A directory of its own, so that nothing of the repository is read by chance.
pub(crate) struct Scratch {
    dir: TempDir,
    is_jailed: bool,
}

/// What the program answered.
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What it answered to `--json`.
pub(crate) struct JsonAnswer(Answer);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), is_jailed: true }
    }

    /// One whose Python tasks run with the rights of the program, so that they can leave traces.
    #[allow(dead_code, reason = "each test file uses a part")]
    pub(crate) fn without_jail() -> Self {
        Self { is_jailed: false, ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; answers its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The program, to be started in this directory with nothing set from outside.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gleitzeit"));
        command.current_dir(self.dir.path()).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GLEITZEIT") {
                command.env_remove(name);
            }
        }
        if !self.is_jailed {
            command.env("GLEITZEIT__SECURITY__SANDBOX", "none");
            command.env("GLEITZEIT__SECURITY__ALLOW_UNSANDBOXED", "true");
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output().expect("the program starts");
        Answer {
            status: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> JsonAnswer {
        assert!(arguments.contains(&"--json"));
        JsonAnswer(self.run(arguments))
    }
}

impl JsonAnswer {
    pub(crate) fn success(self) -> Value {
        self.status(0)
    }

    /// The one document on standard output.
    pub(crate) fn status(self, expected: i32) -> Value {
        let Answer { status, stdout, stderr } = self.0;
        assert_eq!(status, expected, "stdout: {stdout}\nstderr: {stderr}");
        serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: no single JSON document: {stdout}"))
    }
}
