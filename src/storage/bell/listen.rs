//! Hears `NOTIFY`, on a connection of its own.

use std::{str::FromStr as _, time::Duration};

use sea_orm::sqlx::{
    self,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{Bell, CHANNEL};

/// How long the connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses before a lost connection is replaced.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Rings for each notification, and once for all that may have been missed while there was no
/// connection.
pub(super) async fn listen(url: &str, bell: &Bell) {
    let options = match PgConnectOptions::from_str(url) {
        Ok(options) => options.application_name("gleitzeit-bell"),
        Err(error) => {
            tracing::error!(%error, "cannot listen for other processes");
            return;
        }
    };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .acquire_timeout(CONNECT_TIMEOUT);
    let mut pause = PAUSE_MIN;
    loop {
        // A pool for each connection: nothing of a broken one is left.
        let pool = pool.clone().connect_lazy_with(options.clone());
        let Err(error) = hear(&pool, bell, &mut pause).await;
        tracing::warn!(%error, ?pause, "lost the connection that listens for other processes");
        pool.close().await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn hear(
    pool: &sqlx::PgPool,
    bell: &Bell,
    pause: &mut Duration,
) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    *pause = PAUSE_MIN;
    loop {
        bell.ring();
        // `None` is a connection that was lost and replaced: as good a reason to look.
        listener.try_recv().await?;
        while listener.next_buffered().is_some() {}
    }
}
