//! The JSON Schema of workflow files, for editors: the keys of [`keys`](super::keys), with their types.
//!
//! The parser is the rule. The schema accepts what the parser accepts, null and numbers in quotes
//! included, and refuses the keys that it refuses.

use serde_json::{Map, Value, json};

use super::keys::{self, KeySchema};

/// The JSON Schema of workflow files, draft 2020-12.
///
/// ```
/// let schema = gleitzeit::files::json_schema();
/// assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
/// ```
pub fn json_schema() -> Value {
    let mut root = mapping(&keys::WORKFLOW);
    let more = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gleitzeit workflow",
        "allOf": [
            { "anyOf": [
                { "required": ["tasks"] },
                { "required": ["batch"] },
                { "required": ["type"], "properties": { "type": { "pattern": "^[Bb][Aa][Tt][Cc][Hh]$" } } },
            ] },
        ],
        "$defs": {
            "task": with_one_of(mapping(&keys::TASK), &["method", "value", "switch"]),
            "branch": with_required(mapping(&keys::BRANCH), "to"),
            "retry": mapping(&keys::RETRY),
            "resources": mapping(&keys::RESOURCES),
            "batch": mapping(&keys::BATCH),
            "template": mapping(&keys::TEMPLATE),
        },
    });
    if let (Value::Object(root), Value::Object(more)) = (&mut root, more) {
        root.extend(more);
    }
    root
}

fn with_one_of(mut schema: Value, keys: &[&str]) -> Value {
    let required = |key: &&str| json!({ "required": [key] });
    schema["anyOf"] = keys.iter().map(required).collect();
    schema
}

fn with_required(mut schema: Value, key: &str) -> Value {
    schema["required"] = json!([key]);
    schema
}

/// The schema of a mapping with these keys, their other spellings, and those that say nothing.
fn mapping(of: &KeySchema) -> Value {
    let mut properties = Map::new();
    for key in of.keys {
        let schema = property(of, key.name);
        for alias in key.aliases {
            let mut older = schema.clone();
            older["description"] = json!(format!("Another spelling of `{}`.", key.name));
            properties.insert((*alias).to_owned(), older);
        }
        properties.insert(key.name.to_owned(), schema);
    }
    for name in of.ignored {
        let schema =
            json!({ "description": "Accepted, and without an effect.", "deprecated": true });
        properties.entry((*name).to_owned()).or_insert(schema);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": of.open })
}

/// The schema of a key. A key without a value counts as absent.
fn property(of: &KeySchema, name: &str) -> Value {
    let (schema, description) = typed(of, name);
    json!({ "description": description, "anyOf": [schema, { "type": "null" }] })
}

fn typed(of: &KeySchema, name: &str) -> (Value, &'static str) {
    let is_batch = of.what == keys::BATCH.what;
    match name {
        "name" => (text(), "A name for a person."),
        "id" => (text(), "The id; tasks refer to each other by theirs."),
        "description" => (text(), "What the workflow is for."),
        "type" => (words(&["workflow", "batch"]), "A workflow of tasks, or a batch over files."),
        "max_parallel_tasks" => (count(), "Tasks of this workflow that run at once."),
        "inputs" => (json!({ "type": "object" }), "Values that `${inputs.NAME}` reads."),
        "tasks" => (
            json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/task" } }),
            "The tasks.",
        ),
        "batch" => (json!({ "$ref": "#/$defs/batch" }), "The files that a batch works on."),
        "template" => (json!({ "$ref": "#/$defs/template" }), "The task of each file of a batch."),
        "directory" if is_batch => (text(), "The directory of the files."),
        "pattern" if is_batch => (text(), "Which files, as a glob; `**` crosses directories."),
        "protocol" => (text(), "The protocol of `method`, such as `python/v1.0`."),
        "method" => (text(), "The method, such as `python/execute`."),
        "parameters" => (json!({ "type": ["object", "array"] }), "What the method is called with."),
        "dependencies" => (
            json!({ "type": "array", "items": text() }),
            "Tasks that must settle before; references are dependencies by themselves.",
        ),
        "priority" => (priority(), "Which tasks come first: urgent, high, normal or low."),
        "timeout" => (limit(), "Limit of the workflow, or of one attempt of a task."),
        "total_timeout" => (limit(), "Limit of all attempts of the task together."),
        "execution_timeout" => (limit(), "Limit of one attempt, if `timeout` is absent."),
        "base_delay" => (pause(), "The pause before the second attempt."),
        "max_delay" => (pause(), "The longest pause."),
        "retry" => (json!({ "$ref": "#/$defs/retry" }), "When a failed attempt is repeated."),
        "max_attempts" => (count(), "Attempts, the first one included."),
        "backoff" => (words(&["fixed", "linear", "exponential"]), "How pauses grow."),
        "jitter" => (flag(), "Draws each pause from between half of it and all of it."),
        "retry_on" => (
            json!({ "type": ["string", "integer", "array"] }),
            "`any`, `retryable`, or codes of errors.",
        ),
        "resources" => (json!({ "$ref": "#/$defs/resources" }), "What the task needs."),
        "cpu_cores" => (amount(), "Processor cores; a fraction is allowed."),
        "memory_mb" => (amount(), "Memory in MiB."),
        "gpu_memory_mb" => (amount(), "Memory of graphics processors in MiB."),
        "disk_space_mb" => (amount(), "Temporary disk space in MiB."),
        "network_bandwidth_mbps" => (amount(), "Network bandwidth in megabits a second."),
        "on_dependency_failure" => {
            (words(&["skip", "fail", "run"]), "If a dependency did not complete.")
        }
        "when" => (expression(), "The condition, an expression: without it the task is skipped."),
        "else" => (flag(), "Chosen if no other branch is."),
        "to" => (text(), "The name of the branch."),
        "value" => (expression(), "An expression whose value is the result, instead of a call."),
        "in" => {
            (json!({ "type": ["string", "array"] }), "The branches, `switch.branch`, it is in.")
        }
        "switch" => (
            json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/branch" } }),
            "Branches, the first of which that holds is chosen.",
        ),
        "profile" => (flag(), "Measures the task."),
        // A test refuses a key that nobody described.
        _ => (Value::Null, ""),
    }
}

/// The text of an expression; `true` and `1` are some, too.
fn expression() -> Value {
    text()
}

/// A text; numbers and booleans are read as they are written.
fn text() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// Words in any case.
fn words(words: &[&str]) -> Value {
    let any_case = |word: &str| -> String {
        let letter = |c: char| {
            if c.is_ascii_alphabetic() {
                format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase())
            } else {
                c.to_string()
            }
        };
        word.chars().map(letter).collect()
    };
    let all: Vec<String> = words.iter().map(|word| any_case(word)).collect();
    // An editor suggests the values of an enumeration, and accepts the other spellings.
    json!({ "anyOf": [
        { "enum": words },
        { "type": "string", "pattern": format!("^({})$", all.join("|")) },
    ] })
}

fn priority() -> Value {
    json!({ "anyOf": [
        words(&["urgent", "high", "normal", "low"]),
        { "type": "integer", "minimum": 0, "maximum": 3 },
        { "type": "string", "pattern": "^\\s*[0-3]\\s*$" },
    ] })
}

fn flag() -> Value {
    json!({ "anyOf": [{ "type": "boolean" }, words(&["true", "false", "yes", "no", "on", "off"])] })
}

const NUMBER: &str = "^\\s*[0-9.]+([eE][+-]?[0-9]+)?\\s*$";

const SPAN: &str = "^\\s*([0-9.]+\\s*(d|h|ms|m|s)\\s*)+$";

fn count() -> Value {
    json!({ "anyOf": [{ "type": "number", "minimum": 1 }, { "type": "string", "pattern": NUMBER }] })
}

fn amount() -> Value {
    json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string", "pattern": NUMBER }] })
}

/// A span above 0.
fn limit() -> Value {
    json!({ "anyOf": [
        { "type": "number", "exclusiveMinimum": 0 },
        { "type": "string", "pattern": NUMBER },
        { "type": "string", "pattern": SPAN },
    ] })
}

fn pause() -> Value {
    json!({ "anyOf": [
        { "type": "number", "minimum": 0 },
        { "type": "string", "pattern": NUMBER },
        { "type": "string", "pattern": SPAN },
    ] })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::files::{self, Format};

    fn validator() -> jsonschema::Validator {
        jsonschema::draft202012::new(&json_schema()).expect("a schema")
    }

    const ALL: [&KeySchema; 7] = [
        &keys::BRANCH,
        &keys::WORKFLOW,
        &keys::TASK,
        &keys::RETRY,
        &keys::RESOURCES,
        &keys::BATCH,
        &keys::TEMPLATE,
    ];

    /// A smallest file with `key: value` in the mapping of this shape.
    fn file(of: &KeySchema, key: &str, value: &Value) -> Value {
        let mut root = json!({ "name": "w", "tasks": [{ "id": "a", "method": "echo/echo" }] });
        let target = match of.what {
            what if what == keys::TASK.what => &mut root["tasks"][0],
            what if what == keys::BRANCH.what => {
                root["tasks"][0] = json!({ "id": "a", "switch": [{ "to": "b", "else": true }] });
                &mut root["tasks"][0]["switch"][0]
            }
            what if what == keys::RETRY.what => &mut root["tasks"][0]["retry"],
            what if what == keys::RESOURCES.what => &mut root["tasks"][0]["resources"],
            what if what == keys::WORKFLOW.what => &mut root,
            what => {
                root = json!({ "name": "w", "type": "batch",
                    "batch": { "directory": "tests/files/batch/notes", "pattern": "*" } });
                let is_batch = what == keys::BATCH.what;
                &mut root[if is_batch { "batch" } else { "template" }]
            }
        };
        if target.is_null() {
            *target = json!({});
        }
        target[key] = value.clone();
        root
    }

    fn is_unknown(file: &Value, key: &str) -> bool {
        let text = file.to_string();
        let message = files::parse(&text, Format::Json, "w.json").err().map(|it| it.to_string());
        message.is_some_and(|message| message.contains(&format!("unknown key `{key}`")))
    }

    /// Each key of the parser, and no other, is a key of the schema, with a type and a description.
    #[test]
    fn the_schema_has_the_keys_of_the_parser() {
        let validator = validator();
        for of in ALL {
            for key in of.keys {
                let (schema, description) = typed(of, key.name);
                assert!(schema.is_object(), "{} `{}` has no type", of.what, key.name);
                assert!(description.ends_with('.'), "{} `{}`", of.what, key.name);
            }
            let names = of.keys.iter().flat_map(|key| key.aliases.iter().chain([&key.name]));
            for name in names.chain(of.ignored) {
                let file = file(of, name, &Value::Null);
                assert!(!is_unknown(&file, name), "the parser: {} `{name}`", of.what);
                let errors: Vec<String> =
                    validator.iter_errors(&file).map(|it| it.to_string()).collect();
                let refused = errors.iter().any(|it| it.contains("dditional properties"));
                assert!(!refused, "the schema: {} `{name}`: {errors:?}", of.what);
            }
            let unknown = file(of, "zzzzzzzz", &json!(1));
            assert_eq!(is_unknown(&unknown, "zzzzzzzz"), !of.open, "the parser: {}", of.what);
            assert_eq!(validator.is_valid(&unknown), of.open, "the schema: {}", of.what);
        }
    }

    /// The files of a directory in a format that can be read as a value.
    fn values(directory: &str) -> Vec<(String, Value)> {
        let mut values = Vec::new();
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.display().to_string();
            let Some(format) = Format::of_path(&path).filter(|_| !name.ends_with(".spec.json"))
            else {
                continue;
            };
            let text = fs::read_to_string(&path).expect("a text");
            let mut findings = files::Findings::default();
            let root = files::tree(&text, format, &mut findings).expect("a tree");
            values.push((name, root.to_value()));
        }
        values
    }

    /// Examples, and the trial files that the parser accepts.
    #[test]
    fn every_example_and_good_file_is_valid() {
        let validator = validator();
        let mut count = 0;
        for directory in ["examples", "tests/files/good", "tests/files/judged"] {
            for (name, value) in values(directory) {
                // A file about sense, and not about shape.
                if files::read(Path::new(&name)).is_err() {
                    continue;
                }
                let errors: Vec<String> = validator
                    .iter_errors(&value)
                    .map(|it| format!("{it} at {}", it.instance_path()))
                    .collect();
                assert!(errors.is_empty(), "{name}: {errors:?}");
                count += 1;
            }
        }
        assert!(count >= 15, "{count} files");
    }

    /// Values that the parser refuses, too.
    #[test]
    fn wrong_values_are_refused() {
        let validator = validator();
        for (of, key, value) in [
            (&keys::WORKFLOW, "timeout", json!("soon")),
            (&keys::WORKFLOW, "timeout", json!(0)),
            (&keys::WORKFLOW, "max_parallel_tasks", json!(0)),
            (&keys::WORKFLOW, "inputs", json!([1])),
            (&keys::WORKFLOW, "tasks", json!([])),
            (&keys::TASK, "timeout", json!("5x")),
            (&keys::TASK, "priority", json!("hihg")),
            (&keys::TASK, "dependencies", json!("a")),
            (&keys::TASK, "parameters", json!("text")),
            (&keys::RETRY, "backoff", json!("expo")),
            (&keys::RETRY, "jitter", json!("maybe")),
            (&keys::RESOURCES, "memory_mb", json!(-1)),
        ] {
            let file = file(of, key, &value);
            assert!(files::parse(&file.to_string(), Format::Json, "w.json").is_err(), "{file}");
            assert!(!validator.is_valid(&file), "the schema accepts {file}");
        }
        for (key, value) in [("timeout", json!("1h30m")), ("priority", json!("LOW"))] {
            let file = file(&keys::TASK, key, &value);
            assert!(files::parse(&file.to_string(), Format::Json, "w.json").is_ok(), "{file}");
            assert!(validator.is_valid(&file), "{file}");
        }
        let neither = json!({ "name": "w" });
        assert!(!validator.is_valid(&neither));
    }
}
