//! One kind of provider: its name, how it is built, and its preflight check.

use std::{fmt, sync::Arc};

use futures_util::future::LocalBoxFuture;
use gleitzeit_domain::{id::ProviderId, provider::ProviderSpec};
use serde_json::{Map, Value};

use crate::{config::ConfigProblem, guarded::Guarded, security::SecuritySettings};

/// The input from which a kind builds a provider.
#[derive(Debug, Clone, Copy)]
pub struct ProviderRequest<'a> {
    /// The provider's id.
    pub id: &'a ProviderId,
    /// The table `[providers.<id>.config]`.
    pub config: &'a Map<String, Value>,
    /// `[security]` of the same settings.
    pub security: &'a SecuritySettings,
    /// Files that no task may read: the database and the settings.
    pub guarded: &'a Guarded,
}

type Build = dyn Fn(&ProviderRequest<'_>) -> Result<ProviderSpec, Vec<ConfigProblem>> + Send + Sync;
type Preflight = dyn Fn(ProviderSpec) -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync;

/// One kind of provider.
#[derive(Clone)]
pub struct ProviderKind {
    name: &'static str,
    /// `None` in a build without the kind's feature.
    build: Option<Arc<Build>>,
    preflight: Option<Arc<Preflight>>,
}

impl ProviderKind {
    /// A kind that builds its providers with `build`.
    pub fn new(
        name: &'static str,
        build: impl Fn(&ProviderRequest<'_>) -> Result<ProviderSpec, Vec<ConfigProblem>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { name, build: Some(Arc::new(build)), preflight: None }
    }

    /// A kind whose feature this build does not have.
    pub const fn not_built(name: &'static str) -> Self {
        Self { name, build: None, preflight: None }
    }

    /// Adds a check that a runtime makes before it starts: whether this machine has the
    /// prerequisites of the provider. An error stops the start.
    #[must_use]
    pub fn preflight(
        mut self,
        preflight: impl Fn(ProviderSpec) -> LocalBoxFuture<'static, Result<(), String>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.preflight = Some(Arc::new(preflight));
        self
    }

    /// The name in settings.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// False in a build without the kind's feature.
    pub const fn is_built(&self) -> bool {
        self.build.is_some()
    }

    /// A provider of this kind; `None` in a build without the kind's feature.
    ///
    /// # Errors
    /// Everything wrong with its `config`.
    pub fn build(
        &self,
        request: &ProviderRequest<'_>,
    ) -> Option<Result<ProviderSpec, Vec<ConfigProblem>>> {
        self.build.as_ref().map(|build| build(request))
    }

    /// Checks that what a provider of this kind needs can be had here.
    ///
    /// # Errors
    /// The missing prerequisite, and the remedy.
    pub async fn check(&self, spec: &ProviderSpec) -> Result<(), String> {
        match &self.preflight {
            Some(preflight) => preflight(spec.clone()).await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ProviderKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProviderKind").field("name", &self.name).finish_non_exhaustive()
    }
}
