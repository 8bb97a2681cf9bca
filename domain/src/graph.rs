//! The dependency graph of one workflow: which task may run, and which never will.
//!
//! Asked by the `DependencyResolver` when a workflow comes in ([`Graph::build`]), when a task has
//! settled ([`Graph::settle`]), when its result cannot be stored after all ([`Graph::lose_result`]),
//! at recovery ([`Graph::restore`]) and when a person wants failed tasks run again
//! ([`Graph::reopen`]). Tasks are indexes into the workflow.
//!
//! ```text
//! Waiting ──all dependencies settled──> Ready ──settle──> Completed | Failed
//!    │ └──settle, as when cancelled──────────────────────────────────────┘
//!    └──a dependency did not complete──> UpstreamFailed | DependencyFailed   (as its policy says)
//! ```
//!
//! - A task becomes ready once all its dependencies have settled, whatever level they stand on.
//! - With the policies `skip` and `fail` a task is decided as soon as *one* dependency did not
//!   complete: it has only one possible end, and it never becomes ready after that. Its dependents
//!   are decided in the same step, and the reported cause is the task that failed by itself.
//! - What a dependency that did not complete means depends on the edge as well ([`EdgeKind`]): an edge
//!   that asks only how a task ended is satisfied by any end, and a task that is skipped by a
//!   condition skips those that need its result, and satisfies all others.
//! - With `run`, a dependency that did not complete counts as satisfied.
//!
//! Invariant: `open` of a task is the number of its dependencies that have not settled; each task
//! settles once, and is handed out as ready at most once, until it is reopened.

mod adjacency;
mod lose;
mod reopen;
#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;

use crate::{decision::Decision, task::OnDependencyFailure};
use adjacency::Adjacency;
pub use adjacency::Cycle;
pub use reopen::Reopened;

/// The state of a task in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// A dependency has not settled.
    Waiting,
    /// Handed out to be run; all dependencies have settled.
    Ready,
    /// Settled with a result.
    Completed,
    /// Settled by itself without a result: failed, cancelled, timed out.
    Failed,
    /// Left out by a condition, its own or that of a task whose result it needs.
    Skipped,
    /// Settled because of a dependency, by the policy `skip`.
    UpstreamFailed,
    /// Settled because of a dependency, by the policy `fail`.
    DependencyFailed,
}

impl NodeState {
    /// True when nothing more will happen to the task.
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Waiting | Self::Ready)
    }

    /// True for a task that was decided by another one's failure and never ran.
    pub const fn is_by_dependency(self) -> bool {
        matches!(self, Self::UpstreamFailed | Self::DependencyFailed)
    }

    const fn is_without_result(self) -> bool {
        matches!(self, Self::Failed | Self::UpstreamFailed | Self::DependencyFailed)
    }
}

/// The effects of settling a task. An empty list is not allocated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settlement {
    /// Tasks that may run now.
    pub ready: Vec<u32>,
    /// Tasks that never will, by the policy `skip`, each with the task that failed by itself.
    pub upstream_failed: Vec<(u32, u32)>,
    /// Tasks that need the result of one that a condition left out, each with that one.
    pub skipped: Vec<(u32, u32)>,
    /// Tasks that fail, by the policy `fail`, each with the task that failed by itself.
    pub failed: Vec<(u32, u32)>,
    /// Tasks that were decided without a call, in order. The graph itself decides none.
    pub decided: Vec<(u32, Decision)>,
}

impl Settlement {
    /// Empties it, and keeps its memory.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.upstream_failed.clear();
        self.skipped.clear();
        self.decided.clear();
        self.failed.clear();
    }
}

/// What an edge asks of the task that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// How it ended, however that was.
    End,
    /// The order only: a task that was skipped satisfies it.
    After,
    /// Its result.
    Value,
}

/// How a stored task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredEnd {
    /// With a result.
    Completed,
    /// By itself without one.
    Failed,
    /// Left out by a condition.
    Skipped,
    /// By a dependency, and the policy `skip`.
    UpstreamFailed,
    /// By a dependency, and the policy `fail`.
    DependencyFailed,
}

impl From<bool> for StoredEnd {
    fn from(completed: bool) -> Self {
        if completed { Self::Completed } else { Self::Failed }
    }
}

impl From<StoredEnd> for NodeState {
    fn from(end: StoredEnd) -> Self {
        match end {
            StoredEnd::Completed => Self::Completed,
            StoredEnd::Failed => Self::Failed,
            StoredEnd::Skipped => Self::Skipped,
            StoredEnd::UpstreamFailed => Self::UpstreamFailed,
            StoredEnd::DependencyFailed => Self::DependencyFailed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TaskNode {
    /// Dependencies that have not settled.
    open: u32,
    state: NodeState,
    policy: OnDependencyFailure,
}

/// The dependency graph of one workflow: 16 bytes a task and 8 an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    nodes: Box<[TaskNode]>,
    dependencies: Adjacency,
    dependents: Adjacency,
    unsettled: u32,
    /// The kinds of edges that are not [`EdgeKind::After`], by task and dependency. Absent in a
    /// workflow without conditions, where none of them matters.
    kinds: Option<Box<FxHashMap<(u32, u32), EdgeKind>>>,
}

impl Graph {
    /// Builds the graph in time linear in tasks and edges. An edge is a task and one that it
    /// depends on; an edge given twice counts once. There is one policy per task.
    ///
    /// # Errors
    /// [`Cycle`] with one whole cycle, if tasks wait for each other.
    ///
    /// # Panics
    /// When an edge names a task without a policy, or there are 2³² tasks or edges.
    pub fn build(
        policies: &[OnDependencyFailure],
        edges: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self, Cycle> {
        let edges: Vec<(u32, u32)> = edges.into_iter().collect();
        let dependencies = Adjacency::new(policies.len(), &edges);
        let dependents = dependencies.reversed();
        adjacency::check_acyclic(&dependencies, &dependents)?;
        let node = |(task, &policy): (u32, &OnDependencyFailure)| {
            let open = dependencies.degree(task);
            let state = if open == 0 { NodeState::Ready } else { NodeState::Waiting };
            TaskNode { open, state, policy }
        };
        let nodes: Box<[TaskNode]> = (0..).zip(policies).map(node).collect();
        let unsettled = dependencies.len();
        Ok(Self { nodes, dependencies, dependents, unsettled, kinds: None })
    }

    /// Says what edges ask, `(task, depends on, kind)`; the strongest of several counts. An edge that is
    /// not among them asks for the order.
    #[must_use]
    pub fn with_kinds(mut self, kinds: &[(u32, u32, EdgeKind)]) -> Self {
        let mut strongest = FxHashMap::default();
        for &(task, on, kind) in kinds {
            let known = strongest.entry((task, on)).or_insert(kind);
            *known = (*known).max(kind);
        }
        strongest.retain(|_, kind| *kind != EdgeKind::After);
        self.kinds = (!strongest.is_empty()).then(|| Box::new(strongest));
        self
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True without any task.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tasks that `task` waits for, in the order they were given.
    pub fn dependencies(&self, task: u32) -> &[u32] {
        self.dependencies.of(task)
    }

    /// The tasks that wait for `task`, by index.
    pub fn dependents(&self, task: u32) -> &[u32] {
        self.dependents.of(task)
    }

    /// The state of `task`.
    pub fn state(&self, task: u32) -> NodeState {
        self.nodes[task as usize].state
    }

    /// True when nothing more will happen to `task`.
    pub fn is_settled(&self, task: u32) -> bool {
        self.state(task).is_settled()
    }

    /// True when every task has settled.
    pub fn all_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// How many tasks have not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled as usize
    }

    /// The tasks that may run and have not settled, by index. Right after the build: those without
    /// dependencies. Linear in the tasks.
    pub fn ready(&self) -> Vec<u32> {
        let tasks = (0..).zip(&self.nodes);
        tasks.filter(|(_, node)| node.state == NodeState::Ready).map(|(task, _)| task).collect()
    }

    /// For a task that was decided by another one: a task that failed by itself and led to it.
    pub fn cause(&self, task: u32) -> Option<u32> {
        if !self.state(task).is_by_dependency() {
            return None;
        }
        let mut at = task;
        while self.state(at).is_by_dependency() {
            let mut dependencies = self.dependencies(at).iter();
            at = *dependencies.find(|before| self.state(**before).is_without_result())?;
        }
        Some(at)
    }

    /// The tasks by level, for drawing: level 0 has no dependencies, and every other task stands
    /// one below the lowest of its dependencies. Execution knows no levels.
    pub fn levels(&self) -> Vec<Vec<u32>> {
        let mut level = vec![0_usize; self.len()];
        let mut levels: Vec<Vec<u32>> = Vec::new();
        for task in adjacency::order(&self.dependencies, &self.dependents) {
            let before = self.dependencies(task).iter().map(|before| level[*before as usize] + 1);
            let own = before.max().unwrap_or(0);
            level[task as usize] = own;
            if own == levels.len() {
                levels.push(Vec::new());
            }
            levels[own].push(task);
        }
        for level in &mut levels {
            level.sort_unstable();
        }
        levels
    }

    /// Settles a task: with a result, or (failed, cancelled, timed out) without. The task may
    /// still have been waiting, as when someone cancels it. One that has settled before, by itself
    /// or by a dependency, stays as it is, and the answer is empty.
    ///
    /// Costs the task's dependents, and those of every task that is decided by it.
    #[must_use = "ready tasks are handed out once"]
    pub fn settle(&mut self, task: u32, completed: bool) -> Settlement {
        let mut settlement = Settlement::default();
        self.settle_into(task, completed, &mut settlement);
        settlement
    }

    /// The same as [`settle`](Self::settle), added to what `settlement` holds already.
    pub fn settle_into(&mut self, task: u32, completed: bool, settlement: &mut Settlement) {
        if self.set_settled(task, completed) {
            self.follow(task, completed, settlement);
        }
    }

    /// Leaves a task out by its condition, and those that need its result with it.
    pub fn skip_into(&mut self, task: u32, settlement: &mut Settlement) {
        if self.set_ended(task, NodeState::Skipped) {
            self.follow_failure(vec![task], task, settlement);
        }
    }

    /// Restores a newly built graph to an earlier state. `settled` lists, in any order, the tasks that
    /// settled. Those that were decided by a dependency follow, and need not be listed. Returns
    /// everything that follows: all ready tasks and all decided ones that are not listed.
    #[must_use = "ready tasks are handed out once"]
    pub fn restore<E: Copy + Into<StoredEnd>>(&mut self, settled: &[(u32, E)]) -> Settlement {
        // All are marked before any of it is followed, or a task that settled by itself could be
        // decided by a dependency that failed later.
        let mut fresh = Vec::with_capacity(settled.len());
        for &(task, end) in settled {
            let end: StoredEnd = end.into();
            if self.set_ended(task, end.into()) {
                fresh.push((task, end == StoredEnd::Completed));
            }
        }
        let mut settlement = Settlement::default();
        for (task, completed) in fresh {
            self.follow(task, completed, &mut settlement);
        }
        settlement.ready = self.ready();
        settlement
    }

    /// Marks a task as settled by itself; false if it had settled before.
    fn set_settled(&mut self, task: u32, completed: bool) -> bool {
        self.set_ended(task, if completed { NodeState::Completed } else { NodeState::Failed })
    }

    fn set_ended(&mut self, task: u32, state: NodeState) -> bool {
        let node = &mut self.nodes[task as usize];
        if node.state.is_settled() {
            return false;
        }
        node.state = state;
        self.unsettled -= 1;
        true
    }

    /// Tells the dependents of a task that was just marked.
    fn follow(&mut self, task: u32, completed: bool, settlement: &mut Settlement) {
        if !completed {
            return self.follow_failure(vec![task], task, settlement);
        }
        let Self { nodes, dependents, .. } = self;
        for &behind in dependents.of(task) {
            let node = &mut nodes[behind as usize];
            node.open -= 1;
            if node.open == 0 && node.state == NodeState::Waiting {
                node.state = NodeState::Ready;
                settlement.ready.push(behind);
            }
        }
    }

    /// Tells the dependents of tasks that were just marked `without_result`, all for one `cause`.
    fn follow_failure(
        &mut self,
        mut without_result: Vec<u32>,
        cause: u32,
        settlement: &mut Settlement,
    ) {
        let Self { nodes, dependents, unsettled, kinds, .. } = self;
        // A list and not a recursion: a chain may be as long as the workflow.
        let mut at = 0;
        while let Some(&task) = without_result.get(at) {
            at += 1;
            let is_skipped = nodes[task as usize].state == NodeState::Skipped;
            for &behind in dependents.of(task) {
                let kind = kind_of(kinds.as_deref(), behind, task);
                let node = &mut nodes[behind as usize];
                node.open -= 1;
                if node.state != NodeState::Waiting {
                    continue;
                }
                if is_skipped && kind == EdgeKind::Value {
                    node.state = NodeState::Skipped;
                    settlement.skipped.push((behind, cause));
                    *unsettled -= 1;
                    without_result.push(behind);
                    continue;
                }
                if is_skipped || kind == EdgeKind::End {
                    if node.open == 0 {
                        node.state = NodeState::Ready;
                        settlement.ready.push(behind);
                    }
                    continue;
                }
                match node.policy {
                    OnDependencyFailure::Run if node.open > 0 => continue,
                    OnDependencyFailure::Run => {
                        node.state = NodeState::Ready;
                        settlement.ready.push(behind);
                        continue;
                    }
                    OnDependencyFailure::Skip => {
                        node.state = NodeState::UpstreamFailed;
                        settlement.upstream_failed.push((behind, cause));
                    }
                    OnDependencyFailure::Fail => {
                        node.state = NodeState::DependencyFailed;
                        settlement.failed.push((behind, cause));
                    }
                }
                *unsettled -= 1;
                without_result.push(behind);
            }
        }
    }
}

/// What the edge from `task` to `on` asks.
fn kind_of(kinds: Option<&FxHashMap<(u32, u32), EdgeKind>>, task: u32, on: u32) -> EdgeKind {
    kinds.and_then(|kinds| kinds.get(&(task, on)).copied()).unwrap_or(EdgeKind::After)
}
