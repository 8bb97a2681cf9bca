//! Reads the process's report about itself.
//!
//! A reply is one frame or two, each of a length and as many bytes: the harness's report, and the
//! result as JSON text, if there is one.
//!
//! Invariants: the reply is data of the task and not trusted. Each frame is checked against its
//! bound before it is read, and the memory of the parsed result is bounded, too. The kernel's
//! report overrides it.

use std::io;

use gleitzeit_domain::json::{self, Bounds, JsonError};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::outcome::{Diagnostic, Failure, ResultType, Status};

/// Besides the result, a reply holds a traceback and findings; the harness bounds both.
const HEAD_MAX_BYTES: usize = 1 << 20;

/// The report of the harness.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) result: Value,
    pub(crate) result_type: ResultType,
    pub(crate) error: Option<Failure>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) memory_delta_bytes: Option<u64>,
}

/// The first frame.
#[derive(Deserialize)]
struct ReplyText {
    status: Status,
    /// True when a second frame follows.
    #[serde(default)]
    has_result: bool,
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
    #[serde(default)]
    memory_delta_bytes: Option<u64>,
}

/// Reads one reply; `None` when the process ended without one.
///
/// # Errors
/// When what came is no reply, or one that is too large.
pub(crate) async fn read_reply(
    mut source: impl AsyncRead + Unpin,
    result_max_bytes: usize,
) -> Result<Option<Reply>, String> {
    let Some(frame) = read_frame(&mut source, HEAD_MAX_BYTES).await? else { return Ok(None) };
    let odd = |error: String| format!("its reply is invalid: {error}");
    let head: ReplyText = serde_json::from_slice(&frame).map_err(|error| odd(error.to_string()))?;
    drop(frame);
    if matches!(head.status, Status::Timeout | Status::Killed) {
        let status = head.status.as_str();
        return Err(odd(format!(
            "it reports `{status}` of itself, which only the kernel can know"
        )));
    }
    let mut reply = Reply {
        status: head.status,
        result: Value::Null,
        result_type: head.result_type,
        error: head.error,
        diagnostics: head.diagnostics,
        cpu_seconds: head.cpu_seconds,
        peak_bytes: head.peak_bytes,
        memory_delta_bytes: head.memory_delta_bytes,
    };
    if head.has_result {
        let text = read_frame(&mut source, result_max_bytes).await?;
        let text = text.ok_or_else(|| odd("its result is missing".to_owned()))?;
        match json::read(&text, Bounds::of_text(result_max_bytes)) {
            Ok(result) => reply.result = result,
            // Values that fit as text and not as a tree are honest, but too many.
            Err(error @ JsonError::TooManyValues { .. }) => {
                reply.status = Status::OutputLimit;
                reply.error = Some(Failure {
                    kind: "ResultTooLarge".to_owned(),
                    message: format!("the result: {error}; return less, or return where it is"),
                    ..Failure::default()
                });
            }
            Err(error) => return Err(odd(error.to_string())),
        }
    }
    Ok(Some(reply))
}

/// Reads one frame of at most `most` bytes; `None` if the stream ends before it.
async fn read_frame(
    source: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Option<Vec<u8>>, String> {
    let length = match source.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if is_end(&error) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if length > most {
        return Err(format!("it announced a reply of {length} bytes, more than {most}"));
    }
    // Grows with what arrives and not with what was announced.
    let mut frame = Vec::new();
    match source.take(length as u64).read_to_end(&mut frame).await {
        Ok(read) if read == length => Ok(Some(frame)),
        Ok(read) => Err(format!("its reply ended after {read} of {length} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

/// A process that dies with unread input resets the line instead of closing it.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT_MAX_BYTES: usize = 1024;
    const HAS_RESULT: &[u8] = br#"{"status":"ok","has_result":true}"#;

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes(), body].concat()
    }

    fn with_result(text: &str) -> Vec<u8> {
        [framed(HAS_RESULT), framed(text.as_bytes())].concat()
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
        for (bytes, reason) in [
            (b"{\"ok\":true}".to_vec(), "announced a reply of"),
            (u32::MAX.to_be_bytes().to_vec(), "announced a reply of"),
            ([&[0, 0, 0, 9][..], b"{}"].concat(), "ended after 2 of 9 bytes"),
            (framed(b"{}"), "missing field `status`"),
            (framed(b"{\"status\":\"great\"}"), "unknown variant `great`"),
            (framed(b"{\"status\":\"timeout\"}"), "only the kernel can know"),
            (framed(b"{\"status\":\"killed\"}"), "only the kernel can know"),
            (framed(b"\xff\xfe"), "its reply is invalid"),
            (framed(HAS_RESULT), "its result is missing"),
            (with_result(&"[".repeat(1000)), "recursion limit exceeded"),
            (with_result("NaN"), "its reply is invalid"),
            (with_result(&"1".repeat(RESULT_MAX_BYTES + 1)), "1025 bytes, more than 1024"),
        ] {
            let error = read(&bytes).await.unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }

    /// What the harness sends is read as it was meant. A result in the first frame is not one.
    #[tokio::test]
    async fn a_reply_is_read() {
        let head = br#"{"status":"ok","cpu_seconds":0.5,"peak_bytes":7,"result_type":"json","has_result":true,"result":9}"#;
        let reply = read(&[framed(head), framed(b"[1]")].concat()).await.unwrap().unwrap();
        assert_eq!((reply.status, reply.result_type), (Status::Ok, ResultType::Json));
        assert_eq!((reply.result, reply.peak_bytes), (serde_json::json!([1]), Some(7)));
        let forged = format!(r#"{{"status":"ok","result":[{}0]}}"#, "{\"\":0},".repeat(100_000));
        assert_eq!(read(&framed(forged.as_bytes())).await.unwrap().unwrap().result, Value::Null);
    }

    /// Many small values take far more memory than their text, and are refused for it.
    #[tokio::test]
    async fn a_result_is_held_against_the_memory_of_its_tree() {
        let many = format!("[{}0]", "{\"\":0},".repeat(140_000));
        let error = read_reply(&*with_result(&many), 1 << 20).await.unwrap().unwrap();
        assert_eq!((error.status, error.result), (Status::OutputLimit, Value::Null));
        assert!(error.error.unwrap().message.contains("many small values"));
    }
}
