//! Reads protocols from TOML files: everything wrong with a file at once, each with its place.
//!
//! The runtime reads the files of the settings' directory when it starts; the command line reads
//! them, too. Each file is checked as a protocol by itself; its parent is checked when it is
//! registered.
//!
//! Invariant: the order of methods, parameters and fields is that of the file.

mod document;
mod layout;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use gleitzeit_domain::{
    error::ErrorCode,
    protocol::{
        ProtocolSpec,
        catalog::{ProtocolCatalog, RegisterError},
        validate::SchemaError,
    },
};
use serde::Deserialize as _;

use self::document::Document;

/// One thing wrong with a protocol file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolFileProblem {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The key, such as `methods.count.timeout`; empty for the whole file.
    pub key: String,
    /// The value found, and the expected one.
    pub message: String,
    /// The text of the line.
    pub text: String,
}

impl fmt::Display for ProtocolFileProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: ", self.line, self.column)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.message)
    }
}

/// Why a protocol file gave no protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolFileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not a protocol.
    #[error("{}", list(.path, .problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything wrong with it, in the order of the file; at least one.
        problems: Vec<ProtocolFileProblem>,
    },
}

impl ProtocolFileError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Read { .. } => ErrorCode::ConfigurationError,
            Self::Invalid { .. } => ErrorCode::ParseError,
        }
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Invalid { path, .. } => path,
        }
    }

    /// The same for a person: each problem with its line and a caret under its place.
    pub fn report(&self) -> String {
        let Self::Invalid { path, problems } = self else { return self.to_string() };
        let printed = problems.iter().map(|problem| {
            let number = problem.line.to_string();
            let gutter = " ".repeat(number.len());
            // The text before the caret is replaced by blanks, so that tabs keep their width.
            let before = problem.text.chars().take(problem.column.saturating_sub(1));
            let blank: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
            let text = &problem.text;
            format!(
                "{}:{problem}\n{gutter} |\n{number} | {text}\n{gutter} | {blank}^",
                path.display()
            )
        });
        printed.collect::<Vec<_>>().join("\n\n")
    }
}

fn list(path: &Path, problems: &[ProtocolFileProblem]) -> String {
    let lines = problems.iter().map(|problem| format!("{}:{problem}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

/// Reads one file.
///
/// # Errors
/// [`ProtocolFileError::Read`] when the file cannot be read, [`ProtocolFileError::Invalid`] with
/// everything wrong in it.
pub fn load(path: impl AsRef<Path>) -> Result<ProtocolSpec, ProtocolFileError> {
    let path = path.as_ref();
    let text = fs::read_to_string(path)
        .map_err(|source| ProtocolFileError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|problems| ProtocolFileError::Invalid { path: path.to_owned(), problems })
}

/// Reads the `*.toml` files of a directory, by name; subdirectories are left alone. A directory
/// that does not exist has no files.
///
/// # Errors
/// One error for each file that is no protocol.
pub fn load_dir(directory: impl AsRef<Path>) -> Result<Vec<ProtocolSpec>, Vec<ProtocolFileError>> {
    let directory = directory.as_ref();
    let paths = files(directory)
        .map_err(|source| vec![ProtocolFileError::Read { path: directory.to_owned(), source }])?;
    let mut specs = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match load(&path) {
            Ok(spec) => specs.push(spec),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(specs) } else { Err(errors) }
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads the text of a file.
///
/// # Errors
/// Everything wrong with it, in the order of the text.
pub fn parse(text: &str) -> Result<ProtocolSpec, Vec<ProtocolFileProblem>> {
    let mut document = Document::parse(text)?;
    let mut problems = document.take_misfits(&layout::PROTOCOL);
    match ProtocolSpec::deserialize(document.deserializer()) {
        Err(error) => problems.push(document.problem_of(&error)),
        Ok(mut spec) => {
            document.restore_order(&mut spec);
            let wrong = schema_errors(&spec);
            problems.extend(wrong.into_iter().map(|error| document.problem_at(&error)));
            if problems.is_empty() {
                return Ok(spec);
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Err(problems)
}

/// The errors of a protocol by itself, without its parent.
fn schema_errors(spec: &ProtocolSpec) -> Vec<SchemaError> {
    let alone = ProtocolSpec { extends: None, ..spec.clone() };
    match ProtocolCatalog::new().register(alone) {
        Err(RegisterError::Invalid { errors, .. }) => errors,
        // An empty catalog has nothing else to object to.
        _ => Vec::new(),
    }
}
