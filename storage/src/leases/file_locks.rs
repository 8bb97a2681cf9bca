//! Locks the leases of this process on a SQLite file, and checks the locks of others.
//!
//! A lease is a lock on one byte, at the offset of its epoch, of a file beside the database. The
//! kernel drops the lock when the process ends in any way; until then nobody can take it. A lock
//! belongs to the open file, not to the process: two stores in one process are as separate as two
//! processes.
//!
//! The file has the mode of the database, and is never a link: a user who may write in the folder
//! could otherwise make it lead to another file, or lock it.
//!
//! Invariant: the lock is taken before the row of the lease is committed, and never again after it
//! was dropped.

use std::{
    io,
    path::{Path, PathBuf},
};

use gleitzeit_domain::store::Epoch;

#[cfg(target_os = "linux")]
use self::bytes::Locks;
#[cfg(not(target_os = "linux"))]
use self::files::Locks;

/// The locks of one store.
#[derive(Debug)]
pub(super) struct FileLocks {
    locks: Locks,
}

impl FileLocks {
    /// The locks of the database at `path`; opens nothing yet.
    pub(super) fn beside(path: &Path) -> Self {
        Self { locks: Locks::beside(path) }
    }

    /// Locks a lease whose row is not committed yet.
    pub(super) fn hold(&mut self, epoch: Epoch) -> io::Result<()> {
        self.locks.hold(epoch)
    }

    /// Unlocks a lease.
    pub(super) fn drop(&mut self, epoch: Epoch) {
        self.locks.drop(epoch);
    }

    /// True if another store holds the lease; wrong for a lease of this store.
    pub(super) fn is_held(&mut self, epoch: Epoch) -> io::Result<bool> {
        self.locks.is_held(epoch)
    }

    /// The reason why the locks of this store no longer exclude others; `None` while they do.
    pub(super) fn loss(&self) -> Option<String> {
        self.locks.loss()
    }
}

/// Locks on bytes of one file.
#[cfg(target_os = "linux")]
mod bytes {
    use std::{
        fs::{File, Metadata, OpenOptions, Permissions},
        os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    };

    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
        unistd::Uid,
    };

    use super::{Epoch, Path, PathBuf, io};
    use crate::database_file::{Identity, named};

    /// The permission bits of a file.
    const RIGHTS: u32 = 0o777;

    /// The bit of a file that its group may write.
    const GROUP_WRITES: u32 = 0o020;

    #[derive(Debug)]
    pub(super) struct Locks {
        database: PathBuf,
        path: PathBuf,
        /// Opened for the first lease, and kept open: its close would drop all locks.
        file: Option<(File, Identity)>,
    }

    impl Locks {
        pub(super) fn beside(path: &Path) -> Self {
            Self { database: path.to_owned(), path: named(path, "-leases"), file: None }
        }

        pub(super) fn hold(&mut self, epoch: Epoch) -> io::Result<()> {
            let lock = byte(libc::F_WRLCK, epoch)?;
            // OFD: the lock belongs to this open file. A POSIX lock belongs to the process: two
            // stores in it would not exclude each other, and any close of the file would drop it.
            fcntl(self.file()?, FcntlArg::F_OFD_SETLK(&lock))?;
            Ok(())
        }

        pub(super) fn drop(&mut self, epoch: Epoch) {
            let unlocked = byte(libc::F_UNLCK, epoch)
                .and_then(|lock| Ok(fcntl(self.file()?, FcntlArg::F_OFD_SETLK(&lock))?));
            if let Err(error) = unlocked {
                tracing::warn!(%epoch, %error, "unlock of a closed lease failed");
            }
        }

        pub(super) fn is_held(&mut self, epoch: Epoch) -> io::Result<bool> {
            let mut lock = byte(libc::F_WRLCK, epoch)?;
            fcntl(self.file()?, FcntlArg::F_OFD_GETLK(&mut lock))?;
            Ok(i32::from(lock.l_type) != libc::F_UNLCK)
        }

        pub(super) fn loss(&self) -> Option<String> {
            let (_, identity) = self.file.as_ref()?;
            let is_there = match std::fs::symlink_metadata(&self.path) {
                Ok(found) => Identity::of(&found) == *identity,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            };
            let path = self.path.display();
            (!is_there).then(|| {
                format!(
                    "`{path}` was removed or replaced while it was in use, and other processes no \
                     longer see who runs what; stop every process that uses the database, and \
                     start again"
                )
            })
        }

        fn file(&mut self) -> io::Result<&File> {
            if self.file.is_none() {
                let file = self.open()?;
                let identity = Identity::of(&file.metadata()?);
                self.file = Some((file, identity));
            }
            let kept = self.file.as_ref().map(|(file, _)| file);
            kept.ok_or_else(|| io::Error::other("file was not kept"))
        }

        fn open(&self) -> io::Result<File> {
            let database = self.database.metadata().ok();
            // The mode of the database: a wider one would let users lock leases who cannot read the
            // database.
            let rights = database.as_ref().map_or(0o600, |found| found.mode() & RIGHTS);
            let mut options = OpenOptions::new();
            // O_NOFOLLOW rejects a link. O_NONBLOCK: the open of a FIFO of this name would wait for
            // ever.
            options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = match options.write(true).create(true).mode(rights).open(&self.path) {
                // Read-only: a check of a lock needs no write access, and a status command must work
                // on a read-only file system.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES)) => {
                    options.write(false).create(false).open(&self.path)
                }
                opened => opened,
            };
            let file = file.map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP) => self.refused("it is a link; remove it"),
                _ => error,
            })?;
            let found = file.metadata()?;
            self.check(&found, database.as_ref())?;
            // An earlier version created the file with a wider mode, which let every user lock it.
            let is_ours = found.uid() == Uid::effective().as_raw();
            if is_ours && found.mode() & RIGHTS & !rights != 0 {
                file.set_permissions(Permissions::from_mode(found.mode() & RIGHTS & rights))?;
            }
            Ok(file)
        }

        /// Rejects a file of another user: its owner could lock bytes of it, and block a takeover for
        /// ever.
        fn check(&self, found: &Metadata, database: Option<&Metadata>) -> io::Result<()> {
            if !found.is_file() || found.nlink() > 1 {
                return Err(self.refused("it is no plain file of one name; remove it"));
            }
            let mut owners = vec![0, Uid::effective().as_raw()];
            owners.extend(database.map(Metadata::uid));
            let is_shared = database.is_some_and(|found| found.mode() & GROUP_WRITES != 0);
            if is_shared || owners.contains(&found.uid()) {
                return Ok(());
            }
            Err(self.refused(&format!(
                "it belongs to the user {}, and the database does not; remove it",
                found.uid()
            )))
        }

        fn refused(&self, why: &str) -> io::Error {
            io::Error::other(format!("`{}`: {why}", self.path.display()))
        }
    }

    /// A lock on the byte of a lease.
    #[expect(clippy::cast_possible_truncation, reason = "the constants fit")]
    fn byte(kind: libc::c_int, epoch: Epoch) -> io::Result<libc::flock> {
        Ok(libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::try_from(epoch.0).map_err(io::Error::other)?,
            l_len: 1,
            l_pid: 0,
        })
    }
}

/// A file for each lease, on systems without locks on bytes of an open file.
#[cfg(any(test, not(target_os = "linux")))]
mod files {
    use std::{
        collections::HashMap,
        fs::{File, OpenOptions, TryLockError},
    };

    use super::{Epoch, Path, PathBuf, io};
    use crate::database_file::named;

    #[derive(Debug)]
    pub(super) struct Locks {
        path: PathBuf,
        held: HashMap<Epoch, File>,
    }

    impl Locks {
        pub(super) fn beside(path: &Path) -> Self {
            Self { path: path.to_owned(), held: HashMap::new() }
        }

        pub(super) fn hold(&mut self, epoch: Epoch) -> io::Result<()> {
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).open(self.path_of(epoch))?;
            file.try_lock()?;
            self.held.insert(epoch, file);
            Ok(())
        }

        pub(super) fn drop(&mut self, epoch: Epoch) {
            if self.held.remove(&epoch).is_some() {
                self.remove(epoch);
            }
        }

        pub(super) fn is_held(&mut self, epoch: Epoch) -> io::Result<bool> {
            let file = match OpenOptions::new().write(true).open(self.path_of(epoch)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => {
                    // Free: its process has ended, and nobody else will remove the file.
                    self.remove(epoch);
                    Ok(false)
                }
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            }
        }

        /// Never: these systems do not remove an open file.
        #[cfg_attr(target_os = "linux", expect(dead_code, reason = "used by other systems"))]
        #[expect(clippy::unused_self, reason = "the same shape on every system")]
        pub(super) fn loss(&self) -> Option<String> {
            None
        }

        /// Removes the file of a lease; its epoch is never used again.
        fn remove(&self, epoch: Epoch) {
            let path = self.path_of(epoch);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(file = %path.display(), %error, "file of a lease not removed");
            }
        }

        fn path_of(&self, epoch: Epoch) -> PathBuf {
            named(&self.path, &format!("-lease-{epoch}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All fencing on a file depends on this.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_byte_is_held_until_it_is_dropped() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.db");
        let (mut ours, mut theirs) = (bytes::Locks::beside(&path), bytes::Locks::beside(&path));
        ours.hold(Epoch(1)).unwrap();
        ours.hold(Epoch(2)).unwrap();
        theirs.hold(Epoch(3)).unwrap();
        assert!(theirs.is_held(Epoch(1)).unwrap());
        assert!(ours.is_held(Epoch(3)).unwrap());
        assert!(theirs.hold(Epoch(2)).is_err());
        ours.drop(Epoch(1));
        assert!(!theirs.is_held(Epoch(1)).unwrap());
        assert!(theirs.is_held(Epoch(2)).unwrap(), "one byte is not another");
        drop(ours);
        assert!(!theirs.is_held(Epoch(2)).unwrap());
    }

    /// In a folder that others may write to, they may create the name first.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.db");
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, folder.path().join("a.db-leases")).unwrap();
        let error = bytes::Locks::beside(&path).hold(Epoch(1)).unwrap_err();
        assert!(error.to_string().contains("it is a link"), "{error}");
        assert!(!victim.exists(), "made through the link");
        std::fs::remove_file(folder.path().join("a.db-leases")).unwrap();
        std::fs::write(&victim, "").unwrap();
        std::fs::hard_link(&victim, folder.path().join("a.db-leases")).unwrap();
        assert!(bytes::Locks::beside(&path).hold(Epoch(1)).is_err(), "another name of a file");
    }

    /// A user who may not read the database must not lock it.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_of_locks_has_the_mode_of_the_database() {
        use std::{
            fs::{Permissions, set_permissions, write},
            os::unix::fs::PermissionsExt as _,
        };

        let folder = tempfile::TempDir::new().unwrap();
        let (path, leases) = (folder.path().join("a.db"), folder.path().join("a.db-leases"));
        let mode = || leases.metadata().unwrap().permissions().mode() & 0o777;
        write(&path, "").unwrap();
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        bytes::Locks::beside(&path).hold(Epoch(1)).unwrap();
        assert_eq!(mode(), 0o600);
        set_permissions(&leases, Permissions::from_mode(0o644)).unwrap();
        bytes::Locks::beside(&path).hold(Epoch(1)).unwrap();
        assert_eq!(mode(), 0o600, "the mode of an earlier version");
    }

    /// Without this check two processes would hold the same lease.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_loss_of_the_file_is_noticed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.db");
        let mut locks = bytes::Locks::beside(&path);
        assert_eq!(locks.loss(), None);
        locks.hold(Epoch(1)).unwrap();
        assert_eq!(locks.loss(), None);
        std::fs::remove_file(folder.path().join("a.db-leases")).unwrap();
        assert!(locks.loss().unwrap().contains("a.db-leases"));
    }

    /// The locks of other systems, which work on this one, too.
    #[test]
    fn a_file_is_held_until_it_is_dropped() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.db");
        let (mut ours, mut theirs) = (files::Locks::beside(&path), files::Locks::beside(&path));
        ours.hold(Epoch(1)).unwrap();
        ours.hold(Epoch(2)).unwrap();
        assert!(theirs.is_held(Epoch(1)).unwrap());
        assert!(theirs.hold(Epoch(2)).is_err());
        ours.drop(Epoch(1));
        assert!(!theirs.is_held(Epoch(1)).unwrap());
        drop(ours);
        assert!(!theirs.is_held(Epoch(2)).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "files of dead leases stay");
    }
}
