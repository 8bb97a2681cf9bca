//! Values of options, read and checked.

use std::net::SocketAddr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use gleitzeit::files::{self, Input};
use gleitzeit_domain::{duration, id::WorkflowId, workflow::WorkflowStatus};
use serde_json::Value;

/// `NAME=VALUE`; the value is JSON if it can be.
pub(super) fn input(text: &str) -> Result<(String, Input), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    if name.is_empty() {
        return Err(format!("`{text}` has no name before the `=`"));
    }
    Ok((name.to_owned(), files::input(value)?))
}

/// The id of a new workflow.
pub(super) fn id(text: &str) -> Result<WorkflowId, String> {
    if text.is_empty() {
        return Err("an id has at least one character".to_owned());
    }
    Ok(WorkflowId::from(text))
}

/// `ADDRESS:PORT`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:8080".to_owned())
}

/// A JSON value.
pub(super) fn json(text: &str) -> Result<Value, String> {
    files::json_value(text)
}

/// A JSON object.
pub(super) fn object(text: &str) -> Result<Value, String> {
    match files::json_value(text)? {
        value @ Value::Object(_) => Ok(value),
        _ => Err("it is JSON, but no object".to_owned()),
    }
}

/// A span above 0, in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match duration::parse(text) {
        Ok(span) if !span.is_zero() => Ok(span.as_secs_f64()),
        Ok(_) => Err("expected a number of seconds above 0".to_owned()),
        Err(why) => Err(format!("{why}; expected {}", duration::EXPECTED)),
    }
}

/// The statuses, which help and completions list.
pub(super) fn status() -> impl TypedValueParser<Value = WorkflowStatus> {
    let names = WorkflowStatus::ALL.map(WorkflowStatus::as_str);
    PossibleValuesParser::new(names).try_map(|name| {
        WorkflowStatus::from_name(&name).ok_or_else(|| format!("`{name}` is no status"))
    })
}
