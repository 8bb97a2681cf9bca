//! Holds the leases of this process on a SQLite file, and tells whether others still do.
//!
//! A lease is held by a lock on one byte, numbered by its epoch, of a file beside the database. The
//! kernel drops the lock when the process ends, in whatever way; until then nobody can take it. A
//! lock belongs to the open file, not to the process: two stores in one process are as separate as
//! two processes.
//!
//! Invariant: the lock is taken before the lease can be seen, and never again once it was dropped.

use std::{
    ffi::OsString,
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
    /// Of the database at `path`. Touches nothing yet.
    pub(super) fn beside(path: &Path) -> Self {
        Self { locks: Locks::beside(path) }
    }

    /// Holds a lease that nobody else has seen.
    pub(super) fn hold(&mut self, epoch: Epoch) -> io::Result<()> {
        self.locks.hold(epoch)
    }

    /// Lets go of a lease.
    pub(super) fn drop(&mut self, epoch: Epoch) {
        self.locks.drop(epoch);
    }

    /// True when another process holds the lease; not to be asked about one of this store.
    pub(super) fn is_held(&mut self, epoch: Epoch) -> io::Result<bool> {
        self.locks.is_held(epoch)
    }
}

/// `path` with something behind its name.
fn named(path: &Path, behind: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(behind);
    PathBuf::from(name)
}

/// Bytes of one file.
#[cfg(target_os = "linux")]
mod bytes {
    use std::fs::{File, OpenOptions};

    use nix::{
        fcntl::{FcntlArg, fcntl},
        libc,
    };

    use super::{Epoch, Path, PathBuf, io, named};

    #[derive(Debug)]
    pub(super) struct Locks {
        path: PathBuf,
        /// Opened for the first lease, and never anew: with the file the locks would go.
        file: Option<File>,
    }

    impl Locks {
        pub(super) fn beside(path: &Path) -> Self {
            Self { path: named(path, "-leases"), file: None }
        }

        pub(super) fn hold(&mut self, epoch: Epoch) -> io::Result<()> {
            let lock = byte(libc::F_WRLCK, epoch)?;
            fcntl(self.file()?, FcntlArg::F_OFD_SETLK(&lock))?;
            Ok(())
        }

        pub(super) fn drop(&mut self, epoch: Epoch) {
            let unlocked = byte(libc::F_UNLCK, epoch)
                .and_then(|lock| Ok(fcntl(self.file()?, FcntlArg::F_OFD_SETLK(&lock))?));
            if let Err(error) = unlocked {
                tracing::warn!(%epoch, %error, "lock of a lease that has ended is held on");
            }
        }

        pub(super) fn is_held(&mut self, epoch: Epoch) -> io::Result<bool> {
            let mut lock = byte(libc::F_WRLCK, epoch)?;
            fcntl(self.file()?, FcntlArg::F_OFD_GETLK(&mut lock))?;
            Ok(i32::from(lock.l_type) != libc::F_UNLCK)
        }

        fn file(&mut self) -> io::Result<&File> {
            if self.file.is_none() {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).open(&self.path)?;
                self.file = Some(file);
            }
            self.file.as_ref().ok_or_else(|| io::Error::other("file was not kept"))
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

/// A file for each lease, where the system has no locks on the bytes of an open file.
#[cfg(any(test, not(target_os = "linux")))]
mod files {
    use std::{
        collections::HashMap,
        fs::{File, OpenOptions, TryLockError},
    };

    use super::{Epoch, Path, PathBuf, io, named};

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
                    self.remove(epoch);
                    Ok(false)
                }
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            }
        }

        /// No epoch is given twice: nobody will want the file again.
        fn remove(&self, epoch: Epoch) {
            let path = self.path_of(epoch);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(file = %path.display(), %error, "file of a lease was left");
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

    /// All fencing on a file rests on it.
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

    /// The way of other systems, which works on this one too.
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
