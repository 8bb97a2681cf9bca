//! `GET /healthz` over real connections: answers, limits, and a store that fails.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use actix_web::{App, HttpResponse, test, web};
use gleitzeit_server::{Api, Limits, Server};
use serde_json::{Value, json};
use support::{CountingStore, LIMIT, Site, ask, body, connect, exchange};

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

/// A load balancer sees that the server works, whatever else is sent to the same port.
#[tokio::test(flavor = "multi_thread")]
async fn healthz_is_answered() {
    let site = Site::start(Limits::default()).await;
    let answer = site.ask(GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(
        body(&answer),
        json!({"status": "ok", "engine": "ok", "store": "ok", "lease": "not_needed"})
    );
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    for header in [
        &format!("Content-Length: {}", text.len()),
        "Content-Type: application/json",
        "Cache-Control: no-store",
        "Connection: close",
    ] {
        assert!(head.lines().any(|line| line == header), "no `{header}`: {answer}");
    }

    let head = site.ask(b"HEAD /healthz HTTP/1.1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())), "{head}");
    let with_query = site.ask(b"GET /healthz?verbose HTTP/1.0\r\n\r\n").await;
    assert!(with_query.starts_with("HTTP/1.0 200 OK\r\n"), "{with_query}");

    for (request, status, error) in [
        (b"POST /healthz HTTP/1.1\r\n\r\n".as_slice(), "405", Some("only GET and HEAD")),
        (b"GET / HTTP/1.1\r\n\r\n", "404", Some("only /healthz is here")),
        (b"GET /healthzz HTTP/1.1\r\n\r\n", "404", Some("only /healthz is here")),
        (b"\x16\x03\x01\x02\r\n\r\n", "400", None),
        (b"GET /healthz\r\n\r\n", "400", None),
        (b"GET  /healthz HTTP/1.1\r\n\r\n", "400", None),
        (b"GET /healthz HTTP/2\r\n\r\n", "400", None),
    ] {
        let answer = site.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        if let Some(error) = error {
            assert_eq!(body(&answer), json!({ "error": error }));
        }
        assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), status == "405", "{answer}");
    }
    site.stop().await;
}

/// A head that does not end takes no more memory than the limit, and its client learns why.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_head_is_rejected() {
    let site = Site::start(Limits::default()).await;
    for length in [5_000, 40_000] {
        let request = [b"GET /healthz HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; length]].concat();
        let answer = site.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
        assert_eq!(body(&answer), json!({"error": "a head of more than 4096 bytes"}));
    }
    let request =
        [b"GET /healthz HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 4_000], b"\r\n\r\n"].concat();
    let answer = site.ask(&request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    site.stop().await;
}

/// A head cut anywhere between two packets is one head.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_be_sent_in_pieces() {
    let site = Site::start(Limits::default()).await;
    let address = site.server.address();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        stream.set_nodelay(true).unwrap();
        for byte in GET {
            stream.write_all(&[*byte]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    site.stop().await;
}

/// A client that sends its head slower than the deadline is disconnected, though each byte is
/// recent.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_disconnected_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_millis(400);
    let site = Site::start(Limits { deadline: DEADLINE, ..Limits::default() }).await;
    let address = site.server.address();
    let (answer, took) = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        let begun = Instant::now();
        let mut writer = stream.try_clone().unwrap();
        let sends = std::thread::spawn(move || {
            // Fails once the server has closed.
            while begun.elapsed() < LIMIT && writer.write_all(b"X").is_ok() {
                std::thread::sleep(DEADLINE / 20);
            }
        });
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let took = begun.elapsed();
        sends.join().unwrap();
        (answer, took)
    })
    .await
    .unwrap();
    assert!(answer.is_empty(), "{answer:?}");
    assert!(took >= DEADLINE / 2 && took < LIMIT / 2, "{took:?}");
    site.stop().await;
}

/// Silent connections take their permits and no more: another one is closed without an answer, and
/// is served when they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_limit_are_closed() {
    let limits = Limits { connections: 3, deadline: LIMIT, ..Limits::default() };
    let site = Site::start(limits).await;
    let address = site.server.address();
    // One byte each, so that the server has surely accepted them when the next one is tried.
    let silent: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(b"G").unwrap();
            stream
        })
        .collect();
    let mut closed = 0;
    while closed < 3 {
        // Those that come before the server has seen the silent ones are answered.
        closed = if site.ask(GET).await.is_empty() { closed + 1 } else { 0 };
    }
    drop(silent);
    let mut answer = String::new();
    while answer.is_empty() {
        answer = site.ask(GET).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    site.stop().await;
}

/// A health check that many run at once must not become the load of the store.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_asked_once_a_second() {
    let store = CountingStore::default();
    let site = Site::start_with(Limits::default(), Some(store.clone()), "memory").await;
    let before = store.reads();
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < Duration::from_millis(2_500) {
        let asked = (0..8).map(|_| tokio::task::spawn_blocking(ask(&site, GET)));
        for answer in asked.collect::<Vec<_>>() {
            answered += usize::from(answer.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
        }
    }
    let seconds = begun.elapsed().as_secs() + 1;
    let reads = store.reads() - before;
    assert!(answered > 20, "only {answered} answers");
    assert!(reads >= 2 && reads <= seconds, "{reads} reads in {seconds} s, {answered} answers");
    site.stop().await;
}

/// A server whose store does not answer is taken out of service, and is back with its store.
#[tokio::test(flavor = "multi_thread")]
async fn healthz_is_503_while_the_store_fails() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/a.db", folder.path().display());
    let site = Site::start_with(Limits::default(), None, &url).await;
    support::rename(&url, "gleitzeit_workflows", "hidden").await;
    let mut answer = site.ask(GET).await;
    // An answer is valid for a second.
    while answer.starts_with("HTTP/1.1 200 ") {
        answer = site.ask(GET).await;
    }
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let report: Value = body(&answer);
    assert_eq!(
        (&report["status"], &report["engine"]),
        (&json!("unhealthy"), &json!("ok")),
        "{report}"
    );
    assert_eq!(report["store"], "unreachable", "{report}");

    support::rename(&url, "hidden", "gleitzeit_workflows").await;
    let mut answer = site.ask(GET).await;
    while answer.starts_with("HTTP/1.1 503 ") {
        answer = site.ask(GET).await;
    }
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    site.stop().await;
}

/// A runtime that was stopped is unhealthy, and is still answered for.
#[tokio::test(flavor = "multi_thread")]
async fn healthz_is_503_after_the_runtime_has_stopped() {
    let mut site = Site::start(Limits::default()).await;
    site.stop_runtime().await;
    let answer = site.ask(GET).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert_eq!(body(&answer)["engine"], "stopped", "{answer}");
    site.stop().await;
}

/// Whoever stops a server can bind its address again; one that is dropped closes it, too.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_free_after_the_server() {
    let site = Site::start(Limits::default()).await;
    let address = site.server.address();
    let taken = Server::bind(address, site.handle(), Limits::default());
    assert!(taken.is_err(), "two servers at {address}");
    site.stop().await;

    let site = Site::start(Limits::default()).await;
    let handle = site.handle();
    let again = Server::bind(address, handle, Limits::default()).unwrap();
    let answer = tokio::task::spawn_blocking(move || exchange(address, GET)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(again);
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < LIMIT, "a dropped server still listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.stop().await;
}

/// A host mounts the routes under a prefix of its own app, and keeps its own routes.
#[actix_web::test]
async fn a_host_mounts_the_routes() {
    let runtime = support::runtime(None, "memory").await;
    let api = Api::new(runtime.handle());
    let app = App::new()
        .service(web::scope("/jobs").configure(|config| api.configure(config)))
        .route("/healthz", web::get().to(async || HttpResponse::Ok().body("the host's")));
    let app = test::init_service(app).await;
    let call = |request: test::TestRequest| test::call_service(&app, request.to_request());
    let own = call(test::TestRequest::with_uri("/healthz")).await;
    assert_eq!(test::read_body(own).await, "the host's");
    let mounted = call(test::TestRequest::with_uri("/jobs/healthz")).await;
    assert_eq!(mounted.status(), 200);
    let report: Value = test::read_body_json(mounted).await;
    assert_eq!(report["status"], "ok");
    let posted = call(test::TestRequest::post().uri("/jobs/healthz")).await;
    assert_eq!(posted.status(), 405);
    let unknown = call(test::TestRequest::with_uri("/jobs/other")).await;
    assert_eq!(unknown.status(), 404);
    runtime.stop(LIMIT).await;
}
