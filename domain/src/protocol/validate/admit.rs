//! Whether a path can exist in a value of a schema.

use super::node::{SchemaNode, Types};

/// Follows `path` through `node`. The error has the keys that can exist at the point at which it
/// leaves the schema.
pub(super) fn admits(node: &SchemaNode, path: &[&str], declared: bool) -> Result<(), Vec<String>> {
    let Some((segment, rest)) = path.split_first() else { return Ok(()) };
    let through_object = match object_step(node, segment, declared) {
        SchemaStep::Into(inner) => admits(inner, rest, declared),
        SchemaStep::Anything => Ok(()),
        SchemaStep::Nothing => Err(keys(node)),
    };
    if through_object.is_ok() {
        return Ok(());
    }
    match array_step(node, segment) {
        SchemaStep::Into(inner) => admits(inner, rest, declared),
        SchemaStep::Anything => Ok(()),
        SchemaStep::Nothing => through_object,
    }
}

enum SchemaStep<'a> {
    Into(&'a SchemaNode),
    Anything,
    Nothing,
}

fn object_step<'a>(node: &'a SchemaNode, key: &str, declared: bool) -> SchemaStep<'a> {
    if !node.types.meet(Types::OBJECT) {
        return SchemaStep::Nothing;
    }
    match node.fields.iter().find(|field| &*field.name == key) {
        Some(field) => SchemaStep::Into(&field.node),
        None if node.additional && (!declared || node.fields.is_empty()) => SchemaStep::Anything,
        None => SchemaStep::Nothing,
    }
}

fn array_step<'a>(node: &'a SchemaNode, segment: &str) -> SchemaStep<'a> {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !node.types.meet(Types::ARRAY) {
        return SchemaStep::Nothing;
    }
    // An index too large for `usize` is beyond every list, whatever the schema allows.
    let Ok(index) = segment.parse::<usize>() else { return SchemaStep::Nothing };
    if node.max_length.is_some_and(|most| index >= most) {
        return SchemaStep::Nothing;
    }
    node.items.as_deref().map_or(SchemaStep::Anything, SchemaStep::Into)
}

fn keys(node: &SchemaNode) -> Vec<String> {
    if node.types.meet(Types::OBJECT) {
        node.names().map(str::to_owned).collect()
    } else {
        Vec::new()
    }
}
