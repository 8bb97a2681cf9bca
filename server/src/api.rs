//! The routes, for an actix-web app of its own or of a host.

use std::sync::Arc;

use actix_web::web::ServiceConfig;
use gleitzeit::Handle;

use crate::health::{self, HealthCache};

/// The routes over one runtime. Clones share one state, so that each worker of an app gets a clone.
#[derive(Debug, Clone)]
pub struct Api {
    health: Arc<HealthCache>,
}

impl Api {
    /// Routes that ask `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { health: Arc::new(HealthCache::new(handle)) }
    }

    /// Adds the routes to an app or a scope:
    ///
    /// - `GET /healthz`: 200 while the engine, the store and the lease are well, else 503, with
    ///   `{"status", "engine", "store", "lease"}`. However many ask, the engine and the store are
    ///   asked once a second.
    pub fn configure(&self, config: &mut ServiceConfig) {
        health::configure(Arc::clone(&self.health), config);
    }
}
