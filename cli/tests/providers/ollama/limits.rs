//! No wait is without end, no answer without bound, no connection beyond the number.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use gleitzeit::providers::ollama::OllamaConfig;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthStatus,
    provider::Call,
};
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{chat, chat_reply, config, last, piece, provider, run, streamed_chat};
use crate::support::ollama_server::{OllamaServer, Reply};

/// Short enough to be waited for, long enough not to pass by chance before the server is silent.
const SHORT: Duration = Duration::from_millis(100);

async fn out_of_time(settings: OllamaConfig, server: &mut OllamaServer, call: Call) -> TaskError {
    let error = run(&*provider(settings), call).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ProviderTimeout, "{error}");
    // Nobody listens any more, so the server must be told to stop working.
    server.departure().await;
    error
}

/// Each silence has a limit of its own, and the error names the setting.
#[actix_rt::test]
async fn silences_are_bounded() {
    let mut server = OllamaServer::start().await;
    let stalling = || Reply::lines([piece("Hel")]).then_stalls();
    server.on("POST /api/chat", stalling());
    let settings = OllamaConfig { chunk_timeout: SHORT, ..config(&server) };
    let error = out_of_time(settings, &mut server, streamed_chat()).await;
    assert!(error.message.contains("0.1 s (`chunk_timeout`)"), "{error}");

    let settings = OllamaConfig { timeout: SHORT, ..config(&server) };
    let error = out_of_time(settings, &mut server, streamed_chat()).await;
    assert!(error.message.contains("(`timeout`)"), "{error}");

    let mut server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("late")).never_begins());
    let settings = OllamaConfig { first_byte_timeout: SHORT, ..config(&server) };
    let error = out_of_time(settings, &mut server, chat()).await;
    assert!(error.message.contains("(`first_byte_timeout`)"), "{error}");
}

/// A server that takes the connection and says nothing is not healthy.
#[actix_rt::test]
async fn a_silent_server_is_unhealthy() {
    let server = OllamaServer::start_silent().await;
    let settings = OllamaConfig { health_timeout: SHORT, ..config(&server) };
    let report = provider(settings).health_check().await;
    assert_eq!(report.status, HealthStatus::Unhealthy);
    assert!(report.detail.contains("(`health_timeout`)"), "{report:?}");
}

/// A host that answers no attempt to connect is given up after the time set for it.
#[actix_rt::test]
async fn connecting_is_bounded() {
    // A listener whose queue is full drops further attempts, as a dead host would.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(SHORT, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "the queue of a listener never filled");
    }
    let base_url = format!("http://{address}");
    let settings = OllamaConfig { base_url, connect_timeout: SHORT, ..OllamaConfig::default() };
    let error = run(&*provider(settings), chat()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConnectionTimeout, "{error}");
}

/// Cancelling a task must stop the model, which works on as long as somebody is connected.
#[actix_rt::test]
async fn dropping_a_call_hangs_up() {
    let mut server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("x")).never_begins());
    server.on("POST /api/chat", Reply::lines([piece("Hel")]).then_stalls());
    let provider = provider(config(&server));
    for call in [chat(), streamed_chat()] {
        let running = provider.execute(call);
        tokio::select! {
            ended = running => panic!("ended by itself: {ended:?}"),
            () = server.arrival() => {}
        }
        server.departure().await;
    }
}

/// More calls than connections wait for their turn, and all get their answer.
#[actix_rt::test]
async fn connections_are_bounded() {
    let mut server = OllamaServer::start().await;
    let gate = Arc::new(Semaphore::new(0));
    server.on("POST /api/chat", Reply::json(&chat_reply("x")).waits_for(&gate));
    let provider = provider(OllamaConfig { max_connections: 2, ..config(&server) });
    let calls = join_all((0..7).map(|_| run(&*provider, chat())));
    let watch = async {
        server.arrival().await;
        server.arrival().await;
        gate.add_permits(7);
    };
    let (results, ()) = tokio::join!(calls, watch);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.seen().len(), 7);
    assert_eq!(server.connections_max(), 2);
}

/// The wait for a connection is the provider's own doing; the server is not blamed for it.
#[actix_rt::test]
async fn waiting_for_a_connection_is_not_the_servers_silence() {
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::json(&chat_reply("x")).never_begins());
    server.on("POST /api/chat", Reply::json(&chat_reply("quick")));
    let first_byte_timeout = 3 * SHORT;
    let provider =
        provider(OllamaConfig { max_connections: 1, first_byte_timeout, ..config(&server) });
    let (first, second) = tokio::join!(run(&*provider, chat()), run(&*provider, chat()));
    assert_eq!(first.unwrap_err().code, ErrorCode::ProviderTimeout);
    assert_eq!(second.unwrap()["response"], "quick");
}

/// A busy server would otherwise be taken for a dead one and its provider be restarted, with all
/// its calls.
#[actix_rt::test]
async fn health_checks_do_not_wait_for_calls() {
    let mut server = OllamaServer::start().await;
    let gate = Arc::new(Semaphore::new(0));
    server.on("POST /api/chat", Reply::json(&chat_reply("x")).waits_for(&gate));
    let provider = provider(OllamaConfig { max_connections: 1, ..config(&server) });
    let checked = async {
        server.arrival().await;
        let report = provider.health_check().await;
        gate.add_permits(2);
        report
    };
    let (first, second, report) =
        tokio::join!(run(&*provider, chat()), run(&*provider, chat()), checked);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(report.status, HealthStatus::Healthy);
}

/// Answers may be long, longer than the client's own 2 MiB; and not endless.
#[actix_rt::test]
async fn answers_are_bounded_where_the_settings_say() {
    let server = OllamaServer::start().await;
    let text = "x".repeat(5 << 20);
    let long_line = || Reply::lines([piece(&text), last()]);
    for _ in 0..2 {
        server.on("POST /api/chat", Reply::json(&chat_reply(&text)));
        server.on("POST /api/chat", long_line());
    }
    // A body that does not say how long it is.
    server.on("POST /api/chat", Reply::chunks([json!({ "response": text }).to_string()]));
    let roomy = provider(config(&server));
    for call in [chat(), streamed_chat()] {
        let result = run(&*roomy, call).await.unwrap();
        assert_eq!(result["response"].as_str().unwrap().len(), text.len());
    }
    let tight = provider(OllamaConfig { max_body: 4 << 20, ..config(&server) });
    for call in [chat(), streamed_chat(), chat()] {
        let error = run(&*tight, call).await.unwrap_err();
        assert!(error.message.contains("larger than 4194304 bytes; raise `max_body`"), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
}
