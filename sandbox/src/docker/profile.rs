//! The rights and limits of a container, in the engine's format.
//!
//! Two walls of system calls stand around a task: the engine's, made here, around the supervisor as
//! well, and the jail's own, which a task puts upon itself. Invariant: the outer one lets through
//! what the inner one does, and what it takes to start a program and to watch a child.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    Mount, MountType, ResourcesUlimits,
};
use serde_json::json;

use super::{owner, settings::DockerSettings};
use crate::{Limits, jail::filter};

/// Nobody: a user without rights, on every machine.
const USER: u32 = 65534;
const TASK_DIR: &str = "/task";
/// Memory of the supervisor and of the kernel's bookkeeping, besides a task.
const OVERHEAD_BYTES: u64 = 32 << 20;
/// System calls that starting Python and watching a child need, besides those of a task.
const SUPERVISOR_CALLS: [&str; 28] = [
    "execve",
    "fork",
    "vfork",
    "clone",
    "kill",
    "tkill",
    "tgkill",
    "prctl",
    "seccomp",
    "ioctl",
    "prlimit64",
    "getpriority",
    "socketpair",
    "memfd_create",
    "setitimer",
    "capget",
    "mincore",
    "mlock",
    "munlock",
    "setsid",
    "getpgrp",
    "arch_prctl",
    "fcntl",
    "close_range",
    "sendto",
    "sendmsg",
    "setsockopt",
    "getsockopt",
];
/// Files that describe the machine. Control groups stay visible: the supervisor reads from them
/// whether memory ran out.
const MASKED: [&str; 21] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/block",
    "/sys/bus",
    "/sys/class",
    "/sys/dev",
    "/sys/devices",
    "/sys/firmware",
    "/sys/kernel",
    "/sys/module",
];
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Memory of a container whose task has these limits: its files are in memory, too.
pub(super) fn memory_bytes(limits: &Limits) -> i64 {
    let bytes = limits.memory_bytes.max(Limits::MEMORY_MIN_BYTES);
    signed(bytes.saturating_add(limits.file_bytes).saturating_add(OVERHEAD_BYTES))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The filter of system calls around a container.
fn system_calls() -> String {
    let names: Vec<_> = filter::names().chain(SUPERVISOR_CALLS).collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": [] },
        ],
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            // The C library falls back to `clone`.
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS },
        ],
    })
    .to_string()
}

/// A container that runs `command`, by its path in the image.
pub(super) fn container(
    settings: &DockerSettings,
    owner: &str,
    command: Vec<String>,
) -> ContainerCreateBody {
    let mut command = command.into_iter();
    ContainerCreateBody {
        image: Some(settings.image.clone()),
        entrypoint: command.next().map(|program| vec![program]),
        cmd: Some(command.collect()),
        env: Some(vec!["MALLOC_ARENA_MAX=2".to_owned()]),
        user: Some(format!("{USER}:{USER}")),
        working_dir: Some(TASK_DIR.to_owned()),
        hostname: Some("sandbox".to_owned()),
        labels: Some(owner::labels(owner)),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        // The container's input ends with our connection, and so does the container.
        stdin_once: Some(true),
        stop_timeout: Some(1),
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host(settings)),
        ..ContainerCreateBody::default()
    }
}

fn host(settings: &DockerSettings) -> HostConfig {
    let memory = memory_bytes(&settings.usual);
    let texts = |list: &[&str]| Some(list.iter().map(|&text| text.to_owned()).collect());
    let limit = |name: &str, most: i64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(most),
        hard: Some(most),
    };
    let task = format!(
        "rw,nosuid,nodev,noexec,size={},nr_inodes={},mode=0700,uid={USER},gid={USER}",
        settings.task_bytes, settings.task_inodes
    );
    HostConfig {
        auto_remove: Some(true),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("none".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        runtime: settings.runtime.clone(),
        readonly_rootfs: Some(true),
        cap_drop: texts(&["ALL"]),
        security_opt: Some(vec![
            "no-new-privileges:true".to_owned(),
            format!("seccomp={}", system_calls()),
        ]),
        masked_paths: texts(&MASKED),
        readonly_paths: texts(&READ_ONLY),
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(settings.cpu_millicores) * 1_000_000),
        pids_limit: Some(settings.pids.into()),
        ulimits: Some(vec![limit("core", 0), limit("nofile", 256)]),
        tmpfs: Some(HashMap::from([(TASK_DIR.to_owned(), task)])),
        mounts: Some(settings.read_only_paths.iter().map(read_only_mount).collect()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}

fn read_only_mount(path: &std::path::PathBuf) -> Mount {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
    Mount {
        typ: Some(MountType::BIND),
        source: Some(path.clone()),
        target: Some(path),
        read_only: Some(true),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the engine's own profile of old let through is not in ours.
    #[test]
    fn no_call_that_opens_a_container_is_let_through() {
        let filter: serde_json::Value = serde_json::from_str(&system_calls()).unwrap();
        assert_eq!(filter["defaultAction"], "SCMP_ACT_ERRNO");
        let names = filter["syscalls"][0]["names"].as_array().unwrap();
        assert!(names.len() > 120, "{}", names.len());
        for never in [
            "ptrace",
            "process_vm_readv",
            "io_uring_setup",
            "shmget",
            "msgget",
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "add_key",
            "perf_event_open",
            "userfaultfd",
            "socket",
            "connect",
            "execveat",
            "pidfd_getfd",
            "open_by_handle_at",
            "setuid",
            "chroot",
        ] {
            assert!(!names.iter().any(|name| name == never), "{never}");
        }
        assert!(names.iter().all(|name| !name.as_str().unwrap().starts_with("SYS_")));
    }

    /// A task's files count as its memory, and the supervisor's memory is not the task's.
    #[test]
    fn memory_has_room_for_files_and_the_supervisor() {
        let limits = Limits { memory_bytes: 100 << 20, file_bytes: 10 << 20, ..Limits::default() };
        assert_eq!(memory_bytes(&limits), 142 << 20);
        let limits = Limits { memory_bytes: u64::MAX, ..limits };
        assert_eq!(memory_bytes(&limits), i64::MAX);
    }
}
