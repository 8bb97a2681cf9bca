//! Talks to an Ollama server: `chat`, `vision`, `generate` and `embed` of `llm/v1.0`.
//!
//! A supervisor calls it like any provider. Each instance has its own client, built on its own
//! thread. Parts: settings ([`OllamaConfig`]), parameters to request, HTTP with every wait bounded,
//! lines, answers to result, failures to codes, files that a task names.
//!
//! Invariant: a result is returned only after the server has confirmed that it is done. Dropping a
//! call closes its connection, upon which Ollama stops generating.

mod config;
mod failure;
mod files;
mod http;
mod kind;
mod ndjson;
mod picture;
mod reply;
mod request;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthReport,
    id::{Capability, ProtocolId, ProviderId, Version},
    provider::{Call, Outcome, Placement, Provider, ProviderSpec, Supervision},
};
use serde_json::{Map, Value};
use tokio::time::Instant;

pub use config::{OllamaConfig, OllamaConfigError};
pub use kind::kind;

use config::CheckedConfig;
use files::Files;
use http::{HttpAnswer, OllamaServer, Unanswered};
use ndjson::LineSplitter;
use picture::Picture;
use reply::{About, OllamaReply, ServerVersion};
use request::{Attached, OllamaRequest, Params, choose_model};

/// No path is longer than this on Linux.
const PATH_MAX: usize = 4_096;

use super::reach::Rules;

const METHODS: [&str; 4] = ["chat", "vision", "generate", "embed"];

/// A provider of `llm/v1.0` that asks the Ollama server of `config`.
///
/// The server is first contacted when the runtime starts the provider. If it is down then, the
/// start is repeated according to [`Supervision`].
///
/// ```
/// use gleitzeit_providers::ollama::{self, OllamaConfig};
///
/// let config = OllamaConfig { default_model: Some("phi4".to_owned()), ..Default::default() };
/// let spec = ollama::spec("local", config)?;
/// assert_eq!(spec.max_concurrent, Some(10));
/// # Ok::<(), ollama::OllamaConfigError>(())
/// ```
///
/// # Errors
/// The first setting that is wrong, by its name.
pub fn spec(
    id: impl Into<ProviderId>,
    config: OllamaConfig,
) -> Result<ProviderSpec, OllamaConfigError> {
    let id = id.into();
    let settings = config.check()?;
    let llm = ProtocolId::new("llm", Version { major: 1, minor: 0, patch: 0 });
    let supervision = Supervision::default();
    let health_timeout = settings.config.health_timeout + Duration::from_secs(1);
    let about = id.clone();
    Ok(ProviderSpec {
        id,
        capabilities: METHODS.map(|method| Capability::new(llm.clone(), method)).to_vec(),
        protocols: Vec::new(),
        weight: 1.0,
        max_concurrent: Some(settings.config.max_connections),
        placement: Placement::Worker,
        // The provider's own limit must end first: its error has more detail than that of the
        // supervisor.
        supervision: Supervision {
            health_timeout: supervision.health_timeout.max(health_timeout),
            lifecycle_timeout: supervision.lifecycle_timeout.max(health_timeout),
            ..supervision
        },
        supervision_chosen: false,
        kind: "ollama".into(),
        config: settings.redacted(),
        factory: Arc::new(move || Ok(Rc::new(Ollama::new(&about, settings.clone())?))),
    })
}

struct Ollama {
    server: OllamaServer,
    files: Files,
    about: About,
    models: Models,
    options: Map<String, Value>,
    keep_alive: Option<Value>,
    health_timeout: Duration,
    degraded_after: Duration,
    /// True once the server turned out to be older than `/api/embed`.
    embeds_the_old_way: Cell<bool>,
}

/// The models of the settings.
struct Models {
    text: Option<String>,
    vision: Option<String>,
    embedding: Option<String>,
}

impl Ollama {
    fn new(id: &ProviderId, settings: CheckedConfig) -> Result<Self, TaskError> {
        let config = &settings.config;
        let rules = Rules::new(&config.file_roots, &config.workflow_file_roots, &config.guarded);
        let files = Files::new(rules, config.max_file);
        let models = Models {
            text: config.default_model.clone(),
            vision: config.default_vision_model.clone(),
            embedding: config.default_embedding_model.clone(),
        };
        let (health_timeout, degraded_after) = (config.health_timeout, config.degraded_after);
        let (options, keep_alive) = (config.options.clone(), config.keep_alive.clone());
        let server = OllamaServer::new(id.as_str(), settings)?;
        let about = About { provider_id: id.to_string(), base_url: server.base_url().to_owned() };
        let embeds_the_old_way = Cell::new(false);
        Ok(Self {
            server,
            files,
            about,
            models,
            options,
            keep_alive,
            health_timeout,
            degraded_after,
            embeds_the_old_way,
        })
    }

    async fn version(&self) -> Result<ServerVersion, TaskError> {
        let body = self
            .server
            .get("/api/version", self.health_timeout)
            .await
            .map_err(|error| error.into_error(None))?;
        let request = format!("GET {}/api/version", self.about.base_url);
        ServerVersion::read(&body).map_err(|error| error.into_error(&request, body.len()))
    }

    async fn attached(&self, files: &Files, params: &Params) -> Result<Attached, TaskError> {
        let text = match &params.file_path {
            Some(path) => Some(files.text("file_path", path).await?),
            None => None,
        };
        let mut images = Vec::new();
        for image in &params.images {
            images.push(match Picture::of(image) {
                Picture::Base64(data) => data.to_owned(),
                Picture::Path(path) => files.base64("images", path).await?,
                Picture::Either(text) => either(files, text).await?,
            });
        }
        if let Some(path) = &params.image_path {
            images.push(files.base64("image_path", path).await?);
        }
        for path in &params.image_paths {
            images.push(files.base64("image_paths", path).await?);
        }
        Ok(Attached { text, images })
    }

    async fn text(&self, request: OllamaRequest) -> Result<Value, TaskError> {
        let OllamaRequest { path, model, streamed, body } = request;
        let answer =
            self.server.post(path, &body).await.map_err(|error| error.into_error(Some(&model)))?;
        let (name, mut reply) = (answer.request().to_owned(), OllamaReply::default());
        let read = if streamed {
            read_lines(answer, &mut reply).await?
        } else {
            let body = answer.whole().await?;
            reply.take_whole(&body).map_err(|error| error.into_error(&name, body.len()))?;
            body.len()
        };
        reply
            .into_result(&model, &self.about)
            .ok_or_else(|| failure::lost(&name, read, "it ended before it said that it was done"))
    }

    async fn embed(&self, model: &str, params: Params) -> Result<Value, TaskError> {
        let (body, text) = params.embed(model)?;
        let with = |name: &str| {
            let mut body = body.clone();
            body[name] = text.as_str().into();
            body
        };
        if !self.embeds_the_old_way.get() {
            match self.server.post("/api/embed", &with("input")).await {
                Err(Unanswered::Refused { refusal, .. }) if refusal.is_missing_route() => {}
                answer => return self.embedding(model, answer).await,
            }
        }
        let answer = self.server.post("/api/embeddings", &with("prompt")).await;
        let result = self.embedding(model, answer).await;
        if result.is_ok() {
            self.embeds_the_old_way.set(true);
        }
        result
    }

    async fn embedding(
        &self,
        model: &str,
        answer: Result<HttpAnswer<'_>, Unanswered>,
    ) -> Result<Value, TaskError> {
        let answer = answer.map_err(|error| error.into_error(Some(model)))?;
        let request = answer.request().to_owned();
        let body = answer.whole().await?;
        reply::embedding(&body, model, &self.about)
            .map_err(|error| error.into_error(&request, body.len()))
    }
}

/// A picture of a kind that is not known, or the path of one.
async fn either(files: &Files, text: &str) -> Result<String, TaskError> {
    if files.is_none() || text.len() > PATH_MAX {
        return Ok(text.to_owned());
    }
    files.base64("images", text).await.map_err(|error| {
        let message = format!("{}; nor is it a picture in base64", error.message);
        TaskError::new(error.code, message)
    })
}

/// Reads a stream of lines to the one that ends it; how many bytes came.
async fn read_lines(
    mut answer: HttpAnswer<'_>,
    reply: &mut OllamaReply,
) -> Result<usize, TaskError> {
    let mut lines = LineSplitter::default();
    while let Some(chunk) = answer.next_chunk().await? {
        lines.push(&chunk);
        while let Some(line) = lines.next_line() {
            let last = reply
                .take_line(&line)
                .map_err(|error| error.into_error(answer.request(), answer.read()))?;
            if last {
                let read = answer.read();
                answer.finish().await;
                return Ok(read);
            }
        }
    }
    if let Some(rest) = lines.rest() {
        reply
            .take_rest(&rest)
            .map_err(|error| error.into_error(answer.request(), answer.read()))?;
    }
    Ok(answer.read())
}

#[async_trait(?Send)]
impl Provider for Ollama {
    /// Asks the server for its version, to find a wrong address before the first call does.
    async fn initialize(&self) -> Result<(), TaskError> {
        let version = self.version().await?;
        tracing::info!(
            provider = self.about.provider_id,
            base_url = self.about.base_url,
            %version,
            "ollama server reached"
        );
        Ok(())
    }

    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        let method = call.method_name();
        if !METHODS.contains(&method) {
            return Err(TaskError::new(
                ErrorCode::MethodNotSupported,
                format!("an ollama provider serves {}, not `{method}`", METHODS.join(", ")),
            ));
        }
        let params = Params::of(&call, &self.options, self.keep_alive.as_ref())?;
        let files = self.files.of(call.file_access.as_ref());
        let attached = self.attached(&files, &params).await?;
        let (configured, last) = match method {
            "embed" => (&self.models.embedding, "nomic-embed-text"),
            "vision" => (&self.models.vision, "llava"),
            _ => (&self.models.text, "llama3.2"),
        };
        let model = choose_model(&call, configured.as_deref(), last);
        let result = match method {
            "chat" => self.text(params.chat(model, attached)?).await,
            "vision" => self.text(params.vision(model, attached)?).await,
            "generate" => self.text(params.generate(model, attached)?).await,
            _ => self.embed(&model, params).await,
        };
        result.map(Outcome::from)
    }

    async fn health_check(&self) -> HealthReport {
        let asked = Instant::now();
        match self.version().await {
            Ok(version) if asked.elapsed() > self.degraded_after => HealthReport::degraded(
                format!("{version} took {:.1} s to say so", asked.elapsed().as_secs_f64()),
            ),
            Ok(version) => HealthReport { detail: version.to_string(), ..HealthReport::healthy() },
            Err(error) => HealthReport::unhealthy(error.message.to_string()),
        }
    }
}
