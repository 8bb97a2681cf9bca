//! Names a provider in the log while its future holds a thread.
//!
//! Used by the `ProviderSupervisor` around every call, and by providers that run futures on
//! threads of their own. A future marks its thread at the start and the end of each poll; a watch
//! thread compares the marks of all threads with those of its last round. The watch thread starts
//! with the first poll and ends after a second without one, so that an idle process has none. A mark
//! costs two stores.
//!
//! Invariant: a poll that lasts longer than [`LIMIT`] is logged once, and once more when it ends.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

/// The longest poll that is not logged.
pub const LIMIT: Duration = Duration::from_millis(100);
/// Between two rounds of the watch thread.
const ROUND: Duration = Duration::from_millis(25);
/// Rounds without any poll after which the watch thread ends.
const IDLE_ROUNDS: u32 = 40;

/// A future whose polls are watched.
#[derive(Debug)]
pub struct Watched<F> {
    provider: Arc<str>,
    future: F,
}

impl<F> Watched<F> {
    /// Watches the polls of a future that works for `provider`.
    pub fn new(provider: Arc<str>, future: F) -> Self {
        Self { provider, future }
    }
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { provider, future } = &mut *self;
        watched(provider, || Pin::new(future).poll(cx))
    }
}

/// Runs `poll`, which works for `provider`, under the watch.
pub fn watched<T>(provider: &Arc<str>, poll: impl FnOnce() -> T) -> T {
    let Some(_guard) = PollGuard::set(provider) else { return poll() };
    poll()
}

/// A poll is under way on this thread until this is dropped, also by a panic.
struct PollGuard;

impl PollGuard {
    /// `None` within another watched poll, and while the thread ends.
    fn set(provider: &Arc<str>) -> Option<Self> {
        let is_set = OWN.try_with(|own| own.borrow_mut().begin(provider));
        // Not `then_some`: it makes the mark first, and dropping that would count a poll that has
        // not begun.
        is_set.unwrap_or(false).then(|| Self)
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        let _ = OWN.try_with(|own| own.borrow().slot.polls.fetch_add(1, Ordering::Release));
    }
}

/// The mark of one thread.
#[derive(Debug)]
struct Slot {
    /// Polls begun and ended; odd while one is under way.
    polls: AtomicU64,
    /// The provider of the last poll.
    provider: Mutex<Arc<str>>,
}

/// A thread's own mark.
struct Own {
    slot: Arc<Slot>,
    /// As in the slot, so that a thread that works for one provider takes no lock.
    provider: Arc<str>,
}

impl Own {
    fn register() -> Self {
        let provider: Arc<str> = "".into();
        let named = Mutex::new(Arc::clone(&provider));
        let slot = Arc::new(Slot { polls: AtomicU64::new(0), provider: named });
        locked(&WATCH.slots).push(Arc::downgrade(&slot));
        Self { slot, provider }
    }

    /// False within another poll.
    fn begin(&mut self, provider: &Arc<str>) -> bool {
        let count = self.slot.polls.load(Ordering::Relaxed);
        if !count.is_multiple_of(2) {
            return false;
        }
        if !Arc::ptr_eq(&self.provider, provider) {
            self.provider = Arc::clone(provider);
            *locked(&self.slot.provider) = Arc::clone(provider);
        }
        // Both `SeqCst`: the watch thread sees this mark before it ends, or this thread sees that it
        // has ended. With a weaker order both could miss it, and a blocked thread would not be named.
        self.slot.polls.store(count + 1, Ordering::SeqCst);
        if !WATCH.is_watched.load(Ordering::SeqCst) {
            WATCH.start();
        }
        true
    }
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::new(Own::register());
}

static WATCH: Watch = Watch { is_watched: AtomicBool::new(false), slots: Mutex::new(Vec::new()) };

struct Watch {
    is_watched: AtomicBool,
    slots: Mutex<Vec<Weak<Slot>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can panic half-way; an error here would end every call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    #[cold]
    fn start(&'static self) {
        if self.is_watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let thread = thread::Builder::new().name("gleitzeit-watch".into());
        if thread.spawn(|| self.watch()).is_err() {
            // The next poll tries again: a machine without a free thread must not fail a call.
            self.is_watched.store(false, Ordering::SeqCst);
        }
    }

    fn watch(&self) {
        let mut seen: Vec<Seen> = Vec::new();
        let mut idle = 0;
        let mut last = Instant::now();
        loop {
            thread::sleep(ROUND);
            let now = Instant::now();
            // If this thread got no time, the others got none either: their polls are slow because
            // of the machine, and the log would name a provider that blocks nothing.
            let is_late = now.duration_since(last) > 2 * ROUND;
            last = now;
            if self.compare(&mut seen, now, is_late) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle > IDLE_ROUNDS {
                self.is_watched.store(false, Ordering::SeqCst);
                // Once more: a poll that began before the store above has not started a thread.
                let is_started = self.compare(&mut seen, now, is_late)
                    && !self.is_watched.swap(true, Ordering::SeqCst);
                if !is_started {
                    return;
                }
                idle = 0;
            }
        }
    }

    /// Compares every thread with the last round; true if any has polled since.
    fn compare(&self, seen: &mut Vec<Seen>, now: Instant, is_late: bool) -> bool {
        let slots: Vec<Arc<Slot>> = {
            let mut slots = locked(&self.slots);
            slots.retain(|slot| slot.strong_count() > 0);
            slots.iter().filter_map(Weak::upgrade).collect()
        };
        seen.retain(|seen| seen.slot.strong_count() > 0);
        let mut is_busy = false;
        for slot in slots {
            let at =
                seen.iter().position(|seen| std::ptr::eq(seen.slot.as_ptr(), &raw const *slot));
            if let Some(at) = at {
                is_busy |= seen[at].update(&slot, now, is_late);
            } else {
                let polls = slot.polls.load(Ordering::SeqCst);
                let slot = Arc::downgrade(&slot);
                seen.push(Seen { slot, polls, since: now, logged: None });
                is_busy = true;
            }
        }
        is_busy
    }
}

/// A thread as the last round saw it.
struct Seen {
    slot: Weak<Slot>,
    polls: u64,
    /// Since when the count is unchanged, without time in which the machine was busy.
    since: Instant,
    /// The provider that was logged for this poll, and when the poll began.
    logged: Option<(Arc<str>, Instant)>,
}

impl Seen {
    fn update(&mut self, slot: &Slot, now: Instant, is_late: bool) -> bool {
        let polls = slot.polls.load(Ordering::SeqCst);
        if polls != self.polls {
            if let Some((provider, since)) = self.logged.take() {
                let held = now.duration_since(since);
                tracing::info!(provider = &*provider, ?held, "provider released its thread");
            }
            self.polls = polls;
            self.since = now;
            return true;
        }
        let is_polled = !polls.is_multiple_of(2);
        if is_late && self.logged.is_none() {
            self.since = now;
        }
        if is_polled && self.logged.is_none() && now.duration_since(self.since) >= LIMIT {
            let provider = Arc::clone(&locked(&slot.provider));
            tracing::warn!(
                provider = &*provider,
                limit = ?LIMIT,
                "provider blocks its thread; calls that share the thread wait"
            );
            self.logged = Some((provider, self.since));
        }
        is_polled
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn polls() -> u64 {
        OWN.with(|own| own.borrow().slot.polls.load(Ordering::SeqCst))
    }

    /// A thread that stays marked would be logged without an end.
    #[test]
    fn a_poll_ends_however_it_ends() {
        let provider: Arc<str> = "p".into();
        let panicked = catch_unwind(|| watched(&provider, || panic!("on purpose")));
        assert!(panicked.is_err() && polls().is_multiple_of(2));
        // A poll within a poll is part of it.
        let before = polls();
        watched(&provider, || {
            watched(&"other".into(), || assert_eq!(polls(), before + 1));
            assert_eq!(polls(), before + 1);
        });
        assert_eq!(polls(), before + 2);
    }

    /// A process whose providers do nothing has no thread for them, and gets one when they do.
    #[test]
    fn the_watch_ends_when_nothing_is_polled_and_begins_again() {
        let provider: Arc<str> = "p".into();
        for _ in 0..2 {
            watched(&provider, || assert!(WATCH.is_watched.load(Ordering::SeqCst)));
            while WATCH.is_watched.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
    }
}
