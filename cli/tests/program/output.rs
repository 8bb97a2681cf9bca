//! What reaches standard output and standard error: nothing that drives a terminal, nothing twice,
//! and no success where it could not be written.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::Scratch;

/// Sets a title, moves the cursor, writes the clipboard, goes back to the start of the line, and
/// changes the order in which a line is read.
const EVIL: &str = "\u{1b}]0;t\u{7}\u{1b}[2J\u{1b}[31mEVIL\u{1b}[8m\r\u{202e}gnp\u{9b}31m\u{2066}";

/// Sequences with which the program itself sets colours.
const COLOURS: [&str; 12] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[3m",
    "\u{1b}[4m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[36m",
    "\u{1b}[1;31m",
    "\u{1b}[1;32m",
    "\u{1b}[1;34m",
];

/// A place with a workflow file in which everything that comes from outside is [`EVIL`].
fn evil_scratch() -> (Scratch, String) {
    let scratch = Scratch::new();
    let code = |text: &str| serde_json::to_string(text).expect("JSON");
    let quoted = code(EVIL);
    let raises = format!("print({quoted})\nraise ValueError({quoted} + '\\r\\nforged')");
    let class =
        format!("class E(Exception): pass\nE.__name__ = E.__qualname__ = {quoted}\nraise E()");
    let tasks = [
        format!(
            r#"{{"id": "a", "name": {quoted}, "method": "python/execute", "params": {{"code": {}}}}}"#,
            code(&format!("result = {quoted}"))
        ),
        format!(
            r#"{{"id": "b", "method": "python/execute", "params": {{"code": {}}}}}"#,
            code(&raises)
        ),
        format!(
            r#"{{"id": "c", "method": "python/execute", "params": {{"code": {}}}}}"#,
            code(&class)
        ),
        format!(r#"{{"id": "d", "method": "echo/echo", "params": {{"message": {quoted}}}}}"#),
    ];
    let file = scratch
        .file("evil.json", &format!(r#"{{"name": {quoted}, "tasks": [{}]}}"#, tasks.join(", ")));
    (scratch, file)
}

/// Everything that a command wrote holds text and the program's own colours, nothing else.
fn assert_harmless(command: &mut Command, with_colours: bool) {
    let output = command.output().expect("the program starts");
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let text = String::from_utf8(bytes).expect("UTF-8");
        // Colours within a value would be the value's own.
        assert!(!text.contains("\u{1b}[31mEVIL"), "{command:?} {name}: {text:?}");
        let mut left = text.clone();
        if with_colours {
            left = COLOURS.iter().fold(left, |left, own| left.replace(own, ""));
        }
        let driving = left.chars().find(|c| {
            c.is_control() && !matches!(c, '\n' | '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        });
        assert_eq!(driving, None, "{command:?} {name}: {text:?}");
        // `logs` of one task is what it wrote, line by line.
        let is_plain = command
            .get_args()
            .filter(|it| !it.to_string_lossy().starts_with('-'))
            .eq(["logs", "w", "b"]);
        assert!(
            is_plain || !text.lines().any(|line| line == "forged"),
            "{command:?} {name}: {text:?}"
        );
    }
}

/// Whatever a task, a file or an argument says is shown as text, by every command, with colours
/// and without, to a person and to a program.
#[test]
fn nothing_from_outside_drives_the_terminal() {
    let (scratch, file) = evil_scratch();
    let evil_file = scratch.file(&format!("{}.yaml", EVIL.replace('/', "")), "name: [");
    let toml = scratch.file("p.toml", &format!("name = {EVIL:?}"));
    let params = scratch.file("params.json", &format!("{{{EVIL:?}: 1}}"));
    let quoted = serde_json::to_string(EVIL).unwrap();
    let code = format!("print({quoted})\nraise ValueError({quoted})");
    fs::create_dir(scratch.path("texts")).unwrap();
    scratch.file(&format!("texts/{}", EVIL.replace('/', "")), "x");
    let script = scratch.file("s.py", &code);
    let commands: [&[&str]; 24] = [
        &["run", &file, "--id", "w"],
        &["run", &file, "--id", "w2", "--logs"],
        &["show", "w"],
        &["list"],
        &["list", "--name", EVIL],
        &["events", "w"],
        &["logs", "w"],
        &["logs", "w", "b"],
        &["logs", "w", EVIL],
        &["retry", "w"],
        &["cancel", "w", "--reason", EVIL],
        &["resolve", "w", "b", "--failed", EVIL],
        &["resume", "w"],
        &["check", &file],
        &["check", &evil_file],
        &["graph", &file],
        &["graph", &file, "--format", "dot"],
        &["exec", "-c", &code],
        &["batch", "texts", "--file", &script],
        &["submit", &file, "--id", "w3"],
        &["protocols", "list", "--protocol-file", &toml],
        &["protocols", "validate", "python", "execute", &params],
        &["db", "export", "-"],
        &[EVIL],
    ];
    for arguments in commands {
        assert_harmless(&mut scratch.command(arguments), false);
        assert_harmless(scratch.command(arguments).env("FORCE_COLOR", "1"), true);
        if arguments[0] != "db" {
            let mut with_json = scratch.command(arguments);
            assert_harmless(with_json.arg("--json"), false);
        }
        let mut logged = scratch.command(arguments);
        logged.arg("-vv").env("GLEITZEIT__LOGGING__FORMAT", "json");
        assert_harmless(&mut logged, false);
    }
    let printed = scratch.run(&["show", "w"]).stdout;
    assert!(printed.contains("\\u001b[31mEVIL"), "it is text: {printed}");
}

/// A program reads from `--json` what the task gave, to the character.
#[test]
fn json_keeps_every_character_as_an_escape() {
    let (scratch, file) = evil_scratch();
    let ran = scratch.json(&["run", &file, "--json"]).status(1);
    assert_eq!(ran["tasks"]["a"]["result"]["result"], EVIL);
    assert_eq!(ran["tasks"]["a"]["name"], EVIL);
}

/// A result that cannot be written is lost, and whoever looks at the exit status must know.
#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: t, method: echo/echo, params: {message: hello}}\n",
    );
    scratch.json(&["run", &file, "--id", "w", "--json"]).success();
    let commands: [&[&str]; 15] = [
        &["run", &file],
        &["run", &file, "--json"],
        &["show", "w"],
        &["show", "w", "--json"],
        &["list"],
        &["list", "--json"],
        &["events", "w"],
        &["events", "w", "--json"],
        &["exec", "-c", "result = 1"],
        &["graph", &file],
        &["config"],
        &["db", "export", "-"],
        &["protocols", "list"],
        &["completions", "bash"],
        &["--help"],
    ];
    for arguments in commands {
        let full = File::options().write(true).open("/dev/full").expect("a full device");
        let output = scratch.command(arguments).stdout(full).output().expect("the program starts");
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {printed}");
        assert!(printed.contains("No space left"), "{arguments:?}: {printed}");
    }
}

/// `gleitzeit events -f w | head -1` ends with `head`, though the workflow says nothing more for
/// minutes; and no command makes a noise about a reader that left.
#[test]
fn a_command_ends_with_its_reader() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: t, method: echo/sleep, params: {seconds: 600}}\n",
    );
    let mut runs = scratch
        .command(&["run", &file, "--id", "w", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    while scratch.run(&["show", "w"]).status != 0 {}
    let mut follows = scratch
        .command(&["events", "w", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(follows.stdout.take().expect("a pipe"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert!(line.contains("workflow:submitted"), "{line}");
    drop(lines);
    let ended = follows.wait_with_output().expect("its own child");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert!(ended.status.success(), "{:?}", ended.status);
    for arguments in [&["show", "w"][..], &["list", "--json"], &["db", "export", "-"], &["--help"]]
    {
        let mut child = scratch
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("its own child");
        let printed = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            !printed.contains("error") && !printed.contains("panic"),
            "{arguments:?}: {printed}"
        );
    }
    runs.kill().expect("it runs");
    runs.wait().expect("its own child");
}

/// In a log that nobody watches, each task that ends is a line, and the id stands at the start.
#[test]
fn a_run_that_nobody_watches_says_how_far_it_is() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: echo/echo, params: {message: x}}\n  - {id: b, \
         method: python/execute, params: {code: 1/0}}\n",
    );
    let out = scratch.run(&["run", &file, "--id", "w"]);
    assert_eq!(out.status, 1);
    let mut lines = out.stderr.lines();
    assert_eq!(lines.next(), Some("workflow w `w`, tasks: 2"), "{}", out.stderr);
    assert!(out.stderr.contains("] a completed in "), "{}", out.stderr);
    assert!(out.stderr.contains("] b failed"), "{}", out.stderr);
    let both = out.stderr + &out.stdout;
    assert_eq!(both.matches("TASK_EXECUTION_FAILED").count(), 1, "once: {both}");
    for quiet in ["--no-progress", "--json"] {
        assert_eq!(scratch.run(&["run", &file, quiet]).stderr, "", "{quiet}");
    }
}

/// What a failing task wrote is cut to its end; `logs` has all of it, also of successful tasks.
#[test]
fn the_output_of_tasks_is_cut_and_kept() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: good, method: python/execute, params: {code: \
         \"print('noise')\"}}\n  - {id: bad, method: python/execute, params: {code: \"for n in \
         range(1100): print('line', n)\\nraise ValueError('no')\"}}\n",
    );
    let out = scratch.run(&["run", &file, "--id", "w"]);
    assert!(!out.stdout.contains("    noise"), "{}", out.stdout);
    assert!(out.stdout.contains("    line 1099\n"), "{}", out.stdout);
    assert!(out.stdout.lines().count() < 40, "{}", out.stdout);
    assert!(out.stdout.contains("gleitzeit logs w bad"), "{}", out.stdout);

    let all = scratch.run(&["logs", "w"]).stdout;
    assert!(all.starts_with("good | noise\nbad  | line 0\n"), "{all}");
    let one = scratch.run(&["logs", "w", "bad"]).stdout;
    assert!(one.starts_with("line 0\nline 1\n"), "{one}");
    assert!(one.contains("line 1099\n"), "{one}");
    let printed = scratch.json(&["logs", "w", "good", "--json"]).success();
    assert_eq!(printed["good"]["stdout"], "noise\n");
    let unknown = scratch.run(&["logs", "w", "ugly"]);
    assert_eq!(unknown.status, 2);
    assert!(unknown.stderr.contains("good, bad"), "{}", unknown.stderr);

    let live = scratch.run(&["run", &file, "--id", "live", "--logs"]);
    assert!(live.stderr.contains("good | noise\n"), "{}", live.stderr);
    assert!(live.stderr.contains("bad | line 0\n"), "{}", live.stderr);
}

/// With `logging.format = "json"` a machine reads standard error line by line.
#[test]
fn every_line_on_standard_error_is_json_where_the_log_is() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: w\ntasks:\n  - {id: a, method: python/execute, params: {code: 1/0}}\n",
    );
    let broken = scratch.file("broken.yaml", "name: w\ntasks:\n  - {id: a, metod: echo/echo}\n");
    let commands: [&[&str]; 5] = [
        &["run", &file, "--id", "w", "--logs", "-vv"],
        &["run", &file, "--id", "w"],
        &["check", &broken],
        &["show", "nobody"],
        &["fly"],
    ];
    for arguments in commands {
        let output = scratch
            .command(arguments)
            .env("GLEITZEIT__LOGGING__FORMAT", "json")
            .output()
            .expect("the program starts");
        let printed = String::from_utf8(output.stderr).expect("UTF-8");
        assert_ne!(printed, "", "{arguments:?}");
        for line in printed.lines() {
            let event: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"));
            for key in ["timestamp", "level", "target"] {
                assert!(event[key].is_string(), "{arguments:?}: no {key}: {line}");
            }
            assert!(event["fields"].is_object(), "{arguments:?}: {line}");
        }
    }
}

/// Colour is for terminals, and for whoever insists.
#[test]
fn colours_are_printed_if_they_are_wanted() {
    let scratch = Scratch::new();
    let file = scratch
        .file("w.yaml", "name: w\ntasks:\n  - {id: a, method: echo/echo, params: {message: x}}\n");
    scratch.run(&["run", &file, "--id", "w"]);
    let printed = |variables: &[(&str, &str)]| {
        let mut command = scratch.command(&["show", "w"]);
        command.env_remove("NO_COLOR").env_remove("FORCE_COLOR");
        command.envs(variables.iter().copied());
        String::from_utf8(command.output().expect("the program starts").stdout).expect("UTF-8")
    };
    assert!(!printed(&[]).contains('\u{1b}'), "a pipe is no terminal");
    assert!(printed(&[("FORCE_COLOR", "1")]).contains("\u{1b}[32m✓"));
    assert!(!printed(&[("FORCE_COLOR", "0")]).contains('\u{1b}'));
}

/// Tables fill the terminal and no more; the id, which is copied, stays whole.
#[test]
fn tables_are_as_wide_as_the_terminal() {
    let scratch = Scratch::new();
    let long = "x".repeat(300);
    let file = scratch.file(
        "w.yaml",
        &format!(
            "name: {}\ntasks:\n  - {{id: a, method: echo/echo, params: {{message: {long}}}}}\n",
            "n".repeat(60)
        ),
    );
    let ran = scratch.json(&["run", &file, "--json"]).success();
    let id = ran["workflow_id"].as_str().unwrap();
    for columns in ["80", "200"] {
        let out = |arguments: &[&str]| {
            let output = scratch.command(arguments).env("COLUMNS", columns).output();
            String::from_utf8(output.expect("the program starts").stdout).expect("UTF-8")
        };
        let width: usize = columns.parse().unwrap();
        let list = out(&["list"]);
        assert_eq!(list.lines().count(), 2, "a line a workflow: {list}");
        assert!(list.contains(id), "{list}");
        let show = out(&["show", id]);
        let row = show.lines().find(|line| line.contains("xxx")).expect("the task");
        assert_eq!(row.chars().count(), width, "{show}");
        for line in list.lines() {
            assert!(line.chars().count() <= width, "{list}");
        }
    }
}
