//! The behaviour of all actors together, with scripted providers and a paused clock: one file
//! per behaviour.
//!
//! Every scenario ends with [`Harness::finish`](support::Harness::finish), which checks what must hold
//! whatever happened: events, statuses, leases, queues and memory.

#[cfg(test)]
mod cancellation;
#[cfg(test)]
mod claims;
#[cfg(test)]
mod clocks;
mod conditions;
#[cfg(test)]
mod dependencies;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod error_codes;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod ordering;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod references;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod submission;
#[cfg(test)]
mod support;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod unknown_writes;
#[cfg(test)]
mod unstored;
#[cfg(test)]
mod watching;
