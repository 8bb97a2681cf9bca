//! Encodes records as the values of rows, and decodes them.
//!
//! Invariant: an encoded value can be read back exactly, with times to the microsecond. A value that
//! could not is rejected before anything is written, so that no row can keep a store from opening.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    error::TaskError,
    event::{Event, EventData},
    id::WorkflowId,
    needs::Needs,
    store::{
        StoreError,
        lease::{Command, RequestAnswer, Resolution},
    },
    task::TaskRecord,
    workflow::{TaskSpec, WorkflowSpec},
};
use sea_orm::Value;
use serde::{Serialize, de::DeserializeOwned};

/// Upper limit of the bytes of JSON in a row; longer JSON becomes a blob.
const INLINE_MAX: usize = 64 * 1024;

/// Upper limit of the nesting of a stored value: `serde_json` stops at 128, and the record adds a few
/// levels of its own.
const NESTING_MAX: usize = 112;

/// The hash of a large payload, and its key.
pub(super) type Hash = [u8; 32];

/// Large payloads to write, by hash.
pub(super) type Blobs = BTreeMap<Hash, String>;

/// Escapes NUL, which a text column of PostgreSQL cannot hold. Most texts stay unchanged.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains(['\0', '\\']) {
        // Backslashes first: the one that stands for NUL must not be escaped itself.
        Cow::Owned(text.replace('\\', "\\\\").replace('\0', "\\0"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Undoes [`escape`].
pub(super) fn unescape(text: String) -> String {
    // Most texts have no escape, and are returned without a copy.
    if !text.contains('\\') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

/// A text column.
pub(super) fn text(text: &str) -> Value {
    Value::String(Some(escape(text).into_owned()))
}

/// A column with the name of a status.
pub(super) fn name(name: &'static str) -> Value {
    Value::String(Some(name.to_owned()))
}

/// A column with a time.
pub(super) fn time(at: Option<DateTime<Utc>>) -> Value {
    Value::BigInt(at.map(|at| at.timestamp_micros()))
}

/// A column with a count.
pub(super) fn count(number: u64) -> Result<Value, StoreError> {
    // An error instead of a cast: a negative count could not be read back, and would break its
    // workflow.
    match i64::try_from(number) {
        Ok(number) => Ok(Value::BigInt(Some(number))),
        Err(_) => Err(refused(format!("{number} is too large for a count"))),
    }
}

/// A time read from a column.
pub(super) fn time_of(micros: i64) -> Result<DateTime<Utc>, StoreError> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| refused(format!("{micros} is no time in microseconds")))
}

/// An optional time read from a column.
pub(super) fn time_of_nullable(micros: Option<i64>) -> Result<Option<DateTime<Utc>>, StoreError> {
    micros.map(time_of).transpose()
}

/// A count read from a column.
pub(super) fn count_of<T: TryFrom<i64>>(number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| refused(format!("{number} is no count")))
}

/// Parses stored JSON.
pub(super) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| refused(format!("cannot read stored JSON: {error}")))
}

/// An error column.
pub(super) fn error(error: Option<&Arc<TaskError>>) -> Result<Value, StoreError> {
    let Some(error) = error else { return Ok(Value::String(None)) };
    if let Some(data) = error.data.as_deref() {
        check_nesting(data, "the data of an error")?;
    }
    Ok(Value::String(Some(json(&**error)?)))
}

/// The columns of a payload: its JSON, or the hash of the blob that is added to `blobs`.
fn payload(json: String, blobs: &mut Blobs) -> [Value; 2] {
    if json.len() <= INLINE_MAX {
        return [Value::String(Some(json)), Value::Bytes(None)];
    }
    // By content: tasks with equal payloads share one blob.
    let hash = Hash::from(blake3::hash(json.as_bytes()));
    blobs.insert(hash, json);
    [Value::String(None), Value::Bytes(Some(hash.to_vec()))]
}

/// The columns `spec` and `spec_blob`.
pub(super) fn spec(spec: &WorkflowSpec, blobs: &mut Blobs) -> Result<[Value; 2], StoreError> {
    for value in spec.inputs.values() {
        check_nesting(value, "an input")?;
    }
    for task in &spec.tasks {
        check_nesting(&task.parameters, "a task's parameters")?;
    }
    Ok(payload(json(spec)?, blobs))
}

/// The columns `result` and `result_blob`.
pub(super) fn result(task: &TaskRecord, blobs: &mut Blobs) -> Result<[Value; 2], StoreError> {
    let Some(result) = task.result.as_deref() else {
        return Ok([Value::String(None), Value::Bytes(None)]);
    };
    // Before the JSON is written: serde_json writes any depth, and then fails to read it.
    check_nesting(result, "a result")?;
    Ok(payload(json(result)?, blobs))
}

/// The hash of needs, and their key; 0 for unknown needs.
pub(super) fn needs_hash(needs: &Needs) -> i64 {
    if needs.is_unknown() {
        return 0;
    }
    let hash = Hash::from(blake3::hash(needs_body(needs).as_bytes()));
    // Positive and not 0: the column is signed, and 0 means unknown.
    let first = hash.iter().take(8).fold(0_i64, |all, byte| (all << 8) | i64::from(*byte));
    (first & i64::MAX).max(1)
}

/// The stored text of needs: a method a line.
pub(super) fn needs_body(needs: &Needs) -> String {
    let mut body = String::new();
    for method in needs.methods() {
        if !body.is_empty() {
            body.push('\n');
        }
        body.push_str(method);
    }
    body
}

/// Decodes needs.
pub(super) fn needs_of(body: &str) -> Needs {
    body.lines().map(Arc::from).collect()
}

/// The body of a request.
pub(super) fn command(command: &Command) -> Result<String, StoreError> {
    if let Command::Resolve { resolution: Resolution::Completed { result }, .. } = command {
        check_nesting(result, "a result")?;
    }
    json(command)
}

/// The answer to a request.
pub(super) fn answer(answer: &RequestAnswer) -> Result<String, StoreError> {
    if let Err(TaskError { data: Some(data), .. }) = answer {
        check_nesting(data, "the data of an error")?;
    }
    json(&answer.as_ref().err())
}

/// Decodes the answer to a request.
pub(super) fn answer_of(text: &str) -> Result<RequestAnswer, StoreError> {
    Ok(parse::<Option<TaskError>>(text)?.map_or(Ok(()), Err))
}

/// The columns `first_sequence`, `event_count` and `body`.
pub(super) fn events(events: &[Event]) -> Result<[Value; 3], StoreError> {
    // A row has the sequence of its first event only: a gap would renumber every event after it.
    let first = events.first().map_or(0, |event| event.sequence);
    for (event, expected) in events.iter().zip(first..) {
        if event.sequence != expected {
            return Err(refused(format!(
                "event {} stands where event {expected} belongs",
                event.sequence
            )));
        }
    }
    let body: Vec<(i64, &EventData)> =
        events.iter().map(|event| (event.timestamp.timestamp_micros(), &event.data)).collect();
    Ok([count(first)?, count(events.len() as u64)?, Value::String(Some(json(&body)?))])
}

/// Decodes the events of a row.
pub(super) fn events_of(
    id: &WorkflowId,
    first_sequence: u64,
    body: &str,
) -> Result<Vec<Event>, StoreError> {
    let body: Vec<(i64, EventData)> = parse(body)?;
    body.into_iter()
        .zip(first_sequence..)
        .map(|((micros, data), sequence)| {
            let timestamp = time_of(micros)?;
            Ok(Event { timestamp, workflow_id: Some(id.clone()), sequence, data })
        })
        .collect()
}

/// The task at `index` by the spec of its workflow: a task without a row.
pub(super) fn waiting(index: u32, spec: &TaskSpec) -> TaskRecord {
    let id: Arc<str> = if spec.id.is_empty() {
        // The id that a task without one gets at its submission: another would be another task.
        format!("task-{}", u64::from(index) + 1).into()
    } else {
        spec.id.as_str().into()
    };
    let name = spec.name.as_deref().map_or_else(|| Arc::clone(&id), Arc::from);
    TaskRecord::pending(index, gleitzeit_domain::id::TaskId::new(id), name)
}

/// True if [`waiting`] returns `task`. It does not build the task: this runs for every submitted one.
pub(super) fn is_waiting(task: &TaskRecord, index: u32, spec: &TaskSpec) -> bool {
    let id = task.id.as_str();
    let same_id = if spec.id.is_empty() {
        id == format!("task-{}", u64::from(index) + 1)
    } else {
        id == spec.id
    };
    same_id
        && *task.name == *spec.name.as_deref().unwrap_or(id)
        && *task == TaskRecord::pending(index, task.id.clone(), Arc::clone(&task.name))
}

pub(super) fn refused(detail: String) -> StoreError {
    StoreError::Integrity { detail }
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| refused(format!("cannot write JSON: {error}")))
}

fn check_nesting(value: &serde_json::Value, what: &str) -> Result<(), StoreError> {
    if is_deeper(value, NESTING_MAX) {
        return Err(refused(format!(
            "{what} has more than {NESTING_MAX} objects and arrays within each other"
        )));
    }
    Ok(())
}

fn is_deeper(value: &serde_json::Value, levels: usize) -> bool {
    match value {
        serde_json::Value::Array(items) => {
            levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1))
        }
        serde_json::Value::Object(fields) => {
            levels == 0 || fields.values().any(|field| is_deeper(field, levels - 1))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        /// A name that is read back changed would be another workflow.
        #[test]
        fn escaping_is_reversible_and_leaves_no_nul(text in "[a\\\\0\0é]{0,12}") {
            let escaped = escape(&text).into_owned();
            prop_assert!(!escaped.contains('\0'));
            prop_assert_eq!(unescape(escaped), text);
        }
    }

    /// An accepted value must be readable as part of its record.
    #[test]
    fn the_deepest_accepted_value_can_be_read() {
        let mut value = json!(1);
        for _ in 0..NESTING_MAX {
            value = json!([value]);
        }
        let spec_of = |value| WorkflowSpec::new("w").task(TaskSpec::new("a", "b/c").params(value));
        let mut blobs = Blobs::new();
        let [column, _] = spec(&spec_of(value.clone()), &mut blobs).unwrap();
        let Value::String(Some(column)) = column else { panic!("{column:?}") };
        assert_eq!(parse::<WorkflowSpec>(&column).unwrap(), spec_of(value.clone()));
        let rejected = spec(&spec_of(json!([value])), &mut blobs);
        assert!(matches!(rejected, Err(StoreError::Integrity { .. })), "{rejected:?}");
    }

    /// A small payload must not cost a row in a second table.
    #[test]
    fn large_payloads_become_blobs_and_are_stored_once() {
        let mut blobs = Blobs::new();
        let [inline, none] = payload("x".repeat(INLINE_MAX), &mut blobs);
        assert!(matches!((inline, none), (Value::String(Some(_)), Value::Bytes(None))));
        let first = payload("x".repeat(INLINE_MAX + 1), &mut blobs);
        let second = payload("x".repeat(INLINE_MAX + 1), &mut blobs);
        assert_eq!(first, second);
        assert_eq!(blobs.len(), 1);
    }

    /// A task that differs from its spec in any field needs a row.
    #[test]
    fn a_task_as_submitted_needs_no_row() {
        for spec in [TaskSpec::new("", "b/c"), TaskSpec::new("x", "b/c").named("X")] {
            let mut task = waiting(3, &spec);
            assert!(is_waiting(&task, 3, &spec));
            assert!(!is_waiting(&task, 4, &spec));
            task.attempts = 1;
            assert!(!is_waiting(&task, 3, &spec));
        }
    }
}
