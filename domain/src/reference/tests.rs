//! What references promise: the table of the format row by row, and what a mistake is reported as.
//! Claims about any text are in `properties`.

mod properties;

use serde_json::{Map, json};

use super::*;
use crate::{
    error::{ErrorCode, TaskError},
    id::ProviderId,
    task::TaskStatus,
};

struct World {
    names: Vec<&'static str>,
    results: Vec<Option<Value>>,
    error: TaskError,
    provider: ProviderId,
    inputs: Map<String, Value>,
}

/// Its task `broken` failed; its task `numbers` is what most tests read.
fn world(numbers: Value) -> World {
    let reply = json!({"response": "Hello", "model": "llama", "tokens": {"total": 7}});
    let python = json!({"result": {"a": 1}, "stdout": "1\n", "output": "1\n"});
    let Value::Object(inputs) = json!({"city": "Berlin", "rooms": [{"no": 4}], "none": null})
    else {
        unreachable!()
    };
    World {
        names: vec!["numbers", "ask", "py", "broken", "Make numbers", "v1.2 data", "inputs", "a"],
        results: vec![
            Some(numbers),
            Some(reply),
            Some(python),
            None,
            Some(json!({"x": "spaced"})),
            Some(json!({"x": "dotted"})),
            Some(json!({"city": "of the task"})),
            Some(json!({"b": "of a"})),
        ],
        error: TaskError::failed("boom").with_data(json!({"line": 3})),
        provider: ProviderId::from("python-1"),
        inputs,
    }
}

impl Scope for World {
    fn task(&self, index: u32) -> Option<TaskView<'_>> {
        let result = self.results.get(index as usize)?.as_ref();
        Some(TaskView {
            status: if result.is_some() { TaskStatus::Completed } else { TaskStatus::Failed },
            result,
            error: result.is_none().then_some(&self.error),
            duration: result.map(|_| 1.5),
            provider_id: Some(&self.provider),
        })
    }

    fn inputs(&self) -> &Map<String, Value> {
        &self.inputs
    }

    fn workflow_id(&self) -> &'static str {
        "w-1"
    }

    fn workflow_name(&self) -> &'static str {
        "report"
    }

    fn env(&self, name: &str) -> EnvValue<'_> {
        match name {
            "HOME" => EnvValue::Set("/home/me"),
            "UNSET" => EnvValue::Unset,
            _ => EnvValue::NotListed,
        }
    }
}

impl World {
    fn template(&self, parameters: Value) -> Result<Template, Vec<ReferenceError>> {
        let mut template = Template::parse(Arc::new(parameters))?;
        let mut find = |name: &str| {
            let at = self.names.iter().position(|known| *known == name)?;
            Some(u32::try_from(at).unwrap())
        };
        template.bind(&mut find, || self.names.iter().copied())?;
        Ok(template)
    }

    fn render(&self, parameters: impl Into<Value>) -> Result<Value, RenderError> {
        let template = self.template(parameters.into()).unwrap();
        Ok(template.render(self)?.as_ref().clone())
    }
}

fn numbers() -> World {
    world(json!({
        "values": [3, 1, 2], "items": [{"name": "first"}], "odd key": {"in.side": true},
        "$": "money", "status": "a key", "none": null, "text": "plain", "0": "zero", "half": 0.5,
    }))
}

/// One row: what is written, and what it stands for.
macro_rules! rows {
    ($($text:expr => $value:tt,)*) => {{
        let world = numbers();
        $(assert_eq!(world.render($text).unwrap(), json!($value), "{}", $text);)*
    }};
}

/// The table of the format: a part of a result, by every way to write a path.
#[test]
fn paths_lead_into_results() {
    rows! {
        "${numbers.values}" => [3, 1, 2],
        "${numbers.values[1]}" => 1,
        "${numbers.values.1}" => 1,
        "${numbers.items[0].name}" => "first",
        "${numbers.items.0.name}" => "first",
        "${numbers[\"odd key\"]}" => {"in.side": true},
        "${numbers[\"odd key\"][\"in.side\"]}" => true,
        "${numbers['odd key']['in.side']}" => true,
        "${numbers.odd key}" => {"in.side": true},
        "${numbers[\"\\u0024\"]}" => "money",
        "${numbers.0}" => "zero",
        "${numbers[0]}" => "zero",
        "${ numbers.text }" => "plain",
        "${\n  numbers.text\n}" => "plain",
        "${a}" => {"b": "of a"},
    }
}

/// A whole reference keeps its type; inside text all becomes text, and strings get no quotes.
#[test]
fn text_around_a_reference_makes_it_text() {
    rows! {
        "${numbers.none}" => null,
        "${numbers.half}" => 0.5,
        "${numbers.values} " => "[3,1,2] ",
        "Sort ${numbers.values}, ${numbers.text}!" => "Sort [3,1,2], plain!",
        "${numbers.values[0]}${numbers.values[1]}" => "31",
        "${numbers.odd key}/${numbers.none}" => "{\"in.side\":true}/null",
        "é${numbers.text}ü" => "éplainü",
    }
}

/// `result` may be written or left out, and names the key where there is one.
#[test]
fn the_segment_result_is_optional() {
    rows! {
        "${numbers.result.values[0]}" => 3,
        "${a.result}" => {"b": "of a"},
        "${py.result}" => {"a": 1},
        "${py.result.a}" => 1,
        "${py.output}" => "1\n",
        "${numbers[\"result\"]:-none}" => "none",
    }
}

/// Older files say `content`, newer ones `response`; both mean the reply of the model.
#[test]
fn the_reply_has_two_names() {
    rows! {
        "${ask.response}" => "Hello",
        "${ask.content}" => "Hello",
        "${ask.result.content}" => "Hello",
        "${ask.tokens.total}" => 7,
        "${numbers.content:-none}" => "none",
        "${numbers.text.content:-none}" => "none",
    }
    let own = world(json!({"content": "mine", "response": "other"}));
    assert_eq!(own.render("${numbers.content}").unwrap(), "mine");
}

/// Metadata cannot be confused with keys of a result, and tells of failed tasks too.
#[test]
fn metadata_stands_behind_a_dollar() {
    rows! {
        "${numbers.$.status}" => "completed",
        "${numbers.status}" => "a key",
        "${numbers[\"$\"]}" => "money",
        "${numbers.$.duration}" => 1.5,
        "${numbers.$.provider_id}" => "python-1",
        "${numbers.$.error}" => null,
        "${numbers.$.error:-no error}" => "no error",
        "${numbers.$.error.message:-no error}" => "no error",
        "${broken.$.status}" => "failed",
        "${broken.$.error.message}" => "boom",
        "${broken.$.error.data.line}" => 3,
        "${broken.$.error.name}" => "TASK_EXECUTION_FAILED",
        "${broken.$.duration}" => null,
    }
}

/// What a workflow brings along itself.
#[test]
fn inputs_workflow_and_environment_are_fixed_names() {
    rows! {
        "${inputs.city}" => "Berlin",
        "${inputs.rooms[0].no}" => 4,
        "${inputs}" => {"city": "Berlin", "rooms": [{"no": 4}], "none": null},
        "${inputs.none:-1}" => 1,
        "${workflow.id}" => "w-1",
        "${workflow.name}" => "report",
        "${env.HOME}/x" => "/home/me/x",
        "${env.UNSET:-y}" => "y",
        "${[\"inputs\"].city}" => "of the task",
    }
}

/// Names hold spaces and dots, so the longest known name is the task.
#[test]
fn the_longest_known_name_is_the_task() {
    rows! {
        "${Make numbers.x}" => "spaced",
        "${v1.2 data.x}" => "dotted",
        "${['v1.2 data'].x}" => "dotted",
        "${a.b}" => "of a",
    }
    let mut world = numbers();
    world.names.push("a.b");
    world.results.push(Some(json!("of a.b")));
    assert_eq!(world.render("${a.b}").unwrap(), "of a.b");
    assert_eq!(world.render("${a[\"b\"]}").unwrap(), "of a");
}

/// A fallback is JSON where it reads as JSON, else text, to the brace that closes the reference.
#[test]
fn fallbacks_are_json_or_text() {
    rows! {
        "${numbers.x:-fallback}" => "fallback",
        "${numbers.x:-}" => "",
        "${numbers.x:-  spaced }" => "  spaced ",
        "${numbers.x:-5}" => 5,
        "${numbers.x:- [1, {\"a\": \"}\"}] }" => [1, {"a": "}"}],
        "${numbers.x:-{\"a\": {}}}" => {"a": {}},
        "${numbers.x:-{not json}}!" => "{not json}!",
        "${numbers.x:-true}" => true,
        "${numbers.x:-true story}" => "true story",
        "${numbers.x:-\"5\"}" => "5",
        "${numbers.x:-null}" => null,
        "${numbers.none:-5}" => 5,
        "${numbers.text:-5}" => "plain",
        "${broken:-lost}" => "lost",
        "${broken.a.b:-lost}" => "lost",
        "${numbers.values[9]:-[]}" => [],
        "${numbers.text.deep:-0}" => 0,
        "${numbers[\"x:-y\"]:-z}" => "z",
    }
}

/// `$$` before a brace takes the meaning away from it, and from nothing else.
#[test]
fn an_escape_is_the_literal_text() {
    rows! {
        "$${x}" => "${x}",
        "$$${x}" => "$${x}",
        "a $${b} ${numbers.text} $${" => "a ${b} plain ${",
        "$${${numbers.text}}" => "${plain}",
        "5 $ and $$ and {}" => "5 $ and $$ and {}",
    }
    let template = Template::parse(Arc::new(json!("$${x}"))).unwrap();
    assert!(!template.is_literal() && template.references().next().is_none());
}

/// Only string values are rendered, at any depth; all else of the tree stays.
#[test]
fn a_tree_is_filled_in_at_any_depth_and_keys_stay() {
    let parameters = json!({
        "${numbers.text}": 1,
        "list": [1, "${numbers.values}", {"deep": ["x", "${inputs.city}"]}, "$${a}"],
        "plain": {"a": [true, null]},
        "z": "${numbers.text}",
    });
    let expected = json!({
        "${numbers.text}": 1,
        "list": [1, [3, 1, 2], {"deep": ["x", "Berlin"]}, "${a}"],
        "plain": {"a": [true, null]},
        "z": "plain",
    });
    assert_eq!(numbers().render(parameters).unwrap(), expected);
}

/// Validation and the resolver read these.
#[test]
fn references_report_their_pointer_and_their_needs() {
    let parameters =
        json!({"a/b": ["${numbers.result.values[0]}", "${ask.content} ${inputs.x:-1}"]});
    let template = numbers().template(parameters).unwrap();
    let reported: Vec<_> = template
        .references()
        .map(|it| (it.pointer(), it.text(), it.root(), it.fallback()))
        .collect();
    let one = json!(1);
    assert_eq!(
        reported,
        [
            ("/a~1b/0", "${numbers.result.values[0]}", Root::Result(0), None),
            ("/a~1b/1", "${ask.content}", Root::Result(1), None),
            ("/a~1b/1", "${inputs.x:-1}", Root::Inputs, Some(&one)),
        ]
    );
    assert_eq!(template.tasks().collect::<Vec<_>>(), [0, 1]);
    let [values, reply, input] = template.references().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(values.path_keys(|_| false), ["values", "0"]);
    assert_eq!(values.path_keys(|key| key == "result"), ["result", "values", "0"]);
    assert_eq!(reply.path_keys(|key| key == "response"), ["response"]);
    assert_eq!(reply.path_keys(|_| true), ["content"]);
    assert_eq!(reply.path_keys(|_| false), ["content"]);
    assert_eq!(input.path_keys(|_| false), ["x"]);
    let home = numbers().template(json!("${env.HOME}")).unwrap();
    assert_eq!(home.references().next().unwrap().env_name(), Some("HOME"));
}

/// Each way to write a reference wrongly is reported as what it is.
#[test]
fn malformed_references_are_distinguished() {
    use ReferenceFault as Fault;
    let faults = [
        ("${", Fault::Unclosed),
        ("${numbers", Fault::Unclosed),
        ("${numbers.", Fault::Unclosed),
        ("${numbers[", Fault::Unclosed),
        ("${numbers[\"a", Fault::Unclosed),
        ("${numbers[0", Fault::Unclosed),
        ("${numbers:-{}", Fault::Unclosed),
        ("${}", Fault::Empty),
        ("${ :-x}", Fault::Empty),
        ("${.a}", Fault::EmptySegment),
        ("${a..b}", Fault::EmptySegment),
        ("${a.}", Fault::EmptySegment),
        ("${a.[0]}", Fault::EmptySegment),
        ("${[0].a}", Fault::NoName),
        ("${a[]}", Fault::Bracket),
        ("${a[-1]}", Fault::Bracket),
        ("${a[b]}", Fault::Bracket),
        ("${a[99999999999999999999]}", Fault::Bracket),
        ("${a[\"b\"}", Fault::Bracket),
        ("${a['\\n']}", Fault::Bracket),
        ("${a[\"\\x\"]}", Fault::Bracket),
        ("${a{b}", Fault::Unexpected { found: '{' }),
        ("${a[0]b}", Fault::Unexpected { found: 'b' }),
        ("${a]}", Fault::Unexpected { found: ']' }),
        ("${a\nb}", Fault::Unexpected { found: 'b' }),
        ("${a.b:-${c}}", Fault::NestedFallback),
        ("${a.b:-{ ${c", Fault::NestedFallback),
        ("${env}", Fault::Env),
        ("${env.A.B}", Fault::Env),
        ("${workflow}", Fault::Workflow),
        ("${workflow.tasks}", Fault::Workflow),
        ("${workflow.id.x}", Fault::Workflow),
        ("${a.$}", Fault::Metadata),
        ("${a.$.result}", Fault::Metadata),
        ("${a.$.status.x}", Fault::Metadata),
    ];
    for (text, fault) in faults {
        let errors = numbers().template(json!([text])).unwrap_err();
        assert_eq!(errors.len(), 1, "{text}");
        assert_eq!((&*errors[0].pointer, &errors[0].fault), ("/0", &fault), "{text}");
    }
}

/// A file with three mistakes is corrected once, not three times.
#[test]
fn all_malformed_references_are_reported_at_once() {
    let errors = numbers()
        .template(json!({"a": "${} and ${x..y} and ${numbers}", "b": ["ok", {"c": "${env}"}]}))
        .unwrap_err();
    let reported: Vec<_> = errors.iter().map(|it| (&*it.pointer, &*it.text)).collect();
    assert_eq!(reported, [("/a", "${}"), ("/a", "${x..y}"), ("/b/1/c", "${env}")]);
    let errors = numbers().template(json!(["${nope}", "${numbrs.x}", "${a}"])).unwrap_err();
    assert_eq!(errors.len(), 2);
    let problem = errors[1].to_problem("/tasks/3/parameters");
    assert_eq!(
        (&*problem.pointer, problem.code),
        ("/tasks/3/parameters/1", ErrorCode::TaskNotFound)
    );
    assert_eq!(problem.message, "`${numbrs.x}`: the workflow has no task `numbrs`");
    assert!(problem.help.unwrap().contains("did you mean `numbers`?"));
    let long = format!("${{{}", "é".repeat(500));
    assert_eq!(numbers().template(json!(long)).unwrap_err()[0].text.chars().count(), 81);
}

/// A result of Python that is text although a part of it is wanted says why it is.
#[test]
fn a_text_of_python_says_why_it_is_one() {
    for (kind, why) in [("stdout", "the code left no value"), ("repr", "by `result_type`")] {
        let printed = world(json!({"result": "{'x': 1}", "result_type": kind}));
        let reported = printed.render("${numbers.result.x}").unwrap_err().to_string();
        assert!(reported.contains("it is a string: ") && reported.contains(why), "{reported}");
    }
    let text = world(json!({"result": "plain", "result_type": "json"}));
    let reported = text.render("${numbers.result.x}").unwrap_err().to_string();
    assert!(reported.ends_with("it is a string"), "{reported}");
}

/// The person needs the reference, its place, the part that is missing and what there is.
#[test]
fn a_missing_value_is_reported_with_what_exists() {
    let reported = |text: &str| numbers().render(json!({"p": text})).unwrap_err().to_string();
    let cases = [
        (
            "${py.resul.a}",
            "`${py.resul.a}` in /p has no value: `py` has no `resul`; it has result, stdout, output",
        ),
        (
            "${numbers.values[7]}",
            "`${numbers.values[7]}` in /p has no value: `numbers.values` has no `7`; it is a list of 3, indexed from 0",
        ),
        (
            "x ${numbers.text.y}",
            "`${numbers.text.y}` in /p has no value: `numbers.text` has no `y`; it is a string",
        ),
        (
            "${numbers.values.x}",
            "`${numbers.values.x}` in /p has no value: `numbers.values` has no `x`; it is a list of 3, indexed from 0",
        ),
        (
            "${inputs.town}",
            "`${inputs.town}` in /p has no value: `inputs` has no `town`; it has city, rooms, none",
        ),
        (
            "${broken.a}",
            "`${broken.a}` in /p has no value: task `broken` is failed and has no result; add a fallback: `${broken:-…}`",
        ),
        (
            "${env.SECRET:-x}",
            "`${env.SECRET:-x}` in /p has no value: variable `SECRET` is not on the settings' list of readable variables",
        ),
        (
            "${env.UNSET}",
            "`${env.UNSET}` in /p has no value: variable `UNSET` is not set in the environment of the runtime",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(reported(text), message);
    }
    let error: TaskError = numbers().render("${py.resul}").unwrap_err().into();
    assert_eq!(error.code, ErrorCode::TaskParameterError);
    assert!(!error.is_retryable());
    let data = error.data.unwrap();
    assert_eq!(data["missing"], "resul");
    assert_eq!(data["keys"], json!(["result", "stdout", "output"]));
}

/// A wide result does not make an error of a megabyte.
#[test]
fn the_keys_of_a_wide_result_are_listed_in_part() {
    let wide = (0..100).map(|at| (format!("k{at:03}"), json!(at))).collect();
    let error = world(Value::Object(wide)).render("${numbers.x}").unwrap_err();
    assert!(error.to_string().ends_with("k018, k019 and 80 more"), "{error}");
}

/// A template that was never bound is a defect, and must not pass its text on.
#[test]
fn an_unbound_template_does_not_render() {
    let template = Template::parse(Arc::new(json!("${numbers:-x}"))).unwrap();
    assert_eq!(template.tasks().count(), 0);
    let error = template.render(&numbers()).unwrap_err();
    assert_eq!(*error.fault, RenderFault::Unbound);
}

/// A file from a stranger may be full of them; each must be read a few times at most. The count
/// of errors shows that all were, and a reader that starts over for each would not come to an end.
#[test]
fn a_text_full_of_open_fallbacks_is_read_in_one_pass() {
    let count = 50_000;
    for unit in ["${a:-{ } ", "${a:-[\"} ", "${a[\"} ", "${a:-\"\\\"} "] {
        let read = Template::parse(Arc::new(json!(unit.repeat(count))));
        let found = read.map_or_else(|errors| errors.len(), |it| it.references().count());
        assert!(found >= count / 2, "{unit}: {found}");
    }
}
