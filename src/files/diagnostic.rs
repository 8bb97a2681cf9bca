//! A finding with its line, and a caret below the offending text.
//!
//! Made by [`Source`](super::Source) from findings and from the problems of later checks; printed
//! by the command line, or given to programs as JSON.

use std::{fmt, sync::Arc};

use gleitzeit_domain::error::ErrorCode;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{findings::Finding, span::Lines};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    #[default]
    Error,
    /// The file is accepted, and is probably not what was meant.
    Warning,
}

/// The number of characters counted so far in a line: a file may be one line, and each finding is
/// after the one before.
#[derive(Debug, Default)]
pub(super) struct ColumnCursor {
    line: usize,
    byte: usize,
    count: usize,
}

impl ColumnCursor {
    /// Characters of a line before its byte `to`.
    fn characters(&mut self, line: usize, text: &str, to: usize) -> usize {
        if self.line != line || self.byte > to {
            *self = Self { line, byte: 0, count: 0 };
        }
        self.count += text[self.byte..to].chars().count();
        self.byte = to;
        self.count
    }
}

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
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
    /// The value found, and the expected one.
    pub message: String,
    /// The remedy; `None` if the message is enough.
    pub help: Option<String>,
    /// The line as it stands in the file, or the part of it around the offending text.
    excerpt: Excerpt,
}

/// The part of a line that is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters of `text` before the offending text.
    before: usize,
    /// Characters of `text` to be underlined.
    underlined: usize,
}

impl Diagnostic {
    /// Places a finding in the text of its file. `cursor` is that of the finding before, which must
    /// not stand behind this one.
    pub(super) fn new(
        finding: Finding,
        file: &Arc<str>,
        text: &str,
        lines: &Lines,
        cursor: &mut ColumnCursor,
    ) -> Self {
        let Finding { span, code, message, help } = finding;
        let start = floor(text, span.start);
        let end = floor(text, span.end);
        let line = lines.number(start);
        let range = lines.range(line, text);
        let line_text = &text[range.clone()];
        let from = start.min(range.end) - range.start;
        let to = end.clamp(range.start + from, range.end) - range.start;
        let before = cursor.characters(line, line_text, from);
        let len = line_text[from..to].trim_end().chars().count().max(1);
        Self {
            severity: Severity::Error,
            code,
            file: Arc::clone(file),
            line,
            column: before + 1,
            len,
            message,
            help,
            excerpt: Excerpt::new(line_text, from, before, len),
        }
    }

    /// Writes it with its line and a caret, in colours of the terminal or without.
    fn write(&self, out: &mut impl fmt::Write, color: bool) -> fmt::Result {
        let Self { severity, code, file, line, column, message, help, excerpt, .. } = self;
        let paint = |style: &'static str| if color { style } else { "" };
        let (red, blue) = (paint("\x1b[1;31m"), paint("\x1b[1;34m"));
        let (bold, reset) = (paint("\x1b[1m"), paint("\x1b[0m"));
        let line = line.to_string();
        let gutter = " ".repeat(line.len());
        let message = printable(message);
        let (red, word) = match severity {
            Severity::Error => (red, "error"),
            Severity::Warning => (paint("\x1b[33m"), "warning"),
        };
        writeln!(out, "{red}{word}[{code}]{reset}{bold}: {message}{reset}")?;
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
        let mut map = out.serialize_struct("Diagnostic", 9)?;
        map.serialize_field("severity", &self.severity)?;
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
    /// The bound on the printed characters of a line.
    const WIDTH: usize = 120;
    /// The number of characters that are printed before the offending text if the line is too long.
    const LEAD: usize = 40;

    /// The part of `line` around its byte `from`, before which it has `before` characters.
    fn new(line: &str, from: usize, before: usize, len: usize) -> Self {
        let is_long = line.chars().nth(Self::WIDTH).is_some();
        let lead = if is_long { before.min(Self::LEAD) } else { before };
        let start = match lead.checked_sub(1) {
            Some(last) => line[..from].char_indices().rev().nth(last).map_or(0, |(at, _)| at),
            None => from,
        };
        let mut chars = line[start..].chars();
        let mut text = String::new();
        if start > 0 {
            text.push('…');
        }
        text.extend(chars.by_ref().take(Self::WIDTH).map(visible));
        let line_text = text.chars().count();
        if chars.next().is_some() {
            text.push('…');
        }
        let before = lead + usize::from(start > 0);
        Self { underlined: len.min(line_text.saturating_sub(before)).max(1), text, before }
    }

    /// The text before the carets. Tabs are kept, so that both lines are indented alike.
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

    /// The same as warnings: the file is accepted all the same.
    #[must_use]
    pub fn as_warnings(mut self) -> Self {
        for diagnostic in &mut self.0 {
            diagnostic.severity = Severity::Warning;
        }
        self
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
