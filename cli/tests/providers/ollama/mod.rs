//! The Ollama provider against a server that answers as told, well and badly.

mod answers;
mod faults;
mod limits;
mod tls;
mod wire;

use std::{rc::Rc, time::Duration};

use gleitzeit::providers::{
    conformance::{self, Sample},
    ollama::{self, OllamaConfig},
};
use gleitzeit_domain::{
    error::TaskError,
    protocol::catalog::ProtocolCatalog,
    provider::{Call, Provider},
};
use serde_json::{Value, json};

use crate::support::ollama_server::{OllamaServer, Reply};

/// Settings for `server`, whose answers come at once or not at all.
fn config(server: &OllamaServer) -> OllamaConfig {
    OllamaConfig {
        base_url: server.url.clone(),
        connect_timeout: Duration::from_secs(10),
        first_byte_timeout: Duration::from_secs(10),
        chunk_timeout: Duration::from_secs(10),
        ..OllamaConfig::default()
    }
}

fn provider(config: OllamaConfig) -> Rc<dyn Provider> {
    (ollama::spec("local", config).unwrap().factory)().unwrap()
}

fn sample(method: &str, params: Value) -> Sample {
    Sample::new(&ProtocolCatalog::builtin(), &format!("llm/v1.0:{method}"), params).unwrap()
}

fn call(method: &str, params: Value) -> Call {
    sample(method, params).call("task")
}

/// A question that is not worth reading twice.
fn chat() -> Call {
    call("chat", json!({ "messages": [{ "role": "user", "content": "hi" }] }))
}

fn streamed_chat() -> Call {
    call("chat", json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": true }))
}

async fn run(provider: &dyn Provider, call: Call) -> Result<Value, TaskError> {
    provider.execute(call).await.map(|outcome| std::sync::Arc::unwrap_or_clone(outcome.value))
}

/// What the server says to a chat, in one piece.
fn chat_reply(text: &str) -> Value {
    json!({
        "model": "llama3.2", "message": { "role": "assistant", "content": text },
        "done": true, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 10,
        "total_duration": 1_500_000_000_u64, "load_duration": 250_000_000,
    })
}

/// One piece of a streamed chat.
fn piece(text: &str) -> Value {
    json!({ "message": { "role": "assistant", "content": text }, "done": false })
}

/// The piece that ends it.
fn last() -> Value {
    json!({
        "message": { "role": "assistant", "content": "" },
        "done": true, "done_reason": "length", "prompt_eval_count": 4, "eval_count": 3,
    })
}

/// What every provider must hold to.
#[actix_rt::test]
async fn ollama_conforms() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("from chat")));
    server.on(
        "POST /api/generate",
        Reply::lines([json!({ "response": "from generate", "done": true })]),
    );
    server.on("POST /api/embed", Reply::json(&json!({ "embeddings": [[0.5, 1.5]] })));
    let answering = |method, params, text: &'static str| {
        sample(method, params).accepting(move |result| {
            if result["response"] == text { Ok(()) } else { Err(format!("expected `{text}`")) }
        })
    };
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let samples = [
        answering("chat", json!({ "messages": messages }), "from chat"),
        answering("vision", json!({ "prompt": "?", "images": ["AAAA"] }), "from chat"),
        answering("generate", json!({ "prompt": "?", "stream": true }), "from generate"),
        sample("embed", json!({ "text": "x" })).accepting(|result| {
            if result["embedding"] == json!([0.5, 1.5]) { Ok(()) } else { Err("wrong".to_owned()) }
        }),
    ];
    let spec = ollama::spec("local", config(&server)).unwrap();
    conformance::check(&spec, &samples).await.unwrap();
}
