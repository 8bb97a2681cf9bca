//! Says what a failed request means: which code, whether to try again and when, what to do.
//!
//! Asked by the client and by the provider. Pure, but for the clock that a date in `Retry-After`
//! is measured against, which is passed in.

use std::{
    error::Error as _,
    fmt, io,
    time::{Duration, SystemTime},
};

use awc::{
    error::{ConnectError, PayloadError, SendRequestError},
    http::{StatusCode, header::HttpDate},
};
use gleitzeit_domain::error::{ErrorCode, TaskError};
use serde_json::{Value, json};

/// No pause that a server asks for is longer: a broken clock must not park a task for years.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Bytes of a server's text that are repeated in an error.
pub(super) const EXCERPT_MAX: usize = 2048;

/// An answer other than a success.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HttpRefusal {
    /// The status.
    pub(super) status: StatusCode,
    /// The beginning of the body, for a person: one line.
    pub(super) text: String,
    /// True if the body was Ollama's: JSON with an `error`, which is in `text` then.
    pub(super) by_ollama: bool,
    /// The pause that the server asks for.
    pub(super) retry_after: Option<Duration>,
    /// The target of a redirect.
    pub(super) location: Option<String>,
}

impl HttpRefusal {
    /// Reads what can be known from the body's beginning.
    pub(super) fn new(status: StatusCode, body: &[u8]) -> Self {
        let error = serde_json::from_slice::<Value>(body)
            .ok()
            .and_then(|body| body.get("error").map(error_text));
        let by_ollama = error.is_some();
        let text = one_line(&error.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()));
        Self { status, text, by_ollama, retry_after: None, location: None }
    }

    /// True when the server has no such route: an older Ollama, or no Ollama at all.
    pub(super) fn is_missing_route(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
            && !self.by_ollama
    }

    fn is_missing_model(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        self.status == StatusCode::NOT_FOUND
            && self.by_ollama
            && text.contains("model")
            && text.contains("not found")
    }

    /// The error of the call. `request` is the name of the request, `model` the requested model, if
    /// any.
    pub(super) fn into_error(self, request: &str, model: Option<&str>) -> TaskError {
        let detail = if self.text.is_empty() { String::new() } else { format!(": {}", self.text) };
        let hint = self.hint(model);
        let message = format!("{request} was answered with {}{detail}{hint}", self.status);
        let mut data = json!({ "status": self.status.as_u16(), "body": self.text });
        if self.is_missing_model() {
            data["reason"] = json!("model_not_found");
            data["model"] = json!(model);
        }
        let mut error = TaskError::new(self.code(), message).with_data(data);
        // A server that broke down over one call may well serve the next.
        if error.code == ErrorCode::TaskExecutionFailed && self.status.is_server_error() {
            error = error.retryable(self.status != StatusCode::NOT_IMPLEMENTED);
        }
        match self.retry_after {
            Some(pause) if error.is_retryable() => error.retry_after(pause),
            _ => error,
        }
    }

    fn code(&self) -> ErrorCode {
        match self.status.as_u16() {
            401 => ErrorCode::AuthenticationFailed,
            403 => ErrorCode::AuthorizationFailed,
            408 | 504 => ErrorCode::ProviderTimeout,
            429 => ErrorCode::RateLimitExceeded,
            502 => ErrorCode::ProviderUnhealthy,
            503 => ErrorCode::ProviderOverloaded,
            300..=399 => ErrorCode::ConfigurationError,
            _ if self.is_missing_route() => ErrorCode::ConfigurationError,
            _ => ErrorCode::TaskExecutionFailed,
        }
    }

    fn hint(&self, model: Option<&str>) -> String {
        match self.status.as_u16() {
            300..=399 => match &self.location {
                Some(location) => {
                    format!("; it sends us to `{location}`: set `base_url` to that server")
                }
                None => "; set `base_url` to the server itself".to_owned(),
            },
            401 | 403 => "; check `api_key` and `headers` of the provider".to_owned(),
            _ if self.is_missing_model() => match model {
                Some(model) => format!("; fetch it with `ollama pull {model}`"),
                None => String::new(),
            },
            _ if self.is_missing_route() => "; is `base_url` an Ollama server?".to_owned(),
            _ => String::new(),
        }
    }
}

/// The text of an `error` field: Ollama writes a string, compatible servers an object.
pub(super) fn error_text(error: &Value) -> String {
    let text = error.as_str().or_else(|| error.get("message").and_then(Value::as_str));
    text.map_or_else(|| error.to_string(), str::to_owned)
}

/// The text on one line, without control characters, cut to what an error shows.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > EXCERPT_MAX {
            line.truncate(line.floor_char_boundary(EXCERPT_MAX));
            line.push('…');
            break;
        }
    }
    line
}

/// The pause that a `Retry-After` asks for: seconds, or the date to wait for.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    let pause = if let Ok(seconds) = header.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let date: HttpDate = header.parse().ok()?;
        SystemTime::from(date).duration_since(now).unwrap_or_default()
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// The error of a request that got no answer.
pub(super) fn unsent(request: &str, error: &SendRequestError) -> TaskError {
    let (code, hint) = match error {
        SendRequestError::Connect(error) => connect_code(error),
        SendRequestError::Send(error) => io_code(error),
        SendRequestError::Timeout => (ErrorCode::ProviderTimeout, ""),
        SendRequestError::H2(_) => (ErrorCode::ConnectionLost, ""),
        SendRequestError::Response(error) => {
            match error.source().and_then(|it| it.downcast_ref()) {
                Some(error) => io_code(error),
                None => (ErrorCode::ConfigurationError, "; is `base_url` an HTTP server?"),
            }
        }
        _ => (ErrorCode::InternalError, ""),
    };
    TaskError::new(code, format!("{request} failed: {}{hint}", Causes(error)))
}

fn connect_code(error: &ConnectError) -> (ErrorCode, &'static str) {
    match error {
        ConnectError::Timeout => {
            (ErrorCode::ConnectionTimeout, "; check `base_url` and the network")
        }
        ConnectError::Resolver(_) | ConnectError::NoRecords => {
            (ErrorCode::NetworkUnreachable, "; check the host name in `base_url`")
        }
        ConnectError::Io(error) => io_code(error),
        ConnectError::H2(_) | ConnectError::Disconnected => (ErrorCode::ConnectionLost, ""),
        _ => (ErrorCode::InternalError, ""),
    }
}

fn io_code(error: &io::Error) -> (ErrorCode, &'static str) {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => (
            ErrorCode::ConnectionRefused,
            "; start the server with `ollama serve`, or set `base_url` to where it is",
        ),
        Kind::NetworkUnreachable | Kind::HostUnreachable | Kind::NetworkDown => {
            (ErrorCode::NetworkUnreachable, "; check `base_url` and the network")
        }
        Kind::TimedOut => (ErrorCode::ConnectionTimeout, "; check `base_url` and the network"),
        // The error of rustls for a certificate, or for a peer that does not speak TLS.
        Kind::InvalidData => (
            ErrorCode::ConfigurationError,
            "; check `base_url`, or trust the certificate's issuer by `ca_file` of the provider or \
             SSL_CERT_FILE",
        ),
        _ => (ErrorCode::ConnectionLost, ""),
    }
}

/// The error of an answer that broke off.
pub(super) fn broken_off(request: &str, error: &PayloadError, read: usize) -> TaskError {
    lost(request, read, &Causes(error).to_string())
}

/// The error of an answer that ended before it was complete.
pub(super) fn lost(request: &str, read: usize, how: &str) -> TaskError {
    TaskError::new(
        ErrorCode::ConnectionLost,
        format!("the answer to {request} broke off after {read} bytes: {how}"),
    )
}

/// An error with what caused it, in one line.
struct Causes<'a>(&'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = one_line(&self.0.to_string());
        out.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = one_line(&error.to_string());
            if !last.contains(&text) {
                write!(out, ": {text}")?;
            }
            (last, cause) = (text, error.source());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, body: &str) -> TaskError {
        let status = StatusCode::from_u16(status).unwrap();
        HttpRefusal::new(status, body.as_bytes()).into_error("POST /api/chat", Some("phi4"))
    }

    /// The engine decides by the code whether to try again, so each status needs the right one.
    #[test]
    fn statuses_become_codes() {
        use ErrorCode::{
            AuthenticationFailed, AuthorizationFailed, ConfigurationError, ProviderOverloaded,
            ProviderTimeout, ProviderUnhealthy, RateLimitExceeded, TaskExecutionFailed,
        };
        for (status, code, retryable) in [
            (307, ConfigurationError, false),
            (400, TaskExecutionFailed, false),
            (401, AuthenticationFailed, false),
            (403, AuthorizationFailed, false),
            (408, ProviderTimeout, true),
            (413, TaskExecutionFailed, false),
            (429, RateLimitExceeded, true),
            (500, TaskExecutionFailed, true),
            (501, TaskExecutionFailed, false),
            (502, ProviderUnhealthy, true),
            (503, ProviderOverloaded, true),
            (504, ProviderTimeout, true),
        ] {
            let error = error(status, r#"{"error":"why"}"#);
            assert_eq!((error.code, error.is_retryable()), (code, retryable), "{status}");
            assert!(error.message.contains("why"), "{error}");
        }
    }

    /// A model that is not there is the commonest mistake; a route that is not there another one.
    #[test]
    fn a_missing_model_is_not_a_missing_route() {
        let model = error(404, r#"{"error":"model \"phi4\" not found, try pulling it first"}"#);
        assert!(model.message.contains("`ollama pull phi4`"), "{model}");
        assert_eq!(model.data.unwrap()["reason"], "model_not_found");
        let route = error(404, "404 page not found");
        assert_eq!(route.code, ErrorCode::ConfigurationError);
        assert!(route.message.contains("base_url"), "{route}");
        assert!(!error(404, r#"{"error":"no such thing"}"#).message.contains("pull"));
    }

    /// Both forms of the standard, and neither may park a task for good.
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |text| retry_after(text, now);
        assert_eq!(after("90"), Some(Duration::from_secs(90)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    /// A server's page of HTML must not fill the log, nor break its lines.
    #[test]
    fn long_texts_are_cut_on_a_character() {
        let long = one_line(&"ä\r\n\u{7}".repeat(4000));
        assert!(long.len() <= EXCERPT_MAX + '…'.len_utf8(), "{}", long.len());
        assert!(long.starts_with("ä ä ä") && long.ends_with('…'));
        assert_eq!(one_line(&"x".repeat(3000)).len(), EXCERPT_MAX + '…'.len_utf8());
        assert_eq!(error_text(&json!({ "message": "m", "type": "t" })), "m");
    }
}
