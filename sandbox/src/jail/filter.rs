//! Which system calls a task may make: a list of what is allowed, and the programs made of it.
//!
//! Asked once for each zygote; the programs travel to it, and each task puts them upon itself
//! before it runs a line of the user's code. What is not on the list fails with `EPERM`, as any
//! refusal does, and nothing is killed for asking.
//!
//! Invariant: no call on the list starts a program or a process, reaches another process, changes
//! what is mounted, makes an object that outlives the task or, without network, leaves it.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::SandboxError;

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

/// A call that is allowed where one argument is one of these numbers, or has that bit.
enum Only {
    /// One of them.
    Is(u8, &'static [u64]),
    /// This bit is set.
    Bit(u8, u64),
}

const AF_UNIX: u64 = libc::AF_UNIX as u64;
const AF_INET: u64 = libc::AF_INET as u64;
const AF_INET6: u64 = libc::AF_INET6 as u64;
const PID: u64 = OWN_PID as u64;

/// Calls that are allowed with some arguments only.
const CONDITIONAL: &[(&str, libc::c_long, Only)] = &[
    // Threads, no processes.
    ("SYS_clone", libc::SYS_clone, Only::Bit(0, libc::CLONE_THREAD as u64)),
    // To itself: `abort` and `raise` are made of these.
    ("SYS_kill", libc::SYS_kill, Only::Is(0, &[PID])),
    ("SYS_tgkill", libc::SYS_tgkill, Only::Is(0, &[PID])),
    ("SYS_tkill", libc::SYS_tkill, Only::Is(0, &[PID])),
    ("SYS_prlimit64", libc::SYS_prlimit64, Only::Is(0, &[0, PID])),
    ("SYS_getpriority", libc::SYS_getpriority, Only::Is(1, &[0, PID])),
    ("SYS_socketpair", libc::SYS_socketpair, Only::Is(0, &[AF_UNIX])),
    // How much there is to read, blocking or not, and whether it is a terminal.
    (
        "SYS_ioctl",
        libc::SYS_ioctl,
        Only::Is(1, &[libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX, libc::FIONCLEX, libc::TCGETS]),
    ),
    // Names of threads and of memory, and more of what is done to it already.
    (
        "SYS_prctl",
        libc::SYS_prctl,
        Only::Is(
            0,
            &[
                libc::PR_SET_NAME as u64,
                libc::PR_GET_NAME as u64,
                libc::PR_SET_VMA as u64,
                libc::PR_SET_NO_NEW_PRIVS as u64,
                libc::PR_SET_SECCOMP as u64,
            ],
        ),
    ),
];
/// With network, besides: the two families that there are.
const CONDITIONAL_NETWORK: &[(&str, libc::c_long, Only)] =
    &[("SYS_socket", libc::SYS_socket, Only::Is(0, &[AF_INET, AF_INET6]))];

impl Only {
    fn rules(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let rule = |argument, operator, number| {
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, number)?;
            SeccompRule::new(vec![condition])
        };
        match *self {
            Self::Is(argument, numbers) => {
                numbers.iter().map(|number| rule(argument, SeccompCmpOp::Eq, *number)).collect()
            }
            Self::Bit(argument, bit) => Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(bit), bit)?]),
        }
    }
}

/// The programs of a task, in the order in which it puts them upon itself.
///
/// # Errors
/// [`SandboxError::Unavailable`] on an architecture that there are no tables for.
pub(crate) fn programs(network: bool) -> Result<Vec<Vec<u8>>, SandboxError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        SandboxError::unavailable(format!("the filter of system calls cannot be made: {error}"))
    };
    let allowed = allowed(network).map_err(|error| unavailable(&error))?;
    // `ENOSYS` makes the C library fall back to `clone`, whose flags a filter can read: those of
    // `clone3` are in memory, where it cannot.
    let without_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let (enosys, eperm) = (errno(libc::ENOSYS), errno(libc::EPERM));
    let programs =
        [(allowed, eperm, SeccompAction::Allow), (without_clone3, SeccompAction::Allow, enosys)];
    programs
        .into_iter()
        .map(|(rules, otherwise, matched)| {
            let arch = TargetArch::try_from(std::env::consts::ARCH)?;
            let filter = SeccompFilter::new(rules, otherwise, matched, arch)?;
            BpfProgram::try_from(filter).map(|program| as_bytes(&program))
        })
        .collect::<Result<_, seccompiler::BackendError>>()
        .map_err(|error| unavailable(&error))
}

fn allowed(
    network: bool,
) -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    let tables = [STREAMS, FILES, MEMORY, SELF, SIGNALS, WAITING, SOCKETS, LEGACY];
    let more = if network { NETWORK } else { &[] };
    let mut rules = BTreeMap::new();
    for (_, number) in tables.into_iter().flatten().chain(more) {
        rules.insert(*number, Vec::new());
    }
    // The second program answers it; here it only has to pass.
    rules.insert(libc::SYS_clone3, Vec::new());
    let conditional_more = if network { CONDITIONAL_NETWORK } else { &[] };
    for (_, number, only) in CONDITIONAL.iter().chain(conditional_more) {
        rules.insert(*number, only.rules()?);
    }
    Ok(rules)
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// As the kernel reads it: eight bytes an instruction, in the machine's order.
fn as_bytes(program: &BpfProgram) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for step in program {
        bytes.extend_from_slice(&step.code.to_ne_bytes());
        bytes.extend_from_slice(&[step.jt, step.jf]);
        bytes.extend_from_slice(&step.k.to_ne_bytes());
    }
    bytes
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
        allowed(network).unwrap().into_keys().collect()
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

    /// A task finds its own number's place in the first program, and nowhere else.
    #[test]
    fn the_programs_are_what_the_kernel_reads() {
        for network in [false, true] {
            let programs = programs(network).unwrap();
            let places = |program: &[u8]| {
                program.chunks_exact(8).filter(|step| step[4..] == OWN_PID.to_ne_bytes()).count()
            };
            assert_eq!(programs.len(), 2);
            assert!(programs.iter().all(|program| program.len() % 8 == 0));
            assert!(programs.iter().all(|program| program.len() / 8 < 4096));
            assert_eq!((places(&programs[0]), places(&programs[1])), (5, 0));
        }
    }
}
