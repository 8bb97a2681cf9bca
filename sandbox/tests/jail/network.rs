//! Jobs with network: what they reach by the launcher's hand, and what they do not.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use gleitzeit_sandbox::{JailSettings, Job, Outcome, Status};
use serde_json::json;

use crate::support::{Bench, jail_settings};

/// A server that sends back what it gets, on an address of this machine.
fn echo(address: &str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

async fn bench(allow: &[String]) -> Bench {
    let network_allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    Bench::with(&JailSettings { network: true, network_allow, ..jail_settings() }).await
}

async fn run(bench: &Bench, code: &str, port: u16) -> Outcome {
    let job = Job { network: true, ..Job::execute(code).global("port", json!(port)) };
    bench.run(job).await
}

/// What is the machine's own is out of reach, whatever is called to get there.
#[tokio::test]
async fn what_is_near_is_out_of_reach() {
    let port = echo("127.0.0.1");
    let bench = bench(&[]).await;
    let code = "
import errno, socket
told = []
for family, address in ((socket.AF_INET, ('127.0.0.1', port)), (socket.AF_INET, ('0.0.0.0', port)),
                        (socket.AF_INET, ('169.254.169.254', 80)), (socket.AF_INET, ('10.0.0.1', 80)),
                        (socket.AF_INET6, ('::1', port)), (socket.AF_INET6, ('::ffff:127.0.0.1', port))):
    s = socket.socket(family); s.settimeout(3)
    told.append(errno.errorcode[s.connect_ex(address)])
result = told";
    let outcome = run(&bench, code, port).await;
    assert_eq!(outcome.result, json!(vec!["EACCES"; 6]), "{outcome:?}");
    let code = "
import errno, socket
told = []
def attempt(what):
    try: what(); told.append('made')
    except OSError as error: told.append(errno.errorcode[error.errno])
s = socket.socket()
attempt(lambda: s.sendto(b'x', 0x20000000, ('127.0.0.1', port)))
attempt(lambda: s.bind(('0.0.0.0', 0)))
attempt(lambda: s.listen())
attempt(lambda: s.setsockopt(socket.IPPROTO_TCP, 30, 1))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt(lambda: socket.socket(socket.AF_UNIX))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', port)))
result = told";
    let outcome = run(&bench, code, port).await;
    let refused = ["EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "EACCES"];
    assert_eq!(outcome.result, json!(refused), "{outcome:?}");
}

/// What is named is reached by blocking and by waiting calls, and by nobody who did not ask.
#[tokio::test]
async fn what_is_named_is_reached() {
    let port = echo("127.0.0.1");
    let bench = bench(&[format!("127.0.0.1:{port}"), "127.0.0.2".to_owned()]).await;
    let code = "
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.connect(('127.0.0.1', port))
s.sendall(b'blocking')
got = s.recv(100).decode()
kept = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) > 0
again = s.connect_ex(('127.0.0.1', port))
t = socket.create_connection(('127.0.0.1', port), timeout=5)
t.sendmsg([b'with ', b'timeout'])
more = t.recv(100).decode()
other = socket.socket().connect_ex(('127.0.0.3', port))
import errno
result = [got, kept, errno.errorcode[again], more, s.getpeername()[0], errno.errorcode[other]]";
    let outcome = run(&bench, code, port).await;
    let expected = json!(["blocking", true, "EISCONN", "with timeout", "127.0.0.1", "EACCES"]);
    assert_eq!(outcome.result, expected, "{outcome:?}");
    let code = "
import asyncio
async def one(n):
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    data = bytes([n]) * (1 << 18)
    writer.write(data)
    got = await reader.readexactly(len(data))
    writer.close()
    return got == data
async def main(): return await asyncio.gather(*(one(n) for n in range(20)))
result = asyncio.run(main())";
    let outcome = run(&bench, code, port).await;
    assert_eq!(outcome.result, json!(vec![true; 20]), "{outcome:?}");
    // A refusal of the other side is reported as such.
    let unused = { TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port() };
    let code = "
import errno, socket
s = socket.socket()
blocking = errno.errorcode[s.connect_ex(('127.0.0.2', port))]
try: socket.create_connection(('127.0.0.2', port), timeout=5); waiting = 'made'
except OSError as error: waiting = errno.errorcode[error.errno]
result = [blocking, waiting]";
    let outcome = run(&bench, code, unused).await;
    assert_eq!(outcome.result, json!(["ECONNREFUSED", "ECONNREFUSED"]), "{outcome:?}");
    // A job without network in the same jail has none.
    let code = "import socket\nsocket.socket()";
    let outcome = bench.run(Job::execute(code)).await;
    assert_eq!(outcome.status, Status::Error, "{outcome:?}");
    assert!(outcome.error.unwrap().message.contains("not permitted"));
}

/// A connection that does not come about holds up neither the others nor the end of its task.
#[tokio::test]
async fn a_connection_that_hangs_hangs_alone() {
    let port = echo("127.0.0.1");
    // A listener whose queue is full answers nobody.
    let full = socket_that_is_full();
    let deaf = full.0.local_addr().unwrap().port();
    let bench = bench(&["127.0.0.1".to_owned()]).await;
    let code = "
import socket, threading
def hang():
    try: socket.socket().connect(('127.0.0.1', deaf))
    except OSError: pass
threading.Thread(target=hang, daemon=True).start()
s = socket.create_connection(('127.0.0.1', port), timeout=5)
s.sendall(b'x')
print(s.recv(1).decode(), flush=True)
threading.Event().wait(60)";
    let job = Job { network: true, ..Job::execute(code) };
    let job = job.global("port", json!(port)).global("deaf", json!(deaf));
    let outcome = bench.run(job.timeout(std::time::Duration::from_secs(3))).await;
    assert_eq!((outcome.status, &*outcome.stdout.text), (Status::Timeout, "x\n"), "{outcome:?}");
    assert_eq!(bench.execute("1").await.result, json!(1));
}

/// A listener that takes nobody in any more, with those that fill it.
fn socket_that_is_full() -> (TcpListener, Vec<std::net::TcpStream>) {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket,
    };
    use std::os::fd::AsRawFd as _;

    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut full = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300))
    {
        full.push(stream);
    }
    (listener, full)
}
