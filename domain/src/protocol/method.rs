//! A method that is ready for calls: schemas compiled, examples checked.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use super::{
    spec::MethodSpec,
    validate::{ParamsValidator, Validator, schema_error::SchemaError},
};
use crate::{
    error::{ErrorCode, TaskError},
    id::Capability,
    needs::{self, Needs},
};

/// A method ready for use: inherited, checked, with its identity. Shared by every task that calls
/// it.
#[derive(Debug)]
pub struct Method {
    /// Protocol and bare name.
    pub capability: Arc<Capability>,
    /// As declared, or as inherited.
    pub spec: MethodSpec,
    /// The compiled schema of the parameters.
    pub params: ParamsValidator,
    /// The compiled schema of the result.
    pub returns: Option<Validator>,
    /// As a workflow needs it whose task names the version, and one whose task does not; see
    /// [`Needs`].
    pub(crate) need: Arc<str>,
    pub(crate) need_or_later: Arc<str>,
    /// True once a warning about the deprecated method was issued.
    warned: AtomicBool,
}

impl Method {
    /// Makes a method ready: compiles its schemas and checks its examples against them.
    ///
    /// # Errors
    /// Everything wrong with it, with pointers into the method: `/params_schema/code/pattern`,
    /// `/examples/0/params/timeout`.
    pub fn compile(
        capability: impl Into<Arc<Capability>>,
        spec: MethodSpec,
    ) -> Result<Self, Vec<SchemaError>> {
        let capability = capability.into();
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
                let [need, need_or_later] = needs::texts(&capability, fingerprint(&spec));
                let warned = AtomicBool::new(false);
                Ok(Self { capability, spec, params, returns, need, need_or_later, warned })
            }
            _ => Err(errors),
        }
    }

    /// True if a workflow with these needs was checked against this very method.
    pub(crate) fn was_checked_by(&self, needs: &Needs) -> bool {
        needs.have_one_of([&self.need, &self.need_or_later])
    }

    /// True for the first caller, if the method is deprecated: the warning is issued once.
    pub fn warns_now(&self) -> bool {
        self.spec.deprecated && !self.warned.swap(true, Ordering::Relaxed)
    }

    /// Holds a result against the schema of what the method returns.
    ///
    /// # Errors
    /// `TASK_RESULT_INVALID` with every violation, and the result, in its data.
    pub fn check_result(&self, result: &Value) -> Result<(), TaskError> {
        let Some(returns) = &self.returns else { return Ok(()) };
        let violations = returns.check(result);
        if violations.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let message =
            format!("the result of {} breaks its schema: {}", self.capability, list.join("; "));
        Err(TaskError::new(ErrorCode::TaskResultInvalid, message)
            .with_data(serde_json::json!({ "violations": violations, "result": result })))
    }
}

/// A shared [`Method`].
pub type MethodRef = Arc<Method>;

/// A hash of the schemas, which differs if a check of parameters may have another result (FNV-1a,
/// which is the same in every build).
fn fingerprint(spec: &MethodSpec) -> u64 {
    let schemas = (&spec.params_schema, spec.additional_params, &spec.returns_schema);
    let text = serde_json::to_vec(&schemas).unwrap_or_default();
    text.iter().fold(0xcbf2_9ce4_8422_2325, |print: u64, byte| {
        (print ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
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
