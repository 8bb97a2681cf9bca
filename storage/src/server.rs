//! The way to a PostgreSQL server: whether somebody listens, whose certificates count, and what
//! the kernel is to do about the socket of a connection.
//!
//! Asked by [`open`](super::open) and by the listener of [`notifier`](super::notifier).
//!
//! The driver (sqlx 0.9.0) has no option for a socket, so it is looked for among the files of this
//! process. Where it is not found, as elsewhere than on Linux, the connection stays as it is, and
//! what has become of it shows when a statement is not answered.

use std::{io, str::FromStr as _, time::Duration};

use chrono::{DateTime, Utc};
use gleitzeit_domain::store::StoreError;
use sea_orm::sqlx::{
    self, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{net::TcpStream, time::timeout};

/// How long the first question on a connection may take.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Certificates that are trusted besides the built-in ones, as in other programs.
const CERTIFICATES: &str = "SSL_CERT_FILE";

/// The driver's own name for the same.
const CERTIFICATES_OF_DRIVER: &str = "PGSSLROOTCERT";

/// Reads the URL of a server.
///
/// # Errors
/// [`StoreError::Open`]; it does not hold the URL, which may have a password.
pub(super) fn read(url: &str) -> Result<PgConnectOptions, StoreError> {
    PgConnectOptions::from_str(url).map_err(|error| StoreError::Open {
        detail: format!("the URL of the PostgreSQL server cannot be read: {error}"),
    })
}

/// Trusts the certificates of the environment, unless the URL or the driver's own variable names
/// some. They count where the URL says `sslmode=verify-ca` or `verify-full`.
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

/// Says at once where nobody listens.
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

/// Refuses TLS by a clock before 1970: no certificate is valid then, and the driver's TLS library
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

/// The path of the server's socket, where it is reached by one.
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

/// Has the kernel send at once what a connection is given, and look whether the other end is still
/// there.
///
/// The driver leaves Nagle's algorithm on, which holds the end of a large statement back until the
/// server has acknowledged its beginning, and the server waits 40 ms with that.
pub(super) async fn prepare(connection: &mut PgConnection, url: &str) -> Result<(), sqlx::Error> {
    // As the server sees it: the number of our end, unless somebody stands between.
    let port = sqlx::query_scalar("SELECT inet_client_port()").persistent(false);
    let port = timeout(FIRST_ANSWER, port.fetch_one(connection)).await;
    let port: Option<i32> =
        port.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into())).flatten()?;
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Ok(()) };
    let server = PgConnectOptions::from_str(url).map(|options| options.get_port()).ok();
    match socket::prepare(port, server) {
        Ok(0) => tracing::debug!(port, "socket of a connection was not found"),
        Ok(_) => {}
        Err(error) => tracing::debug!(port, %error, "connection is left as the driver made it"),
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

    /// After so long without a word the kernel asks the other end whether it is there, and again so
    /// often, with pauses of so long, in seconds.
    const IDLE: u32 = 15;
    const PAUSE: u32 = 5;
    const ASKS: u32 = 3;

    /// What is not acknowledged for so long, in milliseconds, never will be.
    const UNACKNOWLEDGED: u32 = 20_000;

    /// Which end of a connection a number names.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Ours = 1,
        Theirs = 2,
    }

    /// Prepares the connected socket that has `ours` at this end. Where there is none, somebody
    /// stands between: then all that lead to the number of the server. How many there were.
    pub(super) fn prepare(ours: u16, server: Option<u16>) -> io::Result<usize> {
        match prepare_all(End::Ours, ours)? {
            0 => server.map_or(Ok(0), |port| prepare_all(End::Theirs, port)),
            count => Ok(count),
        }
    }

    fn prepare_all(end: End, port: u16) -> io::Result<usize> {
        let mut count = 0;
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            // The second one is not there without IPv6.
            let Ok(table) = std::fs::read_to_string(table) else { continue };
            for name in table.lines().filter_map(|line| connected(line, end, port)) {
                let Some(number) = file(&format!("socket:[{name}]"))? else { continue };
                let stream = TcpStream::from(another(number)?);
                // The number may have become that of another file meanwhile.
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

    /// Another descriptor of an open file that is known by number alone. It is passed through a
    /// pair of sockets, for the kernel answers to a number that is not open with an error, and what
    /// comes out belongs to the caller.
    fn another(number: i32) -> io::Result<OwnedFd> {
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

    /// The name of a connected socket that has `port` at one end, from a line of the kernel's
    /// table: `0: 0100007F:1538 0100007F:DE5E 01 … … … … … name …`.
    fn connected(line: &str, end: End, port: u16) -> Option<u64> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, number) = fields.get(end as usize)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(number, 16) == Ok(port) && fields.get(3) == Some(&"01");
        is_it.then(|| fields.get(9)?.parse().ok())?
    }

    /// The number of the open file of this name.
    fn file(name: &str) -> io::Result<Option<i32>> {
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            // It may be closed by now.
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

        /// The right one among several, and only it.
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

        /// The server sees the number of whoever stands between, and not ours.
        #[test]
        fn behind_a_proxy_all_that_lead_to_the_server_are_prepared() {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let ours = TcpStream::connect(address).unwrap();
            assert_eq!(prepare(1, Some(address.port())).unwrap(), 1, "the one that listens is not");
            assert!(getsockopt(&ours, sockopt::KeepAlive).unwrap());
        }

        /// A number that is closed by then is an error, and not somebody else's file.
        #[test]
        fn a_number_that_is_not_open_is_refused() {
            assert_eq!(another(i32::MAX).unwrap_err().raw_os_error(), Some(nix::libc::EBADF));
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

    /// A connection with TLS panics by a clock before 1970, deep in the driver.
    #[test]
    fn tls_by_a_clock_before_1970_is_refused() {
        let before = DateTime::from_timestamp(-86_400, 0).unwrap();
        for (mode, now, is_refused) in [
            ("require", before, true),
            ("verify-full", before, true),
            ("prefer", before, true),
            ("disable", before, false),
            ("verify-full", DateTime::UNIX_EPOCH, false),
        ] {
            let options = read(&format!("postgres://me@localhost/x?sslmode={mode}")).unwrap();
            let error = check_clock(&options, now).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), is_refused, "{mode}: {error:?}");
            assert!(error.is_none_or(|it| it.contains("1969-12-31")), "{mode}");
        }
    }
}
