//! Edges in two flat arrays, the order of tasks along them, and the cycle if there is no order.

/// Tasks wait for each other in a circle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tasks wait for each other in a circle: {}", arrows(.path))]
pub struct Cycle {
    /// The whole circle: each task depends on the next one, and the last is the first again. A
    /// task that depends on itself stands twice.
    pub path: Vec<u32>,
}

fn arrows(path: &[u32]) -> String {
    path.iter().map(u32::to_string).collect::<Vec<_>>().join(" -> ")
}

/// The edges of all tasks, grouped by task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adjacency {
    /// The offset of each task's first target; one entry more than there are tasks.
    offsets: Box<[u32]>,
    targets: Box<[u32]>,
}

impl Adjacency {
    /// Sorts `edges` by their first task, in the order given, without doubles.
    pub(super) fn new(tasks: usize, edges: &[(u32, u32)]) -> Self {
        // A workflow of one task is the most common of all, and needs none of the work below.
        if edges.is_empty() {
            return Self::without_edges(tasks);
        }
        without_doubles(&Self::sorted(tasks, edges))
    }

    fn without_edges(tasks: usize) -> Self {
        assert!(u32::try_from(tasks).is_ok(), "2³² tasks");
        Self { offsets: vec![0; tasks + 1].into(), targets: Box::default() }
    }

    /// The same edges seen from the other end.
    pub(super) fn reversed(&self) -> Self {
        let tasks = self.offsets.len() - 1;
        if self.targets.is_empty() {
            return Self::without_edges(tasks);
        }
        let edges: Vec<(u32, u32)> = (0..self.len())
            .flat_map(|task| self.of(task).iter().map(move |target| (*target, task)))
            .collect();
        Self::sorted(tasks, &edges)
    }

    /// Counting sort: linear, and it keeps the order within a task.
    fn sorted(tasks: usize, edges: &[(u32, u32)]) -> Self {
        assert!(u32::try_from(tasks.max(edges.len())).is_ok(), "2³² tasks or edges");
        let mut offsets = vec![0_u32; tasks + 1];
        for &(task, target) in edges {
            assert!((target as usize) < tasks, "task {target} of an edge does not exist");
            offsets[task as usize + 1] += 1;
        }
        for at in 1..=tasks {
            offsets[at] += offsets[at - 1];
        }
        let mut next = offsets.clone();
        let mut targets = vec![0_u32; edges.len()];
        for &(task, target) in edges {
            let position = &mut next[task as usize];
            targets[*position as usize] = target;
            *position += 1;
        }
        Self { offsets: offsets.into(), targets: targets.into() }
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.offsets.len() - 1).unwrap_or(u32::MAX)
    }

    /// The memory of the edges.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.offsets) + size_of_val(&*self.targets)
    }

    pub(super) fn of(&self, task: u32) -> &[u32] {
        let task = task as usize;
        &self.targets[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }

    pub(super) fn degree(&self, task: u32) -> u32 {
        self.offsets[task as usize + 1] - self.offsets[task as usize]
    }
}

fn without_doubles(edges: &Adjacency) -> Adjacency {
    let tasks = edges.offsets.len() - 1;
    // The last task that had this target; no task has the number of all tasks.
    let mut seen_from = vec![edges.len(); tasks];
    let mut offsets = Vec::with_capacity(tasks + 1);
    let mut targets = Vec::with_capacity(edges.targets.len());
    offsets.push(0);
    for task in 0..edges.len() {
        for &target in edges.of(task) {
            if seen_from[target as usize] != task {
                seen_from[target as usize] = task;
                targets.push(target);
            }
        }
        offsets.push(u32::try_from(targets.len()).unwrap_or(u32::MAX));
    }
    Adjacency { offsets: offsets.into(), targets: targets.into() }
}

/// The tasks such that each comes behind its dependencies (Kahn's algorithm). Tasks of a circle,
/// and behind one, are left out.
pub(super) fn order(dependencies: &Adjacency, dependents: &Adjacency) -> Vec<u32> {
    let mut open: Vec<u32> =
        (0..dependencies.len()).map(|task| dependencies.degree(task)).collect();
    let mut order: Vec<u32> =
        (0..dependencies.len()).filter(|task| open[*task as usize] == 0).collect();
    let mut at = 0;
    while let Some(&task) = order.get(at) {
        at += 1;
        for &behind in dependents.of(task) {
            open[behind as usize] -= 1;
            if open[behind as usize] == 0 {
                order.push(behind);
            }
        }
    }
    order
}

/// # Errors
/// A cycle, if there is one.
pub(super) fn check_acyclic(dependencies: &Adjacency, dependents: &Adjacency) -> Result<(), Cycle> {
    if dependencies.targets.is_empty() {
        return Ok(());
    }
    let order = order(dependencies, dependents);
    let tasks = dependencies.len();
    if order.len() == tasks as usize {
        return Ok(());
    }
    let mut in_circle = vec![true; tasks as usize];
    for task in order {
        in_circle[task as usize] = false;
    }
    Err(Cycle { path: find_circle(dependencies, &in_circle) })
}

/// Walks from a task to a dependency that was left out too, until it comes by again. There always
/// is such a dependency, or the task would have been in the order.
fn find_circle(dependencies: &Adjacency, in_circle: &[bool]) -> Vec<u32> {
    let left_out = |task: &u32| in_circle[*task as usize];
    let mut path: Vec<u32> = Vec::new();
    let mut position = vec![None; in_circle.len()];
    let mut next = (0..dependencies.len()).find(left_out);
    while let Some(task) = next {
        if let Some(begin) = position[task as usize] {
            path.drain(..begin);
            path.push(task);
            break;
        }
        position[task as usize] = Some(path.len());
        path.push(task);
        next = dependencies.of(task).iter().copied().find(left_out);
    }
    path
}
