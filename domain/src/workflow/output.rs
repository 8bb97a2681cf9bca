//! Reads the results of a workflow as types of the host.

use std::{any::type_name, sync::Arc};

use serde::de::DeserializeOwned;

use super::{TaskHandle, WorkflowRecord};
use crate::{
    error::{ErrorCode, TaskError},
    id::{TaskId, WorkflowId},
    plan::Draft,
    protocol::nearest::nearest,
    task::{TaskRecord, TaskStatus},
};

/// Why a result cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ResultError {
    /// The workflow has no task of this id or name.
    #[error(
        "workflow `{workflow}` has no task `{task}`{}",
        .nearest.as_ref().map_or_else(String::new, |it| format!("; did you mean `{it}`?"))
    )]
    NoTask {
        /// The workflow.
        workflow: WorkflowId,
        /// The id that was asked for.
        task: String,
        /// The task that may have been meant.
        nearest: Option<TaskId>,
    },
    /// The task has no result.
    #[error(
        "task `{task}` has no result: it is {status}{}",
        .error.as_ref().map_or_else(String::new, |it| format!(": {it}"))
    )]
    NotCompleted {
        /// The task.
        task: TaskId,
        /// The status of the task.
        status: TaskStatus,
        /// Why it did not complete.
        error: Option<Arc<TaskError>>,
    },
    /// The result is not of the type that was asked for.
    #[error("result of task `{task}` is not a `{wanted}`: {message}")]
    Misfit {
        /// The task.
        task: TaskId,
        /// The Rust type.
        wanted: &'static str,
        /// The field, and what is wrong with it.
        message: String,
    },
    /// The workflow has no task, or several that no other task needs: none is *the* result.
    #[error(
        "workflow `{workflow}` has {} final tasks; read the result of one of them by its id",
        .tasks.len()
    )]
    NotOne {
        /// The workflow.
        workflow: WorkflowId,
        /// The tasks that no other task needs.
        tasks: Vec<TaskId>,
    },
}

impl ResultError {
    /// The code of the error; that of the task if a task failed.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoTask { .. } => ErrorCode::TaskNotFound,
            Self::NotCompleted { error: Some(error), .. } => error.code,
            Self::NotCompleted { error: None, .. } | Self::NotOne { .. } => {
                ErrorCode::WorkflowInvalidState
            }
            Self::Misfit { .. } => ErrorCode::TaskResultInvalid,
        }
    }
}

impl From<ResultError> for TaskError {
    fn from(error: ResultError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl TaskRecord {
    /// The result, read as `T`.
    ///
    /// # Errors
    /// [`ResultError::NotCompleted`], [`ResultError::Misfit`].
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, ResultError> {
        let Some(result) = &self.result else {
            let (task, status, error) = (self.id.clone(), self.status, self.error.clone());
            return Err(ResultError::NotCompleted { task, status, error });
        };
        T::deserialize(&**result).map_err(|error| ResultError::Misfit {
            task: self.id.clone(),
            wanted: type_name::<T>(),
            message: error.to_string(),
        })
    }
}

impl WorkflowRecord {
    /// A task by its id, or by its name if no task has that id.
    ///
    /// ```no_run
    /// # use gleitzeit_domain::workflow::{ResultError, WorkflowRecord};
    /// # fn read(ended: WorkflowRecord) -> Result<(), ResultError> {
    /// let total = ended.task("bill")?.result::<u32>()?;
    /// # let _ = total; Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ResultError::NoTask`].
    pub fn task(&self, id: &str) -> Result<&TaskRecord, ResultError> {
        let by_id = self.tasks.iter().find(|task| task.id.as_str() == id);
        let found = by_id.or_else(|| self.tasks.iter().find(|task| *task.name == *id));
        found.ok_or_else(|| ResultError::NoTask {
            workflow: self.id.clone(),
            task: id.to_owned(),
            nearest: nearest(id, self.tasks.iter().map(|task| task.id.as_str())).map(TaskId::from),
        })
    }

    /// The result of the task that no other task needs, read as `T`.
    ///
    /// # Errors
    /// [`ResultError`]; [`ResultError::NotOne`] if there are several such tasks.
    pub fn output<T: DeserializeOwned>(&self) -> Result<T, ResultError> {
        let (draft, _) = Draft::read((*self.spec).clone());
        let is_needed = |task: &&TaskRecord| draft.edges.iter().any(|(_, on)| *on == task.index);
        let (_, finals): (Vec<_>, Vec<_>) = self.tasks.iter().partition(is_needed);
        match &*finals {
            [only] => only.result(),
            several => Err(ResultError::NotOne {
                workflow: self.id.clone(),
                tasks: several.iter().map(|task| task.id.clone()).collect(),
            }),
        }
    }

    /// The result of a task of the builder, read as the type of its handle.
    ///
    /// # Errors
    /// [`ResultError`].
    pub fn output_of<T: DeserializeOwned>(&self, task: &TaskHandle<T>) -> Result<T, ResultError> {
        self.task(task.id())?.result()
    }
}
