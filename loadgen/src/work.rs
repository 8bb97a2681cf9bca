//! The workflows that the engine is driven with.

use std::fmt;

use clap::ValueEnum;
use gleitzeit::{Effect, MethodSpec, ProtocolSpec, TaskSpec, WorkflowSpec};
use serde::Serialize;
use serde_json::json;

/// Effect of a call outside, as its method declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CallEffect {
    /// Nothing: a first task need not wait until its workflow is stored.
    Pure,
    /// Something, which may be done twice.
    AtLeastOnce,
}

impl fmt::Display for CallEffect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pure => "pure",
            Self::AtLeastOnce => "at least once",
        })
    }
}

impl CallEffect {
    fn method(self) -> &'static str {
        match self {
            Self::Pure => "echo/echo",
            Self::AtLeastOnce => "bench/echo",
        }
    }

    fn task(self, id: impl Into<String>) -> TaskSpec {
        TaskSpec::new(id, self.method()).params(json!({ "n": 1 }))
    }

    /// One task.
    pub(crate) fn single(self) -> WorkflowSpec {
        WorkflowSpec::new("single").task(self.task("only"))
    }

    /// Tasks that need nothing of each other.
    pub(crate) fn burn_down(self, tasks: u64) -> WorkflowSpec {
        (0..tasks)
            .fold(WorkflowSpec::new("burn-down"), |spec, n| spec.task(self.task(format!("t{n}"))))
    }

    /// Tasks, each after the one before.
    pub(crate) fn chain(self, tasks: u64) -> WorkflowSpec {
        (0..tasks).fold(WorkflowSpec::new("chain"), |spec, n| {
            let task = self.task(format!("t{n}"));
            spec.task(if n == 0 { task } else { task.after(format!("t{}", n - 1)) })
        })
    }

    /// One task, `tasks` after it, and one after all of those.
    pub(crate) fn fan_out(self, tasks: u64) -> WorkflowSpec {
        let spread = (0..tasks)
            .fold(WorkflowSpec::new("fan-out").task(self.task("first")), |spec, n| {
                spec.task(self.task(format!("t{n}")).after("first"))
            });
        let last = (0..tasks).fold(self.task("last"), |last, n| last.after(format!("t{n}")));
        spread.task(last)
    }
}

/// `bench/v1.0`: an echo that says to have an effect.
pub(crate) fn protocol() -> anyhow::Result<ProtocolSpec> {
    let echo = MethodSpec {
        effect: Effect::AtLeastOnce,
        additional_params: true,
        ..MethodSpec::new("echo")
    };
    Ok(ProtocolSpec::new("bench", "v1.0".parse()?).method(echo))
}

/// One task of Python code.
pub(crate) fn python() -> WorkflowSpec {
    let task = TaskSpec::new("only", "python/execute").params(json!({ "code": "result = 1" }));
    WorkflowSpec::new("python").task(task)
}
