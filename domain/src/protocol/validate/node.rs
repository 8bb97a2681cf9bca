//! The compiled form of a schema.

use regex::Regex;
use serde_json::{Number, Value};

use super::number::is_whole;
use crate::protocol::parameter::ParameterType;

/// A set of JSON types, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const STRING: Self = Self(1);
    pub(super) const INTEGER: Self = Self(1 << 1);
    pub(super) const NUMBER: Self = Self(1 << 2);
    pub(super) const BOOLEAN: Self = Self(1 << 3);
    pub(super) const ARRAY: Self = Self(1 << 4);
    pub(super) const OBJECT: Self = Self(1 << 5);
    pub(super) const NULL: Self = Self(1 << 6);
    pub(super) const ANY: Self = Self((1 << 7) - 1);
    pub(super) const NUMERIC: Self = Self(Self::INTEGER.0 | Self::NUMBER.0);
    pub(super) const SIZED: Self = Self(Self::STRING.0 | Self::ARRAY.0);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::STRING, "string"),
        (Self::INTEGER, "integer"),
        (Self::NUMBER, "number"),
        (Self::BOOLEAN, "boolean"),
        (Self::ARRAY, "array"),
        (Self::OBJECT, "object"),
        (Self::NULL, "null"),
    ];

    pub(super) fn of(kinds: &[ParameterType]) -> Self {
        Self(kinds.iter().fold(0, |bits, kind| bits | Self::single(*kind).0))
    }

    fn single(kind: ParameterType) -> Self {
        match kind {
            ParameterType::String => Self::STRING,
            ParameterType::Integer => Self::INTEGER,
            ParameterType::Number => Self::NUMBER,
            ParameterType::Boolean => Self::BOOLEAN,
            ParameterType::Array => Self::ARRAY,
            ParameterType::Object => Self::OBJECT,
            ParameterType::Null => Self::NULL,
            ParameterType::Any => Self::ANY,
        }
    }

    /// True when the sets have a type in common.
    pub(super) fn meet(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True when a value is of one of these types.
    pub(super) fn admit(self, value: &Value) -> bool {
        match value {
            Value::Null => self.meet(Self::NULL),
            Value::Bool(_) => self.meet(Self::BOOLEAN),
            Value::String(_) => self.meet(Self::STRING),
            Value::Array(_) => self.meet(Self::ARRAY),
            Value::Object(_) => self.meet(Self::OBJECT),
            Value::Number(number) => {
                self.meet(Self::NUMBER) || (self.meet(Self::INTEGER) && is_whole(number))
            }
        }
    }

    /// `string or null`.
    pub(super) fn describe(self) -> String {
        if self == Self::ANY {
            return "any value".to_owned();
        }
        let names: Vec<_> =
            Self::NAMES.iter().filter(|(bit, _)| self.meet(*bit)).map(|(_, name)| *name).collect();
        names.join(" or ")
    }
}

/// The name of an object's fields in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Parameter,
    Field,
}

impl Noun {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Parameter => "parameter",
            Self::Field => "field",
        }
    }
}

/// A pattern with its text.
#[derive(Debug)]
pub(super) struct CompiledPattern {
    pub(super) regex: Regex,
}

/// The compiled schema of one value.
#[derive(Debug)]
pub(super) struct SchemaNode {
    pub(super) types: Types,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) minimum: Option<Number>,
    pub(super) maximum: Option<Number>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) pattern: Option<CompiledPattern>,
    pub(super) items: Option<Box<SchemaNode>>,
    /// In the order of their declaration, which is that of positional parameters.
    pub(super) fields: Vec<Field>,
    /// False refuses keys that `fields` does not name.
    pub(super) additional: bool,
    pub(super) noun: Noun,
    /// True when this or anything inside has a default to fill in.
    pub(super) fillable: bool,
}

/// A declared field of an object, or a parameter.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) node: SchemaNode,
    /// True when it must be given; never true beside a default.
    pub(super) required: bool,
    /// The value of an absent field, with the defaults within it filled in.
    pub(super) default: Option<Value>,
    pub(super) description: Option<Box<str>>,
}

impl SchemaNode {
    /// The names of the declared fields, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }
}
