//! Parts that the test programs share; each uses some of them.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

pub(crate) mod child;
#[cfg(all(feature = "postgres", target_os = "linux"))]
pub(crate) mod own_server;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "postgres")]
pub(crate) mod proxy;
#[cfg(feature = "postgres")]
pub(crate) mod stalling_line;
pub(crate) mod whole;
