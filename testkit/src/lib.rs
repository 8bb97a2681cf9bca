//! Tests of workflows and of the services that they call: without a server, without waiting.
//!
//! A [`TestKit`] is a gleitzeit runtime on the thread of the test, on a virtual clock: time passes
//! only when nothing is left to do, so that an hour of retries takes a millisecond. It has the
//! service's own handlers or fakes of them, it crashes at the points that a test plans, and starts
//! again on the same store.
//!
//! ```
//! use std::time::Duration;
//! use gleitzeit::{TaskSpec, WorkflowSpec};
//! use gleitzeit_testkit::{HandlerError, TestKit};
//! use serde_json::json;
//!
//! let mut kit = TestKit::new();
//! // Twenty minutes too late, three times.
//! kit.fake("bank/charge", |call| match call.attempt() {
//!     4 => Ok(json!({ "receipt": 7 })),
//!     _ => Err(HandlerError::new("closed").retry_after(Duration::from_secs(1200))),
//! });
//! let retry = gleitzeit::RetryPolicy { max_attempts: 5, ..Default::default() };
//! let ended = kit.run(WorkflowSpec::new("order").task(TaskSpec::new("pay", "bank/charge").retry(retry)));
//! assert_eq!(ended.task("pay").unwrap().result::<serde_json::Value>().unwrap(), json!({ "receipt": 7 }));
//! kit.assert_calls("bank/charge", 4);
//! assert!(kit.elapsed() >= Duration::from_secs(3600));
//! ended.assert_order(&["task:retry_scheduled pay", "task:completed pay", "workflow:completed"]);
//! ```
//!
//! A crash ([`TestKit::crash`]) drops the runtime at a named event, before or after it is stored,
//! or during a call; [`TestKit::run`] then starts the next one on the same store, as an operator
//! would. [`TestKit::live`] gives a test the [`Handle`](gleitzeit::Handle) of one such life.
//!
//! The suites that every store and every provider pass are in [`conformance`].

mod calls;
mod crash;
mod kit;
mod store;
mod story;
mod world;

/// The conformance suites of stores and providers.
pub mod conformance {
    pub use gleitzeit::{domain::store::conformance as store, providers::conformance as provider};
}

/// The program of the page on tests is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Testing;

pub use calls::FakeCall;
pub use crash::Crash;
pub use gleitzeit::service::HandlerError;
pub use kit::TestKit;
pub use story::Ended;
