//! The addresses of the control actors that the engine asks.
//!
//! Without that of the engine, so that what the engine uses does not depend on it.

use actix::prelude::*;

use crate::{
    dependency_resolver::DependencyResolver, event_bus::EventBus, load_balancer::LoadBalancer,
    monitor::Monitor, protocol_registry::ProtocolRegistry, resource_manager::ResourceManager,
};

/// The control actors beside the engine. All live on the control arbiter.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Knows the protocols.
    pub registry: Addr<ProtocolRegistry>,
    /// Keeps the graphs.
    pub resolver: Addr<DependencyResolver>,
    /// Grants leases on resources.
    pub resources: Addr<ResourceManager>,
    /// Chooses providers.
    pub balancer: Addr<LoadBalancer>,
    /// Publishes events.
    pub bus: Addr<EventBus>,
    /// Measures.
    pub monitor: Addr<Monitor>,
}
