//! What `check` finds before anything runs, and what a submission refuses.

use serde_json::Value;

use crate::support::Scratch;

fn messages(answer: &Value) -> Vec<String> {
    let problems = answer["error"]["data"]["problems"].as_array().expect("a list");
    problems
        .iter()
        .map(|it| format!("{}: {}", it["line"], it["message"].as_str().expect("a text")))
        .collect()
}

/// What can be known on this machine is an error, each with its line; a sound file is valid.
#[test]
fn check_finds_what_can_be_known() {
    let scratch = Scratch::new();
    scratch.file("bad.py", "x = (\n");
    scratch.file("good.py", "x = '${not.a.reference}'\n");
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {code: 'if x'}}\n  - {id: b, \
         method: python/execute, params: {file: bad.py}}\n  - {id: c, method: python/execute, \
         params: {file: good.py}}\n  - {id: d, method: python/execute, params: {file: gone.py}}\n  \
         - {id: e, method: echo/echo, resources: {memory_mb: 900000000}}\n",
    );
    let found = messages(&scratch.json(&["check", &file, "--json"]).status(2));
    let [code, script, gone, memory] = found.as_slice() else { panic!("{found:?}") };
    assert!(code.starts_with("3: line 1 of the code: "), "{code}");
    assert!(script.starts_with("4: `bad.py`: line "), "{script}");
    assert!(gone.starts_with("6: `gone.py` is not there"), "{gone}");
    assert!(memory.starts_with("7: `memory_mb` is 900000000 MiB"), "{memory}");
}

/// What is probably not meant is a warning, and an error for whoever asks for that.
#[test]
fn check_warns_of_what_is_probably_not_meant() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ninputs: {city: Rome, dya: mon}\ntasks:\n  - {id: ask, method: llm/chat, params: \
         {messages: [{role: user, content: '${inputs.city}'}]}}\n  - id: use\n    method: \
         python/execute\n    params: {code: \"x = '${ask.respnse}'\"}\n",
    );
    let checked = scratch.json(&["check", &file, "--json"]).success();
    let warnings = checked["warnings"].as_array().unwrap();
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    for (part, help) in [
        ("input `dya` is read by no task", "leave it out"),
        ("is pasted into the code", "context"),
        ("probably has no value", "did you mean `response`?"),
    ] {
        let is_it = |text: &&String| text.contains(part) && text.contains(help);
        assert_eq!(texts.iter().filter(is_it).count(), 1, "{part}: {texts:?}");
    }
    assert!(warnings.iter().all(|it| it["severity"] == "warning"), "{texts:?}");
    let out = scratch.run(&["check", &file]);
    assert_eq!(out.status, 0, "{}", out.stderr);
    assert!(out.stdout.contains("valid") && out.stdout.contains("warnings: 3"), "{}", out.stdout);
    assert!(out.stderr.contains("warning[") && out.stderr.contains('^'), "{}", out.stderr);
    let strict = messages(&scratch.json(&["check", &file, "--strict", "--json"]).status(2));
    assert_eq!(strict.len(), 3, "{strict:?}");
}

/// A reference that can never have a value, and a choice that was not made, are refused before
/// anything runs, also by those who submit for others.
#[test]
fn what_can_never_run_is_refused_at_submission() {
    let scratch = Scratch::new();
    let task = |text: &str| format!("name: w\ninputs: {{city: Rome}}\ntasks:\n  - {text}\n");
    for (text, part, help) in [
        (
            "{method: echo/echo, params: {x: '${inputs.citty}'}}",
            "no input is named `citty`",
            "did you mean `city`?",
        ),
        (
            "{method: echo/echo, params: {x: '${env.SECRET}'}}",
            "`SECRET` is not on the settings' list",
            "engine.env_allowed",
        ),
        (
            "{method: python/execute, params: {timeout: 3}}",
            "exactly one of `code` and `file` must be given, and neither is",
            "",
        ),
        (
            "{method: python/execute, params: {code: '1', file: x.py}}",
            "exactly one of `code` and `file` must be given, and both are",
            "",
        ),
        (
            "{id: a, name: N, method: echo/echo}\n  - {id: b, name: N, method: echo/echo}\n  - {id: \
             c, method: echo/echo, dependencies: [N], params: {x: '${N.y}'}}",
            "`N` is ambiguous: several tasks have this name",
            "name the task by its id",
        ),
    ] {
        let file = scratch.file("w.yaml", &task(text));
        for command in ["check", "run"] {
            let out = scratch.run(&["--store", "memory", command, &file]);
            assert_eq!(out.status, 2, "{command} {text}: {}", out.stderr);
            assert!(out.stderr.contains(part) && out.stderr.contains(help), "{}", out.stderr);
        }
    }
    let file = scratch.file("w.yaml", &task("{method: echo/echo, params: {x: '${env.SECRET}'}}"));
    let out = scratch.run(&["submit", &file]);
    assert_eq!(out.status, 0, "what a service may read is its own affair: {}", out.stderr);
}

/// Digits of an input are kept or refused, and a version reads as it was written.
#[test]
fn numbers_of_inputs_keep_their_digits() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ninputs: {v: 1.10}\ntasks:\n  - {id: a, method: echo/echo, params: {text: \
         'python-${inputs.v}', value: '${inputs.v}'}}\n",
    );
    let result = |arguments: &[&str]| {
        let ran = scratch.json(&[&["run", &file, "--json"], arguments].concat()).success();
        let result = &ran["tasks"]["a"]["result"];
        (result["text"].as_str().unwrap().to_owned(), result["value"].to_string())
    };
    assert_eq!(result(&[]), ("python-1.10".to_owned(), "1.1".to_owned()));
    for (number, value) in
        [("3.20", "3.2"), ("1e5", "100000.0"), ("18446744073709551615", "18446744073709551615")]
    {
        let found = result(&["--input", &format!("v={number}")]);
        assert_eq!(found, (format!("python-{number}"), value.to_owned()));
    }
    for arguments in [
        vec!["run", &file, "--input", "v=18446744073709551616"],
        vec!["exec", "-c", "1", "--context", "{\"n\": 12345678901234567890123}"],
    ] {
        let out = scratch.run(&arguments);
        assert_eq!(out.status, 2, "{arguments:?}: {}", out.stdout);
        assert!(out.stderr.contains("64 bits"), "{}", out.stderr);
    }
}
