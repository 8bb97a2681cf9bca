//! What a stored workflow needs from the place where it was written, and which of it tasks may see.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::support::Place;

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
    let place = Place::new();
    place.file("one.txt", "1");
    place.file("two.txt", "2");
    place.file("other.md", "3");
    place.file(".env", "SECRET=1");
    place.file(
        "s.py",
        "from pathlib import Path\nnames = ['.env', 'copy.txt', 'gleitzeit.db', 'one.txt', \
         'other.md', 's.py', 'two.txt']\nhere = Path(context['file_path']).parent\nresult = \
         [Path(context['file_path']).name, [it for it in names if (here / it).exists()]]",
    );
    let batch = |pattern: &str| {
        let ran = ["batch", ".", "--pattern", pattern, "--file", "s.py", "--json"];
        results(&place.json(&ran).success())
    };
    let both = json!(["one.txt", "two.txt"]);
    for _ in 0..2 {
        assert_eq!(batch("*.txt"), [json!(["one.txt", both]), json!(["two.txt", both])]);
    }
    std::os::unix::fs::symlink(place.path("gleitzeit.db"), place.path("copy.txt")).unwrap();
    let all = json!(["one.txt", "other.md", "two.txt"]);
    for pattern in ["*", "**/*"] {
        let seen: Vec<Value> = batch(pattern);
        assert_eq!(seen.len(), 3, "{pattern}: {seen:?}");
        assert!(seen.iter().all(|it| it[1] == all), "{pattern}: {seen:?}");
    }
}

/// A directory that is shown to every task must not hold the database or the settings.
#[test]
fn what_is_shown_may_not_hold_what_belongs_to_the_service() {
    let place = Place::new();
    let settings = place.file("settings.toml", "[security]\nread_only_paths = [\"data\"]\n");
    fs::create_dir(place.path("data")).unwrap();
    let list = |shown: &str, store: &str| {
        let mut command = place.command(&["--config", &settings, "--store", store, "list"]);
        let output = command.env("GLEITZEIT__SECURITY__SHOWN", shown).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(list("[\"data\"]", "sqlite:w.db").0, Some(0));
    for (shown, store, told) in [
        ("[\".\"]", "memory", "settings.toml"),
        ("[\"data\"]", "sqlite:data/w.db", "w.db"),
        ("[\"data/../settings.toml\"]", "memory", "settings.toml"),
    ] {
        let (status, stderr) = list(shown, store);
        assert_eq!(status, Some(2), "{shown} {store}: {stderr}");
        assert!(stderr.contains(told) && stderr.contains("read_only_paths"), "{stderr}");
    }
}

/// A batch that failed is run again from another directory: it reads the files of the first run,
/// the mended script, and writes where the first one was asked to.
#[test]
fn a_batch_is_retried_from_another_directory() {
    let place = Place::new();
    for name in ["texts", "elsewhere"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    place.file("texts/a.txt", "123");
    place.file("texts/b.txt", "12345");
    place.file("s.py", "raise ValueError('not yet')");
    let ran =
        place.json(&["batch", "texts", "--file", "s.py", "--output", "out", "--json"]).status(1);
    let id = ran["workflow_id"].as_str().unwrap();
    place.file("s.py", "result = len(open(context['file_path']).read())");
    fs::remove_dir_all(place.path("out")).unwrap();
    let store = format!("sqlite:{}", place.path("gleitzeit.db").display());
    let mut retry = place.command(&["--store", &store, "--json", "retry", id]);
    let output = retry.current_dir(place.path("elsewhere")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results(&told), [json!(3), json!(5)]);
    let written = fs::read_to_string(place.path(&format!("out/{id}.json"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), told);
    assert!(place.path(&format!("out/{id}.md")).is_file());

    // It has ended, but nobody came to write what came out.
    fs::remove_dir_all(place.path("out")).unwrap();
    assert_eq!(place.json(&["resume", id, "--json"]).success(), told);
    assert!(place.path(&format!("out/{id}.json")).is_file());
}

/// A service that runs in `/` finds scripts and files where their workflow was submitted.
#[test]
fn a_service_elsewhere_finds_the_files_of_a_workflow() {
    let place = Place::new();
    fs::create_dir_all(place.path("project/texts")).unwrap();
    place.file("project/s.py", "result = 'beside the file'");
    place.file("here.py", "result = 'in the working directory'");
    place.file("project/texts/a.txt", "abc");
    place.file("project/length.py", "result = len(open(context['file_path']).read())");
    place.file(
        "project/w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {file: s.py}}\n  - {id: b, \
         method: python/execute, params: {file: here.py}, dependencies: [a]}\n",
    );
    place.file(
        "project/batch.yaml",
        "type: batch\nname: b\nbatch: {directory: texts, pattern: '*.txt'}\ntemplate: {method: \
         python/execute, file: length.py}\n",
    );
    let store = format!("sqlite:{}", place.path("w.db").display());
    let mut serve = place
        .command(&["--store", &store, "serve", "--engine"])
        .current_dir("/")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let submit = |file: &str| place.json(&["--store", &store, "--json", "submit", file, "--wait"]);
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
    let place = Place::new();
    for name in ["project", "service"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    place.file("project/s.py", "result = 1");
    let file = place.file(
        "project/w.yaml",
        "name: w\nid: w\ntasks:\n  - {id: a, method: python/execute, params: {file: s.py}}\n",
    );
    let store = format!("sqlite:{}", place.path("w.db").display());
    let at = |arguments: &[&str], roots: &str| {
        let mut command = place.command(arguments);
        command.current_dir(place.path("service")).env("GLEITZEIT__SECURITY__PLACE_ROOTS", roots);
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
    let place = Place::new();
    let text = |text: &str| {
        format!(
            "name: w\nid: nightly\ninputs: {{day: mon}}\ntasks:\n  - {{id: a, method: echo/echo, \
             params: {{d: '${{inputs.day}}', text: {text}}}}}\n"
        )
    };
    let file = place.file("w.yaml", &text("x"));
    let ran = place.json(&["run", &file, "--input", "day=mon", "--json"]).success();
    assert_eq!(place.json(&["run", &file, "--json"]).success(), ran);
    let other = place.file("other.yaml", &text("y"));
    for (arguments, told) in [
        (vec!["run", &file, "--input", "day=tue"], "input `day` is \"tue\", and was \"mon\""),
        (vec!["run", &other], "task `a` has other parameters"),
        (vec!["submit", &file, "--input", "day=tue"], "input `day` is \"tue\", and was \"mon\""),
        (vec!["submit", &other], "task `a` has other parameters"),
    ] {
        let out = place.run(&arguments);
        assert_eq!(out.status, 2, "{arguments:?}: {}", out.stdout);
        assert!(out.stderr.contains(told), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains("nightly"), "{arguments:?}: {}", out.stderr);
    }
    assert_eq!(place.run(&["submit", &file]).status, 0);
}

/// Who submits what another process runs is told its end, and nothing that is not so.
#[test]
fn several_at_once_with_one_id_are_all_told_its_end() {
    let place = Place::new();
    let file = place.file(
        "w.yaml",
        "name: w\nid: once\ntasks:\n  - {id: a, method: echo/sleep, params: {seconds: 0.5}}\n  - \
         {id: b, method: echo/echo, params: {x: 1}, dependencies: [a]}\n",
    );
    let spawn = |_| {
        place
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
    let events = place.json(&["events", "once", "--json"]).success();
    let count = |kind: &str| {
        events.as_array().unwrap().iter().filter(|it| it["event_type"] == kind).count()
    };
    assert_eq!((count("workflow:submitted"), count("task:started")), (1, 2));
}
