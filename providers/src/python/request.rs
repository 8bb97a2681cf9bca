//! Reads the parameters of a call and makes a job of them.

use std::{collections::BTreeMap, time::Duration};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::Call,
};
use gleitzeit_sandbox::{Job, Limits, Mode, ResultType, Source};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::security::AdmittedCall;

/// The parameters of `execute`; those of `validate` are some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PythonRequest {
    pub(super) code: Option<String>,
    pub(super) file: Option<String>,
    #[serde(deserialize_with = "seconds")]
    pub(super) timeout: Option<Duration>,
    environment: Option<BTreeMap<String, Value>>,
    imports: Option<Vec<String>>,
    context: Option<Map<String, Value>>,
    stdin: Option<String>,
    result_type: Option<ResultType>,
}

fn seconds<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let Some(seconds) = Option::<f64>::deserialize(input)? else { return Ok(None) };
    Duration::try_from_secs_f64(seconds)
        .map(Some)
        .map_err(|_| serde::de::Error::custom(format!("`timeout` {seconds} is no span of time")))
}

impl PythonRequest {
    /// Reads what the protocol has checked already, as far as a protocol can.
    pub(super) fn read(params: &Value) -> Result<Self, TaskError> {
        let mut request = Self::deserialize(params)
            .map_err(|error| TaskError::new(ErrorCode::InvalidParams, error.to_string()))?;
        for (name, value) in request.environment.iter_mut().flatten() {
            if let Some(text) = as_text(value) {
                *value = Value::String(text);
            } else {
                return Err(TaskError::new(
                    ErrorCode::InvalidParams,
                    format!("/environment/{name}: {value} is not text, a number or a boolean"),
                ));
            }
        }
        Ok(request)
    }

    /// The job of a call.
    pub(super) fn into_job(
        self,
        source: Source,
        admission: AdmittedCall,
        limits: Limits,
        call: &Call,
    ) -> Job {
        let context = self.context.unwrap_or_default();
        let mut globals = Map::new();
        globals.insert("context".to_owned(), Value::Object(context));
        globals.insert("attempt".to_owned(), json!(call.attempt));
        Job {
            source,
            mode: Mode::Execute,
            stdin: self.stdin.unwrap_or_default(),
            environment: self
                .environment
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, value)| Some((name, as_text(&value)?)))
                .collect(),
            imports: self.imports.unwrap_or_default(),
            globals,
            result_as_repr: self.result_type == Some(ResultType::Repr),
            policy: admission.policy,
            network: admission.network,
            limits,
        }
    }
}

/// The text of a variable: numbers and booleans as JSON writes them.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Code that is in no file.
pub(super) fn inline(code: &str) -> Source {
    Source::text(code)
}

pub(super) fn one_of_code_and_file(both: bool) -> TaskError {
    let found = if both { "both are" } else { "neither is" };
    TaskError::new(
        ErrorCode::InvalidParams,
        format!("exactly one of `code` and `file` must be given, and {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of variables are text in the end; what has no obvious text is refused by its place.
    #[test]
    fn environment_values_become_text() {
        let params = json!({"environment": {"A": "x", "B": 1.5, "C": true}});
        let request = PythonRequest::read(&params).unwrap();
        let texts: Vec<_> = request.environment.unwrap().into_values().collect();
        assert_eq!(texts, [json!("x"), json!("1.5"), json!("true")]);
        let error = PythonRequest::read(&json!({"environment": {"A": [1]}})).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParams);
        assert!(error.message.starts_with("/environment/A: [1]"), "{error}");
    }
}
