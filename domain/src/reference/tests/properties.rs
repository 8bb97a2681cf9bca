//! What references promise for any text, made of pieces that come close to references.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::{super::*, numbers, world};

/// Pieces of which texts are made that come close to references.
fn near_references() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        5 => prop::sample::select(&[
            "${", "$", "{", "}", ".", "[", "]", "\"", "'", "\\", ":-", ":", " ", "\n", "0", "$.",
            "numbers", "values", "inputs", "env", "workflow", "id", "status", "error", "result",
        ][..]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
}

/// Any JSON; its texts come close to references.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        near_references().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(near_references(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn without_dollars(value: Value) -> Value {
    match value {
        Value::String(text) => text.replace('$', "").into(),
        Value::Array(list) => list.into_iter().map(without_dollars).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(key, child)| (key, without_dollars(child))).collect()
        }
        other => other,
    }
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => escape(text).into(),
        Value::Array(list) => list.iter().map(escaped).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, child)| (key.clone(), escaped(child))).collect()
        }
        other => other.clone(),
    }
}

/// Parts of a text, each with what it becomes.
fn rendered_parts() -> impl Strategy<Value = Vec<(String, String)>> {
    let plain = near_references().prop_map(|text| text.replace('$', ""));
    let same = plain.prop_map(|text| (text.clone(), text));
    let filled = prop::sample::select(
        &[
            ("${numbers.text}", "plain"),
            ("${numbers.values[1]}", "1"),
            ("${numbers['odd key']}", "{\"in.side\":true}"),
            ("${broken.$.error.data}", "{\"line\":3}"),
            ("${inputs.city:-x}", "Berlin"),
            ("${numbers.x:-{}}", "{}"),
            ("${workflow.id}", "w-1"),
        ][..],
    );
    let filled = filled.prop_map(|(text, value)| (text.to_owned(), value.to_owned()));
    prop::collection::vec(prop_oneof![same, filled], 2..12)
}

proptest! {
    /// A file from a stranger must not bring the service down, whatever is in it.
    #[test]
    fn no_text_makes_the_parser_panic(parameters in values(), any_text in any::<String>()) {
        let world = numbers();
        for parameters in [parameters, json!(any_text), json!(format!("${{{any_text}}}"))] {
            match world.template(parameters.clone()) {
                Ok(template) => {
                    prop_assert_eq!(&**template.parameters(), &parameters);
                    for reference in template.references() {
                        let whole = reference.text().starts_with("${") && reference.text().ends_with('}');
                        prop_assert!(whole, "cut off: {}", reference.text());
                        let text = parameters.pointer(reference.pointer()).unwrap();
                        prop_assert!(text.as_str().unwrap().contains(reference.text()));
                    }
                    let _ = template.render(&world);
                }
                Err(errors) => {
                    prop_assert!(!errors.is_empty());
                    for error in errors {
                        prop_assert!(parameters.pointer(&error.pointer).is_some());
                    }
                }
            }
        }
    }

    /// What is written as a reference never reaches a provider; all around it does, unchanged.
    #[test]
    fn no_reference_is_left_in_the_output(parts in rendered_parts()) {
        let (text, expected): (String, String) = parts.into_iter().unzip();
        let rendered = numbers().render(text.clone()).unwrap();
        if has_reference(&text) && text.starts_with("${") && text.ends_with('}') {
            // It may be a single reference, which keeps its type.
            prop_assert_eq!(as_text(&rendered), expected);
        } else {
            prop_assert_eq!(&rendered, &json!(expected));
        }
        prop_assert!(!has_reference(&as_text(&rendered)), "left over in {rendered}");
    }

    /// Any text can be written literally.
    #[test]
    fn escaping_is_undone_by_rendering(value in values()) {
        let template = Template::parse(Arc::new(escaped(&value))).unwrap();
        prop_assert_eq!(template.references().count(), 0);
        prop_assert_eq!(&*template.render(&numbers()).unwrap(), &value);
    }

    /// Most tasks have no references, and their parameters are shared, never copied.
    #[test]
    fn a_tree_without_references_is_passed_on_as_it_is(value in values()) {
        let tree = Arc::new(without_dollars(value));
        let template = Template::parse(Arc::clone(&tree)).unwrap();
        prop_assert!(template.is_literal());
        prop_assert!(Arc::ptr_eq(&template.render(&numbers()).unwrap(), &tree));
    }

    /// A whole reference keeps the type; text out of a result is never expanded again.
    #[test]
    fn a_value_arrives_as_it_left(value in values()) {
        let world = world(json!({"v": value.clone(), "w": "second"}));
        prop_assert_eq!(&world.render("${numbers.v}").unwrap(), &value);
        prop_assert_eq!(
            world.render(json!({"a": ["${numbers.v}", "<${numbers.v}${numbers.w}>"]})).unwrap(),
            json!({"a": [value.clone(), format!("<{}second>", as_text(&value))]})
        );
    }

    /// Every key can be reached by quoting it.
    #[test]
    fn any_key_can_be_quoted(key in near_references()) {
        let mut object = Map::new();
        object.insert(key.clone(), json!(42));
        let world = world(Value::Object(object));
        let double = format!("${{numbers[{}]}}", json!(key));
        prop_assert_eq!(world.render(double).unwrap(), 42);
        let single = key.replace('\\', "\\\\").replace('\'', "\\'");
        prop_assert_eq!(world.render(format!("${{numbers['{single}']}}")).unwrap(), 42);
    }

    /// Every JSON value can stand as a fallback, if it holds no reference.
    #[test]
    fn any_json_can_be_a_fallback(value in values()) {
        let text = value.to_string();
        let template = numbers().template(json!(format!("${{numbers.x:-{text}}}")));
        if text.contains("${") {
            prop_assert_eq!(&template.unwrap_err()[0].fault, &ReferenceFault::NestedFallback);
        } else {
            prop_assert_eq!(&*template.unwrap().render(&numbers()).unwrap(), &value);
        }
    }
}
