//! The protocols and providers of a runtime: listed, added, replaced, removed.

use std::{sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::OfferChanged,
    load_balancer::{GetProviders, RegisterProvider, RemoveProvider, RestartProvider},
    protocol_registry::{GetCapabilities, GetCatalog, RegisterProtocol, ReplaceProtocol},
    provider_supervisor::ProviderStatus,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::{ProtocolId, ProviderId},
    protocol::{
        ProtocolSpec,
        catalog::{ProtocolCatalog, RegisterError},
    },
    provider::ProviderSpec,
};

use super::{Handle, stopped};

impl Handle {
    /// The registered protocols.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn protocols(&self) -> Result<Arc<ProtocolCatalog>, TaskError> {
        self.addresses.registry.send(GetCatalog).await.map_err(stopped)
    }

    /// Adds a protocol.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with all problems, also if another protocol has the id;
    /// `PROTOCOL_NOT_FOUND` if the protocol that it extends is not registered.
    pub async fn register_protocol(&self, spec: ProtocolSpec) -> Result<ProtocolId, TaskError> {
        let answer = self.addresses.registry.send(RegisterProtocol(spec)).await.map_err(stopped)?;
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| refused(&error))
    }

    /// Replaces the protocol with the same id.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with all problems, also if tasks use the old protocol and the new one would
    /// reject parameters that the old one accepts; `PROTOCOL_NOT_FOUND` if there is no old one.
    pub async fn replace_protocol(&self, spec: ProtocolSpec) -> Result<(), TaskError> {
        let answer = self.addresses.registry.send(ReplaceProtocol(spec)).await.map_err(stopped)?;
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| refused(&error))
    }

    /// Adds a provider and starts it.
    ///
    /// # Errors
    /// `PROTOCOL_NOT_FOUND`; `CONFIGURATION_ERROR` if the id is taken or the provider serves no method.
    pub async fn register_provider(&self, spec: ProviderSpec) -> Result<(), TaskError> {
        let mut capabilities = spec.capabilities.clone();
        for protocol in &spec.protocols {
            let question = GetCapabilities(protocol.clone());
            capabilities.extend(self.addresses.registry.send(question).await.map_err(stopped)??);
        }
        // A capability that the spec and its protocol both name would be served as two.
        capabilities.sort_unstable();
        capabilities.dedup();
        let message = RegisterProvider { spec, capabilities };
        let answer = self.addresses.balancer.send(message).await.map_err(stopped)?;
        // The store may have workflows that this process could not run before.
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| TaskError::new(ErrorCode::ConfigurationError, error.to_string()))
    }

    /// Adds a service: its protocol, unless that is registered already, and its provider.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` if the service is invalid, or the id of its provider is taken;
    /// `INVALID_REQUEST` if another protocol has its name and version.
    #[cfg(feature = "typed")]
    pub async fn register_service(
        &self,
        service: crate::service::Service,
    ) -> Result<(), TaskError> {
        let wrong = |error: crate::service::ServiceError| {
            TaskError::new(ErrorCode::ConfigurationError, error.to_string())
        };
        let built = service.build().map_err(wrong)?;
        self.register_protocol(built.protocol).await?;
        self.register_provider(built.provider).await
    }

    /// Removes a provider; calls in flight may take `deadline` to end.
    ///
    /// # Errors
    /// `PROVIDER_NOT_FOUND`.
    pub async fn remove_provider(
        &self,
        id: &ProviderId,
        deadline: Duration,
    ) -> Result<(), TaskError> {
        let message = RemoveProvider { id: id.clone(), deadline };
        self.addresses.balancer.send(message).await.map_err(stopped)?
    }

    /// Restarts a provider with a new instance, also a provider that has failed for good.
    ///
    /// # Errors
    /// `PROVIDER_NOT_FOUND`.
    pub async fn restart_provider(&self, id: &ProviderId) -> Result<(), TaskError> {
        self.addresses.balancer.send(RestartProvider(id.clone())).await.map_err(stopped)?
    }

    /// The status of every provider, by id.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn providers(&self) -> Result<Vec<ProviderStatus>, TaskError> {
        self.addresses.balancer.send(GetProviders).await.map_err(stopped)
    }
}

fn refused(error: &RegisterError) -> TaskError {
    TaskError::new(error.code(), error.to_string())
}
