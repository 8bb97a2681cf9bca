//! Signals: the first Ctrl-C or request to end stops the program in good order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::Failure;

/// Waits for `SIGINT` and `SIGTERM`.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Listens for both signals. From here on neither of them ends the process.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: wait_for(SignalKind::interrupt())?,
            terminate: wait_for(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Listens for signals of one kind, which no longer have their default effect.
///
/// # Errors
/// If the system refuses.
pub(crate) fn wait_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::infrastructure(format!("signals cannot be waited for: {error}")))
}
