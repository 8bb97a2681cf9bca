//! Checks whether the process of a lease on a server has ended, if it ran on this machine.
//!
//! Such a lease also expires by itself; this check saves the wait for its term. A process whose end
//! is not certain counts as running.

use std::fmt;

/// The identity of a process. It is unique for all time: the system reuses process ids, and people
/// reuse the names of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// The boot id of the machine.
    boot: String,
    /// The namespace of the process id.
    namespace: String,
    id: i32,
    /// The start of the process, in ticks since the boot.
    started: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {} {}", self.boot, self.namespace, self.id, self.started)
    }
}

impl Process {
    /// This process; `None` if the system does not identify it.
    #[cfg(target_os = "linux")]
    pub(super) fn this() -> Option<Self> {
        Self::of_id(i32::try_from(std::process::id()).ok()?)
    }

    /// A process in the namespace of this one.
    #[cfg(target_os = "linux")]
    pub(super) fn of_id(id: i32) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
        let boot = boot.trim().to_owned();
        let namespace = namespace.to_str()?.to_owned();
        Some(Self { boot, namespace, id, started: state_of(id)?.started })
    }

    /// This process; `None` if the system does not identify it.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn this() -> Option<Self> {
        None
    }

    /// Parses the text of a stored identity.
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

    /// The process id of a stored identity.
    pub(super) fn id_of(name: &str) -> Option<i32> {
        Self::of(name).map(|process| process.id)
    }

    /// True if the process of a stored identity ran on this machine, and certainly has ended.
    pub(super) fn knows_to_be_gone(&self, name: &str) -> bool {
        self.beside(name).is_some_and(|other| other.is_gone())
    }

    /// True if the process of a stored identity ran on this machine.
    pub(super) fn is_beside(&self, name: &str) -> bool {
        self.beside(name).is_some()
    }

    fn beside(&self, name: &str) -> Option<Self> {
        let other = Self::of(name)?;
        // Boot and namespace: a process id of another machine, boot or container may name any
        // process here.
        let is_here = (&other.boot, &other.namespace) == (&self.boot, &self.namespace);
        is_here.then_some(other)
    }

    #[cfg(target_os = "linux")]
    fn is_gone(&self) -> bool {
        use nix::{errno::Errno, sys::signal, unistd::Pid};

        match state_of(self.id) {
            Some(state) => state.started != self.started || state.has_ended,
            // `/proc` may hide processes of other users: only the missing id is certain.
            None => signal::kill(Pid::from_raw(self.id), None) == Err(Errno::ESRCH),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "the same shape on every system")]
    fn is_gone(&self) -> bool {
        false
    }
}

/// The state of a process.
#[cfg(target_os = "linux")]
struct State {
    started: u64,
    /// True for a zombie: the process has ended, and its parent has not waited for it.
    has_ended: bool,
}

#[cfg(target_os = "linux")]
fn state_of(id: i32) -> Option<State> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Split after the last parenthesis: the name within may contain spaces and parentheses. The
    // state is the third field of the line, the number of threads the 20th, the start the 22nd.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let threads: i64 = fields.get(17)?.parse().ok()?;
    Some(State {
        started: fields.get(19)?.parse().ok()?,
        // The number of threads, too: the state is that of the first thread, which may have ended
        // while others run.
        has_ended: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// A live process that counted as ended would have its workflows run twice.
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
        // A zombie: nobody has waited for it yet.
        while !state_of(id).unwrap().has_ended {
            std::thread::yield_now();
        }
        assert!(this.knows_to_be_gone(&name));
        child.wait().unwrap();
        assert!(this.knows_to_be_gone(&name));
    }

    /// A reused process id, and a process on another machine.
    #[test]
    fn a_process_is_identified_by_more_than_its_id() {
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
