//! Which calls have run for so long that their start is worth a write.
//!
//! The start of a task is not stored by itself: its outcome shows it a moment later. For a call that
//! still runs after [`LONG`], the start is written, so that other processes see since when and where
//! it runs, and so that the attempt counts if this process dies. All that have become long by then
//! are one write.
//!
//! Invariant: while a started task is younger than [`LONG`], the timer is armed.

use std::{collections::VecDeque, time::Duration};

use super::Moment;
use crate::run::TaskKey;

/// A call that runs longer than this is long.
const LONG: Duration = Duration::from_secs(1);

/// Below so many starts, those that have ended are not removed.
const KEPT_MIN: usize = 1_024;

/// An attempt that has started.
type Start = (TaskKey, u32);

/// The tasks that started less than [`LONG`] ago.
#[derive(Debug, Default)]
pub(super) struct LongStarts {
    /// In the order of their starts.
    young: VecDeque<(Moment, Start)>,
    /// Beyond this many, those that have ended are removed.
    kept_max: usize,
    is_armed: bool,
}

impl LongStarts {
    /// An attempt starts now.
    pub(super) fn add(&mut self, task: TaskKey, attempt: u32, now: Moment) {
        self.young.push_back((now, (task, attempt)));
    }

    /// Removes attempts that have ended, if there are many.
    pub(super) fn shrink(&mut self, still_runs: impl Fn(TaskKey, u32) -> bool) {
        if self.young.len() > self.kept_max {
            self.young.retain(|(_, (task, attempt))| still_runs(*task, *attempt));
            // Only when their number has doubled: otherwise each start would visit all of them.
            self.kept_max = KEPT_MIN.max(2 * self.young.len());
        }
    }

    /// The pause after which the timer is to fire; `None` if it is armed, or nothing is young.
    pub(super) fn arm(&mut self, now: Moment) -> Option<Duration> {
        if self.is_armed {
            return None;
        }
        let (since, _) = self.young.front()?;
        self.is_armed = true;
        Some((*since + LONG).saturating_sub(now))
    }

    /// The timer has fired.
    pub(super) fn fired(&mut self) {
        self.is_armed = false;
    }

    /// The next attempt that has become long.
    pub(super) fn next_long(&mut self, now: Moment) -> Option<Start> {
        // In the order of starts: if the first is young, so are all others.
        let long = self.young.pop_front_if(|(since, _)| *since + LONG <= now)?;
        Some(long.1)
    }
}
