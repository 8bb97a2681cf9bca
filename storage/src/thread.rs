//! The thread that a database lives on.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gleitzeit_domain::store::StoreError;
use tokio::{
    runtime::{Builder, Handle},
    sync::{Notify, mpsc, oneshot, watch},
};

use super::{
    call,
    leases::{LeaseTable, Renewals},
    needs,
    notifier::Notifier,
    open::Connector,
    read::Reader,
    shrink,
    writer::{Request, Tells, Writer},
};

/// How long the connections that read may take to end what they read.
const CLOSING: Duration = Duration::from_secs(5);

/// What reaches a database that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) requests: mpsc::UnboundedSender<Request>,
    pub(super) reader: Arc<Reader>,
    pub(super) runtime: Handle,
    pub(super) ended: watch::Receiver<bool>,
    pub(super) commits: Arc<AtomicU64>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) renewals: Arc<Renewals>,
    pub(super) lost: watch::Receiver<Option<StoreError>>,
}

/// Starts the thread and opens the database on it.
pub(super) async fn start(
    connector: Connector,
    max_bytes: Option<u64>,
) -> Result<Opened, StoreError> {
    let (told, hears) = oneshot::channel();
    std::thread::Builder::new()
        .name("gleitzeit-store".into())
        .spawn(move || live(connector, max_bytes, told))
        .map_err(|error| StoreError::Unavailable {
            detail: format!("cannot start the thread of the store: {error}"),
        })?;
    hears.await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable {
            detail: "the thread of the store ended while it opened the database".into(),
        })
    })
}

/// The whole life of the thread.
fn live(
    connector: Connector,
    max_bytes: Option<u64>,
    told: oneshot::Sender<Result<Opened, StoreError>>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let detail = format!("cannot start the runtime of the store: {error}");
            let _ = told.send(Err(StoreError::Unavailable { detail }));
            return;
        }
    };
    let (end, ended) = watch::channel(false);
    runtime.block_on(async {
        let (requests, queue) = mpsc::unbounded_channel();
        let (prepared, prepared_queue) = mpsc::unbounded_channel();
        let commits = Arc::new(AtomicU64::new(0));
        let opened = connector.open_all().await;
        gleitzeit_failpoint::failpoint!("store.open.readers");
        let opened = opened.and_then(|connections| Ok((connections, connector.file()?)));
        let ((db, readers), file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = told.send(Err(error));
                return;
            }
        };
        let reader = Arc::new(Reader::watching(readers, connector.clone()));
        let (tell_lost, lost) = watch::channel(None);
        let notifier = Arc::new(Notifier::new());
        let renewals = Arc::new(Renewals::default());
        let lease_table =
            LeaseTable::new(&connector.location, Arc::clone(&notifier), Arc::clone(&renewals));
        let written = Arc::new(Notify::new());
        let shrinking = max_bytes.map(|limit| {
            let (reader, writer) = (Arc::clone(&reader), requests.downgrade());
            tokio::spawn(shrink::keep_below(limit, reader, writer, Arc::clone(&written)))
        });
        let pruned = Arc::new(Notify::new());
        let upkeep =
            needs::keep_used(Arc::clone(&reader), requests.downgrade(), Arc::clone(&pruned));
        let upkeep = tokio::spawn(upkeep);
        let tells = Tells { commits: Arc::clone(&commits), written, pruned, lost: tell_lost };
        let writer = Writer::new(connector, db, file, Arc::clone(&reader), lease_table, tells);
        let runtime = Handle::current();
        let opened = Opened {
            requests,
            reader: Arc::clone(&reader),
            runtime,
            ended,
            commits,
            notifier,
            renewals,
            lost,
        };
        // Whoever asked may have gone away; then nobody can write, and the writer ends at once.
        let _ = told.send(Ok(opened));
        gleitzeit_failpoint::failpoint!("store.open.told");
        tokio::spawn(call::pass_on(queue, prepared));
        Box::pin(writer.run(prepared_queue)).await;
        upkeep.abort();
        if let Some(shrinking) = shrinking {
            shrinking.abort();
        }
        // Waits for the reads that are under way.
        gleitzeit_failpoint::failpoint!("store.close.written");
        // One that waits for a server that is gone ends with the runtime.
        let _ = tokio::time::timeout(CLOSING, reader.close()).await;
        gleitzeit_failpoint::failpoint!("store.close.ended");
    });
    drop(runtime);
    let _ = end.send(true);
}
