//! Services with typed handlers, and what a host's code sees of them.

mod handlers;
mod log;
mod results;
mod schemas;
mod spans;
mod threads;

use std::time::Duration;

use gleitzeit::{Runtime, RuntimeBuilder, TaskSpec, WorkflowSpec, service::Service};
use serde_json::Value;

use crate::support::whole;

/// A runtime with nothing but this service.
pub(crate) fn builder(service: Service) -> RuntimeBuilder {
    Runtime::builder(whole::settings("")).without_settings_providers().service(service)
}

pub(crate) async fn start(service: Service) -> Runtime {
    builder(service).start().await.unwrap()
}

/// A workflow of one call.
pub(crate) fn one(method: &str, params: Value) -> WorkflowSpec {
    WorkflowSpec::new("one").task(TaskSpec::new("a", method).params(params))
}

pub(crate) async fn stop(runtime: Runtime) {
    runtime.stop(Duration::from_secs(5)).await;
}
