//! Types, rules and decisions of gleitzeit, as pure data and pure functions.
//!
//! Nothing here knows actix, tokio, databases, files, sockets or the clock: time and randomness
//! are passed in. The actors of `gleitzeit-actors` carry messages around these types; the root
//! package touches the world.
//!
//! | module | what it decides |
//! |---|---|
//! | [`id`] | the names of things |
//! | [`command`] | what a person may have done to what runs |
//! | [`protocol`] | what can be called: specs, inheritance, validation |
//! | [`workflow`], [`task`] | what is submitted, where it stands, which steps are allowed |
//! | [`event`], [`error`], [`metrics`], [`health`] | what is told |
//! | [`mod@reference`], [`graph`] | what a task takes from others, and when it may run |
//! | [`needs`] | what a workflow needs, what a process offers |
//! | [`plan`], [`run`] | from a submission to what can run, and where that stands |
//! | [`engine`] | what the engine does next: dispatch, write, answer, claim |
//! | [`queue`], [`lease_queue`], [`balance`] | whose turn it is, and who serves it |
//! | [`printable`] | which characters of a text a person sees as they are |
//! | [`problem`] | what is wrong with a submission |
//! | [`json`] | how much memory a stranger's text may take as a value |
//! | [`retry`], [`restart`], [`random`] | when again, and after what pause |
//! | [`resources`], [`security`] | with how much, how isolated |
//! | [`provider`], [`store`] | the ports to the world |

pub mod balance;
pub mod command;
pub mod decision;
pub mod difference;
pub mod duration;
pub mod engine;
pub mod epoch;
pub mod error;
pub mod event;
pub mod expression;
pub mod file_access;
pub mod graph;
pub mod health;
pub mod id;
pub mod json;
pub mod lease_queue;
pub mod metrics;
pub mod needs;
pub mod plan;
pub mod printable;
pub mod problem;
pub mod protocol;
pub mod provider;
pub mod queue;
pub mod random;
pub mod reference;
pub mod resources;
pub mod restart;
pub mod retry;
pub mod run;
pub mod security;
pub mod store;
pub mod task;
pub mod workflow;
