//! Counts the passes of each failpoint, and signals the process at the chosen one.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::sys::signal::{Signal, raise};

use crate::NAMES;

/// The environment variable with the instruction.
pub const VARIABLE: &str = "GLEITZEIT_FAILPOINT";

/// False once the variable is known to be absent.
static IS_ACTIVE: AtomicBool = AtomicBool::new(true);

static INSTRUCTION: LazyLock<Option<Instruction>> = LazyLock::new(|| {
    let instruction = std::env::var(VARIABLE).ok().map(|text| {
        Instruction::read(&text).unwrap_or_else(|| {
            panic!(
                "{VARIABLE} is `{text}`; it must be `count`, or a failpoint and a number from 1, as \
                 in `{}:1`, and optionally `:stop`",
                NAMES[0]
            )
        })
    });
    IS_ACTIVE.store(instruction.is_some(), Ordering::Relaxed);
    instruction
});

/// The instruction of the environment.
#[derive(Debug)]
struct Instruction {
    /// The failpoint and the pass at which the process is signalled; `None` if passes are only
    /// counted.
    end: Option<(usize, u64)>,
    signal: Signal,
    passes: Vec<AtomicU64>,
}

impl Instruction {
    fn read(text: &str) -> Option<Self> {
        let passes = NAMES.iter().map(|_| AtomicU64::new(0)).collect();
        if text == "count" {
            return Some(Self { end: None, signal: Signal::SIGKILL, passes });
        }
        let (text, signal) = match text.strip_suffix(":stop") {
            Some(text) => (text, Signal::SIGSTOP),
            None => (text, Signal::SIGKILL),
        };
        let (name, nth) = text.rsplit_once(':')?;
        let index = NAMES.iter().position(|known| *known == name)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        Some(Self { end: Some((index, nth)), signal, passes })
    }

    fn pass(&self, index: usize) {
        let pass = self.passes[index].fetch_add(1, Ordering::Relaxed) + 1;
        if self.end == Some((index, pass)) {
            // To this thread, which then executes nothing more. A signal to the process may reach
            // another thread first, and this one would run past the failpoint. It cannot fail: a
            // process may always signal itself.
            let _ = raise(self.signal);
            if self.signal == Signal::SIGKILL {
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

/// The number of passes of each failpoint; empty without the variable.
pub fn passes() -> Vec<(&'static str, u64)> {
    let counts = INSTRUCTION.iter().flat_map(|it| &it.passes);
    NAMES.iter().copied().zip(counts.map(|count| count.load(Ordering::Relaxed))).collect()
}

/// The index of this name in [`NAMES`].
///
/// # Panics
/// At compile time, if there is none.
pub const fn index_of(name: &str) -> usize {
    let mut at = 0;
    while at < NAMES.len() {
        if is_same(NAMES[at].as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("this failpoint is not in NAMES")
}

const fn is_same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Passes a failpoint.
#[inline]
pub fn pass(index: usize) {
    if IS_ACTIVE.load(Ordering::Relaxed) {
        pass_active(index);
    }
}

#[cold]
fn pass_active(index: usize) {
    if let Some(instruction) = &*INSTRUCTION {
        instruction.pass(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_has_a_failpoint_and_a_number() {
        assert_eq!(Instruction::read("count").unwrap().end, None);
        let last = NAMES.len() - 1;
        assert_eq!(Instruction::read(&format!("{}:3", NAMES[last])).unwrap().end, Some((last, 3)));
        assert_eq!(
            Instruction::read(&format!("{}:3:stop", NAMES[0])).unwrap().signal,
            Signal::SIGSTOP
        );
        for wrong in
            ["", "count:1", ":stop", "no.such.point:1", NAMES[0], &format!("{}:0", NAMES[0])]
        {
            assert!(Instruction::read(wrong).is_none(), "{wrong}");
        }
    }

    /// A test that chooses one failpoint must not be killed at another.
    #[test]
    fn every_failpoint_has_a_name_of_its_own() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(index_of(name), at);
        }
    }

    #[test]
    fn passes_are_counted_by_failpoint() {
        let instruction = Instruction::read("count").unwrap();
        instruction.pass(1);
        instruction.pass(1);
        let counts: Vec<u64> =
            instruction.passes.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts[..3], [0, 2, 0]);
    }
}
