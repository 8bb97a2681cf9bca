//! Keeps a database below a size: above it, the oldest settled workflows are deleted.
//!
//! Runs beside the [`writer`](super::writer) if the settings name a size. Each commit of the writer
//! wakes it, so an idle store runs no query. It measures the bytes in [use](super::size), not those
//! on disk.
//!
//! Invariant: an unsettled workflow is never deleted, and a submission waits for one small batch at
//! most.

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::store::StoreError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    fault::ReadError,
    queue::{Prune, Request},
    read::Reader,
};

/// The pause between two measurements.
const PAUSE: Duration = Duration::from_secs(2);

/// Upper limit of the workflows that are deleted between two measurements.
const BATCH: u64 = 256;

/// The share of the limit to which the database shrinks; at the limit itself, every write would be
/// followed by a deletion.
const TARGET: (u64, u64) = (9, 10);

/// Runs until the writer ends.
pub(super) async fn keep_below(
    limit: u64,
    reader: Arc<Reader>,
    writer: mpsc::WeakUnboundedSender<Request>,
    written: Arc<Notify>,
) {
    let mut is_stuck = false;
    loop {
        // Waits for a commit: an idle database is not measured.
        written.notified().await;
        match shrink(limit, &reader, &writer).await {
            Ok(Outcome::Gone) => return,
            Ok(Outcome::Below) => is_stuck = false,
            Ok(Outcome::Above(bytes)) => {
                if !std::mem::replace(&mut is_stuck, true) {
                    tracing::warn!(
                        bytes,
                        limit,
                        "database larger than storage.max_size_mb, without a settled workflow to \
                         delete"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "size check of the database failed"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The result of one measurement.
enum Outcome {
    /// The database is below its limit.
    Below,
    /// The database is above its limit, and nothing in it can be deleted.
    Above(u64),
    /// The writer has ended.
    Gone,
}

async fn shrink(
    limit: u64,
    reader: &Reader,
    writer: &mpsc::WeakUnboundedSender<Request>,
) -> Result<Outcome, StoreError> {
    let mut bytes = in_use(reader).await?;
    if bytes <= limit {
        return Ok(Outcome::Below);
    }
    let target = limit / TARGET.1 * TARGET.0;
    let mut count = reader.count().await.map_err(|ReadError(error)| error)?;
    let mut deleted = 0;
    while bytes > target {
        // Assumes workflows of equal size; the next measurement corrects it.
        let too_many = (bytes - target).saturating_mul(count) / bytes;
        let batch = usize::try_from(too_many.clamp(1, BATCH)).unwrap_or(1);
        let (reply, answered) = oneshot::channel();
        let Some(writer) = writer.upgrade() else { return Ok(Outcome::Gone) };
        let prune = Prune { before: None, limit: batch, count: 0, reply };
        if writer.send(Request::Prune(prune)).is_err() {
            return Ok(Outcome::Gone);
        }
        // Before the wait: the writer ends only after the last sender is gone.
        drop(writer);
        let Ok(gone) = answered.await else { return Ok(Outcome::Gone) };
        match gone? {
            0 if bytes > limit => return Ok(Outcome::Above(bytes)),
            0 => break,
            gone => {
                deleted += gone;
                count = count.saturating_sub(gone as u64);
            }
        }
        bytes = in_use(reader).await?;
    }
    tracing::info!(
        deleted,
        bytes,
        limit,
        "oldest settled workflows deleted by storage.max_size_mb"
    );
    Ok(Outcome::Below)
}

async fn in_use(reader: &Reader) -> Result<u64, StoreError> {
    reader.in_use().await.map_err(|ReadError(error)| error)
}
