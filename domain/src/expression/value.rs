//! The values of an evaluation: borrowed from what is stored where that is possible.

use std::{borrow::Cow, rc::Rc};

use serde_json::{Map, Number, Value};

use super::Named;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    /// A stored list.
    Array(&'a [Value]),
    /// A stored object.
    Object(&'a Map<String, Value>),
    List(Rc<Vec<Val<'a>>>),
    Map(Rc<Vec<(Val<'a>, Val<'a>)>>),
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::number(number),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Array(items) => Self::Array(items),
            Value::Object(fields) => Self::Object(fields),
        }
    }
}

impl<'a> From<Named<'a>> for Val<'a> {
    fn from(named: Named<'a>) -> Self {
        match named {
            Named::Value(value) => value.into(),
            Named::Fields(fields) => Self::Object(fields),
            Named::Text(text) => Self::text(text),
            Named::Int(value) => Self::Int(value),
            Named::Texts(fields) => {
                let entry = |(key, text): (&'a str, &'a str)| (Self::text(key), Self::text(text));
                Self::Map(Rc::new(fields.into_iter().map(entry).collect()))
            }
        }
    }
}

impl<'a> Val<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(text.into())
    }

    /// A number of JSON without a fraction is an int, also `2.0`: JSON does not keep the two apart.
    fn number(number: &Number) -> Self {
        if let Some(value) = number.as_i64() {
            return Self::Int(value);
        }
        let value = number.as_f64().unwrap_or(f64::NAN);
        match super::number::exact_int(value) {
            Some(int) if number.is_f64() => Self::Int(int),
            _ => Self::Double(value),
        }
    }

    /// For an error: what it is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an int",
            Self::Double(_) => "a double",
            Self::Text(_) => "a text",
            Self::Array(_) | Self::List(_) => "a list",
            Self::Object(_) | Self::Map(_) => "an object",
        }
    }

    /// For an error: what it is, with a short value.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Double(value) => super::number::text_of(*value),
            Self::Text(text) if text.chars().count() <= 40 => format!("{:?}", &**text),
            other => other.kind().into(),
        }
    }

    /// The number of items or fields; `None` for any other value.
    pub(super) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Array(items) => items.len(),
            Self::List(items) => items.len(),
            Self::Object(fields) => fields.len(),
            Self::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    /// The item of a list.
    pub(super) fn item(&self, at: usize) -> Option<Self> {
        match self {
            Self::Array(items) => items.get(at).map(Self::from),
            Self::List(items) => items.get(at).cloned(),
            _ => None,
        }
    }

    /// The keys and values of an object.
    pub(super) fn entries(&self) -> Vec<(Self, Self)> {
        match self {
            Self::Object(fields) => {
                fields.iter().map(|(key, value)| (Self::text(key), value.into())).collect()
            }
            Self::Map(entries) => entries.to_vec(),
            _ => Vec::new(),
        }
    }

    /// The items of a list, or the keys of a map.
    pub(super) fn over(&self, at: usize) -> Option<Self> {
        match self {
            Self::Object(fields) => fields.keys().nth(at).map(|key| Self::text(key)),
            Self::Map(entries) => entries.get(at).map(|(key, _)| key.clone()),
            list => list.item(at),
        }
    }

    /// The field of an object.
    pub(super) fn field(&self, key: &Val<'_>) -> Option<Self> {
        match (self, key) {
            (Self::Object(fields), Val::Text(key)) => fields.get(&**key).map(Self::from),
            (Self::Map(entries), key) => {
                let found = entries.iter().find(|(known, _)| known.is_same_key(key));
                found.map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Map(_))
    }

    /// True for equal keys: texts, numbers and booleans.
    pub(super) fn is_same_key(&self, other: &Val<'_>) -> bool {
        match (self, other) {
            (Self::Bool(one), Val::Bool(two)) => one == two,
            (Self::Text(one), Val::Text(two)) => one == two,
            _ => super::number::compare(self, other) == Some(std::cmp::Ordering::Equal),
        }
    }
}
