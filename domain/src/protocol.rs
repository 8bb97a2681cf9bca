//! Protocols: the typed contract between a workflow and the providers that serve it.
//!
//! Pure data with the field names of the design; read from TOML, JSON or Rust. What makes a
//! protocol usable — its `extends` followed, its schemas checked and its patterns compiled — is
//! [`ProtocolCatalog`](catalog::ProtocolCatalog)'s.

pub mod builtin;
pub mod catalog;
pub mod nearest;
pub mod parameter;
pub mod schema;
pub mod validate;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use parameter::{OneOrMany, ParameterSpec, ParameterType};

use crate::{
    duration,
    error::{ErrorCode, TaskError},
    id::{Capability, ProtocolId, Version},
    resources::ResourceRequirements,
    retry::RetryPolicy,
    security::SecurityRequirements,
};

/// A protocol: what a provider of it can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolSpec {
    /// The name, without a version: `python`.
    pub name: String,
    /// The version: `v1.0`.
    pub version: Version,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The protocol whose methods this one inherits; its own override them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<ProtocolId>,
    /// The methods by name, in the order of their declaration.
    #[serde(default)]
    pub methods: IndexMap<String, MethodSpec>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Its licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where more is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation_url: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl ProtocolSpec {
    /// A protocol without methods.
    pub fn new(name: impl Into<String>, version: Version) -> Self {
        Self {
            name: name.into(),
            version,
            description: None,
            extends: None,
            methods: IndexMap::new(),
            author: None,
            license: None,
            documentation_url: None,
            tags: Vec::new(),
        }
    }

    /// Adds a method under its own name.
    #[must_use]
    pub fn method(mut self, method: MethodSpec) -> Self {
        self.methods.insert(method.name.clone(), method);
        self
    }

    /// `name/version`.
    pub fn protocol_id(&self) -> ProtocolId {
        ProtocolId::new(self.name.as_str(), self.version)
    }
}

/// One method of a protocol.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodSpec {
    /// The bare name: `execute`. In a file the key may say it instead.
    #[serde(default)]
    pub name: String,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The parameters by name; their order is that of positional parameters.
    #[serde(default)]
    pub params_schema: IndexMap<String, ParameterSpec>,
    /// False refuses parameters that `params_schema` does not name. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub additional_params: bool,
    /// The shape of a result; nothing is checked where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_schema: Option<ParameterSpec>,
    /// Uses of the method, checked against the schemas at registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<MethodExample>,
    /// True warns once when the method is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
    /// The limit of one attempt, where the task says none. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<Duration>,
    /// The parameter that limits an attempt, in seconds. Where a task gives it, it counts like the
    /// task's own `timeout`; its default counts only where the task gives neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_parameter: Option<String>,
    /// How long a call waits for providers that are all down, instead of `engine.provider_wait_timeout`; it
    /// holds in a process that serves, too. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub provider_wait_seconds: Option<Duration>,
    /// When and how often a failed attempt is repeated, where the task says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// What one call takes, where the task says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<ResourceRequirements>,
    /// What the place where it runs must guarantee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_requirements: Option<SecurityRequirements>,
    /// What running it twice means; decides recovery after a crash.
    #[serde(default)]
    pub effect: Effect,
}

impl MethodSpec {
    /// A method without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds a parameter behind those declared so far.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, spec: ParameterSpec) -> Self {
        self.params_schema.insert(name.into(), spec);
        self
    }

    /// Sets the schema of the result.
    #[must_use]
    pub fn returns(mut self, spec: ParameterSpec) -> Self {
        self.returns_schema = Some(spec);
        self
    }
}

/// A use of a method: what is given and, where told, what comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodExample {
    /// The parameters, by name or by position.
    pub params: Value,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// For a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What running a call twice means; decides what a restart does with a call cut short by a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No effect outside: it runs again. Where the id of a workflow is made up, its first tasks
    /// may be called before it is stored, if all of them are of this kind.
    Pure,
    /// Twice equals once: it runs again, with the same idempotency key.
    Idempotent,
    /// Twice is acceptable: it runs again, and the attempt counts.
    #[default]
    AtLeastOnce,
    /// Must not run twice: its start is committed first, and a start without an outcome becomes
    /// `outcome_unknown` until a person settles it. A call that failed is not repeated, whatever
    /// the retry policy, unless its error says itself that another attempt may help.
    AtMostOnce,
}

/// A method ready for use: inherited, checked, with its identity. Shared by every task that calls
/// it.
#[derive(Debug)]
pub struct Method {
    /// Protocol and bare name.
    pub capability: Arc<Capability>,
    /// As declared, or as inherited.
    pub spec: MethodSpec,
    /// The compiled schema of the parameters.
    pub params: validate::ParamsValidator,
    /// The compiled schema of the result.
    pub returns: Option<validate::Validator>,
    /// As a workflow needs it whose task names the version, and one whose task does not; see
    /// [`Needs`](crate::needs::Needs).
    pub(crate) need: Arc<str>,
    pub(crate) need_or_later: Arc<str>,
    /// True from the moment somebody was told that the method is deprecated.
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
    ) -> Result<Self, Vec<validate::SchemaError>> {
        catalog::compile_method(capability.into(), spec)
    }

    /// True once in the life of a deprecated method: for whoever asks first. The others need not
    /// warn again.
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
