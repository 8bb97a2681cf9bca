//! Conditions and switches at the command line: the examples, and what is refused with its place.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::Scratch;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn statuses(ran: &Value) -> Vec<(&str, &str)> {
    let tasks = ran["tasks"].as_object().unwrap();
    tasks.iter().map(|(id, task)| (id.as_str(), task["status"].as_str().unwrap())).collect()
}

/// A task that is left out is no failure, and says which condition left it out.
#[test]
fn a_condition_of_a_file_leaves_a_task_out() {
    let scratch = Scratch::new();
    let file = example("conditions.yaml");
    let full = scratch.json(&["run", &file, "--json"]).success();
    let expected = [("sort", "completed"), ("say", "completed"), ("alarm", "skipped")];
    assert_eq!(statuses(&full), expected);
    assert_eq!(full["tasks"]["say"]["result"]["text"], "sorted");
    let dry = scratch.json(&["run", &file, "--input", "mode=dry", "--json"]).success();
    assert_eq!(dry["status"], "completed");
    assert_eq!(dry["tasks"]["say"]["result"]["text"], "nothing to sort");
    let error = &dry["tasks"]["sort"]["error"];
    assert_eq!(
        (&error["name"], &error["data"]["because"]),
        (&json!("TASK_SKIPPED"), &json!("sort"))
    );
    let id = dry["id"].as_str().unwrap_or_else(|| dry["workflow_id"].as_str().unwrap());
    let shown = scratch.run(&["show", id]).stdout;
    assert!(shown.contains("does not hold"), "{shown}");
    let events = scratch.run(&["events", id]).stdout;
    assert!(events.contains("task:skipped"), "{events}");
}

/// One branch runs, and the value takes what it gave.
#[test]
fn a_switch_of_a_file_runs_one_branch() {
    let scratch = Scratch::new();
    let file = example("switch.yaml");
    for (kind, route, text) in [("image", "image", "an image"), ("text", "short", "a text")] {
        let input = format!("kind={kind}");
        let ran = scratch.json(&["run", &file, "--input", &input, "--json"]).success();
        assert_eq!(ran["tasks"]["route"]["result"], json!({"to": route}));
        assert_eq!(ran["tasks"]["join"]["result"], text);
    }
    let drawn = scratch.run(&["graph", &file]).stdout;
    assert!(drawn.contains("|\"image\"|") && drawn.contains("|\"long, short\"|"), "{drawn}");
}

/// Whatever can be known before anything runs is refused, with its place.
#[test]
fn wrong_conditions_are_refused_at_their_place() {
    let scratch = Scratch::new();
    let cases = [
        ("when: b > 1", "there is no task and no value `b`"),
        ("when: 1 + 1", "a condition is true or false, and this is an int"),
        ("when: inputs.x == 1", "there is no key `x`"),
        ("when: size(1) > 0", "`size` needs a text, a list or an object"),
        ("when: a = 1", "`=` is not an operator"),
        ("when: \"'a' > 1\"", "`>` does not take a text and an int"),
        ("in: a.left", "task `a` is no switch"),
        ("value: a.text", "a task has one of method, value, not several"),
    ];
    for (line, message) in cases {
        let tasks =
            "  - {id: a, method: echo/echo, params: {text: x}}\n  - id: t\n    method: echo/echo";
        let file = scratch.file("w.yaml", &format!("name: w\ntasks:\n{tasks}\n    {line}\n"));
        let out = scratch.run(&["check", &file]);
        let all = format!("{}{}", out.stdout, out.stderr);
        assert_eq!(out.status, 2, "{line}: {all}");
        assert!(all.contains(message), "{line}: {all}");
        assert!(all.contains("w.yaml:6:"), "{line}: {all}");
    }
}

/// What conditions left out is no contradiction: a check finds nothing, and another database takes it.
#[test]
fn a_database_with_skipped_tasks_is_sound() {
    let scratch = Scratch::new();
    let url = |name: &str| format!("sqlite:{}", scratch.path(name).display());
    let (store, other) = (url("a.db"), url("b.db"));
    let values =
        "name: values\ntasks:\n  - {id: a, value: 1 + 1}\n  - {id: b, when: a > 5, value: a}\n";
    let values = scratch.file("values.yaml", values);
    for file in [example("conditions.yaml"), example("switch.yaml"), values] {
        let ran = scratch.json(&["run", &file, "--store", &store, "--json"]).success();
        assert_eq!(ran["status"], "completed", "{ran}");
    }
    let lines = scratch.path("all.jsonl").display().to_string();
    for (command, store) in [
        (&["db", "check"][..], &store),
        (&["db", "export", &lines], &store),
        (&["db", "import", &lines], &other),
        (&["db", "check"], &other),
    ] {
        let arguments = [command, &["--store", store]].concat();
        let out = scratch.run(&arguments);
        assert_eq!(out.status, 0, "{command:?}: {}{}", out.stdout, out.stderr);
    }
}

/// A value that was made of an input is not made again, so the input cannot change.
#[test]
fn a_retry_keeps_the_inputs_of_values() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\nid: kept\ninputs: {n: 1}\ntasks:\n  - {id: a, value: inputs.n + 1}\n  - {id: b, \
         method: echo/fail, params: {message: no}, retry: {max_attempts: 1}}\n",
    );
    scratch.json(&["run", &file, "--json"]).status(1);
    let refused = scratch.json(&["retry", "kept", "--input", "n=2", "--json"]).status(2);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("task `a` completed with the old one"), "{message}");
}
