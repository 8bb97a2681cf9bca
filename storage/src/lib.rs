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

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod admin;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod amend;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod assemble;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod call;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod connection;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database_file;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod delete;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod encode;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod entity;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod fault;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod group;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod insert;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod leases;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod location;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod look;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod machine_clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod multi_row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod needs;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod notifier;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod open;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod patience;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod prune;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod read;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
#[cfg(feature = "postgres")]
mod server;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod server_clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod shrink;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod statements;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod store;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod submit_in;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod thread;
mod url;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod writer;

pub use self::url::{Durability, StoreUrl, StoreUrlError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::{
    connection::connect,
    look::ReadOnlyStore,
    store::{SqlOptions, SqlStore},
};
/// For transactions that [`SqlStore::submit_in`] takes part in.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sea_orm;
