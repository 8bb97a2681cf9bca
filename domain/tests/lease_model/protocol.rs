//! Who may do what, and what becomes of it.
//!
//! A write is two things that lie apart: the decision to write, which a process makes by what it
//! believes, and the transaction, in which the fence is checked and the rows are changed at once.
//! The transaction comes at any time after the decision. Everything else that a process does to the
//! database is one transaction, too.

use stateright::{Model, Property};

use crate::{
    progress::Reached,
    properties,
    state::{
        EPOCHS, Epoch, Lease, Life, NOBODY, PROCESSES, Process, Row, State, Status, Step, WORKFLOWS,
    },
};

/// How a lease ends whose owner does not close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// By time, at any moment, whatever its process does: a server with a clock.
    Timed,
    /// With its process only: a lock that the kernel keeps.
    Locked,
}

/// A protocol that lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Writes carry no epoch.
    NoFence,
    /// The fence is checked before the transaction that writes.
    CheckedBefore,
    /// A takeover frees the workflows and leaves the row of the lease.
    LeaseKept,
    /// A takeover deletes the row of the lease and leaves the workflows to it.
    OwnerKept,
    /// A new lease gets the number of one that was deleted.
    EpochReused,
    /// The call begins while the write of its start is on its way.
    CallFirst,
    /// Leases that live processes hold by a lock are taken over by time.
    LockIgnored,
    /// A claim takes whatever is free, whether its process knows it or not.
    ClaimsAll,
    /// A successor keeps what it does not know.
    KeepsAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Somebody without a lease submits a workflow.
    Submit(usize),
    /// A process submits one and owns it.
    SubmitOwned(usize, usize),
    Open(usize),
    Renew(usize),
    Close(usize),
    Crash(usize),
    Restart(usize),
    Pause(usize),
    Continue(usize),
    Expire(Epoch),
    TakeOver(usize, Epoch),
    /// A process with a lease takes another one over, and what it owned becomes its own at once.
    Inherit(usize, Epoch),
    /// A successor frees what it has not begun with.
    Share(usize, usize),
    Claim(usize, usize),
    /// A process takes the next step of a workflow.
    Go(usize, usize),
    /// A write is committed, and its process does not hear of it.
    LoseAnswer(usize, usize),
    /// The owner carries out what a person said.
    Settle(usize, usize),
}

/// The protocol, as designed or with a flaw.
#[expect(clippy::struct_excessive_bools, reason = "each switches one part of the model on")]
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(crate) holding: Holding,
    pub(crate) flaw: Option<Flaw>,
    /// Of each workflow, whether its call must not run twice; `None` settled before.
    pub(crate) once: [Option<bool>; WORKFLOWS],
    /// Whether the end of a lease's time is a step of its own. Otherwise its time has passed
    /// whenever somebody takes it over.
    pub(crate) has_clock: bool,
    /// So many processes at once may be stopped, or work on without knowing that their lease is
    /// gone.
    pub(crate) laggards_max: usize,
    /// Whether the answer to a commit may be lost.
    pub(crate) answers_get_lost: bool,
    /// Whether who takes over may inherit.
    pub(crate) inherits: bool,
    /// Whether one process does not know one of the workflows.
    pub(crate) has_stranger: bool,
    pub(crate) reached: Reached,
}

impl Protocol {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// What `process` can do that is not about one workflow.
    fn actions_of(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[at];
        match process.life {
            Life::Down => return actions.push(Action::Restart(at)),
            Life::Paused => actions.extend([Action::Continue(at), Action::Crash(at)]),
            Life::Up if process.epoch == NOBODY => {
                actions.extend([Action::Open(at), Action::Crash(at)]);
            }
            Life::Up => actions.extend([Action::Close(at), Action::Crash(at)]),
        }
        if process.life == Life::Up {
            if process.epoch != NOBODY && self.may_lag(state, *process) {
                actions.push(Action::Pause(at));
            }
            if process.epoch != NOBODY && state.lease(process.epoch) != Lease::Good {
                actions.push(Action::Renew(at));
            }
            let may_inherit =
                self.inherits && process.epoch != NOBODY && state.stands(process.epoch);
            for epoch in (1..).take(EPOCHS - 1).filter(|epoch| self.is_dead(state, *epoch)) {
                actions.push(Action::TakeOver(at, epoch));
                if may_inherit && epoch != process.epoch {
                    actions.push(Action::Inherit(at, epoch));
                }
            }
        }
        for workflow in 0..WORKFLOWS {
            self.actions_on(state, at, workflow, actions);
        }
    }

    /// What the process can do about one workflow.
    fn actions_on(&self, state: &State, at: usize, workflow: usize, actions: &mut Vec<Action>) {
        let (process, row) = (&state.processes[at], &state.rows[workflow]);
        let step = process.steps[workflow];
        // A write that was sent lands also while its process is stopped.
        let writes = step == Step::Calling || (step == Step::Held && row.once);
        if self.answers_get_lost && writes && self.passes_fence(state, at, step) {
            actions.push(Action::LoseAnswer(at, workflow));
        }
        if process.life != Life::Up {
            return;
        }
        if step != Step::Idle {
            return actions.push(Action::Go(at, workflow));
        }
        // With a lease that is gone these are refused, which `Renew` shows as well.
        if process.epoch == NOBODY || !state.stands(process.epoch) {
            return;
        }
        let knows = process.knows[workflow];
        if row.status == Status::Absent {
            if knows {
                actions.push(Action::SubmitOwned(at, workflow));
            }
        } else if !knows && !self.has(Flaw::ClaimsAll) {
            // What it does not know it leaves to others, also where it was made its successor.
        } else if row.is_unsettled() && row.epoch == NOBODY {
            actions.push(Action::Claim(at, workflow));
        } else if is_inherited(*process, *row) {
            actions.extend([Action::Claim(at, workflow), Action::Share(at, workflow)]);
        } else if row.status == Status::Unknown && row.epoch == process.epoch {
            actions.push(Action::Settle(at, workflow));
        }
    }

    fn may_lag(&self, state: &State, process: Process) -> bool {
        let lags = |it: &Process| {
            it.life == Life::Paused || (it.epoch != NOBODY && !state.stands(it.epoch))
        };
        lags(&process) || state.processes.iter().filter(|it| lags(it)).count() < self.laggards_max
    }

    /// Whether a lease may be taken over. That its process is known to be gone tells of no more
    /// leases than that its time has passed, for time passes at any moment.
    fn is_dead(&self, state: &State, epoch: Epoch) -> bool {
        let mut owners = state.processes.iter().filter(|process| process.epoch == epoch);
        if !owners.all(|process| self.may_lag(state, *process)) {
            return false;
        }
        match self.holding {
            Holding::Timed if self.has_clock => state.lease(epoch) == Lease::Expired,
            Holding::Timed => state.stands(epoch),
            Holding::Locked if self.has(Flaw::LockIgnored) => state.stands(epoch),
            Holding::Locked => state.stands(epoch) && state.is_orphan(epoch),
        }
    }

    /// Whether a write of this process is let through. Where a lock holds the lease, the process
    /// looks at its own memory.
    fn passes_fence(&self, state: &State, at: usize, step: Step) -> bool {
        step == Step::Checked
            || self.has(Flaw::NoFence)
            || self.holding == Holding::Locked
            || state.stands(state.processes[at].epoch)
    }

    /// Ends a lease; its workflows are the successor's, or nobody's where there is none, or it does not
    /// know them.
    fn take_over(&self, state: &mut State, epoch: Epoch, successor: Option<usize>) {
        let successor = successor.map(|at| state.processes[at]);
        let keeps_all = self.has(Flaw::KeepsAll);
        if !self.has(Flaw::LeaseKept) {
            state.leases[usize::from(epoch)] = Lease::Absent;
        }
        if self.has(Flaw::OwnerKept) {
            return;
        }
        for (at, row) in state.rows.iter_mut().enumerate() {
            if row.epoch == epoch {
                let successor = successor.filter(|successor| successor.knows[at] || keeps_all);
                row.epoch = successor.map_or(NOBODY, |successor| successor.epoch);
            }
        }
    }

    fn open(&self, state: &mut State, at: usize) {
        let epoch = if self.has(Flaw::EpochReused) {
            (1..).take(EPOCHS - 1).find(|epoch| !state.stands(*epoch)).expect("a free name")
        } else {
            state.new_epoch()
        };
        state.leases[usize::from(epoch)] = Lease::Good;
        state.processes[at].epoch = epoch;
    }

    /// The process takes the next step; a write that the fence refuses makes it drop everything.
    fn go(&self, state: &mut State, at: usize, workflow: usize) {
        let step = state.processes[at].steps[workflow];
        let needs_start = state.rows[workflow].once && !self.has(Flaw::CallFirst);
        let next = match step {
            Step::Idle => return,
            Step::Started => begin_call(state, at, workflow),
            Step::Held if !needs_start => begin_call(state, at, workflow),
            Step::Calling
                if self.has(Flaw::CheckedBefore) && self.passes_fence(state, at, step) =>
            {
                Step::Checked
            }
            _ if !self.passes_fence(state, at, step) => return lose(state, at),
            Step::Held | Step::Doubting | Step::Calling | Step::Checked | Step::Recorded => {
                write(state, at, workflow);
                if step == Step::Held { Step::Started } else { Step::Idle }
            }
        };
        state.processes[at].steps[workflow] = next;
    }
}

fn begin_call(state: &mut State, at: usize, workflow: usize) -> Step {
    let epoch = state.processes[at].epoch;
    let stands = state.stands(epoch);
    let row = &mut state.rows[workflow];
    state.ran_again |= stands && row.status == Status::Settled;
    if row.once {
        row.calls = (row.calls + 1).min(2);
    }
    Step::Calling
}

/// What the transaction changes. It overwrites whatever it finds: to keep it from doing so is the
/// fence's task.
fn write(state: &mut State, at: usize, workflow: usize) {
    let Process { epoch, steps, .. } = state.processes[at];
    let row = &mut state.rows[workflow];
    let (status, is_repeated) = match steps[workflow] {
        Step::Held => (Status::Begun, false),
        Step::Doubting => (Status::Unknown, false),
        Step::Recorded => (Status::Settled, true),
        _ => (Status::Settled, false),
    };
    let was_settled = row.status == Status::Settled;
    state.overwritten |= was_settled && !is_repeated;
    // A settled workflow is nobody's any more.
    state.late_write_landed |= row.epoch != epoch && !(was_settled && is_repeated);
    if status == Status::Settled && !is_repeated {
        row.outcomes = (row.outcomes + 1).min(2);
    }
    row.status = status;
}

/// The process has learnt that its lease is gone: it drops what it runs and cancels its calls.
fn lose(state: &mut State, at: usize) {
    state.processes[at] = state.processes[at].restarted(state.processes[at].life);
}

/// Whether a process owns what it has not begun with: it inherited that.
fn is_inherited(process: Process, row: Row) -> bool {
    row.is_unsettled() && row.status != Status::Unknown && row.epoch == process.epoch
}

/// A process takes a workflow that nobody owns, or that it inherited.
fn claim(state: &mut State, at: usize, workflow: usize) {
    let process = &mut state.processes[at];
    let row = &mut state.rows[workflow];
    row.epoch = process.epoch;
    process.steps[workflow] = match row.status {
        Status::Begun => Step::Doubting,
        // It waits for a person.
        Status::Unknown => Step::Idle,
        _ => Step::Held,
    };
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.once, self.has_stranger).canonical()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (workflow, row) in state.rows.iter().enumerate() {
            if row.status == Status::Absent {
                actions.push(Action::Submit(workflow));
            }
        }
        if self.holding == Holding::Timed && self.has_clock {
            let good = (1..).take(EPOCHS - 1).filter(|epoch| state.lease(*epoch) == Lease::Good);
            actions.extend(good.map(Action::Expire));
        }
        for process in 0..PROCESSES {
            self.actions_of(state, process, actions);
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let next = self.apply(before, action).canonical();
        (next != *before).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self.holding)
    }
}

impl Protocol {
    /// What becomes of `before`; names stay as they are.
    pub(crate) fn apply(&self, before: &State, action: Action) -> State {
        let mut state = *before;
        let life = |state: &mut State, at: usize, life| state.processes[at].life = life;
        match action {
            Action::Submit(workflow) => state.rows[workflow].status = Status::Ready,
            Action::SubmitOwned(at, workflow) => {
                state.rows[workflow].status = Status::Ready;
                claim(&mut state, at, workflow);
            }
            Action::Open(at) => self.open(&mut state, at),
            Action::Renew(at) => {
                let epoch = state.processes[at].epoch;
                if state.stands(epoch) {
                    state.leases[usize::from(epoch)] = Lease::Good;
                } else {
                    lose(&mut state, at);
                }
            }
            Action::Close(at) => {
                // What it runs is cancelled first. It hands over as a takeover would.
                let epoch = state.processes[at].epoch;
                self.take_over(&mut state, epoch, None);
                lose(&mut state, at);
            }
            // A write that was sent before is one that landed before, or never.
            Action::Crash(at) => {
                state.processes[at] = state.processes[at].restarted(Life::Down);
            }
            Action::Restart(at) | Action::Continue(at) => life(&mut state, at, Life::Up),
            Action::Pause(at) => life(&mut state, at, Life::Paused),
            Action::Expire(epoch) => state.leases[usize::from(epoch)] = Lease::Expired,
            Action::TakeOver(_, epoch) => self.take_over(&mut state, epoch, None),
            Action::Inherit(at, epoch) => self.take_over(&mut state, epoch, Some(at)),
            Action::Share(_, workflow) => state.rows[workflow].epoch = NOBODY,
            Action::Claim(at, workflow) => claim(&mut state, at, workflow),
            Action::Go(at, workflow) => self.go(&mut state, at, workflow),
            Action::LoseAnswer(at, workflow) => {
                write(&mut state, at, workflow);
                let step = &mut state.processes[at].steps[workflow];
                if *step == Step::Calling {
                    *step = Step::Recorded;
                }
            }
            Action::Settle(at, workflow) => {
                state.processes[at].steps[workflow] = Step::Calling;
                write(&mut state, at, workflow);
                state.processes[at].steps[workflow] = Step::Idle;
            }
        }
        state
    }
}
