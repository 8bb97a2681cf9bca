//! From a Rust type to the schema of a parameter.
//!
//! `schemars` derives a JSON Schema from the type; this file translates it into [`ParameterSpec`],
//! which has fewer rules. A handler's type must not accept more than the schema allows, so a rule
//! without a counterpart is rejected with the name of its type, and never dropped. Two rules are
//! looser: the values of a map and the format of a text are checked by the handler's type only,
//! when the call begins.

mod number;

use std::fmt;

use gleitzeit_domain::protocol::{OneOrMany, ParameterSpec, ParameterType};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

/// The side of a handler that a type is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The parameters.
    Input,
    /// The result.
    Result,
}

/// A type, or a part of one, that has no schema here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LowerProblem {
    side: Side,
    /// The path of the handler's type: `shop::Charge`.
    root: &'static str,
    /// The field, from the outside in: `card.holder`; empty for the type itself.
    field: String,
    /// The name of the type that has the field, if it is another one.
    owner: Option<String>,
    what: String,
}

impl LowerProblem {
    /// Something wrong with the type as a whole.
    pub(super) fn new(side: Side, root: &'static str, what: impl Into<String>) -> Self {
        Self { side, root, field: String::new(), owner: None, what: what.into() }
    }
}

impl fmt::Display for LowerProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Input => "input",
            Side::Result => "result",
        };
        write!(out, "{side} `{}`", self.root)?;
        if !self.field.is_empty() {
            write!(out, ", field `{}`", self.field)?;
        }
        if let Some(owner) = &self.owner {
            write!(out, ", type `{owner}`")?;
        }
        write!(out, ": {}", self.what)
    }
}

/// The remedy for a rejected type.
const INSTEAD: &str = "write `#[schemars(with = \"serde_json::Value\")]` above the field to leave \
                       it to the handler";

/// The schema of a type; adds what has no counterpart to `problems`.
pub(super) fn lower<T: JsonSchema>(
    side: Side,
    root: &'static str,
    problems: &mut Vec<LowerProblem>,
) -> ParameterSpec {
    let settings = SchemaSettings::draft2020_12();
    let settings = match side {
        Side::Input => settings.for_deserialize(),
        Side::Result => settings.for_serialize(),
    };
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let schema = schema.to_value();
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    let mut lowering =
        Lowering { side, root, definitions, owners: Vec::new(), path: Vec::new(), problems };
    let mut spec = lowering.value(&schema);
    // Parameters that are not declared are typing errors, unless the type collects them.
    if side == Side::Input && !lowering.says_additional(&schema) {
        spec.additional_properties = false;
    }
    // The doc comment of the input type is for readers of the code; the method has a description of
    // its own.
    spec.description = spec.description.filter(|_| side == Side::Result);
    spec
}

struct Lowering<'s> {
    side: Side,
    root: &'static str,
    definitions: &'s Map<String, Value>,
    /// The named types that are being read, from the outside in.
    owners: Vec<String>,
    path: Vec<String>,
    problems: &'s mut Vec<LowerProblem>,
}

impl<'s> Lowering<'s> {
    fn refuse(&mut self, what: impl Into<String>) -> ParameterSpec {
        self.problems.push(LowerProblem {
            side: self.side,
            root: self.root,
            field: self.path.join("."),
            owner: self.owners.last().cloned(),
            what: what.into(),
        });
        ParameterSpec::any()
    }

    /// True if the type declares whether it accepts unknown fields.
    fn says_additional(&self, schema: &Value) -> bool {
        let named = schema.get("$ref").and_then(|name| self.definition(name)).unwrap_or(schema);
        named.get("additionalProperties").is_some() || named.get("properties").is_none()
    }

    fn definition(&self, reference: &Value) -> Option<&'s Value> {
        self.definitions.get(reference.as_str()?.strip_prefix("#/$defs/")?)
    }

    fn value(&mut self, schema: &Value) -> ParameterSpec {
        let rules = match schema {
            Value::Bool(true) => return ParameterSpec::any(),
            Value::Object(rules) => rules,
            _ => return self.refuse(format!("no value of it exists; {INSTEAD}")),
        };
        let mut spec = self.shape(rules);
        if let Some(text) = rules.get("description").and_then(Value::as_str) {
            spec.description = Some(text.to_owned());
        }
        if let Some(default) = rules.get("default").filter(|it| !it.is_null()) {
            spec.default = Some(default.clone());
        }
        self.refuse_unknown(rules);
        spec
    }

    fn shape(&mut self, rules: &Map<String, Value>) -> ParameterSpec {
        if let Some(name) = rules.get("$ref") {
            return self.named(name);
        }
        let choice = rules.get("oneOf").or_else(|| rules.get("anyOf")).and_then(Value::as_array);
        if let Some(choice) = choice {
            return self.choice(choice);
        }
        if let Some(value) = rules.get("const") {
            return listed(std::slice::from_ref(value));
        }
        if let Some(values) = rules.get("enum").and_then(Value::as_array) {
            return listed(values);
        }
        let Some(kinds) = kinds(rules.get("type")) else {
            return self.refuse(format!("a type that JSON Schema does not have; {INSTEAD}"));
        };
        let has = |kind| kinds.contains(&kind);
        let mut spec = ParameterSpec::any();
        if has(ParameterType::Integer) || has(ParameterType::Number) {
            self.bounds(rules, has(ParameterType::Integer), &mut spec);
        }
        if has(ParameterType::String) {
            spec.min_length = length(rules, "minLength");
            spec.max_length = length(rules, "maxLength");
            spec.pattern = rules.get("pattern").and_then(Value::as_str).map(str::to_owned);
        }
        if has(ParameterType::Array) {
            self.list(rules, &mut spec);
        }
        if has(ParameterType::Object) {
            self.fields(rules, &mut spec);
        }
        spec.kind = one_or_many(kinds);
        spec
    }

    /// A type by its name.
    fn named(&mut self, reference: &Value) -> ParameterSpec {
        let text = reference.as_str().unwrap_or_default();
        let name = text.strip_prefix("#/$defs/").unwrap_or(self.root);
        let definition = self.definition(reference);
        let Some(definition) = definition.filter(|_| !self.owners.iter().any(|it| it == name))
        else {
            return self.refuse(format!("type `{name}` contains itself; {INSTEAD}"));
        };
        self.owners.push(name.to_owned());
        let spec = self.value(definition);
        self.owners.pop();
        spec
    }

    /// One of several: a value or null, or a list of constants.
    fn choice(&mut self, choice: &[Value]) -> ParameterSpec {
        let is_null = |it: &&Value| it.get("type") == Some(&Value::from("null"));
        let (nulls, others): (Vec<_>, Vec<_>) = choice.iter().partition(is_null);
        if let ([only], false) = (&*others, nulls.is_empty()) {
            let mut spec = self.value(only);
            allow_null(&mut spec);
            return spec;
        }
        let mut values = Vec::new();
        let mut lines = Vec::new();
        for schema in choice {
            let listed = schema.get("enum").and_then(Value::as_array);
            match (schema.get("const"), listed) {
                (Some(value), _) => {
                    let text = schema.get("description").and_then(Value::as_str);
                    lines.extend(text.map(|text| format!("{value}: {text}")));
                    values.push(value.clone());
                }
                (None, Some(listed)) => values.extend(listed.iter().cloned()),
                (None, None) => {
                    return self.refuse(format!(
                        "an enum with data has no schema of parameters; use a struct with a \
                         field of unit variants, or {INSTEAD}"
                    ));
                }
            }
        }
        let mut spec = listed(&values);
        spec.description = (!lines.is_empty()).then(|| lines.join("\n"));
        spec
    }

    fn list(&mut self, rules: &Map<String, Value>, spec: &mut ParameterSpec) {
        spec.min_length = length(rules, "minItems").or(spec.min_length);
        spec.max_length = length(rules, "maxItems").or(spec.max_length);
        let prefix_items = rules.get("prefixItems").and_then(Value::as_array);
        let same = prefix_items
            .is_some_and(|prefix_items| prefix_items.windows(2).all(|two| two[0] == two[1]));
        let items = match prefix_items {
            Some(_) if !same => {
                *spec = self.refuse(format!("a tuple of several types; {INSTEAD}"));
                return;
            }
            Some(prefix_items) => prefix_items.first(),
            None => rules.get("items"),
        };
        if let Some(items) = items.filter(|items| **items != Value::Bool(true)) {
            self.path.push("[]".to_owned());
            spec.items = Some(Box::new(self.value(items)));
            self.path.pop();
        }
    }

    fn fields(&mut self, rules: &Map<String, Value>, spec: &mut ParameterSpec) {
        if rules.contains_key("patternProperties") || rules.contains_key("propertyNames") {
            *spec = self.refuse(format!("a map whose keys are not text; {INSTEAD}"));
            return;
        }
        let required = rules.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| *it == name));
        if let Some(fields) = rules.get("properties").and_then(Value::as_object) {
            let mut properties = indexmap::IndexMap::new();
            for (name, schema) in fields {
                self.path.push(name.clone());
                let mut field = self.value(schema);
                self.path.pop();
                field.required = is_required(name);
                properties.insert(name.clone(), field);
            }
            spec.properties = Some(properties);
        }
        let says = |name| rules.get(name);
        spec.additional_properties =
            match says("additionalProperties").or_else(|| says("unevaluatedProperties")) {
                Some(rule) => *rule != Value::Bool(false),
                // A struct writes its own fields and no others, so that a reference to another one
                // is rejected with its workflow. It may read more.
                None => self.side == Side::Input || spec.properties.is_none(),
            };
    }

    /// Refuses the rules that this file does not read.
    fn refuse_unknown(&mut self, rules: &Map<String, Value>) {
        let unknown: Vec<&str> =
            rules.keys().map(String::as_str).filter(|rule| !KNOWN.contains(rule)).collect();
        for rule in unknown {
            if !rule.starts_with("x-") {
                self.refuse(format!("its schema has the rule `{rule}`; {INSTEAD}"));
            }
        }
    }
}

/// Rules that are read, and those that say nothing about which values are allowed.
const KNOWN: &[&str] = &[
    "$ref",
    "oneOf",
    "anyOf",
    "const",
    "enum",
    "type",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "propertyNames",
    "description",
    "default",
    "$schema",
    "$defs",
    "$comment",
    "title",
    "examples",
    "format",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    // Serde drops repeated members of a set, so that a list with some does no harm.
    "uniqueItems",
];

fn length(rules: &Map<String, Value>, rule: &str) -> Option<usize> {
    rules.get(rule)?.as_u64().and_then(|length| usize::try_from(length).ok())
}

/// The types that are named; any, if none is. `None` for a name that there is not.
fn kinds(named: Option<&Value>) -> Option<Vec<ParameterType>> {
    let parse = |name: &Value| serde_json::from_value::<ParameterType>(name.clone()).ok();
    match named {
        None => Some(vec![ParameterType::Any]),
        Some(Value::Array(several)) => several.iter().map(parse).collect(),
        Some(name) => parse(name).map(|kind| vec![kind]),
    }
}

fn one_or_many(mut kinds: Vec<ParameterType>) -> OneOrMany<ParameterType> {
    match (kinds.len(), kinds.pop()) {
        (1, Some(only)) => OneOrMany::One(only),
        (_, last) => {
            kinds.extend(last);
            OneOrMany::Many(kinds)
        }
    }
}

/// Only these values, with the types that they have.
fn listed(values: &[Value]) -> ParameterSpec {
    let mut kinds = Vec::new();
    for value in values {
        let kind = match value {
            Value::Null => ParameterType::Null,
            Value::Bool(_) => ParameterType::Boolean,
            Value::Number(number) if number.is_f64() => ParameterType::Number,
            Value::Number(_) => ParameterType::Integer,
            Value::String(_) => ParameterType::String,
            Value::Array(_) => ParameterType::Array,
            Value::Object(_) => ParameterType::Object,
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut spec = ParameterSpec::any().one_of(values.iter().cloned());
    spec.kind = one_or_many(kinds);
    spec
}

fn allow_null(spec: &mut ParameterSpec) {
    let mut kinds = spec.kind.as_slice().to_vec();
    if !kinds.contains(&ParameterType::Any) && !kinds.contains(&ParameterType::Null) {
        kinds.push(ParameterType::Null);
    }
    spec.kind = one_or_many(kinds);
    if let Some(allowed) = &mut spec.allowed
        && !allowed.contains(&Value::Null)
    {
        allowed.push(Value::Null);
    }
}
