//! How long the answer to a statement is waited for.
//!
//! A server that is gone without a word never answers: a host without power, a router that has
//! forgotten the connection. The kernel tells that of some of them only, and late.
//!
//! A limit on a whole transaction would be one on its size. So what counts is the time since the
//! last answer of any statement.

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

/// Between two looks at whether something was answered, as a part of the limit.
const LOOKS: u32 = 4;

/// How long a statement may go unanswered, and how many were answered on the connections that
/// are watched.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    limit: Option<Duration>,
    answered: Arc<AtomicU64>,
}

impl Patience {
    /// For a database that answers by itself.
    pub(super) fn endless() -> Self {
        Self { limit: None, answered: Arc::default() }
    }

    pub(super) fn of(limit: Duration) -> Self {
        Self { limit: Some(limit), answered: Arc::default() }
    }

    /// Counts what is answered on this connection and in its transactions.
    pub(super) fn watch(&self, db: &mut DatabaseConnection) {
        if self.limit.is_some() {
            let answered = Arc::clone(&self.answered);
            db.set_metric_callback(move |_| {
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    /// Waits for what asks one or more statements; gives up once none was answered for as long as
    /// the limit says, or a quarter longer. What was given up must not be asked again on the same
    /// connection: its answer may still come. What is large is pinned by the caller, or it would be
    /// kept twice.
    pub(super) async fn wait<T>(&self, asks: impl Future<Output = T>) -> Result<T, DbErr> {
        let Some(limit) = self.limit else { return Ok(asks.await) };
        let mut asks = pin!(asks);
        let mut seen = self.answered.load(Ordering::Relaxed);
        let mut since = Instant::now();
        loop {
            if let Ok(answer) = tokio::time::timeout(limit / LOOKS, asks.as_mut()).await {
                return Ok(answer);
            }
            let now = self.answered.load(Ordering::Relaxed);
            if std::mem::replace(&mut seen, now) != now {
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return Err(silent(limit));
            }
        }
    }

    /// Waits for something small; gives up after the limit, whatever others are answered
    /// meanwhile.
    pub(super) async fn wait_for_one<T>(&self, asks: impl Future<Output = T>) -> Result<T, DbErr> {
        let Some(limit) = self.limit else { return Ok(asks.await) };
        tokio::time::timeout(limit, asks).await.map_err(|_| silent(limit))
    }
}

fn silent(limit: Duration) -> DbErr {
    DbErr::Conn(sea_orm::RuntimeErr::Internal(format!(
        "no answer within {limit:?}; the server or the way to it is gone, or it is overloaded \
         (storage.statement_timeout)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Nobody waits for ever for a server that is gone without a word.
    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let begun = Instant::now();
        let given_up = Patience::of(LIMIT).wait(std::future::pending::<()>()).await;
        assert!(given_up.unwrap_err().to_string().contains("no answer within 10s"));
        assert!(begun.elapsed() >= LIMIT && begun.elapsed() <= LIMIT * 5 / 4);
    }

    /// A transaction may take as long as it goes on.
    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_waited_for() {
        let patience = Patience::of(LIMIT);
        let goes_on = async {
            for _ in 0..20 {
                tokio::time::sleep(LIMIT / 2).await;
                patience.answered.fetch_add(1, Ordering::Relaxed);
            }
            "done"
        };
        assert_eq!(patience.wait(goes_on).await, Ok("done"));
        let one = patience.wait_for_one(tokio::time::sleep(LIMIT * 2)).await;
        assert!(one.is_err(), "something small is bounded by itself");
    }

    /// A file is never given up.
    #[tokio::test(start_paused = true)]
    async fn a_file_answers_by_itself() {
        let slow = tokio::time::sleep(LIMIT * 1_000);
        assert_eq!(Patience::endless().wait(slow).await, Ok(()));
    }
}
