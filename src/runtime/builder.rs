//! Collects what a runtime is started with.

use std::sync::Arc;

use gleitzeit_actors::load_balancer::WaitPolicy;
use gleitzeit_domain::{
    balance::StrategyFactory, protocol::ProtocolSpec, provider::ProviderSpec, store::Store,
};

use crate::{chosen_store::ChosenStore, settings::Settings};

/// Collects what is added to the settings before the start.
pub struct RuntimeBuilder {
    pub(super) settings: Settings,
    pub(super) providers: Vec<ProviderSpec>,
    pub(super) protocols: Vec<ProtocolSpec>,
    #[cfg(feature = "typed")]
    pub(super) services: Vec<crate::service::Service>,
    pub(super) strategies: Vec<(String, StrategyFactory)>,
    pub(super) store: Option<ChosenStore>,
    pub(super) recover: bool,
    pub(super) wait_policy: WaitPolicy,
    pub(super) settings_providers: bool,
    pub(super) is_local: bool,
}

impl std::fmt::Debug for RuntimeBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RuntimeBuilder")
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    /// Adds a provider to those of the settings.
    #[must_use]
    pub fn provider(mut self, spec: ProviderSpec) -> Self {
        self.providers.push(spec);
        self
    }

    /// Adds a protocol to the built-in ones and those of the settings' directory.
    #[must_use]
    pub fn protocol(mut self, spec: ProtocolSpec) -> Self {
        self.protocols.push(spec);
        self
    }

    /// Adds a service: its protocol and its provider.
    #[cfg(feature = "typed")]
    #[must_use]
    pub fn service(mut self, service: crate::service::Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a balancing strategy that settings may name.
    #[must_use]
    pub fn strategy(mut self, name: impl Into<String>, factory: StrategyFactory) -> Self {
        self.strategies.push((name.into(), factory));
        self
    }

    /// Uses this store instead of the one of the settings. `Handle::submit_in` then rejects every
    /// transaction; for a store in a database use `sql_store`.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(ChosenStore::new(store));
        self
    }

    /// Uses this store in a database instead of the one of the settings.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[must_use]
    pub fn sql_store(mut self, store: Arc<gleitzeit_storage::SqlStore>) -> Self {
        self.store = Some(ChosenStore::in_database(store));
        self
    }

    /// Leaves unfinished workflows of the store alone: those that exist at the start, those of
    /// processes that die, and those that are stored for any process to claim.
    #[must_use]
    pub fn without_recovery(mut self) -> Self {
        self.recover = false;
        self
    }

    /// Says for which calls `engine.provider_wait_timeout` holds; without it, for each attempt.
    #[must_use]
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.wait_policy = policy;
        self
    }

    /// Starts none of the settings' providers, only those that were added here.
    #[must_use]
    pub fn without_settings_providers(mut self) -> Self {
        self.settings_providers = false;
        self
    }
}
