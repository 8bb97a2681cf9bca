//! Checks workflows as a submission does, without actors, a store or providers.

use std::sync::Arc;

use gleitzeit_domain::{
    balance::{ProviderTable, Strategies},
    plan::{Draft, PlanDefaults},
    problem::SubmitError,
    protocol::catalog::ProtocolCatalog,
    workflow::WorkflowSpec,
};

use super::{error::StartError, parts};
use crate::{handle::CheckedWorkflow, settings::Settings};

/// Checks workflows by the settings of a runtime that need not run.
#[derive(Debug)]
pub struct WorkflowChecker {
    catalog: ProtocolCatalog,
    defaults: PlanDefaults,
}

impl WorkflowChecker {
    /// A checker by these settings.
    ///
    /// # Errors
    /// [`StartError::Protocols`] and [`StartError::Strategy`], as the start of a runtime.
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        parts::log_warnings(settings);
        let catalog = parts::catalog(settings, Vec::new())?;
        ProviderTable::<()>::new(&parts::balance(settings, 0), &Strategies::default())?;
        Ok(Self { catalog, defaults: parts::plan_defaults(settings) })
    }

    /// The protocols of the settings.
    pub fn catalog(&self) -> &ProtocolCatalog {
        &self.catalog
    }

    /// Checks a workflow.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with everything that is wrong with it.
    pub fn check(&self, spec: WorkflowSpec) -> Result<CheckedWorkflow, SubmitError> {
        let plan = Draft::new(spec)?.plan(&self.catalog, &self.defaults)?;
        let levels = plan.graph()?.levels();
        Ok(CheckedWorkflow { plan: Arc::new(plan), levels })
    }
}
