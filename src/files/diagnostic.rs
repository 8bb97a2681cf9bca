//! What is wrong with a file, told with its line and a caret below the offending text.
//!
//! Made by [`Source`](super::Source) from findings and from the problems of later checks; printed
//! by the command line, or given to programs as JSON.

use std::{fmt, ops::Range, sync::Arc};

use gleitzeit_domain::error::ErrorCode;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::node::Finding;

/// Where the lines of a text begin. A line ends with `\n`, `\r\n` or `\r`.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    /// The lines of `text`.
    pub(super) fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (at, byte) in bytes.iter().enumerate() {
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')) {
                starts.push(at + 1);
            }
        }
        Self(starts)
    }

    /// The number, from 1, of the line that has the byte at `offset`.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// The bytes of a line, without what ends it.
    fn range(&self, number: usize, text: &str) -> Range<usize> {
        let start = self.0[number - 1];
        let end = self.0.get(number).copied().unwrap_or(text.len());
        start..start + text[start..end].trim_end_matches(['\n', '\r']).len()
    }
}

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind.
    pub code: ErrorCode,
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// How many characters the offending text has on that line; at least 1.
    pub len: usize,
    /// What was found, and what was expected.
    pub message: String,
    /// What to do, where there is more to say.
    pub help: Option<String>,
    /// The line as it stands in the file, or the part of it around the offending text.
    excerpt: Excerpt,
}

/// What is shown of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters of `text` before the offending text.
    before: usize,
    /// Characters of `text` to be underlined.
    underlined: usize,
}

impl Diagnostic {
    /// Places a finding in the text of its file.
    pub(super) fn new(finding: Finding, file: &Arc<str>, text: &str, lines: &Lines) -> Self {
        let Finding { span, code, message, help } = finding;
        let start = floor(text, span.start);
        let end = floor(text, span.end);
        let line = lines.number(start);
        let range = lines.range(line, text);
        let shown = &text[range.clone()];
        let from = start.min(range.end) - range.start;
        let to = end.clamp(range.start + from, range.end) - range.start;
        let before = shown[..from].chars().count();
        let len = shown[from..to].trim_end().chars().count().max(1);
        Self {
            code,
            file: Arc::clone(file),
            line,
            column: before + 1,
            len,
            message,
            help,
            excerpt: Excerpt::new(shown, before, len),
        }
    }

    /// Writes it with its line and a caret, in colours of the terminal or without.
    fn write(&self, out: &mut impl fmt::Write, color: bool) -> fmt::Result {
        let Self { code, file, line, column, message, help, excerpt, .. } = self;
        let paint = |style: &'static str| if color { style } else { "" };
        let (red, blue) = (paint("\x1b[1;31m"), paint("\x1b[1;34m"));
        let (bold, reset) = (paint("\x1b[1m"), paint("\x1b[0m"));
        let line = line.to_string();
        let gutter = " ".repeat(line.len());
        let message = printable(message);
        writeln!(out, "{red}error[{code}]{reset}{bold}: {message}{reset}")?;
        writeln!(out, "{gutter}{blue}-->{reset} {}:{line}:{column}", printable(file))?;
        writeln!(out, "{gutter} {blue}|{reset}")?;
        writeln!(out, "{blue}{line} |{reset} {}", excerpt.text)?;
        let carets = "^".repeat(excerpt.underlined);
        write!(out, "{gutter} {blue}|{reset} {}{red}{carets}", excerpt.indent())?;
        match help {
            Some(help) => writeln!(out, " {}{reset}", printable(help)),
            None => writeln!(out, "{reset}"),
        }
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_struct("Diagnostic", 8)?;
        map.serialize_field("code", &self.code)?;
        map.serialize_field("name", self.code.name())?;
        map.serialize_field("file", &*self.file)?;
        map.serialize_field("line", &self.line)?;
        map.serialize_field("column", &self.column)?;
        map.serialize_field("len", &self.len)?;
        map.serialize_field("message", &self.message)?;
        map.serialize_field("help", &self.help)?;
        map.end()
    }
}

impl Excerpt {
    /// Characters of a line that are shown at most.
    const WIDTH: usize = 120;
    /// Characters before the offending text that are shown when the line is too long.
    const LEAD: usize = 40;

    fn new(line: &str, before: usize, len: usize) -> Self {
        let cut = if line.chars().nth(Self::WIDTH).is_none() {
            0
        } else {
            before.saturating_sub(Self::LEAD)
        };
        let mut chars = line.chars().skip(cut);
        let mut text = String::new();
        if cut > 0 {
            text.push('…');
        }
        text.extend(chars.by_ref().take(Self::WIDTH).map(visible));
        let shown = text.chars().count();
        if chars.next().is_some() {
            text.push('…');
        }
        let before = before - cut + usize::from(cut > 0);
        Self { underlined: len.min(shown.saturating_sub(before)).max(1), text, before }
    }

    /// What stands before the carets. Tabs are kept, so that both lines indent alike.
    fn indent(&self) -> String {
        let tab_or_space = |c| if c == '\t' { '\t' } else { ' ' };
        self.text.chars().take(self.before).map(tab_or_space).collect()
    }
}

/// Control characters of a file must not reach the terminal.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { ' ' } else { visible(c) }).collect()
}

/// The next border of a character at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Everything wrong with a file, in the order of the file. [`Display`](fmt::Display) writes all
/// of it with carets and without colour; serialized, it is a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Of these.
    pub(super) fn new(all: Vec<Diagnostic>) -> Self {
        Self(all)
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The code of the one, or [`ErrorCode::WorkflowValidationFailed`] for several.
    pub fn code(&self) -> ErrorCode {
        match self.0.as_slice() {
            [only] => only.code,
            _ => ErrorCode::WorkflowValidationFailed,
        }
    }

    /// All of them as text, each with its line and a caret, an empty line between two; in the
    /// colours of the terminal if `color`.
    pub fn render(&self, color: bool) -> String {
        let mut text = String::new();
        self.write(&mut text, color).unwrap_or_default();
        text
    }

    fn write(&self, out: &mut impl fmt::Write, color: bool) -> fmt::Result {
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                out.write_char('\n')?;
            }
            diagnostic.write(out, color)?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(out, false)
    }
}

impl<'d> IntoIterator for &'d Diagnostics {
    type Item = &'d Diagnostic;
    type IntoIter = std::slice::Iter<'d, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
