//! One call of a provider, and the results that it may have.

use std::{fmt, sync::Arc};

use gleitzeit_domain::{
    error::TaskError,
    id::Capability,
    protocol::{MethodRef, catalog::ProtocolCatalog, validate::Filled},
    provider::{Call, Outcome},
    resources::Resources,
};
use serde_json::Value;

use super::TIMEOUT;

type Accepts = Box<dyn Fn(&Value) -> Result<(), String>>;

/// A call that must succeed, and what its result must be.
pub struct Sample {
    pub(super) method: MethodRef,
    pub(super) filled: Filled,
    pub(super) accepts: Accepts,
}

impl fmt::Debug for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sample")
            .field("capability", &self.method.capability)
            .field("params", &self.filled.params)
            .finish_non_exhaustive()
    }
}

/// The reason why a [`Sample`] is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// No such method is in the catalog.
    #[error("`{capability}` is not in the catalog of protocols")]
    UnknownMethod {
        /// As given.
        capability: String,
    },
    /// The parameters break the method's schema.
    #[error("the parameters for `{capability}` break its schema: {violations}")]
    Params {
        /// As given.
        capability: String,
        /// Everything wrong, in one line.
        violations: String,
    },
}

impl Sample {
    /// A call of `capability` (`name/version:method`) as the engine would make it: the parameters
    /// checked, and its defaults filled in. Any result that fits the schema will do.
    ///
    /// # Errors
    /// [`SampleError`] when the engine would not make such a call.
    pub fn new(
        catalog: &ProtocolCatalog,
        capability: &str,
        params: Value,
    ) -> Result<Self, SampleError> {
        let name = || capability.to_owned();
        let method = capability.parse::<Capability>().ok().and_then(|id| catalog.method(&id));
        let method = method.ok_or_else(|| SampleError::UnknownMethod { capability: name() })?;
        let filled = method.params.fill(&Arc::new(params)).map_err(|violations| {
            SampleError::Params { capability: name(), violations: listed(&violations) }
        })?;
        Ok(Self { method, filled, accepts: Box::new(|_| Ok(())) })
    }

    /// The result must be `expected`.
    #[must_use]
    pub fn returning(self, expected: Value) -> Self {
        self.accepting(move |result| {
            if *result == expected { Ok(()) } else { Err(format!("expected {expected}")) }
        })
    }

    /// Sets a check of the result, which returns the error. To show that calls do not mix, it must
    /// reject the results of the other samples.
    #[must_use]
    pub fn accepting(mut self, accepts: impl Fn(&Value) -> Result<(), String> + 'static) -> Self {
        self.accepts = Box::new(accepts);
        self
    }

    /// The call, as first attempt of a task of its own.
    pub fn call(&self, task: &str) -> Call {
        Call {
            workflow_id: "conformance".into(),
            task_id: task.into(),
            attempt: 1,
            method: Arc::clone(&self.method),
            params: Arc::clone(&self.filled.params),
            defaulted: Arc::clone(&self.filled.defaulted),
            timeout: TIMEOUT,
            resources: Resources::default(),
            file_access: None,
        }
    }

    pub(super) fn check(&self, outcome: Result<Outcome, TaskError>) -> Result<(), String> {
        let value = outcome.map_err(|error| format!("failed: {error}"))?.value;
        if let Some(returns) = &self.method.returns {
            let violations = returns.check(&value);
            if !violations.is_empty() {
                return Err(format!("result {value} breaks its schema: {}", listed(&violations)));
            }
        }
        (self.accepts)(&value).map_err(|wrong| format!("result {value}: {wrong}"))
    }
}

pub(super) fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
