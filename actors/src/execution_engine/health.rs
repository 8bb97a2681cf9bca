//! Answers whether the engine works: asked by whoever watches the process.

use actix::prelude::*;
use serde::Serialize;

use super::{ExecutionEngine, Phase};

/// Asks the engine how it is.
#[derive(Debug, Message)]
#[rtype(result = "EngineHealth")]
pub struct GetHealth;

/// The answer to [`GetHealth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, MessageResponse)]
pub struct EngineHealth {
    /// False once a stop was asked for.
    pub takes_work: bool,
    /// False while the store refuses what is to be written.
    pub is_stored: bool,
    /// The engine's right to run workflows.
    pub lease: LeaseHealth,
}

/// The state of an engine's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseHealth {
    /// Nothing runs that would need one.
    NotNeeded,
    /// It is held, and was renewed in time.
    Held,
    /// It was not renewed within its term, or is not held though workflows run.
    Overdue,
}

impl Handler<GetHealth> for ExecutionEngine {
    type Result = EngineHealth;

    fn handle(&mut self, _: GetHealth, _: &mut Self::Context) -> EngineHealth {
        let lease = if self.runs.is_empty() || self.store.leases().is_none() {
            LeaseHealth::NotNeeded
        } else if self.ownership.is_in_term() {
            LeaseHealth::Held
        } else {
            LeaseHealth::Overdue
        };
        EngineHealth {
            takes_work: matches!(self.phase, Phase::Running),
            is_stored: !self.writer.is_failing(),
            lease,
        }
    }
}
