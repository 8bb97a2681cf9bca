//! The user of a jail, inside and outside of it.

use std::{
    fs,
    io::Write as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::Pid,
};

use super::launch_error::{LaunchError, context};

/// The user and group that the jail's inside knows. Outside, where root makes the jail, it is this
/// number or one of four million above it: more than distributions, systemd and containers give
/// away, so that it owns no file of the machine.
pub(crate) const JAIL_ID: u32 = 1_900_000_000;

/// Leads to the maps of a process's users, from wherever the root is by then.
pub(crate) struct Ids {
    pub(super) proc: OwnedFd,
    pub(super) owners: Option<OwnedFd>,
    /// As root: who the jail's user is outside.
    pub(super) outside: Option<u32>,
}

impl Ids {
    /// A user namespace that maps the service's user to the jail's; as root only.
    pub(crate) fn owners(&self) -> Option<BorrowedFd<'_>> {
        self.owners.as_ref().map(OwnedFd::as_fd)
    }

    /// Root's way, in which the launcher keeps its rights.
    pub(crate) fn is_root(&self) -> bool {
        self.outside.is_some()
    }

    /// The jail's user as the launcher names it.
    pub(crate) fn user(&self) -> u32 {
        self.outside.unwrap_or(JAIL_ID)
    }

    /// The file system of processes of the machine.
    pub(crate) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Maps the users of `process`, which is in a user namespace that has no maps yet: its user
    /// `inside` becomes the jail's outside.
    pub(super) fn map(&self, process: Pid, inside: u32) -> Result<(), LaunchError> {
        for file in ["uid_map", "gid_map"] {
            let path = format!("{process}/{file}");
            let opened = openat(&self.proc, &*path, OFlag::O_WRONLY, Mode::empty());
            let opened = opened.map_err(context(format!("open {file}")))?;
            fs::File::from(opened)
                .write_all(format!("{inside} {} 1", self.user()).as_bytes())
                .map_err(context(format!("write {file}")))?;
        }
        Ok(())
    }
}
