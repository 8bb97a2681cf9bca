//! Expressions, on values of this file; `tests/cel.rs` has the cases of CEL.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::protocol::ParameterSpec;

struct Place {
    inputs: Map<String, Value>,
    tasks: Vec<(&'static str, TaskStatus, Option<Value>)>,
}

impl Names for Place {
    fn is_local(&self, name: &str) -> bool {
        name == "inputs"
    }

    fn task(&self, name: &str) -> Option<u32> {
        self.tasks.iter().position(|it| it.0 == name).and_then(|at| u32::try_from(at).ok())
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let found = self.tasks.iter().find(|it| strsim::osa_distance(it.0, name) == 1);
        found.map(|it| it.0.to_owned())
    }
}

impl ValueScope for Place {
    fn name(&self, name: &str) -> Option<Named<'_>> {
        (name == "inputs").then_some(Named::Fields(&self.inputs))
    }

    fn task(&self, index: u32) -> Option<TaskValue<'_>> {
        let (_, status, result) = self.tasks.get(index as usize)?;
        Some(TaskValue { status: *status, result: result.as_ref(), error: None })
    }
}

fn place() -> Place {
    let inputs = json!({"mode": "dry", "limit": 3, "list": [1, 2, 3], "none": null, "two": 2.0});
    let Value::Object(inputs) = inputs else { unreachable!() };
    let tasks = vec![
        (
            "doc",
            TaskStatus::Completed,
            Some(json!({"text": "hello", "pages": [{"n": 1}, {"n": 2}]})),
        ),
        ("bad", TaskStatus::Failed, None),
        ("left", TaskStatus::Skipped, None),
        ("odd name", TaskStatus::Completed, Some(json!(7))),
    ];
    Place { inputs, tasks }
}

fn value(source: &str) -> Result<Value, String> {
    let place = place();
    let read = Expression::parse(source, &place).map_err(|error| error.message)?;
    read.evaluate(&place).map_err(|error| error.message)
}

/// What each form gives.
#[test]
fn forms_have_their_values() {
    let cases = [
        ("1 + 2 * 3", json!(7)),
        ("inputs.limit > 2 && inputs.mode != \"full\"", json!(true)),
        ("size(doc.text) + size(doc.pages)", json!(7)),
        ("doc.pages.map(p, p.n)", json!([1, 2])),
        ("doc.pages.filter(p, p.n > 1).size()", json!(1)),
        ("doc.pages[1].n", json!(2)),
        ("inputs.list.exists(x, x == inputs.limit)", json!(true)),
        ("tasks[\"odd name\"] - 7", json!(0)),
        ("failed(bad) && skipped(left) && completed(doc)", json!(true)),
        ("status(bad)", json!("failed")),
        ("coalesce(left.text, bad, doc.text)", json!("hello")),
        ("has(left.text) || has(doc.text)", json!(true)),
        ("inputs.none == null", json!(true)),
        ("inputs.two + 1", json!(3)),
        ("1 + 0.5", json!(1.5)),
        ("\"a,b\".split(\",\").join(\"-\") + \"!\"", json!("a-b!")),
        ("\"x\" in {\"x\": 1}", json!(true)),
        ("\"Bonn\".matches(\"^B\") ? \"yes\" : \"no\"", json!("yes")),
        ("true || bad.x", json!(true)),
        ("{\"a\": [1, 2.5]}", json!({"a": [1, 2.5]})),
    ];
    for (source, expected) in cases {
        assert_eq!(value(source), Ok(expected), "{source}");
    }
}

/// Each error says what it is about.
#[test]
fn errors_name_the_part_and_what_is_there() {
    let cases = [
        ("doc.txt", "`doc` has no key \"txt\"; it has text, pages"),
        ("bad.text", "task `bad` has no result: it is failed"),
        ("dog.text", "there is no task and no value `dog`; did you mean `doc`?"),
        ("doc.text + 1", "`doc.text + 1`: `+` does not take a text and an int"),
        ("1 / 0", "`1 / 0`: divide by zero"),
        ("9223372036854775807 + 1", "`9223372036854775807 + 1`: the int is out of range"),
        ("sise(doc)", "there is no function `sise`; did you mean `size`?"),
        ("doc.pages[9]", "`doc.pages` has 2 items, and none at 9"),
        ("a = 1", "`=` is not an operator; `==` compares"),
        ("1 +", "expected a value, and found the end of the expression"),
        ("inputs.mode.matches(inputs.mode)", "`matches` needs its pattern as a literal text"),
        ("status(inputs)", "this function asks for a task, by its id"),
        ("1u", "unsigned numbers are not supported; leave the `u` away"),
    ];
    for (source, expected) in cases {
        assert_eq!(value(source), Err(expected.to_owned()), "{source}");
    }
}

/// The strongest use of a task counts.
#[test]
fn a_task_is_used_as_strongly_as_anywhere() {
    let uses = |source| Expression::parse(source, &place()).unwrap().tasks().to_vec();
    assert_eq!(uses("failed(bad)"), [(1, Use::End)]);
    assert_eq!(uses("has(doc.text) && failed(doc)"), [(0, Use::After)]);
    assert_eq!(uses("coalesce(left.x, doc.text) == doc.text"), [(2, Use::After), (0, Use::Value)]);
    assert_eq!(uses("[1].map(doc, doc)"), []);
}

/// Whatever is over a limit is refused, or ends.
#[test]
fn limits_hold() {
    let long = format!("\"{}\"", "x".repeat(limits::SOURCE_MAX));
    let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    let many = vec!["1"; 600].join("+");
    let macros = "[1].map(a, [1].map(b, [1].map(c, 1)))";
    for source in [&*long, &deep, &many, macros] {
        assert!(Expression::parse(source, &place()).is_err(), "{}", &source[..40]);
    }
    let list = format!("[{}]", vec!["1"; 400].join(","));
    assert!(value(&format!("{list}.map(a, inputs.list.map(b, a + b))")).is_ok());
    let mut place = place();
    place.inputs.insert("large".into(), vec![json!(1); 20_000].into());
    place.inputs.insert("text".into(), "x".repeat(100_000).into());
    let fields = (0..20_000).map(|at| (format!("k{at}"), json!(1))).collect();
    place.inputs.insert("object".into(), Value::Object(fields));
    // Values that share what they are made of are as large as what they stand for.
    let doubled = format!("[1]{}", ".map(x, [x, x])".repeat(30));
    let texts = format!("[{}]", vec!["inputs.text"; 300].join(","));
    for source in [
        "inputs.large.exists(a, inputs.large.exists(b, a == b + 1))",
        "inputs.large.exists(x, x == inputs.large) || inputs.large.all(x, [inputs.large] == [inputs.large])",
        "inputs.large.all(x, inputs.object.exists(k, true))",
        "inputs.object == inputs.object && inputs.large.all(x, inputs.object == inputs.object)",
        &doubled,
        &format!("{doubled} == {doubled}"),
        &texts,
        "inputs.large.map(x, inputs.text.split(\"\"))",
        "inputs.large.map(x, inputs.text + inputs.text)",
    ] {
        let read = Expression::parse(source, &place).unwrap();
        let error = read.evaluate(&place).unwrap_err();
        assert!(error.message.contains("more than"), "{source}: {error}");
    }
}

impl TypeScope for BTreeMap<&'static str, ParameterSpec> {
    fn name(&self, name: &str) -> Type {
        self.get(name).map_or(Type::Any, Type::of)
    }

    fn task(&self, _: u32) -> Type {
        self.get("doc").map_or(Type::Any, Type::of)
    }
}

/// What can have no value is found before anything runs.
#[test]
fn schemas_rule_out_what_cannot_be() {
    let closed = ParameterSpec {
        additional_properties: false,
        ..ParameterSpec::object([
            ("text", ParameterSpec::string()),
            ("count", ParameterSpec::integer()),
        ])
    };
    let scope = BTreeMap::from([("doc", closed)]);
    let problems = |source: &str| -> Vec<String> {
        let read = Expression::parse(source, &place()).unwrap();
        read.check(&scope).1.into_iter().map(|it| it.message).collect()
    };
    assert_eq!(problems("doc.txt == 'a'"), ["there is no key `txt`; did you mean `text`?"]);
    assert_eq!(problems("doc.text > 3"), ["`>` does not take a text and an int"]);
    assert_eq!(problems("doc.count && true"), ["a condition is true or false, and this is an int"]);
    assert_eq!(problems("size(doc.count) > 1").len(), 1);
    assert_eq!(problems("doc.text.count"), ["this is a text, which has no key `count`"]);
    let types = |source| Expression::parse(source, &place()).unwrap().check(&scope).0;
    assert!(types("coalesce(doc.text)").may_be(&|it| *it == Type::Null), "it may be absent");
    assert_eq!(problems("1.5 % 2"), ["`%` needs ints"]);
    assert_eq!(problems("{1: 2}.all(k, k > 0)"), [""; 0]);
    for sound in ["doc.count > 2 && doc.text != 'x'", "doc.count + 0.5 > 1.0", "inputs.x == 1"] {
        assert_eq!(problems(sound), [""; 0], "{sound}");
    }
}

proptest! {
    /// No text makes the reader or the evaluation panic.
    #[test]
    fn any_text_is_read_or_refused(source in "[a-z0-9 .,()\\[\\]{}\"'+*/%<>=!&|?:-]{0,60}") {
        let place = place();
        if let Ok(read) = Expression::parse(&source, &place) {
            let _ = read.evaluate(&place);
            let _ = read.check(&BTreeMap::new());
        }
    }
}
