//! Listens for `NOTIFY` on a connection of its own.
//!
//! A connection that was lost without a word is as silent as one without notifications. So after a
//! silence the listener asks the server for an answer: it notices a lost connection within twice
//! `storage.statement_timeout`.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx::{
    self,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::{CHANNEL, Notifier};
use crate::server;

/// Limit on opening the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit on closing a lost connection: nobody may read the farewell at its other end.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Pauses before a lost connection is replaced; each doubles the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Notifies for each notification of the server, and once after each reconnection, for those that
/// were missed.
pub(super) async fn listen(url: &str, notifier: &Notifier, statement_timeout: Duration) {
    let limits = Limits { silence: statement_timeout * 3 / 2, answer: statement_timeout / 2 };
    let options = match server::read(url) {
        Ok(options) => server::trusting(options, url).application_name("gleitzeit-notifier"),
        Err(error) => {
            tracing::error!(%error, "listener for other processes not started");
            return;
        }
    };
    let url: Arc<str> = url.into();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(CONNECT_TIMEOUT)
        .after_connect(move |connection, _| {
            let url = Arc::clone(&url);
            Box::pin(async move { server::prepare(connection, &url).await })
        });
    let mut pause = PAUSE_MIN;
    loop {
        // A new pool for each connection: an old one would hand out the broken connection again.
        let pool = pool.clone().connect_lazy_with(options.clone());
        let Err(error) = receive(&pool, notifier, limits, &mut pause).await;
        tracing::warn!(%error, ?pause, "listener connection lost");
        // Bounded: the close of a broken connection may wait for its other end for ever.
        let _ = timeout(CLOSE_TIMEOUT, pool.close()).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The time without a notification after which the server is asked for an answer.
    silence: Duration,
    /// Limit on that answer.
    answer: Duration,
}

async fn receive(
    pool: &sqlx::PgPool,
    notifier: &Notifier,
    limits: Limits,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    answered(limits.answer, listener.listen(CHANNEL)).await?;
    *pause = PAUSE_MIN;
    // After LISTEN: a write before it is announced to nobody here.
    notifier.notify_local();
    loop {
        let Ok(received) = timeout(limits.silence, listener.try_recv()).await else {
            let query = sqlx::query("SELECT 1").persistent(false);
            answered(limits.answer, query.execute(&mut listener)).await?;
            continue;
        };
        // `None` is a connection that the driver replaced: notifications may have been missed, so
        // it counts as one.
        received?;
        while listener.next_buffered().is_some() {}
        notifier.notify_local();
    }
}

/// The answer of the server, or an error after the limit.
async fn answered<T>(
    limit: Duration,
    asks: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, asks).await.unwrap_or_else(|_| {
        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server is silent");
        Err(sqlx::Error::Io(silent))
    })
}
