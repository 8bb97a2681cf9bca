//! A program that is killed or interrupted in the middle of a workflow: what is done stays done,
//! and what is left is continued, retried or cancelled by the next one.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Stdio},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::{Value, json};

use crate::support::Scratch;

/// A chain `a` → `b` → `c`. Each writes its letter to a log; `b`, the first time that it runs,
/// says so through one pipe and waits at another.
struct Chain {
    scratch: Scratch,
    file: String,
    /// A workflow of `b` alone, with the id `alone`.
    alone: String,
}

impl Chain {
    fn new() -> Self {
        let scratch = Scratch::without_jail();
        for pipe in ["started", "gate"] {
            mkfifo(&scratch.path(pipe), Mode::S_IRWXU).expect("a named pipe");
        }
        let quoted = |name: &str| json!(scratch.path(name)).to_string();
        let log = quoted("log");
        let write = |letter: &str| format!("open({log}, 'a').write('{letter}')");
        let wait = format!(
            "{}\nif open({log}).read().count('b') == 1:\n    open({}, 'w').write('x')\n    \
             open({}).read()\n",
            write("b"),
            quoted("started"),
            quoted("gate"),
        );
        let task = |id: &str, code: String, after: &[&str]| {
            json!({
                "id": id, "method": "python/execute", "dependencies": after,
                "params": {"code": code},
            })
        };
        let workflow = json!({"name": "chain", "id": "chain", "tasks": [
            task("a", write("a"), &[]),
            task("b", wait.clone(), &["a"]),
            task("c", write("c"), &["b"]),
        ]});
        let file = scratch.file("chain.json", &workflow.to_string());
        let workflow = json!({"name": "alone", "id": "alone", "tasks": [task("b", wait, &[])]});
        let alone = scratch.file("alone.json", &workflow.to_string());
        Self { scratch, file, alone }
    }

    /// Starts the workflow; answers when `b` runs and waits.
    fn start(&self) -> Child {
        self.start_file(&self.file)
    }

    fn start_file(&self, file: &str) -> Child {
        let child = self
            .scratch
            .command(&["run", file, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // Opening a pipe for reading waits until the other end is opened for writing.
        File::open(self.scratch.path("started")).expect("a pipe");
        child
    }

    /// Starts it and kills it with `b` in the middle of its run.
    fn killed(self) -> Self {
        let mut child = self.start();
        child.kill().expect("it runs");
        child.wait().expect("it was started here");
        self
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path("log")).expect("a log")
    }

    fn show(&self) -> Value {
        self.scratch.json(&["show", "chain", "--json"]).success()
    }
}

impl Drop for Chain {
    /// Frees a `b` that outlived its program.
    fn drop(&mut self) {
        let _ = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(self.scratch.path("gate"));
    }
}

/// The promise of the store: no completed task runs again, and none is lost.
#[test]
fn a_killed_run_is_resumed_without_running_completed_tasks_again() {
    let chain = Chain::new().killed();
    assert_eq!(chain.show()["tasks"]["a"]["status"], "completed");
    assert_ne!(chain.show()["status"], "completed");
    let resumed = chain.scratch.json(&["resume", "chain", "--json"]).success();
    assert_eq!(resumed["status"], "completed");
    assert_eq!(chain.log(), "abbc", "a once, the b that was cut off again, c once");
    let again = chain.scratch.json(&["resume", "chain", "--json"]).status(2);
    assert_eq!(again["error"]["name"], "WORKFLOW_INVALID_STATE");
}

/// What `show` tells of a workflow whose process died is of the past; a person must see that.
#[test]
fn show_says_when_nobody_runs_a_workflow() {
    let chain = Chain::new();
    let printed = || {
        let output =
            chain.scratch.command(&["show", "chain"]).output().expect("the program starts");
        String::from_utf8(output.stdout).expect("text")
    };
    let mut child = chain.start();
    let while_it_runs = printed();
    child.kill().expect("it runs");
    child.wait().expect("it was started here");
    assert!(while_it_runs.contains("running"), "{while_it_runs}");
    assert!(!while_it_runs.contains("nobody runs it"), "{while_it_runs}");
    let text = printed();
    let note = "nobody runs it: its process is gone; `gleitzeit resume chain` or an engine on this \
                store goes on with it\n";
    assert!(text.contains(note), "{text}");
    chain.scratch.json(&["resume", "chain", "--json"]).success();
    assert!(!printed().contains("nobody runs it"));
}

/// Whoever does not know the id continues everything.
#[test]
fn resume_without_an_id_continues_all_that_is_left() {
    let chain = Chain::new().killed();
    let resumed = chain.scratch.json(&["resume", "--json"]).success();
    assert_eq!(resumed[0]["workflow_id"], "chain");
    assert_eq!(resumed[0]["status"], "completed");
    assert_eq!(chain.log(), "abbc");
    assert_eq!(chain.scratch.json(&["resume", "--json"]).success(), json!([]));
}

/// `run` with the same file means the same workflow.
#[test]
fn running_the_file_again_continues_what_was_killed() {
    let chain = Chain::new().killed();
    let ran = chain.scratch.json(&["run", &chain.file, "--json"]).success();
    assert_eq!(ran["status"], "completed");
    assert_eq!(chain.log(), "abbc");
}

/// `run` of another file leaves a killed workflow to `resume`.
#[test]
fn running_another_file_does_not_touch_what_was_killed() {
    let chain = Chain::new().killed();
    let other = chain.scratch.file(
        "other.json",
        r#"{"name": "o", "tasks": [{"id": "x", "method": "echo/echo", "params": {"text": "x"}}]}"#,
    );
    chain.scratch.json(&["run", &other, "--json"]).success();
    assert_eq!(chain.log(), "ab");
}

/// What nobody runs is cancelled in the store, and a person may change their mind.
#[test]
fn a_killed_workflow_is_cancelled_and_retried() {
    let chain = Chain::new().killed();
    let cancelled = chain.scratch.json(&["cancel", "chain", "--reason", "enough", "--json"]);
    let cancelled = cancelled.success();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["tasks"]["a"]["status"], "completed");
    assert_eq!(cancelled["tasks"]["c"]["error"]["name"], "TASK_CANCELLED");
    assert!(cancelled["tasks"]["c"]["error"]["message"].as_str().unwrap().ends_with("enough"));
    chain.scratch.json(&["cancel", "chain", "--json"]).status(2);
    let retried = chain.scratch.json(&["retry", "chain", "--json"]).success();
    assert_eq!(retried["status"], "completed");
    assert_eq!(chain.log(), "abbc");
}

/// The first Ctrl-C lets the running task end, starts no other, and leaves the rest for later.
#[test]
fn ctrl_c_stops_in_good_order() {
    let chain = Chain::new();
    let mut child = chain.start();
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.starts_with("stopping;"), "{line}");
    let mut gate = OpenOptions::new().write(true).open(chain.scratch.path("gate")).expect("a pipe");
    gate.write_all(b"x").expect("b waits");
    drop(gate);
    let output = child.wait_with_output().expect("it was started here");
    assert_eq!(output.status.code(), Some(130));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(answer["error"]["message"].as_str().is_some_and(|it| it.contains("resume chain")));
    assert_eq!(chain.log(), "ab", "c was not begun");
    let resumed = chain.scratch.json(&["resume", "chain", "--json"]).success();
    assert_eq!(resumed["status"], "completed");
    assert_eq!(chain.log(), "abc");
}

/// What ends after Ctrl-C, but in time, is reported as it ended: nothing is left to be continued.
#[test]
fn ctrl_c_before_the_last_task_ends_is_no_interruption() {
    let chain = Chain::new();
    let mut child = chain.start_file(&chain.alone);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.starts_with("stopping;"), "{line}");
    let mut gate = OpenOptions::new().write(true).open(chain.scratch.path("gate")).expect("a pipe");
    gate.write_all(b"x").expect("b waits");
    drop(gate);
    let output = child.wait_with_output().expect("it was started here");
    assert_eq!(output.status.code(), Some(0));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(answer["status"], "completed", "{answer}");
}

/// Advice that is followed is not refused, and there is none where nothing can be done.
#[test]
fn a_settled_workflow_is_neither_cancelled_nor_continued() {
    let scratch = Scratch::new();
    let file = |name: &str, method: &str| {
        let is_echo = method == "echo/echo";
        let params = if is_echo { json!({"message": "x"}) } else { json!({"code": "1/0"}) };
        let task = json!({"id": "t", "method": method, "params": params});
        let workflow = json!({"name": name, "id": name, "tasks": [task]});
        scratch.file(&format!("{name}.json"), &workflow.to_string())
    };
    scratch.run(&["run", &file("good", "echo/echo")]);
    scratch.run(&["run", &file("bad", "python/execute")]);
    for command in ["cancel", "resume", "retry"] {
        let out = scratch.run(&[command, "good"]);
        assert_eq!(out.status, 2, "{command}: {}", out.stderr);
        let message = format!("error: workflow good is completed: there is nothing to {command}\n");
        assert_eq!(out.stderr, message);
    }
    for (arguments, advice) in [
        (&["cancel", "bad"][..], "is failed: there is nothing to cancel\n"),
        (&["resume", "bad"], "; `gleitzeit retry bad` runs again"),
        (&["resolve", "bad", "t", "--retry"], "; `gleitzeit retry bad` runs again"),
        (&["settle", "good", "t", "--retry"], "is completed: there is nothing to resolve\n"),
        (&["cancel", "bad", "--task", "x"], "has no task `x`; it has t\n"),
        (&["resolve", "bad", "x", "--retry"], "has no task `x`; it has t\n"),
    ] {
        let out = scratch.run(arguments);
        assert_eq!(out.status, 2, "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(advice), "{arguments:?}: {}", out.stderr);
    }
    assert_eq!(scratch.run(&["retry", "bad"]).status, 1, "it runs, and fails again");
}

/// In the wrong directory there is nothing, and a person must see that it is the wrong one.
#[test]
fn a_search_in_the_wrong_directory_names_the_path() {
    let scratch = Scratch::new();
    let whole = fs::canonicalize(scratch.path(".")).expect("a directory").join("gleitzeit.db");
    for arguments in [&["list"][..], &["resume"], &["show", "w"], &["logs", "w"]] {
        let out = scratch.run(arguments);
        let printed = out.stdout + &out.stderr;
        let location = format!("in sqlite:{}: there is no such file", whole.display());
        assert!(printed.contains(&location), "{arguments:?}: {printed}");
    }
    scratch.run(&["exec", "-c", "1"]);
    assert!(!whole.exists(), "looking makes no file");
}

/// The second Ctrl-C does not wait for the task.
#[test]
fn a_second_ctrl_c_ends_at_once() {
    let chain = Chain::new();
    let mut child = chain.start();
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
    errors.read_line(&mut String::new()).expect("a line");
    kill(pid, Signal::SIGINT).expect("it still runs");
    assert_eq!(child.wait().expect("it was started here").code(), Some(130));
    assert_eq!(chain.show()["tasks"]["c"]["status"], "pending");
}

/// One task is taken out of what is left, and what waits for it is skipped.
#[test]
fn one_task_of_a_killed_workflow_is_cancelled() {
    let chain = Chain::new().killed();
    let arguments = ["cancel", "chain", "--task", "b", "--json"];
    let cancelled = chain.scratch.json(&arguments).success();
    assert_eq!(cancelled["tasks"]["b"]["status"], "cancelled");
    assert_eq!(cancelled["tasks"]["c"]["status"], "upstream_failed");
    assert_eq!(chain.log(), "ab", "nothing was run");
    let unknown = chain.scratch.json(&["cancel", "chain", "--task", "x", "--json"]).status(2);
    assert_ne!(unknown["error"], Value::Null);
}

/// A second process looks on while the first one runs, and its last event is the end.
#[test]
fn a_running_workflow_is_followed_from_another_process() {
    let chain = Chain::new();
    let runs = chain.start();
    let follows = chain
        .scratch
        .command(&["events", "chain", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let show = chain.show();
    assert_eq!(show["tasks"]["a"]["status"], "completed");
    assert_eq!(show["tasks"]["c"]["status"], "pending");
    let mut gate = OpenOptions::new().write(true).open(chain.scratch.path("gate")).expect("a pipe");
    gate.write_all(b"x").expect("b waits");
    drop(gate);
    assert!(runs.wait_with_output().expect("it was started here").status.success());
    let output = follows.wait_with_output().expect("it was started here");
    let events: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let events = events.as_array().expect("a list");
    let sequences: Vec<u64> = events.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[events.len() - 1]["event_type"], "workflow:completed");
}
