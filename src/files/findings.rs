//! Everything wrong with one file, by the byte ranges of its text.

use gleitzeit_domain::error::ErrorCode;

use super::span::Span;

/// One thing wrong with a file.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    /// The byte range.
    pub(super) span: Span,
    /// The kind.
    pub(super) code: ErrorCode,
    /// The value found, and the expected one.
    pub(super) message: String,
    /// The remedy.
    pub(super) help: Option<String>,
}

/// Everything wrong with a file.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Adds that the text cannot be read.
    pub(super) fn unreadable(&mut self, span: Span, message: impl Into<String>) {
        self.add(span, ErrorCode::ParseError, message.into(), None);
    }

    /// Adds that the text parses, but its content is invalid.
    pub(super) fn wrong(&mut self, span: Span, message: impl Into<String>) {
        self.add(span, ErrorCode::WorkflowValidationFailed, message.into(), None);
    }

    /// The same, with what to do about it.
    pub(super) fn error_with_help(
        &mut self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(span, ErrorCode::WorkflowValidationFailed, message.into(), Some(help.into()));
    }

    fn add(&mut self, span: Span, code: ErrorCode, message: String, help: Option<String>) {
        self.0.push(Finding { span, code, message, help });
    }

    /// Adds one that is made already.
    pub(super) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// The start of each finding.
    pub(super) fn starts(&self) -> Vec<usize> {
        self.0.iter().map(|finding| finding.span.start).collect()
    }

    /// True when nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}
