//! Claims about [`LeaseQueue`]: exact sums, nobody lost, nobody starved, order among equals.

use std::{collections::HashMap, fmt::Debug};

use proptest::prelude::*;

use super::*;

const fn cores(cores: u64) -> Resources {
    Resources {
        slots: 1,
        cpu_millicores: cores * 1000,
        memory_mib: 0,
        gpu_memory_mib: 0,
        disk_mib: 0,
        bandwidth_mbps: 0,
    }
}

const EIGHT: Resources = cores(8).with_slots(100);

fn granted<W>(answer: Result<Answer<W>, ExceedsTotal>) -> Option<Granted<W>> {
    match answer {
        Ok(Answer::Granted(granted)) => Some(granted),
        _ => None,
    }
}

fn ticket<W: Debug>(answer: Result<Answer<W>, ExceedsTotal>) -> Ticket {
    match answer.unwrap() {
        Answer::Waiting(ticket) => ticket,
        Answer::Granted(granted) => panic!("granted: {granted:?}"),
    }
}

fn waiters<W: Copy>(granted: &[Granted<W>]) -> Vec<W> {
    granted.iter().map(|granted| granted.waiter).collect()
}

/// What can never be met is refused instead of waiting for ever.
#[test]
fn a_need_above_the_total_is_refused_at_once() {
    let mut queue = LeaseQueue::new(EIGHT);
    let refused = queue.request(cores(9), Priority::Urgent, ());
    assert_eq!(refused, Err(ExceedsTotal { need: cores(9), total: EIGHT }));
    assert_eq!((queue.waiting(), queue.taken()), (0, Resources::default()));
}

/// A person reads which resource, how much of it, and what to set.
#[test]
fn a_refusal_names_the_resource_and_the_setting() {
    let need = Resources { memory_mib: 8_192, ..cores(9) };
    let total = Resources { memory_mib: 4_096, ..EIGHT };
    let message = ExceedsTotal { need, total }.to_string();
    assert_eq!(
        message,
        "the task needs `cpu_cores` 9 (total: 8) and `memory_mb` 8192 (total: 4096); let it ask for \
         less, or raise `resources.cpu_cores` and `resources.memory_mb`"
    );
}

/// A need that names no slot takes one, so that slots bound the number of leases.
#[test]
fn every_lease_takes_a_slot() {
    let mut queue = LeaseQueue::new(Resources::default().with_slots(1));
    let first = granted(queue.request(Resources::default(), Priority::Normal, 1)).unwrap();
    assert_eq!(first.held.slots, 1);
    ticket(queue.request(Resources::default(), Priority::Normal, 2));
    assert_eq!(waiters(&queue.release(&first.held)), [2]);
}

/// Among equal needs, the more urgent goes first, then the older.
#[test]
fn equals_are_served_by_priority_then_age() {
    let mut queue = LeaseQueue::new(cores(1));
    let mut held = granted(queue.request(cores(1), Priority::Low, 0)).unwrap().held;
    for (priority, number) in [
        (Priority::Low, 5),
        (Priority::Normal, 3),
        (Priority::Normal, 4),
        (Priority::Urgent, 1),
        (Priority::High, 2),
    ] {
        ticket(queue.request(cores(1), priority, number));
    }
    for expected in 1..=5 {
        let next = queue.release(&held);
        assert_eq!(waiters(&next), [expected]);
        held = next[0].held;
    }
}

/// One large waiter must not idle the machine while small ones fit beside it.
#[test]
fn a_small_one_passes_a_large_one_that_does_not_fit() {
    let mut queue = LeaseQueue::new(EIGHT);
    let first = granted(queue.request(cores(4), Priority::Normal, "first")).unwrap();
    ticket(queue.request(cores(8), Priority::Normal, "large"));
    let small = granted(queue.request(cores(1), Priority::Normal, "small")).unwrap();
    assert!(queue.release(&first.held).is_empty());
    assert_eq!(waiters(&queue.release(&small.held)), ["large"]);
}

/// A steady stream of small ones, always some running, passes a large one 64 times and not more;
/// and the stream goes on behind it.
#[test]
fn a_large_one_is_overtaken_a_bounded_number_of_times() {
    for stream in [Priority::Low, Priority::Normal, Priority::Urgent] {
        let mut queue = LeaseQueue::new(EIGHT);
        let mut running: Vec<Resources> = (0..8)
            .map(|n| granted(queue.request(cores(1), Priority::Normal, n)).unwrap().held)
            .collect();
        let large = 1_000_000;
        ticket(queue.request(cores(8), Priority::Normal, large));
        let mut passed = 0;
        for number in 0..1000 {
            let held = running.remove(0);
            ticket(queue.request(cores(1), stream, number));
            let next = queue.release(&held);
            if waiters(&next).contains(&large) {
                break;
            }
            passed += next.len();
            running.extend(next.iter().map(|granted| granted.held));
        }
        assert_eq!(passed, OVERTAKES_MAX as usize, "{stream:?}");
        assert!(running.is_empty() && queue.waiting() > 0, "{stream:?}");
        assert_eq!(queue.release(&cores(8)).len(), 8, "the small ones go on");
    }
}

/// Cancelling the reserved one lets the others go on at once.
#[test]
fn cancelling_the_reserved_waiter_frees_the_others() {
    let mut queue = LeaseQueue::new(EIGHT);
    let rest = granted(queue.request(cores(4), Priority::Normal, 0)).unwrap();
    let large = ticket(queue.request(cores(8), Priority::Normal, 1));
    for number in 0..OVERTAKES_MAX {
        let small = granted(queue.request(cores(1), Priority::Normal, number)).unwrap();
        queue.release(&small.held);
    }
    let blocked = ticket(queue.request(cores(1), Priority::Normal, 2));
    let (cancelled, next) = queue.cancel(large).unwrap();
    assert_eq!((cancelled, waiters(&next)), (1, vec![2]));
    assert!(queue.cancel(large).is_none() && queue.cancel(blocked).is_none());
    assert_eq!(queue.taken(), rest.held.checked_add(&next[0].held).unwrap());
}

/// A new request does not pass an equal that the search has not come to.
#[test]
fn the_bounded_search_is_fair_to_new_requests() {
    let mut queue = LeaseQueue::new(EIGHT);
    let first = granted(queue.request(cores(7), Priority::Normal, 0)).unwrap();
    for _ in 0..PASSED_OVER_MAX {
        ticket(queue.request(cores(8), Priority::Normal, 1));
    }
    ticket(queue.request(cores(1), Priority::Normal, 2));
    ticket(queue.request(cores(1), Priority::Normal, 3));
    assert_eq!(waiters(&queue.release(&first.held)), [1]);
}

#[derive(Debug, Clone)]
enum Step {
    Request(Resources, Priority),
    Release(usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let need = (0..3_u64, 0..9_u64, 0..9_u64).prop_map(|(slots, cpu_millicores, memory_mib)| {
        // Mostly small, now and then nearly all there is.
        let memory_mib = if memory_mib < 8 { memory_mib / 4 } else { 8 };
        Resources { slots, cpu_millicores, memory_mib, ..Resources::default() }
    });
    let priority = (0..Priority::ALL.len()).prop_map(|rank| Priority::ALL[rank]);
    prop_oneof![
        5 => (need, priority).prop_map(|(need, priority)| Step::Request(need, priority)),
        4 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Cancel),
    ]
}

/// A second opinion: who waits and who holds what, kept in plain lists.
#[derive(Default)]
struct Model {
    waiting: Vec<Waiter>,
    live: HashMap<u64, Resources>,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    number: u64,
    need: Resources,
    ticket: Ticket,
    /// Leases to others while this one was the head or the oldest.
    overtaken: u32,
    /// Leases that may still go to anyone before it must have had its own.
    leases_left: u32,
}

/// Small, so that a short run meets it often.
const FEW: u32 = 2;

impl Model {
    /// Notes a lease for `number`; a new request never was among the waiting.
    fn grant(&mut self, number: u64, priority: Priority, held: Resources) {
        let rank = |waiter: &Waiter| (waiter.ticket.priority, waiter.number);
        let first = self.waiting.iter().min_by_key(|waiter| rank(waiter)).map(rank);
        let oldest = self.waiting.iter().map(|waiter| waiter.number).min();
        for waiter in &mut self.waiting {
            assert!(waiter.leases_left > 0, "{waiter:?} waits too long");
            waiter.leases_left -= 1;
            let ahead = first == Some(rank(waiter)) && rank(waiter) < (priority, number);
            if waiter.number != number && (ahead || oldest == Some(waiter.number)) {
                waiter.overtaken += 1;
            }
        }
        self.waiting.retain(|waiter| waiter.number != number);
        assert!(self.live.insert(number, held).is_none(), "{number} granted twice");
    }

    fn take_granted(&mut self, granted: Vec<Granted<(u64, Priority)>>) {
        for Granted { held, waiter: (number, priority) } in granted {
            let waiter = self.waiting.iter().find(|waiter| waiter.number == number);
            assert_eq!(waiter.map(|waiter| waiter.need), Some(held), "granted what it asked for");
            self.grant(number, priority, held);
        }
    }
}

proptest! {
    /// Invariant 3 and the bounds of the header, under any mixture of calls; at the end, when
    /// everything is given back, nobody is left waiting.
    #[test]
    fn sums_are_exact_and_nobody_is_lost_or_starved(
        steps in prop::collection::vec(step(), 0..600),
    ) {
        let total = Resources {
            slots: 8, cpu_millicores: 8, memory_mib: 8, ..Resources::default()
        };
        let mut queue = LeaseQueue { overtakes_max: FEW, ..LeaseQueue::new(total) };
        let mut model = Model::default();
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Request(need, priority) => {
                    match queue.request(need, priority, (number, priority)) {
                        Ok(Answer::Granted(lease)) => model.grant(number, priority, lease.held),
                        Ok(Answer::Waiting(ticket)) => {
                            let need = need.with_slots(need.slots.max(1));
                            let others = u32::try_from(model.waiting.len()).unwrap();
                            let leases_left = (others + 1) * (FEW + 2);
                            let waiter = Waiter { number, need, ticket, overtaken: 0, leases_left };
                            model.waiting.push(waiter);
                        }
                        Err(refused) => prop_assert!(!refused.need.fits_in(&total)),
                    }
                }
                Step::Release(pick) if !model.live.is_empty() => {
                    let mut numbers: Vec<u64> = model.live.keys().copied().collect();
                    numbers.sort_unstable();
                    let held = model.live.remove(&numbers[pick % numbers.len()]).unwrap();
                    model.take_granted(queue.release(&held));
                }
                Step::Cancel(pick) if !model.waiting.is_empty() => {
                    let at = pick % model.waiting.len();
                    let gone = model.waiting.remove(at);
                    let (waiter, granted) = queue.cancel(gone.ticket).unwrap();
                    prop_assert_eq!(waiter.0, gone.number);
                    model.take_granted(granted);
                }
                Step::Release(_) | Step::Cancel(_) => {}
            }
            let sum = model.live.values().fold(Resources::default(), |sum, held| {
                sum.checked_add(held).unwrap()
            });
            prop_assert_eq!(queue.taken(), sum);
            prop_assert!(queue.taken().fits_in(&total));
            prop_assert_eq!(queue.waiting(), model.waiting.len());
            for waiter in &model.waiting {
                prop_assert!(waiter.overtaken <= FEW + 1, "{:?}", waiter);
            }
            if queue.reserved.is_none() && model.waiting.len() <= PASSED_OVER_MAX {
                let idle = model.waiting.iter().find(|waiter| waiter.need.fits_in(queue.free()));
                prop_assert!(idle.is_none(), "{:?} could be served", idle);
            }
        }
        while let Some(number) = model.live.keys().min().copied() {
            let held = model.live.remove(&number).unwrap();
            model.take_granted(queue.release(&held));
        }
        prop_assert!(model.waiting.is_empty() && queue.waiting() == 0);
        prop_assert_eq!(*queue.free(), total);
    }
}
