//! Mounts: the root of a jail is built, moved into, and closed to writing.
//!
//! Asked by the launcher. Uses the mount calls that copy a tree before they attach it (Linux 5.12),
//! so that nothing of the machine is ever attached writable, not even for a moment.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, symlink},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use super::{
    ids::Ids,
    kernel::{self, MountFlags},
    landlock::{self, Access},
    launch_error::{LaunchError, context},
    spec::Spec,
};

/// Devices that give and take nothing of the machine.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];
/// The one place that a task can write to.
pub(crate) const TASK: &str = "/task";
/// Candidate directories to mount the new root on. Their content is hidden within this namespace
/// only.
const ROOT_CANDIDATES: [&str; 4] = ["/tmp", "/run", "/mnt", "/var"];

/// A tree of the machine, copied and closed, with its place in the jail.
struct Tree {
    copy: OwnedFd,
    target: PathBuf,
    is_dir: bool,
}

/// Builds the root, moves into it, and returns its Landlock rules, if the kernel has Landlock.
pub(crate) fn build(spec: &Spec, ids: &Ids) -> Result<Option<OwnedFd>, LaunchError> {
    let none = None::<&str>;
    // Without this, every mount below would propagate to the machine.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(context("make mounts private"))?;
    // Before the new root is mounted, which covers one of the source directories.
    let trees = copies(spec, ids)?;
    let new_root = ROOT_CANDIDATES.iter().map(Path::new).find(|path| path.is_dir());
    let new_root = new_root.ok_or_else(|| {
        context(format!("find a directory for the new root among {ROOT_CANDIDATES:?}"))(
            io::Error::from(io::ErrorKind::NotFound),
        )
    })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("root"), new_root, Some("tmpfs"), flags, Some("mode=0755,size=1m,nr_inodes=4096"))
        .map_err(context("mount the new root"))?;
    chdir(new_root).map_err(context("enter the new root"))?;
    for tree in &trees {
        attach(tree).map_err(context(format!("mount `{}`", tree.target.display())))?;
    }
    for (at, target) in &spec.layout.links {
        link(at, target).map_err(context(format!("make the link `{}`", at.display())))?;
    }
    // Before the root becomes read-only: the mount point must be made in it.
    mount_task(spec, ids.user())?;
    enter()?;
    let attached = trees.iter().map(|tree| {
        let is_device = DEVICES.iter().any(|device| tree.target == Path::new(device));
        (&*tree.target, if is_device { Access::Device } else { Access::Read })
    });
    // An import lists the directories of the search path; in here they hold what is bound and no more.
    let listed = spec.layout.listed.iter().filter(|path| path.is_dir());
    let listed = listed.map(|path| (&**path, Access::Read));
    landlock::rules(attached.chain(listed).chain([(Path::new(TASK), Access::Own)]))
        .map_err(context("make the rules of Landlock"))
}

/// Copies every tree before the new root can cover it.
fn copies(spec: &Spec, ids: &Ids) -> Result<Vec<Tree>, LaunchError> {
    let mut trees = Vec::new();
    for device in DEVICES.map(Path::new) {
        trees.push(copy(device, device, MountFlags::DEVICE, false)?);
    }
    for bind in &spec.layout.binds {
        let tree = copy(&bind.source, &bind.target, MountFlags::READ_ONLY, bind.is_dir)?;
        if bind.is_read_only
            && let Some(owners) = ids.owners()
        {
            // A file system that cannot do it shows what everyone may read.
            let _ = kernel::map_owners(tree.copy.as_fd(), owners);
        }
        trees.push(tree);
    }
    Ok(trees)
}

fn copy(
    source: &Path,
    target: &Path,
    flags: MountFlags,
    is_dir: bool,
) -> Result<Tree, LaunchError> {
    let copy = || -> io::Result<OwnedFd> {
        let copy = kernel::clone_tree(&text(source)?)?;
        kernel::restrict_tree(copy.as_fd(), flags)?;
        Ok(copy)
    };
    let copy = copy().map_err(context(format!("copy the mount `{}`", source.display())))?;
    Ok(Tree { copy, target: target.to_owned(), is_dir })
}

/// Attaches a tree at its place below the working directory.
fn attach(tree: &Tree) -> io::Result<()> {
    let path = inside(&tree.target);
    if tree.is_dir {
        directory(&path)?;
    } else {
        path.parent().map_or(Ok(()), directory)?;
        fs::File::create(&path)?;
    }
    kernel::attach_tree(tree.copy.as_fd(), &text(&path)?)
}

fn link(at: &Path, target: &Path) -> io::Result<()> {
    let path = inside(at);
    path.parent().map_or(Ok(()), directory)?;
    symlink(target, path)
}

fn mount_task(spec: &Spec, owner: u32) -> Result<(), LaunchError> {
    let path = inside(Path::new(TASK));
    directory(&path).map_err(context("make /task"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!(
        "size={},nr_inodes={},mode=0700,uid={owner},gid={owner}",
        spec.task_bytes, spec.task_inodes
    );
    mount(Some("task"), &path, Some("tmpfs"), flags, Some(&*options))
        .map_err(context("mount /task"))
}

/// Makes the working directory the root, lets go of the old one, and closes the new one.
fn enter() -> Result<(), LaunchError> {
    // Both arguments are the new root, so that the old one is stacked on it and can be unmounted
    // without a directory of its own.
    pivot_root(".", ".").map_err(context("change the root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(context("unmount the old root"))?;
    chdir("/").map_err(context("enter the new root"))?;
    let root = MountFlags(MountFlags::READ_ONLY.0 | libc::MOUNT_ATTR_NOEXEC);
    kernel::restrict_mount(c"/", root).map_err(context("make the new root read-only"))
}

/// The path as one below the working directory.
fn inside(path: &Path) -> PathBuf {
    Path::new(".").join(path.strip_prefix("/").unwrap_or(path))
}

fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
