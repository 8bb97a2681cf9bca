//! What is known of a value before it is there.

use indexmap::IndexMap;

use crate::protocol::{ParameterSpec, ParameterType};

/// The type of a value, as far as schemas say.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Nothing is known.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number without a fraction.
    Int,
    /// Any number.
    Number,
    /// A text.
    Text,
    /// A list of items of one type.
    List(Box<Type>),
    /// An object with these fields.
    Object {
        /// The fields that are known.
        fields: IndexMap<String, Type>,
        /// True if others may be there.
        is_open: bool,
    },
    /// One of several.
    Union(Vec<Type>),
}

impl Type {
    /// The type of the values that a schema admits.
    pub fn of(spec: &ParameterSpec) -> Self {
        let mut types: Vec<Self> =
            spec.kind.as_slice().iter().map(|kind| Self::of_kind(*kind, spec)).collect();
        if types.len() == 1 { types.pop().unwrap_or(Self::Any) } else { Self::Union(types) }
    }

    fn of_kind(kind: ParameterType, spec: &ParameterSpec) -> Self {
        match kind {
            ParameterType::String => Self::Text,
            ParameterType::Integer => Self::Int,
            ParameterType::Number => Self::Number,
            ParameterType::Boolean => Self::Bool,
            ParameterType::Null => Self::Null,
            ParameterType::Any => Self::Any,
            ParameterType::Array => {
                Self::List(Box::new(spec.items.as_deref().map_or(Self::Any, Self::of)))
            }
            ParameterType::Object => {
                let fields = spec.properties.iter().flatten();
                let fields = fields.map(|(name, field)| (name.clone(), Self::of(field))).collect();
                Self::Object { fields, is_open: spec.additional_properties }
            }
        }
    }

    /// True if some value of this type passes `test`; what is not known may be anything.
    pub(super) fn may_be(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Union(types) => types.iter().any(|it| it.may_be(test)),
            other => test(other),
        }
    }

    /// True if some value of this type is a boolean.
    pub fn may_be_bool(&self) -> bool {
        self.may_be(&|it| *it == Self::Bool)
    }

    /// For a message.
    pub fn describe(&self) -> String {
        match self {
            Self::Any => "anything".into(),
            Self::Null => "null".into(),
            Self::Bool => "a boolean".into(),
            Self::Int => "an int".into(),
            Self::Number => "a number".into(),
            Self::Text => "a text".into(),
            Self::List(_) => "a list".into(),
            Self::Object { .. } => "an object".into(),
            Self::Union(types) => {
                let all: Vec<String> = types.iter().map(Self::describe).collect();
                all.join(" or ")
            }
        }
    }

    /// True if no value of one is equal to, or can be ordered beside, one of the other.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        !self.may_be(&|one| other.may_be(&|two| one.class() == two.class()))
    }

    /// Types of one class compare with each other.
    fn class(&self) -> u8 {
        match self {
            Self::Any | Self::Union(_) => 0,
            Self::Null => 1,
            Self::Bool => 2,
            Self::Int | Self::Number => 3,
            Self::Text => 4,
            Self::List(_) => 5,
            Self::Object { .. } => 6,
        }
    }
}
