//! Schemas of every shape against values of every shape, with a second opinion: whatever the
//! export says as JSON Schema, an independent validator must judge as ours does, place by place.

#[path = "schemas/generate.rs"]
mod generate;

use std::{collections::BTreeSet, sync::Arc};

use generate::{loosened, params_and_value, spec, spec_and_value};
use gleitzeit_domain::{
    id::Version,
    protocol::{
        MethodSpec, ParameterSpec, ProtocolSpec,
        catalog::{ProtocolCatalog, RegisterError},
        schema,
        validate::{ParamsValidator, Rule, Validator, Violation},
    },
};
use proptest::prelude::*;
use serde_json::Value;

/// The places of our violations, as JSON Schema names them: what is missing or too much is told
/// of the object around it.
fn pointers(violations: &[Violation]) -> BTreeSet<String> {
    let pointer = |violation: &Violation| match violation.rule {
        Rule::Required | Rule::AdditionalProperties => {
            violation.pointer.rsplit_once('/').map_or_else(String::new, |(around, _)| around.into())
        }
        _ => violation.pointer.clone(),
    };
    violations.iter().map(pointer).collect()
}

fn second_opinion(schema: &Value, value: &Value) -> BTreeSet<String> {
    let validator = jsonschema::validator_for(schema).expect("the export is a schema");
    validator.iter_errors(value).map(|error| error.instance_path().to_string()).collect()
}

/// Every way from the outside of a value to something in it.
fn paths(value: &Value) -> Vec<Vec<String>> {
    let steps: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        Value::Object(map) => map.iter().map(|(key, v)| (key.clone(), v)).collect(),
        _ => Vec::new(),
    };
    let mut all = vec![Vec::new()];
    for (step, inner) in steps {
        for mut path in paths(inner) {
            path.insert(0, step.clone());
            all.push(path);
        }
    }
    all
}

/// The same value with every text replaced by one that stands for something unknown.
fn opened(value: &Value) -> Value {
    match value {
        Value::String(_) => "${open}".into(),
        Value::Array(items) => items.iter().map(opened).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), opened(v))).collect(),
        other => other.clone(),
    }
}

/// True when everything in `less` is in `more`, unchanged.
fn within(less: &Value, more: &Value) -> bool {
    match (less, more) {
        (Value::Object(less), Value::Object(more)) => {
            less.iter().all(|(key, value)| more.get(key).is_some_and(|other| within(value, other)))
        }
        (Value::Array(less), Value::Array(more)) => {
            less.len() == more.len() && less.iter().zip(more).all(|(l, m)| within(l, m))
        }
        _ => less == more,
    }
}

fn protocol_of(param: ParameterSpec) -> ProtocolSpec {
    let method = MethodSpec::new("m").param("p", param);
    ProtocolSpec::new("x", Version { major: 1, minor: 0, patch: 0 }).method(method)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two validators that share no code find the same places wrong.
    #[test]
    fn both_validators_agree((spec, value) in spec_and_value()) {
        let ours = Validator::compile(&spec).expect("only sound schemas are generated");
        let found = ours.check(&value);
        let exported = schema::value(&spec);
        prop_assert_eq!(
            pointers(&found), second_opinion(&exported, &value),
            "schema {} found {:#?}", exported, found
        );
    }

    /// The same for parameters, by name and by position.
    #[test]
    fn both_validators_agree_on_parameters((method, value) in params_and_value()) {
        let ours = ParamsValidator::compile(&method).expect("only sound schemas are generated");
        let fits = ours.validate(&Arc::new(value.clone())).is_ok();
        let exported =
            if value.is_array() { schema::positional(&method) } else { schema::params(&method) };
        prop_assert_eq!(fits, second_opinion(&exported, &value).is_empty(), "{}", exported);
    }

    /// Filling in defaults keeps what was given, gives what fits, and is done after once.
    #[test]
    fn filling_is_valid_and_done_once((spec, value) in spec_and_value()) {
        let validator = Validator::compile(&spec).expect("only sound schemas are generated");
        let value = Arc::new(value);
        match validator.fill(&value) {
            Err(violations) => prop_assert_eq!(violations, validator.check(&value)),
            Ok(filled) => {
                prop_assert!(within(&value, &filled));
                prop_assert_eq!(validator.check(&filled), []);
                let again = validator.fill(&filled).expect("it fits");
                prop_assert!(Arc::ptr_eq(&again, &filled), "filled twice");
            }
        }
    }

    /// A reference into a value that fits is never refused beforehand.
    #[test]
    fn every_path_of_a_value_that_fits_is_admitted((spec, value) in spec_and_value()) {
        let validator = Validator::compile(&spec).expect("only sound schemas are generated");
        let fitting = if validator.check(&value).is_empty() { paths(&value) } else { Vec::new() };
        for path in fitting {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            prop_assert_eq!(validator.admits(&path), Ok(()), "{:?}", path);
        }
    }

    /// With no text open, the open check is the check; with all open, it never objects to one,
    /// and to nothing that the check lets pass.
    #[test]
    fn open_texts_only_ever_allow_more((method, value) in params_and_value()) {
        let params = ParamsValidator::compile(&method).expect("only sound schemas are generated");
        let strict = params.check_open(&value, &|_| false);
        prop_assert_eq!(params.validate(&Arc::new(value.clone())).err().unwrap_or_default(), strict.clone());
        let open = opened(&value);
        let lenient = params.check_open(&open, &|text| text == "${open}");
        for violation in &lenient {
            let text = open.pointer(&violation.pointer).and_then(Value::as_str);
            prop_assert!(
                text.is_none() || violation.rule == Rule::AdditionalProperties
                    || violation.rule == Rule::TooManyPositional,
                "{} is open", violation
            );
            prop_assert!(strict.iter().any(|one| one.pointer == violation.pointer), "{}", violation);
        }
    }

    /// What is taken in while tasks use the old one accepts all that the old one accepted.
    #[test]
    fn a_compatible_protocol_accepts_all_that_was_accepted(
        ((old, value), new) in spec_and_value()
            .prop_flat_map(|(old, value)| (Just((old.clone(), value)), prop_oneof![
                4 => loosened(old),
                1 => spec(),
            ])),
    ) {
        let before = Validator::compile(&old).expect("only sound schemas are generated");
        let mut catalog = ProtocolCatalog::new();
        catalog.register(protocol_of(old)).expect("sound");
        match catalog.replace(protocol_of(new.clone()), true) {
            Ok(()) if before.check(&value).is_empty() => {
                let after = Validator::compile(&new).expect("it was registered");
                prop_assert_eq!(after.check(&value), [], "{}", schema::value(&new));
            }
            Ok(()) | Err(RegisterError::Incompatible { .. } | RegisterError::Invalid { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Loosening alone is never refused: the rule is safe, and not useless.
    #[test]
    fn loosening_is_compatible((old, new) in spec().prop_flat_map(|old| (Just(old.clone()), generate::only_loosened(old)))) {
        let mut catalog = ProtocolCatalog::new();
        catalog.register(protocol_of(old)).expect("sound");
        let replaced = catalog.replace(protocol_of(new), true);
        prop_assert_eq!(replaced, Ok(()));
    }

    /// What is written is read back as it was.
    #[test]
    fn specifications_survive_json(spec in spec()) {
        let text = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<ParameterSpec>(&text).unwrap(), spec);
    }
}
