//! A build without the Python provider has no figures of it.

use std::fmt;

use anyhow::bail;
use gleitzeit::Handle;
use serde::Serialize;

use super::{BenchArgs, Measurement};
use crate::session::Session;

/// There are none.
#[derive(Debug, Serialize)]
pub(super) enum Figures {}

impl fmt::Display for Figures {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Nothing to be held against.
#[derive(Debug)]
pub(super) struct Reference;

/// Nothing is set.
///
/// # Errors
/// When something is to be.
pub(super) fn set(args: &BenchArgs, _: &mut Session) -> anyhow::Result<()> {
    if args.sandbox.is_some() || args.docker_image.is_some() {
        bail!("this build has no Python provider; build it with the feature `python`");
    }
    Ok(())
}

impl Reference {
    #[expect(clippy::unused_async, reason = "that with the feature asks")]
    pub(super) async fn find(_: &Session) -> anyhow::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unused_async, reason = "that with the feature drives")]
    pub(super) async fn drive(
        &self,
        _: &BenchArgs,
        _: &Handle,
    ) -> anyhow::Result<(Measurement, Figures)> {
        bail!("this build has no Python provider; build it with the feature `python`")
    }
}
