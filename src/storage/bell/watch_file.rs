//! Sees that another process wrote to a SQLite file, by inotify.
//!
//! Every commit writes to the log beside the file. Whether that was another process, the connection
//! that writes can tell: `PRAGMA data_version` changes when any other one committed.
//!
//! A commit is visible only after its flush, which nothing tells of: so after each write several
//! looks are taken, with growing pauses, until none of them can be too early. Nothing happens while
//! nobody writes.

use std::{
    ffi::OsString,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Bell, Request};

/// From a write to the first look.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// Between looks while there are writes, most of which may be this process's own.
const BETWEEN: Duration = Duration::from_millis(25);

/// The longest pause between looks after the last write: no flush takes longer.
const LAST_LOOK: Duration = Duration::from_secs(2);

pub(super) async fn listen(path: &Path, bell: &Bell, writer: &mpsc::WeakUnboundedSender<Request>) {
    let watch = match Watch::start(path) {
        Ok(watch) => watch,
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "cannot watch the file for what other processes write");
            return;
        }
    };
    // The first look is what later ones are compared with.
    if has_changed(writer).await.is_none() {
        return;
    }
    bell.set_complete(true);
    bell.ring();
    let ended = ring_for(&watch, bell, writer).await;
    bell.set_complete(false);
    if let Err(error) = ended {
        tracing::warn!(%error, "no longer sees what other processes write");
    }
}

/// Until the writer is gone, or the watch fails.
async fn ring_for(
    watch: &Watch,
    bell: &Bell,
    writer: &mpsc::WeakUnboundedSender<Request>,
) -> std::io::Result<()> {
    loop {
        watch.written().await?;
        let mut pause = FIRST_LOOK;
        let mut next = Instant::now() + pause;
        while pause <= LAST_LOOK {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                written = watch.written() => {
                    written?;
                    pause = FIRST_LOOK;
                    next = next.min(Instant::now() + BETWEEN);
                    // Events that come meanwhile become one.
                    tokio::time::sleep_until(next).await;
                }
            }
            if !bell.is_unheard() {
                match has_changed(writer).await {
                    None => return Ok(()),
                    Some(true) => bell.ring(),
                    Some(false) => {}
                }
            }
            pause *= 2;
            next = Instant::now() + pause.max(BETWEEN);
        }
    }
}

/// Whether another connection committed since it was asked before; `None` when the writer is gone.
async fn has_changed(writer: &mpsc::WeakUnboundedSender<Request>) -> Option<bool> {
    let (answer, answered) = oneshot::channel();
    writer.upgrade()?.send(Request::Look(answer)).ok()?;
    answered.await.ok()
}

/// A watch on the folder of a file, for the log comes and goes.
struct Watch {
    inotify: AsyncFd<Descriptor>,
    names: [OsString; 2],
}

/// What [`AsyncFd`] can wait for.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    fn start(path: &Path) -> std::io::Result<Self> {
        // Of a link, the log lies beside the file that it leads to.
        let path = path.canonicalize()?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(std::io::Error::other("it is no file in a folder"));
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(folder, AddWatchFlags::IN_MODIFY)?;
        let mut log = name.to_owned();
        log.push("-wal");
        // The descriptor is the watch's own for as long as it is waited for, which is all that the
        // function in its place has one promise.
        #[expect(deprecated, reason = "the other one is unsafe, and this use is not")]
        let inotify = AsyncFd::new(Descriptor(inotify))?;
        Ok(Self { inotify, names: [log, name.to_owned()] })
    }

    /// Returns when one of the files was written to, or when that may have been missed.
    async fn written(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let events = match ready.get_inner().0.read_events() {
                Ok(events) => events,
                Err(nix::errno::Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let counts = events.iter().any(|event| match &event.name {
                Some(name) => self.names.contains(name),
                // More events than the queue holds, or the folder is gone.
                None => true,
            });
            if counts {
                return Ok(());
            }
        }
    }
}
