//! Standard output and standard error: all text that the program prints is cleaned here and written
//! whole.
//!
//! Invariants: a control character or a bidirectional one reaches neither stream, except line
//! ends, tabs and the colours of [`style`](super::style). A write to standard output that failed is
//! remembered, so that the program does not end with success; nothing is written after it.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::SecondsFormat;
use gleitzeit_domain::printable;
use serde_json::json;

use super::{Exit, style};

/// The first error of a write to standard output.
static BROKEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// True if each line on standard error is a JSON object.
static JSON_LINES: AtomicBool = AtomicBool::new(false);

/// From now on each line on standard error is a JSON object, as the log's are.
pub(crate) fn write_json_lines() {
    JSON_LINES.store(true, Ordering::Relaxed);
}

/// True if each line on standard error is a JSON object.
pub(crate) fn writes_json_lines() -> bool {
    JSON_LINES.load(Ordering::Relaxed)
}

/// Writes to standard output and hands it over at once.
pub(super) fn put(text: &str) -> io::Result<()> {
    let mut broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = &*broken {
        return Err(error.kind().into());
    }
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = &written {
        *broken = Some(match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        });
    }
    written
}

/// True if nothing more can be written to standard output: its reader has gone, or a write failed.
pub(crate) fn is_broken() -> bool {
    BROKEN.lock().unwrap_or_else(PoisonError::into_inner).is_some() || reader_has_left()
}

/// True if standard output is a pipe that nobody reads. A program that waits must ask: the next
/// write, which would say so, may be hours away.
#[cfg(target_os = "linux")]
fn reader_has_left() -> bool {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let out = io::stdout();
    let mut asked = [PollFd::new(out.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0].revents().is_some_and(|it| it.contains(PollFlags::POLLERR))
}

/// Other systems say it at the next write.
#[cfg(not(target_os = "linux"))]
fn reader_has_left() -> bool {
    false
}

/// How the program ends, once it has written all: a result that could not be written is a failure
/// of the machine, a reader that left early is none.
pub(crate) fn finish(exit: Exit) -> Exit {
    let broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    match broken {
        None => exit,
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Some(error) => {
            let message = format!("standard output cannot be written: {error}");
            remark("ERROR", &message, &format!("error: {message}"));
            Exit::Infrastructure
        }
    }
}

/// True if the reader of standard output has gone.
pub(crate) fn is_reader_gone() -> bool {
    let broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    broken.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a remark to standard error: `text` to a person, or `message` as a line of JSON.
///
/// Its errors go unnoticed: there is no other stream to report them.
pub(super) fn remark(level: &str, message: &str, text: &str) {
    let line = if writes_json_lines() {
        json_line(level, message)
    } else {
        cleaned(text, style::errors_are_coloured()).into_owned() + "\n"
    };
    let mut out = io::stderr().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// A line of the shape that the log has with `logging.format = "json"`.
fn json_line(level: &str, message: &str) -> String {
    let line = json!({
        "timestamp": gleitzeit_actors::clock::utc_now().to_rfc3339_opts(SecondsFormat::Micros, true),
        "level": level,
        "fields": { "message": message },
        "target": "gleitzeit",
    });
    printable::json(&line.to_string()).into_owned() + "\n"
}

/// The text as it may be printed; `with_colours` lets those of [`style`](super::style) pass.
pub(super) fn cleaned(text: &str, with_colours: bool) -> Cow<'_, str> {
    if !with_colours || !text.contains('\u{1b}') {
        return printable::block(text);
    }
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        output.push_str(&printable::block(&rest[..at]));
        rest = &rest[at..];
        let kept = style::prefix(rest).map_or(0, str::len);
        output.push_str(&rest[..kept]);
        if kept == 0 {
            printable::escape('\u{1b}', &mut output);
        }
        rest = &rest[kept.max(1)..];
    }
    output.push_str(&printable::block(rest));
    Cow::Owned(output)
}

/// Standard output for JSON that is written in parts, such as an export.
///
/// Characters may be cut between two writes; the part of one that is not whole waits for the next.
#[derive(Debug, Default)]
pub(crate) struct JsonOut {
    cut: Vec<u8>,
}

impl Write for JsonOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cut.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.cut) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                let valid = &self.cut[..error.valid_up_to()];
                std::str::from_utf8(valid).unwrap_or_default()
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let length = whole.len();
        put(&printable::json(whole))?;
        self.cut.drain(..length);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error for the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOut;

impl Write for LogOut {
    /// The log writes each line at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let output = if writes_json_lines() {
            printable::json(&text)
        } else {
            // A message of several lines must not pass for several messages.
            let line = text.trim_end_matches('\n').replace('\n', "\n  ") + "\n";
            Cow::Owned(cleaned(&line, style::errors_are_coloured()).into_owned())
        };
        io::stderr().lock().write_all(output.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours of the program pass; everything else that begins with ESC is text.
    #[test]
    fn only_the_colours_of_the_program_pass() {
        let red = style::Style::Bad.paint("no", true);
        let text = format!("{red} \u{1b}[8mhidden\u{1b}]0;t\u{7}\u{1b}");
        let expected = format!("{red} \\u001b[8mhidden\\u001b]0;t\\u0007\\u001b");
        assert_eq!(cleaned(&text, true), expected);
        assert!(!cleaned(&text, false).contains('\u{1b}'));
    }
}
