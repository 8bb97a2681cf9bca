//! Completes a declared protocol: names and inheritance.

use super::error::RegisterError;
use crate::{
    id::{ProtocolId, is_name},
    problem::push_pointer,
    protocol::{spec::ProtocolSpec, validate::schema_error::SchemaError},
};

/// `/methods/<name>`.
pub(super) fn method_pointer(name: &str) -> String {
    let mut pointer = "/methods".to_owned();
    push_pointer(&mut pointer, name);
    pointer
}

/// Names every method by its key; rejects names that are invalid in an id.
pub(super) fn normalised(mut spec: ProtocolSpec) -> Result<ProtocolSpec, RegisterError> {
    let mut errors = Vec::new();
    let rule = "a name has letters, digits, `_`, `-` and `.` only";
    if !is_name(&spec.name) {
        errors.push(SchemaError::new("/name", format!("`{}` is no name: {rule}", spec.name)));
    }
    for (key, method) in &mut spec.methods {
        let at = method_pointer(key);
        if !is_name(key) {
            errors.push(SchemaError::new(at.as_str(), format!("`{key}` is no name: {rule}")));
        }
        if method.name.is_empty() {
            method.name.clone_from(key);
        } else if method.name != *key {
            let found = &method.name;
            let message = format!("the method is called `{found}`, but its key is `{key}`");
            errors.push(SchemaError::new(format!("{at}/name"), message));
        }
    }
    if errors.is_empty() {
        Ok(spec)
    } else {
        Err(RegisterError::Invalid { id: spec.protocol_id(), errors })
    }
}

/// `spec` with the methods of its parent before its own. A method of both is the child's, at the
/// parent's position.
pub(super) fn inherit(spec: &ProtocolSpec, parent: Option<&ProtocolSpec>) -> ProtocolSpec {
    let mut whole = spec.clone();
    if let Some(parent) = parent {
        whole.methods.clone_from(&parent.methods);
        whole.methods.extend(spec.methods.clone());
    }
    whole
}

/// The cycles among protocols that all wait for one another, each reported once.
pub(super) fn cycles(waiting: &[ProtocolSpec]) -> Vec<RegisterError> {
    let parent = |id: &ProtocolId| {
        let spec = waiting.iter().find(|spec| spec.protocol_id() == *id)?;
        spec.extends.clone()
    };
    let mut reported: Vec<ProtocolId> = Vec::new();
    let mut errors = Vec::new();
    for spec in waiting {
        let mut chain = vec![spec.protocol_id()];
        // Everyone here has a parent among those waiting, so each chain ends in a circle.
        while let Some(next) = chain.last().and_then(parent) {
            if reported.contains(&next) {
                break;
            }
            if let Some(start) = chain.iter().position(|id| *id == next) {
                chain.push(next);
                errors.push(RegisterError::Cycle { chain: chain[start..].to_vec() });
                break;
            }
            chain.push(next);
        }
        reported.extend(chain);
    }
    errors
}
