//! When a failed attempt is repeated, and after what pause.
//!
//! Asked by the engine when an attempt has failed. Pure: the number of the attempt and a random
//! number come in, a decision comes out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    duration,
    error::{ErrorCode, TaskError},
};

/// How the pause grows from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the base.
    Fixed,
    /// Once, twice, three times the base.
    Linear,
    /// Once, twice, four times the base.
    #[default]
    Exponential,
}

/// When and how often a failed attempt is repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    /// How the pause grows.
    #[serde(alias = "strategy")]
    pub backoff: Backoff,
    /// The first pause. In files: seconds.
    #[serde(with = "duration")]
    pub base_delay: Duration,
    /// No pause is longer, a provider's own wish excepted. In files: seconds.
    #[serde(with = "duration")]
    pub max_delay: Duration,
    /// True draws the pause from between half of it and all of it ("equal jitter" of the AWS
    /// Architecture Blog), so that failed tasks do not all retry at once.
    pub jitter: bool,
    /// The errors that are retried: by default those that are marked as retryable, `any` for all, or only
    /// the listed codes.
    #[serde(skip_serializing_if = "RetryOn::is_default")]
    pub retry_on: RetryOn,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Backoff::Exponential,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(1),
            jitter: true,
            retry_on: RetryOn::default(),
        }
    }
}

/// The errors that are retried.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryOn {
    /// Errors that are marked as retryable.
    #[default]
    Retryable,
    /// Every error but a cancellation and one that says that no other attempt can help.
    Any(AnyError),
    /// Only these, by name or number.
    Codes(Vec<ErrorCode>),
}

/// The word `any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnyError {
    /// Every error except a cancellation and one that is marked as not retryable.
    #[serde(alias = "all")]
    Any,
}

impl RetryOn {
    fn is_default(&self) -> bool {
        *self == Self::Retryable
    }
}

/// A retry that was due longer ago is not taken at its word.
const FAR_BACK: TimeDelta = TimeDelta::hours(1);

impl RetryPolicy {
    /// One attempt and no more.
    pub fn never() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// The pause after failed attempt number `attempt` (from 1), or `None` when there is to be no
    /// further one. `random` is uniform in 0..1.
    pub fn pause_after(&self, attempt: u32, error: &TaskError, random: f64) -> Option<Duration> {
        if attempt >= self.max_attempts || !self.allows(error) {
            return None;
        }
        let mut pause = self.grown(attempt);
        if self.jitter {
            let drawn = pause.as_secs_f64() * (0.5 + random.clamp(0.0, 1.0) / 2.0);
            // The longest of all spans does not survive the way through a float.
            pause = Duration::try_from_secs_f64(drawn).unwrap_or(pause);
        }
        Some(error.retry_after.map_or(pause, |asked| pause.max(asked)))
    }

    /// The rest of a pause after attempt number `attempt`, which failed with `error`, if only a
    /// time is known of it, on a clock that may have been set meanwhile. A clock that was set back
    /// must not make it longer than this policy does. A time far in the past may mean that the
    /// clock was set forward: the pause then starts again, because it must not be cut short.
    pub fn pause_left(
        &self,
        attempt: u32,
        error: Option<&TaskError>,
        due: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Duration {
        let longest = self.longest_pause_after(attempt, error);
        match (due - now).to_std() {
            Ok(left) => left.min(longest),
            Err(_) if now - due > FAR_BACK => longest,
            Err(_) => Duration::ZERO,
        }
    }

    /// The longest pause that this policy gives after attempt number `attempt`, which failed with
    /// `error`.
    pub fn longest_pause_after(&self, attempt: u32, error: Option<&TaskError>) -> Duration {
        let asked = error.and_then(|error| error.retry_after).unwrap_or_default();
        self.grown(attempt).max(asked)
    }

    /// The pause after attempt number `attempt`, before jitter.
    fn grown(&self, attempt: u32) -> Duration {
        let factor = match self.backoff {
            Backoff::Fixed => 1,
            Backoff::Linear => attempt,
            Backoff::Exponential => 2_u32.saturating_pow(attempt.saturating_sub(1)),
        };
        self.base_delay.saturating_mul(factor).min(self.max_delay)
    }

    /// True if this error may be retried at all. An error that is marked as not retryable is never
    /// retried.
    pub fn allows(&self, error: &TaskError) -> bool {
        let is_cancelled =
            matches!(error.code, ErrorCode::TaskCancelled | ErrorCode::WorkflowCancelled);
        if is_cancelled || error.retryable == Some(false) {
            return false;
        }
        match &self.retry_on {
            RetryOn::Retryable => error.is_retryable(),
            RetryOn::Any(_) => true,
            RetryOn::Codes(codes) => codes.contains(&error.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(backoff: Backoff) -> RetryPolicy {
        RetryPolicy {
            max_attempts: 10,
            backoff,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(5),
            jitter: false,
            retry_on: RetryOn::default(),
        }
    }

    fn pauses(policy: &RetryPolicy) -> Vec<u64> {
        let error = TaskError::new(ErrorCode::ConnectionLost, "cut");
        (1..5).map(|n| policy.pause_after(n, &error, 0.5).unwrap().as_secs()).collect()
    }

    /// The three shapes, each under the cap.
    #[test]
    fn pauses_grow_as_configured_up_to_the_cap() {
        assert_eq!(pauses(&policy(Backoff::Fixed)), [1, 1, 1, 1]);
        assert_eq!(pauses(&policy(Backoff::Linear)), [1, 2, 3, 4]);
        assert_eq!(pauses(&policy(Backoff::Exponential)), [1, 2, 4, 5]);
    }

    /// `max_attempts` counts the first one too.
    #[test]
    fn attempts_are_bounded() {
        let policy = RetryPolicy { max_attempts: 3, ..policy(Backoff::Fixed) };
        let error = TaskError::new(ErrorCode::ConnectionLost, "cut");
        assert!(policy.pause_after(2, &error, 0.0).is_some());
        assert!(policy.pause_after(3, &error, 0.0).is_none());
    }

    /// A provider that says when to come back is believed, even beyond the cap.
    #[test]
    fn the_pause_that_a_provider_asks_for_is_kept() {
        let error = TaskError::failed("busy").retry_after(Duration::from_secs(30));
        let pause = policy(Backoff::Fixed).pause_after(1, &error, 0.0);
        assert_eq!(pause, Some(Duration::from_secs(30)));
    }

    /// No draw of the jitter is longer, and a provider's wish counts.
    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let policy = RetryPolicy { jitter: true, ..policy(Backoff::Exponential) };
        let busy = TaskError::failed("busy").retry_after(Duration::from_secs(30));
        for error in [TaskError::new(ErrorCode::ConnectionLost, "cut"), busy] {
            for attempt in 1..9 {
                let longest = policy.longest_pause_after(attempt, Some(&error));
                for random in [0.0, 0.3, 1.0] {
                    let pause = policy.pause_after(attempt, &error, random).unwrap();
                    assert!(pause <= longest, "{pause:?} after {attempt}, {longest:?} at most");
                }
                assert_eq!(policy.pause_after(attempt, &error, 1.0), Some(longest));
            }
        }
    }

    /// The clock was set in between, or the process was away.
    #[test]
    fn a_pause_that_is_taken_up_is_neither_cut_short_nor_drawn_out() {
        let policy = RetryPolicy { base_delay: Duration::from_secs(3), ..policy(Backoff::Fixed) };
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let left = |seconds| {
            let due = now + TimeDelta::seconds(seconds);
            policy.pause_left(1, None, due, now).as_secs()
        };
        assert_eq!([left(2), left(3), left(86_400)], [2, 3, 3]);
        assert_eq!([left(0), left(-1), left(-3_600)], [0, 0, 0]);
        assert_eq!([left(-3_601), left(-31 * 86_400)], [3, 3]);
    }

    /// Jitter stays between half and all.
    #[test]
    fn jitter_keeps_its_bounds() {
        let policy = RetryPolicy { jitter: true, ..policy(Backoff::Fixed) };
        let error = TaskError::new(ErrorCode::TaskTimeout, "late");
        let at = |random| policy.pause_after(1, &error, random).unwrap();
        assert_eq!(at(0.0), Duration::from_millis(500));
        assert_eq!(at(1.0), Duration::from_secs(1));
        let endless =
            RetryPolicy { base_delay: Duration::MAX, max_delay: Duration::MAX, ..policy.clone() };
        assert_eq!(endless.pause_after(1, &error, 1.0), Some(Duration::MAX));
    }

    /// A user's own error runs once, unless asked for.
    #[test]
    fn user_errors_are_repeated_only_on_request() {
        let error = TaskError::failed("ValueError");
        assert!(policy(Backoff::Fixed).pause_after(1, &error, 0.0).is_none());
        for text in [r#""any""#, r#"["TASK_EXECUTION_FAILED"]"#, "[-29002]"] {
            let retry_on: RetryOn = serde_json::from_str(text).unwrap();
            let policy = RetryPolicy { retry_on, ..policy(Backoff::Fixed) };
            assert!(policy.pause_after(1, &error, 0.0).is_some(), "{text}");
            let cancelled = TaskError::new(ErrorCode::TaskCancelled, "stop");
            assert!(policy.pause_after(1, &cancelled, 0.0).is_none(), "{text}");
            let terminal = error.clone().retryable(false);
            assert!(policy.pause_after(1, &terminal, 0.0).is_none(), "{text}");
        }
    }
}
