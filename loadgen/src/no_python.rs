//! A build without the Python provider has no figures of it.

use std::fmt;

use anyhow::bail;
use gleitzeit::{Handle, Settings};
use serde::Serialize;

use crate::{options::BenchArgs, runner::Measurement};

/// There are none.
#[derive(Debug, Serialize)]
pub(crate) enum Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// No reference.
#[derive(Debug)]
pub(crate) struct Reference;

/// Sets nothing.
///
/// # Errors
/// If an option of the sandbox is given.
pub(crate) fn set(args: &BenchArgs, _: &mut Settings) -> anyhow::Result<()> {
    if args.sandbox.is_some() || args.docker_image.is_some() {
        bail!("this build has no Python provider; build it with the feature `python`");
    }
    Ok(())
}

impl Reference {
    #[expect(clippy::unused_async, reason = "that with the feature asks")]
    pub(crate) async fn find(_: &Settings) -> anyhow::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_async, reason = "that with the feature waits")]
    pub(crate) async fn run_workload(
        &self,
        _: &BenchArgs,
        _: &Handle,
    ) -> anyhow::Result<(Measurement, Figures)> {
        bail!("this build has no Python provider; build it with the feature `python`")
    }
}
