//! Stored workflows at the command line: found by a part of their ids, listed by time, looked into,
//! deleted, watched.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::Place;

fn echo(place: &Place, id: &str) -> Value {
    let file = place.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: echo/echo, params: {text: first}}\n  - {id: b, name: \
         Second, method: echo/echo, params: {text: '${a.text}!'}}\n",
    );
    place.json(&["--json", "run", &file, "--id", id]).success()
}

/// An id is named by its beginning where no other one begins so, and `@last` is the newest.
#[test]
fn a_part_of_an_id_names_a_workflow() {
    let place = Place::new();
    for arguments in [["show", "@last"], ["show", "abcd"]] {
        assert_eq!(place.run(&arguments).status, 2, "an empty store: {arguments:?}");
    }
    let first = echo(&place, "order-2026-a1");
    let second = echo(&place, "order-2026-b2");
    let short = echo(&place, "order");
    let shown = |id: &str| place.json(&["--json", "show", id]).success();
    assert_eq!(shown("order-2026-a"), first);
    assert_eq!(shown("order-2026-b2"), second);
    assert_eq!(shown("order"), short, "a whole id is no beginning");
    assert_eq!(shown("@last"), short);
    let out = place.run(&["show", "order-"]);
    assert_eq!(out.status, 2);
    for part in ["several workflows", "order-2026-a1", "order-2026-b2", "write more"] {
        assert!(out.stderr.contains(part), "no `{part}` in {}", out.stderr);
    }
    let told = place.json(&["--json", "show", "order-"]).status(2);
    assert_eq!(told["error"]["data"]["candidates"], json!(["order-2026-a1", "order-2026-b2"]));
    // Too short a beginning, and one that no id has.
    for text in ["ord", "order-x", "@lost"] {
        let out = place.run(&["show", text]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains(&format!("no workflow `{text}`")), "{}", out.stderr);
    }
    for arguments in [&["events", "@last"][..], &["logs", "order-2026-a"], &["show", "@last"]] {
        let out = place.run(arguments);
        assert_eq!(out.status, 0, "{arguments:?}: {}", out.stderr);
    }
    for command in ["cancel", "retry", "resume"] {
        let out = place.run(&[command, "order-2026-a"]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains("workflow order-2026-a1 is completed"), "{}", out.stderr);
    }
    let out = place.run(&["resolve", "@last", "a", "--retry"]);
    assert!(out.stderr.contains("workflow order is completed"), "{}", out.stderr);
}

/// Times bound a list; a text that is no time is refused with what is one.
#[test]
fn a_list_is_bounded_by_times() {
    let place = Place::new();
    echo(&place, "one");
    let count = |arguments: &[&str]| {
        let listed = place.json(&[&["--json", "list"], arguments].concat()).success();
        listed.as_array().unwrap().len()
    };
    let listed = place.json(&["--json", "list"]).success();
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
    let out = place.run(&["list", "--since", "yesterday"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("`2h`") && out.stderr.contains("2026-11-30"), "{}", out.stderr);
    let out = place.run(&["list", "--until", "2000-01-01"]);
    assert!(out.stdout.contains("no such workflows"), "{}", out.stdout);
    // The statuses are named, in the help and where one is wrong.
    for out in [place.run(&["list", "--help"]).stdout, place.run(&["list", "--status", "x"]).stderr]
    {
        for status in ["pending", "running", "completed", "failed", "cancelled", "timed_out"] {
            assert!(out.contains(status), "no {status} in {out}");
        }
    }
}

/// Parameters and times are shown with a workflow, and everything of one task.
#[test]
fn a_task_is_shown_with_its_parameters_and_times() {
    let place = Place::new();
    echo(&place, "w");
    let text = place.run(&["show", "w"]).stdout;
    for part in
        ["a  echo/echo  started 20", ", ended 20", ", took ", ", by echo", "{\"text\":\"first\"}"]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let told = place.json(&["--json", "show", "w", "--task", "b"]).success();
    assert_eq!(told["parameters"], json!({"text": "${a.text}!"}));
    assert_eq!(told["result"]["text"], "first!");
    assert_eq!((&told["status"], &told["workflow_id"]), (&json!("completed"), &json!("w")));
    assert!(told["started_at"].is_string() && told["completed_at"].is_string(), "{told}");
    let text = place.run(&["show", "w", "--task", "b"]).stdout;
    for part in ["task b of workflow w: completed", "method: echo/echo", "attempts: 1", "first!"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let out = place.run(&["show", "w", "--task", "c"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("no task `c`; it has a, b"), "{}", out.stderr);
}

/// What is settled goes with everything of it, and nothing that is not.
#[test]
fn settled_workflows_are_deleted() {
    let place = Place::new();
    let large = place.file(
        "large.yaml",
        "name: large\nid: large\ntasks:\n  - {id: t, method: echo/echo, params: {text: '${inputs.x}'}}\n",
    );
    let input = format!("x={}", "y".repeat(100_000));
    place.json(&["--json", "run", &large, "--input", &input]).success();
    for id in ["alpha-1", "alpha-2", "beta"] {
        echo(&place, id);
    }
    let open = place
        .file("open.yaml", "name: o\nid: open\ntasks:\n  - {method: echo/echo, params: {x: 1}}\n");
    assert_eq!(place.run(&["submit", &open]).status, 0);
    let out = place.run(&["delete", "beta", "open"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("open is pending") && out.stderr.contains("gleitzeit cancel open"));
    let out = place.run(&["delete", "beta", "nobody"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("no workflow `nobody`"), "{}", out.stderr);
    assert_eq!(place.run(&["show", "beta"]).status, 0, "nothing was deleted");
    let told = place.json(&["--json", "delete", "alpha-2", "large", "alpha-2"]).success();
    assert_eq!(told, json!({"deleted": ["alpha-2", "large"]}));
    assert_eq!(place.run(&["delete", "alph"]).stdout, "workflow alpha-1 is deleted\n");
    for id in ["alpha-1", "large"] {
        for command in ["show", "events", "logs"] {
            assert_eq!(place.run(&[command, id]).status, 2, "{command} {id}");
        }
    }
    let checked = place.json(&["--json", "db", "check"]).success();
    assert_eq!((&checked["sound"], &checked["checked"]["blobs"]), (&json!(true), &json!(0)));
    assert_eq!(checked["checked"]["workflows"], 2);
    // The id is free.
    echo(&place, "alpha-1");
    assert_eq!(place.run(&["delete"]).status, 2);
    let nowhere = Place::new();
    assert_eq!(nowhere.run(&["delete", "w"]).status, 2);
    assert!(!nowhere.path("gleitzeit.db").exists(), "it made a database");
}

/// `top` sees what another process runs, and what settled in the last minute.
#[test]
fn what_runs_is_counted_by_task_and_provider() {
    let place = Place::new();
    let file = place.file(
        "slow.yaml",
        "name: w\nid: slow\ntasks:\n  - {id: a, method: echo/sleep, params: {seconds: 60}}\n  - {id: \
         b, method: echo/echo, params: {x: 1}, dependencies: [a]}\n",
    );
    echo(&place, "done");
    let mut run = place.command(&["run", &file]).stderr(Stdio::null()).spawn().unwrap();
    let top = || place.json(&["top", "--json"]).success();
    let mut told = top();
    for _ in 0..100 {
        if told["activity"]["workflows"] == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        told = top();
    }
    assert_eq!(told["workflows"][0]["id"], "slow");
    let tasks = &told["activity"]["tasks"];
    let open = tasks["executing"].as_u64().unwrap() + tasks["waiting"].as_u64().unwrap();
    assert_eq!(open, 2, "{told}");
    assert_eq!(told["activity"]["settled"]["completed"], 1);
    assert_eq!(told["activity"]["settled"]["tasks"], 2);
    let text = place.run(&["top", "--once"]).stdout;
    for part in ["workflows: 1 open", "1 workflows completed", "slow"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert_eq!(
        place.json(&["top", "--format", "json", "--json"]).success()["workflows"][0]["id"],
        "slow"
    );
    assert_eq!(place.run(&["delete", "slow"]).status, 2, "it runs");
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(place.run(&["top", "--store", "memory"]).status, 2);
}

/// A retry with other inputs is checked like a submission, is told by an event, and is what every
/// process sees from then on. What completed does not run again, so its inputs stay.
#[test]
fn a_retry_may_have_other_inputs() {
    let place = Place::new();
    for (id, filler) in [("small", 1), ("large", 100_000)] {
        let file = place.file(
            "w.yaml",
            "name: w\ninputs: {city: Bonn, reason: broken, filler: ''}\ntasks:\n  - {id: a, method: \
             echo/echo, params: {text: '${inputs.city}'}}\n  - {id: b, method: echo/fail, params: \
             {message: '${inputs.reason} ${inputs.filler}'}, dependencies: [a], retry: {max_attempts: \
             1}}\n",
        );
        let long = format!("filler={}", "x".repeat(filler));
        place.json(&["--json", "run", &file, "--id", id, "--input", &long]).status(1);
        let out = place.run(&["retry", id, "--input", "city=Ulm"]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains("task `a` completed with the old one"), "{}", out.stderr);
        let before = place.json(&["--json", "events", id]).success();
        // The same inputs are no change.
        place.json(&["--json", "retry", id, "--input", "city=Bonn"]).status(1);
        let told = place.json(&["--json", "retry", id, "--input", "reason=mended 1.50"]).status(1);
        let message = told["tasks"]["b"]["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("mended 1.50 x"), "{message}");
        let events = place.json(&["--json", "events", id]).success();
        let events = events.as_array().unwrap();
        let changes: Vec<&Value> =
            events.iter().filter(|it| it["event_type"] == "workflow:inputs_changed").collect();
        assert_eq!(changes.len(), 1, "{events:?}");
        assert_eq!(changes[0]["data"]["inputs"], json!({"reason": "mended 1.50"}));
        assert!(events.len() > before.as_array().unwrap().len());
        let numbers: Vec<u64> = events.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        // Another retry, of another process, has the inputs.
        let told = place.json(&["--json", "retry", id]).status(1);
        assert!(told["tasks"]["b"]["error"]["message"].as_str().unwrap().starts_with("mended"));
        let checked = place.json(&["--json", "db", "check"]).success();
        assert_eq!(checked["sound"], true);
    }
    let blobs = place.json(&["--json", "db", "check"]).success()["checked"]["blobs"].clone();
    assert_eq!(blobs, 1, "the old submission is gone");
    let file = place.file("in.yaml", "reason: [1, 2]\n");
    place.json(&["--json", "retry", "small", "--input-file", &file]).status(1);
    let done = place
        .file("done.yaml", "name: d\nid: done\ntasks:\n  - {method: echo/echo, params: {x: 1}}\n");
    place.json(&["--json", "run", &done]).success();
    let out = place.run(&["retry", "done", "--input", "x=1"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("nothing to retry"), "{}", out.stderr);
}

/// A shell gets the ids, methods and statuses that begin so; what cannot be read completes nothing.
#[test]
fn a_shell_completes_ids_methods_and_statuses() {
    let place = Place::new();
    let complete = |words: &[&str]| {
        let mut command = place.command(&[&["--", "gleitzeit"], words].concat());
        command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
        let output = command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete(&["show", "al"]), "", "no store");
    assert!(!place.path("gleitzeit.db").exists());
    echo(&place, "alpha-1");
    echo(&place, "beta-1");
    assert_eq!(complete(&["show", "al"]), "alpha-1");
    assert_eq!(complete(&["delete", "alpha-1", "b"]), "beta-1");
    let all = complete(&["retry", ""]);
    for id in ["alpha-1", "beta-1", "@last"] {
        assert!(all.contains(id), "{all}");
    }
    assert_eq!(complete(&["protocols", "validate", "echo/v1.0", "sl"]), "sleep");
    assert!(complete(&["protocols", "show", "ec"]).contains("echo/v1"));
    assert_eq!(complete(&["list", "--status", "comp"]), "completed");
    place.file("gleitzeit.toml", "[");
    assert_eq!(complete(&["show", "al"]), "", "broken settings");
}
