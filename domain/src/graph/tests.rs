//! What the graph promises, on graphs, orders and outcomes made at random.

use petgraph::{algo::toposort, graphmap::DiGraphMap};
use proptest::prelude::*;

use super::*;
use crate::task::OnDependencyFailure::{Fail, Run, Skip};

const POLICIES: [OnDependencyFailure; 3] = [Skip, Fail, Run];

/// A graph without circles: its policies and edges.
#[derive(Debug, Clone)]
struct Plan {
    policies: Vec<OnDependencyFailure>,
    edges: Vec<(u32, u32)>,
}

impl Plan {
    fn build(&self) -> Graph {
        Graph::build(&self.policies, self.edges.iter().copied()).unwrap()
    }
}

/// Edges lead to lower numbers of a shuffled numbering, so there is no circle.
fn plans() -> impl Strategy<Value = Plan> {
    (1..14_usize).prop_flat_map(|tasks| {
        let policies = prop::collection::vec(prop::sample::select(&POLICIES[..]), tasks);
        let numbers = Just((0..u32::try_from(tasks).unwrap()).collect::<Vec<_>>()).prop_shuffle();
        let pairs = prop::collection::vec((0..tasks, 0..tasks), 0..3 * tasks);
        (policies, numbers, pairs).prop_map(|(policies, numbers, pairs)| {
            let pairs = pairs.into_iter().filter(|(a, b)| a != b);
            let edges = pairs.map(|(a, b)| (numbers[a.max(b)], numbers[a.min(b)])).collect();
            Plan { policies, edges }
        })
    })
}

/// What one run of a plan did.
#[derive(Debug, Default)]
struct Done {
    /// The tasks that settled by themselves, in order.
    settled: Vec<(u32, bool)>,
    /// How each task ended, by index: `ran`, `skipped` or `failed`; empty while it has not.
    ends: Vec<Vec<&'static str>>,
}

/// Runs ready tasks in an order, with outcomes and for a number of steps that `dice` decides.
/// Now and then it cancels a task that still waits.
fn run(graph: &mut Graph, dice: &[u8]) -> Done {
    let mut done = Done { ends: vec![Vec::new(); graph.len()], ..Done::default() };
    let mut ready = graph.ready();
    for &roll in dice {
        let waits = |task: &u32| graph.state(*task) == NodeState::Waiting;
        let task = match (0..u32::try_from(graph.len()).unwrap()).find(waits) {
            Some(waiting) if roll % 16 == 15 => waiting,
            _ if ready.is_empty() => break,
            _ => ready.swap_remove(usize::from(roll) % ready.len()),
        };
        if graph.state(task) == NodeState::Ready {
            for before in graph.dependencies(task) {
                assert!(graph.is_settled(*before), "{task} was ready before {before} settled");
            }
        }
        let completed = roll % 3 > 0 && graph.state(task) == NodeState::Ready;
        let settlement = graph.settle(task, completed);
        done.settled.push((task, completed));
        done.ends[task as usize].push("ran");
        for (skipped, cause) in &settlement.upstream_failed {
            assert_eq!(*cause, task);
            done.ends[*skipped as usize].push("skipped");
        }
        for (failed, cause) in &settlement.failed {
            assert_eq!(*cause, task);
            done.ends[*failed as usize].push("failed");
        }
        ready.extend(settlement.ready);
    }
    done
}

fn states(graph: &Graph) -> Vec<NodeState> {
    graph.nodes.iter().map(|node| node.state).collect()
}

/// More rolls than a plan has tasks.
fn dice() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 20)
}

proptest! {
    /// A circle would wait for ever, and a refusal without one would lose a good workflow.
    #[test]
    fn exactly_the_acyclic_is_accepted(
        tasks in 1..12_u32,
        pairs in prop::collection::vec((0..12_u32, 0..12_u32), 0..30),
    ) {
        let edges: Vec<_> = pairs.into_iter().map(|(a, b)| (a % tasks, b % tasks)).collect();
        let mut oracle = DiGraphMap::<u32, ()>::from_edges(&edges);
        (0..tasks).for_each(|task| _ = oracle.add_node(task));
        let graph = Graph::build(&vec![Skip; tasks as usize], edges.iter().copied());
        prop_assert_eq!(graph.is_ok(), toposort(&oracle, None).is_ok());
        if let Err(Cycle { path }) = graph {
            prop_assert_eq!(path.first(), path.last());
            prop_assert!(path.len() > 1);
            for step in path.windows(2) {
                prop_assert!(edges.contains(&(step[0], step[1])), "no edge {:?}", step);
            }
            let mut once = path[1..].to_vec();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), path.len() - 1, "a task stands twice in {:?}", path);
        }
    }

    /// The two sides of an edge tell the same story, and doubles count once.
    #[test]
    fn dependents_mirror_dependencies(plan in plans()) {
        let graph = plan.build();
        let mut forward: Vec<_> = plan.edges.clone();
        forward.sort_unstable();
        forward.dedup();
        let tasks = 0..u32::try_from(graph.len()).unwrap();
        let mut own: Vec<_> = tasks.clone()
            .flat_map(|task| graph.dependencies(task).iter().map(move |before| (task, *before)))
            .collect();
        own.sort_unstable();
        let mut mirrored: Vec<_> = tasks
            .flat_map(|task| graph.dependents(task).iter().map(move |behind| (*behind, task)))
            .collect();
        mirrored.sort_unstable();
        prop_assert_eq!(&own, &forward);
        prop_assert_eq!(&mirrored, &forward);
    }

    /// Whatever the order and the outcomes: no task is lost, and none ends twice. That no task is
    /// ready before its dependencies settled is asserted in `run`.
    #[test]
    fn every_task_ends_once(plan in plans(), dice in dice()) {
        let mut graph = plan.build();
        let done = run(&mut graph, &dice);
        prop_assert!(graph.all_settled(), "stuck: {:?}", states(&graph));
        prop_assert_eq!(graph.unsettled(), 0);
        for (task, ends) in done.ends.iter().enumerate() {
            prop_assert_eq!(ends.len(), 1, "task {} ended {:?}", task, ends);
        }
    }

    /// A task runs if and only if its policy and its dependencies' ends let it.
    #[test]
    fn a_failed_dependency_decides_as_the_policy_says(plan in plans(), dice in dice()) {
        let mut graph = plan.build();
        let done = run(&mut graph, &dice);
        for task in 0..u32::try_from(graph.len()).unwrap() {
            let broken = graph.dependencies(task).iter()
                .any(|before| graph.state(*before) != NodeState::Completed);
            let end = done.ends[task as usize][0];
            // A waiting task that was cancelled "ran" whatever became of its dependencies.
            if end == "ran" && graph.state(task) == NodeState::Completed {
                let policy = plan.policies[task as usize];
                prop_assert!(!broken || policy == Run);
            }
            if end != "ran" {
                let expected = if end == "skipped" { Skip } else { Fail };
                prop_assert_eq!(plan.policies[task as usize], expected);
                let cause = graph.cause(task);
                prop_assert!(broken && cause.is_some());
                prop_assert_eq!(graph.state(cause.unwrap()), NodeState::Failed);
            }
        }
    }

    /// A restart goes on exactly where the last run was, in whatever order the store tells it.
    #[test]
    fn restoring_equals_replaying(
        plan in plans(),
        (dice, stop) in (dice(), 0..20_usize),
        order in any::<prop::sample::Index>(),
    ) {
        let mut replayed = plan.build();
        let done = run(&mut replayed, &dice[..stop]);
        let mut settled = done.settled;
        if !settled.is_empty() {
            let pivot = order.index(settled.len());
            settled.rotate_left(pivot);
        }
        let mut restored = plan.build();
        let settlement = restored.restore(&settled);
        prop_assert_eq!(&restored, &replayed);
        prop_assert_eq!(&settlement.ready, &replayed.ready());
        let listed = |kind: &str| -> Vec<u32> {
            let tasks = (0..).zip(&done.ends);
            tasks.filter(|(_, ends)| ends.contains(&kind)).map(|(task, _)| task).collect()
        };
        for (list, kind) in [(&settlement.upstream_failed, "skipped"), (&settlement.failed, "failed")] {
            let mut tasks: Vec<u32> = list.iter().map(|(task, _)| *task).collect();
            tasks.sort_unstable();
            prop_assert_eq!(tasks, listed(kind));
        }
    }

    /// Reopening forgets outcomes, and leaves no trace of them.
    #[test]
    fn reopening_equals_never_having_settled(
        plan in plans(),
        dice in dice(),
        chosen in prop::collection::vec(any::<bool>(), 14),
    ) {
        let mut graph = plan.build();
        let done = run(&mut graph, &dice);
        let (again, kept): (Vec<_>, Vec<_>) = done.settled.iter()
            .partition(|(task, completed)| !completed && chosen[*task as usize]);
        let before = states(&graph);
        let reopened = graph.reopen(&again.iter().map(|(task, _)| *task).collect::<Vec<_>>());
        let mut expected = plan.build();
        let settlement = expected.restore(&kept);
        prop_assert_eq!(&graph, &expected);
        prop_assert_eq!(&reopened.ready, &settlement.ready);
        let changed: Vec<u32> = (0..).zip(before.iter().zip(states(&graph)))
            .filter(|(_, (old, new))| old.is_settled() && !new.is_settled())
            .map(|(task, _)| task)
            .collect();
        prop_assert_eq!(reopened.tasks, changed);
        run(&mut graph, &[1; 20]);
        prop_assert!(graph.all_settled(), "stuck after reopening");
    }

    /// A drawing shows every task once, below all that it waits for.
    #[test]
    fn levels_hold_each_task_below_its_dependencies(plan in plans()) {
        let graph = plan.build();
        let levels = graph.levels();
        let level = |task: u32| levels.iter().position(|level| level.contains(&task)).unwrap();
        prop_assert_eq!(levels.iter().map(Vec::len).sum::<usize>(), graph.len());
        for task in 0..u32::try_from(graph.len()).unwrap() {
            let lowest = graph.dependencies(task).iter().map(|before| level(*before) + 1).max();
            prop_assert_eq!(level(task), lowest.unwrap_or(0));
        }
    }
}

const LONG: u32 = 100_000;

fn chain(policy: OnDependencyFailure) -> Graph {
    let edges = (1..LONG).map(|task| (task, task - 1));
    Graph::build(&vec![policy; LONG as usize], edges).unwrap()
}

/// Every walk along the graph is a loop, so length costs no stack.
#[test]
fn a_long_chain_does_not_overflow_the_stack() {
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(|| {
            let mut graph = chain(Skip);
            assert_eq!(graph.levels().len(), LONG as usize);
            let settlement = graph.settle(0, false);
            assert_eq!(settlement.upstream_failed.len(), LONG as usize - 1);
            assert!(graph.all_settled());
            assert_eq!(graph.cause(LONG - 1), Some(0));
            let reopened = graph.reopen(&[0]);
            assert_eq!((reopened.tasks.len(), reopened.ready), (LONG as usize, vec![0]));
            for task in 0..LONG - 1 {
                assert_eq!(graph.settle(task, true).ready, [task + 1]);
            }
            let circle = (0..LONG).map(|task| (task, (task + 1) % LONG));
            let cycle = Graph::build(&vec![Skip; LONG as usize], circle).unwrap_err();
            assert_eq!(cycle.path.len(), LONG as usize + 1);
        })
        .unwrap()
        .join()
        .unwrap();
}

/// The memory of 100,000 waiting tasks is counted on: 16 bytes a task and 8 an edge.
#[test]
fn a_task_and_an_edge_are_small() {
    let graph = chain(Run);
    let edges = |side: &Adjacency| side.bytes();
    let bytes = size_of_val(&*graph.nodes) + edges(&graph.dependencies) + edges(&graph.dependents);
    assert!(bytes <= 24 * LONG as usize + 16, "{bytes} bytes");
}

/// The last of a diamond waits for both sides, and is handed out once.
#[test]
fn a_join_is_ready_after_its_last_dependency() {
    let mut graph = Graph::build(&[Skip; 4], [(1, 0), (2, 0), (3, 1), (3, 2), (3, 1)]).unwrap();
    assert_eq!(graph.ready(), [0]);
    assert_eq!(graph.settle(0, true).ready, [1, 2]);
    assert_eq!(graph.settle(2, true), Settlement::default());
    assert_eq!(graph.settle(1, true).ready, [3]);
    assert_eq!(graph.unsettled(), 1);
}

/// There is no barrier between levels: a branch goes on whatever its neighbour does.
#[test]
fn a_branch_does_not_wait_for_another() {
    let mut graph = Graph::build(&[Skip; 4], [(2, 0), (3, 1)]).unwrap();
    assert_eq!(graph.settle(1, true).ready, [3]);
    assert_eq!(graph.state(0), NodeState::Ready);
}

/// The person who reads "skipped" wants the task that failed, not the one before it that was
/// skipped as well.
#[test]
fn the_task_that_failed_by_itself_is_named_behind_others() {
    let policies = [Skip, Fail, Skip, Run];
    let mut graph = Graph::build(&policies, [(1, 0), (2, 1), (3, 2)]).unwrap();
    let settlement = graph.settle(0, false);
    assert_eq!(settlement.failed, [(1, 0)]);
    assert_eq!(settlement.upstream_failed, [(2, 0)]);
    assert_eq!(settlement.ready, [3]);
}

/// Late answers of an abandoned attempt must change nothing.
#[test]
fn settling_twice_is_of_no_effect() {
    let mut graph = Graph::build(&[Skip; 3], [(1, 0), (2, 1)]).unwrap();
    let _ = graph.settle(0, false);
    let before = graph.clone();
    assert_eq!(graph.settle(0, true), Settlement::default());
    assert_eq!(graph.settle(2, true), Settlement::default());
    assert_eq!(graph, before);
}

/// `run` waits for all its dependencies, also for those behind one that failed early.
#[test]
fn run_waits_for_the_others_too() {
    let mut graph = Graph::build(&[Skip, Skip, Run], [(2, 0), (2, 1)]).unwrap();
    assert_eq!(graph.settle(0, false), Settlement::default());
    assert_eq!(graph.settle(1, true).ready, [2]);
}

/// A task behind two failed ones comes back with the second of them, not before.
#[test]
fn a_task_stays_skipped_while_one_cause_is_left() {
    let mut graph = Graph::build(&[Skip; 3], [(2, 0), (2, 1)]).unwrap();
    let _ = graph.settle(0, false);
    let _ = graph.settle(1, false);
    assert_eq!(graph.reopen(&[0]), Reopened { tasks: vec![0], ready: vec![0] });
    assert_eq!(graph.cause(2), Some(1));
    assert_eq!(graph.reopen(&[1]), Reopened { tasks: vec![1, 2], ready: vec![1] });
}

/// Who was cancelled while waiting may have lost a dependency since, and must not run without it.
#[test]
fn a_cancelled_task_is_not_reopened_before_its_dependency() {
    let mut graph = Graph::build(&[Skip; 3], [(1, 0), (2, 1)]).unwrap();
    let _ = graph.settle(1, false);
    let _ = graph.settle(0, false);
    assert_eq!(graph.reopen(&[1]), Reopened::default());
    assert_eq!((graph.state(1), graph.cause(1)), (NodeState::UpstreamFailed, Some(0)));
    assert_eq!(graph.reopen(&[0]), Reopened { tasks: vec![0, 1, 2], ready: vec![0] });
}

/// A waiting task can be cancelled; what was to come back to it comes to nothing.
#[test]
fn a_waiting_task_can_be_settled() {
    let mut graph = Graph::build(&[Skip; 3], [(1, 0), (2, 1)]).unwrap();
    assert_eq!(graph.settle(1, false).upstream_failed, [(2, 1)]);
    assert_eq!(graph.settle(0, true), Settlement::default());
    assert!(graph.all_settled());
}

/// A workflow without tasks is settled from the start.
#[test]
fn an_empty_graph_is_settled() {
    let graph = Graph::build(&[], []).unwrap();
    assert!(graph.is_empty() && graph.all_settled() && graph.ready().is_empty());
}

proptest! {
    /// To complete and to lose the result is to fail: nobody can tell the difference afterwards.
    #[test]
    fn a_lost_result_is_a_failure(plan in plans(), dice in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut graph = plan.build();
        run(&mut graph, &dice);
        for task in graph.ready() {
            let (mut lost, mut failed) = (graph.clone(), graph.clone());
            let _ = lost.settle(task, true);
            let mut after = lost.lose_result(task);
            let mut expected = failed.settle(task, false);
            prop_assert_eq!(&lost, &failed);
            for settlement in [&mut after, &mut expected] {
                settlement.ready.sort_unstable();
                settlement.upstream_failed.sort_unstable();
                settlement.failed.sort_unstable();
            }
            prop_assert_eq!(after, expected);
            prop_assert_eq!(lost.lose_result(task), Settlement::default());
        }
    }
}

/// The table of the format: what the end of a dependency means over each kind of edge.
#[test]
fn an_end_means_what_the_edge_asks() {
    use EdgeKind::{After, End, Value};
    let policies = [Skip; 4];
    let edges = [(1, 0), (2, 0), (3, 0)];
    let kinds = [(1, 0, Value), (2, 0, After), (3, 0, End)];
    let graph = || Graph::build(&policies, edges).unwrap().with_kinds(&kinds);
    assert_eq!(graph().settle(0, true).ready, [1, 2, 3]);
    let failed = graph().settle(0, false);
    assert_eq!((failed.ready, failed.upstream_failed), (vec![3], vec![(1, 0), (2, 0)]));
    let mut skipped = Settlement::default();
    graph().skip_into(0, &mut skipped);
    assert_eq!((skipped.ready, skipped.skipped), (vec![2, 3], vec![(1, 0)]));
}

/// The need of a value passes a skip on, with its cause; the order does not.
#[test]
fn a_skip_passes_along_values_only() {
    let edges = [(1, 0), (2, 1), (3, 2), (4, 0)];
    let kinds = [(1, 0, EdgeKind::Value), (2, 1, EdgeKind::Value), (4, 0, EdgeKind::End)];
    let mut graph = Graph::build(&[Skip; 5], edges).unwrap().with_kinds(&kinds);
    let mut settlement = Settlement::default();
    graph.skip_into(0, &mut settlement);
    assert_eq!(settlement.skipped, [(1, 0), (2, 0)]);
    assert_eq!(settlement.ready, [4, 3]);
    // Restored from what is stored, nothing is decided again, and the same tasks are ready.
    let mut restored = Graph::build(&[Skip; 5], edges).unwrap().with_kinds(&kinds);
    let skipped = [0, 1, 2].map(|task| (task, StoredEnd::Skipped));
    assert_eq!(
        restored.restore(&skipped),
        Settlement { ready: vec![3, 4], ..Settlement::default() }
    );
}

/// The strongest of several edges between two tasks counts.
#[test]
fn the_strongest_edge_counts() {
    let kinds = [(1, 0, EdgeKind::End), (1, 0, EdgeKind::After)];
    let mut graph = Graph::build(&[Skip; 2], [(1, 0), (1, 0)]).unwrap().with_kinds(&kinds);
    assert_eq!(graph.settle(0, false).upstream_failed, [(1, 0)]);
}
