//! Reads workflow files: YAML, JSON and TOML into the same [`WorkflowSpec`].
//!
//! The command line and embedding services use it; it reads the file system only. Everything wrong
//! with a file is reported at once, each finding with its line and a caret below the offending
//! text. [`Source`] keeps the text, so that findings of later checks are reported in the same way.
//!
//! Each format has a reader that makes the same tree of values with places (`node`), and one
//! decoder (`spec`) makes the workflow of it, so that the formats cannot differ in meaning.
//! Files of Python Gleitzeit 0.0.4 are read unchanged: `keys` lists every spelling.
//!
//! ```
//! use gleitzeit::files::{self, Format};
//!
//! let text = "name: greeting\ntasks:\n  - method: echo/echo\n    params: {text: hello}\n";
//! let file = files::parse(text, Format::Yaml, "greeting.yaml").unwrap();
//! assert_eq!(file.spec.tasks[0].id, "task-1");
//! ```

mod batch;
mod conditions;
mod context;
mod decode;
mod diagnostic;
mod diagram;
mod file_access;
mod findings;
mod input;
mod json;
mod keys;
mod node;
mod older;
mod scalar;
mod schema;
mod shared_fields;
mod source;
mod span;
mod spec;
mod toml;
mod yaml;

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use gleitzeit_domain::{error::ErrorCode, problem::Problem, workflow::WorkflowSpec};

pub use batch::{BatchError, BatchWork, batch_spec, batch_spec_without};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use diagram::{dot, mermaid};
pub use input::{Input, input, json_value, put_inputs};
pub use schema::json_schema;
pub use source::Source;

use context::FileContext;
use findings::Findings;
use node::{Kind, Node};
use span::{Lines, Span};

/// Bytes that a workflow file may have: 64 MiB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// A workflow, and the text that it was read from.
#[derive(Debug)]
pub struct WorkflowFile {
    /// The workflow.
    pub spec: WorkflowSpec,
    /// The text, with the place of each part of the workflow.
    pub source: Source,
}

/// The formats of workflow files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, with the merge keys of YAML 1.1.
    Yaml,
    /// JSON.
    Json,
    /// TOML 1.1.
    Toml,
}

impl Format {
    /// The format of a file's extension; `None` if it is unknown.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// The format that a text most probably has: JSON begins with a brace, TOML with a table or
    /// an assignment; anything else is YAML.
    pub fn of_text(text: &str) -> Self {
        let is_content = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let Some(line) = text.lines().map(str::trim).find(is_content) else { return Self::Yaml };
        if line.starts_with('{') {
            return Self::Json;
        }
        let key = line.find(['=', ':']).map(|at| &line[at..]);
        let is_table = line.starts_with('[') && line.ends_with(']');
        if is_table || key.is_some_and(|rest| rest.starts_with('=')) {
            return Self::Toml;
        }
        Self::Yaml
    }
}

/// Why there is no workflow.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("`{file}` is larger than 64 MiB; pass large data as files that tasks read")]
    TooLarge {
        /// The file, as it was named.
        file: String,
    },
    /// The content of the file is invalid.
    #[error("{0}")]
    Invalid(Diagnostics),
}

impl FileError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Io { .. } | Self::TooLarge { .. } => ErrorCode::InvalidRequest,
            Self::Invalid(diagnostics) => diagnostics.code(),
        }
    }
}

/// Reads a workflow file. The format is that of its extension, or else detected from its text.
///
/// # Errors
/// [`FileError::Io`], [`FileError::TooLarge`], and [`FileError::Invalid`] with everything that is
/// wrong with it.
pub fn read(path: &Path) -> Result<WorkflowFile, FileError> {
    read_and_judge(path, &|_| Vec::new())
}

/// Reads a workflow file and runs `judge` on it, so that errors of its shape and of its meaning are
/// reported together. A task with an invalid shape is not judged any further, and neither is a file
/// that does not parse.
///
/// # Errors
/// As [`read`]; [`FileError::Invalid`] also with everything that `judge` found.
pub fn read_and_judge(
    path: &Path,
    judge: &dyn Fn(&WorkflowSpec) -> Vec<Problem>,
) -> Result<WorkflowFile, FileError> {
    read_without(path, judge, &|_| false)
}

/// The same; a batch skips the files for which `left_out` returns true, such as a database in its
/// directory.
///
/// # Errors
/// As [`read_and_judge`].
pub fn read_without(
    path: &Path,
    judge: &dyn Fn(&WorkflowSpec) -> Vec<Problem>,
    left_out: &dyn Fn(&Path) -> bool,
) -> Result<WorkflowFile, FileError> {
    let bytes = load(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read_bytes(bytes, path, folder, judge, left_out)
}

/// The same for bytes that were read already, such as those of standard input. `name` is their name
/// in messages, and its extension determines their format, if it has one; relative paths begin at
/// `folder`.
///
/// # Errors
/// As [`read_and_judge`], without [`FileError::Io`].
pub fn read_bytes(
    bytes: Vec<u8>,
    name: &Path,
    folder: &Path,
    judge: &dyn Fn(&WorkflowSpec) -> Vec<Problem>,
    left_out: &dyn Fn(&Path) -> bool,
) -> Result<WorkflowFile, FileError> {
    let (text, format) = text_of(bytes, name)?;
    let around = FileContext { folder, left_out };
    let mut file = parse_in(&text, format, &name.display().to_string(), &around, judge)?;
    file_access::settle(&mut file.spec, folder);
    Ok(file)
}

/// Reads the inputs of a workflow from the bytes of a file: a mapping of names to values in YAML,
/// JSON or TOML. `name` is its name in messages, and its extension determines its format, if it has
/// one.
///
/// # Errors
/// [`FileError::TooLarge`], and [`FileError::Invalid`] with everything that is wrong with it.
pub fn read_inputs(bytes: Vec<u8>, name: &Path) -> Result<Vec<(String, Input)>, FileError> {
    let (text, format) = text_of(bytes, name)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut findings = Findings::default();
    let inputs =
        tree(text, format, &mut findings).and_then(|root| input::named(&root, &mut findings));
    match inputs {
        Some(inputs) if findings.is_empty() => Ok(inputs),
        _ => {
            Err(FileError::Invalid(source::locate_all(&name.display().to_string(), text, findings)))
        }
    }
}

/// The text of a file, and its format.
fn text_of(bytes: Vec<u8>, name: &Path) -> Result<(String, Format), FileError> {
    let file = || name.display().to_string();
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { file: file() });
    }
    let text =
        String::from_utf8(bytes).map_err(|error| FileError::Invalid(not_utf8(&file(), &error)))?;
    let format = Format::of_path(name).unwrap_or_else(|| Format::of_text(&text));
    Ok((text, format))
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Diagnostics {
    let at = error.utf8_error().valid_up_to();
    let byte = error.as_bytes().get(at).copied().unwrap_or_default();
    // Replacing does not move what stands before the first wrong byte.
    let text = String::from_utf8_lossy(error.as_bytes());
    let mut findings = Findings::default();
    findings.unreadable(Span::new(at, at), format!("the byte 0x{byte:02X} is not UTF-8"));
    source::locate_all(name, &text, findings)
}

/// Reads a workflow from a text. `name` is its name in messages; if it is a path, a batch searches
/// for its files in that folder first. Relative paths in its tasks have no directory, because a
/// text has none: set [`WorkflowSpec::file_access`] to give them one.
///
/// # Errors
/// [`FileError::TooLarge`], and [`FileError::Invalid`] with everything that is wrong with it.
pub fn parse(text: &str, format: Format, name: &str) -> Result<WorkflowFile, FileError> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    parse_in(text, format, name, &FileContext { folder, left_out: &|_| false }, &|_| Vec::new())
}

fn parse_in(
    text: &str,
    format: Format,
    name: &str,
    around: &FileContext<'_>,
    judge: &dyn Fn(&WorkflowSpec) -> Vec<Problem>,
) -> Result<WorkflowFile, FileError> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { file: name.to_owned() });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::default();
    let root = tree(text, format, &mut findings);
    let spec = root.as_ref().map(|root| spec::workflow(root, around, &mut findings));
    let (Some(root), Some(spec)) = (root, spec) else {
        return Err(FileError::Invalid(source::locate_all(name, text, findings)));
    };
    let source = Source::new(name, text, root);
    let judged = judge(&spec);
    if findings.is_empty() && judged.is_empty() {
        return Ok(WorkflowFile { spec, source });
    }
    source.add(&judged, &mut findings);
    Err(FileError::Invalid(source::locate_all(name, text, findings)))
}

fn tree(text: &str, format: Format, findings: &mut Findings) -> Option<Node> {
    let is_blank = text.trim().is_empty();
    if is_blank {
        return Some(Node { span: Span::default(), kind: Kind::Null });
    }
    let lines = Lines::new(text);
    match format {
        Format::Yaml => yaml::read(text, &lines, findings),
        Format::Json => json::read(text, &lines, findings),
        Format::Toml => toml::read(text, findings),
    }
}
