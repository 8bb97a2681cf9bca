//! The database and the processes of the protocol of two numbers at one moment.
//!
//! A token is not a number here. Only whether a process has the current one matters, and one that
//! was raised never returns: so each process has, for each lease, no token, the current one, or an
//! old one; and each write that is on its way has the token of the moment of its decision.

use crate::state::{EPOCHS, Epoch, Lease, Life, NOBODY, PROCESSES, Row, Status, Step, WORKFLOWS};

/// The token that a process has for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Token {
    None,
    Current,
    Old,
}

/// The lease that a write bears, and whether its token is the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fence {
    pub(crate) id: Epoch,
    pub(crate) is_current: bool,
}

pub(crate) const NO_FENCE: Fence = Fence { id: NOBODY, is_current: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) life: Life,
    /// The lease that it opened itself, for what it submits and claims.
    pub(crate) own: Epoch,
    pub(crate) tokens: [Token; EPOCHS],
    pub(crate) steps: [Step; WORKFLOWS],
    pub(crate) fences: [Fence; WORKFLOWS],
}

impl Process {
    /// A process with nothing in its memory.
    pub(crate) const fn new(life: Life) -> Self {
        Self {
            life,
            own: NOBODY,
            tokens: [Token::None; EPOCHS],
            steps: [Step::Idle; WORKFLOWS],
            fences: [NO_FENCE; WORKFLOWS],
        }
    }

    pub(crate) fn token(&self, id: Epoch) -> Token {
        self.tokens[usize::from(id)]
    }

    pub(crate) fn is_working(&self) -> bool {
        self.steps.iter().any(|step| *step != Step::Idle)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) processes: [Process; PROCESSES],
    pub(crate) rows: [Row; WORKFLOWS],
    pub(crate) leases: [Lease; EPOCHS],
    pub(crate) late_write_landed: bool,
    pub(crate) overwritten: bool,
}

pub(crate) fn ids() -> impl Iterator<Item = Epoch> {
    (1..).take(EPOCHS - 1)
}

impl State {
    pub(crate) fn new(once: [Option<bool>; WORKFLOWS]) -> Self {
        let row = |once: Option<bool>| {
            let (status, outcomes) =
                if once.is_some() { (Status::Absent, 0) } else { (Status::Settled, 1) };
            Row { once: once == Some(true), status, epoch: NOBODY, calls: 0, outcomes }
        };
        Self {
            processes: [Process::new(Life::Up); PROCESSES],
            rows: once.map(row),
            leases: [Lease::Absent; EPOCHS],
            late_write_landed: false,
            overwritten: false,
        }
    }

    pub(crate) fn stands(&self, id: Epoch) -> bool {
        self.leases[usize::from(id)] != Lease::Absent
    }

    /// Whether a process has the current token of a lease that stands.
    pub(crate) fn holds(&self, at: usize, id: Epoch) -> bool {
        id != NOBODY && self.stands(id) && self.processes[at].token(id) == Token::Current
    }

    pub(crate) fn holder(&self, id: Epoch) -> Option<usize> {
        (0..PROCESSES).find(|at| self.holds(*at, id))
    }

    /// Whether a process goes on without knowing that it has lost a lease.
    pub(crate) fn lags(&self, at: usize) -> bool {
        let process = &self.processes[at];
        let has_lost = |id: Epoch| process.token(id) != Token::None && !self.holds(at, id);
        process.life == Life::Paused || ids().any(has_lost)
    }

    pub(crate) fn new_id(&self) -> Epoch {
        let is_used = |id: Epoch| {
            let in_process = |process: &Process| {
                process.token(id) != Token::None || process.fences.iter().any(|it| it.id == id)
            };
            self.stands(id)
                || self.processes.iter().any(in_process)
                || self.rows.iter().any(|row| row.epoch == id)
        };
        ids().find(|id| !is_used(*id)).expect("there are more names than who may remember one")
    }

    /// Raises the token of a lease: whoever had the current one has an old one.
    pub(crate) fn raise(&mut self, id: Epoch) {
        for process in &mut self.processes {
            let token = &mut process.tokens[usize::from(id)];
            if *token == Token::Current {
                *token = Token::Old;
            }
            for fence in process.fences.iter_mut().filter(|fence| fence.id == id) {
                fence.is_current = false;
            }
        }
    }

    /// Deletes a lease and frees its workflows.
    pub(crate) fn end(&mut self, id: Epoch) {
        self.leases[usize::from(id)] = Lease::Absent;
        self.raise(id);
        for row in self.rows.iter_mut().filter(|row| row.epoch == id) {
            row.epoch = NOBODY;
        }
    }

    /// The process learns that it has lost a lease, and drops everything.
    pub(crate) fn lose(&mut self, at: usize) {
        self.processes[at] = Process::new(self.processes[at].life);
    }

    /// The one of all states that differ in names only, without what makes no difference.
    pub(crate) fn canonical(mut self) -> Self {
        for row in self.rows.iter_mut().filter(|row| !row.is_unsettled()) {
            row.epoch = NOBODY;
        }
        for process in &mut self.processes {
            for (step, fence) in process.steps.iter().zip(&mut process.fences) {
                if *step == Step::Idle {
                    *fence = NO_FENCE;
                }
            }
        }
        // A lease that owns nothing and that nobody opened, or bears, can only be deleted.
        for id in ids() {
            let is_needed = self.rows.iter().any(|row| row.epoch == id)
                || self.processes.iter().any(|process| {
                    process.own == id || process.fences.iter().any(|fence| fence.id == id)
                });
            if !is_needed {
                self.leases[usize::from(id)] = Lease::Absent;
                for process in &mut self.processes {
                    process.tokens[usize::from(id)] = Token::None;
                }
            }
        }
        let unnamed = |process: &Process| {
            let fences = process.fences.map(|fence| (fence.id != NOBODY, fence.is_current));
            let owns: [bool; WORKFLOWS] =
                std::array::from_fn(|at| self.rows[at].epoch == process.own);
            (process.life, process.own == NOBODY, process.steps, fences, owns)
        };
        let mut processes = self.processes;
        processes.sort_by_key(unnamed);
        self.processes = processes;
        self.rename()
    }

    /// Numbers the leases in the order of processes and rows.
    fn rename(self) -> Self {
        let mut order: Vec<Epoch> = Vec::new();
        let named = self.processes.iter().flat_map(|process| {
            std::iter::once(process.own).chain(process.fences.iter().map(|fence| fence.id))
        });
        for id in named.chain(self.rows.iter().map(|row| row.epoch)) {
            if id != NOBODY && !order.contains(&id) {
                order.push(id);
            }
        }
        let name = |old: Epoch| match order.iter().position(|id| *id == old) {
            Some(at) => Epoch::try_from(at + 1).expect("few names"),
            None => NOBODY,
        };
        let mut renamed = self;
        renamed.leases = [Lease::Absent; EPOCHS];
        for process in &mut renamed.processes {
            let before = process.tokens;
            process.tokens = [Token::None; EPOCHS];
            for (old, new) in order.iter().map(|old| (*old, name(*old))) {
                process.tokens[usize::from(new)] = before[usize::from(old)];
            }
            process.own = name(process.own);
            for fence in &mut process.fences {
                fence.id = name(fence.id);
            }
        }
        for row in &mut renamed.rows {
            row.epoch = name(row.epoch);
        }
        for old in &order {
            renamed.leases[usize::from(name(*old))] = self.leases[usize::from(*old)];
        }
        renamed
    }
}
