//! What outlives a crash: the store, the calls that were made, the time that has passed.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use gleitzeit::{Call, Event, MemoryStore, actors::clock::utc_now};
use tokio::{sync::watch, time::Instant};

use crate::crash::{Crash, Pattern, Place};

/// Settled workflows that a test may want to read.
const SETTLED_MAX: usize = 1_000_000;

/// A new process is ahead of the machine's clock by so much at least. An engine leaves a clock as
/// it is that differs by less than a second, and then pauses would seem shorter than they are.
const RESTART: Duration = Duration::from_secs(2);

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    state: Mutex<State>,
    /// True while the process of this life is dead.
    dead: watch::Sender<bool>,
    /// The events that were stored, as a count.
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
        // A test that panics under the lock has failed already.
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

    /// Within the life's runtime, whose clock it is.
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

    /// Notes a call; which one of its method it is, from 1.
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

    /// True where a planned crash takes place here: it is used up then.
    fn is_due(&self, fits: impl Fn(&Place) -> usize) -> bool {
        let mut state = self.state();
        let mut due = None;
        for (at, crash) in state.crashes.iter_mut().enumerate() {
            let times = u32::try_from(fits(&crash.place)).unwrap_or(u32::MAX);
            if times > crash.left {
                due = Some(at);
                break;
            }
            crash.left -= times;
        }
        due.and_then(|at| state.crashes.remove(at)).is_some()
    }

    pub(crate) fn dies_before(&self, events: &[Event]) -> bool {
        self.is_due(|place| match place {
            Place::Before(pattern) => count(events, pattern),
            _ => 0,
        })
    }

    pub(crate) fn dies_after(&self, events: &[Event]) -> bool {
        self.stored.send_modify(|count| *count += events.len() as u64);
        self.is_due(|place| match place {
            Place::After(pattern) => count(events, pattern),
            _ => 0,
        })
    }

    pub(crate) fn dies_during(&self, call: &Call) -> bool {
        self.is_due(|place| match place {
            Place::During(task) => usize::from(call.task_id.as_str() == task),
            _ => 0,
        })
    }

    /// The crash that nothing of this life survives.
    pub(crate) async fn die(&self) -> std::convert::Infallible {
        self.dead.send_replace(true);
        std::future::pending().await
    }

    /// Waits for ever once the process is dead.
    pub(crate) async fn lives(&self) {
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn crashed(&self) {
        let mut dead = self.dead.subscribe();
        // The sender is as old as this world.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// Wakes with each event that is stored.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Crashes that have not taken place.
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
