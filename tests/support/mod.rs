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

/// A quarter of a full run's cases in `scripts/test --quick`.
pub(crate) fn fewer_if_quick(cases: usize) -> usize {
    if std::env::var_os("GLEITZEIT_TEST_QUICK").is_some() { cases.div_ceil(4) } else { cases }
}
