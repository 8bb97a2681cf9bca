//! Cuts a stream of bytes into lines, however the network has cut it.
//!
//! Invariant: a byte is scanned once for its line's end, so that a long line costs its length. A
//! line is returned whole, so that a character split between two chunks is never decoded in halves.

use bytes::{Bytes, BytesMut};

/// The bytes that have come and not yet been handed out.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    buffer: BytesMut,
    searched: usize,
}

impl LineSplitter {
    /// Takes what has come.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete line that is not blank, without its end.
    pub(super) fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n')
            else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            let line = line.slice(..line.len() - 1);
            if !is_blank(&line) {
                return Some(line);
            }
        }
    }

    /// The rest after the end of the stream: a last line without a line end, or a part of one.
    pub(super) fn rest(self) -> Option<Bytes> {
        let rest = self.buffer.freeze();
        (!is_blank(&rest)).then_some(rest)
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Bytes>) {
        let mut lines = LineSplitter::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next_line() {
                found.push(line.to_vec());
            }
        }
        (found, lines.rest())
    }

    /// Servers end lines in either way and send blank ones to keep a connection alive.
    #[test]
    fn blank_lines_and_the_rest_are_distinguished() {
        let (lines, rest) = lines_of(&[b"{}\r\n\r\n\n[]\n12"]);
        assert_eq!(lines, [b"{}\r".to_vec(), b"[]".to_vec()]);
        assert_eq!(rest.as_deref(), Some(&b"12"[..]));
        assert_eq!(lines_of(&[b"{}\n\r\n"]).1, None);
    }

    proptest! {
        /// Where the network cuts says nothing about the text.
        #[test]
        fn any_cutting_yields_the_same_lines(
            texts in prop::collection::vec("[^\n]{0,12}", 0..8),
            width in 1_usize..9,
        ) {
            let whole: String = texts.iter().flat_map(|text| [text.as_str(), "\n"]).collect();
            let chunks: Vec<&[u8]> = whole.as_bytes().chunks(width).collect();
            let (lines, rest) = lines_of(&chunks);
            let expected: Vec<Vec<u8>> = texts
                .iter()
                .map(|text| text.clone().into_bytes())
                .filter(|text| !is_blank(text))
                .collect();
            prop_assert_eq!(lines, expected);
            prop_assert_eq!(rest, None);
        }
    }
}
