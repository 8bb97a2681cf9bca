//! The schema of one value: its types and constraints.

use std::{fmt, marker::PhantomData};

use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer as _, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Text.
    String,
    /// A number without a fraction; `1.0` is one.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array,
    /// A map from text.
    Object,
    /// `null`.
    Null,
    /// Anything.
    Any,
}

/// One name or a list of them, as files may write either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// By hand, because an untagged enum would swallow what is wrong with a name.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name or a list of names")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                T::deserialize(name.into_deserializer()).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(OneOrMany::Many(all))
            }
        }

        input.deserialize_any(Either(PhantomData))
    }
}

/// The schema of one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterSpec {
    /// The type, or several of which one must fit.
    #[serde(rename = "type")]
    pub kind: OneOrMany<ParameterType>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// True when it must be given, unless it has a default.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub required: bool,
    /// The value of an absent field.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub default: Option<Value>,
    /// The only values allowed.
    #[serde(rename = "enum", default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<Value>>,
    /// The least number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Number>,
    /// The greatest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Number>,
    /// Least length: Unicode characters of a string, items of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<usize>,
    /// Greatest length: Unicode characters of a string, items of an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// A regular expression found somewhere in a string, as in JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The schema of an array's items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Box<ParameterSpec>>,
    /// The schemas of an object's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<IndexMap<String, ParameterSpec>>,
    /// False refuses fields that `properties` does not name.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub additional_properties: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    // An explicit `default = null` is a default too.
    Value::deserialize(input).map(Some)
}

fn yes() -> bool {
    true
}

impl ParameterSpec {
    /// A required value of type `kind` without further constraints.
    pub fn new(kind: ParameterType) -> Self {
        Self {
            kind: OneOrMany::One(kind),
            description: None,
            required: true,
            default: None,
            allowed: None,
            minimum: None,
            maximum: None,
            min_length: None,
            max_length: None,
            pattern: None,
            items: None,
            properties: None,
            additional_properties: true,
        }
    }

    /// A required text.
    pub fn string() -> Self {
        Self::new(ParameterType::String)
    }

    /// A required whole number.
    pub fn integer() -> Self {
        Self::new(ParameterType::Integer)
    }

    /// A required number.
    pub fn number() -> Self {
        Self::new(ParameterType::Number)
    }

    /// A required boolean.
    pub fn boolean() -> Self {
        Self::new(ParameterType::Boolean)
    }

    /// A required list of `items`.
    pub fn array(items: Self) -> Self {
        Self { items: Some(Box::new(items)), ..Self::new(ParameterType::Array) }
    }

    /// A required object with these fields and any others.
    pub fn object<N: Into<String>>(fields: impl IntoIterator<Item = (N, Self)>) -> Self {
        let properties = fields.into_iter().map(|(name, spec)| (name.into(), spec)).collect();
        Self { properties: Some(properties), ..Self::new(ParameterType::Object) }
    }

    /// Any value.
    pub fn any() -> Self {
        Self::new(ParameterType::Any)
    }

    /// Allows any of several types.
    pub fn union(kinds: impl Into<Vec<ParameterType>>) -> Self {
        Self { kind: OneOrMany::Many(kinds.into()), ..Self::any() }
    }

    /// May be left out.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// May be left out, and then is `value`.
    #[must_use]
    pub fn default_value(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self.optional()
    }

    /// Only these values.
    #[must_use]
    pub fn one_of<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        self.allowed = Some(values.into_iter().map(Into::into).collect());
        self
    }

    /// At least this number.
    #[must_use]
    pub fn minimum(mut self, least: impl Into<Value>) -> Self {
        self.minimum = number(least.into());
        self
    }

    /// At most this number.
    #[must_use]
    pub fn maximum(mut self, greatest: impl Into<Value>) -> Self {
        self.maximum = number(greatest.into());
        self
    }

    /// At least this long.
    #[must_use]
    pub fn min_length(mut self, least: usize) -> Self {
        self.min_length = Some(least);
        self
    }

    /// At most this long.
    #[must_use]
    pub fn max_length(mut self, greatest: usize) -> Self {
        self.max_length = Some(greatest);
        self
    }

    /// Must match somewhere.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = Some(pattern.into());
        self
    }

    /// No fields but those declared.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.additional_properties = false;
        self
    }

    /// For a person.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }
}

fn number(value: Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}
