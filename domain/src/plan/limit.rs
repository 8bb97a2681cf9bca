//! The limit of one attempt if a parameter of the method limits it, too.
//!
//! Invariant: a default never shortens or lengthens what the task gives.

use std::time::Duration;

use serde_json::Value;

use crate::protocol::MethodSpec;

/// The limit that a method's `timeout_parameter` sets for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByParameter {
    /// Nothing: the method has no such parameter, or the parameter has neither value nor default.
    None,
    /// The task gives it.
    Set(Duration),
    /// The task gives it as a reference: no more than this, and known only when the task runs.
    SetLater(Duration),
    /// The task does not give it; the schema fills this in.
    Default(Duration),
}

/// Looks for the limit among the parameters of a task, which are not filled in yet.
pub(super) fn by_parameter(method: &MethodSpec, parameters: &Value) -> ByParameter {
    let Some(name) = &method.timeout_parameter else { return ByParameter::None };
    let Some((index, _, spec)) = method.params_schema.get_full(name) else {
        return ByParameter::None;
    };
    let own = match parameters {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(index),
        _ => None,
    };
    match own {
        None => {
            spec.default.as_ref().and_then(seconds).map_or(ByParameter::None, ByParameter::Default)
        }
        // A value that is neither a number nor a reference breaks the schema and never runs.
        Some(value) => {
            if let Some(limit) = seconds(value) {
                ByParameter::Set(limit)
            } else {
                let most =
                    spec.maximum.as_ref().and_then(|most| seconds(&Value::Number(most.clone())));
                ByParameter::SetLater(most.unwrap_or(Duration::MAX))
            }
        }
    }
}

impl ByParameter {
    /// The limit of an attempt of a task whose own limit is `own`, else `usual`.
    pub(super) fn with(self, own: Option<Duration>, usual: impl FnOnce() -> Duration) -> Duration {
        match (own, self) {
            (Some(own), Self::Set(limit) | Self::SetLater(limit)) => own.min(limit),
            (Some(own), Self::None | Self::Default(_)) => own,
            (None, Self::Set(limit) | Self::SetLater(limit)) => limit,
            (None, Self::Default(limit)) => limit.min(usual()),
            (None, Self::None) => usual(),
        }
    }
}

fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::ParameterSpec;

    const SECOND: Duration = Duration::from_secs(1);

    fn limit(own: Option<u64>, parameters: &Value) -> u64 {
        let timeout = ParameterSpec::integer().maximum(3_600).default_value(30);
        let method = MethodSpec {
            timeout_parameter: Some("timeout".into()),
            ..MethodSpec::new("run")
                .param("code", ParameterSpec::string())
                .param("timeout", timeout)
        };
        let own = own.map(Duration::from_secs);
        by_parameter(&method, parameters).with(own, || 300 * SECOND).as_secs()
    }

    /// The task's own limit counts, whatever the default of the parameter.
    #[test]
    fn a_default_never_beats_a_parameter_of_the_task() {
        assert_eq!(limit(Some(60), &json!({"code": "1"})), 60);
        assert_eq!(limit(Some(5), &json!({"code": "1"})), 5);
        assert_eq!(limit(None, &json!({"code": "1", "timeout": 600})), 600);
        assert_eq!(limit(None, &json!(["1", 600])), 600);
        assert_eq!(limit(None, &json!({"code": "1"})), 30);
        assert_eq!(limit(None, &Value::Null), 30);
    }

    /// Of two limits that the task gives, the nearer one counts.
    #[test]
    fn the_shorter_of_two_limits_counts() {
        assert_eq!(limit(Some(60), &json!({"timeout": 5})), 5);
        assert_eq!(limit(Some(5), &json!({"timeout": 60})), 5);
    }

    /// A limit that another task's result will say is bounded by the schema until then.
    #[test]
    fn a_reference_leaves_room_for_what_it_may_say() {
        assert_eq!(limit(None, &json!({"timeout": "${a.result}"})), 3_600);
        assert_eq!(limit(Some(60), &json!({"timeout": "${a.result}"})), 60);
    }

    /// A method without such a parameter has the usual limit.
    #[test]
    fn other_methods_have_the_usual_limit() {
        let method = MethodSpec::new("run");
        let limit = by_parameter(&method, &json!({"timeout": 5}));
        assert_eq!(limit, ByParameter::None);
        assert_eq!(limit.with(None, || 300 * SECOND), 300 * SECOND);
    }
}
