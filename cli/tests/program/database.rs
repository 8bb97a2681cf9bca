//! What commands do to the database: who makes it, who changes it, and what they say where they
//! cannot.

use serde_json::{Value, json};

use crate::support::Scratch;

const WORKFLOW: &str = "name: w\ntasks:\n  - {id: a, method: echo/echo, params: {x: 1}}\n";

/// The error that a command answers.
fn refused(scratch: &Scratch, arguments: &[&str], status: i32) -> String {
    let answer = scratch.json(&[arguments, &["--json"]].concat()).status(status);
    answer["error"]["message"].as_str().expect("a message").to_owned()
}

/// A typing error in a URL must not look like an empty database.
#[test]
fn a_url_that_names_no_store_is_a_usage_error_of_every_command() {
    let scratch = Scratch::new();
    let file = scratch.file("w.yaml", WORKFLOW);
    let commands: [&[&str]; 7] = [
        &["list"],
        &["show", "x"],
        &["events", "x"],
        &["run", &file],
        &["db", "status"],
        &["check", &file],
        &["config"],
    ];
    for url in ["sqlite:folder/", "sqlite:~/a.db", "sqlite:a.db?mode=ro", "postgers://h/n"] {
        for command in commands {
            let message = refused(&scratch, &[command, &["--store", url]].concat(), 2);
            assert!(message.contains(url), "{command:?}: {message}");
        }
    }
    let settings = scratch.file("s.toml", "storage.url = \"sqlite:~/a.db\"\n");
    let message = refused(&scratch, &["list", "--config", &settings], 2);
    assert!(message.contains("storage.url") && message.contains("only a shell"), "{message}");
    assert!(!scratch.path("~").exists());
}

/// Commands about what is stored make no database, and change none.
#[test]
fn only_what_brings_work_makes_a_database() {
    let scratch = Scratch::new();
    for command in [&["list"][..], &["resume"]] {
        assert_eq!(scratch.json(&[command, &["--json"]].concat()).success(), json!([]));
    }
    for command in ["show", "cancel", "retry", "resume"] {
        refused(&scratch, &[command, "x"], 2);
    }
    assert!(!scratch.path("gleitzeit.db").exists());
    let plan = scratch.json(&["db", "migrate", "--plan", "--json"]).success();
    assert_eq!(
        (plan["makes_file"].clone(), plan["pending"].as_array().unwrap().len()),
        (json!(true), 8)
    );
    assert!(!scratch.path("gleitzeit.db").exists());
    let file = scratch.file("w.yaml", WORKFLOW);
    let settings = scratch.file("s.toml", "storage.auto_migrate = false\n");
    let message = refused(&scratch, &["run", &file, "--config", &settings], 3);
    assert!(message.contains("gleitzeit db migrate"), "{message}");
    assert!(!scratch.path("gleitzeit.db").exists());
    scratch.json(&["db", "migrate", "--config", &settings, "--json"]).success();
    scratch.json(&["run", &file, "--config", &settings, "--json"]).success();
    assert_eq!(scratch.json(&["list", "--json"]).success().as_array().unwrap().len(), 1);
    let plan = scratch.json(&["db", "migrate", "--plan", "--json"]).success();
    assert_eq!(plan, json!({"makes_file": false, "pending": []}));
}

/// The end of a run whose database is gone is no success.
#[cfg(unix)]
#[test]
fn a_run_whose_database_is_removed_ends_with_3() {
    let scratch = Scratch::new();
    let task =
        |number| format!("  - {{id: t{number}, method: echo/sleep, params: {{seconds: 0.1}}}}\n");
    let tasks = (0..200).map(task).collect::<Vec<_>>().concat();
    let text = format!("name: w\nid: w\nmax_parallel_tasks: 1\ntasks:\n{tasks}");
    let file = scratch.file("w.yaml", &text);
    let mut command = scratch.command(&["run", &file, "--json"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("the program starts");
    let has_begun = || {
        let events = scratch.run(&["events", "w", "--json"]);
        events.status == 0 && events.stdout.contains("task:completed")
    };
    while !has_begun() {
        std::thread::yield_now();
    }
    for name in ["gleitzeit.db", "gleitzeit.db-wal", "gleitzeit.db-shm"] {
        std::fs::remove_file(scratch.path(name)).expect("it was there");
    }
    let output = child.wait_with_output().expect("its own child");
    assert_eq!(output.status.code(), Some(3));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("gleitzeit.db` was removed"), "{message}");
}

/// A server that is told to run what is there says so when that is gone.
#[cfg(unix)]
#[test]
fn a_server_whose_database_is_renamed_ends_with_3() {
    use std::io::{BufRead as _, BufReader, Read as _};

    let scratch = Scratch::new();
    let mut command = scratch.command(&["serve", "--engine"]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    while !line.starts_with("serving ") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("UTF-8"), 0, "it ended before it served");
    }
    // Written to, so that its engine has a lease by now.
    let file = scratch.file("w.yaml", WORKFLOW);
    assert_eq!(scratch.run(&["submit", &file, "--wait"]).status, 0);
    std::fs::rename(scratch.path("gleitzeit.db"), scratch.path("other.db")).expect("it was there");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(child.wait().expect("its own child").code(), Some(3), "{rest}");
    assert!(rest.contains("gleitzeit.db` was removed or renamed"), "{rest}");
}

/// A place where nothing can be written: what is there can be seen, and what must write says why
/// it cannot.
#[cfg(target_os = "linux")]
#[test]
fn a_database_that_cannot_be_written_can_be_read() {
    use nix::mount::{MsFlags, mount, umount};

    let scratch = Scratch::new();
    let file = scratch.file("w.yaml", WORKFLOW);
    std::fs::create_dir(scratch.path("place")).expect("a folder");
    let store = ["--store", "sqlite:place/a.db"];
    assert_eq!(scratch.run(&[&["run", &file], &store[..]].concat()).status, 0);
    let at = scratch.path("place");
    let none = None::<&str>;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    if let Err(error) = mount(Some(&at), &at, none, MsFlags::MS_BIND, none) {
        println!("SKIPPED: a_database_that_cannot_be_written_can_be_read: no mount ({error})");
        return;
    }
    mount(none, &at, none, read_only, none).expect("a second mount");
    let listed = scratch.run(&[&["list", "--json"], &store[..]].concat());
    let exported = scratch.run(&[&["db", "export", "-"], &store[..]].concat());
    let checked = scratch.run(&[&["db", "check"], &store[..]].concat());
    let run = scratch.run(&[&["run", &file], &store[..]].concat());
    umount(&at).expect("it was mounted");
    assert_eq!(listed.status, 0, "{}", listed.stderr);
    assert!(listed.stdout.contains("completed"), "{}", listed.stdout);
    assert_eq!((exported.status, checked.status), (0, 0), "{}{}", exported.stderr, checked.stderr);
    assert_eq!(run.status, 3);
    assert!(run.stderr.contains("a.db` is read-only"), "{}", run.stderr);
}
