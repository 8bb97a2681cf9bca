//! The owner of a container, and the containers whose owner has died.
//!
//! A container exits when its service dies, because its standard input is closed. The sweep removes
//! only those that the engine kept from exiting. Invariant: the sweep removes no container that may
//! belong to a live process.

use std::{collections::HashMap, fs};

use super::engine::Engine;
use crate::SandboxError;

/// Every container of ours has this label; its value names the process that it belongs to.
pub(super) const LABEL: &str = "gleitzeit.sandbox.owner";

/// Names this process: what runs the machine, where its process numbers count, its number, and when
/// it began, as numbers are used again.
pub(super) fn own() -> String {
    let pid = std::process::id();
    format!("{}:{pid}:{}", here(), begun(pid).unwrap_or(0))
}

/// The labels of a container of `owner`.
pub(super) fn labels(owner: &str) -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), owner.to_owned())])
}

fn here() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let numbers = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}:{}", boot.trim(), numbers.display().to_string().replace(':', ""))
}

/// When the process of this number began, in ticks since the machine did.
fn begun(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// True when the owner is known to be gone. One of another machine, or whose number means nothing
/// here, is not known.
fn is_gone(owner: &str, here: &str) -> bool {
    let Some(rest) = owner.strip_prefix(here).and_then(|rest| rest.strip_prefix(':')) else {
        return false;
    };
    let mut numbers = rest.split(':').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { return false };
    u32::try_from(pid).ok().and_then(begun) != Some(start)
}

/// Removes the containers of services that are gone.
pub(super) async fn sweep(engine: &Engine) -> Result<(), SandboxError> {
    let here = here();
    for (id, owner) in engine.labelled(LABEL).await? {
        if is_gone(&owner, &here) {
            tracing::info!(container = id, "removing a container whose service is gone");
            engine.remove(&id).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what is known to be dead is swept.
    #[test]
    fn only_the_dead_own_nothing() {
        let here = here();
        let own = own();
        assert!(!is_gone(&own, &here), "{own}");
        let (prefix, _) = own.rsplit_once(':').unwrap();
        assert!(is_gone(&format!("{prefix}:1"), &here), "the number was used again");
        assert!(is_gone(&format!("{here}:4194999:1"), &here), "there is no such process");
        for unknown in ["", "x", "other:pid[1]:1:1", &here, &format!("{here}:x:1")] {
            assert!(!is_gone(unknown, &here), "{unknown}");
        }
    }
}
