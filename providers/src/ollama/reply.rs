//! Puts Ollama's answers together into a task's result.
//!
//! The provider passes each line, or the one body. Pure. Invariant: a [`Reply`] becomes a result
//! only after the server has confirmed that it is done.

use std::fmt;

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    json::{self, Bounds, JsonError},
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::failure::{error_text, one_line};

/// The identity of the answering provider and model, for the result.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// The provider.
    pub(super) provider_id: String,
    /// The server, without credentials.
    pub(super) base_url: String,
}

impl About {
    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("provider".to_owned(), "ollama".into());
        metadata.insert("provider_id".to_owned(), self.provider_id.as_str().into());
        metadata.insert("base_url".to_owned(), self.base_url.as_str().into());
        metadata
    }
}

/// A line of a stream, or a whole answer: the same fields.
///
/// Fields are read leniently: servers that imitate Ollama send other types, or a field twice, and a
/// bad statistic must not discard a good reply.
#[derive(Debug, Default)]
struct Piece {
    /// The reply's text, from `message.content` or `response`.
    text: Option<String>,
    thinking: Option<String>,
    tool_calls: Vec<Value>,
    done: bool,
    done_reason: Option<String>,
    usage: Usage,
    error: Option<Value>,
}

impl Piece {
    fn of(value: Value) -> Self {
        let Value::Object(mut fields) = value else { return Self::default() };
        let mut message = match fields.remove("message") {
            Some(Value::Object(message)) => message,
            _ => Map::new(),
        };
        let parts = [message.remove("content"), fields.remove("response")].map(text);
        let thoughts = [message.remove("thinking"), fields.remove("thinking")].map(text);
        let tool_calls = match message.remove("tool_calls") {
            Some(Value::Array(calls)) => calls,
            Some(call @ Value::Object(_)) => vec![call],
            _ => Vec::new(),
        };
        Self {
            text: parts.into_iter().flatten().reduce(|one, other| one + &other),
            thinking: thoughts.into_iter().flatten().reduce(|one, other| one + &other),
            tool_calls,
            done: fields.get("done") == Some(&Value::Bool(true)),
            done_reason: text(fields.remove("done_reason")).filter(|reason| !reason.is_empty()),
            usage: Usage::of(&fields),
            error: fields.remove("error").filter(says_something),
        }
    }
}

/// A text; `None` for any other value.
fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// False for the values that servers send if there is no error.
fn says_something(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// A piece may take this much memory beyond its text, in whatever values it has.
const TREE_BYTES: usize = 64 << 20;

/// Reads JSON within a bound on its memory; what a decoder of texts cannot read is mended: halves of
/// a pair of surrogates, and bytes that are no UTF-8.
fn read(piece: &[u8]) -> Result<Value, PieceError> {
    let bounds = |text: &[u8]| Bounds {
        text_bytes: text.len(),
        tree_bytes: TREE_BYTES.saturating_add(text.len()),
    };
    let error = match json::read(piece, bounds(piece)) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mended = mended(piece);
    match json::read(&mended, bounds(&mended)) {
        Ok(value) => Ok(value),
        Err(_) => Err(PieceError::of(&error, piece)),
    }
}

/// The same with the replacement character for every `\u` escape that is half a pair, and for bytes
/// that are no UTF-8.
fn mended(piece: &[u8]) -> Vec<u8> {
    let whole = String::from_utf8_lossy(piece);
    let mut rest: &str = &whole;
    let mut out = String::with_capacity(rest.len());
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (taken, replacement) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
            (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
            (Some(_), _) => (6, None),
            // The escaped character, whatever it is: a backslash must not begin an escape again.
            (None, _) => (1 + escape[1..].chars().next().map_or(0, char::len_utf8), None),
        };
        out.push_str(replacement.unwrap_or(&escape[..taken]));
        rest = &escape[taken..];
    }
    out.push_str(rest);
    out.into_bytes()
}

/// The unit of UTF-16 that a text begins with as `\uXXXX`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Statistics of the last piece; durations are nanoseconds.
#[derive(Debug, Default)]
struct Usage {
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    total_duration: Option<u64>,
    load_duration: Option<u64>,
    prompt_eval_duration: Option<u64>,
    eval_duration: Option<u64>,
}

/// A count; other values are left out.
fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| (0.0..9.0e15).contains(number))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in its range")]
        Some(number.round() as u64)
    })
}

impl Usage {
    fn of(fields: &Map<String, Value>) -> Self {
        let count = |name: &str| count(fields.get(name));
        Self {
            prompt_eval_count: count("prompt_eval_count"),
            eval_count: count("eval_count"),
            total_duration: count("total_duration"),
            load_duration: count("load_duration"),
            prompt_eval_duration: count("prompt_eval_duration"),
            eval_duration: count("eval_duration"),
        }
    }

    /// Tokens read and written.
    fn tokens(&self) -> u64 {
        self.eval_count.unwrap_or(0).saturating_add(self.prompt_eval_count.unwrap_or(0))
    }

    fn describe(&self, metadata: &mut Map<String, Value>) {
        for (name, count) in
            [("prompt_eval_count", self.prompt_eval_count), ("eval_count", self.eval_count)]
        {
            if let Some(count) = count {
                metadata.insert(name.to_owned(), count.into());
            }
        }
        let spans = [
            ("total", self.total_duration),
            ("load", self.load_duration),
            ("prompt_eval", self.prompt_eval_duration),
            ("eval", self.eval_duration),
        ];
        let seconds: Map<String, Value> = spans
            .into_iter()
            .filter_map(|(name, span)| {
                let span = std::time::Duration::from_nanos(span?);
                Some((name.to_owned(), span.as_secs_f64().into()))
            })
            .collect();
        if !seconds.is_empty() {
            metadata.insert("durations".to_owned(), seconds.into());
        }
    }
}

/// Why a piece could not be taken.
#[derive(Debug)]
pub(super) enum PieceError {
    /// It ends in the middle.
    CutOff,
    /// It is not what Ollama answers with.
    Malformed {
        /// Why.
        problem: String,
        /// The first part of the text.
        text: String,
    },
    /// The server gave up while answering.
    Failed {
        /// The server's message.
        text: String,
    },
}

impl PieceError {
    fn of(error: &JsonError, piece: &[u8]) -> Self {
        let text = piece.strip_prefix(b"\xef\xbb\xbf").unwrap_or(piece);
        if serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.is_eof()) {
            return Self::CutOff;
        }
        Self::Malformed { problem: error.to_string(), text: beginning(piece) }
    }

    /// The same of a line, which has its end: half a value there was sent like that and is no cut.
    fn of_line(self, line: &[u8]) -> Self {
        match self {
            Self::CutOff => {
                let problem = "it ends in the middle of a value".to_owned();
                Self::Malformed { problem, text: beginning(line) }
            }
            other => other,
        }
    }

    /// The error that the call ends with. `read` is how many bytes had come.
    pub(super) fn into_error(self, request: &str, read: usize) -> TaskError {
        match self {
            Self::CutOff => super::failure::lost(request, read, "it ends in the middle of a value"),
            Self::Malformed { problem, text } => TaskError::new(
                ErrorCode::ParseError,
                format!("the answer to {request} is not what Ollama sends: {problem}, in `{text}`"),
            ),
            // As with a status of 500: the next attempt may well succeed.
            Self::Failed { text } => {
                TaskError::failed(format!("the server gave up while answering {request}: {text}"))
                    .retryable(true)
            }
        }
    }
}

fn beginning(piece: &[u8]) -> String {
    const EXCERPT_MAX: usize = 200;
    let text = String::from_utf8_lossy(&piece[..piece.len().min(EXCERPT_MAX)]);
    let more = if piece.len() > EXCERPT_MAX { "…" } else { "" };
    format!("{}{more}", one_line(&text))
}

/// A text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct OllamaReply {
    text: Option<String>,
    thinking: String,
    tool_calls: Vec<Value>,
    end: Option<(String, Usage)>,
}

impl OllamaReply {
    /// Takes one line of a stream; true when it was the last one.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<bool, PieceError> {
        let value = read(line).map_err(|error| error.of_line(line))?;
        self.take(Piece::of(value))?;
        Ok(self.end.is_some())
    }

    /// Takes what a stream ended with instead of a line: a line without its end, or part of one.
    pub(super) fn take_rest(&mut self, rest: &[u8]) -> Result<(), PieceError> {
        self.take(Piece::of(read(rest)?))
    }

    /// Takes an answer that comes in one piece.
    pub(super) fn take_whole(&mut self, body: &[u8]) -> Result<(), PieceError> {
        self.take(Piece::of(read(body)?))?;
        match (&self.text, &self.end) {
            (Some(_), Some(_)) => Ok(()),
            (Some(_), None) => Err(PieceError::CutOff),
            (None, _) => Err(PieceError::Malformed {
                problem: "it has neither `message` nor `response`".to_owned(),
                text: beginning(body),
            }),
        }
    }

    fn take(&mut self, piece: Piece) -> Result<(), PieceError> {
        if let Some(error) = piece.error {
            return Err(PieceError::Failed { text: one_line(&error_text(&error)) });
        }
        match (&mut self.text, piece.text) {
            (Some(known), Some(text)) => known.push_str(&text),
            (none, Some(text)) => *none = Some(text),
            (_, None) => {}
        }
        self.thinking.push_str(piece.thinking.as_deref().unwrap_or_default());
        self.tool_calls.extend(piece.tool_calls);
        if piece.done {
            let reason = piece.done_reason.unwrap_or_else(|| "stop".to_owned());
            self.end = Some((reason, piece.usage));
        }
        Ok(())
    }

    /// The task's result; `None` if the server never confirmed that it was done.
    pub(super) fn into_result(self, model: &str, about: &About) -> Option<Value> {
        let (finish_reason, usage) = self.end?;
        let mut metadata = about.metadata();
        usage.describe(&mut metadata);
        if !self.thinking.is_empty() {
            metadata.insert("thinking".to_owned(), self.thinking.into());
        }
        if !self.tool_calls.is_empty() {
            metadata.insert("tool_calls".to_owned(), self.tool_calls.into());
        }
        Some(json!({
            "response": self.text.unwrap_or_default(),
            "model": model,
            "tokens_used": usage.tokens(),
            "finish_reason": finish_reason,
            "metadata": metadata,
        }))
    }
}

/// The result of an `embed`: of `/api/embed` (`embeddings`), or of `/api/embeddings` (`embedding`).
pub(super) fn embedding(body: &[u8], model: &str, about: &About) -> Result<Value, PieceError> {
    let malformed = |problem: &str| PieceError::Malformed {
        problem: problem.to_owned(),
        text: beginning(body),
    };
    let mut fields = match read(body)? {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if let Some(error) = fields.remove("error").filter(says_something) {
        return Err(PieceError::Failed { text: one_line(&error_text(&error)) });
    }
    let first = match fields.remove("embeddings") {
        Some(Value::Array(mut all)) if !all.is_empty() => Some(all.swap_remove(0)),
        _ => None,
    };
    let vector = match first.or_else(|| fields.remove("embedding")) {
        Some(Value::Array(vector)) if !vector.is_empty() => vector,
        _ => return Err(malformed("it has no embedding")),
    };
    let Some(vector) = vector.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>() else {
        return Err(malformed("its embedding has something else than numbers"));
    };
    let usage = Usage::of(&fields);
    let mut metadata = about.metadata();
    usage.describe(&mut metadata);
    let dimensions = vector.len();
    Ok(json!({
        "embedding": vector,
        "model": model,
        "dimensions": dimensions,
        "metadata": metadata,
    }))
}

/// The answer of `/api/version`.
#[derive(Debug)]
pub(super) struct ServerVersion {
    version: String,
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Ollama {}", one_line(&self.version))
    }
}

impl ServerVersion {
    /// Reads it.
    pub(super) fn read(body: &[u8]) -> Result<Self, PieceError> {
        match read(body)? {
            Value::Object(mut fields) => text(fields.remove("version")),
            _ => None,
        }
        .map(|version| Self { version })
        .ok_or_else(|| PieceError::Malformed {
            problem: "it has no `version`".to_owned(),
            text: beginning(body),
        })
    }
}

#[cfg(test)]
mod tests;
