//! How large a result is, and whether it can be stored at all.

use serde_json::Value;

use crate::error::{ErrorCode, TaskError};

/// More objects and arrays within each other than this are no result: what reads JSON bounds its
/// depth (`serde_json` at 128), and a result that cannot be read back must not be stored.
pub const NESTING_MAX: u32 = 100;

/// The message of an error is cut beyond so many bytes: it is kept with its task, with an event
/// and in the log.
const MESSAGE_MAX: usize = 64 * 1024;

/// Why a value cannot be a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAResult {
    TooDeep,
    TooLong { bytes: u64, limit: u64 },
}

impl NotAResult {
    pub(super) fn into_error(self) -> TaskError {
        let message = match self {
            Self::TooDeep => format!(
                "the result has more than {NESTING_MAX} objects and arrays within each other; \
                 return a flatter one, or its text"
            ),
            Self::TooLong { bytes, limit } => format!(
                "the result has {bytes} bytes, and {limit} are allowed; return less, write it to a \
                 file and return its path, or raise `engine.max_result_mb`"
            ),
        };
        TaskError::new(ErrorCode::TaskResultInvalid, message)
    }
}

/// The size of a result, if it is one.
pub(super) fn result_size(value: &Value, limit: u64) -> Result<u64, NotAResult> {
    let bytes = json_size(value, NESTING_MAX).ok_or(NotAResult::TooDeep)?;
    if bytes > limit { Err(NotAResult::TooLong { bytes, limit }) } else { Ok(bytes) }
}

/// Whether the value of an expression can be a result. Its size is bounded by the evaluation, below
/// what any setting allows.
///
/// # Errors
/// `TASK_RESULT_INVALID` if it is nested too deeply.
pub(crate) fn check_value(value: &Value) -> Result<(), TaskError> {
    result_size(value, u64::MAX).map(drop).map_err(NotAResult::into_error)
}

/// Data that cannot be stored is removed; the message says so.
pub(super) fn storable(mut error: TaskError, limit: u64) -> TaskError {
    if error.data.as_ref().is_some_and(|data| result_size(data, limit).is_err()) {
        error.data = None;
    }
    if error.message.len() > MESSAGE_MAX {
        let bytes = error.message.len();
        let end = error.message.floor_char_boundary(MESSAGE_MAX);
        error.message = format!("{}… ({bytes} bytes)", &error.message[..end]).into();
    }
    error
}

/// About how many bytes an error takes: its data may be as large as a result.
pub(super) fn error_size(error: &TaskError) -> u64 {
    let data = error.data.as_deref().and_then(|data| json_size(data, NESTING_MAX));
    (error.message.len() as u64).saturating_add(data.unwrap_or(0))
}

/// True when a value takes more than so many bytes as JSON. Looks at no more of it than it must.
pub(super) fn is_larger(value: &Value, bytes: u64) -> bool {
    fn left(value: &Value, bytes: u64) -> Option<u64> {
        match value {
            Value::String(text) => bytes.checked_sub(text.len() as u64 + 2),
            Value::Array(items) => {
                let bytes = bytes.checked_sub(items.len() as u64 + 1)?;
                items.iter().try_fold(bytes, |bytes, item| left(item, bytes))
            }
            Value::Object(fields) => {
                let bytes = bytes.checked_sub(fields.len() as u64 + 1)?;
                fields.iter().try_fold(bytes, |bytes, (name, field)| {
                    left(field, bytes.checked_sub(name.len() as u64 + 3)?)
                })
            }
            _ => bytes.checked_sub(4),
        }
    }
    left(value, bytes).is_none()
}

/// The size of a value as JSON, in bytes. `None` if it nests more than `depth` objects and arrays.
pub(super) fn json_size(value: &Value, depth: u32) -> Option<u64> {
    fn len(text: &str) -> u64 {
        // Text of control characters is six times as long when it is written.
        let escapes: u64 = text.bytes().map(escape).sum();
        text.len() as u64 + 2 + escapes
    }
    fn escape(byte: u8) -> u64 {
        match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 1,
            0..0x20 => 5,
            _ => 0,
        }
    }
    Some(match value {
        Value::Null => 4,
        Value::Bool(flag) => 5 - u64::from(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(n) => u64::from(n.checked_ilog10().unwrap_or(0)) + 1,
            None => number.to_string().len() as u64,
        },
        Value::String(text) => len(text),
        Value::Array(items) => {
            let depth = depth.checked_sub(1)?;
            let commas = (items.len() as u64).saturating_sub(1);
            items.iter().map(|it| json_size(it, depth)).sum::<Option<u64>>()? + commas + 2
        }
        Value::Object(fields) => {
            let depth = depth.checked_sub(1)?;
            let commas = (fields.len() as u64).saturating_sub(1);
            let size = |(key, it): (&String, &Value)| Some(len(key) + 1 + json_size(it, depth)?);
            fields.iter().map(size).sum::<Option<u64>>()? + commas + 2
        }
    })
}
