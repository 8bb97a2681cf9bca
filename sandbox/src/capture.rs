//! Reads what a process prints, keeps the beginning, counts the rest.
//!
//! Invariant: what is kept never exceeds the bound, however much is printed.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::outcome::Stream;

/// More was printed than a job may print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flooded;

/// The bound on the output of both streams of a job together.
#[derive(Debug)]
pub(crate) struct OutputBudget {
    taken: AtomicU64,
    total: u64,
}

impl OutputBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { taken: AtomicU64::new(0), total: bytes }
    }

    fn take(&self, bytes: u64) -> Result<(), Flooded> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.total { Err(Flooded) } else { Ok(()) }
    }
}

/// One stream as far as it was read; survives its reader being dropped.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Vec<u8>,
    kept_max: usize,
    total: u64,
}

impl Capture {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), kept_max, total: 0 }
    }

    /// Reads to the end of `source`. A read error is an end: the writer is gone.
    pub(crate) async fn read(
        &mut self,
        mut source: impl AsyncRead + Unpin,
        budget: &OutputBudget,
    ) -> Result<(), Flooded> {
        let mut chunk = vec![0; 16 << 10];
        loop {
            match source.read(&mut chunk).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(length) => self.add(&chunk[..length], budget)?,
            }
        }
    }

    fn add(&mut self, bytes: &[u8], budget: &OutputBudget) -> Result<(), Flooded> {
        // The rest is counted but not kept: the memory of a stream is bounded, whatever is printed.
        let room = self.kept_max - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.total += bytes.len() as u64;
        budget.take(bytes.len() as u64)
    }

    /// The bytes read so far, as text.
    pub(crate) fn into_stream(mut self) -> Stream {
        let truncated = self.total > self.kept.len() as u64;
        if truncated {
            drop_cut_character(&mut self.kept);
        }
        let text = match String::from_utf8(self.kept) {
            Ok(text) => text,
            Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
        };
        Stream { text, total_bytes: self.total, truncated }
    }
}

/// A character that the bound cut in two is left out whole.
fn drop_cut_character(bytes: &mut Vec<u8>) {
    let whole = match std::str::from_utf8(bytes) {
        Ok(_) => return,
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // A character was cut in the middle: at most the last few bytes are affected.
        Err(_) => {
            let tail = bytes.len().saturating_sub(3);
            let lead = bytes[tail..].iter().rposition(|byte| byte & 0xC0 != 0x80);
            match lead.map(|at| tail + at) {
                Some(at) if bytes[at] >= 0xC0 => at,
                _ => return,
            }
        }
    };
    bytes.truncate(whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], kept_max: usize, budget: u64) -> (Result<(), Flooded>, Stream) {
        let mut capture = Capture::new(kept_max);
        let end = capture.add(bytes, &OutputBudget::new(budget));
        (end, capture.into_stream())
    }

    /// The beginning stays, the rest is counted.
    #[test]
    fn only_the_beginning_is_kept() {
        let (end, stream) = captured(b"abcdef", 4, 100);
        assert_eq!(end, Ok(()));
        assert_eq!((&*stream.text, stream.total_bytes, stream.truncated), ("abcd", 6, true));
    }

    /// A cut never shows half a character.
    #[test]
    fn a_cut_falls_between_characters() {
        assert_eq!(captured("aäb".as_bytes(), 2, 100).1.text, "a");
        assert_eq!(captured("a😀b".as_bytes(), 4, 100).1.text, "a");
        assert_eq!(captured(b"\xffa\xc3\xa4b", 3, 100).1.text, "\u{fffd}a");
    }

    /// Bytes that are no text become replacement characters, and nothing fails.
    #[test]
    fn broken_utf8_is_replaced() {
        assert_eq!(captured(b"a\xff\xfeb", 10, 100).1.text, "a\u{fffd}\u{fffd}b");
    }

    /// Both streams draw on one budget.
    #[test]
    fn a_flood_is_reported() {
        let budget = OutputBudget::new(5);
        assert_eq!(Capture::new(10).add(b"abc", &budget), Ok(()));
        assert_eq!(Capture::new(10).add(b"abc", &budget), Err(Flooded));
    }
}
