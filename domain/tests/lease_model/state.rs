//! What the lease protocol's database and processes look like at one moment, and which of such
//! moments are the same one.
//!
//! Epochs are names: only whether two are equal matters. So each state numbers them again,
//! and "never reused" means that a new one is a name that nobody remembers. That, and the order of
//! processes and workflows, which does not matter either, keeps the number of states finite
//! however often processes crash.

pub(crate) const PROCESSES: usize = 3;
pub(crate) const WORKFLOWS: usize = 3;
/// Names that can be in use at once: one a process, one a workflow, and a new one.
pub(crate) const EPOCHS: usize = PROCESSES + WORKFLOWS + 2;

/// Names a lease; [`NOBODY`] names none.
pub(crate) type Epoch = u8;
pub(crate) const NOBODY: Epoch = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Life {
    Down,
    Up,
    /// Stopped by a signal, with all that it was about to do.
    Paused,
}

/// How far a process is with a workflow of one task. What it does between two of these leaves no
/// trace that another could see, and is no step of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    /// It does nothing about it.
    Idle,
    /// It claimed or submitted it. The write of its start is on its way, where one is needed.
    Held,
    /// It claimed one whose call had begun elsewhere and must not run twice: the write that says so
    /// is on its way.
    Doubting,
    /// Its start is stored.
    Started,
    /// Its call runs, or has ended, and the write of its outcome is on its way.
    Calling,
    /// The same, and a flawed process has looked at its lease beforehand.
    Checked,
    /// The outcome is stored, but the answer was lost: it will be written again.
    Recorded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) life: Life,
    /// The lease that it believes to have.
    pub(crate) epoch: Epoch,
    pub(crate) steps: [Step; WORKFLOWS],
    /// Which workflows it can run: the others call what it does not know.
    pub(crate) knows: [bool; WORKFLOWS],
}

impl Process {
    pub(crate) const NEW: Self = Self {
        life: Life::Up,
        epoch: NOBODY,
        steps: [Step::Idle; WORKFLOWS],
        knows: [true; WORKFLOWS],
    };

    /// The same program, with nothing in its memory.
    pub(crate) fn restarted(self, life: Life) -> Self {
        Self { life, knows: self.knows, ..Self::NEW }
    }
}

/// Where a workflow stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Status {
    /// Nobody has submitted it yet.
    Absent,
    Ready,
    /// The start of a call that must not run twice is stored.
    Begun,
    /// Such a call has no outcome that anybody knows of: a person has to say.
    Unknown,
    Settled,
}

/// A workflow in the database, and what really happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    /// Whether its call must not run twice.
    pub(crate) once: bool,
    pub(crate) status: Status,
    pub(crate) epoch: Epoch,
    /// Calls begun, of one that must not run twice; up to two are counted.
    pub(crate) calls: u8,
    /// Outcomes committed, repeated writes aside; up to two are counted.
    pub(crate) outcomes: u8,
}

impl Row {
    pub(crate) fn is_unsettled(self) -> bool {
        !matches!(self.status, Status::Absent | Status::Settled)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Lease {
    /// There is no such row.
    Absent,
    Good,
    /// Its time has passed, and nobody has taken it over yet.
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) processes: [Process; PROCESSES],
    pub(crate) rows: [Row; WORKFLOWS],
    /// The table of leases, by epoch.
    pub(crate) leases: [Lease; EPOCHS],
    /// A write landed whose lease did not own the workflow any more.
    pub(crate) late_write_landed: bool,
    /// A committed outcome was changed.
    pub(crate) overwritten: bool,
    /// The owner of a settled workflow began its call.
    pub(crate) ran_again: bool,
}

impl State {
    /// Nothing submitted, every process up. Says of each workflow whether its call must not run
    /// twice; `None` is one that settled before, and makes the model smaller. With a stranger, one
    /// process does not know the first workflow.
    pub(crate) fn new(once: [Option<bool>; WORKFLOWS], has_stranger: bool) -> Self {
        let mut processes = [Process::NEW; PROCESSES];
        processes[0].knows[0] = !has_stranger;
        let row = |once: Option<bool>| {
            let (status, outcomes) =
                if once.is_some() { (Status::Absent, 0) } else { (Status::Settled, 1) };
            Row { once: once == Some(true), status, epoch: NOBODY, calls: 0, outcomes }
        };
        Self {
            processes,
            rows: once.map(row),
            leases: [Lease::Absent; EPOCHS],
            late_write_landed: false,
            overwritten: false,
            ran_again: false,
        }
    }

    pub(crate) fn lease(&self, epoch: Epoch) -> Lease {
        self.leases[usize::from(epoch)]
    }

    /// Whether the row of a lease is there.
    pub(crate) fn stands(&self, epoch: Epoch) -> bool {
        self.lease(epoch) != Lease::Absent
    }

    /// Whether the process that opened this lease is gone.
    pub(crate) fn is_orphan(&self, epoch: Epoch) -> bool {
        self.processes.iter().all(|process| process.epoch != epoch)
    }

    /// A name that nobody remembers.
    pub(crate) fn new_epoch(&self) -> Epoch {
        let is_free = |epoch: &Epoch| {
            !self.stands(*epoch)
                && self.is_orphan(*epoch)
                && self.rows.iter().all(|row| row.epoch != *epoch)
        };
        (1..)
            .take(EPOCHS - 1)
            .find(is_free)
            .expect("there are more names than who may remember one")
    }

    /// The one of all states that differ in names only.
    pub(crate) fn canonical(mut self) -> Self {
        self.forget();
        self.sort_rows();
        self.sort_processes();
        self.rename_epochs();
        self
    }

    /// Leaves out what makes no difference any more.
    fn forget(&mut self) {
        for row in &mut self.rows {
            // Who owned a settled workflow is asked by nobody.
            if !row.is_unsettled() {
                row.epoch = NOBODY;
            }
        }
        for at in 0..PROCESSES {
            let Process { epoch, steps, .. } = self.processes[at];
            // It will find that its lease is gone, and has nothing that it could do before.
            if !self.stands(epoch) && steps.iter().all(|step| *step == Step::Idle) {
                self.processes[at].epoch = NOBODY;
            }
        }
        for epoch in (1..).take(EPOCHS - 1) {
            // Nobody will renew it.
            if self.lease(epoch) == Lease::Good && self.is_orphan(epoch) {
                self.leases[usize::from(epoch)] = Lease::Expired;
            }
        }
    }

    fn sort_rows(&mut self) {
        let key = |at: usize| {
            let row = Row { epoch: NOBODY, ..self.rows[at] };
            let mut steps: [(bool, Step); PROCESSES] = std::array::from_fn(|process| {
                let process = &self.processes[process];
                (process.knows[at], process.steps[at])
            });
            steps.sort_unstable();
            (row, row_owner(self, self.rows[at].epoch), steps)
        };
        let keys: [_; WORKFLOWS] = std::array::from_fn(key);
        if keys.is_sorted() {
            return;
        }
        let mut order: [usize; WORKFLOWS] = std::array::from_fn(|at| at);
        order.sort_by_key(|at| keys[*at]);
        let before = *self;
        self.rows = order.map(|from| before.rows[from]);
        for process in &mut self.processes {
            process.steps = order.map(|from| process.steps[from]);
            process.knows = order.map(|from| process.knows[from]);
        }
    }

    fn sort_processes(&mut self) {
        let key = |process: &Process| {
            let owns: [bool; WORKFLOWS] =
                std::array::from_fn(|at| self.rows[at].epoch == process.epoch);
            let nameless = Process { epoch: NOBODY, ..*process };
            (nameless, process.epoch == NOBODY, self.lease(process.epoch), owns)
        };
        let mut sorted = self.processes;
        sorted.sort_by_key(key);
        self.processes = sorted;
    }

    /// Numbers the epochs that somebody remembers, in the order of processes and rows. The row of
    /// a lease whose process is gone and that owns nothing is left out: all that can happen is
    /// that it is deleted.
    fn rename_epochs(&mut self) {
        let mut names = [NOBODY; EPOCHS];
        let mut leases = [Lease::Absent; EPOCHS];
        let mut next = 1;
        let owned = self.rows.iter_mut().map(|row| &mut row.epoch);
        for epoch in self.processes.iter_mut().map(|it| &mut it.epoch).chain(owned) {
            let old = usize::from(*epoch);
            if *epoch != NOBODY && names[old] == NOBODY {
                names[old] = next;
                leases[usize::from(next)] = self.leases[old];
                next += 1;
            }
            *epoch = names[old];
        }
        self.leases = leases;
    }
}

/// What is known of an owner without its name.
fn row_owner(state: &State, epoch: Epoch) -> (bool, Lease, bool) {
    (epoch == NOBODY, state.lease(epoch), state.is_orphan(epoch))
}
