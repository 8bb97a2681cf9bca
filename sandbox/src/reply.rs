//! Reads what the process says of itself.
//!
//! Invariant: it is the task's own word. Its size is bounded before it is read, its depth by the
//! reader, and nothing in it outweighs what the kernel says of the process.

use std::io;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::outcome::{Diagnostic, Failure, ResultType, Status};

/// Besides the result, a reply holds a traceback and findings of at most this size.
const OVERHEAD_BYTES: usize = 8 << 20;

/// What the harness reports.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) result: Value,
    #[serde(default)]
    pub(crate) result_type: ResultType,
    #[serde(default)]
    pub(crate) error: Option<Failure>,
    #[serde(default)]
    pub(crate) diagnostics: Vec<Diagnostic>,
    #[serde(default)]
    pub(crate) cpu_seconds: Option<f64>,
    #[serde(default)]
    pub(crate) peak_bytes: Option<u64>,
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
    serde_json::from_slice(&frame).map(Some).map_err(|error| format!("its reply is none: {error}"))
}

/// A process that dies with unread input resets the line instead of closing it.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
