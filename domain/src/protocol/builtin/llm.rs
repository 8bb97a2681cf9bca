//! The protocol `llm/v1.0`.

use serde_json::json;

use super::shared::{V1, tags, texts};
use crate::protocol::{
    parameter::{ParameterSpec, ParameterType},
    spec::{Effect, MethodExample, MethodSpec, ProtocolSpec},
};

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
    let system = ParameterSpec::string().optional().describe("System prompt");
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
