//! Puts Ollama's answers together into a task's result.
//!
//! Asked by the provider for each line, or for the one body. Pure. Invariant: a [`Reply`] becomes
//! a result only after the server has said that it is done.

use std::fmt;

use gleitzeit_domain::error::{ErrorCode, TaskError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::failure::{error_text, one_line};

/// Who answered, as a result tells it.
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
#[derive(Debug, Default, Deserialize)]
struct Piece {
    message: Option<Message>,
    response: Option<String>,
    thinking: Option<String>,
    done: Option<bool>,
    done_reason: Option<String>,
    #[serde(flatten)]
    usage: Usage,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Message {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<Value>>,
}

/// What the last piece tells about the work; durations are nanoseconds.
#[derive(Debug, Default, Deserialize)]
struct Usage {
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    total_duration: Option<u64>,
    load_duration: Option<u64>,
    prompt_eval_duration: Option<u64>,
    eval_duration: Option<u64>,
}

impl Usage {
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
        /// Its beginning.
        text: String,
    },
    /// The server gave up while answering.
    Failed {
        /// Its own words.
        text: String,
    },
}

impl PieceError {
    fn of(error: &serde_json::Error, piece: &[u8]) -> Self {
        if error.is_eof() {
            return Self::CutOff;
        }
        Self::malformed(error, piece)
    }

    fn malformed(error: &serde_json::Error, piece: &[u8]) -> Self {
        Self::Malformed { problem: error.to_string(), text: beginning(piece) }
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
    const SHOWN: usize = 200;
    let text = String::from_utf8_lossy(&piece[..piece.len().min(SHOWN)]);
    let more = if piece.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", one_line(&text))
}

/// A text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Reply {
    text: Option<String>,
    thinking: String,
    tool_calls: Vec<Value>,
    end: Option<(String, Usage)>,
}

impl Reply {
    /// Takes one line of a stream; true when it was the last one.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<bool, PieceError> {
        // A line that has its end and yet is half a value was sent like that: not a cut.
        let piece: Piece =
            serde_json::from_slice(line).map_err(|error| PieceError::malformed(&error, line))?;
        self.take(piece)?;
        Ok(self.end.is_some())
    }

    /// Takes what a stream ended with instead of a line: a line without its end, or part of one.
    pub(super) fn take_rest(&mut self, rest: &[u8]) -> Result<(), PieceError> {
        let piece: Piece =
            serde_json::from_slice(rest).map_err(|error| PieceError::of(&error, rest))?;
        self.take(piece)
    }

    /// Takes an answer that comes in one piece.
    pub(super) fn take_whole(&mut self, body: &[u8]) -> Result<(), PieceError> {
        let piece: Piece =
            serde_json::from_slice(body).map_err(|error| PieceError::of(&error, body))?;
        self.take(piece)?;
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
        let Piece { message, response, thinking, done, done_reason, usage, error } = piece;
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Err(PieceError::Failed { text: one_line(&error_text(&error)) });
        }
        let message = message.unwrap_or_default();
        for text in [message.content, response].into_iter().flatten() {
            match &mut self.text {
                Some(known) => known.push_str(&text),
                none => *none = Some(text),
            }
        }
        for thought in [message.thinking, thinking].into_iter().flatten() {
            self.thinking.push_str(&thought);
        }
        self.tool_calls.extend(message.tool_calls.into_iter().flatten());
        if done == Some(true) {
            self.end = Some((done_reason.unwrap_or_else(|| "stop".to_owned()), usage));
        }
        Ok(())
    }

    /// The task's result; `None` when the server never said that it was done.
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

/// The answer of `/api/embed` (`embeddings`), or of `/api/embeddings` (`embedding`).
#[derive(Debug, Deserialize)]
struct Embedded {
    embeddings: Option<Vec<Vec<f64>>>,
    embedding: Option<Vec<f64>>,
    #[serde(flatten)]
    usage: Usage,
    error: Option<Value>,
}

/// The result of an `embed`.
pub(super) fn embedding(body: &[u8], model: &str, about: &About) -> Result<Value, PieceError> {
    let answer: Embedded =
        serde_json::from_slice(body).map_err(|error| PieceError::of(&error, body))?;
    if let Some(error) = answer.error.filter(|error| !error.is_null()) {
        return Err(PieceError::Failed { text: one_line(&error_text(&error)) });
    }
    let vector = answer.embeddings.and_then(|all| all.into_iter().next()).or(answer.embedding);
    let Some(vector) = vector.filter(|vector| !vector.is_empty()) else {
        return Err(PieceError::Malformed {
            problem: "it has no embedding".to_owned(),
            text: beginning(body),
        });
    };
    let mut metadata = about.metadata();
    answer.usage.describe(&mut metadata);
    let dimensions = vector.len();
    Ok(json!({
        "embedding": vector,
        "model": model,
        "dimensions": dimensions,
        "metadata": metadata,
    }))
}

/// The answer of `/api/version`.
#[derive(Debug, Deserialize)]
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
        serde_json::from_slice(body).map_err(|error| PieceError::of(&error, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { provider_id: "local".to_owned(), base_url: "http://host:1".to_owned() }
    }

    /// The pieces of a stream add up to the text, and the last one tells the rest.
    #[test]
    fn a_stream_adds_up() {
        let mut reply = Reply::default();
        for (line, last) in [
            (r#"{"message":{"content":"Hel","thinking":"hm"},"done":false}"#, false),
            (r#"{"message":{"content":"lo"},"done":false}"#, false),
            (
                r#"{"message":{"content":""},"done":true,"done_reason":"length","eval_count":3,
                   "prompt_eval_count":4,"total_duration":1500000000}"#,
                true,
            ),
        ] {
            assert_eq!(reply.take_line(line.as_bytes()).unwrap(), last);
        }
        let result = reply.into_result("m", &about()).unwrap();
        let expected = json!({
            "response": "Hello", "model": "m", "tokens_used": 7, "finish_reason": "length",
            "metadata": {
                "provider": "ollama", "provider_id": "local", "base_url": "http://host:1",
                "prompt_eval_count": 4, "eval_count": 3, "durations": { "total": 1.5 },
                "thinking": "hm",
            },
        });
        assert_eq!(result, expected);
    }

    /// Half an answer that passes for a whole one would be a wrong result.
    #[test]
    fn what_is_not_done_is_no_result() {
        let mut reply = Reply::default();
        assert!(!reply.take_line(br#"{"message":{"content":"Hel"},"done":false}"#).unwrap());
        assert_eq!(reply.into_result("m", &about()), None);
        let whole = |body: &str| Reply::default().take_whole(body.as_bytes());
        assert!(matches!(whole(r#"{"response":"x","done":false}"#), Err(PieceError::CutOff)));
        assert!(matches!(whole(r#"{"response":"x","do"#), Err(PieceError::CutOff)));
        assert!(matches!(whole(r#"{"done":true}"#), Err(PieceError::Malformed { .. })));
        assert!(matches!(whole("<html>"), Err(PieceError::Malformed { .. })));
    }

    /// A model's runner dies in the middle of an answer whose status was already 200.
    #[test]
    fn an_error_within_a_stream_is_one() {
        let mut reply = Reply::default();
        let error = reply.take_line(br#"{"error":"CUDA out of memory"}"#).unwrap_err();
        let error = error.into_error("POST x", 1);
        assert!(error.is_retryable() && error.message.contains("CUDA"), "{error}");
    }

    /// Both generations of the API, and nothing that is neither.
    #[test]
    fn embeddings_of_both_generations_are_read() {
        for body in [r#"{"embeddings":[[0.5,-1]]}"#, r#"{"embedding":[0.5,-1]}"#] {
            let result = embedding(body.as_bytes(), "m", &about()).unwrap();
            assert_eq!(result["embedding"], json!([0.5, -1.0]));
            assert_eq!(result["dimensions"], 2);
        }
        for body in ["{}", r#"{"embeddings":[]}"#, r#"{"embedding":[]}"#, r#"{"embedding":["a"]}"#]
        {
            assert!(embedding(body.as_bytes(), "m", &about()).is_err(), "{body}");
        }
    }
}
