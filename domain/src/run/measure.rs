//! How large a result is, and whether it can be stored at all.

use serde_json::Value;

use crate::error::{ErrorCode, TaskError};

/// More objects and arrays within each other than this are no result: what reads JSON bounds its
/// depth (`serde_json` at 128), and a result that cannot be read back must not be stored.
pub const NESTING_MAX: u32 = 100;

pub(super) fn too_deep() -> TaskError {
    let message = format!(
        "the result has more than {NESTING_MAX} objects and arrays within each other; return a \
         flatter one, or its text"
    );
    TaskError::new(ErrorCode::TaskResultInvalid, message)
}

/// What cannot be stored is left out; the message says what happened.
pub(super) fn without_deep_data(mut error: TaskError) -> TaskError {
    if error.data.as_ref().is_some_and(|data| json_size(data, NESTING_MAX).is_none()) {
        error.data = None;
    }
    error
}

/// About how many bytes a value takes as JSON; escapes are not counted. `None` where it has more
/// than `depth` objects and arrays within each other.
pub(super) fn json_size(value: &Value, depth: u32) -> Option<u64> {
    fn len(text: &str) -> u64 {
        text.len() as u64 + 2
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
