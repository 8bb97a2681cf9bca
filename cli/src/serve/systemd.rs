//! Notifies a service manager: READY=1, STOPPING=1 and WATCHDOG=1, as `sd_notify(3)` has it.
//!
//! Written here because the crate `sd-notify` knows no abstract sockets, which containers and older
//! managers use. Without `NOTIFY_SOCKET` nothing is sent; a failure is logged and nothing else,
//! because a manager's absence must not stop the server.

use std::{
    convert::Infallible,
    env,
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixDatagram},
    process,
    time::Duration,
};

use gleitzeit::{EngineState, Handle};

/// A notification for a service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// The server runs workflows from now on.
    Ready,
    /// It lets running tasks end.
    Stopping,
    /// Its engine answers.
    Watchdog,
}

/// Notifies the service manager, if there is one.
pub(super) fn notify(notice: Notice) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    let text = match notice {
        Notice::Ready => "READY=1\n",
        Notice::Stopping => "STOPPING=1\n",
        Notice::Watchdog => "WATCHDOG=1\n",
    };
    if let Err(error) = send(&socket, text) {
        tracing::warn!(%error, ?notice, "service manager not notified");
    }
}

/// The socket is a path, or a name after `@`, which stands for a zero byte.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the server.
    sender.set_nonblocking(true)?;
    match socket.as_bytes() {
        [b'@', name @ ..] => connect_abstract(&sender, name)?,
        _ => sender.connect(socket)?,
    }
    sender.send(text.as_bytes()).map(|_| ())
}

#[cfg(target_os = "linux")]
fn connect_abstract(sender: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

    sender.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Says twice in each watchdog period that the engine answers; never, if nobody watches.
///
/// A store that is away is not the engine's failure: a restart would not bring it back.
pub(super) async fn watchdog(handle: &Handle) -> Infallible {
    let pid = env::var("WATCHDOG_PID").ok();
    let Some(period) = period(env::var("WATCHDOG_USEC").ok().as_deref(), pid.as_deref()) else {
        return std::future::pending().await;
    };
    loop {
        if matches!(handle.health().await.engine, EngineState::Ok | EngineState::Stopping) {
            notify(Notice::Watchdog);
        }
        tokio::time::sleep(period / 2).await;
    }
}

/// The period that is watched, if it is this process that is.
fn period(micros: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let micros = micros?.parse().ok().filter(|micros| *micros > 0)?;
    let is_meant = pid.is_none_or(|pid| pid == process::id().to_string());
    is_meant.then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child of the watched process must not answer for it.
    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let own = process::id().to_string();
        assert_eq!(period(Some("1000"), None), Some(Duration::from_millis(1)));
        assert_eq!(period(Some("1000"), Some(&own)), Some(Duration::from_millis(1)));
        assert_eq!(period(Some("1000"), Some("1")), None);
        assert_eq!(period(Some("0"), None), None);
        assert_eq!(period(Some("soon"), None), None);
        assert_eq!(period(None, None), None);
    }
}
