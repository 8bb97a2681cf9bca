//! A TOML text with the place of everything in it.

use std::ops::Range;

use gleitzeit_domain::{
    problem::push_pointer,
    protocol::{ParameterSpec, ProtocolSpec, nearest, validate::SchemaError},
};
use indexmap::IndexMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{ProtocolFileProblem, layout::Layout};

/// A file read, its keys and values still with their places.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Reads a text.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<ProtocolFileProblem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, root };
        if errors.is_empty() {
            Ok(document)
        } else {
            Err(errors.iter().map(|error| document.problem_of(error)).collect())
        }
    }

    /// For serde.
    pub(super) fn deserializer(&self) -> Deserializer<'t> {
        Deserializer::from(self.root.clone())
    }

    /// Removes invalid parts — keys that `layout` does not have, values that JSON does not have —
    /// and returns them as problems. The rest can be checked further.
    pub(super) fn take_misfits(&mut self, layout: &Layout) -> Vec<ProtocolFileProblem> {
        let mut misfits = Vec::new();
        clean_table(self.root.get_mut(), layout, &mut String::new(), &mut misfits);
        let reported = misfits.into_iter();
        reported
            .map(|misfit| self.problem(&misfit.span, dotted(&misfit.pointer), misfit.message))
            .collect()
    }

    /// Puts methods, parameters and fields into the order of the file.
    pub(super) fn restore_order(&self, spec: &mut ProtocolSpec) {
        let mut at = "/methods".to_owned();
        self.sort(&mut spec.methods, &at);
        for (name, method) in &mut spec.methods {
            let length = at.len();
            push_pointer(&mut at, name);
            self.order_fields(&mut method.params_schema, &format!("{at}/params_schema"));
            if let Some(returns) = &mut method.returns_schema {
                self.order_value(returns, &format!("{at}/returns_schema"));
            }
            at.truncate(length);
        }
    }

    fn order_fields(&self, fields: &mut IndexMap<String, ParameterSpec>, at: &str) {
        self.sort(fields, at);
        for (name, spec) in fields {
            let mut at = at.to_owned();
            push_pointer(&mut at, name);
            self.order_value(spec, &at);
        }
    }

    fn order_value(&self, spec: &mut ParameterSpec, at: &str) {
        if let Some(items) = &mut spec.items {
            self.order_value(items, &format!("{at}/items"));
        }
        if let Some(properties) = &mut spec.properties {
            self.order_fields(properties, &format!("{at}/properties"));
        }
    }

    fn sort<T>(&self, map: &mut IndexMap<String, T>, at: &str) {
        map.sort_by_cached_key(|name, _| {
            let mut pointer = at.to_owned();
            push_pointer(&mut pointer, name);
            self.locate(&pointer).start
        });
    }

    /// A problem of the place that a JSON pointer names, or of what comes nearest to it.
    pub(super) fn problem_at(&self, error: &SchemaError) -> ProtocolFileProblem {
        self.problem(&self.locate(&error.pointer), dotted(&error.pointer), error.message.clone())
    }

    /// A problem that the TOML reader reports.
    pub(super) fn problem_of(&self, error: &toml::de::Error) -> ProtocolFileProblem {
        let span = error.span().unwrap_or(0..0);
        let key = self.key_at(&span);
        self.problem(&span, key, with_hint(error.message()))
    }

    fn problem(&self, span: &Range<usize>, key: String, message: String) -> ProtocolFileProblem {
        let start = (0..=span.start.min(self.text.len()))
            .rev()
            .find(|&at| self.text.is_char_boundary(at))
            .unwrap_or_default();
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        ProtocolFileProblem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key,
            message,
            text: self.text[line_start..].lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// The byte range of the key or item of a JSON pointer, or of its deepest existing parent.
    fn locate(&self, pointer: &str) -> Range<usize> {
        let mut found = 0..0;
        let mut table = Some(self.root.get_ref());
        let mut list = None;
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            let value = if let Some((key, value)) =
                table.and_then(|table| table.get_key_value(segment.as_str()))
            {
                found = key.span();
                value
            } else if let Some(value) = list.and_then(|value: &DeValue<'_>| {
                segment.parse::<usize>().ok().and_then(|index| value.get(index))
            }) {
                found = value.span();
                value
            } else {
                break;
            };
            table = value.get_ref().as_table();
            list = Some(value.get_ref());
        }
        found
    }

    /// The dotted path of the innermost value that holds `span`.
    fn key_at(&self, span: &Range<usize>) -> String {
        let mut path = Vec::new();
        path_to(self.root.get_ref(), span, &mut path);
        path.join(".")
    }
}

/// Extends `path` to the innermost value that contains `span`; false if none does. A table may have
/// several parts in a file, so its own span says nothing about its entries.
fn path_to<'a>(table: &'a DeTable<'_>, span: &Range<usize>, path: &mut Vec<&'a str>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref());
        let inside = value.get_ref().as_table().is_some_and(|inner| path_to(inner, span, path));
        let outer = value.span();
        if inside || key.span() == *span || (outer.start <= span.start && span.end <= outer.end) {
            return true;
        }
        path.pop();
    }
    false
}

/// A deserializer's complaint about a name, with the one that was probably meant.
fn with_hint(message: &str) -> String {
    let named = message.strip_prefix("unknown variant `").and_then(|rest| rest.split_once('`'));
    let known = message.split_once("expected one of ").map(|(_, list)| list.split(", "));
    let hint = named
        .zip(known)
        .map(|((name, _), known)| nearest::hint(name, known.map(|known| known.trim_matches('`'))));
    format!("{message}{}", hint.unwrap_or_default())
}

/// A value that is invalid at its position.
struct InvalidValue {
    span: Range<usize>,
    pointer: String,
    message: String,
}

fn clean_table(
    table: &mut DeTable<'_>,
    layout: &Layout,
    at: &mut String,
    misfits: &mut Vec<InvalidValue>,
) {
    let mut doomed = Vec::new();
    for (key, value) in table.iter_mut() {
        let length = at.len();
        push_pointer(at, key.get_ref());
        let inner = match layout {
            Layout::Value | Layout::List(_) => Ok(&Layout::Value),
            Layout::Map(inner) => Ok(*inner),
            Layout::Record(keys) => known(keys, key.get_ref()),
        };
        let stays = match inner {
            Ok(inner) => clean_value(value, inner, at, misfits),
            Err(message) => {
                misfits.push(InvalidValue { span: key.span(), pointer: at.clone(), message });
                false
            }
        };
        if !stays {
            doomed.push(key.get_ref().to_string());
        }
        at.truncate(length);
    }
    for key in doomed {
        table.remove(key.as_str());
    }
}

fn known(keys: &[(&str, &'static Layout)], key: &str) -> Result<&'static Layout, String> {
    if let Some((_, layout)) = keys.iter().find(|(name, _)| *name == key) {
        return Ok(layout);
    }
    let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
    Err(match nearest::nearest(key, names.iter().copied()) {
        Some(name) => format!("unknown key `{key}`; did you mean `{name}`?"),
        None => format!("unknown key `{key}`; known are `{}`", names.join("`, `")),
    })
}

/// Cleans inside of a value; false when the value itself cannot stay.
fn clean_value(
    value: &mut Spanned<DeValue<'_>>,
    layout: &Layout,
    at: &mut String,
    misfits: &mut Vec<InvalidValue>,
) -> bool {
    let span = value.span();
    let mut refuse = |message: String| {
        misfits.push(InvalidValue { span: span.clone(), pointer: at.clone(), message });
        false
    };
    match value.get_mut() {
        DeValue::Datetime(date) => {
            refuse(format!("`{date}` is a date, which JSON does not have; put it in quotes"))
        }
        DeValue::Float(float) if float.as_str().ends_with(['n', 'f']) => {
            refuse(format!("`{}` is a number that JSON does not have", float.as_str()))
        }
        DeValue::Table(table) => {
            clean_table(table, layout, at, misfits);
            true
        }
        DeValue::Array(items) => {
            let inner = if let Layout::List(inner) = layout { *inner } else { &Layout::Value };
            for (index, item) in items.iter_mut().enumerate() {
                let length = at.len();
                push_pointer(at, &index.to_string());
                // The problem is recorded, which is enough: the file is rejected anyway.
                clean_value(item, inner, at, misfits);
                at.truncate(length);
            }
            true
        }
        _ => true,
    }
}

/// A JSON pointer as a person writes it: `methods.count.params_schema`.
fn dotted(pointer: &str) -> String {
    let segments = pointer.split('/').skip(1);
    let plain = segments.map(|segment| segment.replace("~1", "/").replace("~0", "~"));
    plain.collect::<Vec<_>>().join(".")
}
