use std::{iter, sync::Arc};

use serde_json::json;

use super::*;
use crate::protocol::{OneOrMany, ParameterType, builtin};

fn messages(spec: &ParameterSpec, value: &Value) -> Vec<String> {
    let validator = Validator::compile(spec).unwrap();
    validator.check(value).iter().map(ToString::to_string).collect()
}

fn rules(violations: &[Violation]) -> Vec<(&str, Rule)> {
    violations.iter().map(|wrong| (wrong.pointer.as_str(), wrong.rule)).collect()
}

fn refused(spec: &ParameterSpec) -> Vec<String> {
    let errors = Validator::compile(spec).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn greet() -> ParamsValidator {
    let method = MethodSpec::new("greet")
        .param("name", ParameterSpec::string().min_length(1).describe("Who is greeted"))
        .param("times", ParameterSpec::integer().minimum(1).maximum(3).default_value(1))
        .param("tone", ParameterSpec::string().one_of(["warm", "cold"]).optional());
    ParamsValidator::compile(&method).unwrap()
}

/// Messages say what was found and what was expected, in that many words.
#[test]
fn messages_name_the_value_and_the_rule() {
    let number = ParameterSpec::integer().minimum(1).maximum(3_600);
    assert_eq!(messages(&number, &json!(99_999)), ["99999 is greater than the maximum of 3600"]);
    assert_eq!(messages(&number, &json!(-1)), ["-1 is less than the minimum of 1"]);
    assert_eq!(messages(&number, &json!("x")), [r#"expected integer, found "x""#]);
    assert_eq!(messages(&number, &json!(1.5)), ["expected integer, found 1.5"]);
    assert_eq!(messages(&number, &json!([1, 2])), ["expected integer, found an array of 2 items"]);
    assert_eq!(messages(&number, &json!({})), ["expected integer, found an object with 0 fields"]);
    let text = ParameterSpec::string().min_length(1).max_length(2).pattern("^[a-z]*$");
    assert_eq!(messages(&text, &json!("")), [r#""" is shorter than 1 character"#]);
    assert_eq!(
        messages(&text, &json!("ABC")),
        [
            r#""ABC" has 3 characters, more than 2 characters"#,
            r#""ABC" does not match the pattern `^[a-z]*$`"#
        ]
    );
    let list = ParameterSpec::array(ParameterSpec::any()).min_length(2).max_length(3);
    assert_eq!(messages(&list, &json!([1])), ["1 item given, at least 2 expected"]);
    assert_eq!(messages(&list, &json!([1, 2, 3, 4])), ["4 items given, at most 3 expected"]);
    let role = ParameterSpec::string().one_of(["system", "user"]);
    assert_eq!(
        messages(&role, &json!("usr")),
        [r#""usr" is none of "system", "user"; did you mean "user"?"#]
    );
}

/// A text of megabytes in an error would fill logs and terminals.
#[test]
fn long_values_are_printed_shortened() {
    let message = messages(&ParameterSpec::integer(), &json!("ü".repeat(10_000))).remove(0);
    assert!(message.chars().count() < 120, "{message}");
    assert!(message.ends_with("ü…\""), "{message}");
}

/// One round trip to the author for all mistakes, each with its place.
#[test]
fn all_violations_are_reported_at_once() {
    let catalog = crate::protocol::catalog::ProtocolCatalog::builtin();
    let chat = catalog.resolve(None, "llm/chat").unwrap();
    let params = json!({
        "messages": [{"role": "usr", "content": ""}, {"role": "user"}, 3],
        "temperature": 2.5,
        "max_token": 10,
    });
    let violations = chat.params.validate(&Arc::new(params)).unwrap_err();
    assert_eq!(
        rules(&violations),
        [
            ("/messages/0/role", Rule::Enum),
            ("/messages/0/content", Rule::MinLength),
            ("/messages/1/content", Rule::Required),
            ("/messages/2", Rule::Type),
            ("/temperature", Rule::Maximum),
            ("/max_token", Rule::AdditionalProperties),
        ]
    );
    assert_eq!(violations[5].message, "unknown parameter `max_token`; did you mean `max_tokens`?");
}

/// Ten thousand wrong items must not become ten thousand messages.
#[test]
fn violations_are_bounded() {
    let spec = ParameterSpec::array(ParameterSpec::string());
    let many: Value = iter::repeat_n(json!(1), 10 * VIOLATIONS_MAX).collect();
    assert_eq!(messages(&spec, &many).len(), VIOLATIONS_MAX);
}

/// A pointer is RFC 6901, whatever the keys are made of.
#[test]
fn pointers_escape_keys() {
    let spec = ParameterSpec::object([("a/b~c", ParameterSpec::array(ParameterSpec::string()))]);
    let value = json!({"a/b~c": ["x", 1]});
    let violations = Validator::compile(&spec).unwrap().check(&value);
    assert_eq!(violations[0].pointer, "/a~1b~0c/1");
    assert_eq!(value.pointer(&violations[0].pointer), Some(&json!(1)));
}

/// Lengths are what a person counts, more or less: characters, not bytes.
#[test]
fn lengths_count_characters() {
    let four = ParameterSpec::string().min_length(4).max_length(4);
    for text in ["abcd", "äöüß", "🦀🦀🦀🦀"] {
        assert_eq!(messages(&four, &json!(text)), [""; 0], "{text}");
    }
    for text in ["äöü", "äöüßx", "🦀", "🦀🦀🦀🦀🦀"] {
        assert_eq!(messages(&four, &json!(text)).len(), 1, "{text}");
    }
}

/// JSON knows no integers, only numbers without a fraction; big ones are not rounded.
#[test]
fn integers_are_numbers_without_a_fraction() {
    let integer = ParameterSpec::integer();
    for value in [json!(1.0), json!(-3), json!(u64::MAX), json!(1e30)] {
        assert_eq!(messages(&integer, &value), [""; 0], "{value}");
    }
    assert_eq!(messages(&integer, &json!(0.5)).len(), 1);
    let bounded = ParameterSpec::integer().maximum(9_007_199_254_740_992_u64);
    assert_eq!(messages(&bounded, &json!(9_007_199_254_740_993_u64)).len(), 1);
    assert_eq!(messages(&bounded, &json!(9_007_199_254_740_992_u64)), [""; 0]);
}

/// `null` is allowed where the type says so; elsewhere the error names the remedy.
#[test]
fn null_is_a_value_of_its_own() {
    let maybe = ParameterSpec::union([ParameterType::String, ParameterType::Null]);
    assert_eq!(messages(&maybe, &Value::Null), [""; 0]);
    assert_eq!(messages(&maybe, &json!(1)), ["expected string or null, found 1"]);
    assert_eq!(messages(&ParameterSpec::any(), &Value::Null), [""; 0]);
    let violations = greet().validate(&Arc::new(json!({"name": "x", "times": null}))).unwrap_err();
    assert_eq!(rules(&violations), [("/times", Rule::Type)]);
    let message = "expected integer, found null; leave the parameter out instead";
    assert_eq!(violations[0].message, message);
    let params = greet().validate(&Arc::new(json!({"name": null}))).unwrap_err();
    assert_eq!(params[0].message, "expected string, found null");
}

/// Patterns are searched for, and speak of texts only.
#[test]
fn patterns_are_unanchored_and_for_texts() {
    let spec = ParameterSpec::union([ParameterType::String, ParameterType::Integer]).pattern("b");
    for fits in [json!("abc"), json!(7)] {
        assert_eq!(messages(&spec, &fits), [""; 0], "{fits}");
    }
    assert_eq!(messages(&spec, &json!("xyz")).len(), 1);
}

/// `1` and `1.0` are the same value in a list of allowed ones, at every depth.
#[test]
fn allowed_values_compare_by_value() {
    let spec = ParameterSpec::any().one_of([json!(1), json!({"n": [2.0]})]);
    for fits in [json!(1.0), json!({"n": [2]})] {
        assert_eq!(messages(&spec, &fits), [""; 0], "{fits}");
    }
    for wrong in [json!(true), json!("1"), json!({"n": [2], "m": 1})] {
        assert_eq!(messages(&spec, &wrong).len(), 1, "{wrong}");
    }
}

/// The hot path: nothing to fill means nothing to copy.
#[test]
fn complete_parameters_are_returned_themselves() {
    let params = Arc::new(json!({"name": "Ada", "times": 2}));
    assert!(Arc::ptr_eq(&greet().validate(&params).unwrap(), &params));
    let validator = Validator::compile(&ParameterSpec::string()).unwrap();
    let text = Arc::new(json!("x"));
    assert!(Arc::ptr_eq(&validator.fill(&text).unwrap(), &text));
}

/// Defaults are filled in everywhere: parameters, fields of fields, items, and in defaults.
#[test]
fn defaults_are_filled_at_every_depth() {
    let point = ParameterSpec::object([
        ("x", ParameterSpec::integer().default_value(0)),
        ("y", ParameterSpec::integer()),
    ]);
    let method = MethodSpec::new("draw")
        .param("points", ParameterSpec::array(point.clone()))
        .param("origin", point.default_value(json!({"y": 5})))
        .param("label", ParameterSpec::any().default_value(Value::Null));
    let params = ParamsValidator::compile(&method).unwrap();
    let filled =
        params.validate(&Arc::new(json!({"points": [{"y": 1}, {"x": 3, "y": 2}]}))).unwrap();
    assert_eq!(
        *filled,
        json!({
            "points": [{"x": 0, "y": 1}, {"x": 3, "y": 2}],
            "origin": {"x": 0, "y": 5},
            "label": null,
        })
    );
}

/// A default makes a parameter optional, also where `required` was left at its usual value.
#[test]
fn a_parameter_with_a_default_may_be_absent() {
    let spec: ParameterSpec =
        serde_json::from_value(json!({"type": "integer", "default": 3})).unwrap();
    assert!(spec.required);
    let params = ParamsValidator::compile(&MethodSpec::new("m").param("n", spec)).unwrap();
    assert_eq!(*params.validate(&Arc::new(Value::Null)).unwrap(), json!({"n": 3}));
}

/// A default that was filled in is told apart from the same value that was given.
#[test]
fn defaulted_parameters_are_listed() {
    let defaulted = |params: Value| greet().fill(&Arc::new(params)).unwrap().defaulted;
    let times: [Box<str>; 1] = ["times".into()];
    assert_eq!(*defaulted(json!({"name": "Ada"})), times);
    assert_eq!(*defaulted(json!({"name": "Ada", "times": 1})), []);
    assert_eq!(*defaulted(json!(["Ada"])), times);
    assert_eq!(*defaulted(json!(["Ada", 1])), []);
}

/// By position, in the order of declaration; what a provider gets is always by name.
#[test]
fn positions_become_names() {
    let fits = |params: Value| greet().validate(&Arc::new(params)).unwrap();
    assert_eq!(*fits(json!(["Ada"])), json!({"name": "Ada", "times": 1}));
    assert_eq!(
        *fits(json!(["Ada", 3, "warm"])),
        json!({"name": "Ada", "times": 3, "tone": "warm"})
    );
    let wrong = greet().validate(&Arc::new(json!(["", 9, "mild", 4, 5]))).unwrap_err();
    assert_eq!(
        rules(&wrong),
        [
            ("/0", Rule::MinLength),
            ("/1", Rule::Maximum),
            ("/2", Rule::Enum),
            ("/3", Rule::TooManyPositional),
        ]
    );
    assert_eq!(wrong[1].message, "parameter `times`: 9 is greater than the maximum of 3");
    assert_eq!(
        wrong[3].message,
        "5 parameters given by position, but only 3 declared; known are `name`, `times`, `tone`"
    );
    assert_eq!(
        rules(&greet().validate(&Arc::new(json!([]))).unwrap_err()),
        [("/0", Rule::Required)]
    );
}

/// No parameters are an empty object; a lone value is none at all.
#[test]
fn parameters_are_an_object_or_an_array() {
    let missing = greet().validate(&Arc::new(Value::Null)).unwrap_err();
    assert_eq!(
        missing[0].to_string(),
        "/name: the required parameter `name` is missing; expected string: Who is greeted"
    );
    for params in [json!("x"), json!(1), json!(true)] {
        let wrong = greet().validate(&Arc::new(params)).unwrap_err();
        assert_eq!(rules(&wrong), [("", Rule::Type)]);
    }
}

/// Before references are resolved, all but them is checked.
#[test]
fn open_texts_pass_and_all_else_is_checked() {
    let open = |text: &str| text.starts_with("${");
    let check = |params: Value| rules_of(&greet().check_open(&params, &open));
    assert_eq!(check(json!({"name": "${a}", "times": "${a.n}", "tone": "${a.t}"})), []);
    assert_eq!(
        check(json!({"times": "${a.n}", "tone": "mild", "tmes": "${b}"})),
        [
            ("/name".to_owned(), Rule::Required),
            ("/tone".to_owned(), Rule::Enum),
            ("/tmes".to_owned(), Rule::AdditionalProperties),
        ]
    );
    assert_eq!(check(json!(["${a}", 0])), [("/1".to_owned(), Rule::Minimum)]);
    assert_eq!(check(json!("${a}")), []);
    assert_eq!(check(json!("a")), [(String::new(), Rule::Type)]);
    let listed = ParameterSpec::any().one_of([json!({"k": [1, 2]})]);
    let method = MethodSpec::new("m").param("p", listed);
    let params = ParamsValidator::compile(&method).unwrap();
    assert_eq!(params.check_open(&json!({"p": {"k": [1, "${x}"]}}), &open), []);
    assert_eq!(params.check_open(&json!({"p": {"k": [3, "${x}"]}}), &open).len(), 1);
}

fn rules_of(violations: &[Violation]) -> Vec<(String, Rule)> {
    violations.iter().map(|wrong| (wrong.pointer.clone(), wrong.rule)).collect()
}

/// References are refused where the schema leaves no room for them, and nowhere else.
#[test]
fn paths_are_admitted_as_the_schema_allows() {
    let item = ParameterSpec::object([("name", ParameterSpec::string())]).closed();
    let spec = ParameterSpec::object([
        ("items", ParameterSpec::array(item).max_length(3)),
        ("open", ParameterSpec::new(ParameterType::Object)),
        ("any", ParameterSpec::any()),
        ("text", ParameterSpec::string()),
    ])
    .closed();
    let validator = Validator::compile(&spec).unwrap();
    for path in [&["items", "2", "name"][..], &["open", "x", "0"], &["any", "x"], &["text"], &[]] {
        assert_eq!(validator.admits(path), Ok(()), "{path:?}");
    }
    let all = || Err(["items", "open", "any", "text"].map(str::to_owned).to_vec());
    assert_eq!(validator.admits(&["txt"]), all());
    assert_eq!(validator.admits(&["0"]), all());
    assert_eq!(validator.admits(&["items", "3"]), Err(Vec::new()));
    assert_eq!(validator.admits(&["items", "first"]), Err(Vec::new()));
    assert_eq!(validator.admits(&["items", "0", "nme"]), Err(vec!["name".to_owned()]));
    assert_eq!(validator.admits(&["text", "length"]), Err(Vec::new()));
    let either = ParameterSpec::union([ParameterType::Array, ParameterType::Object]).closed();
    let either = Validator::compile(&either).unwrap();
    assert_eq!(either.admits(&["7"]), Ok(()));
    assert_eq!(either.admits(&["x"]), Err(Vec::new()));
}

/// What ships allows references to what providers add beyond the contract.
#[test]
fn results_of_built_in_methods_admit_more_keys() {
    let returns = builtin::python().methods["execute"].returns_schema.clone().unwrap();
    let validator = Validator::compile(&returns).unwrap();
    assert_eq!(validator.admits(&["result", "items", "0"]), Ok(()));
    assert_eq!(validator.admits(&["success"]), Ok(()));
    assert_eq!(validator.admits(&["stdout", "length"]), Err(Vec::new()));
}

/// Wrong schemas are refused whole: each mistake, with its place in the specification.
#[test]
fn wrong_schemas_are_rejected_with_their_pointer() {
    let spec = ParameterSpec::object([
        ("list", ParameterSpec::array(ParameterSpec::string().pattern("["))),
        ("bounds", ParameterSpec::number().minimum(2).maximum(1.5)),
        ("size", ParameterSpec::string().min_length(2).max_length(1)),
        ("none", ParameterSpec::any().one_of(Vec::<Value>::new())),
        ("never", ParameterSpec::string().one_of([json!("a"), json!(1)])),
        ("kind", ParameterSpec::union([])),
        ("place", ParameterSpec::boolean().minimum(1).pattern("x").closed()),
        ("", ParameterSpec::any()),
        ("low", ParameterSpec::integer().minimum(1).default_value(0)),
        ("deep", ParameterSpec::array(ParameterSpec::integer()).default_value(json!([1, "x"]))),
    ]);
    assert_eq!(
        refused(&spec),
        [
            "/properties/list/items/pattern: the pattern `[` is invalid: unclosed character class",
            "/properties/bounds/minimum: the minimum 2 is greater than the maximum 1.5",
            "/properties/size/min_length: 2 is greater than the max_length 1",
            "/properties/none/enum: the list is empty, so no value could ever fit",
            "/properties/never/enum/1: `1` is not string",
            "/properties/kind/type: the list of types is empty; `any` allows every value",
            "/properties/place/minimum: `minimum` is for integer or number, but the type is boolean",
            "/properties/place/pattern: `pattern` is for string, but the type is boolean",
            "/properties/place/additional_properties: `additional_properties` is for object, but \
             the type is boolean",
            "/properties/: the name is empty",
            "/properties/low/default: the default breaks its own schema: 0 is less than the \
             minimum of 1",
            "/properties/deep/default/1: the default breaks its own schema: expected integer, \
             found \"x\"",
        ]
    );
}

/// A pattern from a file must not take the registry's memory or stack with it.
#[test]
fn oversized_patterns_are_refused() {
    let huge = refused(&ParameterSpec::string().pattern(r"(\w{100}){100}"));
    assert!(huge[0].starts_with("/pattern: the pattern"), "{huge:?}");
    assert!(huge[0].ends_with("bytes"), "{huge:?}");
    let deep = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
    assert_eq!(refused(&ParameterSpec::string().pattern(deep)).len(), 1);
}

/// The names on the wire are part of the contract.
#[test]
fn violations_are_written_with_snake_case_rules() {
    let wrong = Violation {
        pointer: "/a".to_owned(),
        rule: Rule::AdditionalProperties,
        message: "no".to_owned(),
    };
    let text = json!({"pointer": "/a", "rule": "additional_properties", "message": "no"});
    assert_eq!(serde_json::to_value(&wrong).unwrap(), text);
    assert_eq!(serde_json::to_value(Rule::TooManyPositional).unwrap(), "too_many_positional");
}

/// Files write one type or several; a wrong name is reported, not swallowed.
#[test]
fn types_are_read_alone_or_in_a_list() {
    let read = |kind: Value| {
        serde_json::from_value::<ParameterSpec>(json!({"type": kind})).map(|spec| spec.kind)
    };
    assert_eq!(read(json!("string")).unwrap(), OneOrMany::One(ParameterType::String));
    let both = OneOrMany::Many(vec![ParameterType::Integer, ParameterType::Null]);
    assert_eq!(read(json!(["integer", "null"])).unwrap(), both);
    let complaint = read(json!("text")).unwrap_err().to_string();
    assert!(complaint.starts_with("unknown variant `text`, expected one of"), "{complaint}");
    assert!(read(json!(3)).unwrap_err().to_string().contains("a name or a list of names"));
}
