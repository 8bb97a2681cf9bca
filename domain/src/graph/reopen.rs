//! Takes back the settling of failed tasks, so that they can run again.

use super::{Graph, NodeState};
use crate::task::OnDependencyFailure;

/// The effects of [`Graph::reopen`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reopened {
    /// Every task that has not settled any more, also those that are ready.
    pub tasks: Vec<u32>,
    /// The reopened tasks that may run now.
    pub ready: Vec<u32>,
}

impl Graph {
    /// Reopens tasks that settled by themselves without a result, with all dependents that were
    /// decided by them. The graph is then as if they had not settled:
    /// - a task that another failed task decides as well stays decided;
    /// - a task that ran in spite of them (policy `run`) keeps its outcome, or its readiness;
    /// - so does a cancelled one among `tasks`, if a dependency that stays failed would have
    ///   decided it in the meantime;
    /// - tasks among `tasks` that completed, have not settled, or were decided by a dependency are
    ///   skipped; the last are reopened with the task that is their cause.
    ///
    /// Linear in the graph at most; costs one word per task.
    #[must_use = "ready tasks are handed out once"]
    pub fn reopen(&mut self, tasks: &[u32]) -> Reopened {
        let mut to_open: Vec<u32> = Vec::with_capacity(tasks.len());
        for &task in tasks {
            if self.forget_own_end(task) {
                to_open.push(task);
            }
        }
        // Dependencies without a result that still decide a task; counted when first met.
        let mut deciding: Vec<Option<u32>> = vec![None; self.len()];
        let mut reopened = Reopened::default();
        while let Some(task) = to_open.pop() {
            if !self.take_back(task) {
                continue;
            }
            reopened.tasks.push(task);
            for at in 0..self.dependents(task).len() {
                let behind = self.dependents(task)[at];
                self.nodes[behind as usize].open += 1;
                if !self.state(behind).is_by_dependency() {
                    continue;
                }
                let left = match deciding[behind as usize] {
                    Some(count) => count - 1,
                    None => self.count_deciding(behind),
                };
                deciding[behind as usize] = Some(left);
                if left == 0 {
                    to_open.push(behind);
                }
            }
        }
        self.release(&mut reopened);
        reopened
    }

    /// Turns a task that settled by itself into one that its dependencies decide. False if they do
    /// already.
    fn forget_own_end(&mut self, task: u32) -> bool {
        if self.state(task) != NodeState::Failed {
            return false;
        }
        let decided = match self.nodes[task as usize].policy {
            OnDependencyFailure::Run => return true,
            OnDependencyFailure::Skip => NodeState::UpstreamFailed,
            OnDependencyFailure::Fail => NodeState::DependencyFailed,
        };
        let by_dependency = self.count_deciding(task) > 0;
        if by_dependency {
            self.nodes[task as usize].state = decided;
        }
        !by_dependency
    }

    /// False if it was reopened before.
    fn take_back(&mut self, task: u32) -> bool {
        let node = &mut self.nodes[task as usize];
        if !node.state.is_settled() {
            return false;
        }
        node.state = NodeState::Waiting;
        self.unsettled += 1;
        true
    }

    fn count_deciding(&self, task: u32) -> u32 {
        let decides = |before: &&u32| {
            let asks = super::kind_of(self.kinds.as_deref(), task, **before);
            self.state(**before).is_without_result() && asks != super::EdgeKind::End
        };
        let count = self.dependencies(task).iter().filter(decides).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn release(&mut self, reopened: &mut Reopened) {
        for &task in &reopened.tasks {
            let node = &mut self.nodes[task as usize];
            if node.open == 0 {
                node.state = NodeState::Ready;
                reopened.ready.push(task);
            }
        }
        reopened.tasks.sort_unstable();
        reopened.ready.sort_unstable();
    }
}
