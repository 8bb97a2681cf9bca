//! The store in a database: one SQLite file, or a PostgreSQL server.
//!
//! [`SqlStore`] implements the port [`Store`](gleitzeit_domain::store::Store). It works on a thread
//! of its own, `gleitzeit-store`: encoding rows must not delay the actors, and a connection to a
//! server belongs to the runtime that opened it. On that thread one writer serves a queue
//! and commits in groups; readers have connections of their own and see committed
//! rows only.
//!
//! A store can be used, closed and dropped anywhere: inside an actix system, on any tokio runtime,
//! or on a thread without one. Times are kept to the microsecond.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod admin;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod connection;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database_file;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod encode;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod entity;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod fault;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod key_cache;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod leases;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod location;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod machine_clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migrate;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod multi_row;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod needs;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod notify;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod open;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod options;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod queue;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod read;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod read_only;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;
#[cfg(feature = "postgres")]
mod server;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod server_clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod shrink;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod size;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod statement_timeout;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod statements;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod store;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod thread;
mod url;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod write_call;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod writer;

pub use self::url::{Durability, StoreUrl, StoreUrlError};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use self::{
    connection::connect,
    options::SqlOptions,
    read_only::ReadOnlyStore,
    store::{SqlStore, SubmitIn},
};
/// For the transactions of [`SubmitIn`].
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sea_orm;
