//! The way out of a jail with network: connections that the launcher makes for a task.
//!
//! The jail has a network of its own without a route. When a task connects a socket, the launcher
//! checks the address, makes the connection in the network of the machine, and replaces the task's
//! socket with it. Names are resolved over such connections, too: the resolver of the C library is
//! configured to use TCP.
//!
//! Invariant: the launcher connects to the very address that it checked.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
        stat::fstat,
        uio::{RemoteIoVec, process_vm_readv},
    },
};

use super::{
    address::ReachRules,
    kernel::{self, ForwardedCall},
    spec::Spec,
};

/// An address is not longer than this.
const ADDRESS_MAX_BYTES: usize = 128;
/// Connections that are made at once.
const WAITING_MAX: usize = 64;
/// Connections whose numbers are kept, to know a second attempt on one.
const KNOWN_MAX: usize = 1024;
/// States of a TCP connection, as the kernel numbers them.
const CONNECTING: [u8; 2] = [2, 3];
const CLOSED: u8 = 7;

/// Options that a task may have set before it connects.
const OPTIONS: [(i32, i32); 17] = [
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
];

/// A connection that is being made, for a task that waits for it.
struct PendingConnection {
    id: u64,
    /// The number that the task has for its socket.
    number: u32,
    socket: OwnedFd,
}

/// The allowed addresses, and the connections being made.
pub(crate) struct TaskConnector {
    reach: ReachRules,
    waiting: Vec<PendingConnection>,
    /// Numbers of connections that were given to tasks.
    known: VecDeque<u64>,
}

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl TaskConnector {
    pub(crate) fn new(spec: &Spec) -> Self {
        let reach = ReachRules::new(&spec.network_allow, &spec.nameservers);
        Self { reach, waiting: Vec::new(), known: VecDeque::new() }
    }

    /// Adds what is to be waited for.
    pub(crate) fn add_events<'a>(&'a self, events: &mut Vec<PollFd<'a>>) {
        let sockets = self.waiting.iter().map(|one| one.socket.as_fd());
        events.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::POLLOUT)));
    }

    /// Connects a socket for a task; `None` if the task has to wait.
    pub(crate) fn connect(
        &mut self,
        questions: BorrowedFd<'_>,
        question: &ForwardedCall,
        old: &OwnedFd,
    ) -> io::Result<Option<()>> {
        let address = address_of(question)?;
        // The bytes read belong to the task only while it still waits for the answer.
        if !kernel::is_asking(questions, question.id) {
            return errno(libc::ESRCH);
        }
        let option = |name| kernel::socket_option(old.as_fd(), libc::SOL_SOCKET, name);
        if option(libc::SO_TYPE)? != libc::SOCK_STREAM {
            return errno(libc::EACCES);
        }
        let family = match (option(libc::SO_DOMAIN)?, address) {
            (libc::AF_INET, SocketAddr::V4(_)) => AddressFamily::Inet,
            (libc::AF_INET6, SocketAddr::V6(_)) => AddressFamily::Inet6,
            _ => return errno(libc::EAFNOSUPPORT),
        };
        if self.known.contains(&fstat(old)?.st_ino) {
            match state(old)? {
                CLOSED => {}
                state if CONNECTING.contains(&state) => return errno(libc::EALREADY),
                _ => return errno(libc::EISCONN),
            }
        }
        if !self.reach.allows(address) {
            return errno(libc::EACCES);
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let new = socket(family, SockType::Stream, flags, None)?;
        for (level, option) in OPTIONS {
            kernel::copy_option(old.as_fd(), new.as_fd(), level, option);
        }
        let made = match connect(new.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) => Ok(()),
            Err(Errno::EINPROGRESS) => Err(io::Error::from(Errno::EINPROGRESS)),
            Err(error) => return Err(error.into()),
        };
        let number = u32::try_from(question.arguments[0]).map_err(io::Error::other)?;
        let flags = OFlag::from_bits_retain(fcntl(old, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            if self.waiting.len() >= WAITING_MAX {
                return errno(libc::EAGAIN);
            }
            self.waiting.push(PendingConnection { id: question.id, number, socket: new });
            return Ok(None);
        }
        self.hand_over(questions, question.id, number, &new)?;
        made.map(Some)
    }

    fn hand_over(
        &mut self,
        questions: BorrowedFd<'_>,
        id: u64,
        number: u32,
        socket: &OwnedFd,
    ) -> io::Result<()> {
        kernel::add_descriptor(questions, id, socket.as_fd(), number)?;
        if self.known.len() == KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(fstat(socket)?.st_ino);
        Ok(())
    }

    /// Answers those whose connections were made or have failed, and forgets those who are gone.
    pub(crate) fn advance(&mut self, questions: BorrowedFd<'_>) {
        for one in std::mem::take(&mut self.waiting) {
            if !kernel::is_asking(questions, one.id) {
                continue;
            }
            if !is_made(&one.socket) {
                self.waiting.push(one);
                continue;
            }
            let result = self.finish(questions, &one);
            let result = result.map_err(|error| error.raw_os_error().unwrap_or(libc::ECONNABORTED));
            kernel::answer(questions, one.id, result);
        }
    }

    fn finish(&mut self, questions: BorrowedFd<'_>, one: &PendingConnection) -> io::Result<()> {
        match kernel::socket_option(one.socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => {}
            error => return errno(error),
        }
        // As the task's own was, which waits for it.
        let flags = OFlag::from_bits_retain(fcntl(&one.socket, FcntlArg::F_GETFL)?);
        fcntl(&one.socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        self.hand_over(questions, one.id, one.number, &one.socket)
    }
}

fn is_made(socket: &OwnedFd) -> bool {
    let mut events = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    poll(&mut events, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// The state of a TCP connection: the first byte of `TCP_INFO`.
fn state(socket: &OwnedFd) -> io::Result<u8> {
    let result = kernel::socket_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(result.to_ne_bytes()[0])
}

/// The address that a task asks to connect to, copied out of its memory.
fn address_of(question: &ForwardedCall) -> io::Result<SocketAddr> {
    let length = usize::try_from(question.arguments[2]).unwrap_or(usize::MAX);
    if length > ADDRESS_MAX_BYTES {
        return errno(libc::EINVAL);
    }
    let mut bytes = [0; ADDRESS_MAX_BYTES];
    let base = usize::try_from(question.arguments[1]).map_err(io::Error::other)?;
    let there = [RemoteIoVec { base, len: length }];
    let mut here = [IoSliceMut::new(&mut bytes[..length])];
    if process_vm_readv(question.thread, &mut here, &there)? != length {
        return errno(libc::EFAULT);
    }
    read_address(&bytes[..length])
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads an address as the kernel does.
fn read_address(bytes: &[u8]) -> io::Result<SocketAddr> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let family = part(bytes, 0).map(u16::from_ne_bytes).ok_or_else(invalid)?;
    let port = part(bytes, 2).map(u16::from_be_bytes).ok_or_else(invalid)?;
    match i32::from(family) {
        libc::AF_INET if bytes.len() >= 16 => {
            let address: [u8; 4] = part(bytes, 4).ok_or_else(invalid)?;
            Ok(SocketAddrV4::new(address.into(), port).into())
        }
        libc::AF_INET6 if bytes.len() >= 28 => {
            let address: [u8; 16] = part(bytes, 8).ok_or_else(invalid)?;
            let scope = part(bytes, 24).map(u32::from_ne_bytes).ok_or_else(invalid)?;
            Ok(SocketAddrV6::new(address.into(), port, 0, scope).into())
        }
        libc::AF_INET | libc::AF_INET6 => Err(invalid()),
        _ => errno(libc::EAFNOSUPPORT),
    }
}

/// Servers of names that this machine uses, as its `resolv.conf` has them.
pub(crate) fn nameservers(resolv_conf: &str) -> Vec<IpAddr> {
    let words = resolv_conf.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| match words.next() {
            Some("nameserver") => words.next()?.split('%').next()?.parse().ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address is read as the kernel reads it, or refused.
    #[test]
    fn addresses_are_read() {
        let four = u16::try_from(libc::AF_INET).unwrap().to_ne_bytes();
        let six = u16::try_from(libc::AF_INET6).unwrap().to_ne_bytes();
        let mut bytes = [&four[..], &[0x1F, 0x90, 127, 0, 0, 1], &[0; 8]].concat();
        assert_eq!(read_address(&bytes).unwrap().to_string(), "127.0.0.1:8080");
        bytes.pop();
        assert!(read_address(&bytes).is_err(), "it is too short");
        let mut bytes = [&six[..], &[0, 80, 0, 0, 0, 0], &[0; 15], &[1, 0, 0, 0, 0]].concat();
        assert_eq!(read_address(&bytes).unwrap().to_string(), "[::1]:80");
        bytes[0] = 0;
        bytes[1] = 0;
        let error = read_address(&bytes).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT), "it would undo a connection");
        assert!(read_address(&[]).is_err() && read_address(&four).is_err());
    }

    /// Comments, options and nonsense are no servers.
    #[test]
    fn servers_of_names_are_read() {
        let result =
            "# x\nsearch a b\nnameserver 127.0.0.53\n nameserver fe80::1%eth0\nnameserver x\n";
        let expected: [IpAddr; 2] = ["127.0.0.53".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(nameservers(result), expected);
    }
}
