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
pub(crate) const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// Offsets of the call's number, the architecture and the arguments. The low half is first on both
/// architectures.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// An answer this many steps away is written again, so that the conditions that will lead to it, which
/// are further away, mostly reach it.
const SHARED_WITHIN: usize = 200;

/// The decision about a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is made.
    Allow,
    /// It fails with this error.
    Refuse(i32),
    /// Allowed if all tests of one of these lists hold; else it fails with `EPERM`.
    When(&'static [&'static [Test]]),
    /// The launcher answers it.
    Ask,
    /// Forwarded to the launcher if all tests of one of these lists hold; else allowed.
    AskWhen(&'static [&'static [Test]]),
}

/// A test of one argument, by its index. Only the low half is compared: the kernel reads no more of
/// the arguments that the tables name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    /// It is one of these numbers.
    Is(u8, &'static [u32]),
    /// It has none of these bits.
    Without(u8, u32),
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

/// The program over `decisions`; what is not decided about is refused.
pub(crate) fn compile(decisions: &BTreeMap<u32, Decision>) -> Vec<Step> {
    program(KILL, decisions, Decision::Refuse(libc::EPERM))
}

/// The program that hands some calls to the launcher and lets all others through: to stand before
/// one that refuses, whose refusal counts more.
pub(crate) fn compile_asking(decisions: &BTreeMap<u32, Decision>) -> Vec<Step> {
    program(ALLOW, decisions, Decision::Allow)
}

fn program(foreign: u32, decisions: &BTreeMap<u32, Decision>, otherwise: Decision) -> Vec<Step> {
    let mut program = ProgramBuilder::default();
    let decided = program.tree(&spans(decisions, otherwise));
    let decided = program.load(NUMBER_AT, decided);
    let foreign = program.answer(foreign);
    let checked = program.branch(IF_EQUAL, ARCHITECTURE, decided, foreign);
    program.load(ARCHITECTURE_AT, checked);
    program.steps.reverse();
    program.steps
}

/// The numbers from which on another decision holds than before.
fn spans(decisions: &BTreeMap<u32, Decision>, otherwise: Decision) -> Vec<(u32, Decision)> {
    let mut spans = vec![(0, otherwise)];
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
            from(next, otherwise);
        }
        from(*call, *decision);
        next = call.saturating_add(1);
    }
    from(next, otherwise);
    spans
}

/// A program under construction, written from its end to its start: jumps only lead forward, so
/// that a step's targets exist before the step. Answers are shared if a jump reaches them, because
/// the kernel reads, checks and translates every step again for each task.
#[derive(Default)]
struct ProgramBuilder {
    /// The last one first.
    steps: Vec<Step>,
}

/// A step, by how many steps follow it.
#[derive(Debug, Clone, Copy)]
struct Label(usize);

impl ProgramBuilder {
    fn push(&mut self, step: Step) -> Label {
        self.steps.push(step);
        Label(self.steps.len() - 1)
    }

    /// The number of steps between the next one and `place`.
    fn distance(&self, label: Label) -> usize {
        self.steps.len() - 1 - label.0
    }

    /// A step that ends with `answer`.
    fn answer(&mut self, answer: u32) -> Label {
        let wanted = step(ANSWER, answer);
        let known = self.steps.iter().rposition(|step| *step == wanted).map(Label);
        match known {
            Some(label) if self.distance(label) < SHARED_WITHIN => label,
            _ => self.push(wanted),
        }
    }

    /// `place`, or one that leads there and that the next conditions can jump to.
    fn near(&mut self, label: Label) -> Label {
        let distance = self.distance(label);
        let target = self.steps[label.0];
        match u8::try_from(distance + 1) {
            Ok(_) => label,
            Err(_) if target.code == ANSWER => self.push(target),
            Err(_) => self.push(step(JUMP, u32::try_from(distance).unwrap_or(u32::MAX))),
        }
    }

    /// A condition upon what was loaded.
    fn branch(&mut self, code: u32, number: u32, if_true: Label, if_false: Label) -> Label {
        let (if_true, if_false) = (self.near(if_true), self.near(if_false));
        // The second call may have put one step before the first target; `near` leaves room for it.
        let to = |label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        let (if_true, if_false) = (to(if_true), to(if_false));
        self.push(Step { if_true, if_false, ..step(code, number) })
    }

    /// Loads the word at `at` and continues at `next`.
    fn load(&mut self, at: u32, next: Label) -> Label {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(step(JUMP, u32::try_from(distance).unwrap_or(u32::MAX)));
        }
        self.push(step(LOAD, at))
    }

    /// Finds the span of a number by halving.
    fn tree(&mut self, spans: &[(u32, Decision)]) -> Label {
        match spans {
            [] => self.answer(refuse(libc::EPERM)),
            [(_, decision)] => self.leaf(*decision),
            _ => {
                let (low, high) = spans.split_at(spans.len() / 2);
                let (above, below) = (self.tree(high), self.tree(low));
                self.branch(IF_AT_LEAST, high[0].0, above, below)
            }
        }
    }

    fn leaf(&mut self, decision: Decision) -> Label {
        match decision {
            Decision::Allow => self.answer(ALLOW),
            Decision::Refuse(error) => self.answer(refuse(error)),
            Decision::Ask => self.answer(ASK),
            Decision::When(lists) => self.cases(lists, ALLOW, refuse(libc::EPERM)),
            Decision::AskWhen(lists) => self.cases(lists, ASK, ALLOW),
        }
    }

    /// Returns `answer` if all tests of one of the lists hold.
    fn cases(&mut self, lists: &[&[Test]], answer: u32, otherwise: u32) -> Label {
        let mut first = self.answer(otherwise);
        for tests in lists.iter().rev() {
            first = self.case(tests, answer, first);
        }
        first
    }

    /// Returns `answer` if all tests hold; continues at `behind` if one does not.
    fn case(&mut self, tests: &[Test], answer: u32, behind: Label) -> Label {
        let mut holds = self.answer(answer);
        for test in tests.iter().rev() {
            holds = match *test {
                Test::Is(at, numbers) => {
                    let mut other = behind;
                    for number in numbers.iter().rev() {
                        other = self.branch(IF_EQUAL, *number, holds, other);
                    }
                    self.load(argument(at), other)
                }
                Test::Without(at, bits) => {
                    let bit = self.branch(IF_BITS, bits, behind, holds);
                    self.load(argument(at), bit)
                }
            };
        }
        holds
    }
}

/// The offset of an argument, by its index.
fn argument(at: u8) -> u32 {
    ARGUMENTS_AT + 8 * u32::from(at)
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
    /// The answer for a call with these arguments.
    pub(crate) fn on(self, arguments: [u32; 6]) -> u32 {
        let one_holds = |lists: &[&[Test]]| {
            lists.iter().any(|tests| tests.iter().all(|it| it.holds(arguments)))
        };
        match self {
            Self::Refuse(error) => refuse(error),
            Self::Ask => ASK,
            Self::When(lists) if !one_holds(lists) => refuse(libc::EPERM),
            Self::AskWhen(lists) if one_holds(lists) => ASK,
            Self::Allow | Self::When(_) | Self::AskWhen(_) => ALLOW,
        }
    }
}

#[cfg(test)]
impl Test {
    fn holds(self, arguments: [u32; 6]) -> bool {
        match self {
            Self::Is(at, numbers) => numbers.contains(&arguments[usize::from(at)]),
            Self::Without(at, bits) => arguments[usize::from(at)] & bits == 0,
        }
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
                    label => arguments[(label - ARGUMENTS_AT) as usize / 8],
                }
            }
            IF_EQUAL => at += jump(held == step.number),
            IF_AT_LEAST => at += jump(held >= step.number),
            IF_BITS => at += jump(held & step.number != 0),
            JUMP => at += step.number as usize,
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
        const SOME: Decision = Decision::When(&[&[Test::Without(0, 4)]]);
        let refused = Decision::Refuse(1);
        let decisions = [(0, Decision::Allow), (1, Decision::Allow), (3, SOME)];
        assert_eq!(
            spans(&decisions.into(), refused),
            [(0, Decision::Allow), (2, refused), (3, SOME), (4, refused)]
        );
        assert_eq!(spans(&BTreeMap::new(), refused), [(0, refused)]);
    }

    /// Every list counts by itself, and within one every test does.
    #[test]
    fn a_call_is_made_where_one_list_of_tests_holds() {
        const ONE: &[Test] = &[Test::Is(0, &[1, 2]), Test::Without(2, 8)];
        const TWO: &[Test] = &[Test::Is(0, &[2, 3]), Test::Is(1, &[7])];
        for decision in [Decision::When(&[ONE, TWO]), Decision::AskWhen(&[ONE, TWO])] {
            let steps = compile(&[(5, decision)].into());
            for arguments in (0..5)
                .flat_map(|a| (6..9).flat_map(move |b| (6..10).map(move |c| [a, b, c, 0, 0, 0])))
            {
                assert_eq!(
                    run(&steps, ARCHITECTURE, 5, arguments),
                    decision.on(arguments),
                    "{decision:?} {arguments:?}"
                );
            }
        }
    }

    /// A program stays short: an answer that a jump reaches is not there twice.
    #[test]
    fn answers_are_shared() {
        let decisions: BTreeMap<_, _> = (0..60).map(|call| (2 * call, Decision::Allow)).collect();
        let steps = compile(&decisions);
        let answers = steps.iter().filter(|step| step.code == ANSWER).count();
        assert_eq!((answers, steps.len()), (3, 3 + 3 + 119), "{steps:?}");
    }

    /// A half of the tree that is longer than a condition can jump is jumped over all the same.
    #[test]
    fn a_long_program_finds_its_way() {
        const NUMBERS: &[u32] = &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25];
        const SOME: Decision = Decision::When(&[&[Test::Is(0, NUMBERS)]]);
        let decisions: BTreeMap<_, _> = (0..80).map(|call| (2 * call, SOME)).collect();
        let steps = compile(&decisions);
        assert!(steps.len() > 1000);
        for call in 0..170 {
            for first in [9, 10, 25, 26] {
                let made = call % 2 == 0 && call < 160 && NUMBERS.contains(&first);
                let expected = if made { ALLOW } else { refuse(libc::EPERM) };
                assert_eq!(run(&steps, ARCHITECTURE, call, [first; 6]), expected, "{call} {first}");
            }
        }
    }
}
