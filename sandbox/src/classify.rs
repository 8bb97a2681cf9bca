//! Makes an outcome of what is known of a task that has ended.
//!
//! Invariant: a report of the kernel overrides a report of the process about itself.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    Level, Mode, Outcome, Status,
    outcome::{Diagnostic, Failure, ResultType},
    reply::Reply,
    watch::{EndCause, Ended, Exit},
};

/// The outcome of a task that ran at `level`.
pub(crate) fn outcome(ended: Ended, mode: Mode, level: Level) -> Outcome {
    let Ended { exit, ending, reply, stdout, stderr, execution_time } = ended;
    let signal = exit.status.signal();
    let mut outcome = Outcome {
        status: Status::Ok,
        result: Value::Null,
        result_type: ResultType::Stdout,
        stdout,
        stderr,
        exit_code: exit.status.code().or(signal.map(|signal| -signal)).unwrap_or(-1),
        signal,
        execution_time,
        cpu_time: exit.cpu_time,
        max_rss_bytes: exit.peak_bytes,
        memory_delta_bytes: None,
        error: None,
        diagnostics: Vec::new(),
        sandbox: level,
    };
    match ending {
        EndCause::Own => outcome.take_reply(reply, mode, exit),
        EndCause::Timeout => {
            outcome.exit_code = -1;
            outcome.signal = None;
            outcome.fail(Status::Timeout, "Timeout", format!("stopped after {execution_time:.1?}"));
        }
        EndCause::Flooded => {
            let total = outcome.stdout.total_bytes + outcome.stderr.total_bytes;
            let message = format!("stopped after it had printed {total} bytes; print less");
            outcome.fail(Status::OutputLimit, "OutputLimit", message);
        }
    }
    outcome
}

/// The error of a job that the policy did not let run.
fn refusal(status: Status, diagnostics: &[Diagnostic]) -> Option<Failure> {
    let first = diagnostics.first().filter(|_| status == Status::PolicyViolation)?;
    let message = match diagnostics.len() - 1 {
        0 => first.to_string(),
        more => format!("{first} (and {more} more)"),
    };
    Some(Failure {
        kind: "PolicyViolation".to_owned(),
        message,
        traceback: String::new(),
        line: Some(first.line),
    })
}

impl Outcome {
    /// Adds the process's report about itself, as far as the kernel does not contradict it.
    fn take_reply(&mut self, reply: Result<Option<Reply>, String>, mode: Mode, exit: Exit) {
        let (reply, broken) = match reply {
            Ok(reply) => (reply, None),
            Err(reason) => (None, Some(reason)),
        };
        if let Some(reply) = reply {
            let reported = reply.cpu_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            self.cpu_time = self.cpu_time.or(reported);
            self.max_rss_bytes = self.max_rss_bytes.or(reply.peak_bytes);
            self.memory_delta_bytes = reply.memory_delta_bytes;
            self.diagnostics = reply.diagnostics;
            if self.signal.is_none() {
                self.status = reply.status;
                self.error = reply.error.or_else(|| refusal(reply.status, &self.diagnostics));
                self.result_type = reply.result_type;
                self.result = reply.result;
            }
        } else if mode == Mode::Validate && self.exit_code == 0 {
            self.fail(Status::Error, "NoReply", "the process ended without an answer".to_owned());
        }
        self.judge(broken, exit.out_of_memory);
        if self.status != Status::Ok {
            self.result = Value::Null;
            self.result_type = ResultType::default();
        } else if self.result_type == ResultType::Stdout {
            self.result = Value::String(self.stdout.text.clone());
        }
    }

    /// Lets the kernel's word stand over the process's own.
    fn judge(&mut self, broken: Option<String>, out_of_memory: bool) {
        if let Some(signal) = self.signal {
            let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
            let message = format!("ended by {name} (signal {signal})");
            if out_of_memory && signal == Signal::SIGKILL as i32 {
                self.fail(Status::MemoryLimit, "MemoryLimit", message);
            } else {
                self.fail(Status::Killed, "Killed", message);
            }
        } else if self.exit_code != 0 && self.status == Status::Ok {
            let message = format!("exited with status {}", self.exit_code);
            self.fail(Status::Error, "SystemExit", message);
        } else if let Some(reason) = broken {
            self.fail(Status::Error, "BrokenReply", reason);
        }
    }

    fn fail(&mut self, status: Status, kind: &str, message: String) {
        self.status = status;
        self.error = Some(Failure { kind: kind.to_owned(), message, ..Failure::default() });
    }
}
