//! A runtime on the caller's own thread, for tests on a virtual clock.

use std::{fmt, sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Recovered, StopReport},
    system::Actors,
};
use gleitzeit_domain::store::Store;

use super::{
    builder::RuntimeBuilder,
    control::{begin, end},
    error::StartError,
    results::ResultWriter,
};
use crate::handle::Handle;

/// A runtime whose actors and providers share the current thread with its caller.
///
/// It lives in the caller's actix `System`: it is of no use once that is gone, and ends with it as
/// with a crash unless it is stopped before.
pub struct LocalRuntime {
    actors: Actors,
    store: Arc<dyn Store>,
    handle: Handle,
    recovered: Recovered,
    results: ResultWriter,
}

impl fmt::Debug for LocalRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LocalRuntime").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl LocalRuntime {
    /// The handle to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The workflows that were resumed at the start.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// As [`Runtime::stop`](super::Runtime::stop).
    pub async fn stop(self, deadline: Duration) -> StopReport {
        let report = end(self.actors, &*self.store, deadline).await;
        self.results.finish().await;
        report
    }
}

impl RuntimeBuilder {
    /// Starts on the current thread, which has an actix `System`; every provider shares it. With a
    /// store in memory and a paused tokio clock, time passes only when nothing is left to do.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    ///
    /// # Panics
    /// Outside of an actix `System`.
    pub async fn start_local(mut self) -> Result<LocalRuntime, StartError> {
        self.is_local = true;
        let (actors, store, handle, recovered, results) = begin(self).await?;
        Ok(LocalRuntime { actors, store, handle, recovered, results })
    }
}
