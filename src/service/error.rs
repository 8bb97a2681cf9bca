//! The error of a handler, and its effect on another attempt.

use std::{any::Any, borrow::Cow, fmt, time::Duration};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    protocol::Effect,
};
use serde_json::Value;

/// Why a handler failed, and whether the task is tried again.
///
/// Every error type converts into it, so that `?` works in a handler. A converted error is retried
/// according to the task's retry policy, because most errors of a handler are caused by a peer that
/// does not answer; without a policy there is one attempt. A method that is declared
/// [`at_most_once`](crate::service::Service::at_most_once) is the exception: it is retried only
/// after [`retry_after`](Self::retry_after) or [`retryable`](Self::retryable), by which the handler
/// guarantees that the call had no effect.
///
/// ```
/// use std::time::Duration;
/// use gleitzeit::service::HandlerError;
///
/// fn amount(text: &str) -> Result<u32, HandlerError> {
///     // No other attempt makes a number of it.
///     text.parse().map_err(|error| HandlerError::from(error).terminal())
/// }
/// # let _ = amount("12");
///
/// let busy = HandlerError::new("the bank is closed").retry_after(Duration::from_secs(60));
/// assert_eq!(busy.to_string(), "the bank is closed");
/// ```
#[derive(Debug)]
pub struct HandlerError {
    error: TaskError,
    /// True if neither the handler nor the converted error decided about a retry.
    is_undecided: bool,
}

impl HandlerError {
    /// An error with a message for a person: [`ErrorCode::TaskExecutionFailed`].
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { error: TaskError::failed(message), is_undecided: true }
    }

    /// Sets the code of the table; [`ErrorCode::TaskExecutionFailed`] otherwise.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.error.code = code;
        self
    }

    /// Adds data for programs; they read it in the task's error.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.error = self.error.with_data(data);
        self
    }

    /// Forbids another attempt, regardless of the retry policy.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.error.retry_after = None;
        self.error = self.error.retryable(false);
        self.is_undecided = false;
        self
    }

    /// Allows another attempt by the retry policy, even of a method that must not run twice: the
    /// call had no effect.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.error = self.error.retryable(true);
        self.is_undecided = false;
        self
    }

    /// As [`retryable`](Self::retryable), and not before `pause` has passed. The pause of the retry
    /// policy counts when it is longer.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.error = self.error.retry_after(pause);
        self.is_undecided = false;
        self
    }

    /// The error of a task whose method has this effect.
    pub fn into_task_error(self, effect: Effect) -> TaskError {
        let Self { error, is_undecided } = self;
        if is_undecided && effect != Effect::AtMostOnce { error.retryable(true) } else { error }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.error.message)
    }
}

/// Takes the message with those of the error's sources. A [`TaskError`] is kept as it is.
impl<E: std::error::Error + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        if let Some(error) = any.downcast_ref::<TaskError>() {
            return Self { error: error.clone(), is_undecided: false };
        }
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors write their source themselves.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no receipt")]
    struct NoReceipt(#[source] std::num::ParseIntError);

    fn wrong() -> NoReceipt {
        NoReceipt("x".parse::<u8>().unwrap_err())
    }

    /// A person reads the cause, not only the outermost message.
    #[test]
    fn a_converted_error_lists_its_sources() {
        let error = HandlerError::from(wrong());
        assert_eq!(error.to_string(), "no receipt: invalid digit found in string");
    }

    /// Only a call that must not run twice waits for the handler's word.
    #[test]
    fn an_undecided_error_is_retried_unless_it_must_run_once() {
        for effect in [Effect::Pure, Effect::Idempotent, Effect::AtLeastOnce] {
            let error = HandlerError::from(wrong()).into_task_error(effect);
            assert!(error.is_retryable(), "{effect:?}");
        }
        let once = HandlerError::from(wrong()).into_task_error(Effect::AtMostOnce);
        assert_eq!(once.retryable, None);
        assert!(!once.is_retryable());
        let vouched = HandlerError::from(wrong()).retryable().into_task_error(Effect::AtMostOnce);
        assert_eq!(vouched.retryable, Some(true));
    }

    /// The last word counts, and an error of the runtime's own kind keeps what it says.
    #[test]
    fn the_handlers_word_reaches_the_task() {
        let pause = Duration::from_secs(9);
        let late = HandlerError::new("late").retry_after(pause).into_task_error(Effect::Pure);
        assert_eq!((late.retry_after, late.retryable), (Some(pause), Some(true)));
        let over = HandlerError::new("over").retry_after(pause).terminal();
        let over = over.into_task_error(Effect::Pure);
        assert_eq!((over.retry_after, over.retryable), (None, Some(false)));
        let own = TaskError::new(ErrorCode::RateLimitExceeded, "slow down");
        let kept = HandlerError::from(own.clone()).into_task_error(Effect::Pure);
        assert_eq!(kept, own);
    }
}
