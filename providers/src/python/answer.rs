//! Makes a result or an error of what a job gave.

use std::time::Duration;

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::Outcome,
};
use gleitzeit_sandbox::{Diagnostic, Outcome as Ended, Status};
use serde_json::{Map, Value, json};

/// The result of `execute`, or the error with the same object as its data.
pub(super) fn of_execute(ended: Ended, timeout: Duration) -> Result<Outcome, TaskError> {
    if ended.status == Status::Ok {
        let (memory_bytes, memory_delta_bytes) = (ended.max_rss_bytes, ended.memory_delta_bytes);
        return Ok(Outcome { value: report(ended).into(), memory_bytes, memory_delta_bytes });
    }
    let (code, message) = failure(&ended, timeout);
    Err(TaskError::new(code, message).with_data(report(ended)))
}

/// The result of `validate`. Code that the compiler cannot survive is not valid either.
pub(super) fn of_validate(ended: Ended, timeout: Duration) -> Result<Outcome, TaskError> {
    let mut diagnostics = ended.diagnostics.clone();
    match ended.status {
        Status::Ok => {}
        Status::Killed | Status::MemoryLimit if ended.diagnostics.is_empty() => {
            diagnostics.push(too_much_for_the_compiler(&ended));
        }
        _ => {
            let (code, message) = failure(&ended, timeout);
            return Err(TaskError::new(code, message).with_data(report(ended)));
        }
    }
    let errors: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    Ok(json!({
        "is_valid": errors.is_empty(),
        "errors": errors,
        "diagnostics": diagnostics,
    })
    .into())
}

fn too_much_for_the_compiler(ended: &Ended) -> Diagnostic {
    let why = ended.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    Diagnostic {
        line: 1,
        column: 1,
        end_line: 1,
        end_column: 1,
        rule: "syntax".to_owned(),
        message: format!("too much for the compiler, which was {why}"),
    }
}

/// The code and one line for a person: what, where, and what to do.
fn failure(ended: &Ended, timeout: Duration) -> (ErrorCode, String) {
    let headline = ended.error.as_ref().map(gleitzeit_sandbox::Failure::headline);
    let headline = headline.unwrap_or_else(|| "the code failed".to_owned());
    match ended.status {
        Status::Timeout => {
            let message = format!("Python code was stopped after {timeout:?}, its timeout");
            (ErrorCode::TaskTimeout, message)
        }
        Status::PolicyViolation => {
            let findings = ended.error.as_ref().map(|error| error.message.as_str());
            let message = format!("Python code is refused: {}", findings.unwrap_or("by policy"));
            (ErrorCode::TaskValidationFailed, message)
        }
        Status::MemoryLimit => {
            let message = format!("{headline}; it ran out of memory: declare more `memory_mb`");
            (ErrorCode::TaskExecutionFailed, message)
        }
        Status::Ok | Status::Error | Status::OutputLimit | Status::Killed => {
            let hint = ended.error.as_ref().and_then(hint).unwrap_or_default();
            (ErrorCode::TaskExecutionFailed, format!("{headline}{hint}"))
        }
    }
}

/// A hint for an error that is caused by the isolation and not by the code.
fn hint(error: &gleitzeit_sandbox::Failure) -> Option<&'static str> {
    let is_absent = error.kind == "ModuleNotFoundError" && error.message.starts_with("No module");
    if is_absent {
        return Some(
            "; tasks import what the interpreter of the python provider has installed: install it \
             there, or set `virtual_env`; modules beside a script come with `file`",
        );
    }
    (error.kind == "zoneinfo._common.ZoneInfoNotFoundError").then_some(
        "; tasks see the time zones in /usr/share/zoneinfo, or those of the package `tzdata`",
    )
}

/// Everything about it, as the protocol names it. The result and the output are moved, and never
/// copied through `json!`: they may be large.
fn report(ended: Ended) -> Value {
    let truncated = ended.truncated();
    let mut report = Map::new();
    let mut put = |name: &str, value: Value| drop(report.insert(name.to_owned(), value));
    let (stdout_bytes, stderr_bytes) = (ended.stdout.total_bytes, ended.stderr.total_bytes);
    put("result", ended.result);
    put("result_type", ended.result_type.as_str().into());
    put("output", ended.stdout.text.clone().into());
    put("stdout", ended.stdout.text.into());
    put("stderr", ended.stderr.text.into());
    put("execution_time", seconds(ended.execution_time).into());
    put("exit_code", ended.exit_code.into());
    put("success", (ended.status == Status::Ok).into());
    put("status", ended.status.as_str().into());
    put("signal", ended.signal.into());
    put("truncated", truncated.into());
    put("cpu_time", ended.cpu_time.map(seconds).into());
    put("max_rss_bytes", ended.max_rss_bytes.into());
    put("sandbox", ended.sandbox.as_str().into());
    if truncated {
        put("total_bytes", json!({ "stdout": stdout_bytes, "stderr": stderr_bytes }));
    }
    if let Some(error) = ended.error {
        put("error", json!(error));
    }
    if !ended.diagnostics.is_empty() {
        put("diagnostics", json!(ended.diagnostics));
    }
    Value::Object(report)
}

/// Seconds, to the microsecond.
fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e6
}
