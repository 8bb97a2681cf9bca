//! Protocols as JSON Schema (draft 2020-12), for validators and editors outside of gleitzeit.
//!
//! A pure translation: the exported schema means what [`validate`](super::validate) checks.
//! Patterns are exported unchanged: features outside of the common subset of Rust's and
//! ECMAScript's expressions may mean something else there.

use serde_json::{Map, Value, json};

use super::{
    parameter::{OneOrMany, ParameterSpec, ParameterType},
    spec::{MethodSpec, ProtocolSpec},
};

/// The dialect that is written.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A protocol as one schema.
///
/// The schema describes a call, `{"method": …, "params": …}`. In `$defs`, each method `m` has
/// `m.params` (by name), `m.positional` (by position) and, if declared, `m.returns`;
/// `#/$defs/execute.params` refers to one of them.
///
/// Give it a protocol out of a [`ProtocolCatalog`](super::catalog::ProtocolCatalog), so that it has the
/// methods it inherits.
pub fn export(spec: &ProtocolSpec) -> Value {
    let mut defs = Map::new();
    for (name, method) in &spec.methods {
        defs.insert(format!("{name}.params"), params(method));
        defs.insert(format!("{name}.positional"), positional(method));
        if let Some(returns) = &method.returns_schema {
            defs.insert(format!("{name}.returns"), value(returns));
        }
    }
    let mut schema = Map::new();
    schema.insert("$schema".into(), DIALECT.into());
    schema.insert("title".into(), spec.protocol_id().to_string().into());
    if let Some(description) = &spec.description {
        schema.insert("description".into(), description.as_str().into());
    }
    let calls = spec.methods.iter().map(|(name, method)| call(name, method));
    schema.insert("oneOf".into(), calls.collect());
    if spec.methods.is_empty() {
        // An empty list of alternatives is no schema; no method means no call.
        schema.remove("oneOf");
        schema.insert("not".into(), json!({}));
    }
    schema.insert("$defs".into(), Value::Object(defs));
    Value::Object(schema)
}

fn call(name: &str, method: &MethodSpec) -> Value {
    let mut call = json!({
        "type": "object",
        "properties": {
            "method": {"const": name},
            "params": {"anyOf": [
                {"$ref": format!("#/$defs/{name}.params")},
                {"$ref": format!("#/$defs/{name}.positional")},
            ]},
        },
        "required": if must_give_any(method) { vec!["method", "params"] } else { vec!["method"] },
    });
    if let Some(description) = &method.description {
        call["description"] = description.as_str().into();
    }
    if method.deprecated {
        call["deprecated"] = true.into();
    }
    call
}

fn must_give_any(method: &MethodSpec) -> bool {
    method.params_schema.values().any(is_required)
}

/// The parameters of a method by name, as the schema of an object.
pub fn params(method: &MethodSpec) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    fields(&mut schema, method.params_schema.iter(), method.additional_params);
    let examples: Vec<Value> = method
        .examples
        .iter()
        .map(|example| example.params.clone())
        .filter(Value::is_object)
        .collect();
    if !examples.is_empty() {
        schema.insert("examples".into(), examples.into());
    }
    Value::Object(schema)
}

/// The parameters of a method by position, as the schema of an array.
pub fn positional(method: &MethodSpec) -> Value {
    let specs = &method.params_schema;
    let needed = specs.values().rposition(is_required).map_or(0, |last| last + 1);
    let mut schema = json!({"type": "array", "minItems": needed, "items": false});
    if !specs.is_empty() {
        schema["prefixItems"] = specs.values().map(value).collect();
    }
    schema
}

/// One value.
pub fn value(spec: &ParameterSpec) -> Value {
    let mut schema = Map::new();
    if let Some(kinds) = types(&spec.kind) {
        schema.insert("type".into(), kinds);
    }
    let mut put = |keyword: &str, value: Option<Value>| {
        if let Some(value) = value {
            schema.insert(keyword.to_owned(), value);
        }
    };
    put("description", spec.description.as_deref().map(Value::from));
    put("default", spec.default.clone());
    put("enum", spec.allowed.clone().map(Value::from));
    put("minimum", spec.minimum.clone().map(Value::Number));
    put("maximum", spec.maximum.clone().map(Value::Number));
    put("pattern", spec.pattern.as_deref().map(Value::from));
    put("items", spec.items.as_deref().map(value));
    // A length speaks of texts and lists; JSON Schema has a word for each, and neither speaks of
    // the other.
    for (length, keywords) in
        [(spec.min_length, ["minLength", "minItems"]), (spec.max_length, ["maxLength", "maxItems"])]
    {
        for keyword in keywords {
            put(keyword, length.map(Value::from));
        }
    }
    if spec.properties.is_some() || !spec.additional_properties {
        let properties = spec.properties.iter().flatten();
        fields(&mut schema, properties, spec.additional_properties);
    }
    Value::Object(schema)
}

/// The keywords for the fields of an object.
fn fields<'a>(
    schema: &mut Map<String, Value>,
    specs: impl Iterator<Item = (&'a String, &'a ParameterSpec)>,
    additional: bool,
) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, spec) in specs {
        properties.insert(name.clone(), value(spec));
        if is_required(spec) {
            required.push(name.as_str());
        }
    }
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("additionalProperties".into(), additional.into());
}

fn is_required(spec: &ParameterSpec) -> bool {
    spec.required && spec.default.is_none()
}

/// The `type` keyword; none where anything is allowed.
fn types(kinds: &OneOrMany<ParameterType>) -> Option<Value> {
    let mut names = Vec::new();
    for kind in kinds.as_slice() {
        let name = match kind {
            ParameterType::Any => return None,
            ParameterType::String => "string",
            ParameterType::Integer => "integer",
            ParameterType::Number => "number",
            ParameterType::Boolean => "boolean",
            ParameterType::Array => "array",
            ParameterType::Object => "object",
            ParameterType::Null => "null",
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(match names.as_slice() {
        [only] => (*only).into(),
        several => several.into(),
    })
}
