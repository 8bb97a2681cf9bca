//! Tells whether the process that took a lease is gone, where it ran on this machine.
//!
//! A lease on a server runs out by itself; to know at once that its process was killed spares the
//! wait. Whatever is not certain counts as running.

use std::fmt;

/// Names a process on this machine, now and for ever: a process id is given again, and so is a
/// machine's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Of this start of the machine.
    boot: String,
    /// Process ids count within it.
    namespace: String,
    id: i32,
    /// In ticks since the machine started.
    started: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {} {}", self.boot, self.namespace, self.id, self.started)
    }
}

impl Process {
    /// This process; `None` where the system does not say.
    #[cfg(target_os = "linux")]
    pub(super) fn this() -> Option<Self> {
        Self::of_id(i32::try_from(std::process::id()).ok()?)
    }

    /// A process beside this one.
    #[cfg(target_os = "linux")]
    pub(super) fn of_id(id: i32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let boot = boot.trim().to_owned();
        let namespace = namespace.to_str()?.to_owned();
        Some(Self { boot, namespace, id, started: state_of(id)?.started })
    }

    /// This process; `None` where the system does not say.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn this() -> Option<Self> {
        None
    }

    /// As it was written.
    fn of(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut part = || parts.next();
        Some(Self {
            boot: part()?.to_owned(),
            namespace: part()?.to_owned(),
            id: part()?.parse().ok()?,
            started: part()?.parse().ok()?,
        })
    }

    /// The number of the process of this name, where it ran.
    pub(super) fn id_of(name: &str) -> Option<i32> {
        Self::of(name).map(|process| process.id)
    }

    /// True when the process of this name ran where this one does, and certainly has ended.
    pub(super) fn knows_to_be_gone(&self, name: &str) -> bool {
        self.beside(name).is_some_and(|other| other.is_gone())
    }

    /// True when the process of this name ran, or runs, where this one does.
    pub(super) fn is_beside(&self, name: &str) -> bool {
        self.beside(name).is_some()
    }

    fn beside(&self, name: &str) -> Option<Self> {
        let other = Self::of(name)?;
        let is_here = (&other.boot, &other.namespace) == (&self.boot, &self.namespace);
        is_here.then_some(other)
    }

    #[cfg(target_os = "linux")]
    fn is_gone(&self) -> bool {
        use nix::{errno::Errno, sys::signal, unistd::Pid};

        match state_of(self.id) {
            Some(state) => state.started != self.started || state.has_ended,
            // What is hidden from this user is there all the same.
            None => signal::kill(Pid::from_raw(self.id), None) == Err(Errno::ESRCH),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    fn is_gone(&self) -> bool {
        false
    }
}

/// What the system tells of a process.
#[cfg(target_os = "linux")]
struct State {
    started: u64,
    /// It runs no more, and its parent has not asked for its end yet.
    has_ended: bool,
}

#[cfg(target_os = "linux")]
fn state_of(id: i32) -> Option<State> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything. Behind it: the state as the third field of all,
    // the number of threads as the 20th, the start as the 22nd.
    let (_, behind) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    let threads: i64 = fields.get(17)?.parse().ok()?;
    Some(State {
        started: fields.get(19)?.parse().ok()?,
        // Where the first thread has ended and others run, the state says the same.
        has_ended: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// To take a live process for a dead one would run its workflows twice.
    #[test]
    fn a_process_is_gone_when_it_was_killed_and_not_before() {
        let this = Process::this().unwrap();
        assert!(!this.knows_to_be_gone(&this.to_string()));
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        let other = Process { id, started: state_of(id).unwrap().started, ..this.clone() };
        let name = other.to_string();
        assert!(!this.knows_to_be_gone(&name));
        child.kill().unwrap();
        // Nobody has asked for its end yet; all that is left of it is its entry in the table.
        while !state_of(id).unwrap().has_ended {
            std::thread::yield_now();
        }
        assert!(this.knows_to_be_gone(&name));
        child.wait().unwrap();
        assert!(this.knows_to_be_gone(&name));
    }

    /// An id that was given again, and a process elsewhere.
    #[test]
    fn a_process_is_known_by_more_than_its_id() {
        let this = Process::this().unwrap();
        let before = Process { started: this.started - 1, ..this.clone() };
        assert!(this.knows_to_be_gone(&before.to_string()));
        let elsewhere = Process { boot: "another".into(), ..before.clone() };
        assert!(!this.knows_to_be_gone(&elsewhere.to_string()));
        let contained = Process { namespace: "pid:[1]".into(), ..before };
        assert!(!this.knows_to_be_gone(&contained.to_string()));
        for odd in ["", "a b c d", "a"] {
            assert!(!this.knows_to_be_gone(odd), "{odd}");
        }
    }
}
