//! The system calls that a task may make: a list of allowed calls, and the filter program generated
//! from it.
//!
//! The program is generated once for each zygote. Each task installs it before it runs a line of
//! the user's code. A call that is not on the list fails with `EPERM`; the process is not killed.
//!
//! Calls that do many things are decided about by their arguments: one command of `fcntl` copies a
//! descriptor, another one sends signals.
//!
//! The launcher answers some calls, because it can inspect the descriptor that a call names. A
//! second program, `asking`, forwards them.
//!
//! Invariant: no call on the list starts a program or a process, reaches another process, changes
//! what is mounted, makes an object that outlives the task, takes memory that is not counted or,
//! without network, leaves it.

use std::collections::BTreeMap;

use super::bpf::{self, Decision, Test};

/// Stands in the programs for the task's own process number, which only the task itself knows.
pub(crate) const OWN_PID: u32 = 0x5AFE_71D0;

/// Calls by name, with their numbers on this machine.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

type Calls = &'static [(&'static str, libc::c_long)];

/// Reading and writing what is open.
const STREAMS: Calls = calls![
    SYS_read SYS_readv SYS_pread64 SYS_preadv SYS_preadv2
    SYS_write SYS_writev SYS_pwrite64 SYS_pwritev SYS_pwritev2
    SYS_lseek SYS_close SYS_dup SYS_dup3 SYS_flock
    SYS_fsync SYS_fdatasync SYS_ftruncate SYS_fallocate SYS_fadvise64
    SYS_sendfile SYS_copy_file_range SYS_splice SYS_pipe2
];
/// Files, as far as mounts and Landlock let the task see them. No links, devices or owners.
const FILES: Calls = calls![
    SYS_openat SYS_newfstatat SYS_fstat SYS_statx SYS_statfs SYS_fstatfs
    SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir
    SYS_mkdirat SYS_unlinkat SYS_renameat2 SYS_fchmod SYS_fchmodat SYS_utimensat SYS_umask
    SYS_truncate
];
/// The process's own memory.
const MEMORY: Calls = calls![
    SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_brk SYS_msync SYS_membarrier
];
/// Calls that read or set state of the process itself, and `sysinfo`, which reports the machine's
/// memory and load: the C library (glibc 2.36) does not check whether it failed, and `sysconf`
/// would return uninitialised stack memory.
const SELF: Calls = calls![
    SYS_getpid SYS_gettid SYS_getppid SYS_getpgid SYS_getsid
    SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getgroups SYS_getresuid SYS_getresgid
    SYS_uname SYS_sysinfo SYS_times SYS_getrusage SYS_getcpu SYS_getrandom
    SYS_sched_yield SYS_sched_getaffinity SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_set_tid_address SYS_set_robust_list SYS_rseq SYS_exit SYS_exit_group SYS_wait4 SYS_waitid
];
/// Signals that it sends to itself, and what it does about them.
const SIGNALS: Calls = calls![
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait
    SYS_rt_sigsuspend SYS_sigaltstack SYS_getitimer SYS_setitimer SYS_restart_syscall
];
/// Waiting: for threads, for time, for what is open.
const WAITING: Calls = calls![
    SYS_futex SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep
    SYS_gettimeofday SYS_ppoll SYS_pselect6
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd2 SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime
];
/// Sockets that are there: a pair within the task, which asyncio wakes itself by. Without `sendmsg`:
/// the kernel counts descriptors that are on their way for all processes of a user together, so that
/// one task could leave no room for those of others, and of the service.
const SOCKETS: Calls = calls![
    SYS_recvfrom SYS_recvmsg SYS_shutdown SYS_getsockname SYS_getpeername
];
/// With network: reaching out, and not being reached. The launcher answers `connect`.
const NETWORK: Calls = calls![SYS_connect SYS_recvmmsg];
/// Older forms of calls, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const LEGACY: Calls = calls![
    SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_unlink
    SYS_rename SYS_renameat SYS_chmod SYS_dup2 SYS_pipe SYS_poll SYS_select SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_time SYS_alarm SYS_pause SYS_getpgrp SYS_arch_prctl
    SYS_getrlimit SYS_setrlimit
];
#[cfg(target_arch = "aarch64")]
const LEGACY: Calls = calls![SYS_renameat SYS_getrlimit SYS_setrlimit];

use Decision::When;
use Test::{Is, Without};

const fn number(constant: i32) -> u32 {
    constant.cast_unsigned()
}

/// Requests of `ioctl`: how much there is to read, blocking or not, and whether it is a terminal.
const REQUESTS: &[u32] = &[0x541B, 0x5421, 0x5451, 0x5450, 0x5401];

/// A kind of socket, with each of the flags that may be combined with it.
macro_rules! kinds {
    ($($kind:ident)*) => {
        &[$(
            number(libc::$kind),
            number(libc::$kind | libc::SOCK_CLOEXEC),
            number(libc::$kind | libc::SOCK_NONBLOCK),
            number(libc::$kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK),
        )*]
    };
}

/// Kinds of socket pairs: those that send to their other end and nowhere else. One of datagrams
/// would reach every named socket that can be seen, by `sendto` with an address.
const PAIRS: &[u32] = kinds![SOCK_STREAM SOCK_SEQPACKET];

/// The flags with which the C libraries make a thread. Nothing of the process is copied: a thread
/// with descriptors of its own could hold as many of them as the whole task may.
const THREADS: &[u32] = &{
    let gnu = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    [number(gnu), number(gnu | libc::CLONE_DETACHED)]
};

/// Commands of `fcntl` that copy or query descriptors. Excluded are owners, signals and
/// notifications (which reach other processes), leases, seals, sizes of pipes, and locks of open
/// files.
const COMMANDS: &[u32] = &[
    number(libc::F_DUPFD),
    number(libc::F_DUPFD_CLOEXEC),
    number(libc::F_GETFD),
    number(libc::F_SETFD),
    number(libc::F_GETFL),
    number(libc::F_GETPIPE_SZ),
    number(libc::F_GET_SEALS),
    number(libc::F_GETLK),
];
/// Commands of `fcntl` that lock: the launcher answers them.
const LOCKS: &[u32] = &[number(libc::F_SETLK), number(libc::F_SETLKW)];

/// Options of any socket that may be set. Without network the buffer sizes are excluded: their
/// memory is counted for no process if there are no control groups.
const SOCKET_OPTIONS: &[u32] = &[
    number(libc::SO_REUSEADDR),
    number(libc::SO_KEEPALIVE),
    number(libc::SO_OOBINLINE),
    number(libc::SO_LINGER),
    number(libc::SO_RCVTIMEO),
    number(libc::SO_SNDTIMEO),
    number(libc::SO_RCVLOWAT),
];
const SOCKET_OPTIONS_NETWORK: &[u32] = &[number(libc::SO_RCVBUF), number(libc::SO_SNDBUF)];
/// Options of any socket that may be read.
const SOCKET_STATES: &[u32] = &[
    number(libc::SO_REUSEADDR),
    number(libc::SO_TYPE),
    number(libc::SO_ERROR),
    number(libc::SO_KEEPALIVE),
    number(libc::SO_OOBINLINE),
    number(libc::SO_LINGER),
    number(libc::SO_RCVBUF),
    number(libc::SO_SNDBUF),
    number(libc::SO_RCVTIMEO),
    number(libc::SO_SNDTIMEO),
    number(libc::SO_RCVLOWAT),
    number(libc::SO_PEERCRED),
    number(libc::SO_ACCEPTCONN),
    number(libc::SO_PROTOCOL),
    number(libc::SO_DOMAIN),
];
const TCP_OPTIONS: &[u32] = &[
    number(libc::TCP_NODELAY),
    number(libc::TCP_CORK),
    number(libc::TCP_KEEPIDLE),
    number(libc::TCP_KEEPINTVL),
    number(libc::TCP_KEEPCNT),
    number(libc::TCP_SYNCNT),
    number(libc::TCP_LINGER2),
    number(libc::TCP_QUICKACK),
    number(libc::TCP_USER_TIMEOUT),
];
const TCP_STATES: &[u32] = &[
    number(libc::TCP_NODELAY),
    number(libc::TCP_MAXSEG),
    number(libc::TCP_CORK),
    number(libc::TCP_KEEPIDLE),
    number(libc::TCP_KEEPINTVL),
    number(libc::TCP_KEEPCNT),
    number(libc::TCP_USER_TIMEOUT),
    number(libc::TCP_INFO),
];
const IP_OPTIONS: &[u32] = &[number(libc::IP_TOS), number(libc::IP_TTL), number(libc::IP_RECVERR)];
const IPV6_OPTIONS: &[u32] = &[
    number(libc::IPV6_V6ONLY),
    number(libc::IPV6_UNICAST_HOPS),
    number(libc::IPV6_TCLASS),
    number(libc::IPV6_RECVERR),
];

/// The level of options of any socket.
const ANY: Test = Is(1, &[number(libc::SOL_SOCKET)]);
const TCP: Test = Is(1, &[number(libc::IPPROTO_TCP)]);
const IP: Test = Is(1, &[number(libc::IPPROTO_IP)]);
const IPV6: Test = Is(1, &[number(libc::IPPROTO_IPV6)]);
/// A message flag that would connect its socket, bypassing the launcher.
const CONNECTING: u32 = number(libc::MSG_FASTOPEN);
/// Names of threads and of memory.
const NAMES: &[u32] =
    &[number(libc::PR_SET_NAME), number(libc::PR_GET_NAME), number(libc::PR_SET_VMA)];
const NAMES_AND_FILTERS: &[u32] = &[
    number(libc::PR_SET_NAME),
    number(libc::PR_GET_NAME),
    number(libc::PR_SET_VMA),
    number(libc::PR_SET_SECCOMP),
];

type Conditions = &'static [(&'static str, libc::c_long, Decision)];

/// Calls that are allowed with some arguments only.
const CONDITIONAL: Conditions = &[
    ("SYS_clone", libc::SYS_clone, When(&[&[Is(0, THREADS)]])),
    // To itself: `abort` and `raise` are made of these.
    ("SYS_kill", libc::SYS_kill, When(&[&[Is(0, &[OWN_PID])]])),
    ("SYS_tgkill", libc::SYS_tgkill, When(&[&[Is(0, &[OWN_PID])]])),
    ("SYS_tkill", libc::SYS_tkill, When(&[&[Is(0, &[OWN_PID])]])),
    ("SYS_prlimit64", libc::SYS_prlimit64, When(&[&[Is(0, &[0, OWN_PID])]])),
    ("SYS_getpriority", libc::SYS_getpriority, When(&[&[Is(1, &[0, OWN_PID])]])),
    (
        "SYS_socketpair",
        libc::SYS_socketpair,
        When(&[&[Is(0, &[number(libc::AF_UNIX)]), Is(1, PAIRS), Is(2, &[0])]]),
    ),
    ("SYS_ioctl", libc::SYS_ioctl, When(&[&[Is(1, REQUESTS)]])),
    ("SYS_prctl", libc::SYS_prctl, When(&[&[Is(0, NAMES)]])),
    (
        "SYS_fcntl",
        libc::SYS_fcntl,
        When(&[
            &[Is(1, COMMANDS)],
            &[Is(1, LOCKS)],
            &[Is(1, &[number(libc::F_SETFL)]), Without(2, number(libc::O_ASYNC))],
        ]),
    ),
    // With the third flag, a thread gets descriptors of its own.
    ("SYS_close_range", libc::SYS_close_range, When(&[&[Is(2, &[0, libc::CLOSE_RANGE_CLOEXEC])]])),
    ("SYS_sendto", libc::SYS_sendto, When(&[&[Without(3, CONNECTING)]])),
    ("SYS_setsockopt", libc::SYS_setsockopt, When(&[&[ANY, Is(2, SOCKET_OPTIONS)]])),
    ("SYS_getsockopt", libc::SYS_getsockopt, When(&[&[ANY, Is(2, SOCKET_STATES)]])),
    // The C library falls back to `clone`, whose flags a filter can read. The flags of `clone3` are
    // in memory, which a filter cannot read.
    ("SYS_clone3", libc::SYS_clone3, Decision::Refuse(libc::ENOSYS)),
];
/// With network, besides or instead: the two families that there are, without raw sockets.
const CONDITIONAL_NETWORK: Conditions = &[
    (
        "SYS_socket",
        libc::SYS_socket,
        When(&[&[
            Is(0, &[number(libc::AF_INET), number(libc::AF_INET6)]),
            Is(1, kinds![SOCK_STREAM SOCK_DGRAM]),
            Is(2, &[0, number(libc::IPPROTO_TCP), number(libc::IPPROTO_UDP)]),
        ]]),
    ),
    ("SYS_sendmsg", libc::SYS_sendmsg, When(&[&[Without(2, CONNECTING)]])),
    ("SYS_sendmmsg", libc::SYS_sendmmsg, When(&[&[Without(3, CONNECTING)]])),
    (
        "SYS_setsockopt",
        libc::SYS_setsockopt,
        When(&[
            &[ANY, Is(2, SOCKET_OPTIONS)],
            &[ANY, Is(2, SOCKET_OPTIONS_NETWORK)],
            &[TCP, Is(2, TCP_OPTIONS)],
            &[IP, Is(2, IP_OPTIONS)],
            &[IPV6, Is(2, IPV6_OPTIONS)],
        ]),
    ),
    (
        "SYS_getsockopt",
        libc::SYS_getsockopt,
        When(&[
            &[ANY, Is(2, SOCKET_STATES)],
            &[TCP, Is(2, TCP_STATES)],
            &[IP, Is(2, IP_OPTIONS)],
            &[IPV6, Is(2, IPV6_OPTIONS)],
        ]),
    ),
];
/// Calls that the launcher answers. A lock on a file of the machine would block other processes
/// that lock it; a lock on the task's own files concerns the task alone.
const ASKED: Conditions = &[
    ("SYS_flock", libc::SYS_flock, Decision::Ask),
    ("SYS_fcntl", libc::SYS_fcntl, Decision::AskWhen(&[&[Is(1, LOCKS)]])),
];
const ASKED_NETWORK: Conditions = &[("SYS_connect", libc::SYS_connect, Decision::Ask)];

/// The program of a task, as the kernel reads it.
pub(crate) fn program(network: bool) -> Vec<u8> {
    bpf::as_bytes(&bpf::compile(&decisions(network)))
}

/// The program of a child that has yet to learn which one its task gets, and puts that upon itself
/// when it knows.
pub(crate) fn waiting(network: bool) -> Vec<u8> {
    let mut decisions = decisions(network);
    if let Ok(prctl) = u32::try_from(libc::SYS_prctl) {
        decisions.insert(prctl, When(&[&[Is(0, NAMES_AND_FILTERS)]]));
    }
    bpf::as_bytes(&bpf::compile(&decisions))
}

/// The program that hands calls to the launcher; a zygote is started with it.
pub(crate) fn asking(network: bool) -> Vec<u8> {
    bpf::as_bytes(&bpf::compile_asking(&by_number(asked(network))))
}

fn asked(network: bool) -> impl Iterator<Item = &'static (&'static str, libc::c_long, Decision)> {
    let more: Conditions = if network { ASKED_NETWORK } else { &[] };
    ASKED.iter().chain(more)
}

/// The names of all calls that are allowed whatever their arguments, without network.
#[cfg(feature = "docker")]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    [STREAMS, FILES, MEMORY, SELF, SIGNALS, WAITING, SOCKETS, LEGACY]
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| name.strip_prefix("SYS_"))
}

fn decisions(network: bool) -> BTreeMap<u32, Decision> {
    let tables = [STREAMS, FILES, MEMORY, SELF, SIGNALS, WAITING, SOCKETS, LEGACY];
    let more = if network { NETWORK } else { &[] };
    let plain = tables.into_iter().flatten().chain(more);
    let mut decisions: BTreeMap<_, _> =
        plain.filter_map(|(_, call)| Some((u32::try_from(*call).ok()?, Decision::Allow))).collect();
    let conditional_more = if network { CONDITIONAL_NETWORK } else { &[] };
    decisions.extend(by_number(CONDITIONAL.iter().chain(conditional_more)));
    decisions
}

/// Numbers of system calls are small; the kernel takes no larger ones either.
fn by_number<'a>(
    conditions: impl Iterator<Item = &'a (&'static str, libc::c_long, Decision)>,
) -> BTreeMap<u32, Decision> {
    conditions
        .filter_map(|(_, call, decision)| Some((u32::try_from(*call).ok()?, *decision)))
        .collect()
}

#[cfg(test)]
mod tests;
