//! Whether a path can exist in a value of a schema.

use super::node::{Node, Types};

/// Follows `path` through `node`. The error has the keys that can exist at the point at which it
/// leaves the schema.
pub(super) fn admits(node: &Node, path: &[&str], declared: bool) -> Result<(), Vec<String>> {
    let Some((segment, rest)) = path.split_first() else { return Ok(()) };
    let through_object = match object_step(node, segment, declared) {
        Step::Into(inner) => admits(inner, rest, declared),
        Step::Anything => Ok(()),
        Step::Nothing => Err(keys(node)),
    };
    if through_object.is_ok() {
        return Ok(());
    }
    match array_step(node, segment) {
        Step::Into(inner) => admits(inner, rest, declared),
        Step::Anything => Ok(()),
        Step::Nothing => through_object,
    }
}

enum Step<'a> {
    Into(&'a Node),
    Anything,
    Nothing,
}

fn object_step<'a>(node: &'a Node, key: &str, declared: bool) -> Step<'a> {
    if !node.types.meet(Types::OBJECT) {
        return Step::Nothing;
    }
    match node.fields.iter().find(|field| &*field.name == key) {
        Some(field) => Step::Into(&field.node),
        None if node.additional && (!declared || node.fields.is_empty()) => Step::Anything,
        None => Step::Nothing,
    }
}

fn array_step<'a>(node: &'a Node, segment: &str) -> Step<'a> {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !node.types.meet(Types::ARRAY) {
        return Step::Nothing;
    }
    // An index too large for `usize` is beyond every list, whatever the schema allows.
    let Ok(index) = segment.parse::<usize>() else { return Step::Nothing };
    if node.max_length.is_some_and(|most| index >= most) {
        return Step::Nothing;
    }
    node.items.as_deref().map_or(Step::Anything, Step::Into)
}

fn keys(node: &Node) -> Vec<String> {
    if node.types.meet(Types::OBJECT) {
        node.names().map(str::to_owned).collect()
    } else {
        Vec::new()
    }
}
