//! A small actix-web service around gleitzeit: it accepts workflows, reports their state, and streams
//! their events.
//!
//!     cargo run --example actix_web_service                      asks itself, shows the answers, ends
//!     cargo run --example actix_web_service -- 127.0.0.1:8080    serves until Ctrl-C or SIGTERM
//!
//! It stops in order: it accepts no new request, answers those that it has, lets running tasks end
//! within a deadline, and reports what it cut off. The next start continues that.
//!
//!     curl -d '{"name": "hi", "tasks": [{"method": "echo/echo", "params": {"text": "hi"}}]}' \
//!         127.0.0.1:8080/workflows
//!     curl 127.0.0.1:8080/workflows/ID
//!     curl 127.0.0.1:8080/workflows/ID/events
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_web::{
    App, HttpResponse, HttpServer, ResponseError, dev::Server, get, http::StatusCode, post, web,
};
use futures_util::TryStreamExt as _;
use gleitzeit::{
    ErrorCode, Handle, Runtime, Settings, StopReport, TaskError, WorkflowId,
    files::{self, Format},
    providers::echo,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// An error of gleitzeit as an answer: its code decides the status, and the body has it.
#[derive(Debug)]
struct Refusal(TaskError);

impl<E: Into<TaskError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self.0.code {
            ErrorCode::WorkflowNotFound => StatusCode::NOT_FOUND,
            ErrorCode::WorkflowInvalidState => StatusCode::CONFLICT,
            ErrorCode::QueueFull => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::SystemShutdown => StatusCode::SERVICE_UNAVAILABLE,
            // The numbers from -28999 to -28001 are about the workflow itself.
            code if code.number() / 1000 == -28 => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::ParseError | ErrorCode::InvalidRequest | ErrorCode::InvalidParams => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(&self.0)
    }
}

/// Takes a workflow, written as in a file.
#[post("/workflows")]
async fn post_workflow(handle: web::Data<Handle>, body: String) -> Result<HttpResponse, Refusal> {
    let format = Format::of_text(&body);
    let file = files::parse(&body, format, "request")
        .map_err(|error| TaskError::new(error.code(), error.to_string()))?;
    // From here on the workflow is stored, and will be run.
    let id = handle.submit(file.spec).await?;
    Ok(HttpResponse::Accepted().json(json!({ "workflow_id": id })))
}

/// Tells where a workflow and each of its tasks stand.
#[get("/workflows/{id}")]
async fn get_workflow(
    handle: web::Data<Handle>,
    id: web::Path<String>,
) -> Result<HttpResponse, Refusal> {
    let id = WorkflowId::from(id.into_inner());
    let missing = || format!("no workflow has the id `{id}`");
    let found = handle.workflow(&id).await?;
    let record = found.ok_or_else(|| TaskError::new(ErrorCode::WorkflowNotFound, missing()))?;
    Ok(HttpResponse::Ok().json(&*record))
}

/// Streams a workflow's events, one JSON document a line, from the first one up to its end.
#[get("/workflows/{id}/events")]
async fn get_events(
    handle: web::Data<Handle>,
    id: web::Path<String>,
) -> Result<HttpResponse, Refusal> {
    let events = handle.follow(&WorkflowId::from(id.into_inner()), 0).await?;
    let lines = events.into_stream().and_then(|event| async move {
        let line = serde_json::to_string(&event).unwrap_or_default();
        Ok(web::Bytes::from(line + "\n"))
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(Box::pin(lines)))
}

/// Requests in flight, and then running tasks, may end within this once the service stops.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service that answers from `runtime` until `stop` resolves, at `address`, and the address that
/// it got.
pub(crate) fn serve(
    runtime: &Runtime,
    address: &str,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<(Server, SocketAddr)> {
    // Every worker thread gets a clone of the handle.
    let handle = web::Data::new(runtime.handle());
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let app = move || {
        App::new()
            .app_data(handle.clone())
            .service(post_workflow)
            .service(get_workflow)
            .service(get_events)
    };
    // Its own signals are switched off with this: Ctrl-C would cut off what is in flight.
    let server = HttpServer::new(app).workers(2).shutdown_signal(stop);
    let server = server.shutdown_timeout(DEADLINE.as_secs()).listen(listener)?;
    Ok((server.run(), address))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(address) = std::env::args().nth(1) {
        let runtime = start().await?;
        let (server, address) = serve(&runtime, &address, asked_to_stop())?;
        println!("http://{address}/workflows");
        let report = serve_to_the_end(server, runtime).await?;
        println!("stopped; {} workflows are not settled", report.unsettled.len());
    } else {
        for answer in run().await? {
            println!("{answer}");
        }
    }
    Ok(())
}

/// Resolves when a person or a supervisor asks the process to stop.
async fn asked_to_stop() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("signals can be heard");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Waits for the last answer of the server, and only then stops the runtime that it comes from.
pub(crate) async fn serve_to_the_end(server: Server, runtime: Runtime) -> io::Result<StopReport> {
    server.await?;
    Ok(runtime.stop(DEADLINE).await)
}

async fn start() -> Result<Runtime, Box<dyn Error>> {
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
    let builder = Runtime::builder(settings).without_settings_providers();
    Ok(builder.provider(echo::spec("echo")).start().await?)
}

/// Serves at a free port and asks itself: the answers to a submission, to a question for events and
/// to one for the state, and to one for a workflow that is not there.
pub(crate) async fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let runtime = start().await?;
    let (server, address) = serve(&runtime, "127.0.0.1:0", asked_to_stop())?;
    let stopping = server.handle();
    let serving = actix_web::rt::spawn(server);

    let workflow = json!({ "name": "greeting", "tasks": [
        { "id": "hello", "method": "echo/echo", "params": { "text": "hello" } },
        { "id": "again", "method": "echo/echo", "params": { "text": "${hello.text}, again" } },
    ] });
    let accepted = ask(address, "POST", "/workflows", &workflow.to_string()).await?;
    let document: Value = serde_json::from_str(accepted.lines().last().unwrap_or_default())?;
    let id = document["workflow_id"].as_str().ok_or("no id")?;
    // The stream ends with the workflow, so that nothing need be asked twice.
    let events = ask(address, "GET", &format!("/workflows/{id}/events"), "").await?;
    let state = ask(address, "GET", &format!("/workflows/{id}"), "").await?;
    let missing = ask(address, "GET", "/workflows/nowhere", "").await?;

    stopping.stop(true).await;
    serving.await??;
    runtime.stop(Duration::from_secs(5)).await;
    Ok(vec![accepted, events, state, missing])
}

/// The status and the body of the answer to one request.
async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // In HTTP/1.0 the answer ends with the connection.
    let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    // A stream has chunks, each with a line of its length before it.
    let documents: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
    Ok(format!("{status}\n{}", documents.join("\n")))
}
