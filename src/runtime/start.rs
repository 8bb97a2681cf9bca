//! Starts a runtime from what its builder has collected.

use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Runtime, blocking::BlockingRuntime, builder::RuntimeBuilder, control::control_thread,
    error::StartError,
};

impl RuntimeBuilder {
    /// Starts the actors on a thread of their own and recovers the store.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stops) = mpsc::unbounded_channel();
        let (fails, failed) = watch::channel(None);
        let thread = thread::Builder::new()
            .name("gleitzeit-actors".into())
            .spawn(move || control_thread(self, ready, stops, &fails))?;
        match is_ready.await {
            Ok(Ok((handle, recovered))) => {
                Ok(Runtime { handle, recovered, stop, failed, thread: Some(thread) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Died),
        }
    }

    /// As [`RuntimeBuilder::start`], from a thread without an async runtime.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub fn start_blocking(self) -> Result<BlockingRuntime, StartError> {
        BlockingRuntime::start(self)
    }
}
