//! Prepares connections to a PostgreSQL server: reachability, certificates, and socket options.
//!
//! [`open`](super::open) and the listener of [`notify`](super::notify) use it.
//!
//! The driver (sqlx 0.9.0) has no socket options, so the socket is searched among the open files of
//! this process. If it is not found, as on other systems than Linux, the connection keeps its
//! options, and a lost one is noticed by the statement timeout.

use std::{io, str::FromStr as _, time::Duration};

use chrono::{DateTime, Utc};
use gleitzeit_domain::store::StoreError;
use sea_orm::sqlx::{
    self, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{net::TcpStream, time::timeout};

/// Limit on the first query of a connection.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The variable with a file of trusted certificates, as in other programs.
const CERTIFICATES: &str = "SSL_CERT_FILE";

/// The driver's own variable for the same.
const CERTIFICATES_OF_DRIVER: &str = "PGSSLROOTCERT";

/// Parses the URL of a server.
///
/// # Errors
/// [`StoreError::Open`], without the URL, which may have a password.
pub(super) fn read(url: &str) -> Result<PgConnectOptions, StoreError> {
    PgConnectOptions::from_str(url).map_err(|error| StoreError::Open {
        detail: format!("the URL of the PostgreSQL server cannot be read: {error}"),
    })
}

/// Adds the trusted certificates of the environment, unless the URL or the driver's own variable
/// names some. They apply to the modes `verify-ca` and `verify-full`.
pub(super) fn trusting(options: PgConnectOptions, url: &str) -> PgConnectOptions {
    let names_some =
        ["sslrootcert=", "ssl-root-cert=", "ssl-ca="].iter().any(|it| url.contains(it))
            || std::env::var_os(CERTIFICATES_OF_DRIVER).is_some();
    let is_checked = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    match std::env::var_os(CERTIFICATES) {
        Some(file) if is_checked && !names_some && !file.is_empty() => options.ssl_root_cert(file),
        _ => options,
    }
}

/// Fails at once if nobody listens.
///
/// # Errors
/// [`StoreError::Unavailable`] with the address, which holds no password.
pub(super) async fn check_reachable(url: &str, limit: Duration) -> Result<(), StoreError> {
    let options = read(url)?;
    check_clock(&options, crate::machine_clock::machine_now())?;
    let (host, port) = (options.get_host(), options.get_port());
    let local = socket_of(&options);
    let reached = match &local {
        Some(path) => timeout(limit, reach_local(path)).await,
        None => timeout(limit, TcpStream::connect((host, port))).await.map(|it| it.map(drop)),
    };
    let address = local.unwrap_or_else(|| format!("{host}:{port}"));
    let why = match reached {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {limit:?}"),
    };
    Err(StoreError::Unavailable {
        detail: format!("PostgreSQL at {address}: {why}; start it, or name another with --store"),
    })
}

/// Rejects TLS with a clock before 1970: no certificate is valid then, and the driver's TLS library
/// panics.
fn check_clock(options: &PgConnectOptions, now: DateTime<Utc>) -> Result<(), StoreError> {
    if now >= DateTime::UNIX_EPOCH || matches!(options.get_ssl_mode(), PgSslMode::Disable) {
        return Ok(());
    }
    Err(StoreError::Open {
        detail: format!(
            "PostgreSQL: the clock of this machine says {now}, and TLS needs a time after 1970; \
             set the clock, or connect without TLS (`sslmode=disable` in the URL)"
        ),
    })
}

/// The path of the server's Unix socket, if it is reached by one.
fn socket_of(options: &PgConnectOptions) -> Option<String> {
    let folder = match options.get_socket() {
        Some(folder) => folder.to_str()?.to_owned(),
        None if options.get_host().starts_with('/') => options.get_host().to_owned(),
        None => return None,
    };
    Some(format!("{folder}/.s.PGSQL.{}", options.get_port()))
}

#[cfg(unix)]
async fn reach_local(path: &str) -> io::Result<()> {
    tokio::net::UnixStream::connect(path).await.map(drop)
}

#[cfg(not(unix))]
async fn reach_local(_path: &str) -> io::Result<()> {
    Ok(())
}

/// Sets `TCP_NODELAY` and keepalive on a connection.
///
/// The driver leaves Nagle's algorithm on, which delays the end of a large statement until the server
/// has acknowledged its beginning, and the server delays the acknowledgement by 40 ms.
pub(super) async fn prepare(connection: &mut PgConnection, url: &str) -> Result<(), sqlx::Error> {
    // The port of our end as the server sees it; that of a proxy, if there is one.
    // Not persistent: the query runs once for each connection, and would take a place in the cache
    // of statements.
    let port = sqlx::query_scalar("SELECT inet_client_port()").persistent(false);
    let port = timeout(FIRST_ANSWER, port.fetch_one(connection)).await;
    let port: Option<i32> =
        port.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into())).flatten()?;
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Ok(()) };
    let server = PgConnectOptions::from_str(url).map(|options| options.get_port()).ok();
    match socket::prepare(port, server) {
        Ok(0) => tracing::debug!(port, "socket of a connection not found"),
        Ok(_) => {}
        Err(error) => tracing::debug!(port, %error, "socket options of a connection not set"),
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod socket {
    use std::{
        io::{self, IoSlice, IoSliceMut},
        mem::MaybeUninit,
        net::TcpStream,
        os::fd::{AsRawFd as _, OwnedFd},
        os::unix::net::UnixStream,
    };

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    /// Keepalive: the idle time before the first probe, the pause between two, both in seconds, and the
    /// number of probes.
    const IDLE: u32 = 15;
    const PAUSE: u32 = 5;
    const ASKS: u32 = 3;

    /// Limit on the acknowledgement of sent data, in milliseconds.
    const UNACKNOWLEDGED: u32 = 20_000;

    /// The end of a connection to which a port belongs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Ours = 1,
        Theirs = 2,
    }

    /// Prepares the connected socket with the local port `ours`; behind a proxy there is none, and this
    /// prepares all sockets to the port of the server. Returns their number.
    pub(super) fn prepare(ours: u16, server: Option<u16>) -> io::Result<usize> {
        match prepare_all(End::Ours, ours)? {
            0 => server.map_or(Ok(0), |port| prepare_all(End::Theirs, port)),
            count => Ok(count),
        }
    }

    fn prepare_all(end: End, port: u16) -> io::Result<usize> {
        let mut count = 0;
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            // The second one does not exist without IPv6.
            let Ok(table) = std::fs::read_to_string(table) else { continue };
            for name in table.lines().filter_map(|line| connected(line, end, port)) {
                let Some(number) = file(&format!("socket:[{name}]"))? else { continue };
                let stream = TcpStream::from(duplicate(number)?);
                // Checked again: since the search the number may have been reused for another file.
                let address = match end {
                    End::Ours => stream.local_addr(),
                    End::Theirs => stream.peer_addr(),
                };
                if address.is_ok_and(|address| address.port() == port) {
                    watch(&stream)?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    fn watch(stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &IDLE)?;
        setsockopt(stream, sockopt::TcpKeepInterval, &PAUSE)?;
        setsockopt(stream, sockopt::TcpKeepCount, &ASKS)?;
        setsockopt(stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED)?;
        Ok(())
    }

    /// Duplicates the descriptor of an open file that is known by its number only. It is sent through
    /// a pair of sockets: the kernel rejects a number that is not open, and the received descriptor
    /// belongs to the caller.
    fn duplicate(number: i32) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let number = [number];
        let message = [ControlMessage::ScmRights(&number)];
        let word = [IoSlice::new(b"f")];
        sendmsg::<()>(ours.as_raw_fd(), &word, &message, MsgFlags::empty(), None)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut messages = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0];
        let mut words = [IoSliceMut::new(&mut word)];
        recvmsg(&theirs, &mut words, &mut messages, RecvFlags::CMSG_CLOEXEC)?;
        let passed = messages.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        passed.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// The inode of a connected socket with `port` at one end, from a line of the kernel's table: `0: 0100007F:1538 0100007F:DE5E 01 … … … … … name …`.
    fn connected(line: &str, end: End, port: u16) -> Option<u64> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, number) = fields.get(end as usize)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(number, 16) == Ok(port) && fields.get(3) == Some(&"01");
        is_it.then(|| fields.get(9)?.parse().ok())?
    }

    /// The descriptor of the open file with this name.
    fn file(name: &str) -> io::Result<Option<i32>> {
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            // Closed since the folder was read.
            let Ok(target) = std::fs::read_link(entry.path()) else { continue };
            if target.as_os_str() == name {
                return Ok(entry.file_name().to_str().and_then(|number| number.parse().ok()));
            }
        }
        Ok(None)
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use nix::sys::socket::getsockopt;

        use super::*;

        /// Only the socket of the port is prepared.
        #[test]
        fn the_socket_of_a_port_is_found() {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let connect = || TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (ours, other) = (connect(), connect());
            assert_eq!(prepare(ours.local_addr().unwrap().port(), None).unwrap(), 1);
            assert!(ours.nodelay().unwrap());
            assert!(getsockopt(&ours, sockopt::KeepAlive).unwrap());
            assert_eq!(getsockopt(&ours, sockopt::TcpUserTimeout).unwrap(), UNACKNOWLEDGED);
            assert!(!other.nodelay().unwrap());
            assert!(!getsockopt(&other, sockopt::KeepAlive).unwrap());
            assert_eq!(prepare(1, None).unwrap(), 0);
        }

        /// The server sees the port of the proxy, not ours.
        #[test]
        fn with_a_proxy_all_sockets_to_the_server_are_prepared() {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let ours = TcpStream::connect(address).unwrap();
            assert_eq!(prepare(1, Some(address.port())).unwrap(), 1, "the listening one is not");
            assert!(getsockopt(&ours, sockopt::KeepAlive).unwrap());
        }

        /// A closed number is an error, not another file.
        #[test]
        fn a_number_that_is_not_open_is_rejected() {
            assert_eq!(duplicate(i32::MAX).unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod socket {
    pub(super) fn prepare(_ours: u16, _server: Option<u16>) -> std::io::Result<usize> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TLS connection with a clock before 1970 panics, deep in the driver.
    #[test]
    fn tls_with_a_clock_before_1970_is_rejected() {
        let before = DateTime::from_timestamp(-86_400, 0).unwrap();
        for (mode, now, is_rejected) in [
            ("require", before, true),
            ("verify-full", before, true),
            ("prefer", before, true),
            ("disable", before, false),
            ("verify-full", DateTime::UNIX_EPOCH, false),
        ] {
            let options = read(&format!("postgres://me@localhost/x?sslmode={mode}")).unwrap();
            let error = check_clock(&options, now).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), is_rejected, "{mode}: {error:?}");
            assert!(error.is_none_or(|it| it.contains("1969-12-31")), "{mode}");
        }
    }
}
