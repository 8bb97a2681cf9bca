//! Notices the writes of other processes to a SQLite file, by inotify.
//!
//! Every commit writes to the log beside the file. The writer's connection knows whether another
//! process wrote: `PRAGMA data_version` changes after a commit of any other connection.
//!
//! A commit becomes visible after its flush, which inotify does not report. So after each write the
//! listener checks several times, with growing pauses, until no flush can still be pending. Without
//! writes it does nothing.
//!
//! If the system has no inotify watch left, the listener checks every second.

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

/// The pause between a write and the first check.
const FIRST_CHECK: Duration = Duration::from_millis(5);

/// The pause between checks while the file is written; most writes may be this process's own.
const BETWEEN: Duration = Duration::from_millis(25);

/// The longest pause between checks after the last write: no flush takes longer.
const LAST_CHECK: Duration = Duration::from_secs(2);

/// The pause between checks of a file that cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(1);

pub(super) async fn listen(
    path: &Path,
    notifier: &Notifier,
    writer: &mpsc::WeakUnboundedSender<Request>,
) {
    let watch = Watch::start(path);
    // After the start of the watch: the value of this check is the baseline, and a write between
    // the two would be neither reported nor noticed.
    if has_changed(writer).await.is_none() {
        return;
    }
    let ended = match &watch {
        Ok(watch) => {
            notifier.set_complete(true);
            notifier.notify_local();
            let ended = notify_of_writes(watch, notifier, writer).await;
            notifier.set_complete(false);
            ended
        }
        Err(error) => {
            notifier.notify_local();
            Err(std::io::Error::from(error.kind()))
        }
    };
    let Err(error) = ended else { return };
    let error = watch.err().unwrap_or(error);
    tracing::warn!(
        file = %path.display(),
        %error,
        "file cannot be watched for writes of other processes; it is checked every second \
         (raise fs.inotify.max_user_instances or max_user_watches)"
    );
    poll_every_second(notifier, writer).await;
}

/// Checks every second until the writer ends.
async fn poll_every_second(notifier: &Notifier, writer: &mpsc::WeakUnboundedSender<Request>) {
    loop {
        tokio::time::sleep(UNWATCHED).await;
        match has_changed(writer).await {
            None => return,
            Some(true) => notifier.notify_local(),
            Some(false) => {}
        }
    }
}

/// Checks after each write until the writer ends, or the watch fails.
async fn notify_of_writes(
    watch: &Watch,
    notifier: &Notifier,
    writer: &mpsc::WeakUnboundedSender<Request>,
) -> std::io::Result<()> {
    loop {
        watch.written().await?;
        let mut pause = FIRST_CHECK;
        let mut next = Instant::now() + pause;
        while pause <= LAST_CHECK {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                written = watch.written() => {
                    written?;
                    pause = FIRST_CHECK;
                    next = next.min(Instant::now() + BETWEEN);
                    // Collects the events of a burst: each check is a query on the writer's
                    // connection.
                    tokio::time::sleep_until(next).await;
                }
            }
            if !notifier.has_no_subscriber() {
                match has_changed(writer).await {
                    None => return Ok(()),
                    Some(true) => notifier.notify_local(),
                    Some(false) => {}
                }
            }
            pause *= 2;
            next = Instant::now() + pause.max(BETWEEN);
        }
    }
}

/// True if another connection committed since the last check; `None` after the writer has ended.
async fn has_changed(writer: &mpsc::WeakUnboundedSender<Request>) -> Option<bool> {
    let (reply, answered) = oneshot::channel();
    writer.upgrade()?.send(Request::HasChanged(reply)).ok()?;
    answered.await.ok()
}

/// A watch on the folder of a file. A watch on the log itself would end with the log, which SQLite
/// deletes with its last connection.
struct Watch {
    inotify: AsyncFd<Descriptor>,
    names: [OsString; 3],
}

/// An inotify descriptor for [`AsyncFd`].
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    fn start(path: &Path) -> std::io::Result<Self> {
        // The log of a link lies beside its target: a watch on the link's folder would see no write.
        let path = path.canonicalize()?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(std::io::Error::other("it is no file in a folder"));
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Also moves and deletions: an engine without work does not commit, and would not notice
        // that the file was replaced.
        let changes = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE;
        inotify.add_watch(folder, changes)?;
        let [mut log, mut leases] = [name.to_owned(), name.to_owned()];
        log.push("-wal");
        leases.push("-leases");
        // The watch owns the descriptor for as long as it is registered, which is all that the
        // unsafe successor of this function requires.
        #[expect(deprecated, reason = "the other one is unsafe, and this use is not")]
        let inotify = AsyncFd::new(Descriptor(inotify))?;
        Ok(Self { inotify, names: [log, name.to_owned(), leases] })
    }

    /// Returns after a write to one of the files, or after an event that may stand for one.
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
                // The queue overflowed, or the folder was removed: writes may have been missed.
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

    /// Without a free watch on the machine, an engine notices a write within a second, not after
    /// minutes.
    #[tokio::test(start_paused = true)]
    async fn without_a_watch_the_file_is_checked_every_second() {
        let (writer, mut requests) = mpsc::unbounded_channel();
        let notifier = std::sync::Arc::new(Notifier::new());
        let mut notifications = notifier.stream();
        let (ours, weak) = (std::sync::Arc::clone(&notifier), writer.downgrade());
        let polling = tokio::spawn(async move { poll_every_second(&ours, &weak).await });
        for has_changed in [false, true, false] {
            let begun = Instant::now();
            let Some(Request::HasChanged(reply)) = requests.recv().await else {
                panic!("no check")
            };
            assert!(begun.elapsed() <= UNWATCHED);
            reply.send(has_changed).unwrap();
            tokio::task::yield_now().await;
            assert_eq!(notifications.next().now_or_never().is_some(), has_changed);
        }
        drop(writer);
        // A check without an answer ends the poll.
        drop(requests);
        polling.await.unwrap();
    }
}
