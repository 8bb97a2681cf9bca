//! The first minutes with the program: a new project, a workflow from standard input, inputs from files.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::support::Scratch;

const ECHO: &str = "name: w\ninputs: {n: 1, city: Bonn}\ntasks:\n  - {id: t, method: echo/echo, \
                    params: {n: '${inputs.n}', city: '${inputs.city}', s: 'v${inputs.v}'}}\n";

/// What the program answers to a text at standard input.
fn with_stdin(scratch: &Scratch, arguments: &[&str], text: &str) -> (i32, String, String) {
    let mut command = scratch.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The commands that `init` prints are run by a shell, word for word.
#[test]
fn the_commands_that_init_prints_work() {
    let scratch = Scratch::new();
    for directory in ["my project", "."] {
        let out = scratch.run(&["init", directory]);
        assert_eq!(out.status, 0, "{}", out.stderr);
        let commands: Vec<&str> =
            out.stdout.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert!(commands.len() >= 4, "{}", out.stdout);
        let program = scratch.command(&[]);
        let folder = std::path::Path::new(program.get_program()).parent().unwrap().to_owned();
        let mut shell = Command::new("sh");
        shell.args(["-euc", &commands.join("\n")]).current_dir(scratch.path("."));
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let output = shell.env("PATH", path).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
        let (out, err) = (out.unwrap(), err.unwrap());
        assert!(output.status.success(), "{out}\n{err}");
        assert!(out.contains("Somebody said: Hello, Ada!"), "{out}");
        assert!(out.contains("Somebody said: Hello, world!"), "{out}");
    }
    assert!(scratch.path("my project/gleitzeit.db").is_file());
}

/// What is there stays, and then nothing is written; lines of `.gitignore` are added once.
#[test]
fn init_overwrites_nothing() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("p/workflows")).unwrap();
    scratch.file("p/workflows/hello.yaml", "mine");
    scratch.file("p/.gitignore", "*.tmp\n/gleitzeit.db");
    let out = scratch.run(&["init", "p"]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("p/workflows/hello.yaml is there already"), "{}", out.stderr);
    assert!(!scratch.path("p/gleitzeit.toml").exists());
    fs::remove_file(scratch.path("p/workflows/hello.yaml")).unwrap();
    let answer = scratch.json(&["init", "p", "--json"]).success();
    assert_eq!(answer["next"][0], "cd p");
    let ignored = fs::read_to_string(scratch.path("p/.gitignore")).unwrap();
    assert_eq!(ignored, "*.tmp\n/gleitzeit.db\n/gleitzeit.db-*\n/gleitzeit-results/\n");
    let again = scratch.run(&["init", "p"]);
    assert_eq!(again.status, 2);
    assert!(again.stderr.contains("p/gleitzeit.toml and p/workflows/hello.yaml"));
    // Broken settings of a project above do not keep anybody from making another one.
    scratch.file("gleitzeit.toml", "[");
    assert_eq!(scratch.run(&["init", "other"]).status, 0);
}

/// A workflow comes by standard input in each format, and what is wrong with it is shown there.
#[test]
fn a_workflow_is_read_from_standard_input() {
    let scratch = Scratch::new();
    let json_file = json!({
        "name": "w", "inputs": {"n": 1, "city": "Bonn"},
        "tasks": [{"id": "t", "method": "echo/echo", "params": {"n": "${inputs.n}"}}],
    });
    let toml = "name = \"w\"\n[[tasks]]\nid = \"t\"\nmethod = \"echo/echo\"\nparams = {n = 1}\n";
    for text in [ECHO, &json_file.to_string(), toml] {
        let (status, out, err) =
            with_stdin(&scratch, &["--json", "run", "-", "--input", "v=1"], text);
        assert_eq!(status, 0, "{err}");
        let ran: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(ran["tasks"]["t"]["result"]["n"], 1);
    }
    let (status, _, err) = with_stdin(&scratch, &["check", "-"], "name: w\ntaks: []\n");
    assert_eq!(status, 2);
    assert!(err.contains("<stdin>:2:1") && err.contains("did you mean `tasks`?"), "{err}");
    let (status, out, _) = with_stdin(&scratch, &["graph", "-", "--input", "v=1"], ECHO);
    assert!(status == 0 && out.contains("graph") || out.contains("flowchart"), "{out}");
    let (status, out, err) = with_stdin(&scratch, &["submit", "-", "--input", "v=1"], ECHO);
    assert_eq!(status, 0, "{out}{err}");
}

/// Inputs come from a file in each format: below `--input`, above the workflow's own; numbers keep
/// how they are written.
#[test]
fn inputs_are_read_from_a_file() {
    let scratch = Scratch::new();
    let file = scratch.file("w.yaml", ECHO);
    scratch.file("in.json", "{\"n\": 2, \"v\": 1.10}");
    scratch.file("in.yaml", "n: 2\nv: 1.10\n");
    scratch.file("in.toml", "n = 2\nv = 1.10\n");
    let result = |arguments: &[&str]| {
        let ran = scratch.json(&[&["--json", "run", &file], arguments].concat()).success();
        ran["tasks"]["t"]["result"].clone()
    };
    let expected = json!({"n": 2, "city": "Bonn", "s": "v1.10"});
    for name in ["in.json", "in.yaml", "in.toml"] {
        assert_eq!(result(&["--input-file", name]), expected, "{name}");
    }
    let above = result(&["--input", "n=3", "--input-file", "in.json", "--input", "city=Ulm"]);
    assert_eq!(above, json!({"n": 3, "city": "Ulm", "s": "v1.10"}));
    let (status, out, err) =
        with_stdin(&scratch, &["--json", "run", &file, "--input-file", "-"], "n: 2\nv: 1.10\n");
    assert_eq!(status, 0, "{err}");
    let ran: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ran["tasks"]["t"]["result"], expected);
    scratch.file("list.yaml", "- 1\n");
    scratch.file("twice.json", "{\"n\": 1, \"n\": 2}");
    for (arguments, message) in [
        (&["run", &file, "--input-file", "list.yaml"][..], "list.yaml:1:1"),
        (&["run", &file, "--input-file", "list.yaml"], "expected a mapping"),
        (&["run", &file, "--input-file", "twice.json"], "the key `n` is given twice"),
        (&["run", &file, "--input-file", "none.json"], "cannot read `none.json`"),
        (&["run", "-", "--input-file", "-"], "cannot be both"),
    ] {
        let out = scratch.run(arguments);
        assert_eq!(out.status, 2, "{arguments:?}");
        assert!(out.stderr.contains(message), "{arguments:?}: {}", out.stderr);
    }
}

/// A span is written with units wherever one is read; what is stored is seconds.
#[test]
fn spans_of_time_have_units() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\nid: w\ntimeout: 5m\ntasks:\n  - {id: t, method: echo/echo, timeout: 1h30m, \
         params: {x: 1}, retry: {max_attempts: 2, base_delay: 500ms, max_delay: 2m}}\n",
    );
    scratch.json(&["--json", "run", &file]).success();
    let stored = scratch.run(&["db", "export", "-"]).stdout;
    for part in ["\"timeout\":300", "\"timeout\":5400", "\"base_delay\":0.5", "\"max_delay\":120"] {
        assert!(stored.contains(part), "no {part} in {stored}");
    }
    let bad = scratch.file("bad.yaml", "name: w\ntimeout: 5x\ntasks:\n  - {method: echo/echo}\n");
    let out = scratch.run(&["check", &bad]);
    assert_eq!(out.status, 2);
    for part in ["bad.yaml:2:10", "unknown unit `x`", "^^ a number of seconds", "`1h30m`"] {
        assert!(out.stderr.contains(part), "no `{part}` in {}", out.stderr);
    }
    let settings = scratch.file("s.toml", "[engine]\ndefault_timeout = \"2m\"\n");
    let answer = scratch.json(&["--json", "config", "--config", &settings]).success();
    assert_eq!(answer["engine"]["default_timeout"], 120);
    scratch.file("s.toml", "[engine]\ndefault_timeout = \"2x\"\n");
    let out = scratch.run(&["config", "--config", &settings]);
    assert_eq!(out.status, 2);
    assert!(out.stderr.contains("s.toml:2:1") && out.stderr.contains("unknown unit `x`"));
}

/// `-V` is one line; `--version` says what a report of a fault needs.
#[test]
fn the_version_names_commit_and_features() {
    let scratch = Scratch::new();
    let short = scratch.run(&["-V"]).stdout;
    assert_eq!(short, format!("gleitzeit {}\n", env!("CARGO_PKG_VERSION")));
    let long = scratch.run(&["--version"]).stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], short.trim_end());
    let commit = lines[1].strip_prefix("commit: ").unwrap();
    let is_hash = commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(commit == "unknown" || is_hash, "{commit}");
    assert!(lines[2].starts_with("features: ") && lines[2].contains("sqlite"), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
}

/// A command's own options come before those of every command, which have a heading.
#[test]
fn global_options_are_grouped_in_the_help() {
    let scratch = Scratch::new();
    for command in ["run", "list", "resolve", "db"] {
        let help = scratch.run(&[command, "--help"]).stdout;
        let (own, global) = help.split_once("\nGlobal options:\n").expect("a heading");
        for option in ["--config", "--store", "--json", "--no-progress", "--verbose"] {
            assert!(global.contains(option) && !own.contains(&format!("  {option}")), "{help}");
        }
        assert!(own.contains("--help") || own.contains("Commands:"), "{help}");
    }
}
