//! The protocol `echo/v1.0`.

use serde_json::json;

use super::shared::{V1, tags};
use crate::protocol::{
    parameter::{ParameterSpec, ParameterType},
    spec::{Effect, MethodExample, MethodSpec, ProtocolSpec},
};

/// `echo/v1.0`: methods for tests, examples and benchmarks. The first three return their
/// parameters; `ping`, `timestamp` and `delay` are those of Python Gleitzeit 0.0.4.
pub fn echo() -> ProtocolSpec {
    ProtocolSpec {
        description: Some("Return the parameters; for tests and examples".into()),
        tags: tags(&["echo", "test"]),
        ..ProtocolSpec::new("echo", V1)
    }
    .method(MethodSpec {
        description: Some("Answer with the parameters".into()),
        examples: vec![MethodExample {
            params: json!({"text": "hello"}),
            result: Some(json!({"text": "hello"})),
            description: None,
        }],
        ..echoing("echo")
    })
    .method(MethodSpec {
        description: Some("Answer with the parameters, after a while".into()),
        ..echoing("sleep")
            .param("seconds", ParameterSpec::number().minimum(0).describe("How long to wait"))
    })
    .method(echo_fail())
    .method(echo_ping())
    .method(echo_timestamp())
    .method(echo_delay())
}

fn echo_ping() -> MethodSpec {
    let message = ParameterSpec::any().optional().describe("The response, instead of `pong`");
    let spec = echoing("ping").param("message", message).returns(ParameterSpec::object([
        ("response", ParameterSpec::any()),
        ("timestamp", timestamp()),
    ]));
    MethodSpec { description: Some("Answer `pong`, or a message, and the time".into()), ..spec }
}

fn echo_timestamp() -> MethodSpec {
    let spec = echoing("timestamp").returns(ParameterSpec::object([
        ("timestamp", timestamp()),
        ("unix_timestamp", ParameterSpec::number().describe("Seconds since 1970")),
    ]));
    MethodSpec { description: Some("Answer with the time".into()), ..spec }
}

fn echo_delay() -> MethodSpec {
    let seconds = ParameterSpec::number().minimum(0).default_value(1).describe("How long to wait");
    let spec = echoing("delay").param("seconds", seconds).returns(ParameterSpec::object([
        ("delayed_for_seconds", ParameterSpec::number()),
        ("parameters", ParameterSpec::new(ParameterType::Object)),
        ("timestamp", timestamp()),
    ]));
    MethodSpec {
        description: Some("Answer with the parameters and the time, after a while".into()),
        ..spec
    }
}

fn timestamp() -> ParameterSpec {
    ParameterSpec::string().describe("Time in UTC, ISO 8601")
}

fn echo_fail() -> MethodSpec {
    let code = ParameterSpec::union([ParameterType::String, ParameterType::Integer]);
    let spec = echoing("fail")
        .param("message", ParameterSpec::string().optional().describe("What the error says"))
        .param("code", code.optional().describe("Name or number of the error code"))
        .param(
            "times",
            ParameterSpec::integer()
                .minimum(0)
                .maximum(u32::MAX)
                .optional()
                .describe("Fail only in that many first attempts; without it, in all"),
        );
    MethodSpec { description: Some("Fail on request".into()), ..spec }
}

fn echoing(name: &str) -> MethodSpec {
    MethodSpec { additional_params: true, effect: Effect::Pure, ..MethodSpec::new(name) }
}
