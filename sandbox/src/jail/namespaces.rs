//! The namespaces of a jail: what it sees of users, processes, mounts, network and names.
//!
//! Asked by the launcher. As an ordinary user all of them belong to a user namespace in which the
//! user is another; as root the mounts are made with root's own rights, so that they cannot be
//! changed from within at all, and only the program goes into a user namespace, as a user that the
//! machine does not have.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use nix::{
    fcntl::{OFlag, openat},
    sched::{CloneFlags, unshare},
    sys::{stat::Mode, wait::waitpid},
    unistd::{Pid, getegid, geteuid, sethostname},
};

use super::{
    kernel,
    launcher::{JAIL_ID, Refused, open_dir, while_},
};

/// The name of the machine, as a jail has it.
const HOSTNAME: &str = "sandbox";

/// Leads to the maps of a process's users, from wherever the root is by then.
pub(crate) struct Ids {
    proc: OwnedFd,
    owners: Option<OwnedFd>,
}

impl Ids {
    /// A user namespace that maps the service's user to the jail's; as root only.
    pub(crate) fn owners(&self) -> Option<BorrowedFd<'_>> {
        self.owners.as_ref().map(OwnedFd::as_fd)
    }

    /// Maps the users of `process`, which is in a user namespace that has no maps yet: its user
    /// `inside` becomes the jail's outside.
    fn map(&self, process: Pid, inside: u32) -> Result<(), Refused> {
        for file in ["uid_map", "gid_map"] {
            let path = format!("{process}/{file}");
            let opened = openat(&self.proc, &*path, OFlag::O_WRONLY, Mode::empty());
            let opened = opened.map_err(while_(format!("open {file}")))?;
            fs::File::from(opened)
                .write_all(format!("{inside} {JAIL_ID} 1").as_bytes())
                .map_err(while_(format!("write {file}")))?;
        }
        Ok(())
    }
}

/// Goes into new namespaces, all but that of processes, which begins with the next child.
pub(crate) fn enter(is_root: bool, network: bool) -> Result<Ids, Refused> {
    let proc = open_dir(Path::new("/proc")).map_err(while_("open /proc"))?;
    let (user, group) = (geteuid(), getegid());
    let mut kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if !network {
        kinds |= CloneFlags::CLONE_NEWNET;
    }
    let mut ids = Ids { proc, owners: None };
    if is_root {
        ids.owners = Some(owners(&ids)?);
        unshare(kinds).map_err(while_("make namespaces as root"))?;
    } else {
        unshare(kinds | CloneFlags::CLONE_NEWUSER)
            .map_err(while_("make namespaces as an ordinary user"))?;
        // Without it, who may not choose their groups may not map any.
        fs::write("/proc/self/setgroups", "deny").map_err(while_("give up groups"))?;
        fs::write("/proc/self/uid_map", format!("{JAIL_ID} {user} 1"))
            .map_err(while_("map the user"))?;
        fs::write("/proc/self/gid_map", format!("{JAIL_ID} {group} 1"))
            .map_err(while_("map the group"))?;
    }
    sethostname(HOSTNAME).map_err(while_("set the host name"))?;
    Ok(ids)
}

/// A user namespace in which root is the jail's user, held by nothing but a descriptor: files can be
/// shown through it as that user's.
fn owners(ids: &Ids) -> Result<OwnedFd, Refused> {
    let line = Line::new()?;
    let Some(child) = kernel::fork().map_err(while_("fork"))? else {
        // Lives until it is mapped, or the launcher is gone.
        let _ = unshare(CloneFlags::CLONE_NEWUSER).map(|()| line.ask());
        std::process::exit(0);
    };
    let Line { mut launcher, child: end } = line;
    drop(end);
    let asked = launcher.read_exact(&mut [0]).map_err(while_("make a user namespace"));
    let opened = asked.and_then(|()| ids.map(child, 0)).and_then(|()| {
        let path = format!("{child}/ns/user");
        openat(&ids.proc, &*path, OFlag::O_RDONLY, Mode::empty())
            .map_err(while_("open a user namespace"))
    });
    drop(launcher);
    let _ = waitpid(child, None);
    opened
}

/// Between the launcher and its child: the child asks to be mapped, the launcher does it.
pub(crate) struct Line {
    launcher: UnixStream,
    child: UnixStream,
}

impl Line {
    pub(crate) fn new() -> Result<Self, Refused> {
        let (launcher, child) = UnixStream::pair().map_err(while_("make a socket"))?;
        Ok(Self { launcher, child })
    }

    /// The child's side: waits until it is mapped.
    pub(crate) fn ask(self) -> Result<(), Refused> {
        let Self { launcher, mut child } = self;
        drop(launcher);
        child
            .write_all(b"?")
            .and_then(|()| child.read_exact(&mut [0]))
            .map_err(while_("be given a user"))
    }

    /// The launcher's side: maps the child, once it is in its user namespace. A child that is gone
    /// has said why.
    pub(crate) fn serve(self, ids: &Ids, child: Pid) -> Result<(), Refused> {
        let Self { mut launcher, child: end } = self;
        // The child holds it alone now, so that its end is the end of the line.
        drop(end);
        if launcher.read_exact(&mut [0]).is_err() {
            return Ok(());
        }
        ids.map(child, JAIL_ID)?;
        launcher.write_all(b"!").map_err(while_("tell the child its user"))
    }
}
