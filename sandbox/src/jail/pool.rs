//! The children that wait for a task, and the tasks that wait for a child.
//!
//! Shared by all keepers of a sandbox and by everyone who runs a job in it. Invariants: who waits
//! is bounded in number; nobody waits for a child that will never come.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, watch};

use super::child::Child;
use crate::SandboxError;

/// What keepers and jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    offered: Mutex<VecDeque<(u64, Child)>>,
    /// One for each child that was offered, and one for everyone who is to look again.
    calls: Semaphore,
    waiting: AtomicUsize,
    queue_max: usize,
    /// Why no zygote starts, while none does.
    broken: Mutex<Option<String>>,
    /// Places that have a zygote.
    served: AtomicUsize,
    ids: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Shared {
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

    /// A number that no other keeper has.
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

    /// Puts a child up for the next task.
    pub(crate) fn offer(&self, keeper: u64, child: Child) {
        lock(&self.offered).push_back((keeper, child));
        self.calls.add_permits(1);
    }

    /// Takes back a child that no task has got.
    pub(crate) fn withdraw(&self, keeper: u64, pid: u64) -> Option<Child> {
        let mut offered = lock(&self.offered);
        let at = offered.iter().position(|(of, child)| *of == keeper && child.pid == pid)?;
        // Whoever its permit calls finds nothing and waits again.
        offered.remove(at).map(|(_, child)| child)
    }

    /// A place has a zygote.
    pub(crate) fn filled(&self) {
        self.served.fetch_add(1, Ordering::AcqRel);
        *lock(&self.broken) = None;
    }

    /// True while at least one place has a zygote.
    pub(crate) fn is_serving(&self) -> bool {
        self.served.load(Ordering::Acquire) > 0
    }

    /// A place has none any more.
    pub(crate) fn emptied(&self) {
        self.served.fetch_sub(1, Ordering::AcqRel);
    }

    /// No zygote starts: where it was the last hope, everyone who waits is told.
    pub(crate) fn failed(&self, error: &SandboxError) {
        if self.served.load(Ordering::Acquire) == 0 {
            *lock(&self.broken) = Some(error.to_string());
            self.calls.add_permits(self.waiting.load(Ordering::Acquire));
        }
    }

    /// The next child, once there is one.
    ///
    /// # Errors
    /// [`SandboxError::Busy`] when too many wait already, [`SandboxError::Unavailable`] while no
    /// zygote starts, and [`SandboxError::Closed`].
    pub(crate) async fn child(&self) -> Result<Child, SandboxError> {
        let _waiting = Waiting::new(self)?;
        loop {
            if let Some(reason) = lock(&self.broken).clone() {
                return Err(SandboxError::unavailable(reason));
            }
            let call = self.calls.acquire().await.map_err(|_| SandboxError::Closed)?;
            call.forget();
            if let Some((_, child)) = lock(&self.offered).pop_front() {
                return Ok(child);
            }
        }
    }
}

/// Someone who waits for a child.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Result<Self, SandboxError> {
        let before = shared.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Self(&shared.waiting);
        if before >= shared.queue_max {
            return Err(SandboxError::Busy { waiting: before });
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A panic while it was held has left nothing half done: there is one step to each change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The queue has an end, and whoever is sent away takes no place in it.
    #[tokio::test]
    async fn too_many_are_sent_away() {
        let shared = Shared::new(1);
        let first = tokio::time::timeout(std::time::Duration::from_millis(1), shared.child());
        let (first, second) = tokio::join!(first, shared.child());
        assert!(first.is_err(), "there is no child");
        assert!(matches!(second, Err(SandboxError::Busy { waiting: 1 })), "{second:?}");
        assert_eq!(shared.waiting.load(Ordering::Relaxed), 0);
    }

    /// Whoever waits is told when it is in vain.
    #[tokio::test]
    async fn waiting_ends_when_nothing_will_come() {
        let shared = Shared::new(8);
        let error = SandboxError::unavailable("no namespaces");
        let fail = async { shared.failed(&error) };
        let (waited, ()) = tokio::join!(shared.child(), fail);
        assert!(waited.unwrap_err().to_string().contains("no namespaces"));
        let close = async { shared.close() };
        shared.filled();
        let (waited, ()) = tokio::join!(shared.child(), close);
        assert!(matches!(waited, Err(SandboxError::Closed)));
    }
}
