//! Speaks HTTP to one server, with every wait bounded.
//!
//! Asked by the provider; asks `awc`, over connections of [`http`](crate::http). Three
//! defects of plain `awc` are made good here: it waits for ever for the next part of a body, it takes
//! a body that was cut off for a complete one, and its time limit for an answer runs while a request
//! still waits for a free connection.
//!
//! Invariants: at most `max_connections` calls hold a connection; an [`Answer`] that is dropped
//! before its end closes its connection, so the server notices; a request is sent again only over
//! another connection, and only if the server had closed a kept one before anything of the answer came.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use awc::{
    Client, ClientRequest, Connector,
    error::PayloadError,
    http::header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, LOCATION,
        RETRY_AFTER, USER_AGENT,
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use gleitzeit_domain::error::{ErrorCode, TaskError};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    config::CheckedConfig,
    failure::{self, HttpRefusal},
};
use crate::{
    http::{dial, trust, wire},
    tls,
};

/// After the last line of a stream, this long is waited for the end of the body, so that the
/// connection can be used again.
const END_WAIT: Duration = Duration::from_millis(50);

/// Why there is no answer to read.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The server answered with something else than a success.
    Refused {
        /// The request, for a person.
        request: String,
        /// The refusal.
        refusal: HttpRefusal,
    },
    /// No answer came.
    Failed(TaskError),
}

impl Unanswered {
    /// The error that the call ends with.
    pub(super) fn into_error(self, model: Option<&str>) -> TaskError {
        match self {
            Self::Refused { request, refusal } => refusal.into_error(&request, model),
            Self::Failed(error) => error,
        }
    }
}

/// One server, and the connections to it.
pub(super) struct OllamaServer {
    client: Client,
    calls: Semaphore,
    settings: CheckedConfig,
    /// `base_url` as `awc` is asked for it.
    asked: String,
}

impl OllamaServer {
    /// A client of its own: connections are shared with no other provider.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` if the certificates of the settings cannot be read.
    pub(super) fn new(provider_id: &str, settings: CheckedConfig) -> Result<Self, TaskError> {
        // Preparing TLS, which awc does whatever the address is, panics without it.
        tls::install_crypto_provider();
        let config = &settings.config;
        let calls = config.max_connections as usize;
        let certificates =
            settings.is_tls().then(|| trust::config(config.ca_file.as_deref())).transpose()?;
        let connector = Connector::new()
            // The dialer has limits of its own, which say more.
            .timeout(config.connect_timeout.saturating_mul(3))
            // One more than for calls: health checks. One connection a call, so that dropping the
            // call can close it.
            .limit(calls + 1)
            .connector(dial::Dialer::new(certificates, config.connect_timeout));
        let (asked, host) = dial::address(&settings.uri);
        let mut client = Client::builder()
            .connector(connector)
            // A redirect would send the secrets of this server to another one. The limit of `awc`
            // would include the wait for a connection.
            .disable_redirects()
            .disable_timeout()
            .add_default_header((HOST, host));
        if !settings.headers.iter().any(|(name, _)| *name == USER_AGENT) {
            client = client.add_default_header((USER_AGENT, user_agent(provider_id)));
        }
        for (name, value) in &settings.headers {
            client = client.add_default_header((name.clone(), value.clone()));
        }
        let (client, calls) = (client.finish(), Semaphore::new(calls));
        Ok(Self { client, calls, settings, asked })
    }

    /// The server's address, without credentials.
    pub(super) fn base_url(&self) -> &str {
        &self.settings.base_url
    }

    /// Sends `body` to `path`, as soon as a connection is free.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<HttpAnswer<'_>, Unanswered> {
        let slot = self.calls.acquire().await.map_err(|_| {
            Unanswered::Failed(TaskError::new(
                ErrorCode::SystemShutdown,
                "the provider has stopped",
            ))
        })?;
        let body = Bytes::from(serde_json::to_vec(body).map_err(|error| {
            Unanswered::Failed(TaskError::new(ErrorCode::InvalidParams, error.to_string()))
        })?);
        let start = || {
            let request = self.client.post(self.asked_for(path)).no_decompress();
            let request = request.insert_header((ACCEPT_ENCODING, "identity"));
            request.insert_header((CONTENT_TYPE, "application/json")).send_body(body.clone())
        };
        let deadline = Instant::now() + self.settings.config.timeout;
        self.send(format!("POST {}", self.address(path)), start, deadline, Some(slot)).await
    }

    /// Reads `path`, past the calls that wait for a connection.
    pub(super) async fn get(&self, path: &str, limit: Duration) -> Result<Bytes, Unanswered> {
        let deadline = Instant::now() + limit;
        let start = || {
            let request: ClientRequest = self.client.get(self.asked_for(path)).no_decompress();
            request.insert_header((ACCEPT_ENCODING, "identity")).send()
        };
        let name = format!("GET {}", self.address(path));
        let answer = self.send(name, start, deadline, None).await?;
        answer.whole().await.map_err(Unanswered::Failed)
    }

    /// For a person.
    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url)
    }

    fn asked_for(&self, path: &str) -> String {
        format!("{}{path}", self.asked)
    }

    async fn send<'a>(
        &'a self,
        name: String,
        start: impl Fn() -> awc::SendClientRequest,
        deadline: Instant,
        slot: Option<SemaphorePermit<'a>>,
    ) -> Result<HttpAnswer<'a>, Unanswered> {
        let config = &self.settings.config;
        let mut wait = WaitLimits {
            name,
            deadline,
            silence: config.first_byte_timeout,
            // A call holds a slot, a health check none.
            settings: match slot {
                Some(_) => ["first_byte_timeout", "timeout"],
                None => ["first_byte_timeout", "health_timeout"],
            },
        };
        let response = loop {
            match wait.for_next(start()).await.map_err(Unanswered::Failed)? {
                Ok(response) => break response,
                // That connection is gone; the loop ends at the latest with a new one.
                Err(error) if wire::was_closed(&error) => {
                    tracing::debug!(request = wait.name, "kept connection was closed; sent again");
                }
                Err(error) => {
                    return Err(Unanswered::Failed(failure::unsent(&wait.name, &error)));
                }
            }
        };
        (wait.silence, wait.settings[0]) = (config.chunk_timeout, "chunk_timeout");

        let (status, headers) = (response.status(), response.headers().clone());
        let mut answer = HttpAnswer {
            wait,
            body: response.boxed_local(),
            read: 0,
            declared: text_of(&headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            max_body: config.max_body,
            _slot: slot,
        };
        if !status.is_success() {
            let body = answer.beginning(2 * failure::EXCERPT_MAX).await;
            let mut refusal = HttpRefusal::new(status, &body);
            refusal.retry_after = text_of(&headers, &RETRY_AFTER)
                .and_then(|text| failure::retry_after(text, SystemTime::now()));
            refusal.location = text_of(&headers, &LOCATION).map(failure::one_line);
            return Err(Unanswered::Refused { request: answer.wait.name, refusal });
        }
        match text_of(&headers, &CONTENT_ENCODING) {
            None | Some("identity") => Ok(answer),
            Some(coding) => Err(Unanswered::Failed(TaskError::new(
                ErrorCode::ParseError,
                format!(
                    "the answer to {} is in `{}`, which was not asked for; switch compression off \
                     in the proxy before the server",
                    answer.wait.name,
                    failure::one_line(coding)
                ),
            ))),
        }
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &awc::http::header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `gleitzeit/<version> (<provider>)`, in the characters that a header may have.
fn user_agent(provider_id: &str) -> String {
    let mut agent = concat!("gleitzeit/", env!("CARGO_PKG_VERSION"), " (").to_owned();
    for c in provider_id.chars() {
        match c {
            '(' | ')' | '\\' => agent.push('_'),
            ' '..='~' => agent.push(c),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(agent, "u{:x}", u32::from(c));
            }
        }
    }
    agent.push(')');
    agent
}

/// How long the next sign of the server is waited for.
struct WaitLimits {
    /// The request, for a person.
    name: String,
    /// The end of all waiting.
    deadline: Instant,
    /// The longest single wait.
    silence: Duration,
    /// The settings that `silence` and `deadline` come from.
    settings: [&'static str; 2],
}

impl WaitLimits {
    async fn for_next<T>(&self, next: impl Future<Output = T>) -> Result<T, TaskError> {
        let silent_until = Instant::now() + self.silence;
        timeout_at(silent_until.min(self.deadline), next).await.map_err(|_| {
            let [silence, whole] = self.settings;
            let message = if silent_until < self.deadline {
                let seconds = self.silence.as_secs_f64();
                format!("{}: no sign of the server for {seconds} s (`{silence}`)", self.name)
            } else {
                format!("{}: the time for it has run out (`{whole}`)", self.name)
            };
            TaskError::new(ErrorCode::ProviderTimeout, message)
        })
    }
}

/// A successful answer whose body is still to be read.
pub(super) struct HttpAnswer<'a> {
    wait: WaitLimits,
    body: LocalBoxStream<'static, Result<Bytes, PayloadError>>,
    read: usize,
    /// The length that the server announced.
    declared: Option<u64>,
    max_body: usize,
    // The permit is held as long as the connection, and released when the answer is dropped.
    _slot: Option<SemaphorePermit<'a>>,
}

impl HttpAnswer<'_> {
    /// The request, for a person.
    pub(super) fn request(&self) -> &str {
        &self.wait.name
    }

    /// Bytes of the body that have come.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// The next part of the body; `None` at its end.
    pub(super) async fn next_chunk(&mut self) -> Result<Option<Bytes>, TaskError> {
        match self.wait.for_next(self.body.next()).await? {
            Some(Ok(chunk)) => {
                self.read += chunk.len();
                if self.read > self.max_body {
                    return Err(self.too_large());
                }
                Ok(Some(chunk))
            }
            Some(Err(error)) => Err(failure::broken_off(self.request(), &error, self.read)),
            None if self.declared.is_some_and(|all| (self.read as u64) < all) => {
                Err(failure::lost(self.request(), self.read, "less came than was announced"))
            }
            None => Ok(None),
        }
    }

    /// The whole body.
    pub(super) async fn whole(mut self) -> Result<Bytes, TaskError> {
        if self.declared.is_some_and(|all| all > self.max_body as u64) {
            return Err(self.too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Gives the server a moment to end a body of which nothing more is wanted.
    pub(super) async fn finish(mut self) {
        self.wait.silence = END_WAIT;
        while let Ok(Some(_)) = self.next_chunk().await {}
    }

    /// The first bytes of a body that explains a failure; what cannot be read is left out.
    async fn beginning(&mut self, most: usize) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < most {
            match self.next_chunk().await {
                Ok(Some(chunk)) => {
                    body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
                }
                Ok(None) | Err(_) => break,
            }
        }
        body
    }

    fn too_large(&self) -> TaskError {
        TaskError::failed(format!(
            "the answer to {} is larger than {} bytes; raise `max_body` of the provider",
            self.request(),
            self.max_body
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id may be any text; a header may not, and awc panics over a bad one.
    #[test]
    fn user_agents_are_plain() {
        let agent = user_agent("Büro (1)\n");
        assert_eq!(agent, format!("gleitzeit/{} (Bufcro _1_ua)", env!("CARGO_PKG_VERSION")));
        assert!(agent.parse::<awc::http::header::HeaderValue>().is_ok());
    }
}
