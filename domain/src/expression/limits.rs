//! The bounds of expressions: whatever its source, one ends soon and takes little memory.

/// Bytes of a source.
pub const SOURCE_MAX: usize = 4_096;

/// Nodes of an expression.
pub const NODES_MAX: usize = 1_000;

/// Parentheses, lists, maps and calls within each other.
pub const DEPTH_MAX: usize = 32;

/// Macros within each other.
pub const MACROS_MAX: usize = 2;

/// Steps of an evaluation: each node, each round of a macro, each 64 bytes of text.
pub const STEPS_MAX: u32 = 100_000;

/// Bytes of values that an evaluation makes.
pub const PRODUCED_MAX: usize = 1 << 20;

/// Bytes of a compiled regular expression.
pub const PATTERN_MAX: usize = 1 << 18;

/// Bytes of text that a step covers.
pub const TEXT_STEP: usize = 64;
