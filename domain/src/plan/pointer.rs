//! Pointers into a workflow, and problems at them.

use crate::{error::ErrorCode, problem::Problem};

pub(super) fn at(index: usize, field: &str) -> String {
    format!("/tasks/{index}/{field}")
}

pub(super) fn invalid(pointer: String, message: String) -> Problem {
    Problem::new(ErrorCode::WorkflowValidationFailed, pointer, message)
}
