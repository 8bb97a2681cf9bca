//! Named crash points: places at which a test has the process killed, to see how the next process
//! recovers.
//!
//! `failpoint!("store.commit.after")` marks one. Without the feature `enabled` it compiles to
//! nothing. With it, `GLEITZEIT_FAILPOINT=store.commit.after:3` kills the process by SIGKILL at its
//! third passage, `…:3:stop` stops it there by SIGSTOP, and `=count` counts the passages of every
//! place. A place that nobody asked for costs one load.
//!
//! Invariant: [`NAMES`] are the places in the code, each once; a name that is not among them does
//! not compile.

/// True if failpoints do something.
pub const ENABLED: bool = cfg!(feature = "enabled");

#[cfg(feature = "enabled")]
mod names;
#[cfg(feature = "enabled")]
mod passes;

#[cfg(feature = "enabled")]
pub use names::NAMES;
#[cfg(feature = "enabled")]
pub use passes::{VARIABLE, pass, passes, place};

/// Marks the place of this name in [`NAMES`].
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        const PLACE: usize = $crate::place($name);
        $crate::pass(PLACE);
    }};
}

/// Marks a place; nothing without the feature `enabled`.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{}};
}
