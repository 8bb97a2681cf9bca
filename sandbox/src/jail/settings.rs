//! Settings of a jail.

use std::{path::PathBuf, time::Duration};

use super::address::NetworkRule;

/// Settings that hold for every job of a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailSettings {
    /// The program to be started as the launcher; without it this one, which must call [`init`](crate::init).
    pub launcher: Option<PathBuf>,
    /// A root file system for the jail, instead of what the interpreter needs of the machine's.
    pub root: Option<PathBuf>,
    /// Tasks at once: so many zygotes are kept.
    pub workers: usize,
    /// Jobs that may wait for a place.
    pub queue_max: usize,
    /// True starts all zygotes at once, false only as many as jobs have needed at a time.
    pub prefork: bool,
    /// True lets jobs that ask for it connect to other machines by TCP.
    pub network: bool,
    /// Addresses that such jobs may reach besides. The machine's own addresses, its neighbours' and
    /// link-local ones are denied unless a rule names them.
    pub network_allow: Vec<NetworkRule>,
    /// Further directories and files that tasks can read, as if they owned them.
    pub read_only_paths: Vec<PathBuf>,
    /// Bytes that the files of a task may take together; they are in memory.
    pub task_bytes: u64,
    /// Files and directories that a task may make.
    pub task_inodes: u64,
    /// A zygote is replaced after so many tasks.
    pub recycle_tasks: u32,
    /// A zygote is replaced at this age.
    pub recycle_age: Duration,
    /// A directory of control groups, version 2, that was delegated to the service.
    pub cgroup: Option<PathBuf>,
    /// Thousandths of a core that a task has at most, all of its threads together; `None` for as
    /// much as the machine has to spare. Needs control groups.
    pub cpu_millicores: Option<u32>,
}

impl Default for JailSettings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            launcher: None,
            root: None,
            workers,
            queue_max: 1024,
            prefork: true,
            network: false,
            network_allow: Vec::new(),
            read_only_paths: Vec::new(),
            task_bytes: 256 << 20,
            task_inodes: 4096,
            recycle_tasks: 1000,
            recycle_age: Duration::from_mins(10),
            cgroup: None,
            cpu_millicores: None,
        }
    }
}
