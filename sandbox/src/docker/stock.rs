//! Keeps one place of the stock filled: a container that waits, then the next one.
//!
//! One task of the runtime fills one slot of the stock. Invariant: a container that has exited is
//! withdrawn as soon as its output closes.

use std::{sync::Arc, time::Duration};

use super::{config::ContainerConfig, container::IdleContainer};
use crate::pool::WorkerPool;

/// After a start that failed, the next one waits so long, then twice as long, up to the most.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A container does not wait longer than this.
const AGE_MAX: Duration = Duration::from_hours(1);

/// Fills the place until the sandbox is closed.
pub(super) async fn keep(
    pool: Arc<WorkerPool<IdleContainer>>,
    config: Arc<ContainerConfig>,
    first: Option<IdleContainer>,
) {
    let id = pool.next_id();
    let mut closed = pool.closed();
    let mut next = first;
    loop {
        let warm = if let Some(warm) = next.take() {
            warm
        } else {
            tokio::select! {
                warm = start(&pool, &config) => warm,
                _ = closed.wait_for(|closed| *closed) => break,
            }
        };
        let (mut line, mut taken) = warm.lines();
        pool.slot_up();
        pool.publish_idle(id, warm);
        tokio::select! {
            // It has ended.
            _ = line.changed() => {}
            // A task has got it.
            _ = taken.changed() => {}
            () = tokio::time::sleep(AGE_MAX) => {}
            _ = closed.wait_for(|closed| *closed) => break,
        }
        drop(pool.withdraw(id));
        pool.slot_down();
    }
    drop(pool.withdraw(id));
}

/// Warms containers until one is.
async fn start(pool: &WorkerPool<IdleContainer>, config: &Arc<ContainerConfig>) -> IdleContainer {
    let mut pause = BACKOFF;
    loop {
        let started = match config.warming.acquire().await {
            Ok(_permit) => IdleContainer::start(config).await,
            Err(_) => std::future::pending().await,
        };
        match started {
            Ok(warm) => return warm,
            Err(error) => {
                tracing::warn!(%error, ?pause, "container warm-up failed");
                pool.failed(&error);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}
