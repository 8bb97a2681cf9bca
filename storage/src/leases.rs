//! Leases: which process runs which workflow.
//!
//! The [`writer`](super::writer) opens, renews, expires and assigns leases; the statements and the
//! rules that decide whether a lease has ended are here.
//!
//! On PostgreSQL a lease expires by the server's clock unless it is renewed, and each transaction
//! with its epoch locks its row. On SQLite a lease is a file lock that ends with its process.

mod file_locks;
mod fit;
mod lease_table;
mod process;
pub(super) mod requests;
pub(super) mod sql;
mod survey;
mod watch;

pub use self::survey::Holder;
pub(super) use self::{
    fit::Wanted,
    lease_table::{LeaseTable, LeaseView},
    requests::TO_ALL,
    sql::ExpiredLease,
    survey::{holders, standings},
};
