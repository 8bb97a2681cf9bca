//! Notices the end of processes of this machine that hold leases on a server, so that a takeover
//! does not wait for the end of their terms.
//!
//! The [`lease_table`](super::lease_table) sets the watched processes with every survey. A watch
//! reads `/proc`, and queries nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gleitzeit_domain::store::Epoch;
use tokio::task::AbortHandle;

use super::process::Process;
use crate::notify::Notifier;

/// The pause between two checks of a process, and so the delay of a takeover.
const PAUSE: Duration = Duration::from_millis(500);

/// The watches, by lease.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<Epoch, Watch>);

/// A watch on one process; its drop ends it.
#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watched {
    /// Watches these processes, and no others; notifies once for each that ends.
    pub(super) fn watch(
        &mut self,
        this: &Process,
        running: Vec<(Epoch, String)>,
        notifier: &Arc<Notifier>,
    ) {
        // First: a process that released its lease is no longer watched, and its end notifies
        // nobody.
        self.0.retain(|epoch, _| running.iter().any(|(it, _)| it == epoch));
        for (epoch, process) in running {
            self.0.entry(epoch).or_insert_with(|| {
                let until_it_ends = until_end(this.clone(), process, Arc::clone(notifier));
                Watch(tokio::spawn(until_it_ends).abort_handle())
            });
        }
    }
}

async fn until_end(this: Process, process: String, notifier: Arc<Notifier>) {
    while !this.knows_to_be_gone(&process) {
        tokio::time::sleep(PAUSE).await;
    }
    notifier.notify_local();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use futures_util::StreamExt as _;

    use super::*;

    /// The workflows of a killed process must not wait for the end of its term.
    #[tokio::test]
    async fn the_end_of_a_process_notifies() {
        let this = Process::this().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let name = Process::of_id(i32::try_from(child.id()).unwrap()).unwrap().to_string();
        let notifier = Arc::new(Notifier::new());
        let mut notifications = notifier.stream();
        let mut watched = Watched::default();
        watched.watch(&this, vec![(Epoch(1), name)], &notifier);
        child.kill().unwrap();
        child.wait().unwrap();
        let first = tokio::time::timeout(Duration::from_mins(1), notifications.next()).await;
        assert_eq!(first, Ok(Some(())));
    }
}
