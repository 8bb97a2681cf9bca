//! Whose turn it is: priorities, age, and the bound on starvation.

use gleitzeit_actors::execution_engine::EngineSettings;
use gleitzeit_domain::{
    queue::PICKS_PER_OLDEST,
    task::Priority::{self, High, Low, Normal, Urgent},
    workflow::WorkflowSpec,
};
use serde_json::json;

use crate::support::{Harness, Setup, quick, task};

/// One task at a time, so that the order of the calls is the order of the turns.
async fn one_at_a_time() -> Harness {
    let engine = EngineSettings { max_concurrent_tasks: 1, ..EngineSettings::default() };
    Setup { engine, ..Setup::default() }.open().await
}

/// A workflow of tasks, one for each priority, named after their position.
fn of_priorities(name: &str, priorities: &[Priority]) -> WorkflowSpec {
    let tasks = priorities.iter().enumerate();
    let tasks = tasks.map(|(at, priority)| quick(&format!("{name}{at}")).priority(*priority));
    tasks.fold(WorkflowSpec::new(name), WorkflowSpec::task)
}

/// Submits while the only position is taken, then frees it; the order of everything behind.
async fn order_of(harness: &mut Harness, specs: Vec<WorkflowSpec>) -> Vec<String> {
    let first = WorkflowSpec::new("first").task(task("first", json!({"gate": "g"})));
    let mut sent = vec![harness.submit(first).await.unwrap()];
    harness.until_task("task:started", "first").await;
    for spec in specs {
        sent.push(harness.submit(spec).await.unwrap());
    }
    harness.script.open("g");
    for sent in sent {
        sent.end().await;
    }
    harness.script.order().split_off(1)
}

/// Urgent before high before normal before low, whatever the order and the workflow.
#[actix::test]
async fn urgent_tasks_go_first() {
    let mut harness = one_at_a_time().await;
    let specs =
        vec![of_priorities("a", &[Low, Normal, High]), of_priorities("b", &[Urgent, Low, High])];
    let order = order_of(&mut harness, specs).await;
    assert_eq!(order, ["b0", "a2", "b2", "a1", "a0", "b1"]);
    harness.finish().await;
}

/// Within a priority the oldest goes first.
#[actix::test]
async fn within_a_priority_age_decides() {
    let mut harness = one_at_a_time().await;
    let specs = (0..30).map(|n| of_priorities(&format!("w{n}-"), &[Normal])).collect();
    let order = order_of(&mut harness, specs).await;
    let expected: Vec<String> = (0..30).map(|n| format!("w{n}-0")).collect();
    assert_eq!(order, expected);
    harness.finish().await;
}

/// An old low task waits for a bounded number of urgent ones and no more, however many there are.
#[actix::test]
async fn a_low_task_is_not_starved() {
    let mut harness = one_at_a_time().await;
    let specs = vec![of_priorities("low", &[Low]), of_priorities("u", &[Urgent; 100])];
    let order = order_of(&mut harness, specs).await;
    let position = order.iter().position(|id| id == "low0").unwrap();
    // It is the oldest: the next pick that goes by age is its own.
    assert!(position < PICKS_PER_OLDEST as usize, "it came {position}th");
    assert!(position > 0, "an urgent one went first");
    harness.finish().await;
}

/// Priorities count among those that wait for the same busy provider as well.
#[actix::test]
async fn a_busy_provider_serves_the_urgent_first() {
    let setup = Setup { providers: vec![("main", Some(1))], ..Setup::default() };
    let mut harness = setup.open().await;
    let specs = vec![of_priorities("a", &[Low, Normal, High]), of_priorities("b", &[Urgent])];
    let order = order_of(&mut harness, specs).await;
    assert_eq!(order, ["b0", "a2", "a1", "a0"]);
    harness.finish().await;
}
