//! Counts how often the process passes each failpoint, and signals it at the one asked for.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use nix::sys::signal::{Signal, raise};

use crate::NAMES;

/// What the process is to do, in its environment.
pub const VARIABLE: &str = "GLEITZEIT_FAILPOINT";

/// False once it is known that nobody asks.
static IS_ASKED: AtomicBool = AtomicBool::new(true);

static WISH: LazyLock<Option<Wish>> = LazyLock::new(|| {
    let wish = std::env::var(VARIABLE).ok().map(|text| {
        Wish::read(&text).unwrap_or_else(|| {
            panic!(
                "{VARIABLE} is `{text}`; it must be `count`, or a known place and a number from 1, \
                 as in `{}:1`, and then `:stop`",
                NAMES[0]
            )
        })
    });
    IS_ASKED.store(wish.is_some(), Ordering::Relaxed);
    wish
});

/// What the environment asks for.
#[derive(Debug)]
struct Wish {
    /// Where to be signalled, and at which time; never, where passes are only counted.
    end: Option<(usize, u64)>,
    signal: Signal,
    passes: Vec<AtomicU64>,
}

impl Wish {
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
        let place = NAMES.iter().position(|known| *known == name)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        Some(Self { end: Some((place, nth)), signal, passes })
    }

    fn pass(&self, place: usize) {
        let pass = self.passes[place].fetch_add(1, Ordering::Relaxed) + 1;
        if self.end == Some((place, pass)) {
            // It cannot fail: every process may signal itself. It goes to this thread, which does
            // nothing else before; one that goes to the process may reach another thread first.
            let _ = raise(self.signal);
            if self.signal == Signal::SIGKILL {
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

/// How often the process has come to each place, where it was asked for anything.
pub fn passes() -> Vec<(&'static str, u64)> {
    let counts = WISH.iter().flat_map(|wish| &wish.passes);
    NAMES.iter().copied().zip(counts.map(|count| count.load(Ordering::Relaxed))).collect()
}

/// The place of this name in [`NAMES`].
///
/// # Panics
/// Where there is none: while compiling.
pub const fn place(name: &str) -> usize {
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

/// Comes to a place.
#[inline]
pub fn pass(place: usize) {
    if IS_ASKED.load(Ordering::Relaxed) {
        asked(place);
    }
}

#[cold]
fn asked(place: usize) {
    if let Some(wish) = &*WISH {
        wish.pass(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_names_a_place_and_a_number() {
        assert_eq!(Wish::read("count").unwrap().end, None);
        let last = NAMES.len() - 1;
        assert_eq!(Wish::read(&format!("{}:3", NAMES[last])).unwrap().end, Some((last, 3)));
        assert_eq!(Wish::read(&format!("{}:3:stop", NAMES[0])).unwrap().signal, Signal::SIGSTOP);
        for wrong in
            ["", "count:1", ":stop", "no.such.place:1", NAMES[0], &format!("{}:0", NAMES[0])]
        {
            assert!(Wish::read(wrong).is_none(), "{wrong}");
        }
    }

    /// A test that asks for one place must not be killed at another.
    #[test]
    fn every_place_has_a_name_of_its_own() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(place(name), at);
        }
    }

    #[test]
    fn passes_are_counted_by_place() {
        let wish = Wish::read("count").unwrap();
        wish.pass(1);
        wish.pass(1);
        let counts: Vec<u64> = wish.passes.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts[..3], [0, 2, 0]);
    }
}
