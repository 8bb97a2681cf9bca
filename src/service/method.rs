//! One method of a service: its handler without its types, and its specification.

use std::{any::type_name, future::Future, pin::Pin, sync::Arc};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    protocol::{MethodSpec, ParameterSpec, ParameterType},
    provider::Call,
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    CallContext, HandlerError,
    lower::{self, LowerProblem, Side},
};

type Answer = Result<Value, HandlerError>;
type Shared =
    dyn Fn(&Value, CallContext) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;
type Local = dyn Fn(&Value, CallContext) -> Pin<Box<dyn Future<Output = Answer>>> + Send + Sync;

/// A handler whose types are erased.
#[derive(Clone)]
pub(super) enum Run {
    /// The futures may be sent to another thread.
    Shared(Arc<Shared>),
    /// The futures stay on the provider's thread.
    Local(Arc<Local>),
}

/// A declared method.
#[derive(Clone)]
pub(super) struct Method {
    pub(super) spec: MethodSpec,
    pub(super) run: Run,
    pub(super) is_blocking: bool,
    /// The input type is `()`.
    takes_nothing: bool,
}

impl Method {
    /// A method whose futures may go to another thread, and what is wrong with its types.
    pub(super) fn shared<I, O, E, F, R>(name: &str, handler: F) -> (Self, Vec<LowerProblem>)
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: Into<HandlerError>,
        F: Fn(I, CallContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + Send + 'static,
    {
        let run: Arc<Shared> = Arc::new(move |input, context| match read::<I>(input) {
            Ok(input) => {
                let answer = handler(input, context);
                Box::pin(async move { write(answer.await.map_err(Into::into)?) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        });
        Self::new::<I, O>(name, Run::Shared(run))
    }

    /// A method whose futures stay on the provider's thread, and what is wrong with its types.
    pub(super) fn local<I, O, E, F, R>(name: &str, handler: F) -> (Self, Vec<LowerProblem>)
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: Into<HandlerError>,
        F: Fn(I, CallContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + 'static,
    {
        let run: Arc<Local> = Arc::new(move |input, context| match read::<I>(input) {
            Ok(input) => {
                let answer = handler(input, context);
                Box::pin(async move { write(answer.await.map_err(Into::into)?) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error))),
        });
        Self::new::<I, O>(name, Run::Local(run))
    }

    fn new<I: JsonSchema, O: JsonSchema>(name: &str, run: Run) -> (Self, Vec<LowerProblem>) {
        let mut problems = Vec::new();
        let input = lower::lower::<I>(Side::Input, type_name::<I>(), &mut problems);
        let result = lower::lower::<O>(Side::Result, type_name::<O>(), &mut problems);
        let mut spec = MethodSpec::new(name);
        let takes_nothing = *input.kind.as_slice() == [ParameterType::Null];
        let is_object = *input.kind.as_slice() == [ParameterType::Object];
        if is_object {
            spec.additional_params = input.additional_properties;
            spec.params_schema = input.properties.unwrap_or_default();
        } else if !takes_nothing && problems.is_empty() {
            problems.push(LowerProblem::new(Side::Input, type_name::<I>(), NOT_PARAMETERS));
        }
        spec.returns_schema = Some(result);
        (Self { spec, run, is_blocking: false, takes_nothing }, problems)
    }

    /// The input of a call, as the handler's type reads it.
    pub(super) fn input(&self, call: &Call) -> Arc<Value> {
        if self.takes_nothing {
            return Arc::default();
        }
        let specs = &self.spec.params_schema;
        if !call.params.as_object().is_some_and(|fields| is_any_spelled(fields, specs)) {
            return Arc::clone(&call.params);
        }
        let mut input = Value::clone(&call.params);
        if let Value::Object(fields) = &mut input {
            make_whole_fields(fields, specs);
        }
        Arc::new(input)
    }
}

const NOT_PARAMETERS: &str =
    "its parameters have no names; use a struct with named fields, or `()` for no parameters";

fn read<I: DeserializeOwned>(input: &Value) -> Result<I, HandlerError> {
    serde_path_to_error::deserialize(input).map_err(|error| {
        let message = format!("parameters do not fit `{}`: {error}", type_name::<I>());
        HandlerError::new(message).code(ErrorCode::InvalidParams).terminal()
    })
}

fn write<O: Serialize>(output: O) -> Answer {
    serde_json::to_value(output).map_err(|error| {
        let message = format!("result `{}` is not JSON: {error}", type_name::<O>());
        HandlerError::from(TaskError::new(ErrorCode::TaskResultInvalid, message)).terminal()
    })
}

type Fields = indexmap::IndexMap<String, ParameterSpec>;

fn is_integer(spec: &ParameterSpec) -> bool {
    let kinds = spec.kind.as_slice();
    kinds.contains(&ParameterType::Integer) && !kinds.contains(&ParameterType::Number)
}

/// True if an integer is written as a fraction: `2.0` is an integer to a schema, and not to serde.
fn is_spelled(value: &Value, spec: &ParameterSpec) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && is_integer(spec),
        Value::Array(items) => {
            spec.items.as_ref().is_some_and(|spec| items.iter().any(|it| is_spelled(it, spec)))
        }
        Value::Object(fields) => {
            spec.properties.as_ref().is_some_and(|specs| is_any_spelled(fields, specs))
        }
        _ => false,
    }
}

fn is_any_spelled(fields: &Map<String, Value>, specs: &Fields) -> bool {
    specs.iter().any(|(name, spec)| fields.get(name).is_some_and(|value| is_spelled(value, spec)))
}

/// Writes `2.0` as `2` if the schema has an integer.
fn make_whole(value: &mut Value, spec: &ParameterSpec) {
    match value {
        Value::Number(number) if is_integer(spec) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::Array(items) => {
            if let Some(spec) = &spec.items {
                for item in items {
                    make_whole(item, spec);
                }
            }
        }
        Value::Object(fields) => {
            if let Some(specs) = &spec.properties {
                make_whole_fields(fields, specs);
            }
        }
        _ => {}
    }
}

fn make_whole_fields(fields: &mut Map<String, Value>, specs: &Fields) {
    for (name, spec) in specs {
        if let Some(value) = fields.get_mut(name) {
            make_whole(value, spec);
        }
    }
}

/// The integer that a number written with a fraction of zero is.
#[expect(clippy::cast_possible_truncation, reason = "within what a float holds exactly")]
fn whole(number: &serde_json::Number) -> Option<serde_json::Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !number.is_f64() {
        return None;
    }
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() <= EXACT).then(|| (float as i64).into())
}
