//! One walk over a value along its schema, collecting what is wrong.
//!
//! The place is a chain of borrowed segments on the stack; it becomes a text only where something
//! is wrong, so a value that fits costs no allocation.

use std::{cmp::Ordering, fmt::Write as _};

use serde_json::{Map, Number, Value};

use super::{
    node::{Field, SchemaNode},
    number::{compare, same_open},
    violation::{Rule, VIOLATIONS_MAX, Violation},
};
use crate::{problem::push_pointer, protocol::nearest};

/// The bound on the characters of a text in a message.
const EXCERPT_MAX: usize = 60;

/// Names are listed up to this many.
const LISTED_MAX: usize = 12;

/// The position of the walk in the value.
pub(super) enum ValuePath<'a> {
    Root,
    Key(&'a ValuePath<'a>, &'a str),
    Index(&'a ValuePath<'a>, usize),
}

impl ValuePath<'_> {
    fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write(&mut pointer);
        pointer
    }

    fn write(&self, pointer: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(parent, key) => {
                parent.write(pointer);
                push_pointer(pointer, key);
            }
            Self::Index(parent, index) => {
                parent.write(pointer);
                // Writing to a String cannot fail.
                let _ = write!(pointer, "/{index}");
            }
        }
    }
}

/// A walk and what it has found.
pub(super) struct Walk<'a> {
    open: Option<&'a dyn Fn(&str) -> bool>,
    /// The violations, in the order of the schema; at most [`VIOLATIONS_MAX`].
    pub(super) violations: Vec<Violation>,
    /// True when a default is missing somewhere.
    pub(super) unfilled: bool,
}

impl<'a> Walk<'a> {
    /// A walk that passes every text for which `open` answers true.
    pub(super) fn new(open: Option<&'a dyn Fn(&str) -> bool>) -> Self {
        Self { open, violations: Vec::new(), unfilled: false }
    }

    /// Checks `value`, which stands at `at`, against `node`.
    pub(super) fn value(&mut self, node: &SchemaNode, value: &Value, at: &ValuePath<'_>) {
        if let (Some(open), Value::String(text)) = (self.open, value)
            && open(text)
        {
            return;
        }
        if !node.types.admit(value) {
            let (expected, found) = (node.types.describe(), found(value));
            return self.report(at, Rule::Type, || format!("expected {expected}, found {found}"));
        }
        if let Some(allowed) = &node.allowed
            && !allowed.iter().any(|one| same_open(value, one, self.open))
        {
            self.report(at, Rule::Enum, || not_allowed(value, allowed));
        }
        match value {
            Value::Number(number) => self.number(node, number, at),
            Value::String(text) => self.text(node, text, at),
            Value::Array(items) => self.array(node, items, at),
            Value::Object(map) => self.object(node, map, at),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Checks parameters given by position.
    pub(super) fn positional(&mut self, node: &SchemaNode, items: &[Value]) {
        for (index, field) in node.fields.iter().enumerate() {
            let at = ValuePath::Index(&ValuePath::Root, index);
            match items.get(index) {
                Some(value) => {
                    let before = self.violations.len();
                    self.value(&field.node, value, &at);
                    for wrong in &mut self.violations[before..] {
                        wrong.message = format!("parameter `{}`: {}", field.name, wrong.message);
                    }
                }
                None => self.absent(node, field, &at),
            }
        }
        let declared = node.fields.len();
        if items.len() > declared {
            let at = ValuePath::Index(&ValuePath::Root, declared);
            self.report(&at, Rule::TooManyPositional, || {
                let count = items.len();
                format!(
                    "{count} parameters given by position, but only {declared} declared{}",
                    listed(node)
                )
            });
        }
    }

    /// Checks that nothing has to be given.
    pub(super) fn missing_all(&mut self, node: &SchemaNode) {
        for field in &node.fields {
            self.absent(node, field, &ValuePath::Key(&ValuePath::Root, &field.name));
        }
    }

    /// Reports parameters that are neither an object nor an array.
    pub(super) fn not_params(&mut self, value: &Value) {
        self.report(&ValuePath::Root, Rule::Type, || {
            let found = found(value);
            format!("parameters are an object by name or an array by position, found {found}")
        });
    }

    fn number(&mut self, node: &SchemaNode, number: &Number, at: &ValuePath<'_>) {
        if let Some(least) = &node.minimum
            && compare(number, least) == Ordering::Less
        {
            self.report(at, Rule::Minimum, || {
                format!("{number} is less than the minimum of {least}")
            });
        }
        if let Some(greatest) = &node.maximum
            && compare(number, greatest) == Ordering::Greater
        {
            self.report(at, Rule::Maximum, || {
                format!("{number} is greater than the maximum of {greatest}")
            });
        }
    }

    fn text(&mut self, node: &SchemaNode, text: &str, at: &ValuePath<'_>) {
        // A character takes one to four bytes, so most texts need not be counted.
        if let Some(least) = node.min_length
            && text.len() < least.saturating_mul(4)
        {
            let length = text.chars().count();
            if length < least {
                self.report(at, Rule::MinLength, || {
                    let (excerpt, unit) = (quoted(text), characters(least));
                    format!("{excerpt} is shorter than {unit}")
                });
            }
        }
        if let Some(most) = node.max_length
            && text.len() > most
        {
            let length = text.chars().count();
            if length > most {
                self.report(at, Rule::MaxLength, || {
                    let (excerpt, unit) = (quoted(text), characters(most));
                    format!("{excerpt} has {length} characters, more than {unit}")
                });
            }
        }
        if let Some(pattern) = &node.pattern
            && !pattern.regex.is_match(text)
        {
            self.report(at, Rule::CompiledPattern, || {
                format!("{} does not match the pattern `{}`", quoted(text), pattern.regex)
            });
        }
    }

    fn array(&mut self, node: &SchemaNode, items: &[Value], at: &ValuePath<'_>) {
        let length = items.len();
        if let Some(least) = node.min_length.filter(|&least| length < least) {
            self.report(at, Rule::MinLength, || {
                format!("{} given, at least {least} expected", counted(length, "item"))
            });
        }
        if let Some(most) = node.max_length.filter(|&most| length > most) {
            self.report(at, Rule::MaxLength, || {
                format!("{} given, at most {most} expected", counted(length, "item"))
            });
        }
        let Some(node) = &node.items else { return };
        for (index, item) in items.iter().enumerate() {
            self.value(node, item, &ValuePath::Index(at, index));
            if self.violations.len() >= VIOLATIONS_MAX {
                return;
            }
        }
    }

    fn object(&mut self, node: &SchemaNode, map: &Map<String, Value>, at: &ValuePath<'_>) {
        let mut declared = 0;
        for field in &node.fields {
            let at = ValuePath::Key(at, &field.name);
            if let Some(value) = map.get(&*field.name) {
                declared += 1;
                self.field(node, field, value, &at);
            } else {
                self.absent(node, field, &at);
            }
        }
        if !node.additional && declared < map.len() {
            self.unknown(node, map, at);
        }
    }

    fn field(&mut self, parent: &SchemaNode, field: &Field, value: &Value, at: &ValuePath<'_>) {
        if value.is_null() && !field.required && !field.node.types.admit(value) {
            // The commonest slip with optional values, and the cure is not obvious.
            return self.report(at, Rule::Type, || {
                let (expected, noun) = (field.node.types.describe(), parent.noun.as_str());
                format!("expected {expected}, found null; leave the {noun} out instead")
            });
        }
        self.value(&field.node, value, at);
    }

    fn absent(&mut self, parent: &SchemaNode, field: &Field, at: &ValuePath<'_>) {
        if field.default.is_some() {
            self.unfilled = true;
        } else if field.required {
            self.report(at, Rule::Required, || {
                let (noun, name) = (parent.noun.as_str(), &field.name);
                let expected = field.node.types.describe();
                let about = field.description.as_ref().map(|text| format!(": {text}"));
                let about = about.unwrap_or_default();
                format!("the required {noun} `{name}` is missing; expected {expected}{about}")
            });
        }
    }

    fn unknown(&mut self, node: &SchemaNode, map: &Map<String, Value>, at: &ValuePath<'_>) {
        for key in map.keys() {
            if node.names().any(|name| name == key) {
                continue;
            }
            self.report(&ValuePath::Key(at, key), Rule::AdditionalProperties, || {
                let (noun, excerpt) = (node.noun.as_str(), shortened(key));
                // A declared name that is already given was not what was meant.
                let free = node.names().filter(|name| !map.contains_key(*name));
                match nearest::nearest(key, free) {
                    Some(name) => format!("unknown {noun} `{excerpt}`; did you mean `{name}`?"),
                    None => format!("unknown {noun} `{excerpt}`{}", listed(node)),
                }
            });
        }
    }

    #[cold]
    fn report(&mut self, at: &ValuePath<'_>, rule: Rule, message: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let pointer = at.pointer();
            self.violations.push(Violation { pointer, rule, message: message() });
        }
    }
}

fn not_allowed(value: &Value, allowed: &[Value]) -> String {
    let mut list: Vec<_> = allowed.iter().take(LISTED_MAX).map(found).collect();
    if allowed.len() > LISTED_MAX {
        list.push("…".to_owned());
    }
    let hint = value.as_str().and_then(|text| {
        let name = nearest::nearest(text, allowed.iter().filter_map(Value::as_str))?;
        Some(format!("; did you mean {}?", quoted(name)))
    });
    let hint = hint.unwrap_or_default();
    format!("{} is none of {}{hint}", found(value), list.join(", "))
}

/// ``; known are `a`, `b` ``.
fn listed(node: &SchemaNode) -> String {
    if node.fields.is_empty() {
        return format!("; no {} is declared", node.noun.as_str());
    }
    let mut names: Vec<_> = node.names().take(LISTED_MAX).map(|name| format!("`{name}`")).collect();
    if node.fields.len() > LISTED_MAX {
        names.push("…".to_owned());
    }
    format!("; known are {}", names.join(", "))
}

/// A value as messages show it: short ones as they are, others by their size.
fn found(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("an array of {}", counted(items.len(), "item")),
        Value::Object(map) => format!("an object with {}", counted(map.len(), "field")),
    }
}

fn quoted(text: &str) -> String {
    let text = shortened(text);
    // A text is always valid JSON; the other arm only keeps this free of panics.
    serde_json::to_string(&text).unwrap_or(text)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn characters(count: usize) -> String {
    counted(count, "character")
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
