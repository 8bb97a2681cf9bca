//! Limits the time that a statement of a server may go unanswered.
//!
//! A server that is gone without a word never answers: a host without power, a router that lost the
//! connection. The kernel notices some of these cases only, and late.
//!
//! A limit on a whole transaction would be a limit on its size. So the limit counts from the last
//! answer to any statement.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sea_orm::{DatabaseConnection, DbErr};
use tokio::time::Instant;

/// Checks for a new answer within one limit.
const CHECKS: u32 = 4;

/// The limit, and the number of statements that the watched connections have answered.
#[derive(Debug, Clone)]
pub(super) struct StatementTimeout {
    limit: Option<Duration>,
    answered: Arc<AtomicU64>,
}

impl StatementTimeout {
    /// No limit: SQLite waits for locks for a known time, and for nothing else.
    pub(super) fn none() -> Self {
        Self { limit: None, answered: Arc::default() }
    }

    pub(super) fn of(limit: Duration) -> Self {
        Self { limit: Some(limit), answered: Arc::default() }
    }

    /// Counts the answers on this connection and in its transactions.
    pub(super) fn watch(&self, db: &mut DatabaseConnection) {
        // Only with a limit: the callback costs an addition for each statement.
        if self.limit.is_some() {
            let answered = Arc::clone(&self.answered);
            db.set_metric_callback(move |_| {
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    /// Waits for any number of statements; fails after no answer arrived for the limit, or for up to
    /// a quarter longer. The caller must then drop the connection: the answer may still arrive, for
    /// another statement. A caller pins a large future, which would otherwise be stored twice.
    pub(super) async fn wait<T>(&self, asks: impl Future<Output = T>) -> Result<T, DbErr> {
        let Some(limit) = self.limit else { return Ok(asks.await) };
        let mut asks = pin!(asks);
        let mut seen = self.answered.load(Ordering::Relaxed);
        let mut since = Instant::now();
        loop {
            if let Ok(answer) = tokio::time::timeout(limit / CHECKS, asks.as_mut()).await {
                return Ok(answer);
            }
            let now = self.answered.load(Ordering::Relaxed);
            // Any answer on the watched connections counts: the statements of a long transaction
            // restart the limit.
            if std::mem::replace(&mut seen, now) != now {
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return Err(silent(limit));
            }
        }
    }

    /// Waits for a few statements; fails after the limit, whatever the other connections answer.
    pub(super) async fn wait_for_one<T>(&self, asks: impl Future<Output = T>) -> Result<T, DbErr> {
        let Some(limit) = self.limit else { return Ok(asks.await) };
        tokio::time::timeout(limit, asks).await.map_err(|_| silent(limit))
    }
}

fn silent(limit: Duration) -> DbErr {
    DbErr::Conn(sea_orm::RuntimeErr::Internal(format!(
        "no answer within {limit:?}; the server or the network is down, or the server is \
         overloaded (storage.statement_timeout)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that is gone without a word must not block a caller for ever.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_times_out() {
        let begun = Instant::now();
        let timed_out = StatementTimeout::of(LIMIT).wait(std::future::pending::<()>()).await;
        assert!(timed_out.unwrap_err().to_string().contains("no answer within 10s"));
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= LIMIT * 5 / 4);
    }

    /// A transaction may take any time while its statements are answered.
    #[tokio::test(start_paused = true)]
    async fn a_long_transaction_does_not_time_out() {
        let timeout = StatementTimeout::of(LIMIT);
        let transaction = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 2).await;
                timeout.answered.fetch_add(1, Ordering::Relaxed);
            }
            "done"
        };
        assert_eq!(timeout.wait(transaction).await, Ok("done"));
        let one = timeout.wait_for_one(tokio::time::sleep(LIMIT * 2)).await;
        assert!(one.is_err(), "a single statement has a limit of its own");
    }

    /// SQLite ends every wait by itself.
    #[tokio::test(start_paused = true)]
    async fn a_file_never_times_out() {
        let slow = tokio::time::sleep(LIMIT * 1_000);
        assert_eq!(StatementTimeout::none().wait(slow).await, Ok(()));
    }
}
