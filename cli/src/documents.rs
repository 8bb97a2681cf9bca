//! `docs/cli.md` has every command and every option, and no others.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Command, CommandFactory as _};

use super::args::Cli;

/// The parts of the page by their headings, without the backticks.
fn parts(text: &str) -> Vec<(String, String)> {
    let mut parts = vec![(String::new(), String::new())];
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').replace('`', "");
            parts.push((heading.trim().to_owned(), String::new()));
        } else if let Some((_, body)) = parts.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    parts
}

/// The options that the first cells of a part's table name: `--input`, `-f`.
fn described(body: &str) -> BTreeSet<String> {
    let rows = body.lines().filter_map(|line| line.strip_prefix("| `-"));
    let cells = rows.map(|row| format!("`-{}", row.split(" |").next().unwrap_or_default()));
    let words: Vec<String> =
        cells.flat_map(|cell| cell.split('`').map(str::to_owned).collect::<Vec<_>>()).collect();
    let options = words.iter().filter(|word| word.starts_with('-'));
    options.map(|word| word.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The options of a command, those of every command left out.
fn options(command: &Command, is_global: bool) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    for option in command.get_arguments().filter(|it| it.is_global_set() == is_global) {
        if option.is_hide_set() {
            continue;
        }
        options.extend(option.get_long().map(|long| format!("--{long}")));
        options.extend(option.get_short().map(|short| format!("-{short}")));
    }
    options
}

/// Commands that do something by themselves, by their whole names.
fn commands(command: &Command, name: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    let inner: Vec<&Command> =
        command.get_subcommands().filter(|it| it.get_name() != "help").collect();
    if inner.is_empty() || !command.is_subcommand_required_set() {
        found.push((name.to_owned(), options(command, false)));
    }
    for command in inner {
        commands(command, &format!("{name} {}", command.get_name()), found);
    }
}

/// True for the heading of a command: its name, and what stands behind it in capitals.
fn is_of(heading: &str, name: &str) -> bool {
    let rest = heading.strip_prefix(name);
    rest.is_some_and(|rest| {
        rest.chars().all(|c| c.is_ascii_uppercase() || " []._-".contains(c))
            && !rest.starts_with(|c: char| c.is_alphanumeric())
    })
}

/// A command without a heading is found by nobody; an option that is gone leads into an error.
#[test]
fn the_page_has_every_command_and_option() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let parts = parts(&fs::read_to_string(page).unwrap());
    let cli = Cli::command();
    let mut found = Vec::new();
    for command in cli.get_subcommands().filter(|it| !it.is_hide_set()) {
        commands(command, &format!("gleitzeit {}", command.get_name()), &mut found);
    }
    assert!(found.len() >= 25, "{}", found.len());
    for (name, options) in &found {
        let bodies: Vec<&String> =
            parts.iter().filter(|(it, _)| is_of(it, name)).map(|(_, body)| body).collect();
        let [body] = bodies.as_slice() else { panic!("{} headings of `{name}`", bodies.len()) };
        assert_eq!(described(body), *options, "`{name}`");
    }
    let is_command = |heading: &str| heading.starts_with("gleitzeit ");
    let headings = parts.iter().filter(|(heading, _)| is_command(heading)).count();
    assert_eq!(headings, found.len(), "headings of commands that are not there");
    let global = parts.iter().find(|(heading, _)| heading == "Options of every command").unwrap();
    let mut expected = options(&cli, true);
    expected.extend(["--help", "-h", "--version", "-V"].map(str::to_owned));
    assert_eq!(described(&global.1), expected);
}
