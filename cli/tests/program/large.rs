//! Results that are large together: the program holds few of them at a time.

use std::{
    fs,
    io::Read as _,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::support::Scratch;

/// Tasks, each with a result of 1 MB of its own.
const TASKS: usize = 192;

/// The program takes less memory than the results are together. A program that reads all of them
/// before it prints has them three times: as rows, as values and as a document.
const PEAK_MAX: usize = TASKS * 1_000_000;

/// A workflow of `echo` tasks. Each waits until the one before it is stored, because results that
/// are not stored yet are in memory.
fn large(scratch: &Scratch) -> String {
    let tasks: Vec<String> = (0..TASKS)
        .map(|n| {
            let after = n.checked_sub(1).map_or(String::new(), |before| format!(r#""t{before}""#));
            format!(
                r#"{{"id": "t{n}", "method": "echo/echo", "dependencies": [{after}],
                    "params": {{"message": ["${{inputs.text}}", {n}]}}}}"#
            )
        })
        .collect();
    let text = "x".repeat(1_000_000);
    let tasks = tasks.join(", ");
    scratch.file(
        "large.json",
        &format!(r#"{{"name": "large", "inputs": {{"text": "{text}"}}, "tasks": [{tasks}]}}"#),
    )
}

/// What the program prints, and the most memory that it takes until it has printed all but what a
/// pipe holds: it waits for this reader.
fn printed(scratch: &Scratch, arguments: &[&str]) -> (String, usize) {
    let mut command = scratch.command(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut bytes, mut peak) = (Vec::new(), 0);
    let mut chunk = vec![0; 1 << 20];
    loop {
        peak = peak_of(&child).unwrap_or(peak);
        match out.read(&mut chunk).unwrap() {
            0 => break,
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    (String::from_utf8(bytes).unwrap(), peak)
}

/// The most memory that a process has taken so far, in bytes; `None` after its end.
fn peak_of(child: &Child) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}

/// Results of gigabytes are printed by a machine that has less memory than that.
#[test]
fn results_are_read_one_at_a_time_when_they_are_printed() {
    let scratch = Scratch::new();
    let file = large(&scratch);
    let (ran, peak) = printed(&scratch, &["run", &file, "--id", "w", "--json"]);
    assert!(peak < PEAK_MAX, "`run` took {} MB for {TASKS} MB", peak >> 20);
    let (record, peak) = printed(&scratch, &["show", "w", "--json"]);
    assert!(peak < PEAK_MAX, "`show` took {} MB for {TASKS} MB", peak >> 20);
    assert!(ran == record, "both print the same");
    assert_eq!(ran.matches("\"status\": \"completed\"").count(), TASKS + 1);
    assert!(ran.len() > TASKS * 1_000_000, "all results are whole");
}

/// The table of few tasks shows the beginning of each result, wherever it is stored.
#[test]
fn a_table_shows_the_beginnings_of_large_results() {
    let scratch = Scratch::new();
    let text = "y".repeat(100_000);
    let file = scratch.file(
        "few.json",
        &format!(
            r#"{{"name": "few", "inputs": {{"text": "{text}"}}, "tasks": [
                {{"id": "a", "method": "echo/echo", "params": {{"message": "${{inputs.text}}"}}}}]}}"#
        ),
    );
    for arguments in [&["run", &file, "--id", "few"][..], &["show", "few"]] {
        let answer = scratch.run(arguments);
        assert_eq!(answer.status, 0, "{}", answer.stderr);
        let line = answer.stdout.lines().find(|line| line.contains("completed")).unwrap();
        assert!(line.contains("yyyy") && line.contains('…'), "{line}");
    }
    let printed = scratch.run(&["show", "few", "--json"]).stdout;
    let document: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(document["tasks"]["a"]["result"]["message"], text);
    assert_eq!(serde_json::to_string_pretty(&document).unwrap() + "\n", printed);
}
