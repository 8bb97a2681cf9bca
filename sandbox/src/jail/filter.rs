//! Which system calls a task may make: a list of what is allowed, and the program made of it.
//!
//! Asked once for each zygote; the program travels to it, and each task puts it upon itself before it runs a line of the user's code. What is not on the list fails with `EPERM`, as any
//! refusal does, and nothing is killed for asking.
//!
//! Invariant: no call on the list starts a program or a process, reaches another process, changes
//! what is mounted, makes an object that outlives the task or, without network, leaves it.

use std::collections::BTreeMap;

use super::bpf::{self, Decision};

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
    SYS_lseek SYS_close SYS_close_range SYS_dup SYS_dup3 SYS_fcntl SYS_flock
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
/// What a process may know of itself and set for itself.
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
/// Sockets that are there: a pair within the task, which asyncio wakes itself by.
const SOCKETS: Calls = calls![
    SYS_sendto SYS_sendmsg SYS_recvfrom SYS_recvmsg SYS_shutdown
    SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt
];
/// With network: reaching out and being reached.
const NETWORK: Calls = calls![
    SYS_connect SYS_bind SYS_listen SYS_accept SYS_accept4 SYS_sendmmsg SYS_recvmmsg
];
/// What newer architectures have one call less for.
#[cfg(target_arch = "x86_64")]
const LEGACY: Calls = calls![
    SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_mkdir SYS_rmdir SYS_unlink
    SYS_rename SYS_renameat SYS_chmod SYS_dup2 SYS_pipe SYS_poll SYS_select SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_time SYS_alarm SYS_pause SYS_getpgrp SYS_arch_prctl
    SYS_getrlimit SYS_setrlimit
];
#[cfg(target_arch = "aarch64")]
const LEGACY: Calls = calls![SYS_renameat SYS_getrlimit SYS_setrlimit];

use Decision::{Are, Bit, Is};

const fn number(constant: i32) -> u32 {
    constant.cast_unsigned()
}

/// Requests of `ioctl`: how much there is to read, blocking or not, and whether it is a terminal.
const REQUESTS: &[u32] = &[0x541B, 0x5421, 0x5451, 0x5450, 0x5401];

/// Kinds of socket pairs: those that send to their other end and nowhere else. One of datagrams
/// would reach every named socket that can be seen, by `sendto` with an address.
const PAIRS: &[u32] = &{
    let (stream, packets) = (number(libc::SOCK_STREAM), number(libc::SOCK_SEQPACKET));
    let (cloexec, nonblock) = (number(libc::SOCK_CLOEXEC), number(libc::SOCK_NONBLOCK));
    [
        stream,
        stream | cloexec,
        stream | nonblock,
        stream | cloexec | nonblock,
        packets,
        packets | cloexec,
        packets | nonblock,
        packets | cloexec | nonblock,
    ]
};

/// Calls that are allowed with some arguments only: the argument's place, and what it may be.
const CONDITIONAL: &[(&str, libc::c_long, Decision)] = &[
    // Threads, no processes.
    ("SYS_clone", libc::SYS_clone, Bit(0, number(libc::CLONE_THREAD))),
    // To itself: `abort` and `raise` are made of these.
    ("SYS_kill", libc::SYS_kill, Is(0, &[OWN_PID])),
    ("SYS_tgkill", libc::SYS_tgkill, Is(0, &[OWN_PID])),
    ("SYS_tkill", libc::SYS_tkill, Is(0, &[OWN_PID])),
    ("SYS_prlimit64", libc::SYS_prlimit64, Is(0, &[0, OWN_PID])),
    ("SYS_getpriority", libc::SYS_getpriority, Is(1, &[0, OWN_PID])),
    ("SYS_socketpair", libc::SYS_socketpair, Are([(0, &[number(libc::AF_UNIX)]), (1, PAIRS)])),
    ("SYS_ioctl", libc::SYS_ioctl, Is(1, REQUESTS)),
    // Names of threads and of memory, and more of what is done to it already.
    (
        "SYS_prctl",
        libc::SYS_prctl,
        Is(
            0,
            &[
                number(libc::PR_SET_NAME),
                number(libc::PR_GET_NAME),
                number(libc::PR_SET_VMA),
                number(libc::PR_SET_NO_NEW_PRIVS),
                number(libc::PR_SET_SECCOMP),
            ],
        ),
    ),
    // The C library falls back to `clone`, whose flags a filter can read: those of `clone3` are in
    // memory, where it cannot.
    ("SYS_clone3", libc::SYS_clone3, Decision::Refuse(libc::ENOSYS)),
];
/// With network, besides: the two families that there are.
const CONDITIONAL_NETWORK: &[(&str, libc::c_long, Decision)] =
    &[("SYS_socket", libc::SYS_socket, Is(0, &[number(libc::AF_INET), number(libc::AF_INET6)]))];

/// The program of a task, as the kernel reads it.
pub(crate) fn program(network: bool) -> Vec<u8> {
    bpf::as_bytes(&bpf::compile(&decisions(network)))
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
    let mut decisions = BTreeMap::new();
    let mut decide = |call: libc::c_long, decision| {
        // Numbers of calls are small; one that is not cannot be told to the kernel either.
        if let Ok(call) = u32::try_from(call) {
            decisions.insert(call, decision);
        }
    };
    for (_, call) in tables.into_iter().flatten().chain(more) {
        decide(*call, Decision::Allow);
    }
    let conditional_more = if network { CONDITIONAL_NETWORK } else { &[] };
    for (_, call, decision) in CONDITIONAL.iter().chain(conditional_more) {
        decide(*call, *decision);
    }
    decisions
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What would undo the jail; `execve` and `fork` first of all.
    const NEVER: Calls = calls![
        SYS_execve SYS_execveat SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev
        SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal SYS_kcmp
        SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen
        SYS_unshare SYS_setns SYS_keyctl SYS_add_key SYS_request_key SYS_bpf SYS_perf_event_open
        SYS_userfaultfd SYS_shmget SYS_shmat SYS_msgget SYS_semget SYS_mq_open
        SYS_memfd_create SYS_memfd_secret SYS_symlinkat SYS_linkat SYS_mknodat
        SYS_setuid SYS_setgid SYS_setgroups SYS_capset SYS_personality
        SYS_init_module SYS_finit_module SYS_kexec_load SYS_reboot SYS_swapon
        SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_inotify_init1
        SYS_setxattr SYS_fsetxattr SYS_quotactl SYS_syslog SYS_acct
    ];

    fn numbers(network: bool) -> BTreeSet<libc::c_long> {
        decisions(network).into_keys().map(libc::c_long::from).collect()
    }

    /// The list holds none of the calls that a jail stands or falls with.
    #[test]
    fn no_forbidden_call_is_on_the_list() {
        for (name, number) in NEVER {
            assert!(!numbers(true).contains(number), "{name}");
        }
        #[cfg(target_arch = "x86_64")]
        for number in [libc::SYS_fork, libc::SYS_vfork, libc::SYS_symlink, libc::SYS_link] {
            assert!(!numbers(true).contains(&number), "{number}");
        }
        for (name, number) in NETWORK.iter().chain(calls![SYS_socket]) {
            assert!(!numbers(false).contains(number), "{name} without network");
            assert!(numbers(true).contains(number), "{name} with network");
        }
    }

    /// Every name is there once: a second one would undo the condition of the first.
    #[test]
    fn no_call_is_named_twice() {
        let mut seen = BTreeSet::new();
        let plain = [STREAMS, FILES, MEMORY, SELF, SIGNALS, WAITING, SOCKETS, LEGACY, NETWORK];
        let named = plain.into_iter().flatten().map(|(name, number)| (*name, *number));
        let conditional = CONDITIONAL.iter().chain(CONDITIONAL_NETWORK);
        for (name, number) in named.chain(conditional.map(|(name, number, _)| (*name, *number))) {
            assert!(seen.insert(number), "{name}");
        }
        assert!((100..170).contains(&seen.len()), "{} calls", seen.len());
    }

    /// A task finds every place of its own number, each in the last four bytes of a step: with its
    /// number put there it may signal and limit itself, and nobody else. How many places there are
    /// depends on the architecture: calls with numbers side by side share one.
    #[test]
    fn the_program_has_room_for_the_tasks_own_number() {
        const OWN: u32 = 7;
        for network in [false, true] {
            let mut program = program(network);
            assert!(program.len().is_multiple_of(8) && program.len() / 8 < 400);
            for step in program.chunks_exact_mut(8) {
                if step[4..] == OWN_PID.to_ne_bytes() {
                    step[4..].copy_from_slice(&OWN.to_ne_bytes());
                }
            }
            let steps = bpf::from_bytes(&program);
            let told = |call, argument| {
                bpf::run(&steps, bpf::ARCHITECTURE, u32::try_from(call).unwrap(), [argument; 6])
            };
            for (name, call, decision) in CONDITIONAL {
                let Is(_, numbers) = decision else { continue };
                if !numbers.contains(&OWN_PID) {
                    continue;
                }
                assert_eq!(told(*call, OWN), libc::SECCOMP_RET_ALLOW, "{name}");
                for other in [1, OWN + 1, OWN_PID, u32::MAX] {
                    assert_eq!(told(*call, other), bpf::refuse(libc::EPERM), "{name} of {other}");
                }
            }
        }
    }

    /// A pair of sockets reaches nothing but itself: no other family, and no datagrams.
    #[test]
    fn a_pair_of_sockets_is_of_streams_or_packets() {
        let steps = bpf::compile(&decisions(true));
        let call = u32::try_from(libc::SYS_socketpair).unwrap();
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        for (family, kind, told) in [
            (libc::AF_UNIX, libc::SOCK_STREAM, libc::SECCOMP_RET_ALLOW),
            (libc::AF_UNIX, libc::SOCK_SEQPACKET | flags, libc::SECCOMP_RET_ALLOW),
            (libc::AF_UNIX, libc::SOCK_DGRAM, bpf::refuse(libc::EPERM)),
            (libc::AF_UNIX, libc::SOCK_DGRAM | flags, bpf::refuse(libc::EPERM)),
            // A pair of datagrams by another name.
            (libc::AF_UNIX, libc::SOCK_RAW, bpf::refuse(libc::EPERM)),
            (libc::AF_TIPC, libc::SOCK_STREAM, bpf::refuse(libc::EPERM)),
        ] {
            let arguments = [number(family), number(kind), 0, 0, 0, 0];
            let answer = bpf::run(&steps, bpf::ARCHITECTURE, call, arguments);
            assert_eq!(answer, told, "family {family}, kind {kind}");
        }
    }

    /// For every number the program says what the tables say.
    #[test]
    fn the_program_decides_as_the_tables_do() {
        for network in [false, true] {
            let steps = bpf::compile(&decisions(network));
            for call in (0..600).chain([0x4000_0000, 0x4000_0039, u32::MAX]) {
                let expected = decisions(network).get(&call).copied();
                for first in [0, 1, 2, 10, 17, OWN_PID, number(libc::CLONE_THREAD), u32::MAX] {
                    let told = bpf::run(&steps, bpf::ARCHITECTURE, call, [first; 6]);
                    let wanted = match expected {
                        None => bpf::refuse(libc::EPERM),
                        Some(decision) => decision.on(first),
                    };
                    assert_eq!(told, wanted, "call {call} with {first}");
                }
            }
            assert_eq!(bpf::run(&steps, 0x4000_0003, 1, [0; 6]), bpf::KILL, "32 bits");
        }
    }
}
