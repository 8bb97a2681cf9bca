//! What a server tells those who watch it: `GET /healthz`, a service manager, a terminal that is
//! closed.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixDatagram},
    },
    process::{Child, ChildStderr, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::Scratch;

/// Nothing that is waited for here takes this long.
const LIMIT: Duration = Duration::from_mins(1);

/// A server, and what it says.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Server {
    fn start(scratch: &Scratch, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = scratch.command(&["serve", "--engine"]);
        command.args(arguments).envs(variables.iter().copied());
        command.env("GLEITZEIT__PROVIDERS__PYTHON__ENABLED", "false");
        command.env("GLEITZEIT__PROVIDERS__OLLAMA__ENABLED", "false");
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Self { child, stderr }
    }

    /// The rest of the first line that begins with this.
    fn says(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).expect("UTF-8") > 0 {
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("it ended without saying `{beginning}`");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.child.wait().expect("its own child").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes; answers all that comes back.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket");
    // It may answer, and close, before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

/// The program answers, and says where. The server's own tests have the rest.
#[cfg(feature = "server")]
#[test]
fn healthz_is_answered() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--health", "127.0.0.1:0"], &[]);
    let url = server.says("health at http://");
    let address: SocketAddr = url.strip_suffix("/healthz").expect("a path").parse().unwrap();
    server.says("serving ");

    let answer = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let health: Value = serde_json::from_str(body).unwrap();
    let expected = json!({"status": "ok", "engine": "ok", "store": "ok", "lease": "not_needed"});
    assert_eq!(health, expected);
    let other = exchange(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    // Bytes that are no HTTP are no concern of an operator's.
    let nonsense = exchange(address, b"\x16\x03\x01\x02\r\n\r\n");
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
    server.signal(Signal::SIGTERM);
    let mut stderr = String::new();
    server.stderr.read_to_string(&mut stderr).expect("UTF-8");
    assert!(!stderr.contains("ERROR"), "{stderr}");
    assert!(server.child.wait().expect("its own child").success());
}

/// Two servers cannot have one address; the second one says so and ends.
#[cfg(feature = "server")]
#[test]
fn an_address_that_is_taken_is_an_error() {
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let out = scratch.run(&["serve", "--engine", "--health", &address]);
    assert_eq!(out.status, 3, "{}", out.stderr);
    assert!(out.stderr.contains(&address), "{}", out.stderr);
}

/// systemd starts what depends on the server once it serves, restarts it when its engine is
/// silent, and knows that it stops; both kinds of sockets are in use.
#[test]
fn a_service_manager_is_notified() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let name = format!("gleitzeit-test-{}", std::process::id());
    let abstract_address = UnixAddress::from_abstract_name(&name).expect("a name");
    let sockets = [
        (UnixDatagram::bind(&path).expect("a socket"), path.display().to_string()),
        (UnixDatagram::bind_addr(&abstract_address).expect("a socket"), format!("@{name}")),
    ];
    for (socket, address) in sockets {
        socket.set_read_timeout(Some(LIMIT)).expect("a socket");
        let receive = || {
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("a notification");
            String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
        };
        let variables = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "100000")];
        let mut server = Server::start(&scratch, &[], &variables);
        assert_eq!(receive(), "READY=1", "{address}");
        assert_eq!(receive(), "WATCHDOG=1", "{address}");
        assert_eq!(receive(), "WATCHDOG=1", "{address}");
        server.signal(Signal::SIGTERM);
        let mut last = receive();
        while last == "WATCHDOG=1" {
            last = receive();
        }
        assert_eq!(last, "STOPPING=1", "{address}");
        assert!(server.child.wait().expect("its own child").success());
    }
}

/// A server that was started from a terminal outlives it.
#[cfg(feature = "server")]
#[test]
fn a_hangup_does_not_stop_a_server() {
    let scratch = Scratch::new();
    let mut server = Server::start(&scratch, &["--health", "127.0.0.1:0"], &[]);
    let url = server.says("health at http://");
    server.says("serving ");
    server.signal(Signal::SIGHUP);
    let address = url.strip_suffix("/healthz").expect("a path").parse().unwrap();
    let answer = exchange(address, b"GET /healthz HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    server.stop();
}

/// The unit file of the examples starts what is there, with settings that are known.
#[test]
fn the_unit_file_names_commands_and_settings_that_exist() {
    let scratch = Scratch::new();
    let unit = include_str!("../../../examples/gleitzeit.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut arguments: Vec<&str> = start.split(' ').skip(1).collect();
    arguments.push("--help");
    assert_eq!(scratch.run(&arguments).status, 0, "{start}");
    let mut command = scratch.command(&["config"]);
    for line in unit.lines().filter(|line| !line.contains("GLEITZEIT_CONFIG")) {
        if let Some(variable) = line.trim_start_matches("# ").strip_prefix("Environment=") {
            let (name, value) = variable.split_once('=').expect("a value");
            command.env(name, value);
        }
    }
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["/var/lib/gleitzeit/gleitzeit.db", "health = \"127.0.0.1:8080\"", "\"json\""] {
        assert!(printed.contains(part), "no {part}: {printed}");
    }
}
