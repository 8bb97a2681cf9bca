//! What a stored workflow needs from the place where it was written, and which of it tasks may see.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::support::Scratch;

fn results(ran: &Value) -> Vec<Value> {
    ran["tasks"]
        .as_object()
        .expect("tasks")
        .values()
        .map(|it| it["result"]["result"].clone())
        .collect()
}

/// A batch in the directory of the service works on the same files each time, and its tasks see
/// these files and nothing else: no other file, no database, no earlier result.
#[test]
fn a_batch_shows_its_files_and_nothing_of_the_service() {
    let scratch = Scratch::new();
    scratch.file("one.txt", "1");
    scratch.file("two.txt", "2");
    scratch.file("other.md", "3");
    scratch.file(".env", "SECRET=1");
    scratch.file(
        "s.py",
        "from pathlib import Path\nnames = ['.env', 'copy.txt', 'gleitzeit.db', 'one.txt', \
         'other.md', 's.py', 'two.txt']\nhere = Path(context['file_path']).parent\nresult = \
         [Path(context['file_path']).name, [it for it in names if (here / it).exists()]]",
    );
    let batch = |pattern: &str| {
        let ran = ["batch", ".", "--pattern", pattern, "--file", "s.py", "--json"];
        results(&scratch.json(&ran).success())
    };
    let both = json!(["one.txt", "two.txt"]);
    for _ in 0..2 {
        assert_eq!(batch("*.txt"), [json!(["one.txt", both]), json!(["two.txt", both])]);
    }
    std::os::unix::fs::symlink(scratch.path("gleitzeit.db"), scratch.path("copy.txt")).unwrap();
    let all = json!(["one.txt", "other.md", "two.txt"]);
    for pattern in ["*", "**/*"] {
        let seen: Vec<Value> = batch(pattern);
        assert_eq!(seen.len(), 3, "{pattern}: {seen:?}");
        assert!(seen.iter().all(|it| it[1] == all), "{pattern}: {seen:?}");
    }
}

/// A directory that is shown to every task must not hold the database or the settings.
#[test]
fn read_only_paths_may_not_hold_files_of_the_service() {
    let scratch = Scratch::new();
    let settings = scratch.file("settings.toml", "[security]\nread_only_paths = [\"data\"]\n");
    fs::create_dir(scratch.path("data")).unwrap();
    let list = |paths: &str, store: &str| {
        let mut command = scratch.command(&["--config", &settings, "--store", store, "list"]);
        let output = command.env("GLEITZEIT__SECURITY__SHOWN", paths).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(list("[\"data\"]", "sqlite:w.db").0, Some(0));
    for (paths, store, named) in [
        ("[\".\"]", "memory", "settings.toml"),
        ("[\"data\"]", "sqlite:data/w.db", "w.db"),
        ("[\"data/../settings.toml\"]", "memory", "settings.toml"),
    ] {
        let (status, stderr) = list(paths, store);
        assert_eq!(status, Some(2), "{paths} {store}: {stderr}");
        assert!(stderr.contains(named) && stderr.contains("read_only_paths"), "{stderr}");
    }
}

/// A batch that failed is run again from another directory: it reads the files of the first run,
/// the mended script, and writes where the first one was asked to.
#[test]
fn a_batch_is_retried_from_another_directory() {
    let scratch = Scratch::new();
    for name in ["texts", "elsewhere"] {
        fs::create_dir(scratch.path(name)).unwrap();
    }
    scratch.file("texts/a.txt", "123");
    scratch.file("texts/b.txt", "12345");
    scratch.file("s.py", "raise ValueError('not yet')");
    let ran =
        scratch.json(&["batch", "texts", "--file", "s.py", "--output", "out", "--json"]).status(1);
    let id = ran["workflow_id"].as_str().unwrap();
    scratch.file("s.py", "result = len(open(context['file_path']).read())");
    fs::remove_dir_all(scratch.path("out")).unwrap();
    let store = format!("sqlite:{}", scratch.path("gleitzeit.db").display());
    let mut retry = scratch.command(&["--store", &store, "--json", "retry", id]);
    let output = retry.current_dir(scratch.path("elsewhere")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results(&answer), [json!(3), json!(5)]);
    let written = fs::read_to_string(scratch.path(&format!("out/{id}.json"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), answer);
    assert!(scratch.path(&format!("out/{id}.md")).is_file());

    // It has ended, but nobody came to write what came out.
    fs::remove_dir_all(scratch.path("out")).unwrap();
    assert_eq!(scratch.json(&["resume", id, "--json"]).success(), answer);
    assert!(scratch.path(&format!("out/{id}.json")).is_file());
}

/// A service that runs in `/` finds scripts and files where their workflow was submitted.
#[test]
fn a_service_elsewhere_finds_the_files_of_a_workflow() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("project/texts")).unwrap();
    scratch.file("project/s.py", "result = 'beside the file'");
    scratch.file("here.py", "result = 'in the working directory'");
    scratch.file("project/texts/a.txt", "abc");
    scratch.file("project/length.py", "result = len(open(context['file_path']).read())");
    scratch.file(
        "project/w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {file: s.py}}\n  - {id: b, \
         method: python/execute, params: {file: here.py}, dependencies: [a]}\n",
    );
    scratch.file(
        "project/batch.yaml",
        "type: batch\nname: b\nbatch: {directory: texts, pattern: '*.txt'}\ntemplate: {method: \
         python/execute, file: length.py}\n",
    );
    let store = format!("sqlite:{}", scratch.path("w.db").display());
    let mut serve = scratch
        .command(&["--store", &store, "serve", "--engine"])
        .current_dir("/")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let submit =
        |file: &str| scratch.json(&["--store", &store, "--json", "submit", file, "--wait"]);
    let (both, batch) = (submit("project/w.yaml"), submit("project/batch.yaml"));
    serve.kill().unwrap();
    serve.wait().unwrap();
    assert_eq!(
        results(&both.success()),
        [json!("beside the file"), json!("in the working directory")]
    );
    assert_eq!(results(&batch.success()), [json!(3)]);
}

/// Settings that permit no stored place leave the service what it has itself.
#[test]
fn settings_may_refuse_what_is_stored_with_a_workflow() {
    let scratch = Scratch::new();
    for name in ["project", "service"] {
        fs::create_dir(scratch.path(name)).unwrap();
    }
    scratch.file("project/s.py", "result = 1");
    let file = scratch.file(
        "project/w.yaml",
        "name: w\nid: w\ntasks:\n  - {id: a, method: python/execute, params: {file: s.py}}\n",
    );
    let store = format!("sqlite:{}", scratch.path("w.db").display());
    let at = |arguments: &[&str], roots: &str| {
        let mut command = scratch.command(arguments);
        command.current_dir(scratch.path("service")).env("GLEITZEIT__SECURITY__PLACE_ROOTS", roots);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let run = |roots: &str| at(&["--store", &store, "--json", "run", &file], roots);
    let (status, out) = run("[]");
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("s.py") && out.contains("file_roots"), "{out}");
    let (status, out) = at(&["--store", &store, "--json", "retry", "w"], "[\"/\"]");
    assert_eq!(status, Some(0), "{out}");
}

/// The same id means the same workflow. Another one under that id is refused, and what differs is
/// said; the same one again is shown as it ended.
#[test]
fn another_workflow_under_the_same_id_is_refused() {
    let scratch = Scratch::new();
    let text = |text: &str| {
        format!(
            "name: w\nid: nightly\ninputs: {{day: mon}}\ntasks:\n  - {{id: a, method: echo/echo, \
             params: {{d: '${{inputs.day}}', text: {text}}}}}\n"
        )
    };
    let file = scratch.file("w.yaml", &text("x"));
    let ran = scratch.json(&["run", &file, "--input", "day=mon", "--json"]).success();
    assert_eq!(scratch.json(&["run", &file, "--json"]).success(), ran);
    let other = scratch.file("other.yaml", &text("y"));
    for (arguments, difference) in [
        (vec!["run", &file, "--input", "day=tue"], "input `day` is \"tue\", and was \"mon\""),
        (vec!["run", &other], "task `a` has other parameters"),
        (vec!["submit", &file, "--input", "day=tue"], "input `day` is \"tue\", and was \"mon\""),
        (vec!["submit", &other], "task `a` has other parameters"),
    ] {
        let out = scratch.run(&arguments);
        assert_eq!(out.status, 2, "{arguments:?}: {}", out.stdout);
        assert!(out.stderr.contains(difference), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains("nightly"), "{arguments:?}: {}", out.stderr);
    }
    assert_eq!(scratch.run(&["submit", &file]).status, 0);
}

/// Who submits what another process runs is told its end, and nothing that is not so.
#[test]
fn several_at_once_with_one_id_all_receive_its_end() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\nid: once\ntasks:\n  - {id: a, method: echo/sleep, params: {seconds: 0.5}}\n  - \
         {id: b, method: echo/echo, params: {x: 1}, dependencies: [a]}\n",
    );
    let spawn = |_| {
        scratch
            .command(&["--json", "run", &file])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let running: Vec<_> = (0..4).map(spawn).collect();
    let ended: Vec<_> = running.into_iter().map(|it| it.wait_with_output().unwrap()).collect();
    let stderr = |it: &std::process::Output| String::from_utf8_lossy(&it.stderr).into_owned();
    for output in &ended {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(output.stdout, ended[0].stdout);
        assert!(!stderr(output).contains("is continued"), "{}", stderr(output));
    }
    let events = scratch.json(&["events", "once", "--json"]).success();
    let count = |kind: &str| {
        events.as_array().unwrap().iter().filter(|it| it["event_type"] == kind).count()
    };
    assert_eq!((count("workflow:submitted"), count("task:started")), (1, 2));
}
