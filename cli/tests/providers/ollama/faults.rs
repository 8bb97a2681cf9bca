//! What becomes of a call when the server, or the line to it, fails.

use std::time::{Duration, SystemTime};

use awc::http::header::HttpDate;
use gleitzeit::providers::ollama::OllamaConfig;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthStatus,
    provider::Call,
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{call, chat, config, last, piece, provider, run, streamed_chat};
use crate::support::ollama_server::{OllamaServer, Reply};

/// The error of a call whose answer is `reply`.
async fn failing(call: Call, reply: Reply) -> TaskError {
    let server = OllamaServer::start().await;
    for route in ["chat", "generate", "embed"] {
        server.on(&format!("POST /api/{route}"), reply.clone());
    }
    run(&*provider(config(&server)), call).await.unwrap_err()
}

/// An answer that never came to its end is no answer, however much of it has come.
#[actix_rt::test]
async fn a_cut_line_is_a_lost_connection() {
    let half = r#"{"message":{"content":"Hel"#;
    let embed = || call("embed", json!({ "text": "x" }));
    for (what, call, reply) in [
        ("in a line", streamed_chat(), Reply::chunks([half]).cut()),
        ("in a line, neatly ended", streamed_chat(), Reply::chunks([half])),
        ("between lines", streamed_chat(), Reply::lines([piece("Hel")]).cut()),
        ("between lines, neatly ended", streamed_chat(), Reply::lines([piece("Hel")])),
        ("before the first", streamed_chat(), Reply::chunks(Vec::<String>::new())),
        ("in a body of known length", chat(), Reply::text(200, half).announcing_more(10)),
        ("in a body of parts", chat(), Reply::chunks([half]).cut()),
        ("after whole JSON that was longer", chat(), Reply::json(&last()).announcing_more(10)),
        ("in an embedding", embed(), Reply::text(200, r#"{"embeddings":[[1"#).announcing_more(9)),
    ] {
        let error = failing(call, reply).await;
        assert_eq!(error.code, ErrorCode::ConnectionLost, "{what}: {error}");
        assert!(error.is_retryable() && error.message.contains("/api/"), "{what}: {error}");
    }
}

/// Text that is not what Ollama sends is shown, for whoever has to find out who sent it.
#[actix_rt::test]
async fn broken_json_is_quoted() {
    let lines = Reply::chunks([format!("{}\n", piece("a")), "{\"message\": oops}\n".to_owned()]);
    let error = failing(streamed_chat(), lines).await;
    assert_eq!(error.code, ErrorCode::ParseError, "{error}");
    assert!(error.message.contains("{\"message\": oops}"), "{error}");
    assert!(!error.is_retryable(), "{error}");

    let page = failing(chat(), Reply::text(200, "<html>Log in</html>")).await;
    assert_eq!(page.code, ErrorCode::ParseError, "{page}");
    assert!(page.message.contains("<html>Log in</html>"), "{page}");
}

/// A model that breaks down in the middle says so within a success.
#[actix_rt::test]
async fn an_error_in_the_stream_is_the_calls_error() {
    let error = failing(
        streamed_chat(),
        Reply::lines([piece("Hel"), json!({ "error": "runner process has terminated" })]),
    )
    .await;
    assert_eq!(error.code, ErrorCode::TaskExecutionFailed);
    assert!(error.message.contains("runner process has terminated"), "{error}");
    assert!(error.is_retryable());
}

/// The server's own words reach the user, cut to a readable length.
#[actix_rt::test]
async fn error_bodies_are_quoted() {
    let error = failing(chat(), Reply::text(500, r#"{"error":"out of memory"}"#)).await;
    assert_eq!(error.code, ErrorCode::TaskExecutionFailed);
    assert!(error.is_retryable(), "a server's own failure may pass");
    assert!(error.message.contains("500") && error.message.contains("out of memory"), "{error}");
    assert_eq!(*error.data.unwrap(), json!({ "status": 500, "body": "out of memory" }));

    let page = failing(chat(), Reply::text(500, "<p>x</p>\n".repeat(9000))).await;
    assert!(page.message.contains("<p>x</p> <p>x</p>"), "{page}");
    assert!(page.message.len() < 3000, "{} bytes", page.message.len());

    let bad = failing(chat(), Reply::text(400, r#"{"error":"invalid options"}"#)).await;
    assert!(!bad.is_retryable(), "{bad}");
    // Where the words cannot be read, the status still counts.
    let stalled = failing(chat(), Reply::text(503, "busy").announcing_more(5)).await;
    assert_eq!(stalled.code, ErrorCode::ProviderOverloaded, "{stalled}");
}

/// The commonest mistake gets the command that mends it, for embeddings too.
#[actix_rt::test]
async fn a_missing_model_is_reported_with_its_remedy() {
    let missing =
        || Reply::text(404, r#"{"error":"model \"llama3.2\" not found, try pulling it first"}"#);
    let error = failing(chat(), missing()).await;
    assert_eq!(error.code, ErrorCode::TaskExecutionFailed);
    assert!(!error.is_retryable(), "{error}");
    assert!(error.message.contains("`ollama pull llama3.2`"), "{error}");
    assert_eq!(error.data.unwrap()["reason"], "model_not_found");

    let server = OllamaServer::start().await;
    server.on("POST /api/embed", missing());
    let embed = call("embed", json!({ "text": "x" }));
    let error = run(&*provider(config(&server)), embed).await.unwrap_err();
    assert!(error.message.contains("`ollama pull nomic-embed-text`"), "{error}");
    assert_eq!(server.seen().len(), 1, "a missing model was taken for an old server");
}

/// A server that is no Ollama at all must not be taken for one without the model.
#[actix_rt::test]
async fn a_missing_route_points_at_the_address() {
    let server = OllamaServer::start().await;
    let provider = provider(config(&server));
    for call in [chat(), call("embed", json!({ "text": "x" }))] {
        let error = run(&*provider, call).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ConfigurationError, "{error}");
        assert!(error.message.contains("base_url") && !error.message.contains("pull"), "{error}");
    }
}

/// The engine waits as long as the server asks, whichever way it asks.
#[actix_rt::test]
async fn retry_after_is_passed_on() {
    let seconds = Reply::text(429, "slow down").header("retry-after: 7");
    let error = failing(chat(), seconds).await;
    assert_eq!(error.code, ErrorCode::RateLimitExceeded);
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));

    let date = HttpDate::from(SystemTime::now() + Duration::from_secs(100));
    let error = failing(chat(), Reply::text(503, "").header(&format!("retry-after: {date}"))).await;
    assert_eq!(error.code, ErrorCode::ProviderOverloaded);
    let pause = error.retry_after.unwrap().as_secs();
    assert!((60..=100).contains(&pause), "{pause} s");

    let silent = failing(chat(), Reply::text(503, "")).await;
    assert_eq!((silent.retry_after, silent.is_retryable()), (None, true));
}

/// Following a redirect would hand the key and the question to whoever is there.
#[actix_rt::test]
async fn redirects_are_not_followed() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::text(307, "").header("location: /api/elsewhere"));
    server.on("POST /api/elsewhere", Reply::json(&last()));
    let error = run(&*provider(config(&server)), chat()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigurationError);
    assert!(error.message.contains("`/api/elsewhere`"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

/// Compression that nobody asked for is named, not fed to the JSON parser.
#[actix_rt::test]
async fn compressed_answers_are_named() {
    let error = failing(chat(), Reply::text(200, "\u{1f}").header("content-encoding: gzip")).await;
    assert!(error.message.contains("`gzip`"), "{error}");
}

/// A server that is not there is told so at the start, and found when it comes.
#[actix_rt::test]
async fn a_dead_server_is_reported_and_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let base_url = format!("http://{address}");
    let provider = provider(OllamaConfig { base_url, ..OllamaConfig::default() });
    for error in
        [provider.initialize().await.unwrap_err(), run(&*provider, chat()).await.unwrap_err()]
    {
        assert_eq!(error.code, ErrorCode::ConnectionRefused, "{error}");
        assert!(error.message.contains("ollama serve"), "{error}");
    }
    assert_eq!(provider.health_check().await.status, HealthStatus::Unhealthy);

    let _server = OllamaServer::start_at(&address.to_string()).await;
    provider.initialize().await.unwrap();
    assert_eq!(provider.health_check().await.status, HealthStatus::Healthy);
}

/// A name that cannot be resolved is not a server that refuses.
#[actix_rt::test]
async fn an_unknown_host_is_unreachable() {
    // Longer than a part of a name may be, so that nobody is asked for it.
    let host = "x".repeat(64);
    let base_url = format!("http://{host}:11434");
    let error = provider(OllamaConfig { base_url, ..OllamaConfig::default() })
        .initialize()
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::NetworkUnreachable, "{error}");
    assert!(error.message.contains(&host), "{error}");
}

/// `https` works without the program having chosen its cryptography, and a server that does not
/// speak it is a wrong address, not a panic.
#[actix_rt::test]
async fn https_needs_no_preparation() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Plain\r\n\r\n").await;
        }
    });
    let error = provider(OllamaConfig { base_url, ..OllamaConfig::default() })
        .initialize()
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigurationError, "{error}");
    assert!(error.message.contains("https://127.0.0.1"), "{error}");
}

/// Something that listens and speaks another language is a wrong address.
#[actix_rt::test]
async fn another_protocol_is_a_wrong_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await;
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    let error = provider(OllamaConfig { base_url, ..OllamaConfig::default() })
        .initialize()
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigurationError, "{error}");
    assert!(error.message.contains("HTTP server"), "{error}");
}
