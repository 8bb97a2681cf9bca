//! Checks values against schemas: every violation at once, each with its place.
//!
//! The `ProtocolRegistry` checks when a workflow is submitted, before each call and after it. A
//! schema is compiled once, at registration, which reports everything wrong with it; checking a
//! value cannot fail afterwards.
//!
//! The rules are those of JSON Schema (draft 2020-12) for the keywords of [`ParameterSpec`]: a
//! constraint applies only to the types it fits, lengths count Unicode characters, `1.0` is an
//! integer, `1` equals `1.0`, a pattern matches anywhere in a text. Whole numbers are compared
//! exactly, even if a float could not distinguish them. `null` is a value like any other: allowed
//! if the type includes it, and not the same as an absent field.
//!
//! Invariant: a value that fits and lacks no default is never copied; checking it allocates
//! nothing.

mod admit;
mod compile;
mod fill;
mod node;
pub(super) mod number;
pub(super) mod schema_error;
#[cfg(test)]
mod tests;
mod violation;
mod walk;

use std::sync::Arc;

use serde_json::{Map, Value};

use self::{
    compile::Compiler,
    node::SchemaNode,
    walk::{ValuePath, Walk},
};
use super::{parameter::ParameterSpec, spec::MethodSpec};

pub use self::{
    schema_error::SchemaError,
    violation::{Rule, VIOLATIONS_MAX, Violation},
};

/// A compiled [`ParameterSpec`].
///
/// ```
/// use gleitzeit_domain::protocol::{ParameterSpec, validate::Validator};
/// use serde_json::json;
///
/// let validator = Validator::compile(&ParameterSpec::integer().maximum(10)).unwrap();
/// assert_eq!(validator.check(&json!(3.0)), []);
/// let told = validator.check(&json!(11));
/// assert_eq!(told[0].to_string(), "11 is greater than the maximum of 10");
/// ```
#[derive(Debug)]
pub struct Validator {
    node: SchemaNode,
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Everything wrong with it: bounds that exclude each other, an empty list of types or
    /// values, a constraint that no declared type has, a pattern that does not compile or is too
    /// large, a default that breaks its own schema.
    pub fn compile(spec: &ParameterSpec) -> Result<Self, Vec<SchemaError>> {
        let mut compiler = Compiler::new(check_default);
        let node = compiler.value(spec, &mut String::new());
        compiler.finish(node).map(|node| Self { node })
    }

    /// Everything wrong with `value`; nothing when it fits.
    pub fn check(&self, value: &Value) -> Vec<Violation> {
        let mut walk = Walk::new(None);
        walk.value(&self.node, value, &ValuePath::Root);
        walk.violations
    }

    /// The value with its defaults filled in; the same `Arc` if none was missing.
    ///
    /// # Errors
    /// Everything wrong with it.
    pub fn fill(&self, value: &Arc<Value>) -> Result<Arc<Value>, Vec<Violation>> {
        let mut walk = Walk::new(None);
        walk.value(&self.node, value, &ValuePath::Root);
        finish(walk, &self.node, value)
    }

    /// Tells whether a value of this schema can hold anything at `path`, given as object keys and
    /// array indexes from the outside in.
    ///
    /// An object that allows additional properties can hold every key; so can a value of any
    /// type. Values listed by `enum` are not looked into.
    ///
    /// # Errors
    /// The keys that can exist at the point at which the path leaves the schema; empty if no object
    /// is possible there.
    pub fn admits(&self, path: &[&str]) -> Result<(), Vec<String>> {
        admit::admits(&self.node, path, false)
    }

    /// The same if an object that names its fields has no others, even if it allows them: the
    /// declared fields of a result are most probably all of them.
    ///
    /// # Errors
    /// As [`admits`](Self::admits).
    pub fn declares(&self, path: &[&str]) -> Result<(), Vec<String>> {
        admit::admits(&self.node, path, true)
    }
}

/// Parameters ready for a call: complete, with the names of those that were defaulted.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// By name, defaults included.
    pub params: Arc<Value>,
    /// Names of the parameters that were not given, so that their defaults stand in `params`. A
    /// default inside a given parameter is not listed.
    pub defaulted: Arc<[Box<str>]>,
}

/// The compiled parameters of a method, given by name or by position.
///
/// ```
/// use std::sync::Arc;
/// use gleitzeit_domain::protocol::{MethodSpec, ParameterSpec, validate::ParamsValidator};
/// use serde_json::json;
///
/// let method = MethodSpec::new("greet")
///     .param("name", ParameterSpec::string())
///     .param("times", ParameterSpec::integer().default_value(1));
/// let params = ParamsValidator::compile(&method).unwrap();
/// let filled = params.validate(&Arc::new(json!(["Ada"]))).unwrap();
/// assert_eq!(*filled, json!({"name": "Ada", "times": 1}));
/// ```
#[derive(Debug)]
pub struct ParamsValidator {
    node: SchemaNode,
}

impl ParamsValidator {
    /// Compiles the parameters of a method.
    ///
    /// # Errors
    /// Everything wrong with their schemas, with pointers into the method:
    /// `/params_schema/code/pattern`.
    pub fn compile(method: &MethodSpec) -> Result<Self, Vec<SchemaError>> {
        let mut compiler = Compiler::new(check_default);
        let node = compiler.params(method);
        compiler.finish(node).map(|node| Self { node })
    }

    /// Checks parameters and fills in defaults; answers the object by name that a provider gets.
    ///
    /// An array is matched to the declared order, null means no parameters. The same `Arc` is
    /// returned if nothing changes.
    ///
    /// # Errors
    /// Everything wrong with them.
    pub fn validate(&self, params: &Arc<Value>) -> Result<Arc<Value>, Vec<Violation>> {
        self.fill(params).map(|filled| filled.params)
    }

    /// The same, with the names of the parameters whose defaults were filled in.
    ///
    /// # Errors
    /// Everything wrong with them.
    pub fn fill(&self, params: &Arc<Value>) -> Result<Filled, Vec<Violation>> {
        let mut walk = Walk::new(None);
        let is_unfilled;
        let complete = match &**params {
            Value::Object(_) => {
                walk.value(&self.node, params, &ValuePath::Root);
                is_unfilled = walk.unfilled;
                finish(walk, &self.node, params)
            }
            Value::Array(items) => {
                walk.positional(&self.node, items);
                is_unfilled = walk.unfilled;
                let named = || self.node.names().map(str::to_owned).zip(items.iter().cloned());
                rebuilt(walk, &self.node, || named().collect())
            }
            Value::Null => {
                walk.missing_all(&self.node);
                is_unfilled = walk.unfilled;
                rebuilt(walk, &self.node, Map::new)
            }
            other => {
                walk.not_params(other);
                return Err(walk.violations);
            }
        }?;
        // The usual call lacks nothing, and costs no list.
        let defaulted = if is_unfilled { self.defaulted(params) } else { Arc::default() };
        Ok(Filled { params: complete, defaulted })
    }

    /// Names of the parameters that have a default and are not in `given`.
    fn defaulted(&self, params: &Value) -> Arc<[Box<str>]> {
        let is_present = |index: usize, name: &str| match params {
            Value::Object(fields) => fields.contains_key(name),
            Value::Array(items) => index < items.len(),
            _ => false,
        };
        let fields = self.node.fields.iter().enumerate();
        fields
            .filter(|(index, field)| field.default.is_some() && !is_present(*index, &field.name))
            .map(|(_, field)| field.name.clone())
            .collect()
    }

    /// Checks parameters in which some texts stand for values that are not known yet.
    ///
    /// A text for which `open` returns true passes every rule. Everything else is checked: missing
    /// and unknown fields, and every other leaf.
    pub fn check_open(&self, params: &Value, open: &dyn Fn(&str) -> bool) -> Vec<Violation> {
        let mut walk = Walk::new(Some(open));
        match params {
            Value::Object(_) => walk.value(&self.node, params, &ValuePath::Root),
            Value::Array(items) => walk.positional(&self.node, items),
            Value::Null => walk.missing_all(&self.node),
            Value::String(text) if open(text) => {}
            other => walk.not_params(other),
        }
        walk.violations
    }
}

/// The result of a walk over `value`: itself, a filled copy, or the violations.
fn finish(
    walk: Walk<'_>,
    node: &SchemaNode,
    value: &Arc<Value>,
) -> Result<Arc<Value>, Vec<Violation>> {
    if !walk.violations.is_empty() {
        return Err(walk.violations);
    }
    if !walk.unfilled {
        return Ok(Arc::clone(value));
    }
    let mut filled = Value::clone(value);
    fill::fill(node, &mut filled);
    Ok(Arc::new(filled))
}

/// The same for parameters that were not an object and are to become one.
fn rebuilt(
    walk: Walk<'_>,
    node: &SchemaNode,
    build: impl FnOnce() -> Map<String, Value>,
) -> Result<Arc<Value>, Vec<Violation>> {
    if !walk.violations.is_empty() {
        return Err(walk.violations);
    }
    let mut filled = Value::Object(build());
    fill::fill(node, &mut filled);
    Ok(Arc::new(filled))
}

/// A default that breaks its own schema would make every call without it fail.
fn check_default(node: &SchemaNode, value: &mut Value, at: &str, errors: &mut Vec<SchemaError>) {
    let mut walk = Walk::new(None);
    walk.value(node, value, &ValuePath::Root);
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
