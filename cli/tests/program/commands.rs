//! The program as its users meet it: exit status, what stands on standard output, and what is
//! left behind by a kill.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::Scratch;

/// The first command of the README: a fan-out, a join, a retry, references.
#[test]
fn the_quickstart_runs_and_its_json_has_the_promised_shape() {
    let scratch = Scratch::new();
    let ran = scratch.json(&["run", &quickstart(), "--json"]).success();
    assert_eq!(keys(&ran), ["name", "status", "tasks", "workflow_id"]);
    assert_eq!(ran["status"], "completed");
    for (id, task) in ran["tasks"].as_object().unwrap() {
        let expected = ["attempts", "duration", "error", "name", "provider_id", "result", "status"];
        assert_eq!(keys(task), expected, "{id}");
        assert_eq!((&task["status"], &task["error"]), (&json!("completed"), &Value::Null), "{id}");
        assert_eq!(task["provider_id"], "python");
    }
    assert_eq!(ran["tasks"]["stubborn"]["attempts"], 2);
    let report = &ran["tasks"]["report"]["result"]["result"];
    assert_eq!(report["sorted"], json!([1, 3, 3, 4, 5, 5, 9, 9]));

    let id = ran["workflow_id"].as_str().unwrap();
    assert_eq!(scratch.json(&["show", id, "--json"]).success(), ran, "show repeats what run said");
}

/// A person sees each task's status, time and result.
#[test]
fn a_run_shows_a_table_to_a_person() {
    let scratch = Scratch::new();
    let out = scratch.run(&["run", &quickstart(), "--no-progress"]);
    assert_eq!(out.status, 0, "{}", out.stderr);
    for part in ["numbers", "stubborn", "Write the report", "completed", "5 of 5 tasks"] {
        assert!(out.stdout.contains(part), "no `{part}` in:\n{}", out.stdout);
    }
    assert_eq!(out.stderr, "");
}

/// A failed workflow is never reported as a success, and what is behind the failure is reported.
#[test]
fn a_failed_workflow_exits_with_1() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {code: 1/0}}\n  - {id: b, \
         method: echo/echo, dependencies: [a], params: {text: x}}\n",
    );
    let ran = scratch.json(&["run", &file, "--json"]).status(1);
    assert_eq!(ran["status"], "failed");
    let error = &ran["tasks"]["a"]["error"];
    assert_eq!(keys(error), ["code", "data", "message", "name"]);
    assert_eq!((&error["code"], &error["name"]), (&json!(-29002), &json!("TASK_EXECUTION_FAILED")));
    assert!(error["message"].as_str().unwrap().contains("ZeroDivisionError"), "{error}");
    assert_eq!(ran["tasks"]["b"]["status"], "upstream_failed");

    let out = scratch.run(&["run", &file]);
    assert_eq!(out.status, 1);
    assert!(out.stdout.contains("ZeroDivisionError"), "{}", out.stdout);
}

/// Inputs of the command line win over those of the file, and keep their type.
#[test]
fn inputs_are_set_at_the_command_line() {
    let scratch = Scratch::new();
    let ran = scratch.json(&["run", &quickstart(), "--json", "--input", "count=3"]).success();
    assert_eq!(ran["tasks"]["numbers"]["result"]["result"].as_array().unwrap().len(), 3);
}

/// Everything wrong with a file at once, each with its line and a caret; nothing is run.
#[test]
fn an_invalid_file_exits_with_2_and_shows_the_line() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - id: a\n    metod: echo/echo\n  - id: b\n    method: echo/echo\n    \
         priority: soon\n",
    );
    for command in ["run", "check", "graph"] {
        let out = scratch.run(&[command, &file]);
        assert_eq!(out.status, 2, "{command}: {}", out.stderr);
        assert_eq!(out.stdout, "", "{command}");
        for part in ["w.yaml:4", "metod: echo/echo", "^", "priority: soon"] {
            assert!(out.stderr.contains(part), "{command}: no `{part}` in:\n{}", out.stderr);
        }
        let answer = scratch.json(&[command, &file, "--json"]).status(2);
        let problems = answer["error"]["data"]["problems"].as_array().unwrap();
        assert!(problems.len() >= 2, "{command}: {answer}");
    }
    assert!(!scratch.path("gleitzeit.db").exists(), "a file that is refused leaves no trace");
}

/// What only the protocols know is shown in the file as well.
#[test]
fn wrong_parameters_and_cycles_are_located_in_the_file() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - id: a\n    method: python/execute\n    dependencies: [b]\n    \
         params: {cod: '1'}\n  - id: b\n    method: echo/echo\n    dependencies: [a]\n    \
         params: {text: x}\n",
    );
    let out = scratch.run(&["check", &file]);
    assert_eq!(out.status, 2, "{}", out.stdout);
    assert!(out.stderr.contains("cod"), "{}", out.stderr);
    assert!(out.stderr.contains("w.yaml:6") && out.stderr.contains('^'), "{}", out.stderr);
}

/// A valid file is called so, drawn in both languages, and not run.
#[test]
fn check_and_graph_judge_and_draw_without_running() {
    let scratch = Scratch::new();
    let answer = scratch.json(&["check", &quickstart(), "--json"]).success();
    assert_eq!(answer["valid"], true);
    assert_eq!(answer["tasks"], 5);
    let mermaid = scratch.run(&["graph", &quickstart()]);
    assert!(mermaid.stdout.contains("numbers"), "{}", mermaid.stdout);
    let dot = scratch.run(&["graph", &quickstart(), "--format", "dot"]);
    assert!(dot.stdout.starts_with("digraph"), "{}", dot.stdout);
    let drawn = scratch.json(&["graph", &quickstart(), "--json"]).success();
    assert_eq!(drawn["edges"].as_array().unwrap().len(), 6);
    assert!(!scratch.path("gleitzeit.db").exists());
}

/// A mistake at the command line is reported in the way that was asked for.
#[test]
fn wrong_usage_exits_with_2() {
    let scratch = Scratch::new();
    for arguments in [&["fly"][..], &["run"], &["run", "missing.yaml"], &["show", "nobody"]] {
        let out = scratch.run(arguments);
        assert_eq!(out.status, 2, "{arguments:?}: {}", out.stderr);
        assert_eq!(out.stdout, "");
        assert_ne!(out.stderr, "");
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let answer = scratch.json(&with_json).status(2);
        assert_eq!(keys(&answer["error"]), ["code", "data", "message", "name"], "{arguments:?}");
    }
}

/// A store that cannot be opened is nobody's mistake in the workflow.
#[test]
fn a_store_out_of_reach_exits_with_3() {
    let scratch = Scratch::new();
    let answer =
        scratch.json(&["run", &quickstart(), "--json", "--store", "sqlite:/dev/null/x.db"]);
    let answer = answer.status(3);
    assert!(answer["error"]["message"].as_str().unwrap().contains("/dev/null"), "{answer}");
}

/// One task's result, its error, and what the code wrote, each where it belongs.
#[test]
fn exec_runs_code_as_one_task() {
    let scratch = Scratch::new();
    let result = scratch
        .json(&[
            "exec",
            "-c",
            "print('hi')\ncontext['n'] + 1",
            "--context",
            r#"{"n": 41}"#,
            "--json",
        ])
        .success();
    assert_eq!(result["result"], 42);
    assert_eq!(result["stdout"], "hi\n");

    let out = scratch.run(&["exec", "-c", "print('hi')\n[1, 2]"]);
    assert_eq!((out.status, out.stdout.as_str()), (0, "hi\n[\n  1,\n  2\n]\n"), "{}", out.stderr);

    let error = scratch.json(&["exec", "-c", "print(1)\nnope", "--json"]).status(1);
    assert_eq!(keys(&error), ["code", "data", "message", "name"]);
    assert!(error["message"].as_str().unwrap().contains("NameError"), "{error}");

    let script = scratch.file("script.py", "result = {'file': True}");
    let result = scratch.json(&["exec", &script, "--json"]).success();
    assert_eq!(result["result"], json!({"file": true}));

    let error =
        scratch.json(&["exec", "-c", "while True: pass", "--timeout", "0.3", "--json"]).status(1);
    assert_eq!(error["name"], "TASK_TIMEOUT", "{error}");
    assert!(!scratch.path("gleitzeit.db").exists(), "nothing of it is kept");
}

/// One task a file, and the results where they were asked for.
#[test]
fn batch_runs_a_script_on_each_file() {
    let scratch = Scratch::new();
    let script = scratch.file("length.py", "result = len(open(context['file_path']).read())");
    fs::create_dir(scratch.path("texts")).unwrap();
    scratch.file("texts/a.txt", "123");
    scratch.file("texts/b.txt", "12345");
    scratch.file("texts/c.md", "no");
    let ran = scratch
        .json(&[
            "batch",
            "texts",
            "--pattern",
            "*.txt",
            "--file",
            &script,
            "--output",
            "out",
            "--json",
        ])
        .success();
    let mut results: Vec<_> = ran["tasks"]
        .as_object()
        .unwrap()
        .values()
        .map(|task| task["result"]["result"].as_u64().unwrap())
        .collect();
    results.sort_unstable();
    assert_eq!(results, [3, 5]);
    let id = ran["workflow_id"].as_str().unwrap();
    let json = fs::read_to_string(scratch.path(&format!("out/{id}.json"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), ran);
    let text = fs::read_to_string(scratch.path(&format!("out/{id}.md"))).unwrap();
    assert!(text.contains("a.txt") && text.contains('5'), "{text}");

    let out = scratch.run(&["batch", "texts", "--pattern", "*.pdf", "--prompt", "What is it?"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("*.pdf"), "{}", out.stderr);
}

/// What was run is found again: listed, shown, its events without a gap.
#[test]
fn the_store_is_read_without_a_runtime() {
    let scratch = Scratch::new();
    assert_eq!(scratch.json(&["list", "--json"]).success(), json!([]));
    assert!(!scratch.path("gleitzeit.db").exists(), "looking makes no file");
    let ran = scratch.json(&["run", &quickstart(), "--id", "first", "--json"]).success();
    assert_eq!(ran["workflow_id"], "first");
    let list = scratch.json(&["list", "--status", "completed", "--json"]).success();
    assert_eq!((&list[0]["id"], &list[0]["settled_count"]), (&json!("first"), &json!(5)));
    assert_eq!(scratch.json(&["list", "--status", "failed", "--json"]).success(), json!([]));

    let events = scratch.json(&["events", "first", "--json"]).success();
    let events = events.as_array().unwrap();
    let sequences: Vec<u64> = events.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["event_type"], "workflow:submitted");
    assert_eq!(events[events.len() - 1]["event_type"], "workflow:completed");
    let followed = scratch.json(&["events", "first", "--follow", "--after", "2", "--json"]);
    assert_eq!(followed.success().as_array().unwrap().len(), events.len() - 2);
    assert!(scratch.run(&["events", "first"]).stdout.contains("task:retry_scheduled"));
}

/// The same id means the same workflow: it is not run twice.
#[test]
fn a_workflow_that_was_run_is_printed_and_not_run_again() {
    let scratch = Scratch::without_jail();
    let log = scratch.path("log");
    let code = format!("open({:?}, 'a').write('x')", log.display());
    let file = scratch.file(
        "w.json",
        &json!({"name": "w", "id": "once", "tasks": [
            {"id": "a", "method": "python/execute", "params": {"code": code}},
        ]})
        .to_string(),
    );
    let first = scratch.json(&["run", &file, "--json"]).success();
    let second = scratch.json(&["run", &file, "--json"]).success();
    assert_eq!(first, second);
    assert_eq!(fs::read_to_string(log).unwrap(), "x");
}

/// Tools validate parameters without a workflow.
#[test]
fn protocols_validate_reports_defaults_and_every_violation() {
    let scratch = Scratch::new();
    let good = scratch.file("good.json", r#"{"code": "1"}"#);
    let answer = scratch
        .json(&["protocols", "validate", "python/v1.0", "execute", &good, "--json"])
        .success();
    assert_eq!(keys(&answer), ["params", "valid", "violations"]);
    assert_eq!((&answer["valid"], &answer["violations"]), (&json!(true), &json!([])));
    assert_eq!(answer["params"]["timeout"], 30, "defaults are filled in: {answer}");

    let bad = scratch.file("bad.json", r#"{"code": "", "timeout": 0, "imports": [1]}"#);
    let answer =
        scratch.json(&["protocols", "validate", "python", "execute", &bad, "--json"]).status(2);
    let violations = answer["violations"].as_array().unwrap();
    let pointers: Vec<&str> = violations.iter().map(|it| it["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/code", "/timeout", "/imports/0"]);
    for violation in violations {
        assert_eq!(keys(violation), ["message", "pointer", "rule"]);
    }
    scratch.json(&["protocols", "validate", "python", "fly", &good, "--json"]).status(2);
}

/// Protocols of a file stand beside those built in.
#[test]
fn protocols_are_read_from_files_too() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "math.toml",
        "name = \"math\"\nversion = \"v1.0\"\n[methods.add.params_schema.numbers]\ntype = \
         \"array\"\nmin_length = 1\n",
    );
    let list = scratch.json(&["protocols", "list", "--protocol-file", &file, "--json"]).success();
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|it| it["protocol_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["echo/v1.0", "llm/v1.0", "math/v1.0", "python/v1.0"]);
    let answer =
        scratch.json(&["protocols", "show", "math", "--protocol-file", &file, "--json"]).success();
    assert!(answer.to_string().contains("minItems"), "{answer}");
    let params = scratch.file("p.json", "[[]]");
    let arguments =
        ["protocols", "validate", "math", "add", &params, "--protocol-file", &file, "--json"];
    let answer = scratch.json(&arguments).status(2);
    assert_eq!(answer["violations"][0]["rule"], "min_length");
}

/// Settings are shown as they are in force, and mistakes in them stop the program at once.
#[test]
fn config_shows_settings_and_refuses_unknown_ones() {
    let scratch = Scratch::new();
    let answer =
        scratch.json(&["config", "--json", "--store", "postgres://me:geheim@host/db"]).success();
    assert_eq!(answer["storage"]["url"], "postgres://me:***@host/db");
    assert_eq!(answer["engine"]["max_concurrent_tasks"], 64);
    assert_eq!(answer["storage"]["auto_migrate"], true, "what the settings say, not this command");
    let file = scratch.file("s.toml", "[engine]\nmax_concurrent_task = 1\n");
    let out = scratch.run(&["config", "--config", &file]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("s.toml:2:1: engine.max_concurrent_task"), "{}", out.stderr);
    assert!(out.stderr.contains("did you mean `max_concurrent_tasks`?"), "{}", out.stderr);
}

/// Every shell that is offered gets a script that knows the commands.
#[test]
fn completions_know_the_commands() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let out = scratch.run(&["completions", shell]);
        assert_eq!(out.status, 0);
        assert!(out.stdout.contains("protocols"), "{shell}");
    }
}

/// The file of the README's first command.
fn quickstart() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart.yaml");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        value.as_object().into_iter().flat_map(|it| it.keys()).map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Says of each provider how it is, also of one whose server is down.
#[test]
fn providers_are_started_and_reported() {
    let scratch = Scratch::new();
    let settings =
        scratch.file("s.toml", "[providers.ollama.config]\nbase_url = \"http://127.0.0.1:1\"\n");
    let all = scratch.json(&["providers", "--config", &settings, "--json"]).status(1);
    let health = |id: &str| {
        let all = all.as_array().into_iter().flatten();
        let found = all.clone().find(|it| it["provider_id"] == id);
        found.unwrap_or_else(|| panic!("no `{id}`"))["health"].clone()
    };
    assert_eq!((health("echo"), health("python")), (json!("healthy"), json!("healthy")));
    assert_ne!(health("ollama"), "healthy");
    let out = scratch.run(&["providers", "--config", &settings]);
    assert_eq!(out.status, 1);
    assert!(out.stdout.contains("127.0.0.1:1"), "why it is not: {}", out.stdout);
    let without = scratch.file("w.toml", "[providers.ollama]\nenabled = false\n");
    assert_eq!(scratch.run(&["providers", "--config", &without]).status, 0);
}

/// What this machine offers, the level that results for each provider, and what to do.
#[test]
fn doctor_reports_the_level_and_what_is_missing() {
    let scratch = Scratch::new();
    let answer = scratch.json(&["doctor", "--json"]).success();
    assert_eq!(keys(&answer), ["healthy", "machine", "python"]);
    let names: Vec<_> =
        answer["machine"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    let expected = ["kernel", "namespaces", "jail", "landlock", "seccomp", "cgroups", "docker"];
    assert_eq!(json!(names), json!(expected));
    for finding in answer["machine"].as_array().unwrap() {
        let is_there = finding["available"] == true;
        assert_eq!(is_there, finding.get("remedy").is_none(), "{finding}");
    }
    let python = &answer["python"][0];
    assert_eq!((&python["provider"], &python["level"]), (&json!("python"), &json!("process")));
    let checks = python["verdict"]["checks"].as_array().unwrap();
    assert!(checks.len() >= 10 && checks.iter().all(|check| check["held"] == true), "{python}");
    let out = scratch.run(&["doctor"]);
    assert_eq!(out.status, 0, "{}", out.stderr);
    for part in ["namespaces", "seccomp", "process", "ways out closed"] {
        assert!(out.stdout.contains(part), "no `{part}` in:\n{}", out.stdout);
    }
}

/// A level that cannot be had is reported before anything runs, and so is one that is too weak.
#[test]
fn a_level_that_cannot_be_had_is_an_error_at_start() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {code: pass}}\n",
    );
    let run = |settings: &str| {
        let settings = scratch.file("s.toml", settings);
        scratch.run(&["run", &file, "--config", &settings])
    };
    let out = run("[security]\nlauncher = \"/no/such/program\"\n");
    assert_eq!(out.status, 2, "{}", out.stderr);
    assert!(out.stderr.contains("gleitzeit doctor"), "{}", out.stderr);
    for (settings, part) in [
        ("[security]\nsandbox = \"none\"\n", "`none` is refused while allow_unsandboxed is false"),
        ("[providers.python.config]\nsandbox = \"none\"\n", "`none` is refused while"),
        ("[security]\nsandbox_minimum = \"docker\"\n", "weaker than sandbox_minimum"),
        ("[security]\nsandbox = \"vm\"\n", "security.sandbox"),
        ("[security]\nsandbox = \"chroot\"\n", "root: missing"),
    ] {
        let out = run(settings);
        assert_eq!(out.status, 2, "{settings}: {}", out.stderr);
        assert!(out.stderr.contains(part), "{settings}: {}", out.stderr);
    }
}

/// One variable is enough where a shell works on one store; `--store` is above it.
#[test]
fn a_variable_names_the_store() {
    let scratch = Scratch::new();
    let file = scratch
        .file("w.yaml", "name: w\ntasks: [{id: t, method: echo/echo, params: {text: hi}}]\n");
    let submit = |more: &[&str]| {
        let mut command = scratch.command(&[&["submit", &file][..], more].concat());
        command.env("GLEITZEIT_STORE", "sqlite:named.db").output().unwrap().status.code()
    };
    assert_eq!(submit(&[]), Some(0));
    assert!(scratch.path("named.db").exists());
    assert_eq!(submit(&["--store", "sqlite:other.db"]), Some(0));
    assert!(scratch.path("other.db").exists() && !scratch.path("gleitzeit.db").exists());
}
