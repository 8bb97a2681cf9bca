//! A schema compiled for checking, and what is refused on the way.

use std::cmp::Ordering;

use indexmap::IndexMap;
use regex::{Regex, RegexBuilder};
use serde_json::{Number, Value};

use super::{
    SchemaError, fill,
    number::{compare, is_whole},
    walk::{Location, Walk},
};
use crate::{
    problem::push_pointer,
    protocol::{MethodSpec, ParameterSpec, ParameterType},
};

/// A compiled pattern takes at most this many bytes.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Groups and repetitions in a pattern are nested at most this deep.
const PATTERN_DEPTH_MAX: u32 = 100;

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
    const NUMERIC: Self = Self(Self::INTEGER.0 | Self::NUMBER.0);
    const SIZED: Self = Self(Self::STRING.0 | Self::ARRAY.0);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::STRING, "string"),
        (Self::INTEGER, "integer"),
        (Self::NUMBER, "number"),
        (Self::BOOLEAN, "boolean"),
        (Self::ARRAY, "array"),
        (Self::OBJECT, "object"),
        (Self::NULL, "null"),
    ];

    fn of(kinds: &[ParameterType]) -> Self {
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

/// What the fields of an object are called in messages.
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
pub(super) struct Pattern {
    pub(super) regex: Regex,
}

/// The compiled schema of one value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) types: Types,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) minimum: Option<Number>,
    pub(super) maximum: Option<Number>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) pattern: Option<Pattern>,
    pub(super) items: Option<Box<Node>>,
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
    pub(super) node: Node,
    /// True when it must be given; never true beside a default.
    pub(super) required: bool,
    /// Filled in where nothing is given; complete in itself.
    pub(super) default: Option<Value>,
    pub(super) description: Option<Box<str>>,
}

impl Node {
    /// Compiles `spec`, which stands at `at`; what is wrong goes to `errors`.
    pub(super) fn compile(
        spec: &ParameterSpec,
        at: &mut String,
        errors: &mut Vec<SchemaError>,
    ) -> Self {
        let types = Types::of(spec.kind.as_slice());
        check_shape(spec, types, at, errors);
        let items = spec
            .items
            .as_ref()
            .map(|items| Box::new(within(at, "items", |at| Self::compile(items, at, errors))));
        let fields = spec.properties.as_ref().map_or_else(Vec::new, |properties| {
            within(at, "properties", |at| Field::compile_all(properties, at, errors))
        });
        let pattern = spec
            .pattern
            .as_ref()
            .and_then(|text| within(at, "pattern", |at| compile_pattern(text, at, errors)));
        let fillable = fields.iter().any(|field| field.default.is_some() || field.node.fillable)
            || items.as_ref().is_some_and(|items| items.fillable);
        Self {
            types,
            allowed: spec.allowed.clone(),
            minimum: spec.minimum.clone(),
            maximum: spec.maximum.clone(),
            min_length: spec.min_length,
            max_length: spec.max_length,
            pattern,
            items,
            fields,
            additional: spec.additional_properties,
            noun: Noun::Field,
            fillable,
        }
    }

    /// Compiles the parameters of a method as the fields of one object.
    pub(super) fn params(method: &MethodSpec, errors: &mut Vec<SchemaError>) -> Self {
        let fields = within(&mut String::new(), "params_schema", |at| {
            Field::compile_all(&method.params_schema, at, errors)
        });
        let fillable = fields.iter().any(|field| field.default.is_some() || field.node.fillable);
        Self {
            types: Types::OBJECT,
            allowed: None,
            minimum: None,
            maximum: None,
            min_length: None,
            max_length: None,
            pattern: None,
            items: None,
            fields,
            additional: method.additional_params,
            noun: Noun::Parameter,
            fillable,
        }
    }

    /// The names of the declared fields, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &*field.name)
    }
}

impl Field {
    fn compile_all(
        specs: &IndexMap<String, ParameterSpec>,
        at: &mut String,
        errors: &mut Vec<SchemaError>,
    ) -> Vec<Self> {
        specs
            .iter()
            .map(|(name, spec)| within(at, name, |at| Self::compile(name, spec, at, errors)))
            .collect()
    }

    fn compile(
        name: &str,
        spec: &ParameterSpec,
        at: &mut String,
        errors: &mut Vec<SchemaError>,
    ) -> Self {
        if name.is_empty() {
            errors.push(SchemaError::new(at.as_str(), "the name is empty"));
        }
        let before = errors.len();
        let node = Node::compile(spec, at, errors);
        let mut default = spec.default.clone();
        if let Some(value) = &mut default
            && errors.len() == before
        {
            within(at, "default", |at| check_default(&node, value, at, errors));
        }
        Self {
            name: name.into(),
            node,
            required: spec.required && spec.default.is_none(),
            default,
            description: spec.description.as_deref().map(Into::into),
        }
    }
}

/// Runs `work` with `segment` appended to the pointer.
fn within<T>(at: &mut String, segment: &str, work: impl FnOnce(&mut String) -> T) -> T {
    let length = at.len();
    push_pointer(at, segment);
    let done = work(at);
    at.truncate(length);
    done
}

/// A default that breaks its own schema would make every call without it fail.
fn check_default(node: &Node, value: &mut Value, at: &str, errors: &mut Vec<SchemaError>) {
    let mut walk = Walk::new(None);
    walk.value(node, value, &Location::Root);
    if walk.violations.is_empty() {
        fill::fill(node, value);
    }
    errors.extend(walk.violations.into_iter().map(|wrong| {
        SchemaError::new(
            format!("{at}{}", wrong.pointer),
            format!("the default breaks its own schema: {}", wrong.message),
        )
    }));
}

fn compile_pattern(text: &str, at: &str, errors: &mut Vec<SchemaError>) -> Option<Pattern> {
    let built =
        RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).nest_limit(PATTERN_DEPTH_MAX).build();
    match built {
        Ok(regex) => Some(Pattern { regex }),
        Err(regex::Error::CompiledTooBig(limit)) => {
            errors.push(SchemaError::new(
                at,
                format!("the pattern `{text}` compiles to more than {limit} bytes"),
            ));
            None
        }
        Err(wrong) => {
            // The crate's own text draws the pattern over several lines; the last one says why.
            let report = wrong.to_string();
            let reason = report.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            errors.push(SchemaError::new(at, format!("the pattern `{text}` is invalid: {reason}")));
            None
        }
    }
}

/// Refuses what can never be met, and constraints that no declared type has.
fn check_shape(spec: &ParameterSpec, types: Types, at: &str, errors: &mut Vec<SchemaError>) {
    let mut refuse = |keyword: &str, message: String| {
        errors.push(SchemaError::new(format!("{at}/{keyword}"), message));
    };
    if spec.kind.as_slice().is_empty() {
        return refuse("type", "the list of types is empty; `any` allows every value".to_owned());
    }
    let misplaced: [(&str, bool, Types); 8] = [
        ("minimum", spec.minimum.is_some(), Types::NUMERIC),
        ("maximum", spec.maximum.is_some(), Types::NUMERIC),
        ("min_length", spec.min_length.is_some(), Types::SIZED),
        ("max_length", spec.max_length.is_some(), Types::SIZED),
        ("pattern", spec.pattern.is_some(), Types::STRING),
        ("items", spec.items.is_some(), Types::ARRAY),
        ("properties", spec.properties.is_some(), Types::OBJECT),
        ("additional_properties", !spec.additional_properties, Types::OBJECT),
    ];
    for (keyword, is_set, fitting) in misplaced {
        if is_set && !types.meet(fitting) {
            let (wanted, found) = (fitting.describe(), types.describe());
            refuse(keyword, format!("`{keyword}` is for {wanted}, but the type is {found}"));
        }
    }
    if let (Some(least), Some(greatest)) = (&spec.minimum, &spec.maximum)
        && compare(least, greatest) == Ordering::Greater
    {
        refuse("minimum", format!("the minimum {least} is greater than the maximum {greatest}"));
    }
    if let (Some(least), Some(greatest)) = (spec.min_length, spec.max_length)
        && least > greatest
    {
        refuse("min_length", format!("{least} is greater than the max_length {greatest}"));
    }
    match spec.allowed.as_deref() {
        Some([]) => refuse("enum", "the list is empty, so no value could ever fit".to_owned()),
        Some(values) => {
            for (index, value) in values.iter().enumerate().filter(|(_, v)| !types.admit(v)) {
                let wanted = types.describe();
                refuse(&format!("enum/{index}"), format!("`{value}` is not {wanted}"));
            }
        }
        None => {}
    }
}
