//! The protocol files that ship can be read, registered and used.

use std::sync::Arc;

use gleitzeit::protocol_files::{self, ProtocolFileError};
use gleitzeit_domain::protocol::{catalog::ProtocolCatalog, schema};
use serde_json::{Value, json};

fn shipped() -> ProtocolCatalog {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/protocols");
    let specs = match protocol_files::load_dir(directory) {
        Ok(specs) => specs,
        Err(errors) => {
            panic!("{}", errors.iter().map(ProtocolFileError::report).collect::<String>())
        }
    };
    let mut catalog = ProtocolCatalog::builtin();
    catalog.register_all(specs).expect("what ships registers");
    catalog
}

/// Parameters by position fall into their places, and defaults are filled in.
#[test]
fn a_protocol_from_a_file_checks_calls() {
    let catalog = shipped();
    let split = catalog.resolve(Some("text"), "split").unwrap();
    let filled = split.params.validate(&Arc::new(json!(["a b"]))).unwrap();
    assert_eq!(*filled, json!({"text": "a b", "separator": "\n"}));
    let wrong = split.params.validate(&Arc::new(json!(["a b", "", 0]))).unwrap_err();
    let rules: Vec<Value> = wrong.iter().map(|v| json!([v.pointer, v.rule])).collect();
    assert_eq!(rules, [json!(["/1", "min_length"]), json!(["/2", "minimum"])]);
}

/// A file that extends a built-in protocol has its methods, under its own name.
#[test]
fn a_protocol_from_a_file_inherits() {
    let catalog = shipped();
    let chat = catalog.resolve(None, "translation/chat").unwrap();
    assert_eq!(chat.capability.to_string(), "translation/v1.0:chat");
    let translate = catalog.resolve(Some("translation/v1"), "translate").unwrap();
    let wrong = translate.params.check_open(&json!({"text": "x", "to": "German"}), &|_| false);
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].pointer, "/to");
}

/// What ships is understood by other validators too.
#[test]
fn shipped_protocols_export_as_json_schema() {
    for spec in shipped().list() {
        let exported = schema::export(spec);
        jsonschema::meta::validate(&exported).expect("a valid schema");
        let validator = jsonschema::validator_for(&exported).expect("a schema that compiles");
        for (name, method) in &spec.methods {
            for example in &method.examples {
                let call = json!({"method": name, "params": example.params});
                assert!(validator.is_valid(&call), "{} {call}", spec.protocol_id());
            }
        }
        assert!(!validator.is_valid(&json!({"method": "no such method"})));
    }
}
