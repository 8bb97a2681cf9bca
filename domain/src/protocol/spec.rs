//! The declared form of a protocol: pure data with the field names of the file format.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parameter::ParameterSpec;
use crate::{
    duration,
    id::{ProtocolId, Version},
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
    /// The author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// The address of its documentation.
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
    /// The schema of a result; `None` checks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns_schema: Option<ParameterSpec>,
    /// Uses of the method, checked against the schemas at registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<MethodExample>,
    /// True warns once when the method is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
    /// The limit of one attempt if the task sets none. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<Duration>,
    /// The parameter that limits an attempt, in seconds. If a task sets it, it counts like the
    /// task's own `timeout`; its default counts only if the task sets neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_parameter: Option<String>,
    /// How long a call waits for providers that are all down, instead of `engine.provider_wait_timeout`; it
    /// holds in a process that serves, too. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub provider_wait_seconds: Option<Duration>,
    /// The retry policy if the task sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// The resources of one call if the task sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<ResourceRequirements>,
    /// The isolation that the method requires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_requirements: Option<SecurityRequirements>,
    /// The meaning of running a call twice; decides recovery after a crash.
    #[serde(default)]
    pub effect: Effect,
}

impl MethodSpec {
    /// A method without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Appends a parameter.
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

/// An example of a call: parameters and, optionally, the result.
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

/// The meaning of running a call twice; decides what a restart does with a call that a crash
/// interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// No effect outside: the call is repeated. If the id of a workflow is generated, its first
    /// tasks may be called before it is stored, provided that all of them are pure.
    Pure,
    /// Twice equals once: it runs again, with the same idempotency key.
    Idempotent,
    /// Twice is acceptable: it runs again, and the attempt counts.
    #[default]
    AtLeastOnce,
    /// Must not run twice: its start is committed first, and a start without an outcome becomes
    /// `outcome_unknown` until a person resolves it. A failed call is not repeated, regardless of
    /// the retry policy, unless the error itself allows another attempt.
    AtMostOnce,
}
