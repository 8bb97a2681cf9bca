//! The namespaces of a jail: what it sees of users, processes, mounts, network and names.
//!
//! Asked by the launcher. As an ordinary user all of them belong to a user namespace in which the
//! user is another; as root the mounts are made with root's own rights, so that they cannot be
//! changed from within at all, and only the program goes into a user namespace, as a user that the
//! machine does not have, and that no other jail has at the same time: the kernel counts several
//! things for all processes of a user together.
//!
//! Root of a container that has no other users is an ordinary user here.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
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
    ids::{Ids, JAIL_ID},
    kernel,
    launch_error::{LaunchError, context},
};

/// The name of the machine, as a jail has it.
const HOSTNAME: &str = "sandbox";

/// True if this process is root and may give a jail a user that the machine does not have.
pub(crate) fn has_other_users() -> bool {
    let has = |file: &str| {
        let map = fs::read_to_string(file).unwrap_or_default();
        has_user(&map, JAIL_ID) && has_user(&map, outside(u32::MAX))
    };
    geteuid().is_root() && has("/proc/self/uid_map") && has("/proc/self/gid_map")
}

/// True when a map of users has this one.
fn has_user(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(first), Some(_), Some(count)) => {
                (first..first.saturating_add(count)).contains(&user.into())
            }
            _ => false,
        }
    })
}

/// The user of the jail of a launcher, by the launcher's number, which no other one has.
fn outside(launcher: u32) -> u32 {
    // Linux has no more processes than that.
    JAIL_ID + launcher % (1 << 22)
}

/// Goes into new namespaces, all but that of processes, which begins with the next child, and that
/// of the network, into which the program goes alone.
pub(crate) fn enter() -> Result<Ids, LaunchError> {
    let proc = open_dir(Path::new("/proc")).map_err(context("open /proc"))?;
    let (user, group) = (geteuid(), getegid());
    let kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let mut ids = Ids { proc, owners: None, outside: None };
    if has_other_users() {
        ids.outside = Some(outside(std::process::id()));
        ids.owners = Some(owners(&ids)?);
        unshare(kinds).map_err(context("make namespaces as root"))?;
    } else {
        unshare(kinds | CloneFlags::CLONE_NEWUSER)
            .map_err(context("make namespaces as an ordinary user"))?;
        // Without it, who may not choose their groups may not map any.
        fs::write("/proc/self/setgroups", "deny").map_err(context("disable setgroups"))?;
        fs::write("/proc/self/uid_map", format!("{JAIL_ID} {user} 1"))
            .map_err(context("map the user"))?;
        fs::write("/proc/self/gid_map", format!("{JAIL_ID} {group} 1"))
            .map_err(context("map the group"))?;
    }
    sethostname(HOSTNAME).map_err(context("set the host name"))?;
    Ok(ids)
}

/// Goes into a network that has nothing but itself.
pub(crate) fn leave_network() -> Result<(), LaunchError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(context("make a network namespace"))
}

/// A user namespace in which root is the jail's user, kept alive by a descriptor alone. Files are
/// mapped through it to that user.
fn owners(ids: &Ids) -> Result<OwnedFd, LaunchError> {
    let line = UserMapHandshake::new()?;
    let Some(child) = kernel::fork().map_err(context("fork"))? else {
        // Lives until it is mapped, or the launcher is gone.
        let _ = unshare(CloneFlags::CLONE_NEWUSER).map(|()| line.ask());
        std::process::exit(0);
    };
    let UserMapHandshake { mut launcher, child: end } = line;
    drop(end);
    let asked = launcher.read_exact(&mut [0]).map_err(context("make a user namespace"));
    let opened = asked.and_then(|()| ids.map(child, 0)).and_then(|()| {
        let path = format!("{child}/ns/user");
        openat(&ids.proc, &*path, OFlag::O_RDONLY, Mode::empty())
            .map_err(context("open a user namespace"))
    });
    drop(launcher);
    let _ = waitpid(child, None);
    opened
}

/// Between the launcher and its child: the child asks to be mapped, the launcher does it.
pub(crate) struct UserMapHandshake {
    launcher: UnixStream,
    child: UnixStream,
}

impl UserMapHandshake {
    pub(crate) fn new() -> Result<Self, LaunchError> {
        let (launcher, child) = UnixStream::pair().map_err(context("make a socket"))?;
        Ok(Self { launcher, child })
    }

    /// The child's side: waits until it is mapped.
    pub(crate) fn ask(self) -> Result<(), LaunchError> {
        let Self { launcher, mut child } = self;
        drop(launcher);
        child
            .write_all(b"?")
            .and_then(|()| child.read_exact(&mut [0]))
            .map_err(context("receive a user"))
    }

    /// The launcher's side: maps the child once it is in its user namespace. A child that has ended
    /// has printed its error.
    pub(crate) fn serve(self, ids: &Ids, child: Pid) -> Result<(), LaunchError> {
        let Self { mut launcher, child: end } = self;
        // The child holds it alone now, so that its end is the end of the line.
        drop(end);
        if launcher.read_exact(&mut [0]).is_err() {
            return Ok(());
        }
        ids.map(child, JAIL_ID)?;
        launcher.write_all(b"!").map_err(context("send the child its user"))
    }
}

/// Opens a directory to look for files below it later, when its path leads elsewhere.
fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container without other users has a map of few, the machine itself one of all.
    #[test]
    fn a_map_of_users_is_read() {
        let machine = "         0          0 4294967295\n";
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert!(has_user(machine, JAIL_ID) && has_user(machine, outside(u32::MAX)));
        assert!(has_user(rootless, 0) && has_user(rootless, 65536));
        assert!(!has_user(rootless, 65537) && !has_user(rootless, JAIL_ID));
        assert!(!has_user("nonsense", 0) && !has_user("", 0));
    }

    /// Launchers that live at the same time have jails of different users.
    #[test]
    fn each_launcher_has_a_user_of_its_own() {
        assert_ne!(outside(1), outside(2));
        assert!(outside(1 << 22) >= JAIL_ID && outside(u32::MAX) < u32::MAX / 2);
    }
}
