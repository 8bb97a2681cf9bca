//! Failpoints: named points of the code at which a test kills the process, to check how the next one
//! recovers.
//!
//! `failpoint!("store.commit.after")` defines one. Without the feature `enabled` it compiles to
//! nothing. With it, `GLEITZEIT_FAILPOINT=store.commit.after:3` kills the process by SIGKILL at its
//! third pass, `…:3:stop` stops it there by SIGSTOP, and `=count` counts the passes of every
//! failpoint. Without the variable a pass costs one load.
//!
//! Invariant: [`NAMES`] has the failpoints of the code, each once; a name that it lacks does not
//! compile.

/// True if failpoints do something.
pub const ENABLED: bool = cfg!(feature = "enabled");

#[cfg(feature = "enabled")]
mod names;
#[cfg(feature = "enabled")]
mod passes;

#[cfg(feature = "enabled")]
pub use names::NAMES;
#[cfg(feature = "enabled")]
pub use passes::{VARIABLE, index_of, pass, passes};

/// Passes the failpoint of this name in [`NAMES`].
#[cfg(feature = "enabled")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{
        const INDEX: usize = $crate::index_of($name);
        $crate::pass(INDEX);
    }};
}

/// Does nothing without the feature `enabled`.
#[cfg(not(feature = "enabled"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{}};
}
