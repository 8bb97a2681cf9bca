//! Everything that a container is started with, and the count of those that run.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::{engine::Engine, settings::DockerSettings};
use crate::{
    Interpreter, frames,
    jail::filter::{OWN_PID, program as filter_program},
};

/// All that it takes to warm a container.
#[derive(Debug)]
pub(super) struct ContainerConfig {
    pub(super) engine: Engine,
    pub(super) settings: DockerSettings,
    pub(super) owner: String,
    pub(super) interpreter: Interpreter,
    /// The frames that a supervisor reads first.
    pub(super) boot_frames: Vec<u8>,
    /// So many are warmed at once.
    pub(super) warming: Semaphore,
    pub(super) containers: ContainerCount,
}

/// Counts the containers that are there.
#[derive(Debug, Clone)]
pub(super) struct ContainerCount(Arc<watch::Sender<usize>>);

impl ContainerCount {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// One more, until it is dropped.
    pub(super) fn one_more(&self) -> ContainerGuard {
        self.0.send_modify(|count| *count += 1);
        ContainerGuard(self.clone())
    }

    pub(super) async fn until_none(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// A container that is there.
#[derive(Debug)]
pub(super) struct ContainerGuard(ContainerCount);

impl Drop for ContainerGuard {
    fn drop(&mut self) {
        (self.0.0).send_modify(|count| *count -= 1);
    }
}

/// The first frame of a supervisor, by the names that the harness reads.
#[derive(Serialize)]
struct SupervisorHarnessConfig {
    own_pid: u32,
}

pub(super) fn boot_frames(interpreter: &Interpreter) -> Vec<u8> {
    let mut boot_frames = Vec::new();
    frames::put(&mut boot_frames, interpreter.harness());
    frames::put(
        &mut boot_frames,
        &serde_json::to_vec(&SupervisorHarnessConfig { own_pid: OWN_PID }).unwrap_or_default(),
    );
    frames::put(&mut boot_frames, &filter_program(false));
    boot_frames
}
