//! The store in a database: one SQLite file, or a PostgreSQL server.
//!
//! Asked by the engine through the port [`Store`](gleitzeit_domain::store::Store). Everything happens on a thread of its own,
//! `gleitzeit-store`: encoding rows and decoding answers must not hold up the thread of the
//! actors, and a connection to a server belongs to the runtime that opened it. There, one
//! writer takes what is queued and writes it in one transaction; readers have
//! connections of their own, and see what is committed.
//!
//! A store can be used, closed and dropped anywhere: inside an actix system, on any tokio runtime,
//! or on a thread without one. Times are kept to the microsecond.

#[cfg(feature = "sql")]
pub mod admin;
#[cfg(feature = "sql")]
mod assemble;
#[cfg(feature = "sql")]
mod call;
#[cfg(feature = "sql")]
mod database_file;
#[cfg(feature = "sql")]
mod encode;
#[cfg(feature = "sql")]
pub mod entity;
#[cfg(feature = "sql")]
mod fault;
#[cfg(feature = "sql")]
mod group;
#[cfg(feature = "sql")]
mod insert;
#[cfg(feature = "sql")]
mod leases;
#[cfg(feature = "sql")]
mod location;
#[cfg(feature = "sql")]
mod look;
#[cfg(feature = "sql")]
mod machine_clock;
#[cfg(feature = "sql")]
mod multi_row;
#[cfg(feature = "sql")]
mod needs;
#[cfg(feature = "sql")]
mod notifier;
#[cfg(feature = "sql")]
mod open;
#[cfg(feature = "sql")]
mod patience;
#[cfg(feature = "sql")]
pub mod plain;
#[cfg(feature = "sql")]
mod prune;
#[cfg(feature = "sql")]
mod read;
#[cfg(feature = "sql")]
mod rows;
#[cfg(feature = "postgres")]
mod server;
#[cfg(feature = "sql")]
mod server_clock;
#[cfg(feature = "sql")]
mod shrink;
#[cfg(feature = "sql")]
mod statements;
#[cfg(feature = "sql")]
mod store;
#[cfg(feature = "sql")]
mod submit_in;
#[cfg(feature = "sql")]
mod thread;
mod url;
#[cfg(feature = "sql")]
mod writer;

pub use self::url::{Durability, StoreUrl, StoreUrlError};
#[cfg(feature = "sql")]
pub use self::{
    look::ReadOnlyStore,
    store::{SqlOptions, SqlStore},
};
/// For transactions that [`SqlStore::submit_in`] takes part in.
#[cfg(feature = "sql")]
pub use sea_orm;
