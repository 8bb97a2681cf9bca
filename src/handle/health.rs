//! The health of the runtime, for a supervisor or a load balancer that watches the process.

use std::time::Duration;

use gleitzeit_actors::execution_engine::{GetHealth, LeaseHealth};
use gleitzeit_domain::id::WorkflowId;
use serde::Serialize;

use super::Handle;

/// The longest wait for an answer of the engine or the store.
const LIMIT: Duration = Duration::from_secs(2);

/// The health of the parts that a runtime cannot work without. Providers are not among them: tasks
/// wait for a model server that is down, and [`Handle::providers`] reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The engine.
    pub engine: EngineState,
    /// The store.
    pub store: StoreState,
    /// The engine's lease; `None` if the engine did not answer.
    pub lease: Option<LeaseHealth>,
}

/// The state of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineState {
    /// The engine answers and accepts work.
    Ok,
    /// The engine stops; running tasks may still end.
    Stopping,
    /// The engine did not answer within 2 seconds.
    Stuck,
    /// The engine has stopped.
    Stopped,
}

/// The state of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// It answers, and took what was written last.
    Ok,
    /// The store answers reads and refuses writes.
    RefusesWrites,
    /// The store did not answer within 2 seconds, or answered with an error.
    Unreachable,
}

impl Health {
    /// True if engine, store and lease are all well.
    pub fn is_ok(&self) -> bool {
        self.engine == EngineState::Ok
            && self.store == StoreState::Ok
            && self.lease.is_some_and(|lease| lease != LeaseHealth::Overdue)
    }
}

impl Handle {
    /// Asks the engine and the store; returns within some seconds whatever they do.
    pub async fn health(&self) -> Health {
        let asked = self.addresses.engine.send(GetHealth);
        let (engine, lease, is_stored) = match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(it)) if it.takes_work => (EngineState::Ok, Some(it.lease), it.is_stored),
            Ok(Ok(it)) => (EngineState::Stopping, Some(it.lease), it.is_stored),
            Ok(Err(_)) => (EngineState::Stopped, None, true),
            Err(_) => (EngineState::Stuck, None, true),
        };
        // One row by its key, the cheapest read that reaches the database: a health check runs each
        // second or so. That there is no such row is an answer.
        let nobody = WorkflowId::from("-");
        let read = self.store.workflow(&nobody);
        let store = match tokio::time::timeout(LIMIT, read).await {
            Ok(Ok(_)) if is_stored => StoreState::Ok,
            Ok(Ok(_)) => StoreState::RefusesWrites,
            Ok(Err(_)) | Err(_) => StoreState::Unreachable,
        };
        Health { engine, store, lease }
    }
}
