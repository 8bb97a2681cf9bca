//! Reads what the process says of itself.
//!
//! Invariants: it is the task's own word. Its size is bounded before it is read; its result stays
//! text until that is held against the bound of the job, and becomes a tree whose memory is bounded
//! as well; nothing in it outweighs what the kernel says of the process.

use std::io;

use gleitzeit_domain::json::{self, Bounds, JsonError};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::outcome::{Diagnostic, Failure, ResultType, Status};

/// Besides the result, a reply holds a traceback and findings of at most this size: the harness
/// keeps some 64 KiB of text, of which JSON escapes each character with up to six.
const OVERHEAD_BYTES: usize = 1 << 20;

/// What the harness reports.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) result: Value,
    pub(crate) result_type: ResultType,
    pub(crate) error: Option<Failure>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) peak_bytes: Option<u64>,
}

/// A reply as it comes, its result not looked into.
#[derive(Deserialize)]
struct Frame<'a> {
    status: Status,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    result_type: ResultType,
    #[serde(default)]
    error: Option<Failure>,
    #[serde(default)]
    diagnostics: Vec<Diagnostic>,
    #[serde(default)]
    cpu_seconds: Option<f64>,
    #[serde(default)]
    peak_bytes: Option<u64>,
}

/// Reads one reply; `None` when the process ended without one.
///
/// # Errors
/// When what came is no reply, or one that is too large.
pub(crate) async fn read_reply(
    mut source: impl AsyncRead + Unpin,
    result_max_bytes: usize,
) -> Result<Option<Reply>, String> {
    let length = match source.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if is_end(&error) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let most = result_max_bytes.saturating_add(OVERHEAD_BYTES);
    if length > most {
        return Err(format!("it announced a reply of {length} bytes, more than {most}"));
    }
    // Grows with what arrives and not with what was announced.
    let mut frame = Vec::new();
    match source.take(length as u64).read_to_end(&mut frame).await {
        Ok(read) if read == length => {}
        Ok(read) => return Err(format!("its reply ended after {read} of {length} bytes")),
        Err(error) => return Err(error.to_string()),
    }
    let reply = serde_json::from_slice(&frame).map_err(|error| error.to_string());
    reply
        .and_then(|frame| understand(frame, result_max_bytes))
        .map(Some)
        .map_err(|error| format!("its reply is none: {error}"))
}

/// Makes a tree of the result, within the bound of the job.
fn understand(frame: Frame<'_>, result_max_bytes: usize) -> Result<Reply, String> {
    if matches!(frame.status, Status::Timeout | Status::Killed) {
        let status = frame.status.as_str();
        return Err(format!("it says `{status}` of itself, which only the kernel can tell"));
    }
    let mut reply = Reply {
        status: frame.status,
        result: Value::Null,
        result_type: frame.result_type,
        error: frame.error,
        diagnostics: frame.diagnostics,
        cpu_seconds: frame.cpu_seconds,
        peak_bytes: frame.peak_bytes,
    };
    let text = frame.result.map_or("null", RawValue::get);
    match json::read(text.as_bytes(), Bounds::of_text(result_max_bytes)) {
        Ok(result) => reply.result = result,
        Err(error @ (JsonError::TooLong { .. } | JsonError::TooManyValues { .. })) => {
            reply.status = Status::OutputLimit;
            reply.error = Some(Failure {
                kind: "ResultTooLarge".to_owned(),
                message: format!("the result is too large: {error}; return less, or where it is"),
                ..Failure::default()
            });
        }
        Err(JsonError::Invalid(why)) => return Err(why),
    }
    Ok(reply)
}

/// A process that dies with unread input resets the line instead of closing it.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT_MAX_BYTES: usize = 1024;

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes(), body].concat()
    }

    async fn read(bytes: &[u8]) -> Result<Option<Reply>, String> {
        read_reply(bytes, RESULT_MAX_BYTES).await
    }

    /// A process that says nothing is not one that says something wrong.
    #[tokio::test]
    async fn silence_is_no_reply() {
        assert_eq!(read(b"").await, Ok(None));
        assert_eq!(read(b"\0\0").await, Ok(None));
    }

    /// Whatever a task sends is a reply or a reason, and never more than its bound in memory.
    #[tokio::test]
    async fn forged_replies_are_refused_with_a_reason() {
        let deep = format!("{{\"status\":\"ok\",\"result\":{}1", "[".repeat(100_000));
        for (bytes, reason) in [
            (b"{\"ok\":true}".to_vec(), "announced a reply of"),
            (u32::MAX.to_be_bytes().to_vec(), "announced a reply of"),
            ([&[0, 0, 0, 9][..], b"{}"].concat(), "ended after 2 of 9 bytes"),
            (framed(b"{}"), "missing field `status`"),
            (framed(b"{\"status\":\"great\"}"), "unknown variant `great`"),
            (framed(b"{\"status\":\"timeout\"}"), "only the kernel can tell"),
            (framed(b"{\"status\":\"killed\"}"), "only the kernel can tell"),
            (framed(b"\xff\xfe"), "its reply is none"),
            (framed(deep.as_bytes()), "recursion limit exceeded"),
            (framed(b"{\"status\":\"ok\",\"result\":NaN}"), "its reply is none"),
        ] {
            let told = read(&bytes).await.unwrap_err();
            assert!(told.contains(reason), "{reason}: {told}");
        }
    }

    /// What the harness sends is read as it was meant.
    #[tokio::test]
    async fn a_reply_is_read() {
        let body = br#"{"status":"ok","cpu_seconds":0.5,"peak_bytes":7,"result_type":"json","result":[1]}"#;
        let reply = read(&framed(body)).await.unwrap().unwrap();
        assert_eq!((reply.status, reply.result_type), (Status::Ok, ResultType::Json));
        assert_eq!((reply.result, reply.peak_bytes), (serde_json::json!([1]), Some(7)));
    }

    /// A result is held against its own bound, whatever room the rest of a reply may take, and
    /// against the memory of its tree.
    #[tokio::test]
    async fn results_are_held_against_their_bound() {
        let reply =
            |result: &str| framed(format!(r#"{{"status":"ok","result":{result}}}"#).as_bytes());
        let fits = format!("\"{}\"", "x".repeat(RESULT_MAX_BYTES - 2));
        let told = read(&reply(&fits)).await.unwrap().unwrap();
        assert_eq!((told.status, told.result.to_string()), (Status::Ok, fits));
        let long = format!("\"{}\"", "x".repeat(RESULT_MAX_BYTES - 1));
        let told = read(&reply(&long)).await.unwrap().unwrap();
        assert_eq!((told.status, told.result), (Status::OutputLimit, Value::Null));
        assert!(told.error.unwrap().message.contains("1025 bytes of JSON"));

        let many = format!("[{}0]", "{\"\":0},".repeat(140_000));
        let told = read_reply(&*reply(&many), 1 << 20).await.unwrap().unwrap();
        assert_eq!((told.status, told.result), (Status::OutputLimit, Value::Null));
        assert!(told.error.unwrap().message.contains("many small values"));
    }
}
