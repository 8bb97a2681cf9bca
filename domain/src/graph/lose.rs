//! Takes the result of a completed task back, when no store will hold it.

use super::{EdgeKind, Graph, NodeState, Settlement, kind_of};
use crate::task::OnDependencyFailure;

impl Graph {
    /// A task that settled with a result has failed after all. None of its dependents may have begun.
    /// The graph is then as if the task had settled without a result, and so is the answer: dependents
    /// that were handed out as ready are handed out again, or decided.
    #[must_use = "ready tasks are handed out once"]
    pub fn lose_result(&mut self, task: u32) -> Settlement {
        let mut settlement = Settlement::default();
        if self.state(task) != NodeState::Completed {
            return settlement;
        }
        self.nodes[task as usize].state = NodeState::Failed;
        let mut decided = Vec::new();
        let Self { nodes, dependents, unsettled, kinds, .. } = self;
        for &behind in dependents.of(task) {
            let node = &mut nodes[behind as usize];
            if node.state.is_settled() {
                continue;
            }
            let asks = kind_of(kinds.as_deref(), behind, task);
            match node.policy {
                _ if asks == EdgeKind::End => {
                    if node.state == NodeState::Ready {
                        settlement.ready.push(behind);
                    }
                    continue;
                }
                OnDependencyFailure::Run => {
                    if node.state == NodeState::Ready {
                        settlement.ready.push(behind);
                    }
                    continue;
                }
                OnDependencyFailure::Skip => {
                    node.state = NodeState::UpstreamFailed;
                    settlement.upstream_failed.push((behind, task));
                }
                OnDependencyFailure::Fail => {
                    node.state = NodeState::DependencyFailed;
                    settlement.failed.push((behind, task));
                }
            }
            *unsettled -= 1;
            decided.push(behind);
        }
        self.follow_failure(decided, task, &mut settlement);
        settlement
    }
}
