use super::*;

/// What ships must register, examples and all.
#[test]
fn the_built_in_protocols_are_valid() {
    let book = ProtocolBook::builtin();
    let ids: Vec<_> = book.list().map(|spec| spec.protocol_id().to_string()).collect();
    assert_eq!(ids, ["echo/v1.0", "llm/v1.0", "python/v1.0"]);
    assert_eq!(book.generation(), 3);
}
