//! Databases under an operator's hand: what is told of them, what is found wrong in them, and their
//! way from one to another. On SQLite, and on PostgreSQL where a server answers.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../../../tests/support/postgres.rs"]
#[cfg(feature = "postgres")]
mod postgres;
#[path = "../program/support.rs"]
mod support;

mod check;
mod database;
mod needs;
mod program;
mod status;
mod transfer;
