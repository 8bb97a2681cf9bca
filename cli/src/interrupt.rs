//! Ctrl-C, and the request to end from outside: the first one stops in good order, the second at
//! once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for `SIGINT` and `SIGTERM`.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on a signal is waited for and no longer ends the process.
    ///
    /// # Errors
    /// When the system lets nobody wait.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
