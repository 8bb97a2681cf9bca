//! Identifies the file of a SQLite database, and detects that its path no longer leads to it.
//!
//! [`open`](super::open) checks the file before SQLite opens it, and the [`writer`](super::writer)
//! before each commit. SQLite itself never checks again: after the file was removed, renamed or
//! replaced it writes to a file that nobody finds, and after `-wal`, `-shm` or `-leases` was removed
//! two processes write without seeing each other.
//!
//! This module never opens the file. A process that opens and closes it drops the locks that SQLite
//! holds for the same process (`fcntl(2)`), and two writers would get in.
//!
//! Invariant: a database in use has one name, and that name is not a mount of its own.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use gleitzeit_domain::store::StoreError;

/// The files of SQLite beside the database while it is in use.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The identity of a file: its device, and its inode there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    number: u64,
}

/// The file of a database that is in use.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    identity: Identity,
    /// The paths of [`COMPANIONS`], with their identities at the first check that found them.
    companions: [(PathBuf, Option<Identity>); 2],
}

impl DatabaseFile {
    /// The file that SQLite has just opened at `path`.
    ///
    /// # Errors
    /// [`StoreError::Open`] if it has several names, is a mount of its own, or is gone already.
    pub(super) fn of_open(path: &Path) -> Result<Self, StoreError> {
        let path = path.canonicalize().map_err(|error| refused(path, &error.to_string()))?;
        let found = stat(&path).map_err(|error| refused(&path, &error.to_string()))?;
        let Some(Found { identity, names }) = found else {
            return Err(refused(&path, "it was removed while it was being opened"));
        };
        if names > 1 {
            return Err(refused(&path, &several_names(names)));
        }
        if is_mounted_alone(&path) {
            return Err(refused(
                &path,
                "this file is a mount of its own, and its companions (`-wal`, `-shm`, `-leases`) \
                 would stay behind when the mount ends; mount its folder instead",
            ));
        }
        let companions = COMPANIONS.map(|suffix| (named(&path, suffix), None));
        Ok(Self { path, identity, companions })
    }

    /// The reason why the database can no longer be used; `None` while its files are unchanged. Costs a
    /// few calls of `stat(2)`, each about a microsecond.
    pub(super) fn loss(&mut self) -> Option<String> {
        let path = self.path.display().to_string();
        match stat(&self.path) {
            Ok(Some(found)) if found.identity != self.identity => {
                return Some(format!("`{path}` was replaced by another file {IN_USE}"));
            }
            // A process that opens the file by its second name uses another log, and neither sees
            // the commits of the other.
            Ok(Some(Found { names: 2.., .. })) => {
                return Some(format!("`{path}` was given a second name (a hard link) {IN_USE}"));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Some(format!("`{path}` was removed or renamed {IN_USE}")),
            // Not a loss: a folder that cannot be read for a moment would stop the store for ever.
            Err(_) => return None,
        }
        for (path, known) in &mut self.companions {
            let found = match stat(path) {
                Ok(found) => found.map(|found| found.identity),
                Err(_) => continue,
            };
            match (*known, found) {
                // Seen for the first time: SQLite creates the log with its first read or write.
                (None, found) => *known = found,
                (Some(known), Some(found)) if known == found => {}
                (Some(_), _) => {
                    let path = path.display();
                    return Some(format!("`{path}` was removed or replaced {IN_USE}"));
                }
            }
        }
        None
    }

    /// Forgets the companions: a connection was closed, and with the last one SQLite removes them and
    /// creates new ones.
    pub(super) fn forget_companions(&mut self) {
        for (_, known) in &mut self.companions {
            *known = None;
        }
    }
}

/// The byte of `-shm` that a writing connection locks.
#[cfg(target_os = "linux")]
const WRITE_LOCK: u64 = 120;

/// Names the process that is writing to a database, if the system shows it: a process that was
/// stopped within a transaction blocks all others.
pub(super) fn who_writes(database: &Path) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt as _;

        let shared = named(&database.canonicalize().ok()?, "-shm").metadata().ok()?;
        // From the kernel: SQLite reports that a file is locked, not by which process.
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let process = locks.lines().find_map(|line| writer_of(line, shared.ino()))?;
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let stopped = if matches!(state, Some('T' | 't')) { ", which is stopped," } else { "" };
        Some(format!("the process {process}{stopped} is writing to it"))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = database;
        None
    }
}

/// The process that holds the write lock on the file of this number, from a line of
/// `proc_locks(5)`: `1: POSIX  ADVISORY  WRITE 1234 fe:01:5678 120 120`.
#[cfg(target_os = "linux")]
fn writer_of(line: &str, number: u64) -> Option<i32> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "POSIX", _, "WRITE", process, file, from, to] = fields.as_slice() else { return None };
    let is_it = file.rsplit(':').next()?.parse() == Ok(number)
        && from.parse::<u64>().is_ok_and(|from| from <= WRITE_LOCK)
        && (*to == "EOF" || to.parse::<u64>().is_ok_and(|to| to >= WRITE_LOCK));
    process.parse().ok().filter(|process| is_it && *process > 0)
}

/// The end of a sentence about the loss of a file.
const IN_USE: &str = "while it was in use; what was stored is in the file that was there before: \
                      stop every process that uses it, put it back, and start again";

/// The file at a path.
#[derive(Debug, Clone, Copy)]
struct Found {
    identity: Identity,
    names: u64,
}

#[cfg(unix)]
impl Identity {
    /// The identity of a file with this metadata.
    pub(super) fn of(described: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;

        Self { device: described.dev(), number: described.ino() }
    }
}

/// The file at a path; `None` if there is none.
#[cfg(unix)]
fn stat(path: &Path) -> io::Result<Option<Found>> {
    use std::os::unix::fs::MetadataExt as _;

    // Without following links: the path is canonical, so a link at it has replaced the file.
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(Found { identity: Identity::of(&found), names: found.nlink() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// On other systems an open file cannot be removed or renamed.
#[cfg(not(unix))]
fn stat(_path: &Path) -> io::Result<Option<Found>> {
    Ok(Some(Found { identity: Identity { device: 0, number: 0 }, names: 1 }))
}

/// Creates an empty file that only its owner may read, if there is none. SQLite gives `-wal` and
/// `-shm` the mode of the file.
///
/// # Errors
/// The error of the system.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    // `create_new`: an existing file keeps its mode, which its owner has chosen.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // Safe to close here: a new file has no locks of this process to drop.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Warns of a database that every user of the machine may read: each of them may also lock it, and
/// block its writers.
pub(super) fn warn_if_open_to_all(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;

        let Ok(found) = path.metadata() else { return };
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            tracing::warn!(
                file = %path.display(),
                mode = format_args!("{mode:o}"),
                "database can be read by every user of this machine; `chmod 600` it and the files \
                 beside it"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// True if a file is a mount point: `docker run -v /srv/a.db:/data/a.db`.
#[cfg(target_os = "linux")]
fn is_mounted_alone(path: &Path) -> bool {
    // Without `/proc` it counts as none: the store must work in a minimal container.
    std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_mount(&mounts, path))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted_alone(_path: &Path) -> bool {
    false
}

/// True if a table of mounts (`proc_pid_mountinfo(5)`) has the path as a mount point.
#[cfg(target_os = "linux")]
fn is_mount(mounts: &str, path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| unescaped(at) == path)
}

/// Decodes a path of the table, which has a few characters as `\040`.
#[cfg(target_os = "linux")]
fn unescaped(text: &str) -> String {
    let mut path = text.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        path = path.replace(escape, character);
    }
    path
}

/// `path` with a suffix.
pub(super) fn named(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn several_names(names: u64) -> String {
    format!(
        "it has {names} names (hard links), and SQLite keeps a log of its own for each, which \
         destroys it; remove the others"
    )
}

fn refused(path: &Path, why: &str) -> StoreError {
    StoreError::Open { detail: format!("`{}`: {why}", path.display()) }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[expect(clippy::unwrap_used, reason = "a test's helper may panic")]
    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().canonicalize().unwrap().join("a.db");
        make_private(&path).unwrap();
        for suffix in COMPANIONS {
            fs::write(named(&path, suffix), "").unwrap();
        }
        (folder, path)
    }

    /// A commit after any of these changes would be lost.
    #[test]
    fn a_file_that_was_moved_or_replaced_is_detected() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 6] = [
            (|path| fs::remove_file(path).unwrap(), "removed"),
            (|path| fs::rename(path, named(path, ".old")).unwrap(), "renamed"),
            (
                |path| {
                    fs::write(named(path, ".new"), "").unwrap();
                    fs::rename(named(path, ".new"), path).unwrap();
                },
                "replaced",
            ),
            (|path| fs::hard_link(path, named(path, "2")).unwrap(), "second name"),
            (|path| fs::remove_file(named(path, "-wal")).unwrap(), "a.db-wal` was removed"),
            (|path| fs::remove_file(named(path, "-shm")).unwrap(), "a.db-shm` was removed"),
        ];
        for (change, what) in changes {
            let (_folder, path) = database();
            let mut file = DatabaseFile::of_open(&path).unwrap();
            assert_eq!(file.loss(), None);
            assert_eq!(file.loss(), None);
            change(&path);
            let loss = file.loss().expect(what);
            assert!(loss.contains(what), "{loss}");
        }
    }

    /// SQLite creates them when it needs them, and removes them with the last connection.
    #[test]
    fn companions_may_change_with_a_connection() {
        let (_folder, path) = database();
        fs::remove_file(named(&path, "-wal")).unwrap();
        let mut file = DatabaseFile::of_open(&path).unwrap();
        assert_eq!(file.loss(), None);
        fs::write(named(&path, "-wal"), "").unwrap();
        assert_eq!(file.loss(), None);
        fs::remove_file(named(&path, "-wal")).unwrap();
        file.forget_companions();
        assert_eq!(file.loss(), None);
    }

    /// SQLite would keep a log for each of the two names.
    #[test]
    fn a_file_with_two_names_is_rejected() {
        let (_folder, path) = database();
        fs::hard_link(&path, named(&path, "2")).unwrap();
        let error = DatabaseFile::of_open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }));
        assert!(error.to_string().contains("2 names"), "{error}");
    }

    /// The file has prompts, results and inputs.
    #[test]
    fn a_new_file_is_private() {
        let (_folder, path) = database();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        make_private(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "the mode of an existing file stays");
    }

    /// The error about a lock must name the process that holds it.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_that_writes_is_found_among_locks() {
        let of = |line| writer_of(line, 5678);
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 1234 fe:01:5678 120 120"), Some(1234));
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 1234 fe:01:5678 0 EOF"), Some(1234));
        assert_eq!(of("1: -> POSIX ADVISORY WRITE 1234 fe:01:5678 120 120"), None, "it waits");
        assert_eq!(of("1: POSIX  ADVISORY  READ 1234 fe:01:5678 120 120"), None);
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 1234 fe:01:5679 120 120"), None);
        assert_eq!(of("1: POSIX  ADVISORY  WRITE 1234 fe:01:5678 123 123"), None);
        assert_eq!(of("1: OFDLCK ADVISORY  WRITE -1 fe:01:5678 120 120"), None);
    }

    /// The format of the kernel, with a space in a path.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_mount_point_is_found_in_the_table() {
        let mounts = "22 1 0:5 / / rw - ext4 /dev/vda rw\n\
                      31 22 254:1 /srv/a.db /data/my\\040a.db rw,relatime - ext4 /dev/vda rw\n";
        assert!(is_mount(mounts, Path::new("/data/my a.db")));
        assert!(!is_mount(mounts, Path::new("/data")));
        assert!(!is_mount(mounts, Path::new("/srv/a.db")));
    }
}
