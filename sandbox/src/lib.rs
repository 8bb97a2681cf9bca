//! Runs Python code in processes of its own, with limits.
//!
//! Knows nothing of workflows: a [`Job`] goes in, an [`Outcome`] comes out. [`Interpreter::probe`]
//! finds out once what a `python3` is; a [`Sandbox`] then runs any number of jobs with it, at once
//! or after each other.
//!
//! | module | what it does |
//! |---|---|
//! | [`job`], [`outcome`] | what is asked, what is answered |
//! | [`policy`] | what the code may import and call, told to honest users with line and column |
//! | [`interpreter`] | which Python there is, and the harness compiled for it |
//! | `process` | one process a job: started, fed, watched, killed |
//! | `capture`, `reply` | what comes out of it, within bounds |
//! | `workdir` | the directory a job starts in |
//! | `harness/*.py` | the other side: runs inside the process, around the user's code |
//!
//! ```no_run
//! # async fn example() -> Result<(), gleitzeit_sandbox::SandboxError> {
//! use gleitzeit_sandbox::{Interpreter, Job, Sandbox, Settings};
//!
//! let sandbox = Sandbox::new(Interpreter::probe("python3".as_ref()).await?, Settings::default());
//! let outcome = sandbox.run(Job::execute("[n * n for n in range(4)]")).await?;
//! assert_eq!(outcome.result, serde_json::json!([0, 1, 4, 9]));
//! # Ok(())
//! # }
//! ```

mod capture;
mod error;
pub mod interpreter;
pub mod job;
pub mod outcome;
pub mod policy;
mod process;
mod reply;
mod workdir;

pub use error::SandboxError;
pub use interpreter::Interpreter;
pub use job::{Job, Limits, Mode, Source};
pub use outcome::{Diagnostic, Failure, Level, Outcome, ResultType, Status, Stream};
pub use policy::{Policy, Preset};
pub use process::{Sandbox, Settings};
