//! `GET /healthz`, for a load balancer or a supervisor.
//!
//! Invariant: the engine and the store are asked once in [`FRESH`], however many workers and
//! clients ask.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    http::{
        StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    },
    web::{self, Data, ServiceConfig},
};
use gleitzeit::{Handle, Health};
use serde_json::json;
use tokio::sync::Mutex;

/// How long an answer of the engine and the store is valid.
const FRESH: Duration = Duration::from_secs(1);

/// The last health of a runtime.
#[derive(Debug)]
pub(crate) struct HealthCache {
    handle: Handle,
    last: Mutex<Option<(Instant, Health)>>,
}

impl HealthCache {
    pub(crate) fn new(handle: Handle) -> Self {
        Self { handle, last: Mutex::new(None) }
    }

    async fn health(&self) -> Health {
        // Locked while the engine is asked: without that, all who wait would ask for themselves.
        let mut last = self.last.lock().await;
        if let Some((at, health)) = *last
            && at.elapsed() < FRESH
        {
            return health;
        }
        let health = self.handle.health().await;
        *last = Some((Instant::now(), health));
        health
    }
}

/// Adds the route.
pub(crate) fn configure(cache: Arc<HealthCache>, config: &mut ServiceConfig) {
    let route = web::resource("/healthz")
        .app_data(Data::from(cache))
        .get(healthz)
        .head(healthz)
        .default_service(web::to(async || {
            let mut answer = respond(StatusCode::METHOD_NOT_ALLOWED);
            error(answer.insert_header((ALLOW, "GET, HEAD")), "only GET and HEAD")
        }));
    config.service(route);
}

async fn healthz(cache: Data<HealthCache>) -> HttpResponse {
    let health = cache.health().await;
    let (status, text) = if health.is_ok() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let body = json!({
        "status": text, "engine": health.engine, "store": health.store, "lease": health.lease,
    });
    finish(&mut respond(status), body)
}

/// The answer to a path that is not there, of a server of its own.
pub(crate) async fn not_found() -> HttpResponse {
    error(&mut respond(StatusCode::NOT_FOUND), "only /healthz is here")
}

fn error(answer: &mut HttpResponseBuilder, message: &str) -> HttpResponse {
    finish(answer, json!({ "error": message }))
}

fn respond(status: StatusCode) -> HttpResponseBuilder {
    let mut answer = HttpResponse::build(status);
    answer.insert_header((CONTENT_TYPE, "application/json"));
    answer.insert_header((CACHE_CONTROL, "no-store"));
    answer
}

fn finish(answer: &mut HttpResponseBuilder, body: impl Display) -> HttpResponse {
    let mut answer = answer.body(format!("{body}\n"));
    // Simple health checkers compare header names byte by byte.
    answer.head_mut().set_camel_case_headers(true);
    answer
}
