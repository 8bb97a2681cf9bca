//! Sees that another process wrote to a SQLite file, by inotify.
//!
//! Every commit writes to the log beside the file. Whether that was another process, the connection
//! that writes can tell: `PRAGMA data_version` changes when any other one committed.
//!
//! A commit is visible only after its flush, which nothing tells of: so after each write several
//! looks are taken, with growing pauses, until none of them can be too early. Nothing happens while
//! nobody writes.
//!
//! Where the system has no watch left to give, a look is taken every second instead.

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

use super::{Notifier, Request};

/// From a write to the first look.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// Between looks while there are writes, most of which may be this process's own.
const BETWEEN: Duration = Duration::from_millis(25);

/// The longest pause between looks after the last write: no flush takes longer.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Between looks where the file cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(1);

pub(super) async fn listen(
    path: &Path,
    notifier: &Notifier,
    writer: &mpsc::WeakUnboundedSender<Request>,
) {
    let watch = Watch::start(path);
    // The first look is what later ones are compared with.
    if has_changed(writer).await.is_none() {
        return;
    }
    let ended = match &watch {
        Ok(watch) => {
            notifier.set_complete(true);
            notifier.ring();
            let ended = ring_for(watch, notifier, writer).await;
            notifier.set_complete(false);
            ended
        }
        Err(error) => {
            notifier.ring();
            Err(std::io::Error::from(error.kind()))
        }
    };
    let Err(error) = ended else { return };
    let error = watch.err().unwrap_or(error);
    tracing::warn!(
        file = %path.display(),
        %error,
        "file cannot be watched for what other processes write; it is looked at every second \
         (fs.inotify.max_user_instances and max_user_watches are the limits)"
    );
    look_every_second(notifier, writer).await;
}

/// Until the writer is gone.
async fn look_every_second(notifier: &Notifier, writer: &mpsc::WeakUnboundedSender<Request>) {
    loop {
        tokio::time::sleep(UNWATCHED).await;
        match has_changed(writer).await {
            None => return,
            Some(true) => notifier.ring(),
            Some(false) => {}
        }
    }
}

/// Until the writer is gone, or the watch fails.
async fn ring_for(
    watch: &Watch,
    notifier: &Notifier,
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
            if !notifier.is_unheard() {
                match has_changed(writer).await {
                    None => return Ok(()),
                    Some(true) => notifier.ring(),
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
    names: [OsString; 3],
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
        // To be moved, removed or replaced is not to be written to; an engine without work would
        // never notice, and wait for what is written elsewhere.
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE;
        inotify.add_watch(folder, changes)?;
        let [mut log, mut leases] = [name.to_owned(), name.to_owned()];
        log.push("-wal");
        leases.push("-leases");
        // The descriptor is the watch's own for as long as it is waited for, which is all that the
        // function in its place has one promise.
        #[expect(deprecated, reason = "the other one is unsafe, and this use is not")]
        let inotify = AsyncFd::new(Descriptor(inotify))?;
        Ok(Self { inotify, names: [log, name.to_owned(), leases] })
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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    /// Where all watches of the machine are taken, an engine notices a little later, and not after
    /// minutes.
    #[tokio::test(start_paused = true)]
    async fn without_a_watch_a_look_is_taken_every_second() {
        let (writer, mut asked) = mpsc::unbounded_channel();
        let notifier = std::sync::Arc::new(Notifier::new());
        let mut rings = notifier.stream();
        let (ours, weak) = (std::sync::Arc::clone(&notifier), writer.downgrade());
        let looking = tokio::spawn(async move { look_every_second(&ours, &weak).await });
        for has_changed in [false, true, false] {
            let begun = Instant::now();
            let Some(Request::Look(answer)) = asked.recv().await else { panic!("no look") };
            assert!(begun.elapsed() <= UNWATCHED);
            answer.send(has_changed).unwrap();
            tokio::task::yield_now().await;
            assert_eq!(rings.next().now_or_never().is_some(), has_changed);
        }
        drop(writer);
        // The answer to the look that is under way ends it.
        drop(asked);
        looking.await.unwrap();
    }
}
