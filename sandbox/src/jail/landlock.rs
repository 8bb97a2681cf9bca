//! Landlock rules for files: a second barrier besides the mounts.
//!
//! The launcher makes the rules after everything is mounted, and each task applies them to itself.
//! No task connects by itself; the launcher does it for tasks with network. A kernel without
//! Landlock lacks this barrier, and the self-test and `doctor` report it.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use super::kernel::{self, RulesetAttr};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const RESOLVE_UNIX: u64 = 1 << 16;

const BIND_AND_CONNECT_TCP: u64 = 0b11;
const BIND_AND_SEND_UDP: u64 = 0b11 << 2;
const SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS: u64 = 0b11;

/// The rights that version 1 handles.
const FIRST: u64 = EXECUTE
    | WRITE_FILE
    | READ_FILE
    | READ_DIR
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_CHAR
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_BLOCK
    | MAKE_SYM;
/// In the task's own directory: files and directories, and nothing else that a directory can hold.
const OWN: u64 = WRITE_FILE
    | READ_FILE
    | READ_DIR
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | REFER
    | TRUNCATE;

/// The access that a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reading what is in it.
    Read,
    /// Everything that a task does with files.
    Own,
    /// Reading and writing a device.
    Device,
}

/// The rights that a version of Landlock handles, and the size of the attributes that it reads.
fn attributes(version: u32) -> (RulesetAttr, usize) {
    let mut attributes = RulesetAttr { handled_access_fs: FIRST, ..RulesetAttr::default() };
    for (since, right) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEV), (9, RESOLVE_UNIX)] {
        if version >= since {
            attributes.handled_access_fs |= right;
        }
    }
    for (since, rights) in [(4, BIND_AND_CONNECT_TCP), (10, BIND_AND_SEND_UDP)] {
        if version >= since {
            attributes.handled_access_net |= rights;
        }
    }
    if version >= 6 {
        attributes.scoped = SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS;
    }
    let size = match version {
        ..=3 => 8,
        4..=5 => 16,
        6.. => 24,
    };
    (attributes, size)
}

/// The rules over `paths`; `None` if the kernel has no Landlock. A directory's rule covers
/// everything below it.
///
/// # Errors
/// If the kernel has Landlock and rejects a rule: a partial ruleset does not protect.
pub(crate) fn rules<'a>(
    paths: impl IntoIterator<Item = (&'a Path, Access)>,
) -> io::Result<Option<OwnedFd>> {
    let Some(version) = kernel::landlock_version() else { return Ok(None) };
    let (attributes, size) = attributes(version);
    let rules = kernel::landlock_ruleset(&attributes, size)?;
    for (path, access) in paths {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        let is_dir = opened.metadata()?.is_dir();
        let wanted = match access {
            Access::Read if is_dir => READ_FILE | READ_DIR,
            Access::Read => READ_FILE,
            Access::Own => OWN,
            Access::Device => READ_FILE | WRITE_FILE,
        };
        // A right that this version does not decide about is not one that it can allow.
        let allowed = wanted & attributes.handled_access_fs;
        kernel::landlock_allow(rules.as_fd(), opened.as_fd(), allowed)?;
    }
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each version is asked for what it knows, in the size that it reads.
    #[test]
    fn versions_are_asked_for_what_they_know() {
        for (version, size, newest, network, scoped) in [
            (1, 8, MAKE_SYM, 0, 0),
            (2, 8, REFER, 0, 0),
            (3, 8, TRUNCATE, 0, 0),
            (4, 16, TRUNCATE, 3, 0),
            (5, 16, IOCTL_DEV, 3, 0),
            (6, 24, IOCTL_DEV, 3, 3),
            (8, 24, IOCTL_DEV, 3, 3),
            (9, 24, RESOLVE_UNIX, 3, 3),
            (10, 24, RESOLVE_UNIX, 15, 3),
            (11, 24, RESOLVE_UNIX, 15, 3),
        ] {
            let (ruleset, length) = attributes(version);
            assert_eq!(length, size, "version {version}");
            assert_eq!(ruleset.handled_access_fs, newest * 2 - 1, "version {version}");
            assert_eq!((ruleset.handled_access_net, ruleset.scoped), (network, scoped));
        }
    }

    /// A task never gets to make a link or a device, nor to start a program.
    #[test]
    fn a_task_makes_files_and_directories_only() {
        for right in [EXECUTE, MAKE_SYM, MAKE_CHAR, MAKE_BLOCK, MAKE_SOCK, MAKE_FIFO, IOCTL_DEV] {
            assert_eq!(OWN & right, 0);
        }
    }
}
