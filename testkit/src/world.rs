//! The state that outlives a crash: the store, the calls so far, the time that has passed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use gleitzeit::{Call, Event, MemoryStore, actors::clock::utc_now};
use tokio::{sync::watch, time::Instant};

use crate::crash::{Crash, CrashPoint, Pattern};

/// Settled workflows that the store keeps for a test to read.
const SETTLED_MAX: usize = 1_000_000;

/// The least difference between a new process and the machine's clock. An engine ignores a difference
/// below a second, and then pauses would seem shorter than they are.
const RESTART: Duration = Duration::from_secs(2);

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    state: Mutex<State>,
    /// True while the process of this life is dead.
    dead: watch::Sender<bool>,
    /// The number of events that were stored.
    stored: watch::Sender<u64>,
}

struct State {
    /// When the first life began.
    begun: Option<DateTime<Utc>>,
    /// The time of the lives that are over.
    passed: Duration,
    life: Option<Instant>,
    calls: Vec<Call>,
    crashes: VecDeque<Crash>,
}

impl World {
    pub(crate) fn new() -> Self {
        let state = State {
            begun: None,
            passed: Duration::ZERO,
            life: None,
            calls: Vec::new(),
            crashes: VecDeque::new(),
        };
        Self {
            store: MemoryStore::new(SETTLED_MAX),
            state: Mutex::new(state),
            dead: watch::Sender::new(false),
            stored: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics under the lock has failed already; a second panic would hide the first.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- time ----

    pub(crate) fn begin_life(&self) {
        self.dead.send_replace(false);
        let mut state = self.state();
        let real = utc_now();
        if let Some(begun) = state.begun {
            let real = (real - begun).to_std().unwrap_or_default();
            state.passed = state.passed.max(real + RESTART);
        } else {
            state.begun = Some(real);
        }
        state.life = Some(Instant::now());
    }

    /// Must be called within the life's runtime, because its clock is read.
    pub(crate) fn end_life(&self) {
        let mut state = self.state();
        if let Some(begun) = state.life.take() {
            state.passed += begun.elapsed();
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let state = self.state();
        state.passed + state.life.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        let begun = self.state().begun.unwrap_or_else(utc_now);
        begun + self.elapsed()
    }

    // ---- calls ----

    /// Notes a call; returns its number among those of its method, from 1.
    pub(crate) fn called(&self, call: Call) -> usize {
        let mut state = self.state();
        let method = method_of(&call);
        state.calls.push(call);
        state.calls.iter().filter(|it| method_of(it) == method).count()
    }

    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        self.state().calls.iter().filter(|call| method_of(call) == method).cloned().collect()
    }

    // ---- crashes ----

    pub(crate) fn plan(&self, crash: Crash) {
        self.state().crashes.push_back(crash);
    }

    /// True if a planned crash is due at this point; it is used up then.
    fn is_due(&self, fits: impl Fn(&CrashPoint) -> usize) -> bool {
        let mut state = self.state();
        let mut due = None;
        for (at, crash) in state.crashes.iter_mut().enumerate() {
            let times = u32::try_from(fits(&crash.point)).unwrap_or(u32::MAX);
            if times > crash.left {
                due = Some(at);
                break;
            }
            crash.left -= times;
        }
        due.and_then(|at| state.crashes.remove(at)).is_some()
    }

    pub(crate) fn dies_before(&self, events: &[Event]) -> bool {
        self.is_due(|point| match point {
            CrashPoint::Before(pattern) => count(events, pattern),
            _ => 0,
        })
    }

    pub(crate) fn dies_after(&self, events: &[Event]) -> bool {
        self.stored.send_modify(|count| *count += events.len() as u64);
        self.is_due(|point| match point {
            CrashPoint::After(pattern) => count(events, pattern),
            _ => 0,
        })
    }

    pub(crate) fn dies_during(&self, call: &Call) -> bool {
        self.is_due(|point| match point {
            CrashPoint::During(task) => usize::from(call.task_id.as_str() == task),
            _ => 0,
        })
    }

    /// Ends the life: nothing of it survives.
    pub(crate) async fn die(&self) -> std::convert::Infallible {
        self.dead.send_replace(true);
        std::future::pending().await
    }

    /// Never resolves once the process is dead: a write of a dead process must not return.
    pub(crate) async fn lives(&self) {
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn crashed(&self) {
        let mut dead = self.dead.subscribe();
        // The sender lives as long as this world: an error here cannot happen.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// Changes with each event that is stored.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// The planned crashes that have not happened.
    pub(crate) fn planned(&self) -> Vec<Crash> {
        self.state().crashes.iter().cloned().collect()
    }
}

fn count(events: &[Event], pattern: &Pattern) -> usize {
    events.iter().filter(|event| pattern.fits(event)).count()
}

fn method_of(call: &Call) -> String {
    format!("{}/{}", call.protocol().name(), call.method_name())
}
