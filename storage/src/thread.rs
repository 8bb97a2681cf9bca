//! The thread of the store: it opens the database, runs the writer and the background tasks, and
//! closes the database.

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
    leases::LeaseTable,
    needs,
    notify::Notifier,
    open::Connector,
    queue::{Renewals, Request},
    read::Reader,
    shrink,
    writer::{Writer, WriterSignals},
};

/// Limit on the reads that run when the store closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The ends of an open database that the store keeps.
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
    let (reply, opened) = oneshot::channel();
    std::thread::Builder::new()
        .name("gleitzeit-store".into())
        .spawn(move || run(connector, max_bytes, reply))
        .map_err(|error| StoreError::Unavailable {
            detail: format!("cannot start the thread of the store: {error}"),
        })?;
    opened.await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable {
            detail: "the thread of the store ended while it opened the database".into(),
        })
    })
}

/// Runs the thread from the open to the close.
fn run(
    connector: Connector,
    max_bytes: Option<u64>,
    reply: oneshot::Sender<Result<Opened, StoreError>>,
) {
    // A runtime of its own: a connection to a server belongs to the runtime that opened it, and the
    // caller's may end before the store.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let detail = format!("cannot start the runtime of the store: {error}");
            let _ = reply.send(Err(StoreError::Unavailable { detail }));
            return;
        }
    };
    let (end, ended) = watch::channel(false);
    runtime.block_on(async {
        let (requests, queue) = mpsc::unbounded_channel();
        let (encoded, encoded_queue) = mpsc::unbounded_channel();
        let commits = Arc::new(AtomicU64::new(0));
        let opened = connector.open_all().await;
        gleitzeit_failpoint::failpoint!("store.open.readers");
        let opened = opened.and_then(|connections| Ok((connections, connector.file()?)));
        let ((db, readers), file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let reader = Arc::new(Reader::watching(readers, connector.clone()));
        let (lost_sender, lost) = watch::channel(None);
        let notifier = Arc::new(Notifier::new());
        let renewals = Arc::new(Renewals::default());
        let lease_table =
            LeaseTable::new(&connector.location, Arc::clone(&notifier), Arc::clone(&renewals));
        let written = Arc::new(Notify::new());
        // The background tasks get weak senders: a strong one would keep the writer running after
        // the store was dropped.
        let shrinking = max_bytes.map(|limit| {
            let (reader, writer) = (Arc::clone(&reader), requests.downgrade());
            tokio::spawn(shrink::keep_below(limit, reader, writer, Arc::clone(&written)))
        });
        let pruned = Arc::new(Notify::new());
        let upkeep =
            needs::keep_used(Arc::clone(&reader), requests.downgrade(), Arc::clone(&pruned));
        let upkeep = tokio::spawn(upkeep);
        let signals =
            WriterSignals { commits: Arc::clone(&commits), written, pruned, lost: lost_sender };
        let writer = Writer::new(connector, db, file, Arc::clone(&reader), lease_table, signals);
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
        // The caller may be gone: then no sender is left, and the writer ends at once.
        let _ = reply.send(Ok(opened));
        gleitzeit_failpoint::failpoint!("store.open.told");
        tokio::spawn(encode_and_forward(queue, encoded));
        // Boxed: the future of the writer is large, and would be part of this one.
        Box::pin(writer.run(encoded_queue)).await;
        upkeep.abort();
        if let Some(shrinking) = shrinking {
            shrinking.abort();
        }
        gleitzeit_failpoint::failpoint!("store.close.written");
        // Waits for running reads. A read on a server that does not answer is dropped with the
        // runtime.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, reader.close()).await;
        gleitzeit_failpoint::failpoint!("store.close.ended");
    });
    // Before the signal: `Store::close` promises that the database is released.
    drop(runtime);
    let _ = end.send(true);
}

/// Encodes the rows of each write and forwards all requests in their order, until one end of either
/// queue is gone.
///
/// It is a task of its own so that rows are encoded while the writer waits for the database.
async fn encode_and_forward(
    mut queue: mpsc::UnboundedReceiver<Request>,
    writer: mpsc::UnboundedSender<Request>,
) {
    while let Some(mut request) = queue.recv().await {
        if let Request::Write(call, _) = &mut request {
            call.prepare().await;
        }
        if writer.send(request).is_err() {
            return;
        }
    }
}
