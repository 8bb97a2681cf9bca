//! Starts and stops everything: a thread of its own with the actors, the store and the providers.
//!
//! [`Runtime::start`] works from any program: a multi-threaded tokio runtime, actix-web, or a plain
//! `main` through [`RuntimeBuilder::start_blocking`]. The host talks to it through a [`Handle`],
//! which can be cloned and sent anywhere.
//!
//! Stopping: no new work is accepted, running tasks end before a deadline, providers stop, the
//! store is flushed, threads are joined. Interrupted tasks are in the report and in the store; the
//! next start resumes them.

mod blocking;
mod builder;
mod check;
mod control;
mod error;
mod local;
mod parts;
mod results;
mod start;

use std::{thread, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Recovered, StopReport},
    load_balancer::WaitPolicy,
};
use gleitzeit_domain::{error::TaskError, protocol::catalog::ProtocolCatalog};
use tokio::sync::{mpsc, oneshot, watch};

pub use blocking::BlockingRuntime;
pub use builder::RuntimeBuilder;
pub use check::WorkflowChecker;
pub use error::StartError;
pub use local::LocalRuntime;
pub use parts::{open_existing_store, open_store};

use crate::{handle::Handle, settings::Settings};

/// The protocols that a runtime of these settings begins with.
///
/// # Errors
/// [`StartError::Protocols`].
pub fn protocols(settings: &Settings) -> Result<ProtocolCatalog, StartError> {
    parts::catalog(settings, Vec::new())
}

/// A running gleitzeit. Dropping it stops it too, without waiting for running tasks.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    recovered: Recovered,
    stop: mpsc::UnboundedSender<StopRequest>,
    failed: watch::Receiver<Option<TaskError>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct StopRequest {
    deadline: Duration,
    report: Option<oneshot::Sender<StopReport>>,
}

impl Runtime {
    /// Starts with everything that `settings` say.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::builder(settings).start().await
    }

    /// To add providers, protocols, strategies or a store before the start.
    pub fn builder(settings: Settings) -> RuntimeBuilder {
        RuntimeBuilder {
            settings,
            providers: Vec::new(),
            protocols: Vec::new(),
            #[cfg(feature = "typed")]
            services: Vec::new(),
            strategies: Vec::new(),
            store: None,
            recover: true,
            wait_policy: WaitPolicy::default(),
            settings_providers: true,
            is_local: false,
        }
    }

    /// The handle of the host.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The workflows that were resumed at the start.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Waits until the runtime has stopped without a request, and returns the cause: its store is
    /// lost, or a part of it failed permanently. Acknowledged work is in the store.
    pub async fn failed(&self) -> TaskError {
        let mut failed = self.failed.clone();
        let why = match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Accepts no new work, lets running tasks end within `deadline`, stops everything and waits
    /// for it. What ended by then is written, for which a slow store has 10 s more; with a deadline
    /// of zero it has none. The report lists interrupted tasks.
    pub async fn stop(mut self, deadline: Duration) -> StopReport {
        let (report, reported) = oneshot::channel();
        let _ = self.stop.send(StopRequest { deadline, report: Some(report) });
        let report = reported.await.unwrap_or_default();
        self.join();
        report
    }

    /// The thread has nothing left to do when this is called, so it is short.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the runtime's thread panicked while it stopped");
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // After `stop` the receiver is gone, and the error is meaningless.
        let _ = self.stop.send(StopRequest { deadline: Duration::ZERO, report: None });
    }
}
