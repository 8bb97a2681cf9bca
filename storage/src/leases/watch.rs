//! Notices that a process of this machine has ended that held a lease on a server.
//!
//! Asked by the [`lease_table`](super::lease_table) with every survey of the leases. The kernel is asked, and not the server; and
//! only while another process of this machine holds a lease.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gleitzeit_domain::store::Epoch;
use tokio::task::AbortHandle;

use super::process::Process;
use crate::notifier::Notifier;

/// Between two looks at a process: what it left behind is taken over so long after its end.
const PAUSE: Duration = Duration::from_millis(500);

/// The processes that are watched, by their leases.
#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<Epoch, Watch>);

/// Ends when it is dropped.
#[derive(Debug)]
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watched {
    /// Watches these, by the names of their processes, and no others; rings once for each that
    /// ends.
    pub(super) fn watch(
        &mut self,
        this: &Process,
        running: Vec<(Epoch, String)>,
        notifier: &Arc<Notifier>,
    ) {
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
    notifier.ring();
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use futures_util::StreamExt as _;

    use super::*;

    /// What a killed process ran must not wait for its lease to run out.
    #[tokio::test]
    async fn the_end_of_a_process_rings() {
        let this = Process::this().unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let name = Process::of_id(i32::try_from(child.id()).unwrap()).unwrap().to_string();
        let notifier = Arc::new(Notifier::new());
        let mut rings = notifier.stream();
        let mut watched = Watched::default();
        watched.watch(&this, vec![(Epoch(1), name)], &notifier);
        child.kill().unwrap();
        child.wait().unwrap();
        let ring = tokio::time::timeout(Duration::from_mins(1), rings.next()).await;
        assert_eq!(ring, Ok(Some(())));
    }
}
