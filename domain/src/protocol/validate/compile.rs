//! Compiles schemas, and rejects those that no value could fit.

use std::cmp::Ordering;

use indexmap::IndexMap;
use regex::RegexBuilder;
use serde_json::Value;

use super::{
    node::{CompiledPattern, Field, Noun, SchemaNode, Types},
    number::compare,
    schema_error::SchemaError,
};
use crate::{
    problem::push_pointer,
    protocol::{parameter::ParameterSpec, spec::MethodSpec},
};

/// A compiled pattern takes at most this many bytes.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Groups and repetitions in a pattern are nested at most this deep.
const PATTERN_DEPTH_MAX: u32 = 100;

/// Checks a default against its compiled schema, at this pointer, and completes it.
pub(super) type CheckDefault = fn(&SchemaNode, &mut Value, &str, &mut Vec<SchemaError>);

/// Compiles the schemas of one specification and collects everything wrong with them.
pub(super) struct Compiler {
    errors: Vec<SchemaError>,
    check_default: CheckDefault,
}

impl Compiler {
    pub(super) fn new(check_default: CheckDefault) -> Self {
        Self { errors: Vec::new(), check_default }
    }

    /// The compiled node, if nothing was wrong with its schemas.
    pub(super) fn finish(self, node: SchemaNode) -> Result<SchemaNode, Vec<SchemaError>> {
        if self.errors.is_empty() { Ok(node) } else { Err(self.errors) }
    }

    /// Compiles `spec`, which stands at the pointer `at`.
    pub(super) fn value(&mut self, spec: &ParameterSpec, at: &mut String) -> SchemaNode {
        let types = Types::of(spec.kind.as_slice());
        check_shape(spec, types, at, &mut self.errors);
        let items = spec
            .items
            .as_ref()
            .map(|items| Box::new(within(at, "items", |at| self.value(items, at))));
        let fields = spec.properties.as_ref().map_or_else(Vec::new, |properties| {
            within(at, "properties", |at| self.fields(properties, at))
        });
        let pattern = spec.pattern.as_ref().and_then(|text| {
            within(at, "pattern", |at| compile_pattern(text, at, &mut self.errors))
        });
        let fillable = fields.iter().any(|field| field.default.is_some() || field.node.fillable)
            || items.as_ref().is_some_and(|items| items.fillable);
        SchemaNode {
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
    pub(super) fn params(&mut self, method: &MethodSpec) -> SchemaNode {
        let fields = within(&mut String::new(), "params_schema", |at| {
            self.fields(&method.params_schema, at)
        });
        let fillable = fields.iter().any(|field| field.default.is_some() || field.node.fillable);
        SchemaNode {
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

    fn fields(&mut self, specs: &IndexMap<String, ParameterSpec>, at: &mut String) -> Vec<Field> {
        specs.iter().map(|(name, spec)| within(at, name, |at| self.field(name, spec, at))).collect()
    }

    fn field(&mut self, name: &str, spec: &ParameterSpec, at: &mut String) -> Field {
        if name.is_empty() {
            self.errors.push(SchemaError::new(at.as_str(), "the name is empty"));
        }
        let before = self.errors.len();
        let node = self.value(spec, at);
        let mut default = spec.default.clone();
        if let Some(value) = &mut default
            && self.errors.len() == before
        {
            within(at, "default", |at| (self.check_default)(&node, value, at, &mut self.errors));
        }
        Field {
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

fn compile_pattern(text: &str, at: &str, errors: &mut Vec<SchemaError>) -> Option<CompiledPattern> {
    let built =
        RegexBuilder::new(text).size_limit(PATTERN_SIZE_MAX).nest_limit(PATTERN_DEPTH_MAX).build();
    match built {
        Ok(regex) => Some(CompiledPattern { regex }),
        Err(regex::Error::CompiledTooBig(limit)) => {
            errors.push(SchemaError::new(
                at,
                format!("the pattern `{text}` compiles to more than {limit} bytes"),
            ));
            None
        }
        Err(wrong) => {
            // The crate's message draws the pattern over several lines; the last line has the
            // cause.
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
