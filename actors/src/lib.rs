//! The actors of gleitzeit: who asks whom, supervision, timed messages.
//!
//! | actor | asked by | for |
//! |---|---|---|
//! | [`ExecutionEngine`](execution_engine::ExecutionEngine) | the runtime's handle | taking workflows in, running and stopping them |
//! | [`ProtocolRegistry`](protocol_registry::ProtocolRegistry) | engine, pipeline | plans, checked parameters |
//! | [`DependencyResolver`](dependency_resolver::DependencyResolver) | engine, pipeline | who may run, resolved references |
//! | [`ResourceManager`](resource_manager::ResourceManager) | pipeline | leases |
//! | [`LoadBalancer`](load_balancer::LoadBalancer) | pipeline | providers |
//! | [`ProviderSupervisor`](provider_supervisor::ProviderSupervisor) | pipeline | calls |
//! | [`EventBus`](event_bus::EventBus) | engine, supervisors, monitor | telling subscribers |
//! | [`Monitor`](monitor::Monitor) | engine | measuring |
//!
//! A panic of the registry, the resource manager, the balancer, the bus, the monitor or a supervisor
//! is followed by a restart with the same address and queue, within a budget; an attempt that waited
//! for the lost answer fails and may be retried. Engine and resolver hold the truth about running
//! workflows: their panic stops the system, and the next start recovers from the store.

pub mod addresses;
pub mod clock;
pub mod dependency_resolver;
pub mod event_bus;
pub mod execution_engine;
pub mod follower;
pub mod guard;
mod guarded_store;
pub mod load_balancer;
pub mod memory_store;
pub mod monitor;
pub mod peers;
pub mod pipeline;
pub mod protocol_registry;
pub mod provider_supervisor;
pub mod resource_manager;
pub mod stall;
mod store_writes;
pub mod supervision;
pub mod system;

use chrono::{DateTime, Utc};
use gleitzeit_domain::event::{Event, EventData};

/// Why an actor did not answer.
pub use actix::MailboxError;
pub use clock::Clock;
use event_bus::Publish;

/// Capacity of every mailbox. The engine bounds its intake, and so everything that follows from it;
/// a full mailbox would only let later messages overtake earlier ones.
pub(crate) const MAILBOX: usize = 1 << 24;

/// An event that belongs to no workflow, ready to be published.
pub(crate) fn system_event(timestamp: DateTime<Utc>, data: EventData) -> Publish {
    Publish { events: vec![Event { timestamp, workflow_id: None, sequence: 0, data }] }
}
