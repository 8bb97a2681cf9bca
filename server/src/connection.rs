//! One connection: its permit, its deadline, and the size of its request's head.
//!
//! actix-http has no deadline for a whole connection, and takes heads of 128 KiB. Here the head is
//! read first, within the limits, and then served to actix-http together with what follows it.
//!
//! Invariants: at most [`Limits::connections`] connections are open, each for at most
//! [`Limits::deadline`]; each has one request.

use std::{
    io::{self, Cursor},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use actix_http::{HttpService, KeepAlive};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::{App, dev::AppConfig, web};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Chain, Join},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
};

use crate::{Api, Limits, health};

/// Bytes of a rejected request that are read and dropped after the answer. A connection that is
/// closed with unread bytes is reset, and the client may lose the answer.
const DRAINED_MAX: u64 = 64 * 1024;

/// The bytes of a connection, those of the head once more before the others.
type Replayed = Join<Chain<Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>;

/// Serves each connection that it gets by the routes of `api`.
pub(crate) fn service(
    api: Api,
    limits: Limits,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> {
    let permits = Arc::new(Semaphore::new(limits.connections));
    fn_factory(move || {
        let (api, permits) = (api.clone(), Arc::clone(&permits));
        async move {
            let app = App::new()
                .configure(|config| api.configure(config))
                .default_service(web::to(health::not_found));
            let http = HttpService::build()
                .keep_alive(KeepAlive::Disabled)
                .client_request_timeout(limits.deadline)
                .client_disconnect_timeout(limits.deadline)
                .h1(map_config(app, |()| AppConfig::default()));
            let http = Rc::new(http.new_service(()).await?);
            Ok(fn_service(move |stream: TcpStream| {
                let permit = Arc::clone(&permits).try_acquire_owned();
                let http = Rc::clone(&http);
                async move {
                    // Closed without an answer: an answer would take the memory that the limit protects.
                    let Ok(permit) = permit else { return Ok(()) };
                    // A client that is slow or gone is no error of the server.
                    let served = serve(stream, &*http, limits.head_bytes);
                    let _ = tokio::time::timeout(limits.deadline, served).await;
                    drop(permit);
                    Ok(())
                }
            }))
        }
    })
}

async fn serve<S>(mut stream: TcpStream, http: &S, head_max: usize) -> io::Result<()>
where
    S: Service<(Replayed, Option<SocketAddr>)>,
{
    let head = match read_head(&mut stream, head_max).await? {
        Head::Whole(head) => head,
        Head::TooLong => return reject(stream, head_max).await,
        Head::Closed => return Ok(()),
    };
    let peer = stream.peer_addr().ok();
    let (read, write) = stream.into_split();
    let replayed = tokio::io::join(Cursor::new(with_host(head)).chain(read), write);
    // Its errors are those of the client's bytes, and it has answered them.
    let _ = http.call((replayed, peer)).await;
    Ok(())
}

/// The beginning of a connection.
enum Head {
    /// A whole head, and what came with it.
    Whole(Vec<u8>),
    /// More bytes than allowed, without an end.
    TooLong,
    /// Nothing, or a part.
    Closed,
}

async fn read_head(stream: &mut TcpStream, most: usize) -> io::Result<Head> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut seen = 0;
    loop {
        let room = most - head.len();
        if room == 0 {
            return Ok(Head::TooLong);
        }
        if stream.take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(Head::Closed);
        }
        if head[seen..].windows(END.len()).any(|it| it == END) {
            return Ok(Head::Whole(head));
        }
        // An end may be cut between two reads.
        seen = head.len().saturating_sub(END.len() - 1);
    }
}

/// Adds the `Host` header to a head without one: actix-http rejects HTTP/1.1 without it, and a health
/// check that is written by hand often leaves it out.
fn with_host(mut head: Vec<u8>) -> Vec<u8> {
    let is_host = |line: &[u8]| line.get(..5).is_some_and(|it| it.eq_ignore_ascii_case(b"host:"));
    let mut lines = head.split(|byte| *byte == b'\n').take_while(|line| *line != b"\r");
    let first = lines.next().map_or(0, |line| line.len() + 1);
    if !lines.any(is_host) {
        head.splice(first..first, *b"Host: localhost\r\n");
    }
    head
}

/// Answers 431.
async fn reject(mut stream: TcpStream, most: usize) -> io::Result<()> {
    let error = format!("a head of more than {most} bytes");
    let body = format!("{}\n", serde_json::json!({ "error": error }));
    let answer = format!(
        "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(DRAINED_MAX), &mut tokio::io::sink()).await.map(drop)
}
