//! A machine whose clock stands before 1970, as on a board without a battery.
//!
//! `clock_gettime` is replaced by one that tells a time of long ago, for the program and whatever it
//! starts.

use std::{fs, path::Path};

use crate::support::{Answer, Scratch, old_clock};

fn run_by_old_clock(scratch: &Scratch, shim: &Path, arguments: &[&str]) -> Answer {
    let mut command = scratch.command(arguments);
    command.env("LD_PRELOAD", shim).env("GLEITZEIT__PROVIDERS__PYTHON__ENABLED", "false");
    command.env("GLEITZEIT__ENGINE__PROVIDER_WAIT_TIMEOUT", "1");
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer {
        status: output.status.code().expect("it was not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Only the schema of a new database and HTTP need a right clock, and both say so; all else works,
/// and nothing panics.
#[test]
fn a_clock_before_1970_is_named_or_borne() {
    let scratch = Scratch::new();
    let shim = old_clock::build(&scratch.path(""));
    let file = scratch.file(
        "w.yaml",
        "name: w\nid: w\ntasks:\n  - {id: a, method: echo/echo, params: {v: 1}}\n  \
         - {id: b, method: echo/fail, params: {v: \"${a.v}\", times: 1}, \
         retry: {max_attempts: 2, base_delay: 0.01}}\n",
    );
    let refused = run_by_old_clock(&scratch, &shim, &["run", &file]);
    assert_eq!(refused.status, 3, "{}{}", refused.stdout, refused.stderr);
    for part in ["the clock of this machine says 1969-12-3", "set the clock"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    assert!(!refused.stderr.contains("panic"), "{}", refused.stderr);

    assert_eq!(scratch.run(&["db", "migrate"]).status, 0);
    for arguments in [
        &["run", &file, "--no-progress"][..],
        &["show", "w"],
        &["list"],
        &["events", "w"],
        &["db", "check"],
        &["db", "export", "out.jsonl"],
        &["-vv", "exec", "-c", "1", "--help"],
    ] {
        let answer = run_by_old_clock(&scratch, &shim, arguments);
        assert_eq!(answer.status, 0, "{arguments:?}: {}{}", answer.stdout, answer.stderr);
        assert!(!answer.stderr.contains("panic"), "{arguments:?}: {}", answer.stderr);
    }
    assert!(fs::read_to_string(scratch.path("out.jsonl")).unwrap().contains("1969-12-3"));

    let ask = scratch.file(
        "ask.yaml",
        "name: ask\ntasks:\n  - {id: a, method: llm/generate, timeout: 5, params: {prompt: hello}}\n",
    );
    let answer = run_by_old_clock(&scratch, &shim, &["run", &ask, "--no-progress"]);
    assert_eq!(answer.status, 1, "{}{}", answer.stdout, answer.stderr);
    let printed = answer.stdout + &answer.stderr;
    assert!(printed.contains("the clock of this machine says 1969-12-3"), "{printed}");
    assert!(!printed.contains("panic"), "{printed}");
}
