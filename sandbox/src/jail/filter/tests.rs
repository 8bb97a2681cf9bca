//! The programs decide as the lists say, call by call.

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

/// Every name is there once: a second one would undo the condition of the first. With network
/// a condition may stand instead of the one without.
#[test]
fn no_call_is_named_twice() {
    let plain = [STREAMS, FILES, MEMORY, SELF, SIGNALS, WAITING, SOCKETS, LEGACY, NETWORK];
    for conditions in [CONDITIONAL, CONDITIONAL_NETWORK] {
        let mut seen = BTreeSet::new();
        let named = plain.into_iter().flatten().copied();
        let conditional = conditions.iter().map(|(name, number, _)| (*name, *number));
        for (name, number) in named.chain(conditional) {
            assert!(seen.insert(number), "{name}");
        }
        assert!((100..170).contains(&seen.len()), "{} calls", seen.len());
    }
}

/// What would be refused is not asked about: a refusal counts more than a question.
#[test]
fn what_is_asked_about_is_allowed_by_the_other_program() {
    for network in [false, true] {
        let allowed = decisions(network);
        for (name, call, _) in asked(network) {
            let call = u32::try_from(*call).unwrap();
            for command in LOCKS {
                let arguments = [0, *command, 0, 0, 0, 0];
                let result = allowed.get(&call).map(|decision| decision.on(arguments));
                assert_eq!(result, Some(libc::SECCOMP_RET_ALLOW), "{name}");
            }
        }
    }
    let steps = bpf::from_bytes(&asking(true));
    let result = |call: libc::c_long, second| {
        let call = u32::try_from(call).unwrap();
        bpf::run(&steps, bpf::ARCHITECTURE, call, [3, second, 0, 0, 0, 0])
    };
    assert_eq!(result(libc::SYS_flock, 0), bpf::ASK);
    assert_eq!(result(libc::SYS_fcntl, number(libc::F_SETLK)), bpf::ASK);
    assert_eq!(result(libc::SYS_fcntl, number(libc::F_SETFL)), libc::SECCOMP_RET_ALLOW);
    assert_eq!(result(libc::SYS_connect, 0), bpf::ASK);
    assert_eq!(result(libc::SYS_execve, 0), libc::SECCOMP_RET_ALLOW);
}

/// What a call does depends on its arguments, and only what does no harm is let through.
#[test]
fn arguments_are_decided_about() {
    const YES: u32 = libc::SECCOMP_RET_ALLOW;
    const NO: u32 = bpf::refuse(libc::EPERM);
    let any = number(libc::SOL_SOCKET);
    let tcp = number(libc::IPPROTO_TCP);
    let threads = THREADS[0];
    for (call, arguments, without, with) in [
        (libc::SYS_fcntl, [0, number(libc::F_DUPFD), 0, 0], YES, YES),
        (libc::SYS_fcntl, [0, number(libc::F_SETFL), number(libc::O_NONBLOCK), 0], YES, YES),
        (libc::SYS_fcntl, [0, number(libc::F_SETFL), number(libc::O_ASYNC), 0], NO, NO),
        (libc::SYS_fcntl, [0, number(libc::F_SETOWN), 1, 0], NO, NO),
        (libc::SYS_fcntl, [0, 10, 9, 0], NO, NO), // F_SETSIG
        (libc::SYS_fcntl, [0, 15, 0, 0], NO, NO), // F_SETOWN_EX
        (libc::SYS_fcntl, [0, number(libc::F_NOTIFY), 0, 0], NO, NO),
        (libc::SYS_fcntl, [0, number(libc::F_SETLEASE), 0, 0], NO, NO),
        (libc::SYS_fcntl, [0, number(libc::F_OFD_SETLK), 0, 0], NO, NO),
        (libc::SYS_fcntl, [0, number(libc::F_SETPIPE_SZ), 1 << 20, 0], NO, NO),
        (libc::SYS_clone, [threads, 0, 0, 0], YES, YES),
        (libc::SYS_clone, [threads & !number(libc::CLONE_FILES), 0, 0, 0], NO, NO),
        (libc::SYS_clone, [threads | number(libc::CLONE_NEWUSER), 0, 0, 0], NO, NO),
        (libc::SYS_clone, [number(libc::SIGCHLD), 0, 0, 0], NO, NO),
        (libc::SYS_close_range, [3, 9, 0, 0], YES, YES),
        (libc::SYS_close_range, [3, 9, 2, 0], NO, NO),
        (libc::SYS_prctl, [number(libc::PR_SET_NAME), 0, 0, 0], YES, YES),
        (libc::SYS_prctl, [number(libc::PR_SET_SECCOMP), 2, 0, 0], NO, NO),
        (libc::SYS_prctl, [number(libc::PR_SET_DUMPABLE), 1, 0, 0], NO, NO),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_KEEPALIVE), 0], YES, YES),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_SNDBUF), 0], NO, YES),
        (libc::SYS_setsockopt, [3, tcp, number(libc::TCP_NODELAY), 0], NO, YES),
        // Of another level, the same number is `TCP_DEFER_ACCEPT`.
        (libc::SYS_setsockopt, [3, tcp, number(libc::SO_KEEPALIVE), 0], NO, NO),
        (libc::SYS_setsockopt, [3, tcp, number(libc::TCP_ULP), 0], NO, NO),
        (libc::SYS_setsockopt, [3, tcp, number(libc::TCP_FASTOPEN_CONNECT), 0], NO, NO),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_ATTACH_FILTER), 0], NO, NO),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_PASSCRED), 0], NO, NO),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_PRIORITY), 0], NO, NO),
        (libc::SYS_setsockopt, [3, any, number(libc::SO_REUSEPORT), 0], NO, NO),
        (libc::SYS_getsockopt, [3, any, number(libc::SO_ERROR), 0], YES, YES),
        (libc::SYS_getsockopt, [3, any, 77, 0], NO, NO), // SO_PEERPIDFD
        (libc::SYS_sendto, [3, 0, 0, 0], YES, YES),
        (libc::SYS_sendto, [3, 0, 0, CONNECTING], NO, NO),
        (libc::SYS_sendmsg, [3, 0, 0, 0], NO, YES),
        (libc::SYS_sendmsg, [3, 0, CONNECTING, 0], NO, NO),
        (libc::SYS_bind, [3, 0, 0, 0], NO, NO),
        (libc::SYS_listen, [3, 0, 0, 0], NO, NO),
        (libc::SYS_socket, [number(libc::AF_INET), number(libc::SOCK_STREAM), 0, 0], NO, YES),
        (libc::SYS_socket, [number(libc::AF_INET), number(libc::SOCK_RAW), 0, 0], NO, NO),
        (libc::SYS_socket, [number(libc::AF_INET), number(libc::SOCK_DGRAM), 1, 0], NO, NO),
        (libc::SYS_socket, [number(libc::AF_INET6), number(libc::SOCK_STREAM), 262, 0], NO, NO),
        (libc::SYS_socket, [number(libc::AF_UNIX), number(libc::SOCK_STREAM), 0, 0], NO, NO),
    ] {
        let [a, b, c, d] = arguments;
        for (network, expected) in [(false, without), (true, with)] {
            let steps = bpf::from_bytes(&program(network));
            let call = u32::try_from(call).unwrap();
            let result = bpf::run(&steps, bpf::ARCHITECTURE, call, [a, b, c, d, 0, 0]);
            assert_eq!(result, expected, "call {call} with {arguments:?}, network {network}");
        }
    }
}

/// Only the program of a child that waits lets it take on another one.
#[test]
fn a_task_brings_no_filter_of_its_own() {
    let call = u32::try_from(libc::SYS_prctl).unwrap();
    let result = |program: &[u8]| {
        let arguments = [number(libc::PR_SET_SECCOMP), 2, 0, 0, 0, 0];
        bpf::run(&bpf::from_bytes(program), bpf::ARCHITECTURE, call, arguments)
    };
    for network in [false, true] {
        assert_eq!(result(&program(network)), bpf::refuse(libc::EPERM));
        assert_eq!(result(&waiting(network)), libc::SECCOMP_RET_ALLOW);
        assert!(!numbers(network).contains(&libc::SYS_seccomp));
    }
}

/// A task finds every place of its own number, each in the last four bytes of a step: with its
/// number put there it may signal and limit itself, and nobody else. How many places there are
/// depends on the architecture: calls with numbers side by side share one.
#[test]
fn the_program_has_room_for_the_tasks_own_number() {
    const OWN: u32 = 7;
    for network in [false, true] {
        let mut program = program(network);
        assert!(program.len().is_multiple_of(8) && program.len() / 8 < 600);
        for step in program.chunks_exact_mut(8) {
            if step[4..] == OWN_PID.to_ne_bytes() {
                step[4..].copy_from_slice(&OWN.to_ne_bytes());
            }
        }
        let steps = bpf::from_bytes(&program);
        let result = |call, argument| {
            bpf::run(&steps, bpf::ARCHITECTURE, u32::try_from(call).unwrap(), [argument; 6])
        };
        for (name, call, decision) in CONDITIONAL {
            let When([[Is(_, numbers)]]) = decision else { continue };
            if !numbers.contains(&OWN_PID) {
                continue;
            }
            assert_eq!(result(*call, OWN), libc::SECCOMP_RET_ALLOW, "{name}");
            for other in [1, OWN + 1, OWN_PID, u32::MAX] {
                assert_eq!(result(*call, other), bpf::refuse(libc::EPERM), "{name} of {other}");
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
    for (family, kind, result) in [
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
        assert_eq!(answer, result, "family {family}, kind {kind}");
    }
}

/// For every number the program says what the tables say.
#[test]
fn the_program_decides_as_the_tables_do() {
    for network in [false, true] {
        let steps = bpf::compile(&decisions(network));
        for call in (0..600).chain([0x4000_0000, 0x4000_0039, u32::MAX]) {
            let expected = decisions(network).get(&call).copied();
            for first in [0, 1, 2, 6, 10, 17, OWN_PID, THREADS[0], u32::MAX] {
                let result = bpf::run(&steps, bpf::ARCHITECTURE, call, [first; 6]);
                let wanted = match expected {
                    None => bpf::refuse(libc::EPERM),
                    Some(decision) => decision.on([first; 6]),
                };
                assert_eq!(result, wanted, "call {call} with {first}");
            }
        }
        assert_eq!(bpf::run(&steps, 0x4000_0003, 1, [0; 6]), bpf::KILL, "32 bits");
    }
}
