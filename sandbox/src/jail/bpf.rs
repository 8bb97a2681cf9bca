//! Makes a filter of system calls: a search tree over their numbers, in the steps that the kernel
//! runs.
//!
//! A tree and no list, because the kernel tries every number out when a task puts the filter upon
//! itself: a list of this length costs a task most of a millisecond, a tree a tenth of that.
//!
//! Invariant: what is not decided about is refused with `EPERM`; another architecture's calls end
//! the process.

use std::collections::BTreeMap;

/// The numbers by which the kernel knows the architecture.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_00B7;

pub(crate) const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Where the kernel puts the call's number, the architecture, and the arguments, low half first on
/// both architectures.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is made.
    Allow,
    /// It fails with this error.
    Refuse(i32),
    /// It is made where this argument is one of these numbers.
    Is(u8, &'static [u32]),
    /// It is made where each of these arguments is one of its numbers.
    Are([(u8, &'static [u32]); 2]),
    /// It is made where this argument has one of these bits.
    Bit(u8, u32),
}

/// One step of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    code: u32,
    if_true: u8,
    if_false: u8,
    number: u32,
}

/// The answer that lets a call fail.
pub(crate) const fn refuse(error: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | error.cast_unsigned()
}

const fn step(code: u32, number: u32) -> Step {
    Step { code, if_true: 0, if_false: 0, number }
}

/// The program over `decisions`.
pub(crate) fn compile(decisions: &BTreeMap<u32, Decision>) -> Vec<Step> {
    let mut program = vec![
        step(LOAD, ARCHITECTURE_AT),
        Step { if_true: 1, ..step(IF_EQUAL, ARCHITECTURE) },
        step(ANSWER, KILL),
        step(LOAD, NUMBER_AT),
    ];
    program.extend(tree(&spans(decisions)));
    program
}

/// The numbers from which on another decision holds than before.
fn spans(decisions: &BTreeMap<u32, Decision>) -> Vec<(u32, Decision)> {
    let refused = Decision::Refuse(libc::EPERM);
    let mut spans = vec![(0, refused)];
    let mut next = 0;
    let mut from = |at, decision| {
        if spans.last().is_some_and(|(_, before)| *before != decision) {
            // A span that another one begins in the same place of has nothing in it.
            spans.retain(|(begun, _)| *begun != at);
            spans.push((at, decision));
        }
    };
    for (call, decision) in decisions {
        if *call != next {
            from(next, refused);
        }
        from(*call, *decision);
        next = call.saturating_add(1);
    }
    from(next, refused);
    spans
}

/// Finds the span of a number by halving.
fn tree(spans: &[(u32, Decision)]) -> Vec<Step> {
    match spans {
        [] => Vec::new(),
        [(_, decision)] => leaf(*decision),
        _ => {
            let (low, high) = spans.split_at(spans.len() / 2);
            let below = tree(low);
            // A jump is told in one byte; the tables' test fails long before it would be too far.
            let if_true = u8::try_from(below.len()).unwrap_or(u8::MAX);
            let mut steps = vec![Step { if_true, ..step(IF_AT_LEAST, high[0].0) }];
            steps.extend(below);
            steps.extend(tree(high));
            steps
        }
    }
}

fn leaf(decision: Decision) -> Vec<Step> {
    let refused = refuse(libc::EPERM);
    match decision {
        Decision::Allow => vec![step(ANSWER, ALLOW)],
        Decision::Refuse(error) => vec![step(ANSWER, refuse(error))],
        Decision::Bit(at, bits) => vec![
            argument(at),
            Step { if_false: 1, ..step(IF_BITS, bits) },
            step(ANSWER, ALLOW),
            step(ANSWER, refused),
        ],
        Decision::Is(at, numbers) => {
            let mut steps = unless(at, numbers);
            steps.push(step(ANSWER, ALLOW));
            steps
        }
        Decision::Are(arguments) => {
            let mut steps = Vec::new();
            for (at, numbers) in arguments {
                steps.extend(unless(at, numbers));
            }
            steps.push(step(ANSWER, ALLOW));
            steps
        }
    }
}

fn argument(at: u8) -> Step {
    step(LOAD, ARGUMENTS_AT + 8 * u32::from(at))
}

/// Refuses unless the argument is one of the numbers; goes on with the next step where it is.
fn unless(at: u8, numbers: &[u32]) -> Vec<Step> {
    let mut steps = vec![argument(at)];
    for (left, number) in (1..=numbers.len()).rev().zip(numbers) {
        // Over the other comparisons, and over the refusal behind them.
        let if_true = u8::try_from(left).unwrap_or(u8::MAX);
        steps.push(Step { if_true, ..step(IF_EQUAL, *number) });
    }
    steps.push(step(ANSWER, refuse(libc::EPERM)));
    steps
}

/// As the kernel reads it: eight bytes a step, in the machine's order.
pub(crate) fn as_bytes(program: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for step in program {
        // All codes of the kernel's machine are within sixteen bits.
        bytes.extend_from_slice(&u16::try_from(step.code).unwrap_or_default().to_ne_bytes());
        bytes.extend_from_slice(&[step.if_true, step.if_false]);
        bytes.extend_from_slice(&step.number.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
impl Decision {
    /// The answer for a call whose arguments are all `argument`.
    pub(crate) fn on(self, argument: u32) -> u32 {
        let allowed = match self {
            Self::Allow => true,
            Self::Refuse(error) => return refuse(error),
            Self::Is(_, numbers) => numbers.contains(&argument),
            Self::Are(arguments) => arguments.iter().all(|(_, of)| of.contains(&argument)),
            Self::Bit(_, bits) => argument & bits != 0,
        };
        if allowed { ALLOW } else { refuse(libc::EPERM) }
    }
}

/// The steps of a program that the kernel reads.
#[cfg(test)]
pub(crate) fn from_bytes(program: &[u8]) -> Vec<Step> {
    let read = |bytes: &[u8]| Step {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]).into(),
        if_true: bytes[2],
        if_false: bytes[3],
        number: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    program.chunks_exact(8).map(read).collect()
}

/// Runs a program as the kernel does.
#[cfg(test)]
pub(crate) fn run(program: &[Step], architecture: u32, call: u32, arguments: [u32; 6]) -> u32 {
    let (mut at, mut held) = (0, 0);
    loop {
        let step = program[at];
        at += 1;
        let jump = |is_true| usize::from(if is_true { step.if_true } else { step.if_false });
        match step.code {
            LOAD => {
                held = match step.number {
                    NUMBER_AT => call,
                    ARCHITECTURE_AT => architecture,
                    place => arguments[(place - ARGUMENTS_AT) as usize / 8],
                }
            }
            IF_EQUAL => at += jump(held == step.number),
            IF_AT_LEAST => at += jump(held >= step.number),
            IF_BITS => at += jump(held & step.number != 0),
            ANSWER => return step.number,
            code => panic!("no such step: {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers side by side with one decision are one span, and gaps are refused.
    #[test]
    fn spans_cover_every_number() {
        let refused = Decision::Refuse(1);
        let decisions = [(0, Decision::Allow), (1, Decision::Allow), (3, Decision::Bit(0, 4))];
        assert_eq!(
            spans(&decisions.into()),
            [(0, Decision::Allow), (2, refused), (3, Decision::Bit(0, 4)), (4, refused)]
        );
        assert_eq!(spans(&BTreeMap::new()), [(0, refused)]);
    }
}
