//! The processes that wait for a task, and the tasks that wait for a process.
//!
//! Shared by all slots of a sandbox and by every running job. Invariants: the number of waiting
//! jobs is bounded, and no job waits for a process that will never be published.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, watch};

use crate::SandboxError;

/// The processes of a sandbox that wait for a job. Each runs one job at a time.
#[derive(Debug)]
pub(crate) struct WorkerPool<T> {
    offered: Mutex<VecDeque<(u64, T)>>,
    /// One for each process that was offered, and one for everyone who is to look again.
    calls: Semaphore,
    waiting: AtomicUsize,
    queue_max: usize,
    /// Why nothing starts, while nothing does.
    broken: Mutex<Option<String>>,
    /// Places that are filled.
    served: AtomicUsize,
    ids: AtomicU64,
    closed: watch::Sender<bool>,
}

impl<T> WorkerPool<T> {
    pub(crate) fn new(queue_max: usize) -> Self {
        Self {
            offered: Mutex::default(),
            calls: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
            queue_max,
            broken: Mutex::default(),
            served: AtomicUsize::new(0),
            ids: AtomicU64::new(0),
            closed: watch::Sender::new(false),
        }
    }

    /// An id for a slot, unique within the pool.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Becomes true when the sandbox is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Ends all keepers, and everyone's waiting.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        self.calls.close();
    }

    /// Puts a process up for the next task.
    pub(crate) fn publish_idle(&self, slot: u64, process: T) {
        // Before the permit: a job that acquires it must find the process.
        lock(&self.offered).push_back((slot, process));
        self.calls.add_permits(1);
    }

    /// Takes back the process that this slot published, unless a job has taken it.
    pub(crate) fn withdraw(&self, slot: u64) -> Option<T> {
        let mut offered = lock(&self.offered);
        let at = offered.iter().position(|(of, _)| *of == slot)?;
        // The job that acquires this process's permit finds no process and waits again.
        offered.remove(at).map(|(_, process)| process)
    }

    /// A place is filled.
    pub(crate) fn slot_up(&self) {
        self.served.fetch_add(1, Ordering::AcqRel);
        *lock(&self.broken) = None;
    }

    /// True while at least one place is filled.
    pub(crate) fn is_serving(&self) -> bool {
        self.served.load(Ordering::Acquire) > 0
    }

    /// A place is empty.
    pub(crate) fn slot_down(&self) {
        self.served.fetch_sub(1, Ordering::AcqRel);
    }

    /// A start failed. If no slot is up, all waiting jobs fail with this error.
    pub(crate) fn failed(&self, error: &SandboxError) {
        if self.served.load(Ordering::Acquire) == 0 {
            *lock(&self.broken) = Some(error.to_string());
            self.calls.add_permits(self.waiting.load(Ordering::Acquire));
        }
    }

    /// Why nothing starts, while nothing does.
    #[cfg(feature = "docker")]
    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }

    /// A place among those who wait.
    ///
    /// # Errors
    /// [`SandboxError::Busy`] when too many wait already.
    pub(crate) fn enter_queue(&self) -> Result<QueueTicket<'_>, SandboxError> {
        QueueTicket::new(&self.waiting, self.queue_max)
    }

    /// The next process, once there is one.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`] while nothing starts, and [`SandboxError::Closed`].
    pub(crate) async fn next(&self, _: &QueueTicket<'_>) -> Result<T, SandboxError> {
        loop {
            if let Some(reason) = lock(&self.broken).clone() {
                return Err(SandboxError::unavailable(reason));
            }
            let call = self.calls.acquire().await.map_err(|_| SandboxError::Closed)?;
            // A permit that was returned would wake another job for the same process.
            call.forget();
            if let Some((_, process)) = lock(&self.offered).pop_front() {
                return Ok(process);
            }
        }
    }
}

/// Someone who waits for a process.
#[derive(Debug)]
pub(crate) struct QueueTicket<'a>(&'a AtomicUsize);

impl<'a> QueueTicket<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Result<Self, SandboxError> {
        let before = count.fetch_add(1, Ordering::AcqRel);
        let waiting = Self(count);
        if before >= most {
            return Err(SandboxError::Busy { waiting: before });
        }
        Ok(waiting)
    }
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Ignores poisoning: each change is one step, so a panic leaves no partial change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue is bounded, and a rejected task takes no slot of it.
    #[tokio::test]
    async fn too_many_are_sent_away() {
        let pool = WorkerPool::<()>::new(1);
        let next = async || pool.next(&pool.enter_queue()?).await;
        let first = tokio::time::timeout(std::time::Duration::from_millis(1), next());
        let (first, second) = tokio::join!(first, next());
        assert!(first.is_err(), "there is nothing");
        assert!(matches!(second, Err(SandboxError::Busy { waiting: 1 })), "{second:?}");
        assert_eq!(pool.waiting.load(Ordering::Relaxed), 0);
    }

    /// A waiting task is rejected when no slot can come.
    #[tokio::test]
    async fn waiting_ends_when_no_worker_is_left() {
        let pool = WorkerPool::<()>::new(8);
        let next = async || pool.next(&pool.enter_queue()?).await;
        let error = SandboxError::unavailable("no namespaces");
        let fail = async { pool.failed(&error) };
        let (waited, ()) = tokio::join!(next(), fail);
        assert!(waited.unwrap_err().to_string().contains("no namespaces"));
        let close = async { pool.close() };
        pool.slot_up();
        let (waited, ()) = tokio::join!(next(), close);
        assert!(matches!(waited, Err(SandboxError::Closed)));
    }
}
