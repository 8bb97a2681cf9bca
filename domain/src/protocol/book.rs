//! Placeholder.
/// Placeholder.
pub struct ProtocolBook;
