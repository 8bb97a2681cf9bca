//! Byte ranges of a text, and its lines.

use std::ops::Range;

/// A range of bytes in the text of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// The first byte.
    pub(super) start: usize,
    /// The end, exclusive.
    pub(super) end: usize,
}

impl Span {
    /// From `start` up to, but without, `end`.
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

/// The offsets of the lines of a text. A line ends with `\n`, `\r\n` or `\r`.
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
    pub(super) fn range(&self, number: usize, text: &str) -> Range<usize> {
        let start = self.0[number - 1];
        let end = self.0.get(number).copied().unwrap_or(text.len());
        start..start + text[start..end].trim_end_matches(['\n', '\r']).len()
    }
}
