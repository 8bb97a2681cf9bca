//! `init`: a directory becomes a project, with settings and a workflow that runs at once.
//!
//! Nothing that is there is overwritten: the command fails before it writes anything. The lines of
//! `.gitignore` are added to a file that is there.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueHint};
use gleitzeit_domain::printable;
use serde_json::json;

use super::{
    Outcome,
    output::{self, Exit, Failure},
    project,
};

/// The workflow that runs at once.
const HELLO: &str = "workflows/hello.yaml";

const GITIGNORE: &str = ".gitignore";

/// `gleitzeit init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Directory of the project, made if it is not there.
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

/// Writes the files of a project and prints what to run next.
pub(crate) fn init(Init { directory }: &Init, json: bool) -> Outcome {
    let files = [
        (project::NAME, include_str!("init/gleitzeit.toml")),
        (HELLO, include_str!("init/hello.yaml")),
    ];
    let taken: Vec<String> = files
        .iter()
        .map(|(name, _)| directory.join(name))
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !taken.is_empty() {
        return Err(Failure::usage(format!(
            "nothing was written: {} is there already; remove it, or name another directory",
            taken.join(" and ")
        )));
    }
    for (name, text) in files {
        let path = directory.join(name);
        write(&path, text).map_err(|error| cannot_write(&path, &error))?;
    }
    let ignored = directory.join(GITIGNORE);
    add_lines(&ignored, include_str!("init/gitignore"))
        .map_err(|error| cannot_write(&ignored, &error))?;
    print(directory, json);
    Ok(Exit::Success)
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!(
        "cannot write {}: {error}; choose a directory that you may write to",
        path.display()
    ))
}

/// Makes a file that is not there.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}

/// Adds the lines that a file does not have.
fn add_lines(path: &Path, lines: &str) -> io::Result<()> {
    let there = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let is_there = |line: &&str| there.lines().any(|known| known.trim() == *line);
    let missing: Vec<&str> = lines.lines().filter(|line| !is_there(line)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ends_its_line = there.is_empty() || there.ends_with('\n');
    let before = if ends_its_line { "" } else { "\n" };
    let text = format!("{before}{}\n", missing.join("\n"));
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}

/// The commands to run next, word for word.
fn next(directory: &Path) -> Vec<String> {
    let mut next = Vec::new();
    if directory != Path::new(".") {
        next.push(format!("cd {}", quoted(&directory.display().to_string())));
    }
    let commands = ["check", "run", "run --input name=Ada"].map(|command| {
        let (command, more) = command.split_once(' ').unwrap_or((command, ""));
        format!("gleitzeit {command} {HELLO} {more}").trim_end().to_owned()
    });
    next.extend(commands);
    next.push("gleitzeit list".to_owned());
    next
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn print(directory: &Path, json: bool) {
    let files = [project::NAME, HELLO, GITIGNORE];
    let next = next(directory);
    if json {
        output::document(&json!({ "directory": directory, "files": files, "next": next }));
        return;
    }
    output::text(format_args!("wrote {} in {}", files.join(", "), directory.display()));
    output::text("next:");
    for command in next {
        output::text(format_args!("  {}", printable::line(&command)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that is printed is pasted into a shell.
    #[test]
    fn words_are_quoted_as_a_shell_reads_them() {
        assert_eq!(quoted("my/project-1"), "my/project-1");
        assert_eq!(quoted("my project"), "'my project'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }
}
