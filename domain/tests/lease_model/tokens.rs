//! A lease of two numbers: an id that workflows name, and a token that a takeover raises.
//!
//! Every write bears both, and its transaction checks that the lease has this token still. A sole
//! survivor takes a lease over by one update, and then holds several; no table of transfers is
//! needed. Where others live, a takeover deletes the lease and frees its workflows, as with one
//! number.

use stateright::{Model, Property};

use crate::{
    protocol::Holding,
    state::{Epoch, Lease, Life, NOBODY, PROCESSES, Status, Step, WORKFLOWS},
    token_properties,
    token_state::{Fence, Process, State, Token, ids},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Submit(usize),
    SubmitOwned(usize, usize),
    Open(usize),
    Renew(usize),
    Close(usize),
    Crash(usize),
    Restart(usize),
    Pause(usize),
    Continue(usize),
    /// A process deletes a lease and frees its workflows.
    End(usize, Epoch),
    /// A process raises the token of a lease and holds it from then on.
    TakeOver(usize, Epoch),
    /// A holder frees a workflow that it has not begun with.
    Share(usize, usize),
    Claim(usize, usize),
    Go(usize, usize),
    LoseAnswer(usize, usize),
    Settle(usize, usize),
}

/// The protocol of two numbers.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) holding: Holding,
    pub(crate) once: [Option<bool>; WORKFLOWS],
    pub(crate) laggards_max: usize,
    pub(crate) answers_get_lost: bool,
    /// A flaw: a write checks that its lease exists, and not its token.
    pub(crate) skips_check: bool,
}

impl Tokens {
    fn passes(&self, state: &State, fence: Fence) -> bool {
        state.stands(fence.id) && (fence.is_current || self.skips_check)
    }

    /// Whether a lease may be taken over. On a server its time may pass at any moment; a lock ends
    /// with its process.
    fn is_dead(&self, state: &State, id: Epoch) -> bool {
        if !state.stands(id) {
            return false;
        }
        match (self.holding, state.holder(id)) {
            (_, None) => true,
            (Holding::Locked, Some(_)) => false,
            (Holding::Timed, Some(holder)) => {
                let laggards = (0..PROCESSES).filter(|at| state.lags(*at)).count();
                state.lags(holder) || laggards < self.laggards_max
            }
        }
    }

    fn actions_on(&self, state: &State, at: usize, workflow: usize, actions: &mut Vec<Action>) {
        let (process, row) = (&state.processes[at], &state.rows[workflow]);
        let (step, fence) = (process.steps[workflow], process.fences[workflow]);
        let writes = step == Step::Calling || (step == Step::Held && row.once);
        if self.answers_get_lost && writes && self.passes(state, fence) {
            actions.push(Action::LoseAnswer(at, workflow));
        }
        if process.life != Life::Up {
            return;
        }
        if step != Step::Idle {
            return actions.push(Action::Go(at, workflow));
        }
        let is_its_own = row.is_unsettled() && state.holds(at, row.epoch);
        if row.status == Status::Absent {
            if state.holds(at, process.own) {
                actions.push(Action::SubmitOwned(at, workflow));
            }
        } else if row.is_unsettled() && row.epoch == NOBODY {
            if state.holds(at, process.own) {
                actions.push(Action::Claim(at, workflow));
            }
        } else if is_its_own && row.status == Status::Unknown {
            actions.push(Action::Settle(at, workflow));
        } else if is_its_own {
            actions.extend([Action::Claim(at, workflow), Action::Share(at, workflow)]);
        }
    }

    /// A process begins with a workflow under the lease that the row names, or under its own.
    fn claim(state: &mut State, at: usize, workflow: usize) {
        let row = &mut state.rows[workflow];
        if row.epoch == NOBODY {
            row.epoch = state.processes[at].own;
        }
        let process = &mut state.processes[at];
        process.fences[workflow] = Fence { id: row.epoch, is_current: true };
        process.steps[workflow] = match row.status {
            Status::Begun => Step::Doubting,
            Status::Unknown => Step::Idle,
            _ => Step::Held,
        };
    }

    fn go(&self, state: &mut State, at: usize, workflow: usize) {
        let process = state.processes[at];
        let (step, fence) = (process.steps[workflow], process.fences[workflow]);
        let once = state.rows[workflow].once;
        let next = match step {
            Step::Idle => return,
            Step::Started => begin_call(state, workflow),
            Step::Held if !once => begin_call(state, workflow),
            _ if !self.passes(state, fence) => return state.lose(at),
            _ => {
                write(state, at, workflow);
                if step == Step::Held { Step::Started } else { Step::Idle }
            }
        };
        state.processes[at].steps[workflow] = next;
    }

    fn apply(&self, before: &State, action: Action) -> State {
        let mut state = *before;
        match action {
            Action::Submit(workflow) => state.rows[workflow].status = Status::Ready,
            Action::SubmitOwned(at, workflow) => {
                state.rows[workflow].status = Status::Ready;
                Self::claim(&mut state, at, workflow);
            }
            Action::Open(at) => {
                let id = state.new_id();
                state.leases[usize::from(id)] = Lease::Good;
                state.processes[at].own = id;
                state.processes[at].tokens[usize::from(id)] = Token::Current;
            }
            // All of its leases are renewed at once; one that is lost makes it drop everything.
            Action::Renew(at) => state.lose(at),
            Action::Crash(at) => state.processes[at] = Process::new(Life::Down),
            Action::Close(at) => {
                for id in ids() {
                    if state.holds(at, id) {
                        state.end(id);
                    }
                }
                state.lose(at);
            }
            Action::Restart(at) | Action::Continue(at) => state.processes[at].life = Life::Up,
            Action::Pause(at) => state.processes[at].life = Life::Paused,
            Action::End(_, id) => state.end(id),
            Action::TakeOver(at, id) => {
                state.raise(id);
                state.processes[at].tokens[usize::from(id)] = Token::Current;
            }
            Action::Share(_, workflow) => state.rows[workflow].epoch = NOBODY,
            Action::Claim(at, workflow) => Self::claim(&mut state, at, workflow),
            Action::Go(at, workflow) => self.go(&mut state, at, workflow),
            Action::LoseAnswer(at, workflow) => {
                write(&mut state, at, workflow);
                let step = &mut state.processes[at].steps[workflow];
                if *step == Step::Calling {
                    *step = Step::Recorded;
                }
            }
            Action::Settle(at, workflow) => {
                let id = state.rows[workflow].epoch;
                state.processes[at].fences[workflow] = Fence { id, is_current: true };
                state.processes[at].steps[workflow] = Step::Calling;
                write(&mut state, at, workflow);
                state.processes[at].steps[workflow] = Step::Idle;
            }
        }
        state
    }
}

fn begin_call(state: &mut State, workflow: usize) -> Step {
    let row = &mut state.rows[workflow];
    if row.once {
        row.calls = (row.calls + 1).min(2);
    }
    Step::Calling
}

/// The changes of the transaction. It overwrites what it finds: the fence must keep it from that.
fn write(state: &mut State, at: usize, workflow: usize) {
    let Process { steps, fences, .. } = state.processes[at];
    let fence = fences[workflow];
    let owns = fence.is_current && state.stands(fence.id);
    let row = &mut state.rows[workflow];
    let (status, is_repeated) = match steps[workflow] {
        Step::Held => (Status::Begun, false),
        Step::Doubting => (Status::Unknown, false),
        Step::Recorded => (Status::Settled, true),
        _ => (Status::Settled, false),
    };
    let was_settled = row.status == Status::Settled;
    state.overwritten |= was_settled && !is_repeated;
    let is_late = !(owns && row.epoch == fence.id);
    let is_replay = was_settled && is_repeated;
    state.late_write_landed |= is_late && !is_replay;
    if status == Status::Settled && !is_repeated {
        row.outcomes = (row.outcomes + 1).min(2);
    }
    row.status = status;
}

impl Model for Tokens {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.once).canonical()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (workflow, row) in state.rows.iter().enumerate() {
            if row.status == Status::Absent {
                actions.push(Action::Submit(workflow));
            }
        }
        for at in 0..PROCESSES {
            let process = &state.processes[at];
            match process.life {
                Life::Down => {
                    actions.push(Action::Restart(at));
                    continue;
                }
                Life::Paused => actions.extend([Action::Continue(at), Action::Crash(at)]),
                Life::Up if process.own == NOBODY => {
                    actions.extend([Action::Open(at), Action::Crash(at)]);
                }
                Life::Up => actions.extend([Action::Close(at), Action::Crash(at)]),
            }
            if process.life == Life::Up && process.own != NOBODY {
                let laggards = (0..PROCESSES).filter(|it| state.lags(*it)).count();
                if state.lags(at) || laggards < self.laggards_max {
                    actions.push(Action::Pause(at));
                }
                if state.lags(at) {
                    actions.push(Action::Renew(at));
                }
                for id in ids().filter(|id| self.is_dead(state, *id)) {
                    if state.holds(at, process.own) && !state.holds(at, id) {
                        actions.extend([Action::TakeOver(at, id), Action::End(at, id)]);
                    }
                }
            }
            for workflow in 0..WORKFLOWS {
                self.actions_on(state, at, workflow, actions);
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let next = self.apply(before, action).canonical();
        (next != *before).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        token_properties::all(self.holding)
    }
}
