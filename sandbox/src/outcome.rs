//! The outcome of a job: status, result, output and resource use.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should.
    Ok,
    /// The code raised, or exited with a status other than 0.
    Error,
    /// It was killed when its time was up.
    Timeout,
    /// It ran out of memory.
    MemoryLimit,
    /// It printed more, or gave a larger result, than it may.
    OutputLimit,
    /// The policy did not let it run.
    PolicyViolation,
    /// It was killed by a signal that was not ours.
    Killed,
}

impl Status {
    /// Its name in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::MemoryLimit => "memory_limit",
            Self::OutputLimit => "output_limit",
            Self::PolicyViolation => "policy_violation",
            Self::Killed => "killed",
        }
    }
}

/// How far the job was kept from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Level {
    /// A process of its own with limits, and nothing more.
    None,
    /// The process jail with a root file system of the operator's.
    Chroot,
    /// Namespaces, a filter of system calls, and limits.
    Process,
    /// A container of its own.
    Docker,
}

impl Level {
    /// The name in results and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Chroot => "chroot",
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultType {
    /// The value itself.
    Json,
    /// The `repr` of the value as text, cut to a bound, because the job asked for it.
    Repr,
    /// The code left no value: what it printed, as far as it was kept.
    #[default]
    Stdout,
}

impl ResultType {
    /// The name in results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Repr => "repr",
            Self::Stdout => "stdout",
        }
    }
}

/// The output on one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// The beginning of it; bytes that are no UTF-8 are replaced by U+FFFD.
    pub text: String,
    /// Bytes printed in all.
    pub total_bytes: u64,
    /// True when `text` is not all of it.
    pub truncated: bool,
}

/// Why the code failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failure {
    /// The exception's type, with its module unless it is built in.
    #[serde(rename = "type")]
    pub kind: String,
    /// The message.
    pub message: String,
    /// The traceback as Python prints it, without frames other than the code's own.
    pub traceback: String,
    /// The line of the code, from 1.
    pub line: Option<u64>,
}

impl Failure {
    /// One line for a person: the type, the message, and where.
    pub fn headline(&self) -> String {
        let message = self.message.trim_end();
        let kind = &self.kind;
        let text = if message.is_empty() { kind.clone() } else { format!("{kind}: {message}") };
        match self.line {
            Some(line) => format!("{text} (line {line})"),
            None => text,
        }
    }
}

/// Something wrong at a place of the code. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Where it begins.
    pub line: u64,
    /// The first column, from 1.
    pub column: u64,
    /// The last line.
    pub end_line: u64,
    /// Just behind its last character.
    pub end_column: u64,
    /// `syntax`, `blocked-module`, `module-not-allowed` or `blocked-call`.
    pub rule: String,
    /// For a person.
    pub message: String,
}

impl std::fmt::Display for Diagnostic {
    /// `line:column: message`.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// How a job ended, what it gave, what it printed and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The result of the code; null unless `status` is [`Status::Ok`].
    pub result: Value,
    /// The form of `result`.
    pub result_type: ResultType,
    /// The output of the code.
    pub stdout: Stream,
    /// The output on the error stream, its traceback included.
    pub stderr: Stream,
    /// The exit status from the kernel; `-n` if signal n ended the process, -1 if its time ran out.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Wall clock from the start of the process to its end.
    pub execution_time: Duration,
    /// Processor time of it and its children; unknown when it was killed.
    pub cpu_time: Option<Duration>,
    /// Most memory resident at once, in bytes; unknown when it was killed.
    pub max_rss_bytes: Option<u64>,
    /// The growth of the peak memory while the code ran, as the process reports it; `None` if it
    /// was killed.
    pub memory_delta_bytes: Option<u64>,
    /// Why it failed; `None` when it did not.
    pub error: Option<Failure>,
    /// Findings of the compiler and the policy.
    pub diagnostics: Vec<Diagnostic>,
    /// How far it was kept from the machine.
    pub sandbox: Level,
}

impl Outcome {
    /// True when not everything that was printed was kept.
    pub fn truncated(&self) -> bool {
        self.stdout.truncated || self.stderr.truncated
    }
}
