//! The frames that a supervisor writes: a kind, a length, and that many bytes.
//!
//! Invariant: the memory held for one frame is bounded, whatever its length field contains. Data is
//! forwarded as it arrives.

use serde::Deserialize;

/// A report of how a task ended is not longer than this.
const REPORT_MAX_BYTES: usize = 4096;
const HEAD_BYTES: usize = 5;

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Output of the task.
    Stdout,
    /// Output of the task on the error stream.
    Stderr,
    /// A part of its reply.
    Reply,
    /// How it ended.
    Report,
    /// It may come.
    Ready,
}

impl FrameKind {
    fn of(byte: u8) -> Result<Self, String> {
        match byte {
            b'o' => Ok(Self::Stdout),
            b'e' => Ok(Self::Stderr),
            b'a' => Ok(Self::Reply),
            b'x' => Ok(Self::Report),
            b'r' => Ok(Self::Ready),
            other => Err(format!("a message of an unknown kind, {other:#04x}")),
        }
    }
}

/// The end of a task, as the supervisor reports it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Report {
    /// As `wait` gives it.
    pub(crate) status: i32,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: u64,
    pub(crate) out_of_memory: bool,
}

/// A decoded frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'a> {
    /// It waits for a task.
    Ready,
    /// Bytes of a stream.
    Data(FrameKind, &'a [u8]),
    /// The end.
    Report(Report),
}

/// Takes what comes apart.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: Vec<u8>,
    /// The message that is under way, and how much of it is to come.
    open: Option<(FrameKind, usize)>,
    report: Vec<u8>,
}

impl Decoder {
    /// Decodes the next frame of `bytes` and advances `bytes` past it; `None` if more bytes are
    /// needed.
    ///
    /// # Errors
    /// If the bytes are no frame of a supervisor.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, String> {
        let (kind, left) = match self.open {
            Some(open) => open,
            None => match self.begin(bytes)? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        let (part, rest) = bytes.split_at(bytes.len().min(left));
        *bytes = rest;
        let left = left - part.len();
        self.open = (left > 0).then_some((kind, left));
        match kind {
            FrameKind::Ready => Ok(Some(Frame::Ready)),
            FrameKind::Report => {
                self.report.extend_from_slice(part);
                if left > 0 {
                    return Ok(None);
                }
                serde_json::from_slice(&std::mem::take(&mut self.report))
                    .map(|report| Some(Frame::Report(report)))
                    .map_err(|error| format!("invalid report: {error}"))
            }
            FrameKind::Stdout | FrameKind::Stderr | FrameKind::Reply if part.is_empty() => Ok(None),
            FrameKind::Stdout | FrameKind::Stderr | FrameKind::Reply => {
                Ok(Some(Frame::Data(kind, part)))
            }
        }
    }

    /// Reads the head of a message.
    fn begin(&mut self, bytes: &mut &[u8]) -> Result<Option<(FrameKind, usize)>, String> {
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head.len()));
        self.head.extend_from_slice(head);
        *bytes = rest;
        let Some((kind, length)) = self.head.split_first_chunk::<1>() else { return Ok(None) };
        let kind = FrameKind::of(kind[0])?;
        let Ok(length) = <[u8; 4]>::try_from(length) else { return Ok(None) };
        let length = u32::from_be_bytes(length) as usize;
        let most = match kind {
            FrameKind::Ready => 0,
            FrameKind::Report => REPORT_MAX_BYTES,
            FrameKind::Stdout | FrameKind::Stderr | FrameKind::Reply => usize::MAX,
        };
        if length > most {
            return Err(format!("a message of {length} bytes, more than {most}"));
        }
        self.head.clear();
        Ok(Some((kind, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// Everything said in `parts`, data joined by its mark.
    fn all(parts: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut decoder = Decoder::default();
        let mut seen: Vec<String> = Vec::new();
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                match decoder.next(&mut part)? {
                    Some(Frame::Data(kind, data)) => {
                        let name = format!("{kind:?} ");
                        let text = String::from_utf8_lossy(data);
                        match seen.last_mut().filter(|last| last.starts_with(&name)) {
                            Some(last) => last.push_str(&text),
                            None => seen.push(name + &text),
                        }
                    }
                    Some(frame) => seen.push(format!("{frame:?}")),
                    None => {}
                }
            }
        }
        Ok(seen)
    }

    /// However the engine cuts what it passes on, the same is heard.
    #[test]
    fn messages_are_decoded_however_they_are_cut() {
        let report = br#"{"status":256,"cpu_seconds":0.5,"peak_bytes":7,"out_of_memory":false}"#;
        let line = [
            message(b'r', b""),
            message(b'o', b"hello"),
            message(b'o', b""),
            message(b'e', b"oh"),
            message(b'a', b"1234"),
            message(b'x', report),
        ]
        .concat();
        let whole = all(&[&line]).unwrap();
        let report =
            "Report(Report { status: 256, cpu_seconds: 0.5, peak_bytes: 7, out_of_memory: false })";
        assert_eq!(whole, ["Ready", "Stdout hello", "Stderr oh", "Reply 1234", report]);
        for size in 1..line.len() {
            let parts: Vec<&[u8]> = line.chunks(size).collect();
            assert_eq!(all(&parts).unwrap(), whole, "in parts of {size}");
        }
    }

    /// What no supervisor says ends the conversation.
    #[test]
    fn nonsense_is_refused() {
        for (line, reason) in [
            (message(b'?', b""), "unknown kind, 0x3f"),
            (message(b'r', b"x"), "a message of 1 bytes, more than 0"),
            (message(b'x', &[b' '; 5000]), "a message of 5000 bytes, more than 4096"),
            (message(b'x', b"{}"), "invalid report: missing field"),
        ] {
            let seen = all(&[&line]).unwrap_err();
            assert!(seen.contains(reason), "{seen}");
        }
    }
}
