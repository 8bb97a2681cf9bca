//! The conformance cases of CEL, where their file lies beside the checkout: every case within the
//! core has the value that it should have. What is left out is left out by its kind.
use std::{collections::BTreeMap, fs, path::Path};

use gleitzeit_domain::expression::{Expression, Named, Names, TaskValue, ValueScope};
use serde_json::{Map, Value, json};

struct Bindings(Map<String, Value>);

impl Names for Bindings {
    fn is_local(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn task(&self, _: &str) -> Option<u32> {
        None
    }
}

impl ValueScope for Bindings {
    fn name(&self, name: &str) -> Option<Named<'_>> {
        self.0.get(name).map(Named::Value)
    }

    fn task(&self, _: u32) -> Option<TaskValue<'_>> {
        None
    }
}

/// A value as the file writes it; `None` for one that JSON does not have.
fn plain(value: &Value) -> Option<Value> {
    let (kind, content) = value.as_object()?.iter().next()?;
    let text = content.as_str();
    Some(match kind.as_str() {
        "int64" => json!(text?.parse::<i64>().ok()?),
        "double" => json!(text?.parse::<f64>().ok().filter(|it| it.is_finite())?),
        "string" => json!(text?),
        "bool" => json!(text? == "true"),
        "null" => Value::Null,
        "list" => content.as_array()?.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        "map" => {
            let mut fields = Map::new();
            for entry in content.as_array()? {
                let key = match plain(entry.get("key")?)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                fields.insert(key, plain(entry.get("value")?)?);
            }
            fields.into()
        }
        _ => return None,
    })
}

/// True with a literal of bytes, outside of texts as far as these cases have any.
fn has_bytes(source: &str) -> bool {
    let mut before = ' ';
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        let is_quoted = matches!(chars.peek(), Some('"' | '\''));
        if matches!(c, 'b' | 'B') && is_quoted && " ([,!=".contains(before) {
            return true;
        }
        if matches!(c, 'b' | 'B')
            && matches!(chars.peek(), Some('r' | 'R'))
            && source.starts_with(c)
        {
            return true;
        }
        before = c;
    }
    false
}

/// Why a case is outside of the core.
fn left_out(case: &Value) -> Option<&'static str> {
    let source = case["expr"].as_str().unwrap_or_default();
    let text = case.to_string();
    let has = |parts: &[&str]| parts.iter().any(|part| source.contains(part));
    let is_unsigned = |source: &str| {
        let bytes = source.as_bytes();
        (1..bytes.len()).any(|at| {
            matches!(bytes[at], b'u' | b'U')
                && bytes[at - 1].is_ascii_hexdigit()
                && !bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric)
                && source[..at]
                    .bytes()
                    .rev()
                    .find(|it| !it.is_ascii_hexdigit() && *it != b'x')
                    .is_none_or(|it| {
                        !it.is_ascii_alphabetic() && it != b'\'' && it != b'"' && it != b'\\'
                    })
        })
    };
    Some(match case["file"].as_str().unwrap_or_default() {
        "timestamps" => "timestamps and durations",
        _ if case.get("container").is_some() || has(&["TestAllTypes", "google.", "cel.expr"]) => {
            "protobuf"
        }
        _ if case.get("typed_result").is_some() || case.get("check_only").is_some() => {
            "deduced types"
        }
        _ if text.contains("\"type_env\"") && !text.contains("\"bindings\"") => "declared types",
        _ if has(&["timestamp(", "duration("]) => "timestamps and durations",
        _ if has(&["uint("]) || text.contains("\"uint64\"") || is_unsigned(source) => "uint",
        _ if text.contains("\"bytes\"") || has(&["bytes("]) || has_bytes(source) => "bytes",
        _ if has(&["type("]) || text.contains("{\"type\":") => "type()",
        _ if text.contains("\"object\"") || text.contains("\"enum\"") => "protobuf",
        _ => return None,
    })
}

/// Forms of CEL that the core leaves out, or reads as a superset, by what the case shows.
fn differs(case: &Value) -> Option<&'static str> {
    let section = case["section"].as_str().unwrap_or_default();
    if case["file"] == "macros2" {
        return Some("macros of two variables");
    }
    if case["name"] == "unbound_is_runtime_error" {
        return Some("names that are refused before anything runs");
    }
    if section == "receiver_function_names" {
        return Some("functions that a host would declare");
    }
    let source = case["expr"].as_str().unwrap_or_default();
    if case.get("value").is_some_and(|value| plain(value).is_none()) {
        return Some("a value that JSON does not have");
    }
    if source.contains(".?") || source.contains("[?") || source.contains("optional.") {
        return Some("optional fields");
    }
    if source.contains(".`") || source.contains("{`") {
        return Some("quoted field names");
    }
    None
}

#[test]
fn conformance_cases_within_the_core_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/cel.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        return println!("SKIPPED: the conformance cases of CEL (no shared/conformance/cel.jsonl)");
    };
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut passed, mut wrong) = (0, Vec::new());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).expect("a case");
        if let Some(kind) = left_out(&case).or_else(|| differs(&case)) {
            *left.entry(kind).or_default() += 1;
            continue;
        }
        let source = case["expr"].as_str().expect("a source");
        let mut bindings = Map::new();
        for (name, value) in case["bindings"].as_object().into_iter().flatten() {
            let value = value.get("value").unwrap_or(value);
            bindings.insert(name.clone(), plain(value).unwrap_or(Value::Null));
        }
        let bindings = Bindings(bindings);
        let found = Expression::parse(source, &bindings)
            .map_err(|error| error.to_string())
            .and_then(|it| it.evaluate(&bindings).map_err(|error| error.to_string()));
        let fits = match (&found, case.get("value")) {
            (Ok(found), Some(value)) => same(found, &plain(value).expect("seen above")),
            (Err(_), None) => true,
            _ => false,
        };
        if fits {
            passed += 1;
        } else {
            wrong.push(format!(
                "{}/{}: {source} is {found:?}, not {:?}",
                case["section"],
                case["name"],
                case.get("value")
            ));
        }
    }
    println!("CEL: {passed} cases passed; left out: {left:?}");
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed >= 625, "{passed}");
}

/// JSON does not keep 1 and 1.0 apart.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => one.as_f64() == two.as_f64(),
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len()
                && one.iter().all(|(key, one)| two.get(key).is_some_and(|two| same(one, two)))
        }
        (one, two) => one == two,
    }
}
