//! Makes a declared protocol whole: names, inheritance, compiled methods, checked examples.

use std::sync::{Arc, atomic::AtomicBool};

use super::RegisterError;
use crate::{
    id::{Capability, ProtocolId, is_name},
    needs,
    problem::push_pointer,
    protocol::{
        Method, MethodSpec, ProtocolSpec,
        validate::{ParamsValidator, SchemaError, Validator},
    },
};

/// `/methods/<name>`.
pub(super) fn method_pointer(name: &str) -> String {
    let mut pointer = "/methods".to_owned();
    push_pointer(&mut pointer, name);
    pointer
}

/// The same protocol with every method named as its key says; refuses names that cannot stand in
/// an id.
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

/// `spec` with the methods of its parent before its own; where both have one, its own counts, in
/// the parent's place.
pub(super) fn inherit(spec: &ProtocolSpec, parent: Option<&ProtocolSpec>) -> ProtocolSpec {
    let mut whole = spec.clone();
    if let Some(parent) = parent {
        whole.methods.clone_from(&parent.methods);
        whole.methods.extend(spec.methods.clone());
    }
    whole
}

/// Compiles what a method declares; see [`Method::compile`].
pub(in crate::protocol) fn compile_method(
    capability: Arc<Capability>,
    spec: MethodSpec,
) -> Result<Method, Vec<SchemaError>> {
    let mut errors = Vec::new();
    let mut take = |wrong: Vec<SchemaError>, prefix: &str| {
        errors.extend(wrong.into_iter().map(|error| error.below(prefix)));
    };
    let params = ParamsValidator::compile(&spec).map_err(|wrong| take(wrong, "")).ok();
    let returns = spec.returns_schema.as_ref().map(Validator::compile).transpose();
    let returns = returns.map_err(|wrong| take(wrong, "/returns_schema")).ok();
    take(odd_policies(&spec), "");
    if let (Some(params), Some(returns)) = (&params, &returns) {
        take(odd_examples(&spec, params, returns.as_ref()), "");
    }
    match (params, returns) {
        (Some(params), Some(returns)) if errors.is_empty() => {
            let [need, need_or_later] = needs::texts(&capability, &spec);
            let warned = AtomicBool::new(false);
            Ok(Method { capability, spec, params, returns, need, need_or_later, warned })
        }
        _ => Err(errors),
    }
}

/// Policies that could never be kept.
fn odd_policies(spec: &MethodSpec) -> Vec<SchemaError> {
    let mut errors = Vec::new();
    if spec.timeout_seconds.is_some_and(|limit| limit.is_zero()) {
        errors.push(SchemaError::new("/timeout_seconds", "a limit of 0 seconds ends every call"));
    }
    if let Some(name) = &spec.timeout_parameter
        && !spec.params_schema.contains_key(name)
    {
        let message =
            format!("`{name}` is no parameter of this method; declare it, or leave it out");
        errors.push(SchemaError::new("/timeout_parameter", message));
    }
    if spec.retry_policy.as_ref().is_some_and(|policy| policy.max_attempts == 0) {
        let message = "0 attempts never call the method; 1 calls it once";
        errors.push(SchemaError::new("/retry_policy/max_attempts", message));
    }
    let cores = spec.resource_requirements.as_ref().and_then(|needs| needs.cpu_cores);
    if let Some(cores) = cores.filter(|cores| !cores.is_finite() || *cores < 0.0) {
        let message = format!("{cores} is no share of a processor; expected a number from 0");
        errors.push(SchemaError::new("/resource_requirements/cpu_cores", message));
    }
    errors
}

/// Examples that break the schemas they are to explain.
fn odd_examples(
    spec: &MethodSpec,
    params: &ParamsValidator,
    returns: Option<&Validator>,
) -> Vec<SchemaError> {
    let mut errors = Vec::new();
    for (index, example) in spec.examples.iter().enumerate() {
        let wrong_params = params.check_open(&example.params, &|_| false);
        let wrong_params = wrong_params.into_iter().map(|wrong| ("params", wrong));
        let reported = match (returns, &example.result) {
            (Some(returns), Some(result)) => returns.check(result),
            _ => Vec::new(),
        };
        let reported = reported.into_iter().map(|wrong| ("result", wrong));
        errors.extend(wrong_params.chain(reported).map(|(part, wrong)| {
            SchemaError::new(
                format!("/examples/{index}/{part}{}", wrong.pointer),
                format!("the example breaks the schema: {}", wrong.message),
            )
        }));
    }
    errors
}

/// The circles among protocols that all wait for one another, each told once.
pub(super) fn circles(waiting: &[ProtocolSpec]) -> Vec<RegisterError> {
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
