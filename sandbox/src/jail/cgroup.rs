//! Control groups: the memory of a jail, files and threads included; its share of the processor,
//! which does not grow with its threads; and, if the settings name one, a processor limit.
//!
//! The sandbox asks at its start, and a zygote slot before each task. Both version 1 and version 2
//! are used. If neither can be written, tasks are limited by their address space alone, and
//! `doctor` reports it.
//!
//! Invariant: a group that was made is removed with its jail, or at the next start.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

/// Every group's name begins so, followed by the process that made it.
const PREFIX: &str = "gleitzeit-jail-";
/// The zygote, its next child and the kernel's own are within it, besides what the task may have.
const OVERHEAD_BYTES: u64 = 96 << 20;
/// Processes and threads of one jail together.
const TASKS_MAX: u64 = 128;
/// A jail's share of the processor is that of one process or of one other group, however many threads
/// it has: what the kernel gives to a new group.
const CPU_WEIGHT: &str = "100";
/// The same in version 1.
const CPU_SHARES: &str = "1024";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// The resource that a directory of groups controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Controller {
    /// Version 2: memory and processes together, and the processor if it is delegated.
    Unified,
    /// Version 1: memory.
    Memory,
    /// Version 1: processes.
    Pids,
    /// Version 1: the processor.
    Cpu,
}

/// The kernel gives out a limited group's time in turns of so many microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Directories below which groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlGroups {
    parents: Vec<(Controller, PathBuf)>,
    /// Microseconds of each period; `None` for no limit.
    cpu_quota_us: Option<u64>,
}

impl ControlGroups {
    /// The directories in which this process may make groups; `None` if there are none. `chosen` is
    /// a version 2 directory from the settings.
    pub(crate) fn find(chosen: Option<&Path>) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut candidates = candidates(&mounts, &own);
        if let Some(chosen) = chosen {
            candidates.insert(0, (Controller::Unified, chosen.to_owned()));
        }
        let mut parents: Vec<(Controller, PathBuf)> = Vec::new();
        for (controller, parent) in candidates {
            // Version 2 has all that there is to have.
            let is_had =
                parents.iter().any(|(had, _)| *had == controller || *had == Controller::Unified);
            if !is_had && is_usable(controller, &parent) {
                sweep(&parent);
                parents.push((controller, parent));
            }
        }
        (!parents.is_empty()).then_some(Self { parents, cpu_quota_us: None })
    }

    /// Adds a processor limit; `None` if none can be set.
    pub(crate) fn with_processor(self, millicores: u32) -> Option<Self> {
        let quota = u64::from(millicores) * CPU_PERIOD_US / 1_000;
        let limited = Self { cpu_quota_us: Some(quota), ..self };
        let can = limited
            .parents
            .iter()
            .any(|(controller, _)| matches!(controller, Controller::Unified | Controller::Cpu));
        // A trial: version 2 may lack the controller, version 1 the limit.
        (can && limited.create().is_ok()).then_some(limited)
    }

    /// The controllers in use.
    pub(crate) fn controllers(&self) -> Vec<Controller> {
        self.parents.iter().map(|(controller, _)| *controller).collect()
    }

    /// Makes a group.
    pub(crate) fn create(&self) -> io::Result<ControlGroup> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut group = ControlGroup { dirs: Vec::new(), memory_bytes: AtomicU64::new(0) };
        for (controller, parent) in &self.parents {
            let dir = parent.join(&name);
            fs::create_dir(&dir)?;
            // The push must follow the creation at once: on an error below, the drop of the group
            // removes the directories in this list only.
            group.dirs.push((*controller, dir.clone()));
            match controller {
                Controller::Unified => {
                    fs::write(dir.join("pids.max"), TASKS_MAX.to_string())?;
                    // The file exists only if the processor was delegated, too.
                    let _ = fs::write(dir.join("cpu.weight"), CPU_WEIGHT);
                    if let Some(quota) = self.cpu_quota_us {
                        fs::write(dir.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
                    }
                }
                Controller::Pids => fs::write(dir.join("pids.max"), TASKS_MAX.to_string())?,
                Controller::Cpu => {
                    fs::write(dir.join("cpu.shares"), CPU_SHARES)?;
                    if let Some(quota) = self.cpu_quota_us {
                        fs::write(dir.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
                        fs::write(dir.join("cpu.cfs_quota_us"), quota.to_string())?;
                    }
                }
                Controller::Memory => {}
            }
        }
        Ok(group)
    }
}

/// A group of one jail.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    dirs: Vec<(Controller, PathBuf)>,
    /// The current limit, in bytes.
    memory_bytes: AtomicU64,
}

impl ControlGroup {
    /// Files that move a process into the group when its id is written to them.
    pub(crate) fn entrances(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|(_, dir)| dir.join("cgroup.procs")).collect()
    }

    /// Lets the jail have `bytes` of memory, besides what it needs itself.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        if self.memory_bytes.swap(bytes, Ordering::Relaxed) == bytes {
            return Ok(());
        }
        let most = bytes.saturating_add(OVERHEAD_BYTES).to_string();
        for (controller, dir) in &self.dirs {
            match controller {
                Controller::Unified => {
                    fs::write(dir.join("memory.max"), &most)?;
                    // The file exists only with swap. Without the limit, a task would swap instead of
                    // being killed.
                    let _ = fs::write(dir.join("memory.swap.max"), "0");
                }
                Controller::Memory => fs::write(dir.join("memory.limit_in_bytes"), &most)?,
                Controller::Pids | Controller::Cpu => {}
            }
        }
        Ok(())
    }

    /// How often the kernel has killed something in it for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        let count = |(controller, dir): &(Controller, PathBuf)| {
            let file = match controller {
                Controller::Unified => "memory.events",
                Controller::Memory => "memory.oom_control",
                Controller::Pids | Controller::Cpu => return None,
            };
            let text = fs::read_to_string(dir.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
        };
        self.dirs.iter().filter_map(count).sum()
    }

    /// Removes it, once the last process has left it.
    pub(crate) async fn remove(&self) {
        for _ in 0..100 {
            if self.dirs.iter().all(|(_, dir)| fs::remove_dir(dir).is_ok() || !dir.exists()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for (_, dir) in &self.dirs {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The group of this process in each hierarchy, in which groups may be made.
fn candidates(mounts: &str, own: &str) -> Vec<(Controller, PathBuf)> {
    let mut found = Vec::new();
    for mount in mounts.lines() {
        let Some((head, tail)) = mount.split_once(" - ") else { continue };
        let mut head = head.split(' ').skip(3);
        let (Some(root), Some(point)) = (head.next(), head.next()) else { continue };
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next().unwrap_or(""), tail.nth(1).unwrap_or(""));
        let has = |option: &str| options.split(',').any(|has| has == option);
        let (controller, name) = match kind {
            "cgroup2" => (Controller::Unified, ""),
            "cgroup" if has("memory") => (Controller::Memory, "memory"),
            "cgroup" if has("pids") => (Controller::Pids, "pids"),
            "cgroup" if has("cpu") => (Controller::Cpu, "cpu"),
            _ => continue,
        };
        let path = own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|own| own == name).then_some(path)
        });
        let Some(path) = path else { continue };
        let below = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        let dir = Path::new(point).join(below);
        let above = dir.parent().filter(|above| above.starts_with(point)).map(Path::to_owned);
        found.push((controller, dir));
        // A service in a subgroup of what was delegated to it may use what is above.
        if let (Controller::Unified, Some(above)) = (controller, above) {
            found.push((controller, above));
        }
    }
    found
}

/// True when a group made in `parent` can be limited.
fn is_usable(controller: Controller, parent: &Path) -> bool {
    if controller == Controller::Unified {
        let text = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| text.split_whitespace().any(|has| has == name);
        // The write fails if the group has processes of its own.
        let enable = || fs::write(parent.join("cgroup.subtree_control"), "+memory +pids");
        if !has("memory") || !has("pids") || enable().is_err() {
            return false;
        }
        if has("cpu") {
            // A share of the processor is good to have, and no wall.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+cpu");
        }
    }
    let trial = parent.join(format!("{PREFIX}{}-trial", std::process::id()));
    fs::create_dir(&trial).is_ok() && fs::remove_dir(&trial).is_ok()
}

/// Removes what processes that are no longer there left.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // One that has processes stays: the removal fails, as it should.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
32 30 0:28 /outer /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 30 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
";

    /// Version 1 has a tree for each controller, and its path counts from the mount's own root.
    #[test]
    fn version_1_is_found_by_its_controllers() {
        let own = "5:pids:/outer/inner\n4:memory:/user\n3:cpu,cpuacct:/\n0::/x\n";
        assert_eq!(
            candidates(V1, own),
            [
                (Controller::Memory, PathBuf::from("/sys/fs/cgroup/memory/user")),
                (Controller::Pids, PathBuf::from("/sys/fs/cgroup/pids/inner")),
                (Controller::Cpu, PathBuf::from("/sys/fs/cgroup/cpu")),
            ]
        );
    }

    /// Version 2 has one, and the group above may be the one that was delegated.
    #[test]
    fn version_2_is_found_with_what_is_above() {
        let mount = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = candidates(mount, "0::/a.slice/b.service\n");
        let paths: Vec<_> = found.iter().map(|(_, path)| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/a.slice/b.service", "/sys/fs/cgroup/a.slice"]);
        assert_eq!(candidates(mount, "0::/\n").len(), 1);
    }

    /// A directory that is no group's is not taken for one.
    #[test]
    fn a_plain_directory_is_no_unified_group() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_usable(Controller::Unified, dir.path()));
    }
}
