//! Answers that are allowed and odd on the wire, and connections that the server has closed.

use gleitzeit_domain::error::ErrorCode;

use super::{chat, chat_reply, config, last, piece, provider, run, streamed_chat};
use crate::support::ollama_server::{OllamaServer, Reply};

/// A head, and the answer to a chat behind it; `{}` in the head is the answer's length.
fn behind(head: &str, text: &str) -> Vec<u8> {
    let body = chat_reply(text).to_string();
    let head = head.replace("{}", &body.len().to_string());
    [head.into_bytes(), b"\r\n\r\n".to_vec(), body.into_bytes()].concat()
}

/// Every client but awc reads these, and so servers and proxies send them.
#[actix_rt::test]
async fn odd_but_allowed_heads_are_read() {
    let field = |at| format!("X-H{at}: {}\r\n", "v".repeat(100));
    let many = (0..120).map(field).collect::<Vec<_>>().concat();
    for (head, ends) in [
        ("HTTP/1.0 200 OK\r\nContent-Type: application/json", true),
        ("HTTP/1.1 200 OK\r\nConnection: close", true),
        ("HTTP/1.1 200 OK", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: {}", true),
        ("HTTP/1.1 200\r\ncontent-length: {}", false),
        ("HTTP/1.1 200 \r\ncontent-length: {}, {}", false),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {}", false),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: {}",
            false,
        ),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK", true),
        (&format!("HTTP/1.1 200 OK\r\n{many}content-length: {{}}"), false),
    ] {
        let server = OllamaServer::start().await;
        let reply = Reply::raw(behind(head, "all of it"));
        server.on("POST /api/chat", if ends { reply.cut() } else { reply });
        let provider = provider(config(&server));
        for _ in 0..2 {
            let result = run(&*provider, chat()).await.unwrap_or_else(|error| {
                panic!("{head}: {error}");
            });
            assert_eq!(result["response"], "all of it", "{head}");
        }
        assert_eq!(server.connections_total(), if ends { 2 } else { 1 }, "{head}");
    }
}

/// A stream without a length ends with its connection; one that was cut is still no answer.
#[actix_rt::test]
async fn a_stream_without_a_length_is_read_to_its_end() {
    let lines = format!("HTTP/1.1 200 OK\r\n\r\n{}\n", piece("Hel"));
    let server = OllamaServer::start().await;
    server.on("POST /api/chat", Reply::raw(format!("{lines}{}\n", last())).cut());
    server.on("POST /api/chat", Reply::raw(lines).cut());
    let provider = provider(config(&server));
    assert_eq!(run(&*provider, streamed_chat()).await.unwrap()["response"], "Hel");
    let error = run(&*provider, streamed_chat()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConnectionLost, "{error}");
}

/// A server may close a kept connection at any time, also in the moment in which a request comes:
/// nobody has done anything about that request, and it goes to another connection.
#[actix_rt::test]
async fn a_request_over_a_connection_that_was_closed_is_sent_again() {
    let server = OllamaServer::start().await;
    let provider = provider(config(&server));
    let (good, closes) = (|| Reply::json(&chat_reply("x")), || Reply::raw("").cut());
    for reply in [good(), closes(), good(), good().cut(), good(), closes(), good()] {
        server.on("POST /api/chat", reply);
    }
    for _ in 0..5 {
        assert_eq!(run(&*provider, chat()).await.unwrap()["response"], "x");
    }
    assert_eq!(server.seen().len(), 7);
}

/// What a server may have begun to do is not asked of it twice behind the user's back.
#[actix_rt::test]
async fn a_request_is_not_sent_again_if_it_may_have_been_received() {
    // Over a new connection; behind half a head; behind a word that it goes on.
    for (before, reply) in [
        (None, ""),
        (Some("x"), "HTTP/1.1 200 O"),
        (Some("x"), "HTTP/1.1 102 Processing\r\n\r\n"),
        (Some("x"), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
    ] {
        let server = OllamaServer::start().await;
        let provider = provider(config(&server));
        if let Some(text) = before {
            server.on("POST /api/chat", Reply::json(&chat_reply(text)));
        }
        server.on("POST /api/chat", Reply::raw(reply).cut());
        server.on("POST /api/chat", Reply::json(&chat_reply("a second answer")));
        if before.is_some() {
            run(&*provider, chat()).await.unwrap();
        }
        let error = run(&*provider, chat()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ConnectionLost, "{reply:?}: {error}");
        assert!(error.is_retryable(), "{error}");
        assert_eq!(server.seen().len(), 1 + usize::from(before.is_some()), "{reply:?}");
    }
}
