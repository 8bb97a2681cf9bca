//! Runs one provider call so that neither a panic nor a hang reaches the supervisor.
//!
//! The innermost of the three rings of supervision: a failure in a call fails that call only.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::timeout;

/// The reason why a provider call returned no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider did not answer within the limit; its future was dropped.
    #[error("no answer within {limit:?}")]
    TimedOut {
        /// The limit that passed.
        limit: Duration,
    },
    /// The provider panicked; its state can no longer be trusted.
    #[error("provider panicked: {text}")]
    Panicked {
        /// The panic message.
        text: String,
    },
}

/// Awaits `call` for at most `limit`. A panic becomes an error, also in the destructor of a call that
/// is dropped; a value that was returned before stands.
///
/// A call that blocks its thread instead of awaiting is not interrupted.
///
/// # Errors
/// [`CallError::TimedOut`] after `limit`; [`CallError::Panicked`] with the panic's message.
pub async fn guarded<T>(limit: Duration, call: impl Future<Output = T>) -> Result<T, CallError> {
    // In an `Option`, so that its destructor can run under `catch_unwind`: dropped at the end of this
    // function, a panic in it would unwind into the caller.
    let mut slot = pin!(Some(call));
    let Some(call) = slot.as_mut().as_pin_mut() else { unreachable!("it was just put there") };
    let answer = timeout(limit, AssertUnwindSafe(call).catch_unwind()).await;
    let dropped = catch_unwind(AssertUnwindSafe(|| slot.set(None)));
    let panicked = |panic: Box<dyn Any + Send>| CallError::Panicked { text: panic_text(&*panic) };
    match (answer, dropped) {
        // The call was made, whatever its destructor does: an error would repeat it.
        (Ok(Ok(value)), _) => Ok(value),
        (Ok(Err(panic)), _) | (Err(_), Err(panic)) => Err(panicked(panic)),
        (Err(_), Ok(())) => Err(CallError::TimedOut { limit }),
    }
}

/// Drops a value with a foreign destructor; returns the text of its panic, if it panicked.
pub fn discard<T>(value: T) -> Option<String> {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(value)));
    dropped.err().map(|panic| panic_text(&*panic))
}

/// The text of a panic, if it has one: `panic!` carries a text, `panic_any` any value.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    // `panic!` with a literal carries a `&str`, with arguments a `String`.
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, panic::panic_any, rc::Rc};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn panicked<T>(text: &str) -> Result<T, CallError> {
        Err(CallError::Panicked { text: text.to_owned() })
    }

    /// The caller gets an error it can act on, and its own task goes on.
    #[actix::test]
    async fn panic_and_timeout_become_errors() {
        tokio::time::pause();
        assert_eq!(guarded(LIMIT, async { 7 }).await, Ok(7));
        assert_eq!(guarded(LIMIT, async { panic!("bad {}", 13) }).await, panicked::<()>("bad 13"));
        let hung = guarded(LIMIT, pending::<()>()).await;
        assert_eq!(hung, Err(CallError::TimedOut { limit: LIMIT }));
    }

    /// Whatever a provider throws, a person reads what there is to read.
    #[actix::test]
    async fn every_kind_of_panic_has_a_text() {
        assert_eq!(guarded(LIMIT, async { panic!("plain") }).await, panicked::<()>("plain"));
        let owned = guarded(LIMIT, async { panic_any(String::from("owned")) }).await;
        assert_eq!(owned, panicked::<()>("owned"));
        let other = guarded(LIMIT, async { panic_any(42_u8) }).await;
        assert_eq!(other, panicked::<()>("a panic without a text"));
    }

    struct OnDrop<F: Fn()>(F);

    impl<F: Fn()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    /// A call that timed out is cancelled before its caller is answered.
    #[actix::test]
    async fn a_timed_out_call_is_dropped() {
        tokio::time::pause();
        let dropped = Rc::new(Cell::new(false));
        let flag = Rc::clone(&dropped);
        let held = OnDrop(move || flag.set(true));
        let call = async move {
            let _held = held;
            pending::<()>().await;
        };
        assert!(guarded(LIMIT, call).await.is_err());
        assert!(dropped.get());
    }

    /// A destructor that panics is the provider's fault as well, and reaches nobody else.
    #[actix::test]
    async fn a_panic_while_cancelling_is_caught() {
        tokio::time::pause();
        let call = async {
            let _held = OnDrop(|| panic!("in drop"));
            pending::<()>().await;
        };
        assert_eq!(guarded(LIMIT, call).await, panicked("in drop"));
    }
}
