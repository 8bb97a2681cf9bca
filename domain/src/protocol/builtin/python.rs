//! The protocol `python/v1.0`.

use serde_json::json;

use super::shared::{V1, tags, texts};
use crate::protocol::{
    parameter::{ParameterSpec, ParameterType},
    spec::{Effect, MethodExample, MethodSpec, ProtocolSpec},
};

/// How Python code ends.
const PYTHON_STATUSES: [&str; 8] = [
    "ok",
    "error",
    "timeout",
    "memory_limit",
    "output_limit",
    "policy_violation",
    "cancelled",
    "killed",
];

/// Characters of inline code: 256 Ki.
const CODE_MAX: usize = 256 * 1024;

/// `python/v1.0`: runs and checks Python code.
pub fn python() -> ProtocolSpec {
    ProtocolSpec {
        description: Some("Python code execution protocol".into()),
        tags: tags(&["python", "code"]),
        ..ProtocolSpec::new("python", V1)
    }
    .method(python_execute())
    .method(python_validate())
}

fn python_execute() -> MethodSpec {
    let spec = MethodSpec::new("execute")
        .param(
            "code",
            ParameterSpec::string()
                .min_length(1)
                .max_length(CODE_MAX)
                .optional()
                .describe("Python code to execute; exactly one of `code` and `file` is given"),
        )
        .param(
            "timeout",
            ParameterSpec::integer().minimum(1).maximum(3_600).default_value(30).describe(
                "Execution timeout in seconds; 30 where the task has no `timeout` either",
            ),
        )
        .param(
            "environment",
            ParameterSpec::new(ParameterType::Object).optional().describe("Environment variables"),
        )
        .param("imports", texts().optional().describe("Modules to import"))
        .param(
            "file",
            ParameterSpec::string()
                .min_length(1)
                .optional()
                .describe("Path of a Python script to execute instead of `code`"),
        )
        .param(
            "context",
            ParameterSpec::new(ParameterType::Object)
                .optional()
                .describe("Data that the code sees as the global `context`"),
        )
        .param(
            "stdin",
            ParameterSpec::string()
                .optional()
                .describe("What the code reads from standard input; nothing where absent"),
        )
        .param(
            "result_type",
            ParameterSpec::string()
                .one_of(["json", "repr"])
                .optional()
                .describe("`repr` gives the text of the result, whatever it is; else it is JSON"),
        )
        .returns(ParameterSpec::object([
            ("result", ParameterSpec::any().describe("What the code leaves as its result")),
            ("stdout", ParameterSpec::string()),
            ("stderr", ParameterSpec::string()),
            ("execution_time", ParameterSpec::number().describe("Seconds")),
            ("exit_code", ParameterSpec::integer()),
            ("output", ParameterSpec::string().optional().describe("The same as `stdout`")),
            ("success", ParameterSpec::boolean().optional()),
            (
                "result_type",
                ParameterSpec::string()
                    .one_of(["json", "repr", "stdout"])
                    .optional()
                    .describe("What `result` is: the value, its text, or what was printed"),
            ),
            ("status", ParameterSpec::string().one_of(PYTHON_STATUSES).optional()),
            (
                "signal",
                ParameterSpec::any().optional().describe("Number of the signal that ended it"),
            ),
            ("truncated", ParameterSpec::boolean().optional()),
            ("cpu_time", ParameterSpec::any().optional().describe("Seconds, where known")),
            ("max_rss_bytes", ParameterSpec::any().optional().describe("Where known")),
            (
                "sandbox",
                ParameterSpec::string()
                    .optional()
                    .describe("How far the code was kept from the machine"),
            ),
        ]));
    MethodSpec {
        description: Some("Execute Python code".into()),
        examples: vec![MethodExample {
            params: json!({"code": "print('Hello, World!')", "timeout": 10}),
            result: Some(json!({
                "result": "Hello, World!\n",
                "stdout": "Hello, World!\n",
                "stderr": "",
                "execution_time": 0.001,
                "exit_code": 0,
            })),
            description: None,
        }],
        effect: Effect::AtLeastOnce,
        timeout_parameter: Some("timeout".into()),
        ..spec
    }
}

fn python_validate() -> MethodSpec {
    let spec = MethodSpec::new("validate")
        .param("code", ParameterSpec::string().describe("Python code to check"))
        .returns(ParameterSpec::object([
            ("is_valid", ParameterSpec::boolean()),
            ("errors", texts()),
            (
                "diagnostics",
                ParameterSpec::array(ParameterSpec::new(ParameterType::Object))
                    .optional()
                    .describe("The errors again, each with its line and column"),
            ),
        ]));
    MethodSpec {
        description: Some("Validate Python code syntax".into()),
        examples: vec![MethodExample {
            params: json!({"code": "x = 1"}),
            result: Some(json!({"is_valid": true, "errors": []})),
            description: None,
        }],
        effect: Effect::Pure,
        ..spec
    }
}
