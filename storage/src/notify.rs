//! Notifies engines that there may be work: a workflow without a lease, a request, an answer.
//!
//! The writer notifies the engines of its own process. A listener does so for the writes of other
//! processes: on PostgreSQL it has a connection that listens for `NOTIFY`, on SQLite an inotify
//! watch on the file. The listener starts with the first subscriber. If a file cannot be watched,
//! it polls; a silent server it asks for an answer.
//!
//! Invariant: each write after the start of a subscription is followed by a notification. A listener
//! notifies once when it starts, and whenever it may have missed a write.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};
use tokio::sync::{mpsc, watch};

use super::{location::Location, queue::Request};

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(all(feature = "sqlite", target_os = "linux"))]
mod sqlite;

/// The channel of `NOTIFY`. Channels of PostgreSQL belong to one database.
pub(super) const CHANNEL: &str = "gleitzeit";

/// The notifier of one store.
#[derive(Debug)]
pub(super) struct Notifier {
    /// Counts notifications.
    sent: watch::Sender<u64>,
    /// True after the first subscription.
    is_started: AtomicBool,
    /// True while the listener notifies of every write of other processes.
    is_complete: AtomicBool,
}

impl Notifier {
    pub(super) fn new() -> Self {
        Self {
            sent: watch::Sender::new(0),
            is_started: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
        }
    }

    /// Notifies the engines of this process.
    pub(super) fn notify_local(&self) {
        // `send_modify` counts without a receiver, too: a claim compares the count, whether an
        // engine subscribes or not.
        self.sent.send_modify(|sent| *sent = sent.wrapping_add(1));
    }

    /// The number of notifications; `None` unless other processes' writes are all among them.
    pub(super) fn count(&self) -> Option<u64> {
        self.is_complete.load(Ordering::Acquire).then(|| *self.sent.borrow())
    }

    /// The notifications from now on.
    pub(super) fn stream(&self) -> BoxStream<'static, ()> {
        let receiver = self.sent.subscribe();
        let notifications = stream::unfold(receiver, async |mut receiver| {
            receiver.changed().await.ok()?;
            Some(((), receiver))
        });
        notifications.boxed()
    }

    /// True for the first caller, which then starts the listener.
    pub(super) fn begin_once(&self) -> bool {
        !self.is_started.swap(true, Ordering::AcqRel)
    }

    /// True while no engine subscribes.
    #[cfg_attr(
        not(all(feature = "sqlite", target_os = "linux")),
        allow(dead_code, reason = "used by the watch on a file alone")
    )]
    fn has_no_subscriber(&self) -> bool {
        self.sent.receiver_count() == 0
    }

    fn set_complete(&self, is_complete: bool) {
        self.is_complete.store(is_complete, Ordering::Release);
    }
}

/// Notifies the engines of other processes after the commit of this transaction. On SQLite they
/// notice the write to the file, and this does nothing.
pub(super) async fn notify_other_processes<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    }
    Ok(())
}

/// Listens for the writes of other processes until the store closes.
pub(super) async fn listen(
    location: Location,
    statement_timeout: Duration,
    notifier: std::sync::Arc<Notifier>,
    writer: mpsc::WeakUnboundedSender<Request>,
) {
    match location {
        #[cfg(feature = "postgres")]
        Location::Postgres(url) => postgres::listen(&url, &notifier, statement_timeout).await,
        #[cfg(all(feature = "sqlite", target_os = "linux"))]
        Location::Sqlite(path) => sqlite::listen(&path, &notifier, &writer).await,
        // Without a listener in this build, an engine finds the writes of other processes at its
        // next poll.
        #[allow(unreachable_patterns, reason = "in some builds")]
        other => {
            drop(writer);
            let _ = statement_timeout;
            notifier.set_complete(false);
            tracing::debug!(?other, "no notifications from other processes in this build");
        }
    }
}
