//! Has a connection to a server send at once what it is given.
//!
//! The driver (sqlx 0.9.0) leaves Nagle's algorithm on, which holds the end of a large statement
//! back until the server has acknowledged its beginning, and the server waits 40 ms with that.
//! There is no option for it, so the socket is looked for among the files of this process. To be
//! dropped with the driver's next release, which sets `TCP_NODELAY` itself.
//!
//! Where the socket is not found, as behind a proxy or elsewhere than on Linux, the connection stays
//! as it is.

use sea_orm::sqlx::{self, PgConnection};

/// Sets `TCP_NODELAY` on a connection, where that is one over TCP and is found.
pub(super) async fn set(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // As the server sees it: the number of our end, unless somebody stands between.
    let port: Option<i32> = sqlx::query_scalar("SELECT inet_client_port()")
        .persistent(false)
        .fetch_one(connection)
        .await?;
    if let Some(port) = port.and_then(|port| u16::try_from(port).ok()) {
        match socket::send_at_once(port) {
            Ok(true) => {}
            Ok(false) => tracing::debug!(port, "socket of a connection was not found"),
            Err(error) => tracing::debug!(port, %error, "connection is left with delays"),
        }
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

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    /// False when this process has no connected socket of that number.
    pub(super) fn send_at_once(port: u16) -> io::Result<bool> {
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            // The second one is not there without IPv6.
            let Ok(table) = std::fs::read_to_string(table) else { continue };
            for name in table.lines().filter_map(|line| connected(line, port)) {
                let Some(number) = file(&format!("socket:[{name}]"))? else { continue };
                let stream = TcpStream::from(another(number)?);
                // The number may have become that of another file meanwhile.
                if stream.local_addr().is_ok_and(|address| address.port() == port) {
                    stream.set_nodelay(true)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
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

    /// The name of a connected socket that has `port` at this end, from a line of the kernel's
    /// table: `0: 0100007F:1538 0100007F:DE5E 01 … … … … … name …`.
    fn connected(line: &str, port: u16) -> Option<u64> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, number) = fields.get(1)?.rsplit_once(':')?;
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

        use super::*;

        /// The right one among several, and only it.
        #[test]
        fn the_socket_of_a_port_is_found() {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let connect = || TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (ours, other) = (connect(), connect());
            assert!(send_at_once(ours.local_addr().unwrap().port()).unwrap());
            assert!(ours.nodelay().unwrap());
            assert!(!other.nodelay().unwrap());
            // The one that listens is not connected.
            let listens = server.local_addr().unwrap().port();
            let accepted = [server.accept().unwrap().0, server.accept().unwrap().0];
            assert!(send_at_once(listens).unwrap());
            assert!(accepted.iter().any(|stream| stream.nodelay().unwrap()));
            drop(accepted);
            assert!(!send_at_once(1).unwrap());
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
    pub(super) fn send_at_once(_port: u16) -> std::io::Result<bool> {
        Ok(false)
    }
}
