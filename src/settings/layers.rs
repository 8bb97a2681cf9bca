//! The layers that settings come from: texts in TOML, and variables; and where in them a key was
//! written.

use std::path::PathBuf;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::problem::SettingsProblem;

/// Begins the name of a variable that sets a key.
pub(super) const PREFIX: &str = "GLEITZEIT__";

/// A file, or a text that stands for one.
#[derive(Debug, Clone)]
pub(super) struct TextLayer {
    /// The name for a person.
    pub(super) name: String,
    /// TOML.
    pub(super) text: String,
    /// The directory that relative paths in it begin at; `None` for the working directory.
    pub(super) base: Option<PathBuf>,
}

impl TextLayer {
    /// The error that keeps it from being read at all.
    pub(super) fn problem(&self) -> Option<SettingsProblem> {
        let error = DeTable::parse(&self.text).err()?;
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        let position = self.position(error.span().map_or(0, |span| span.start));
        Some(SettingsProblem::new("", message).origin(position))
    }

    /// The place of the key, if it is there.
    pub(super) fn find(&self, path: &[String]) -> Option<String> {
        let table = DeTable::parse(&self.text).ok()?;
        let (first, rest) = path.split_first()?;
        let (key, mut value) = table.get_ref().get_key_value(first.as_str())?;
        let mut at = key.span().start;
        for step in rest {
            match (step, value.get_ref()) {
                (key, DeValue::Table(table)) => {
                    let (key, inner) = table.get_key_value(key.as_str())?;
                    at = key.span().start;
                    value = inner;
                }
                (index, DeValue::Array(items)) => {
                    value = items.get(index.parse::<usize>().ok()?)?;
                    at = value.span().start;
                }
                _ => return None,
            }
        }
        Some(self.position(at))
    }

    fn position(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        format!("{}:{line}:{column}", self.name)
    }
}

/// One variable: the key that it sets and its text.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    /// The name, as the environment has it.
    pub(super) name: String,
    /// The path of the key, in lower case.
    pub(super) path: Vec<String>,
    /// The text.
    pub(super) text: String,
}

impl Variable {
    /// A variable of the environment, where its name says that it sets a key.
    pub(super) fn new(name: &str, text: &str) -> Option<Self> {
        let path: Vec<String> =
            name.strip_prefix(PREFIX)?.split("__").map(str::to_lowercase).collect();
        Some(Self { name: name.to_owned(), path, text: text.to_owned() })
    }

    /// True when the variable sets this key, or something above it.
    pub(super) fn sets(&self, path: &[String]) -> bool {
        path.starts_with(&self.path)
    }

    /// The text as a TOML value where it is one (`8`, `true`, `["a"]`), else as it is.
    fn value(&self) -> ValueKind {
        let document = format!("value = {}", self.text);
        match toml::from_str::<toml::Table>(&document) {
            Ok(mut table) if table.len() == 1 => {
                table.remove("value").map_or(ValueKind::Nil, |value| to_kind(&value, &self.name))
            }
            _ => ValueKind::String(self.text.clone()),
        }
    }
}

/// Variables as a source of the `config` crate. Its own reads every dot in a name as a step, and
/// no lists.
#[derive(Debug, Clone)]
pub(super) struct Variables(pub(super) Vec<Variable>);

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let mut root = Map::new();
        for variable in &self.0 {
            let value = Value::new(Some(&variable.name), variable.value());
            insert(&mut root, &variable.path, value);
        }
        Ok(root)
    }
}

fn insert(table: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = table
                .entry(first.clone())
                .or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
            if !matches!(inner.kind, ValueKind::Table(_)) {
                inner.kind = ValueKind::Table(Map::new());
            }
            if let ValueKind::Table(inner) = &mut inner.kind {
                insert(inner, rest, value);
            }
        }
    }
}

fn to_kind(value: &toml::Value, origin: &String) -> ValueKind {
    let inner = |value| Value::new(Some(origin), to_kind(value, origin));
    match value {
        toml::Value::String(text) => ValueKind::String(text.clone()),
        toml::Value::Integer(number) => ValueKind::I64(*number),
        toml::Value::Float(number) => ValueKind::Float(*number),
        toml::Value::Boolean(truth) => ValueKind::Boolean(*truth),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(items) => ValueKind::Array(items.iter().map(inner).collect()),
        toml::Value::Table(table) => {
            ValueKind::Table(table.iter().map(|(key, value)| (key.clone(), inner(value))).collect())
        }
    }
}
