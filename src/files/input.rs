//! Values of the command line, read as a file would read them.
//!
//! Used for `--input`, `--context` and results that a person states. A number that 64 bits do not
//! hold is rejected, as in a file: it would lose digits silently. The spelling of a number is kept
//! if it has more information than the value.

use std::collections::BTreeMap;

use gleitzeit_domain::{problem::push_pointer, workflow::WorkflowSpec};
use serde_json::Value;

use super::{
    findings::Findings,
    json,
    node::{Entry, Kind, Node},
    span::Lines,
};

/// A value, and how its numbers were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Input {
    /// The value.
    pub value: Value,
    /// The spelling of a number, by JSON pointer into the value, if it has more information than
    /// the value.
    pub spellings: BTreeMap<String, String>,
}

/// Reads an input: JSON if it parses as JSON, else a text.
///
/// # Errors
/// An error of the JSON: a number that 64 bits do not hold, a duplicate key.
pub fn input(text: &str) -> Result<Input, String> {
    match read(text) {
        Read::Json(input) => Ok(input),
        Read::Wrong(why) => Err(why),
        Read::Text(_) => Ok(Input { value: text.into(), spellings: BTreeMap::new() }),
    }
}

/// Reads a value that must be JSON.
///
/// # Errors
/// The parse error, and the errors of [`input`].
pub fn json_value(text: &str) -> Result<Value, String> {
    match read(text) {
        Read::Json(input) => Ok(input.value),
        Read::Wrong(why) | Read::Text(why) => Err(why),
    }
}

enum Read {
    Json(Input),
    /// JSON, but not to be had as it is.
    Wrong(String),
    /// No JSON; why.
    Text(String),
}

fn read(text: &str) -> Read {
    let mut findings = Findings::default();
    let root = json::read(text, &Lines::new(text), &mut findings);
    let why = findings.into_vec().into_iter().next().map(|finding| match finding.help {
        Some(help) => format!("{}; {help}", finding.message),
        None => finding.message,
    });
    match (root, why) {
        (Some(_), None) if text.trim().is_empty() => Read::Text("there is nothing".to_owned()),
        (Some(root), None) => {
            let mut spellings = BTreeMap::new();
            collect(&root, &mut String::new(), &mut spellings);
            Read::Json(Input { value: root.to_value(), spellings })
        }
        (Some(_), Some(why)) => Read::Wrong(why),
        (None, why) => Read::Text(why.unwrap_or_default()),
    }
}

/// Puts inputs over those of a workflow, with how their numbers were written.
pub fn put_inputs(spec: &mut WorkflowSpec, inputs: &[(String, Input)]) {
    for (name, Input { value, spellings }) in inputs {
        let mut pointer = String::new();
        push_pointer(&mut pointer, name);
        let within = format!("{pointer}/");
        spec.spellings.retain(|at, _| *at != pointer && !at.starts_with(&within));
        let spelled = spellings.iter().map(|(at, text)| (format!("{pointer}{at}"), text.clone()));
        spec.spellings.extend(spelled);
        spec.inputs.insert(name.clone(), value.clone());
    }
}

/// The inputs of a file, which is a mapping.
pub(super) fn named(root: &Node, findings: &mut Findings) -> Option<Vec<(String, Input)>> {
    let entries = match &root.kind {
        Kind::Object(entries) => entries.as_slice(),
        Kind::Null => &[],
        _ => {
            let found = format!("the file is {}; expected a mapping", root.describe());
            findings.error_with_help(root.span, found, "an input is written `name: value`");
            return None;
        }
    };
    let input = |Entry { key, value, .. }: &Entry| {
        let mut spellings = BTreeMap::new();
        collect(value, &mut String::new(), &mut spellings);
        (key.clone(), Input { value: value.to_value(), spellings })
    };
    Some(entries.iter().map(input).collect())
}

/// The spellings of the numbers of these inputs that have more information than the values.
pub(super) fn spellings(entries: &[Entry]) -> BTreeMap<String, String> {
    let mut spellings = BTreeMap::new();
    for entry in entries {
        let mut pointer = String::new();
        push_pointer(&mut pointer, &entry.key);
        collect(&entry.value, &mut pointer, &mut spellings);
    }
    spellings
}

fn collect(node: &Node, pointer: &mut String, spellings: &mut BTreeMap<String, String>) {
    let length = pointer.len();
    match &node.kind {
        Kind::Number(number, written) => {
            if is_decimal(written) && number.to_string() != *written {
                spellings.insert(pointer.clone(), written.clone());
            }
        }
        Kind::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                push_pointer(pointer, &index.to_string());
                collect(item, pointer, spellings);
                pointer.truncate(length);
            }
        }
        Kind::Object(entries) => {
            for entry in entries {
                push_pointer(pointer, &entry.key);
                collect(&entry.value, pointer, spellings);
                pointer.truncate(length);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::String(_) => {}
    }
}

/// True for digits with a fraction or an exponent; what else a format calls a number (`0x1F`,
/// `1_000`) is a way to write another one.
fn is_decimal(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// No digit is lost without a word.
    #[test]
    fn numbers_are_kept_or_refused() {
        for text in ["12345678901234567890123", "18446744073709551616", "[1e999]", "{\"a\": 1e400}"]
        {
            let why = input(text).unwrap_err();
            assert!(why.contains("64 bits") && why.contains("quotes"), "{text}: {why}");
            assert!(json_value(text).is_err(), "{text}");
        }
        for (text, value) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("\"18446744073709551616\"", json!("18446744073709551616")),
            ("0123", json!("0123")),
            ("1.2.3", json!("1.2.3")),
            ("", json!("")),
            ("{a", json!("{a")),
            ("null", json!(null)),
        ] {
            assert_eq!(input(text).unwrap().value, value, "{text}");
        }
    }

    /// A version that looks like a number reads as it was written where it becomes part of a text.
    #[test]
    fn spellings_are_kept_where_they_say_more() {
        let written = |text: &str| input(text).unwrap().spellings;
        assert_eq!(written("1.10")[""], "1.10");
        assert_eq!(written("1234e10")[""], "1234e10");
        let nested = written("{\"v\": [1, 1.50], \"a/b\": 7.0100}");
        assert_eq!(nested["/v/1"], "1.50");
        assert_eq!(nested["/a~1b"], "7.0100");
        assert!(written("[1, -2.5, 100]").is_empty());
    }
}
