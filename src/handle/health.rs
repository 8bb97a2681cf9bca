//! How the runtime is, for whoever watches the process: a supervisor, or a load balancer.

use std::time::Duration;

use gleitzeit_actors::execution_engine::{GetHealth, LeaseHealth};
use gleitzeit_domain::id::WorkflowId;
use serde::Serialize;

use super::Handle;

/// An engine or a store that takes longer than this to answer is not well.
const LIMIT: Duration = Duration::from_secs(2);

/// How the parts of a runtime are that it cannot work without. Providers are not among them: a
/// model server that is away makes tasks wait, and is seen in [`Handle::providers`].
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
    /// It answers and takes work.
    Ok,
    /// It is on its way to a stop.
    Stopping,
    /// It did not answer within 2 seconds.
    Stuck,
    /// It has ended.
    Stopped,
}

/// The state of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    /// It answers, and took what was written last.
    Ok,
    /// It answers, but refuses what is to be written.
    RefusesWrites,
    /// It did not answer within 2 seconds, or with an error.
    Unreachable,
}

impl Health {
    /// True if all of it is well.
    pub fn is_ok(&self) -> bool {
        self.engine == EngineState::Ok
            && self.store == StoreState::Ok
            && self.lease.is_some_and(|lease| lease != LeaseHealth::Overdue)
    }
}

impl Handle {
    /// Asks the engine and the store; answers within some seconds whatever they do.
    pub async fn health(&self) -> Health {
        let asked = self.addresses.engine.send(GetHealth);
        let (engine, lease, is_stored) = match tokio::time::timeout(LIMIT, asked).await {
            Ok(Ok(it)) if it.takes_work => (EngineState::Ok, Some(it.lease), it.is_stored),
            Ok(Ok(it)) => (EngineState::Stopping, Some(it.lease), it.is_stored),
            Ok(Err(_)) => (EngineState::Stopped, None, true),
            Err(_) => (EngineState::Stuck, None, true),
        };
        // One row by its key; that there is none is an answer, too.
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
