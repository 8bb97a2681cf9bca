//! In containers: the same behaviour, and what only a container can promise.

mod behaviour;
mod support;

use gleitzeit_sandbox::Level;

/// The level of this file's tests.
const LEVEL: Level = Level::Docker;
