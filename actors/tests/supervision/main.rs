//! Supervision, balancing and resources through the running actors: one file per behaviour.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[cfg(test)]
mod actors;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod down;
#[cfg(test)]
mod health;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod support;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod waiting;
