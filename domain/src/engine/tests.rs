//! The engine against a simulated world: a store that fails, calls that fail, and answers in any
//! order.

mod world;

use proptest::prelude::*;

use self::world::{Fault, Shape, World};

fn shape() -> impl Strategy<Value = Shape> {
    (prop::collection::vec(0_u8..8, 1..5), any::<bool>(), 1_u32..4)
        .prop_map(|(after, is_pure, parallel)| Shape { after, is_pure, parallel })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Transient),
        1 => Just(Fault::Content),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the store answers and in whatever order: each caller is answered once, an end is
    /// answered only after it is stored, no task begins before its dependencies are stored, no more
    /// tasks run than may, one write of each kind is under way, and nothing is left at the end.
    #[test]
    fn every_caller_is_answered_and_nothing_is_left(
        shapes in prop::collection::vec(shape(), 1..5),
        cancelled in prop::collection::vec(0_usize..40, 0..3),
        faults in prop::collection::vec(fault(), 1..40),
        order in prop::collection::vec(any::<u16>(), 1..64),
        outcomes in prop::collection::vec(0_u8..10, 1..24),
    ) {
        let mut world = World::new(faults, order, outcomes);
        for shape in &shapes {
            world.submit(shape);
        }
        for step in 0..4_000 {
            if let Some(at) = cancelled.iter().position(|at| *at == step) {
                world.cancel(at % shapes.len());
            }
            if !world.step() {
                break;
            }
        }
        world.check_end(shapes.len());
    }
}

/// A workflow of one task that nothing disturbs: submitted, run, stored, answered.
#[test]
fn a_single_task_is_run_and_answered() {
    let mut world = World::new(vec![Fault::None], vec![0], vec![9]);
    world.submit(&Shape { after: vec![0], is_pure: false, parallel: 1 });
    while world.step() {}
    world.check_end(1);
    assert_eq!(world.completed(), 1);
}

/// A store that fails for a while delays the end, and loses nothing.
#[test]
fn a_write_that_fails_is_repeated() {
    let faults = vec![Fault::None, Fault::Transient, Fault::Transient, Fault::None];
    let mut world = World::new(faults, vec![0], vec![9]);
    world.submit(&Shape { after: vec![0, 1], is_pure: false, parallel: 1 });
    while world.step() {}
    world.check_end(1);
    assert_eq!(world.completed(), 1);
}
