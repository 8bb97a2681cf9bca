//! The names of the built-in protocols.

/// True for the name of a built-in protocol, in any version.
pub(crate) fn is_builtin(name: &str) -> bool {
    matches!(name, "python" | "llm" | "echo")
}
