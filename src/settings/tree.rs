//! The tree that the layers of the settings are merged into: one key of it is found, replaced, removed.

use serde_json::Value;

/// A provider of the defaults that this build cannot build is no error unless a person names it.
pub(super) fn remove_provider(tree: &mut Value, id: &str) {
    if let Some(providers) = tree.get_mut("providers").and_then(Value::as_object_mut) {
        providers.remove(id);
    }
}

/// The value at the path, if there is one.
pub(super) fn find<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |tree, key| match tree {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        tree => tree.get(key),
    })
}

/// Puts `value` at the path, or takes away what is there. An item of a list becomes null, so that
/// its neighbours keep their numbers.
pub(super) fn replace(tree: &mut Value, path: &[String], value: Option<Value>) {
    let Some((last, above)) = path.split_last() else { return };
    let parent = above.iter().try_fold(tree, |tree, key| match tree {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        tree => tree.get_mut(key),
    });
    match (parent, value) {
        (Some(Value::Object(table)), Some(value)) => {
            table.insert(last.clone(), value);
        }
        (Some(Value::Object(table)), None) => {
            table.remove(last);
        }
        (Some(Value::Array(items)), value) => {
            if let Some(item) = last.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                *item = value.unwrap_or_default();
            }
        }
        _ => {}
    }
}
