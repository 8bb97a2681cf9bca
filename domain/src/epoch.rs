//! The number of a lease.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a lease, and the fencing token of its writes. A later lease has a larger one; no
/// lease has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
