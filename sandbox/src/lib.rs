//! Runs Python code in processes of its own, with limits.
//!
//! Knows nothing of workflows: a [`Job`] goes in, an [`Outcome`] comes out. [`Interpreter::probe`]
//! finds out once what a `python3` is; a [`Sandbox`] then runs any number of jobs with it, at once
//! or after each other.
//!
//! | module | what it does |
//! |---|---|
//! | [`job`], [`outcome`] | what is asked, what is answered |
//! | [`policy`] | what the code may import and call, reported to honest users with line and column |
//! | [`interpreter`] | which Python there is, what it needs, and the harness compiled for it |
//! | `sandbox` | one interpreter at one level of isolation |
//! | `process`, `workdir` | without a jail: a fresh process a job, and the directory it starts in |
//! | `jail` | with one: zygotes in namespaces, one child a job |
//! | `docker` | with the feature of that name: a stock of warm containers, one a job |
//! | `pool` | what waits for a job, and the jobs that wait |
//! | [`machine`] | what this machine offers, and how to get what is missing |
//! | `frames`, `reply` | what goes in and what comes back |
//! | `watch`, `capture`, `classify` | a process until its end, what it printed, what to make of it |
//! | `harness/*.py` | the other side: runs inside the process, around the user's code |
//!
//! ```no_run
//! # async fn example() -> Result<(), gleitzeit_sandbox::SandboxError> {
//! use gleitzeit_sandbox::{Interpreter, Job, Sandbox, SandboxSettings};
//!
//! let sandbox = Sandbox::new(Interpreter::probe("python3".as_ref()).await?, SandboxSettings::default());
//! let outcome = sandbox.run(Job::execute("[n * n for n in range(4)]")).await?;
//! assert_eq!(outcome.result, serde_json::json!([0, 1, 4, 9]));
//! # Ok(())
//! # }
//! ```

mod capture;
mod classify;
#[cfg(feature = "docker")]
mod docker;
mod error;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod interpreter;
mod jail;
pub mod job;
pub mod machine;
pub mod outcome;
pub mod policy;
mod pool;
mod process;
mod reply;
mod sandbox;
mod self_test;
mod watch;
mod workdir;

#[cfg(feature = "docker")]
pub use docker::{DockerSettings, docker_available, engine_at, engine_info::EngineInfo};
pub use error::SandboxError;
pub use interpreter::Interpreter;
pub use jail::{Controller, INIT_COMMAND, JailSettings, NetworkRule, available, init};
pub use job::{Job, Limits, Mode, Source};
pub use outcome::{Diagnostic, Failure, Level, Outcome, ResultType, Status, Stream};
pub use policy::{Policy, Preset};
pub use sandbox::{Sandbox, SandboxSettings};
pub use self_test::{Check, SelfTest};
