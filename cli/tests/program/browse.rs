//! Stored workflows at the command line: found by a part of their ids, listed by time, looked into,
//! deleted, watched.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::Scratch;

fn echo(scratch: &Scratch, id: &str) -> Value {
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: echo/echo, params: {text: first}}\n  - {id: b, name: \
         Second, method: echo/echo, params: {text: '${a.text}!'}}\n",
    );
    scratch.json(&["--json", "run", &file, "--id", id]).success()
}

/// An id is named by its beginning where no other one begins so, and `@last` is the newest.
#[test]
fn a_part_of_an_id_names_a_workflow() {
    let scratch = Scratch::new();
    for arguments in [["show", "@last"], ["show", "abcd"]] {
        assert_eq!(scratch.run(&arguments).status, 2, "an empty store: {arguments:?}");
    }
    let first = echo(&scratch, "order-2026-a1");
    let second = echo(&scratch, "order-2026-b2");
    let short = echo(&scratch, "order");
    let show = |id: &str| scratch.json(&["--json", "show", id]).success();
    assert_eq!(show("order-2026-a"), first);
    assert_eq!(show("order-2026-b2"), second);
    assert_eq!(show("order"), short, "a whole id is no beginning");
    assert_eq!(show("@last"), short);
    let out = scratch.run(&["show", "order-"]);
    assert_eq!(out.status, 2);
    for part in ["several workflows", "order-2026-a1", "order-2026-b2", "write more"] {
        assert!(out.stderr.contains(part), "no `{part}` in {}", out.stderr);
    }
    let answer = scratch.json(&["--json", "show", "order-"]).status(2);
    assert_eq!(answer["error"]["data"]["candidates"], json!(["order-2026-a1", "order-2026-b2"]));
    // Too short a beginning, and one that no id has.
    for text in ["ord", "order-x", "@lost"] {
        let out = scratch.run(&["show", text]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains(&format!("no workflow `{text}`")), "{}", out.stderr);
    }
    for arguments in [&["events", "@last"][..], &["logs", "order-2026-a"], &["show", "@last"]] {
        let out = scratch.run(arguments);
        assert_eq!(out.status, 0, "{arguments:?}: {}", out.stderr);
    }
    for command in ["cancel", "retry", "resume"] {
        let out = scratch.run(&[command, "order-2026-a"]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains("workflow order-2026-a1 is completed"), "{}", out.stderr);
    }
    let out = scratch.run(&["resolve", "@last", "a", "--retry"]);
    assert!(out.stderr.contains("workflow order is completed"), "{}", out.stderr);
}

/// Times bound a list; a text that is no time is refused with what is one.
#[test]
fn a_list_is_bounded_by_times() {
    let scratch = Scratch::new();
    echo(&scratch, "one");
    let count = |arguments: &[&str]| {
        let listed = scratch.json(&[&["--json", "list"], arguments].concat()).success();
        listed.as_array().unwrap().len()
    };
    let listed = scratch.json(&["--json", "list"]).success();
    let at = listed[0]["created_at"].as_str().unwrap();
    let day = &at[..10];
    for (arguments, found) in [
        (&["--since", "1h"][..], 1),
        (&["--since", "2d", "--until", "1h"], 0),
        (&["--since", at], 1),
        (&["--until", at], 0),
        (&["--since", day, "--until", day], 1),
        (&["--since", "2199-01-01"], 0),
        (&["--until", "2000-01-01T00:00:00+01:00"], 0),
        (&["--since", "1h", "--name", "w", "--status", "completed"], 1),
    ] {
        assert_eq!(count(arguments), found, "{arguments:?}");
    }
    let out = scratch.run(&["list", "--since", "yesterday"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("`2h`") && out.stderr.contains("2026-11-30"), "{}", out.stderr);
    let out = scratch.run(&["list", "--until", "2000-01-01"]);
    assert!(out.stdout.contains("no such workflows"), "{}", out.stdout);
    // The statuses are named, in the help and where one is wrong.
    for out in
        [scratch.run(&["list", "--help"]).stdout, scratch.run(&["list", "--status", "x"]).stderr]
    {
        for status in ["pending", "running", "completed", "failed", "cancelled", "timed_out"] {
            assert!(out.contains(status), "no {status} in {out}");
        }
    }
}

/// Parameters and times are shown with a workflow, and everything of one task.
#[test]
fn a_task_is_printed_with_its_parameters_and_times() {
    let scratch = Scratch::new();
    echo(&scratch, "w");
    let text = scratch.run(&["show", "w"]).stdout;
    for part in
        ["a  echo/echo  started 20", ", ended 20", ", took ", ", by echo", "{\"text\":\"first\"}"]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let answer = scratch.json(&["--json", "show", "w", "--task", "b"]).success();
    assert_eq!(answer["parameters"], json!({"text": "${a.text}!"}));
    assert_eq!(answer["result"]["text"], "first!");
    assert_eq!((&answer["status"], &answer["workflow_id"]), (&json!("completed"), &json!("w")));
    assert!(answer["started_at"].is_string() && answer["completed_at"].is_string(), "{answer}");
    let text = scratch.run(&["show", "w", "--task", "b"]).stdout;
    for part in ["task b of workflow w: completed", "method: echo/echo", "attempts: 1", "first!"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let out = scratch.run(&["show", "w", "--task", "c"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("no task `c`; it has a, b"), "{}", out.stderr);
}

/// What is settled goes with everything of it, and nothing that is not.
#[test]
fn settled_workflows_are_deleted() {
    let scratch = Scratch::new();
    let large = scratch.file(
        "large.yaml",
        "name: large\nid: large\ntasks:\n  - {id: t, method: echo/echo, params: {text: '${inputs.x}'}}\n",
    );
    let input = format!("x={}", "y".repeat(100_000));
    scratch.json(&["--json", "run", &large, "--input", &input]).success();
    for id in ["alpha-1", "alpha-2", "beta"] {
        echo(&scratch, id);
    }
    let open = scratch
        .file("open.yaml", "name: o\nid: open\ntasks:\n  - {method: echo/echo, params: {x: 1}}\n");
    assert_eq!(scratch.run(&["submit", &open]).status, 0);
    let out = scratch.run(&["delete", "beta", "open"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("open is pending") && out.stderr.contains("gleitzeit cancel open"));
    let out = scratch.run(&["delete", "beta", "nobody"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("no workflow `nobody`"), "{}", out.stderr);
    assert_eq!(scratch.run(&["show", "beta"]).status, 0, "nothing was deleted");
    let answer = scratch.json(&["--json", "delete", "alpha-2", "large", "alpha-2"]).success();
    assert_eq!(answer, json!({"deleted": ["alpha-2", "large"]}));
    assert_eq!(scratch.run(&["delete", "alph"]).stdout, "workflow alpha-1 is deleted\n");
    for id in ["alpha-1", "large"] {
        for command in ["show", "events", "logs"] {
            assert_eq!(scratch.run(&[command, id]).status, 2, "{command} {id}");
        }
    }
    let checked = scratch.json(&["--json", "db", "check"]).success();
    assert_eq!((&checked["sound"], &checked["checked"]["blobs"]), (&json!(true), &json!(0)));
    assert_eq!(checked["checked"]["workflows"], 2);
    // The id is free.
    echo(&scratch, "alpha-1");
    assert_eq!(scratch.run(&["delete"]).status, 2);
    let nowhere = Scratch::new();
    assert_eq!(nowhere.run(&["delete", "w"]).status, 2);
    assert!(!nowhere.path("gleitzeit.db").exists(), "it made a database");
}

/// `top` sees what another process runs, and what settled in the last minute.
#[test]
fn what_runs_is_counted_by_task_and_provider() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "slow.yaml",
        "name: w\nid: slow\ntasks:\n  - {id: a, method: echo/sleep, params: {seconds: 60}}\n  - {id: \
         b, method: echo/echo, params: {x: 1}, dependencies: [a]}\n",
    );
    echo(&scratch, "done");
    let mut run = scratch.command(&["run", &file]).stderr(Stdio::null()).spawn().unwrap();
    let top = || scratch.json(&["top", "--json"]).success();
    let mut answer = top();
    for _ in 0..100 {
        if answer["activity"]["workflows"] == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        answer = top();
    }
    assert_eq!(answer["workflows"][0]["id"], "slow");
    let tasks = &answer["activity"]["tasks"];
    let open = tasks["executing"].as_u64().unwrap() + tasks["waiting"].as_u64().unwrap();
    assert_eq!(open, 2, "{answer}");
    assert_eq!(answer["activity"]["settled"]["completed"], 1);
    assert_eq!(answer["activity"]["settled"]["tasks"], 2);
    let text = scratch.run(&["top", "--once"]).stdout;
    for part in ["workflows: 1 open", "1 workflows completed", "slow"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert_eq!(
        scratch.json(&["top", "--format", "json", "--json"]).success()["workflows"][0]["id"],
        "slow"
    );
    assert_eq!(scratch.run(&["delete", "slow"]).status, 2, "it runs");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(scratch.run(&["top", "--store", "memory"]).status, 2);
}

/// A retry with other inputs is checked like a submission, is recorded by an event, and is what every
/// process sees from then on. What completed does not run again, so its inputs stay.
#[test]
fn a_retry_may_have_other_inputs() {
    let scratch = Scratch::new();
    for (id, filler) in [("small", 1), ("large", 100_000)] {
        let file = scratch.file(
            "w.yaml",
            "name: w\ninputs: {city: Bonn, reason: broken, filler: ''}\ntasks:\n  - {id: a, method: \
             echo/echo, params: {text: '${inputs.city}'}}\n  - {id: b, method: echo/fail, params: \
             {message: '${inputs.reason} ${inputs.filler}'}, dependencies: [a], retry: {max_attempts: \
             1}}\n",
        );
        let long = format!("filler={}", "x".repeat(filler));
        scratch.json(&["--json", "run", &file, "--id", id, "--input", &long]).status(1);
        let out = scratch.run(&["retry", id, "--input", "city=Ulm"]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains("task `a` completed with the old one"), "{}", out.stderr);
        let before = scratch.json(&["--json", "events", id]).success();
        // The same inputs are no change.
        scratch.json(&["--json", "retry", id, "--input", "city=Bonn"]).status(1);
        let answer =
            scratch.json(&["--json", "retry", id, "--input", "reason=mended 1.50"]).status(1);
        let message = answer["tasks"]["b"]["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("mended 1.50 x"), "{message}");
        let events = scratch.json(&["--json", "events", id]).success();
        let events = events.as_array().unwrap();
        let changes: Vec<&Value> =
            events.iter().filter(|it| it["event_type"] == "workflow:inputs_changed").collect();
        assert_eq!(changes.len(), 1, "{events:?}");
        assert_eq!(changes[0]["data"]["inputs"], json!({"reason": "mended 1.50"}));
        assert!(events.len() > before.as_array().unwrap().len());
        let numbers: Vec<u64> = events.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        // Another retry, of another process, has the inputs.
        let answer = scratch.json(&["--json", "retry", id]).status(1);
        assert!(answer["tasks"]["b"]["error"]["message"].as_str().unwrap().starts_with("mended"));
        let checked = scratch.json(&["--json", "db", "check"]).success();
        assert_eq!(checked["sound"], true);
    }
    let blobs = scratch.json(&["--json", "db", "check"]).success()["checked"]["blobs"].clone();
    assert_eq!(blobs, 1, "the old submission is gone");
    let file = scratch.file("in.yaml", "reason: [1, 2]\n");
    scratch.json(&["--json", "retry", "small", "--input-file", &file]).status(1);
    let done = scratch
        .file("done.yaml", "name: d\nid: done\ntasks:\n  - {method: echo/echo, params: {x: 1}}\n");
    scratch.json(&["--json", "run", &done]).success();
    let out = scratch.run(&["retry", "done", "--input", "x=1"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("nothing to retry"), "{}", out.stderr);
}

/// A shell gets the ids, methods and statuses that begin so; what cannot be read completes nothing.
#[test]
fn a_shell_completes_ids_methods_and_statuses() {
    let scratch = Scratch::new();
    let complete = |words: &[&str]| {
        let mut command = scratch.command(&[&["--", "gleitzeit"], words].concat());
        command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
        let output = command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["show", "al"]), "", "no store");
    assert!(!scratch.path("gleitzeit.db").exists());
    echo(&scratch, "alpha-1");
    echo(&scratch, "beta-1");
    assert_eq!(complete(&["show", "al"]), "alpha-1");
    assert_eq!(complete(&["delete", "alpha-1", "b"]), "beta-1");
    let all = complete(&["retry", ""]);
    for id in ["alpha-1", "beta-1", "@last"] {
        assert!(all.contains(id), "{all}");
    }
    assert_eq!(complete(&["protocols", "validate", "echo/v1.0", "sl"]), "sleep");
    assert!(complete(&["protocols", "show", "ec"]).contains("echo/v1"));
    assert_eq!(complete(&["list", "--status", "comp"]), "completed");
    scratch.file("gleitzeit.toml", "[");
    assert_eq!(complete(&["show", "al"]), "", "broken settings");
}
