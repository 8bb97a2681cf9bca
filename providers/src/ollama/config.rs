//! Settings of an Ollama provider: read from a file or built in Rust, checked once, printed without
//! secrets.
//!
//! Asked by [`spec`](super::spec). Invariant: a [`Checked`] setting cannot make the client panic.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use awc::http::{
    Uri,
    header::{HeaderName, HeaderValue},
};
use gleitzeit_domain::{
    duration,
    error::{ErrorCode, TaskError},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Settings of an Ollama provider. Spans of time are seconds in files, sizes are bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OllamaConfig {
    /// The address of the server: `http://host:port`, with a path if a proxy serves it below one.
    pub base_url: String,
    /// The model of a `chat` or `generate` that names none, instead of the protocol's default.
    pub default_model: Option<String>,
    /// The same for `vision`.
    pub default_vision_model: Option<String>,
    /// The same for `embed`.
    pub default_embedding_model: Option<String>,
    /// Options of the model (`num_ctx`, `temperature`, …) for calls that do not give them themselves;
    /// they stand above the defaults of the protocol.
    pub options: Map<String, Value>,
    /// How long the server keeps a model loaded after a call: a span such as `"10m"`, or seconds; -1
    /// for ever. The server's own default if absent.
    pub keep_alive: Option<Value>,
    /// A file of certificates in PEM that are trusted besides those of this machine.
    pub ca_file: Option<PathBuf>,
    /// Connections for calls, and so calls at once; further ones wait. Health checks have one more
    /// of their own, so that a busy server is not taken for a dead one.
    pub max_connections: u32,
    /// Longest wait for a connection, and again for its TLS handshake.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, connecting included. A server that loads a model
    /// answers late, and an answer that is not streamed begins only when it is complete.
    #[serde(with = "duration")]
    pub first_byte_timeout: Duration,
    /// Longest silence within an answer.
    #[serde(with = "duration")]
    pub chunk_timeout: Duration,
    /// Longest time for one request and its answer, not counting the wait for a connection slot.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Longest time for a health check.
    #[serde(with = "duration")]
    pub health_timeout: Duration,
    /// A health check that takes longer finds the server degraded.
    #[serde(with = "duration")]
    pub degraded_after: Duration,
    /// Sent as `Authorization: Bearer …`, for servers behind a proxy that asks for it.
    #[serde(serialize_with = "hide_one")]
    pub api_key: Option<SecretString>,
    /// Sent with every request. The values are treated as secrets.
    #[serde(serialize_with = "hide_many")]
    pub headers: BTreeMap<String, SecretString>,
    /// Folders below which a task may name a file (`file_path`, `image_path`). Empty: none.
    pub file_roots: Vec<PathBuf>,
    /// Directories and files that are stored with a workflow count below these directories only.
    #[serde(rename = "place_roots", skip_serializing_if = "Vec::is_empty")]
    pub workflow_file_roots: Vec<PathBuf>,
    /// Files that no task is given, by absolute path: the database, the settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guarded: Vec<PathBuf>,
    /// Largest such file.
    pub max_file: u64,
    /// Largest answer.
    pub max_body: usize,
}

impl Default for OllamaConfig {
    fn default() -> Self {
        Self {
            base_url: "http://localhost:11434".to_owned(),
            default_model: None,
            default_vision_model: None,
            default_embedding_model: None,
            options: Map::new(),
            keep_alive: None,
            ca_file: None,
            max_connections: 10,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_mins(5),
            chunk_timeout: Duration::from_mins(1),
            timeout: Duration::from_mins(5),
            health_timeout: Duration::from_secs(5),
            degraded_after: Duration::from_secs(2),
            api_key: None,
            headers: BTreeMap::new(),
            file_roots: Vec::new(),
            workflow_file_roots: vec!["/".into()],
            guarded: Vec::new(),
            max_file: 16 << 20,
            max_body: 64 << 20,
        }
    }
}

const HIDDEN: &str = "***";

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn hide_one<S: Serializer>(secret: &Option<SecretString>, out: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| HIDDEN).serialize(out)
}

fn hide_many<S: Serializer>(
    secrets: &BTreeMap<String, SecretString>,
    out: S,
) -> Result<S::Ok, S::Error> {
    out.collect_map(secrets.keys().map(|name| (name, HIDDEN)))
}

/// Why settings of an Ollama provider are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OllamaConfigError {
    /// Not an address of an HTTP server.
    #[error("base_url: `{url}` {problem}; expected an address such as `http://localhost:11434`")]
    BaseUrl {
        /// The address as configured, without user and password.
        url: String,
        /// The error.
        problem: &'static str,
    },
    /// A number that must not be zero is.
    #[error("{field}: must be more than 0")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// A setting that is better left out than empty is empty.
    #[error("{field}: must not be empty; leave it out instead")]
    Empty {
        /// The setting.
        field: &'static str,
    },
    /// Not a span that Ollama understands.
    #[error("keep_alive: {value} is no span; expected a text such as \"10m\", or seconds")]
    KeepAlive {
        /// As given.
        value: String,
    },
    /// A header that HTTP does not allow.
    #[error("headers.{name}: {problem}")]
    Header {
        /// The header's name as given.
        name: String,
        /// The error, without the value.
        problem: &'static str,
    },
}

impl From<OllamaConfigError> for TaskError {
    fn from(error: OllamaConfigError) -> Self {
        Self::new(ErrorCode::ConfigurationError, error.to_string())
    }
}

/// Settings that passed the check, in the shape in which the client wants them.
#[derive(Debug, Clone)]
pub(super) struct CheckedConfig {
    /// Without a slash at its end.
    pub(super) base_url: String,
    /// The same.
    pub(super) uri: Uri,
    /// Sent with every request.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// As given.
    pub(super) config: OllamaConfig,
}

impl OllamaConfig {
    /// Checks every setting.
    pub(super) fn check(self) -> Result<CheckedConfig, OllamaConfigError> {
        let (base_url, uri) = check_url(&self.base_url)?;
        self.check_numbers()?;
        for (field, text) in [
            ("default_model", &self.default_model),
            ("default_vision_model", &self.default_vision_model),
            ("default_embedding_model", &self.default_embedding_model),
        ] {
            if text.as_deref().is_some_and(|text| text.trim().is_empty()) {
                return Err(OllamaConfigError::Empty { field });
            }
        }
        let headers = self.check_headers()?;
        if let Some(keep_alive) = self.keep_alive.as_ref().filter(|it| !is_span(it)) {
            return Err(OllamaConfigError::KeepAlive { value: keep_alive.to_string() });
        }
        Ok(CheckedConfig { base_url, uri, headers, config: self })
    }

    fn check_numbers(&self) -> Result<(), OllamaConfigError> {
        let zeros = [
            ("max_connections", self.max_connections == 0),
            ("connect_timeout", self.connect_timeout.is_zero()),
            ("first_byte_timeout", self.first_byte_timeout.is_zero()),
            ("chunk_timeout", self.chunk_timeout.is_zero()),
            ("timeout", self.timeout.is_zero()),
            ("health_timeout", self.health_timeout.is_zero()),
            ("max_file", self.max_file == 0),
            ("max_body", self.max_body == 0),
        ];
        match zeros.into_iter().find(|(_, zero)| *zero) {
            Some((field, _)) => Err(OllamaConfigError::Zero { field }),
            None => Ok(()),
        }
    }

    fn check_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, OllamaConfigError> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            headers.push(check_header(name, value.expose_secret())?);
        }
        if let Some(key) = &self.api_key {
            let bearer = format!("Bearer {}", key.expose_secret());
            let (name, value) = check_header("authorization", &bearer)?;
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(OllamaConfigError::Header {
                    name: name.to_string(),
                    problem: "given here and as `api_key`; keep one",
                });
            }
            headers.push((name, value));
        }
        Ok(headers)
    }
}

/// The forms of a duration that Ollama accepts: a text such as `10m`, or seconds.
fn is_span(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| !text.trim().is_empty())
}

fn check_url(url: &str) -> Result<(String, Uri), OllamaConfigError> {
    let refuse =
        |redacted: &str, problem| OllamaConfigError::BaseUrl { url: redacted.to_owned(), problem };
    let Ok(parsed) = url.parse::<Uri>() else {
        // A password may be anywhere in an address that cannot be parsed.
        let redacted = if url.contains('@') { HIDDEN } else { url };
        return Err(refuse(redacted, "is not an address"));
    };
    let Some(authority) = parsed.authority() else {
        let redacted = if url.contains('@') { HIDDEN } else { url };
        return Err(refuse(redacted, "has no scheme or no host"));
    };
    if authority.as_str().contains('@') {
        let host = authority.host();
        return Err(refuse(host, "carries a user or password; use `api_key` or `headers`"));
    }
    match parsed.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(refuse(url, "is neither http nor https")),
    }
    if authority.host().is_empty() {
        return Err(refuse(url, "has no host"));
    }
    if parsed.query().is_some() {
        return Err(refuse(url, "has a query"));
    }
    Ok((url.trim_end_matches('/').to_owned(), parsed))
}

fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), OllamaConfigError> {
    let refuse = |problem| OllamaConfigError::Header { name: name.to_owned(), problem };
    let header: HeaderName = name.parse().map_err(|_| refuse("is not a header name"))?;
    if matches!(header.as_str(), "host" | "content-length" | "transfer-encoding" | "connection") {
        return Err(refuse("is set by the client itself"));
    }
    let mut value: HeaderValue =
        value.parse().map_err(|_| refuse("its value has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

impl CheckedConfig {
    /// True if the server is asked over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The settings without secrets, for output.
    pub(super) fn redacted(&self) -> BTreeMap<String, Value> {
        match serde_json::to_value(&self.config) {
            Ok(Value::Object(fields)) => {
                fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<CheckedConfig, OllamaConfigError> {
        serde_json::from_value::<OllamaConfig>(value).unwrap().check()
    }

    /// An empty section is a working one: the usual server on this machine.
    #[test]
    fn nothing_need_be_set() {
        let checked = read(json!({})).unwrap();
        assert_eq!(checked.base_url, "http://localhost:11434");
        assert!(checked.headers.is_empty());
        assert_eq!(checked.config.connect_timeout, Duration::from_secs(10));
    }

    /// A misspelt key would otherwise silently be the default.
    #[test]
    fn unknown_keys_are_refused() {
        let wrong = serde_json::from_value::<OllamaConfig>(json!({ "base_uri": "x" }));
        assert!(wrong.unwrap_err().to_string().contains("base_uri"));
    }

    /// Wrong settings are refused at the start, by name, and not at the first call.
    #[test]
    fn wrong_settings_are_named() {
        for (value, part) in [
            (json!({ "base_url": "localhost:11434" }), "base_url: `localhost:11434`"),
            (json!({ "base_url": "ftp://x" }), "neither http nor https"),
            (json!({ "base_url": "http://x/?a=b" }), "has a query"),
            (json!({ "base_url": "not an address" }), "is not an address"),
            (json!({ "max_connections": 0 }), "max_connections: must be more than 0"),
            (json!({ "chunk_timeout": 0 }), "chunk_timeout: must be more than 0"),
            (json!({ "default_model": " " }), "default_model: must not be empty"),
            (json!({ "keep_alive": true }), "keep_alive: true is no span"),
            (json!({ "headers": { "a b": "c" } }), "headers.a b: is not a header name"),
            (json!({ "headers": { "x": "a\nb" } }), "headers.x: its value"),
            (json!({ "headers": { "Host": "x" } }), "headers.Host: is set by the client"),
            (json!({ "api_key": "k", "headers": { "Authorization": "x" } }), "keep one"),
        ] {
            let error = read(value.clone()).unwrap_err().to_string();
            assert!(error.contains(part), "{value}: {error}");
        }
    }

    /// A password in an address ends up in every log; it is refused without being repeated.
    #[test]
    fn credentials_in_the_address_are_refused_and_not_repeated() {
        for url in ["http://user:hunter2@host", "user:hunter2@host", "http://u:hunter2@ho st"] {
            let error = read(json!({ "base_url": url })).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    /// Whoever prints the settings or the provider never prints a secret.
    #[test]
    fn secrets_are_never_printed() {
        let checked =
            read(json!({ "api_key": "hunter2", "headers": { "x-token": "hunter2" } })).unwrap();
        let texts = [format!("{checked:?}"), serde_json::to_string(&checked.redacted()).unwrap()];
        for text in texts {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("x-token"), "{text}");
        }
        assert_eq!(checked.redacted()["api_key"], "***");
    }
}
