//! The tree that every format is read into: values that know their place in the text.
//!
//! Made by the readers of the formats ([`yaml`](super::yaml), [`json`](super::json),
//! [`toml`](super::toml)), read by the decoder and, for places, by [`Source`](super::Source).
//!
//! Invariant: no node is nested deeper than [`DEPTH_MAX`], and the keys of an object are unique.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::{
    findings::Findings,
    span::{Lines, Span},
};

/// The bound on the nesting of a file. Stored JSON must be readable again, and JSON readers
/// commonly stop at 128 levels.
pub(super) const DEPTH_MAX: usize = 100;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The byte range.
    pub(super) span: Span,
    /// The value.
    pub(super) kind: Kind,
}

/// The kinds of JSON values.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, and how the file writes it.
    Number(Number, String),
    /// A text.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// A mapping, in the order of the file.
    Object(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// The byte range of the key.
    pub(super) key_span: Span,
    /// The value.
    pub(super) value: Node,
}

impl Node {
    /// The value without places.
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number, _) => Value::Number(number.clone()),
            Kind::String(text) => Value::String(text.clone()),
            Kind::Array(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Object(entries) => Value::Object(to_map(entries)),
        }
    }

    /// The entry of a key, if this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Object(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// A description of the value for messages.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "empty".to_owned(),
            Kind::Bool(flag) => format!("`{flag}`"),
            Kind::Number(_, written) => format!("the number {}", shorten(written)),
            Kind::String(text) if text.is_empty() => "an empty text".to_owned(),
            Kind::String(text) => format!("the text `{}`", shorten(text)),
            Kind::Array(items) if items.is_empty() => "an empty list".to_owned(),
            Kind::Array(_) => "a list".to_owned(),
            Kind::Object(_) => "a mapping".to_owned(),
        }
    }
}

impl Entry {
    /// The span to report for a wrong value: the value, or the key if the value is absent, spans
    /// several lines, or is a list or a mapping.
    pub(super) fn location(&self) -> Span {
        match self.value.kind {
            Kind::Null | Kind::Array(_) | Kind::Object(_) => self.key_span,
            _ if self.value.span.start == self.value.span.end => self.key_span,
            Kind::Bool(_) | Kind::Number(..) | Kind::String(_) => self.value.span,
        }
    }
}

/// The values of a mapping without places.
pub(super) fn to_map(entries: &[Entry]) -> Map<String, Value> {
    entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect()
}

/// The entries without those whose key was given before, each of which is a finding.
pub(super) fn unique(
    mut entries: Vec<Entry>,
    lines: &Lines,
    findings: &mut Findings,
) -> Vec<Entry> {
    let mut first: HashMap<String, Span> = HashMap::with_capacity(entries.len());
    entries.retain(|entry| match first.get(&entry.key) {
        None => {
            first.insert(entry.key.clone(), entry.key_span);
            true
        }
        Some(other) => {
            let line = lines.number(other.start);
            let found = format!("the key `{}` is given twice", shorten(&entry.key));
            findings.error_with_help(entry.key_span, found, format!("first given on line {line}"));
            false
        }
    });
    entries
}

/// The beginning of a text, on one line, for use in a message.
pub(super) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let line = text.lines().next().unwrap_or("");
    if line.len() == text.len() && line.chars().nth(CHARS_MAX).is_none() {
        return line.to_owned();
    }
    line.chars().take(CHARS_MAX).chain(['…']).collect()
}
