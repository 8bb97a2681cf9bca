//! What goes out and what comes back when all is well.

use std::{fs, time::Duration};

use gleitzeit::providers::ollama::{self, OllamaConfig};
use gleitzeit_domain::health::HealthStatus;
use serde_json::{Value, json};

use super::{call, chat, chat_reply, config, last, piece, provider, run, streamed_chat};
use crate::support::ollama_server::{OllamaServer, Reply};

/// The whole contract of a chat: what the server is asked, and what the task gets.
#[actix_rt::test]
async fn a_chat_is_asked_and_answered() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("Hello.")));
    let call = call(
        "chat",
        json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 99 }),
    );
    let result = run(&*provider(config(&server)), call).await.unwrap();
    let expected = json!({
        "response": "Hello.", "model": "llama3.2", "tokens_used": 36, "finish_reason": "stop",
        "metadata": {
            "provider": "ollama", "provider_id": "local", "base_url": server.url,
            "prompt_eval_count": 26, "eval_count": 10, "durations": { "total": 1.5, "load": 0.25 },
        },
    });
    assert_eq!(result, expected);

    let asked = &server.seen()[0];
    let expected = json!({
        "model": "llama3.2", "messages": [{ "role": "user", "content": "hi" }], "stream": false,
        "options": { "temperature": 0.7, "num_predict": 99 },
    });
    assert_eq!(asked.body, expected);
    let agent = format!("gleitzeit/{} (local)", env!("CARGO_PKG_VERSION"));
    assert_eq!(asked.headers["user-agent"], agent);
    assert_eq!(asked.headers["content-type"], "application/json");
}

/// A stream is cut anywhere, within a character too, and still is one text.
#[actix_rt::test]
async fn a_stream_is_put_together_whatever_the_cuts() {
    let server = OllamaServer::start().await;
    let text = "Grüße, 世界 🌍!";
    let pieces = text.chars().map(|c| piece(&c.to_string())).chain([last()]);
    let lines: String = pieces.flat_map(|it| [it.to_string(), "\n".to_owned()]).collect();
    for width in [1, 2, 7, 4096] {
        server.on("POST /api/chat", Reply::chunks(lines.as_bytes().chunks(width)));
    }
    let provider = provider(config(&server));
    for _ in 0..4 {
        let result = run(&*provider, streamed_chat()).await.unwrap();
        assert_eq!(result["response"], text);
        assert_eq!(result["finish_reason"], "length");
        assert_eq!(result["tokens_used"], 7);
    }
    assert_eq!(server.seen()[0].body["stream"], true);
}

/// A stream's last line needs no end: some proxies eat it.
#[actix_rt::test]
async fn a_last_line_without_its_end_counts() {
    let server = OllamaServer::start().await;
    let body = format!("{}\n{}", piece("Hi"), last());
    server.on("POST /api/chat", Reply::text(200, body));
    let result = run(&*provider(config(&server)), streamed_chat()).await.unwrap();
    assert_eq!(result["response"], "Hi");
}

/// The connection of a stream is used again; a new one for each call would cost a handshake each.
#[actix_rt::test]
async fn a_streams_connection_is_used_again() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::lines([piece("Hi"), last()]));
    let provider = provider(config(&server));
    for _ in 0..5 {
        run(&*provider, streamed_chat()).await.unwrap();
    }
    assert_eq!(server.connections_max(), 1);
    assert_eq!(server.connections_total(), 1);
}

/// Pictures come as data or as files, and go with the question about them.
#[actix_rt::test]
async fn vision_sends_pictures_from_files_and_from_data() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.png", b"abc"), ("b.png", b"xyz")] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("A cat.")));
    let config = OllamaConfig { file_roots: vec![folder.path().to_owned()], ..config(&server) };
    let call = call(
        "vision",
        json!({
            "prompt": "What?", "images": ["iVBORw0KGgo=", path("a.png")],
            "image_path": path("b.png"), "image_paths": [path("b.png"), path("a.png")],
        }),
    );
    let result = run(&*provider(config), call).await.unwrap();
    assert_eq!((&result["response"], &result["model"]), (&json!("A cat."), &json!("llava")));
    let messages = &server.seen()[0].body["messages"];
    let images = ["iVBORw0KGgo=", "YWJj", "eHl6", "eHl6", "YWJj"];
    let expected = json!([{ "role": "user", "content": "What?", "images": images }]);
    assert_eq!(*messages, expected);
}

/// A path may read as base64; a misspelt one is refused here, in words, and not sent as a picture.
#[actix_rt::test]
async fn a_path_that_reads_as_base64_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("photos01"), b"abc").unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("A cat.")));
    let config = OllamaConfig { file_roots: vec![folder.path().to_owned()], ..config(&server) };
    let provider = provider(config);
    let asked = |image: String| call("vision", json!({ "prompt": "?", "images": [image] }));
    run(&*provider, asked(path("photos01"))).await.unwrap();
    assert_eq!(server.seen()[0].body["messages"][0]["images"], json!(["YWJj"]));
    let error = run(&*provider, asked("no/such/photos02".to_owned())).await.unwrap_err();
    assert!(error.message.contains("nor is it a picture"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

/// What the settings say stands above the protocol's defaults and below what a task gives.
#[actix_rt::test]
async fn options_are_read_from_the_task_then_the_settings_then_the_protocol() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("x")));
    let config: OllamaConfig = serde_json::from_value(json!({
        "base_url": server.url, "keep_alive": "5m",
        "options": { "temperature": 0.0, "num_ctx": 4096 },
    }))
    .unwrap();
    let set = provider(config);
    let with = |more: Value| {
        let mut params = json!({ "messages": [{ "role": "user", "content": "hi" }] });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call("chat", params)
    };
    run(&*set, with(json!({}))).await.unwrap();
    run(&*set, with(json!({ "temperature": 0.7, "num_ctx": 9 }))).await.unwrap();
    run(&*set, with(json!({ "options": { "temperature": 1 }, "keep_alive": 0 }))).await.unwrap();
    run(&*provider(super::config(&server)), with(json!({ "format": "json" }))).await.unwrap();
    let bodies: Vec<Value> = server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies[0]["options"], json!({ "temperature": 0.0, "num_ctx": 4096 }));
    assert_eq!(bodies[1]["options"], json!({ "temperature": 0.7, "num_ctx": 9 }));
    assert_eq!(bodies[2]["options"], json!({ "temperature": 1, "num_ctx": 4096 }));
    assert_eq!(bodies[3]["options"], json!({ "temperature": 0.7 }));
    let kept: Vec<&Value> = bodies.iter().map(|body| &body["keep_alive"]).collect();
    assert_eq!(kept, [&json!("5m"), &json!("5m"), &json!(0), &Value::Null]);
    assert_eq!(bodies[3]["format"], "json");
}

/// A completion takes a system text, and a file behind its prompt.
#[actix_rt::test]
async fn generate_sends_prompt_system_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    fs::write(&file, "NOTES").unwrap();
    let server = OllamaServer::start().await;
    let answer = json!({ "response": "Short.", "done": true, "eval_count": 2, "context": [1, 2] });
    server.on("POST /api/generate", Reply::json(&answer));
    let config = OllamaConfig { file_roots: vec![folder.path().to_owned()], ..config(&server) };
    let provider = provider(config);
    let asking = |path: &str| {
        call("generate", json!({ "prompt": "Sum up:", "system": "Be brief.", "file_path": path }))
    };
    let result = run(&*provider, asking(file.to_str().unwrap())).await.unwrap();
    assert_eq!(result["response"], "Short.");
    assert_eq!((&result["tokens_used"], &result["finish_reason"]), (&json!(2), &json!("stop")));
    let body = &server.seen()[0].body;
    assert_eq!(
        (&body["prompt"], &body["system"]),
        (&json!("Sum up:\n\nNOTES"), &json!("Be brief."))
    );

    let error = run(&*provider, asking("/etc/hostname")).await.unwrap_err();
    assert!(error.message.contains("`/etc/hostname` is not below"), "{error}");
    assert_eq!(server.seen().len(), 1, "asked although the file may not be read");
}

/// Today's servers embed at one address; older ones at another, which is then remembered.
#[actix_rt::test]
async fn embeddings_are_read_from_new_and_old_servers() {
    let new = OllamaServer::start().await;
    new.on(
        "POST /api/embed",
        Reply::json(&json!({ "embeddings": [[1.0, -2.5]], "prompt_eval_count": 3 })),
    );
    let old = OllamaServer::start().await;
    old.on("POST /api/embeddings", Reply::json(&json!({ "embedding": [1.0, -2.5] })));
    for server in [&new, &old] {
        let provider = provider(config(server));
        for _ in 0..2 {
            let result = run(&*provider, call("embed", json!({ "text": "x" }))).await.unwrap();
            assert_eq!(result["embedding"], json!([1.0, -2.5]));
            assert_eq!(result["dimensions"], 2);
            assert_eq!(result["model"], "nomic-embed-text");
        }
    }
    let asked = |server: &OllamaServer| -> Vec<(String, Value)> {
        server.seen().into_iter().map(|seen| (seen.route, seen.body)).collect()
    };
    let modern = json!({ "model": "nomic-embed-text", "input": "x" });
    let ancient = json!({ "model": "nomic-embed-text", "prompt": "x" });
    let (embed, embeddings) = ("POST /api/embed".to_owned(), "POST /api/embeddings".to_owned());
    assert_eq!(asked(&new), [(embed.clone(), modern.clone()), (embed.clone(), modern.clone())]);
    let expected = [(embed, modern), (embeddings.clone(), ancient.clone()), (embeddings, ancient)];
    assert_eq!(asked(&old), expected);
}

/// The settings' model replaces the protocol's default, and not the task's own choice.
#[actix_rt::test]
async fn the_model_of_the_task_overrides_that_of_the_settings() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("x")));
    server.on("POST /api/embed", Reply::json(&json!({ "embeddings": [[1.0]] })));
    let settings = OllamaConfig { default_model: Some("phi4".to_owned()), ..config(&server) };
    let provider = provider(settings);
    run(&*provider, chat()).await.unwrap();
    // The second is the protocol's default, and chosen all the same.
    for own in ["mine", "llama3.2"] {
        let own = json!({ "messages": [{ "role": "user", "content": "hi" }], "model": own });
        run(&*provider, call("chat", own)).await.unwrap();
    }
    run(&*provider, call("embed", json!({ "text": "x" }))).await.unwrap();
    let models: Vec<Value> = server.seen().iter().map(|seen| seen.body["model"].clone()).collect();
    assert_eq!(models, ["phi4", "mine", "llama3.2", "nomic-embed-text"]);
}

/// The key is sent, and shown nowhere.
#[actix_rt::test]
async fn keys_are_sent_and_not_printed() {
    let server = OllamaServer::start().await;
    let settings: OllamaConfig = serde_json::from_value(json!({
        "base_url": format!("{}/", server.url), "api_key": "hunter2", "headers": { "X-Team": "hunter2" },
    }))
    .unwrap();
    let spec = ollama::spec("local", settings).unwrap();
    let provider = (spec.factory)().unwrap();
    provider.initialize().await.unwrap();
    let asked = &server.seen()[0];
    assert_eq!(asked.route, "GET /api/version");
    assert_eq!(asked.headers["authorization"], "Bearer hunter2");
    assert_eq!(asked.headers["x-team"], "hunter2");
    let printed = format!("{spec:?} {:?}", spec.config);
    assert!(printed.contains("api_key") && !printed.contains("hunter2"), "{printed}");
}

/// Healthy is told with the version; slow is told apart from dead.
#[actix_rt::test]
async fn health_is_the_version_and_its_speed() {
    let server = OllamaServer::start().await;
    let report = provider(config(&server)).health_check().await;
    assert_eq!((report.status, report.detail.as_str()), (HealthStatus::Healthy, "Ollama 0.9.1"));
    let impatient = OllamaConfig { degraded_after: Duration::ZERO, ..config(&server) };
    let report = provider(impatient).health_check().await;
    assert_eq!(report.status, HealthStatus::Degraded);
    assert!(report.detail.contains("Ollama 0.9.1 took"), "{report:?}");
}
