//! Fills in defaults.

use serde_json::Value;

use super::node::SchemaNode;

/// Fills in what `value`, which fits `node`, lacks.
pub(super) fn fill(node: &SchemaNode, value: &mut Value) {
    if !node.fillable {
        return;
    }
    match value {
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    fill(node, item);
                }
            }
        }
        Value::Object(map) => {
            for field in &node.fields {
                if let Some(inner) = map.get_mut(&*field.name) {
                    fill(&field.node, inner);
                } else if let Some(default) = &field.default {
                    map.insert(field.name.to_string(), default.clone());
                }
            }
        }
        _ => {}
    }
}
