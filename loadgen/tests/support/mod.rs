//! A folder to run the program in, and what it answered.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

#[cfg(feature = "docker")]
#[path = "../../../sandbox/tests/support/engine.rs"]
pub(crate) mod engine;
#[path = "../../../tests/support/old_clock.rs"]
pub(crate) mod old_clock;
#[cfg(feature = "postgres")]
#[path = "../../../tests/support/postgres.rs"]
pub(crate) mod postgres;

use std::{path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

/// A folder of its own, so that nothing of the repository is read by chance.
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program, to be started in this folder with nothing set from outside.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gleitzeit-bench"));
        command.current_dir(self.path()).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GLEITZEIT") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Standard output, after success.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The one JSON document on standard output.
    pub(crate) fn json(&self, arguments: &[&str], status: i32) -> Value {
        assert!(arguments.contains(&"--json"));
        json(&mut self.command(arguments), status)
    }
}

/// The one JSON document that a command prints.
pub(crate) fn json(command: &mut Command, status: i32) -> Value {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(status), "stdout: {out}\nstderr: {err}");
    assert!(!err.contains("panicked"), "{err}");
    serde_json::from_str(&out)
        .unwrap_or_else(|error| panic!("{error}: no single JSON document: {out}"))
}
