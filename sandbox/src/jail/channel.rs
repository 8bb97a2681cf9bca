//! Messages with descriptors over a socket that keeps their bounds.
//!
//! Used by everything that talks to a zygote or to one of its children.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
        sendmsg, socketpair,
    },
};
use tokio::{io::Interest, net::UnixDatagram};

use super::kernel;

/// A message is not longer than this.
const MESSAGE_MAX_BYTES: usize = 4096;
/// More descriptors do not come with a message.
const DESCRIPTORS_MAX: usize = 2;

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Two ends of a line.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends a message without waiting. A full socket means that its reader has stopped, so it is an
/// error.
pub(crate) fn send(
    line: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let extra = [ControlMessage::ScmRights(&numbers)];
    let extra = if numbers.is_empty() { &extra[..0] } else { &extra[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let line = line.as_fd().as_raw_fd();
    sendmsg::<()>(line, &[IoSlice::new(bytes)], extra, flags, None)?;
    Ok(())
}

/// A line whose messages can be waited for.
#[derive(Debug)]
pub(crate) struct Channel(UnixDatagram);

impl Channel {
    /// Watches `line` in the runtime that asks.
    pub(crate) fn new(line: OwnedFd) -> io::Result<Self> {
        // The kind of socket is the kernel's business: what is used of it is that it can be waited
        // for. Messages are read below.
        let line = std::os::unix::net::UnixDatagram::from(line);
        line.set_nonblocking(true)?;
        UnixDatagram::from_std(line).map(Self)
    }

    /// The next message; `None` when the other end is closed.
    ///
    /// # Errors
    /// When a message is longer than any should be, or the line breaks.
    pub(crate) async fn receive(&self) -> io::Result<Option<Message>> {
        self.0.async_io(Interest::READABLE, || receive(self.0.as_fd())).await
    }

    /// Sends a message without descriptors.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(&self.0, bytes, &[])
    }
}

/// The next message, if it is there; `None` when the other end is closed.
pub(crate) fn receive(line: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut buffer = [0; MESSAGE_MAX_BYTES];
    let mut space = cmsg_space!([i32; DESCRIPTORS_MAX]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<()>(line.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for extra in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = extra {
            descriptors.extend(numbers.into_iter().map(kernel::received));
        }
    }
    let cut = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
    if received.flags.intersects(cut) {
        return Err(io::Error::other("a message that is longer than any should be"));
    }
    let length = received.bytes;
    if length == 0 && descriptors.is_empty() {
        return Ok(None);
    }
    Ok(Some(Message { bytes: buffer[..length].to_vec(), descriptors }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    /// Messages keep their bounds, and descriptors arrive as what they were.
    #[tokio::test]
    async fn messages_arrive_with_their_descriptors() {
        let (ours, theirs) = pair().unwrap();
        let channel = Channel::new(ours).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        send(&theirs, b"one", &[file.as_fd(), theirs.as_fd()]).unwrap();
        send(&theirs, b"two", &[]).unwrap();
        let one = channel.receive().await.unwrap().unwrap();
        assert_eq!((&*one.bytes, one.descriptors.len()), (&b"one"[..], 2));
        let mut text = String::new();
        let mut file = std::fs::File::from(one.descriptors.into_iter().next().unwrap());
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        let two = channel.receive().await.unwrap().unwrap();
        assert_eq!((&*two.bytes, two.descriptors.len()), (&b"two"[..], 0));
        drop(theirs);
        assert!(channel.receive().await.unwrap().is_none());
    }

    /// The other end cannot make this process accept more than it expects.
    #[tokio::test]
    async fn what_is_too_long_is_an_error() {
        let (ours, theirs) = pair().unwrap();
        let channel = Channel::new(ours).unwrap();
        send(&theirs, &[b'x'; MESSAGE_MAX_BYTES + 1], &[]).unwrap();
        assert!(channel.receive().await.is_err());
        let many = [theirs.as_fd(); DESCRIPTORS_MAX + 2];
        send(&theirs, b"many", &many).unwrap();
        assert!(channel.receive().await.is_err());
    }
}
