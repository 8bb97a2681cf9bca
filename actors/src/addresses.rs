//! The addresses of the control actors, for those who ask them.

use actix::prelude::*;

use crate::{
    dependency_resolver::DependencyResolver, event_bus::EventBus,
    execution_engine::ExecutionEngine, load_balancer::LoadBalancer, monitor::Monitor, peers::Peers,
    protocol_registry::ProtocolRegistry, resource_manager::ResourceManager,
};

/// The addresses of the control actors. All live on the control arbiter.
#[derive(Debug, Clone)]
pub struct ActorAddresses {
    /// Runs workflows.
    pub engine: Addr<ExecutionEngine>,
    /// Knows the protocols.
    pub registry: Addr<ProtocolRegistry>,
    /// Keeps the graphs.
    pub resolver: Addr<DependencyResolver>,
    /// Grants leases.
    pub resources: Addr<ResourceManager>,
    /// Chooses providers.
    pub balancer: Addr<LoadBalancer>,
    /// Hands out events.
    pub bus: Addr<EventBus>,
    /// Measures.
    pub monitor: Addr<Monitor>,
}

impl ActorAddresses {
    /// The same without the engine.
    pub fn peers(&self) -> Peers {
        Peers {
            registry: self.registry.clone(),
            resolver: self.resolver.clone(),
            resources: self.resources.clone(),
            balancer: self.balancer.clone(),
            bus: self.bus.clone(),
            monitor: self.monitor.clone(),
        }
    }
}
