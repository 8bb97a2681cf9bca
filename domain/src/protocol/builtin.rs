//! The protocols that are always there: `python/v1.0`, `llm/v1.0` and `echo/v1.0`.
//!
//! Registered by the runtime at its start. Fields, limits and defaults are part of the contract
//! with workflow files; the order of parameters is that of positional calls, so new ones come
//! last.

use serde_json::{Value, json};

use super::{Effect, MethodExample, MethodSpec, ParameterSpec, ParameterType, ProtocolSpec};
use crate::id::{Capability, Version};

const V1: Version = Version { major: 1, minor: 0, patch: 0 };

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

/// Every built-in protocol.
pub fn all() -> Vec<ProtocolSpec> {
    vec![python(), llm(), echo()]
}

/// True for the name of a built-in protocol, in whatever version.
pub(crate) fn is_builtin(name: &str) -> bool {
    matches!(name, "python" | "llm" | "echo")
}

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
                .max_length(10_000)
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

/// `llm/v1.0`: talks to large language models.
///
/// Replies are sampled, so asking twice is acceptable, and not the same as asking once: `chat`,
/// `generate` and `vision` are at-least-once. An embedding is a function of its text: `embed` is
/// pure.
pub fn llm() -> ProtocolSpec {
    ProtocolSpec {
        description: Some("Large Language Model interaction protocol".into()),
        tags: tags(&["llm", "chat", "embedding", "vision"]),
        ..ProtocolSpec::new("llm", V1)
    }
    .method(llm_chat())
    .method(llm_embed())
    .method(llm_generate())
    .method(llm_vision())
}

fn llm_chat() -> MethodSpec {
    let spec = MethodSpec::new("chat").param("messages", messages());
    let spec = sampling(spec, "llama3.2").param("file_path", text_file());
    let spec = steering(spec).returns(reply());
    MethodSpec {
        description: Some("Chat with language model".into()),
        examples: vec![MethodExample {
            params: json!({"messages": [{"role": "user", "content": "What is 2 + 2?"}]}),
            result: Some(json!({
                "response": "4",
                "model": "llama3.2",
                "tokens_used": 12,
                "finish_reason": "stop",
                "metadata": {},
            })),
            description: None,
        }],
        ..spec
    }
}

fn llm_embed() -> MethodSpec {
    let spec = MethodSpec::new("embed")
        .param("text", ParameterSpec::string().min_length(1).describe("The text to embed"))
        .param("model", model("nomic-embed-text"))
        .param("options", options())
        .param("keep_alive", keep_alive())
        .returns(ParameterSpec::object([
            ("embedding", ParameterSpec::array(ParameterSpec::number())),
            ("model", ParameterSpec::string()),
            ("dimensions", ParameterSpec::integer()),
            ("metadata", ParameterSpec::new(ParameterType::Object).optional()),
        ]));
    MethodSpec {
        description: Some("Generate embeddings for text".into()),
        effect: Effect::Pure,
        ..spec
    }
}

fn llm_generate() -> MethodSpec {
    let prompt = ParameterSpec::string().min_length(1).describe("The text to complete");
    let system = ParameterSpec::string().optional().describe("What the model is told beforehand");
    let spec = sampling(MethodSpec::new("generate").param("prompt", prompt), "llama3.2")
        .param("system", system)
        .param("file_path", text_file());
    let spec = steering(spec).returns(reply());
    MethodSpec {
        description: Some("Complete a prompt".into()),
        examples: vec![MethodExample {
            params: json!({"prompt": "The capital of France is", "temperature": 0}),
            result: None,
            description: None,
        }],
        ..spec
    }
}

fn llm_vision() -> MethodSpec {
    let asked = "one of `messages` and `prompt` is given";
    let spec = MethodSpec::new("vision")
        .param(
            "messages",
            messages().optional().describe(format!("Conversation messages; {asked}")),
        )
        .param(
            "images",
            texts().min_length(1).optional().describe("Images, in base64 or as paths of files"),
        );
    let spec = sampling(spec, "llava")
        .param(
            "image_path",
            ParameterSpec::string().min_length(1).optional().describe("Path of one image file"),
        )
        .param(
            "prompt",
            ParameterSpec::string()
                .min_length(1)
                .optional()
                .describe(format!("What is asked about the images; {asked}")),
        )
        .param(
            "image_paths",
            texts().min_length(1).optional().describe("Paths of several image files"),
        );
    let spec = steering(spec).returns(reply());
    MethodSpec {
        description: Some("Ask about images".into()),
        examples: vec![MethodExample {
            params: json!({"prompt": "What is on it?", "image_path": "photo.jpg"}),
            result: None,
            description: None,
        }],
        ..spec
    }
}

fn messages() -> ParameterSpec {
    let role = ParameterSpec::string().one_of(["system", "user", "assistant"]);
    let content = ParameterSpec::string().min_length(1);
    ParameterSpec::array(ParameterSpec::object([("role", role), ("content", content)]))
        .min_length(1)
        .describe("Conversation messages")
}

fn model(default: &str) -> ParameterSpec {
    ParameterSpec::string().default_value(default).describe("Model to use")
}

fn text_file() -> ParameterSpec {
    let about = "Path of a text file whose content is put behind the last message or the prompt";
    ParameterSpec::string().min_length(1).optional().describe(about)
}

/// Adds the parameters that steer the making of a reply.
fn sampling(method: MethodSpec, default_model: &str) -> MethodSpec {
    method
        .param("model", model(default_model))
        .param(
            "temperature",
            ParameterSpec::number()
                .minimum(0.0)
                .maximum(2.0)
                .default_value(0.7)
                .describe("Sampling temperature"),
        )
        .param(
            "max_tokens",
            ParameterSpec::integer()
                .minimum(1)
                .maximum(32_768)
                .optional()
                .describe("Maximum tokens to generate"),
        )
        .param("stream", ParameterSpec::boolean().default_value(false).describe("Stream response"))
}

/// Adds what is passed on to the server: how much it reads, in which form it answers, and for how long
/// it keeps the model.
fn steering(method: MethodSpec) -> MethodSpec {
    let format = ParameterSpec::union([ParameterType::String, ParameterType::Object]);
    method
        .param(
            "num_ctx",
            ParameterSpec::integer()
                .minimum(1)
                .optional()
                .describe("Tokens that the model reads; a longer prompt is cut by the server"),
        )
        .param(
            "format",
            format.optional().describe("`json`, or the JSON Schema that the reply is to follow"),
        )
        .param("keep_alive", keep_alive())
        .param("options", options())
}

fn keep_alive() -> ParameterSpec {
    let about = "How long the server keeps the model loaded: a span such as `10m`, or seconds";
    ParameterSpec::union([ParameterType::String, ParameterType::Number]).optional().describe(about)
}

fn options() -> ParameterSpec {
    let about = "Further options of the server, such as `seed` or `top_p`, passed on as they are";
    ParameterSpec::new(ParameterType::Object).optional().describe(about)
}

fn reply() -> ParameterSpec {
    ParameterSpec::object([
        ("response", ParameterSpec::string()),
        ("model", ParameterSpec::string()),
        ("tokens_used", ParameterSpec::integer()),
        ("finish_reason", ParameterSpec::string()),
        ("metadata", ParameterSpec::new(ParameterType::Object)),
    ])
}

/// `echo/v1.0`: does what it is told, for tests, examples and benchmarks. The first three answer with
/// their parameters; `ping`, `timestamp` and `delay` are those of Python Gleitzeit 0.0.4.
pub fn echo() -> ProtocolSpec {
    ProtocolSpec {
        description: Some("Answers with what it was given; for tests and examples".into()),
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
    MethodSpec { description: Some("Fail as told".into()), ..spec }
}

fn echoing(name: &str) -> MethodSpec {
    MethodSpec { additional_params: true, effect: Effect::Pure, ..MethodSpec::new(name) }
}

fn texts() -> ParameterSpec {
    ParameterSpec::array(ParameterSpec::string())
}

/// Parameters of which so many must be given, which their own schemas cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Their names.
    pub names: &'static [&'static str],
    /// True where it must be only one.
    pub only_one: bool,
}

impl Choice {
    /// What is wrong with parameters given by name; `None` where nothing is, or where they are
    /// given by position.
    pub fn violation(&self, parameters: &Value) -> Option<String> {
        let fields = match parameters {
            Value::Null => None,
            Value::Object(fields) => Some(fields),
            _ => return None,
        };
        let is_present = |name: &&&str| {
            fields.and_then(|fields| fields.get(**name)).is_some_and(|value| !value.is_null())
        };
        let count = self.names.iter().filter(is_present).count();
        let names = self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let (both, either) = (names.join(" and "), names.join(", "));
        match (count, self.only_one) {
            (0, true) => Some(format!("exactly one of {both} must be given, and neither is")),
            (0, false) => Some(format!("at least one of {either} must be given, and none is")),
            (1, _) | (_, false) => None,
            _ => Some(format!("exactly one of {both} must be given, and both are")),
        }
    }
}

/// The choice among parameters of a method that is built in.
pub fn choice(capability: &Capability) -> Option<Choice> {
    match (capability.protocol.name(), &*capability.method) {
        ("python", "execute") => Some(Choice { names: &["code", "file"], only_one: true }),
        ("llm", "vision") => Some(Choice { names: &["messages", "prompt"], only_one: false }),
        _ => None,
    }
}

fn tags(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
