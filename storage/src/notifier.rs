//! Tells engines that there may be something for them: a workflow that nobody owns, a request, an
//! answer.
//!
//! Rung by the writer of this store, and by a listener for what other processes write: on
//! PostgreSQL a connection that listens for `NOTIFY`, on SQLite a watch on the file. The listener
//! starts when the first engine asks. It polls where a file cannot be watched, and asks a server
//! that has been silent whether it is there.
//!
//! Invariant: what is written after an engine began to listen is followed by a ring. A listener
//! rings once when it has begun, and whenever it may have missed something.

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

use super::{location::Location, writer::Request};

#[cfg(feature = "postgres")]
mod listen;
#[cfg(all(feature = "sqlite", target_os = "linux"))]
mod watch_file;

/// The channel of `NOTIFY` on PostgreSQL. Each database has its own.
pub(super) const CHANNEL: &str = "gleitzeit";

/// The notifier of one store.
#[derive(Debug)]
pub(super) struct Notifier {
    /// How often it rang.
    rings: watch::Sender<u64>,
    /// True once someone wanted to hear it.
    is_started: AtomicBool,
    /// True while the listener rings for everything that other processes write.
    is_complete: AtomicBool,
}

impl Notifier {
    pub(super) fn new() -> Self {
        Self {
            rings: watch::Sender::new(0),
            is_started: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
        }
    }

    /// Tells the engines of this process.
    pub(super) fn ring(&self) {
        self.rings.send_modify(|rings| *rings = rings.wrapping_add(1));
    }

    /// How often it rang, where it rings for whatever another process writes.
    pub(super) fn rings(&self) -> Option<u64> {
        self.is_complete.load(Ordering::Acquire).then(|| *self.rings.borrow())
    }

    /// The rings from now on.
    pub(super) fn stream(&self) -> BoxStream<'static, ()> {
        let heard = self.rings.subscribe();
        let rings = stream::unfold(heard, async |mut heard| {
            heard.changed().await.ok()?;
            Some(((), heard))
        });
        rings.boxed()
    }

    /// True for the first one who asks.
    pub(super) fn is_to_be_started(&self) -> bool {
        !self.is_started.swap(true, Ordering::AcqRel)
    }

    /// True while nobody hears it.
    #[cfg_attr(
        not(all(feature = "sqlite", target_os = "linux")),
        allow(dead_code, reason = "asked by the watch on a file alone")
    )]
    fn is_unheard(&self) -> bool {
        self.rings.receiver_count() == 0
    }

    fn set_complete(&self, is_complete: bool) {
        self.is_complete.store(is_complete, Ordering::Release);
    }
}

/// Has the notifier rung in every process once the transaction is committed. On SQLite they see that
/// the file changed.
pub(super) async fn announce<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        db.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    }
    Ok(())
}

/// Listens for what other processes write, as long as the store lives.
pub(super) async fn listen(
    location: Location,
    statement_timeout: Duration,
    notifier: std::sync::Arc<Notifier>,
    writer: mpsc::WeakUnboundedSender<Request>,
) {
    match location {
        #[cfg(feature = "postgres")]
        Location::Postgres(url) => listen::listen(&url, &notifier, statement_timeout).await,
        #[cfg(all(feature = "sqlite", target_os = "linux"))]
        Location::Sqlite(path) => watch_file::listen(&path, &notifier, &writer).await,
        // No other way is built in: it rings for this process alone, and the engines of others
        // find what there is when they look for it.
        #[allow(unreachable_patterns, reason = "in some builds")]
        other => {
            drop(writer);
            let _ = statement_timeout;
            notifier.set_complete(false);
            tracing::debug!(?other, "the notifier rings for this process alone");
        }
    }
}
