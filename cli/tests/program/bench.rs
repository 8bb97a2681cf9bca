//! `gleitzeit bench` is `gleitzeit-bench`: found beside the program, else in `PATH`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::support::Scratch;

/// Prints what it was started with, and ends with a status of its own.
const PROGRAM: &str = r#"#!/bin/sh
printf '%s\n' "$NAME store=$GLEITZEIT_STORE config=$GLEITZEIT_CONFIG"
for argument in "$@"; do printf '<%s>\n' "$argument"; done
exit 7
"#;

fn install(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    let file = folder.join("gleitzeit-bench");
    fs::write(&file, PROGRAM.replace("$NAME", name)).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The program in a folder of its own, so that the real `gleitzeit-bench` is not beside it.
fn command(scratch: &Scratch, arguments: &[&str]) -> Command {
    let program = scratch.path("installed/gleitzeit");
    if !program.exists() {
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let built = assert_cmd::cargo::cargo_bin!("gleitzeit");
        // Another file system has no second name of a file.
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
    }
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", scratch.path("path"));
    command.env_remove("GLEITZEIT_STORE").env_remove("GLEITZEIT_CONFIG");
    command
}

fn run(scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(scratch, arguments).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A script of before names `gleitzeit bench`, with options of every command before or after the
/// word.
#[test]
fn bench_passes_its_arguments_on() {
    let scratch = Scratch::new();
    install(&scratch.path("path"), "path");
    let arguments = [
        "--store",
        "sqlite:bench",
        "-vv",
        "bench",
        "--json",
        "--tasks",
        "10",
        "--store=memory",
        "--workload",
        "chain",
        "--help",
    ];
    let (status, out, _) = run(&scratch, &arguments);
    assert_eq!(status, Some(7), "{out}");
    let expected = "path store=sqlite:bench config=\n<--json>\n<--verbose>\n<--verbose>\n<--tasks>\n\
                    <10>\n<--store=memory>\n<--workload>\n<chain>\n<--help>\n";
    assert_eq!(out, expected);

    install(&scratch.path("installed"), "beside");
    for option in ["--help", "--version"] {
        let (status, out, _) = run(&scratch, &["--config", "a.toml", "bench", option]);
        assert_eq!(status, Some(7), "{out}");
        assert_eq!(out, format!("beside store= config=a.toml\n<{option}>\n"));
    }
}

/// Who has only the program learns how to get the other one.
#[test]
fn bench_says_how_to_get_the_load_generator() {
    let scratch = Scratch::new();
    let (status, out, err) = run(&scratch, &["bench", "--tasks", "10"]);
    assert_eq!((status, out.as_str()), (Some(3), ""), "{err}");
    for part in ["gleitzeit-bench", "installed", "cargo install --path loadgen"] {
        assert!(err.contains(part), "no `{part}`: {err}");
    }
    let (status, out, _) = run(&scratch, &["--json", "bench"]);
    let answer: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!(status, Some(3));
    assert!(answer["error"]["message"].as_str().unwrap().contains("gleitzeit-loadgen"), "{out}");
}
