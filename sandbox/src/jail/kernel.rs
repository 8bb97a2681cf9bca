//! System calls that have no safe wrapper. Each of them is made here and nowhere else.
//!
//! Used by the launcher, which has one thread, and by code that kills through a descriptor.
//! Invariant: every pointer that is passed lives until the call has returned.

#![expect(unsafe_code, reason = "system calls without a safe wrapper; each block says why it is")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::unistd::{ForkResult, Pid};

/// Attributes of a mount, as `mount_setattr` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountFlags(pub(crate) u64);

impl MountFlags {
    /// Nothing in it can be written, no set-user-id bit counts, no device can be opened.
    pub(crate) const READ_ONLY: Self =
        Self(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    /// A device that is bound for itself: it may be opened, and nothing else.
    pub(crate) const DEVICE: Self = Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC);
}

/// A version-independent view of `struct mount_attr`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = checked(result)?.try_into().map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of what is mounted at `path`, with all that is mounted below it, attached nowhere yet.
pub(crate) fn clone_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // SAFETY: `path` is a C string that outlives the call; the flags are plain numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Attaches a copied tree at `target`.
pub(crate) fn attach_tree(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both names are C strings that outlive the call, and `tree` is open.
    checked(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Adds attributes to a tree and to all that is mounted below it.
pub(crate) fn restrict_tree(tree: BorrowedFd<'_>, flags: MountFlags) -> io::Result<()> {
    let attributes = MountAttr { set: flags.0, ..MountAttr::default() };
    set_attributes(tree, c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, &attributes)
}

/// Lets a tree look as if its files belonged to whom `owners`, a user namespace, maps theirs to.
pub(crate) fn map_owners(tree: BorrowedFd<'_>, owners: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = owners.as_raw_fd().try_into().map_err(io::Error::other)?;
    let set = libc::MOUNT_ATTR_IDMAP;
    let attributes = MountAttr { set, userns_fd, ..MountAttr::default() };
    set_attributes(tree, c"", libc::AT_EMPTY_PATH, &attributes)
}

/// Adds attributes to the one mount at `path`.
pub(crate) fn restrict_mount(path: &CStr, flags: MountFlags) -> io::Result<()> {
    // SAFETY: `AT_FDCWD` stands for the working directory, which is always there.
    let cwd = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    set_attributes(cwd, path, 0, &MountAttr { set: flags.0, ..MountAttr::default() })
}

fn set_attributes(
    at: BorrowedFd<'_>,
    path: &CStr,
    how: libc::c_int,
    attributes: &MountAttr,
) -> io::Result<()> {
    // SAFETY: `path` and `attributes` outlive the call, and the size passed is that of `attributes`.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            how,
            &raw const *attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Makes a new process like this one. Only for a process of one thread: another thread's locks
/// would stay locked in the child for ever.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the launcher calls it, which has one thread, so that the child finds no lock held.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: numbers only; the owner of those descriptors is about to be replaced.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Gives up every capability for good: also those that a later program could have brought.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    for capability in 0_u64.. {
        // SAFETY: numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            break; // the first number that this kernel does not know
        }
    }
    // SAFETY: numbers only.
    checked(unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).into()
    })?;
    // `struct __user_cap_header_struct`, version 3, for this process; then twice the three sets.
    let header: [u32; 2] = [0x2008_0522, 0];
    let none: [u32; 6] = [0; 6];
    // SAFETY: both arrays have the sizes that version 3 reads, and outlive the call.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }).map(drop)
}

/// From here on no program gives this process more rights than it has.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into() }).map(drop)
}

/// The kernel kills this process when the one that started it is gone.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: numbers only.
    checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0).into() }).map(drop)
}

/// A descriptor of a process, readable when it has ended.
pub(crate) fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Kills a process for good. One that has ended is no error.
pub(crate) fn kill_process(process: BorrowedFd<'_>) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: `process` is open; no information goes with the signal.
    let sent = checked(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, none, 0)
    });
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Takes over a descriptor that was received in a message.
pub(crate) fn received(number: i32) -> OwnedFd {
    // SAFETY: the kernel put it into our table with the message that has just been read, and the
    // reader of messages is the only one to see its number.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Takes over a descriptor that the launcher was started with.
pub(crate) fn inherited(number: i32) -> OwnedFd {
    // SAFETY: the launcher calls it once for each of its standard descriptors, which it uses for
    // nothing else.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The version of Landlock; `None` if the kernel has none, or has it disabled.
pub(crate) fn landlock_version() -> Option<u32> {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: asked for its version, the call reads no attributes.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    u32::try_from(result).ok().filter(|version| *version > 0)
}

/// The access rights that a Landlock ruleset handles, in the layout of `landlock_create_ruleset`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RulesetAttr {
    pub(crate) handled_access_fs: u64,
    pub(crate) handled_access_net: u64,
    pub(crate) scoped: u64,
}

/// Makes a set of rules. `size` is that of the attributes which this version knows.
pub(crate) fn landlock_ruleset(attributes: &RulesetAttr, size: usize) -> io::Result<OwnedFd> {
    debug_assert!(size <= size_of::<RulesetAttr>(), "{size} bytes are more than there are");
    // SAFETY: `size` bytes of `attributes` are there, and outlive the call.
    descriptor(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *attributes, size, 0)
    })
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Allows `access` to `place` and all that is below it.
pub(crate) fn landlock_allow(
    rules: BorrowedFd<'_>,
    opened: BorrowedFd<'_>,
    access: u64,
) -> io::Result<()> {
    const PATH_BENEATH: u32 = 1;
    let rule = PathBeneath { allowed_access: access, parent_fd: opened.as_raw_fd() };
    // SAFETY: both descriptors are open and `rule` outlives the call.
    checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// True if the kernel can filter system calls by a program.
pub(crate) fn filters_system_calls() -> bool {
    // SECCOMP_GET_ACTION_AVAIL
    const ACTION_AVAILABLE: u32 = 2;
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads the one number that `action` is.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, ACTION_AVAILABLE, 0, &raw const action) };
    result == 0
}

/// Installs a filter on this process that forwards some calls to the reader of the returned
/// descriptor.
pub(crate) fn filter_and_listen(program: &[u8]) -> io::Result<OwnedFd> {
    let mut steps: Vec<libc::sock_filter> = program
        .chunks_exact(8)
        .map(|step| libc::sock_filter {
            code: u16::from_ne_bytes([step[0], step[1]]),
            jt: step[2],
            jf: step[3],
            k: u32::from_ne_bytes([step[4], step[5], step[6], step[7]]),
        })
        .collect();
    let len = steps.len().try_into().map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: `program` describes `steps`; both outlive the call, which copies them.
    descriptor(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForwardedCall {
    pub(crate) id: u64,
    /// The thread that asks.
    pub(crate) thread: Pid,
    pub(crate) call: libc::c_long,
    pub(crate) arguments: [u64; 6],
}

/// The next forwarded call; `None` if its thread has ended.
pub(crate) fn next_question(questions: BorrowedFd<'_>) -> io::Result<Option<ForwardedCall>> {
    // SAFETY: all of it are numbers, for which zero is a value; the kernel wants it so.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif`, which outlives the call.
    let got = checked(unsafe {
        let (fd, request) = (questions.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV);
        libc::ioctl(fd, request, &raw mut notification).into()
    });
    match got {
        Ok(_) => Ok(Some(ForwardedCall {
            id: notification.id,
            thread: Pid::from_raw(notification.pid.cast_signed()),
            call: notification.data.nr.into(),
            arguments: notification.data.args,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers a question: the call returns 0, or fails. One whose asker is gone is no error.
pub(crate) fn answer(questions: BorrowedFd<'_>, id: u64, with: Result<(), i32>) {
    let error = with.err().map_or(0, |error| -error);
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags: 0 };
    // SAFETY: the request reads one `seccomp_notif_resp`, which outlives the call.
    let _ = unsafe {
        let (fd, request) = (questions.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND);
        libc::ioctl(fd, request, &raw mut response)
    };
}

/// True while the calling thread waits for the answer. Anything read from it before this check
/// belongs to that thread.
pub(crate) fn is_asking(questions: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the request reads one number, which outlives the call.
    let result = unsafe {
        let (fd, request) = (questions.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID);
        libc::ioctl(fd, request, &raw const id)
    };
    result == 0
}

/// Replaces descriptor `number` of the calling thread with `file`.
pub(crate) fn add_descriptor(
    questions: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    number: u32,
) -> io::Result<()> {
    let addition = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD.try_into().map_err(io::Error::other)?,
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: number,
        newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
    };
    // SAFETY: the request reads one `seccomp_notif_addfd`, which outlives the call.
    checked(unsafe {
        let (fd, request) = (questions.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD);
        libc::ioctl(fd, request, &raw const addition).into()
    })
    .map(drop)
}

/// A copy of descriptor `number` of a process.
pub(crate) fn descriptor_of(process: BorrowedFd<'_>, number: u64) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: `process` is open; the rest are numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

/// Locks or unlocks an open file, without waiting.
pub(crate) fn lock_file(file: BorrowedFd<'_>, operation: i32) -> io::Result<()> {
    // SAFETY: `file` is open.
    checked(unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB).into() }).map(drop)
}

/// Copies an option from one socket to another, if both have it.
pub(crate) fn copy_option(from: BorrowedFd<'_>, to: BorrowedFd<'_>, level: i32, option: i32) {
    let mut value = [0_u8; 32];
    let mut length: libc::socklen_t = 32;
    // SAFETY: `value` has `length` bytes, and both outlive the calls.
    unsafe {
        let at = value.as_mut_ptr().cast();
        if libc::getsockopt(from.as_raw_fd(), level, option, at, &raw mut length) == 0 {
            libc::setsockopt(to.as_raw_fd(), level, option, value.as_ptr().cast(), length);
        }
    }
}

/// A number that a socket has as an option.
pub(crate) fn socket_option(socket: BorrowedFd<'_>, level: i32, option: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut length: libc::socklen_t = size_of::<libc::c_int>().try_into().unwrap_or(0);
    // SAFETY: `value` has `length` bytes, and both outlive the call.
    checked(unsafe {
        let at = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, at, &raw mut length).into()
    })?;
    Ok(value)
}

/// Puts `from` in the place of descriptor `to`, open across a new program.
pub(crate) fn set_descriptor(from: impl AsFd, to: i32) -> io::Result<()> {
    let from = from.as_fd().as_raw_fd();
    // `dup3` refuses equal numbers, and `dup2` would leave the close-on-exec flag as it is.
    if from == to {
        // SAFETY: numbers only.
        return checked(unsafe { libc::fcntl(to, libc::F_SETFD, 0).into() }).map(drop);
    }
    // SAFETY: numbers only; what `to` was before belongs to nobody in the launcher's child.
    checked(unsafe { libc::dup2(from, to).into() }).map(drop)
}
