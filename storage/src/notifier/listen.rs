//! Hears `NOTIFY`, on a connection of its own.
//!
//! A connection that is gone without a word is as silent as one on which nothing happens. So after
//! a silence the server is asked for an answer: what others wrote is heard of twice the time of
//! `storage.statement_timeout` later at the latest.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx::{
    self,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::timeout;

use super::{CHANNEL, Notifier};
use crate::server;

/// How long the connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// To say goodbye on a connection may take so long: it may be one that nobody reads from.
const GOODBYE: Duration = Duration::from_millis(500);

/// Pauses before a lost connection is replaced.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Rings for each notification, and once for all that may have been missed while there was no
/// connection.
pub(super) async fn listen(url: &str, notifier: &Notifier, statement_timeout: Duration) {
    let limits = Limits { silence: statement_timeout * 3 / 2, answer: statement_timeout / 2 };
    let options = match server::read(url) {
        Ok(options) => server::trusting(options, url).application_name("gleitzeit-notifier"),
        Err(error) => {
            tracing::error!(%error, "cannot listen for other processes");
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
        // A pool for each connection: nothing of a broken one is left.
        let pool = pool.clone().connect_lazy_with(options.clone());
        let Err(error) = hear(&pool, notifier, limits, &mut pause).await;
        tracing::warn!(%error, ?pause, "lost the connection that listens for other processes");
        let _ = timeout(GOODBYE, pool.close()).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// After so long without a notification the server is asked whether it is there.
    silence: Duration,
    /// The answer may take so long.
    answer: Duration,
}

async fn hear(
    pool: &sqlx::PgPool,
    notifier: &Notifier,
    limits: Limits,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    answered(limits.answer, listener.listen(CHANNEL)).await?;
    *pause = PAUSE_MIN;
    notifier.ring();
    loop {
        let Ok(heard) = timeout(limits.silence, listener.try_recv()).await else {
            let question = sqlx::query("SELECT 1").persistent(false);
            answered(limits.answer, question.execute(&mut listener)).await?;
            continue;
        };
        // `None` is a connection that was lost and replaced: as good a reason to look.
        heard?;
        while listener.next_buffered().is_some() {}
        notifier.ring();
    }
}

/// What the server says, unless it says nothing.
async fn answered<T>(
    limit: Duration,
    asks: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, asks).await.unwrap_or_else(|_| {
        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server is silent");
        Err(sqlx::Error::Io(silent))
    })
}
