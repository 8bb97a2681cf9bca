//! What must hold in every state, and what must be seen in some, so that the rest means something.

use stateright::Property;

use crate::{
    protocol::{Holding, Protocol},
    state::{Life, NOBODY, Process, Row, State, Status, Step},
};

pub(crate) const ONE_OWNER: &str = "who works on a workflow, and whose lease stands, owns it alone";
pub(crate) const OWNED: &str =
    "an unsettled workflow is owned by a lease that stands, or by nobody";
pub(crate) const LATE: &str = "a late write of a lost lease never lands";
pub(crate) const KEPT: &str = "a committed outcome is never overwritten";
pub(crate) const NOT_AGAIN: &str = "a committed outcome is not executed again by its owner";
pub(crate) const ONE_END: &str = "each workflow settles once";
pub(crate) const ONE_CALL: &str = "a call that must not run twice is begun once";
pub(crate) const STORED: &str = "such a call is begun only after its start was stored";
pub(crate) const NOT_STUCK: &str =
    "one process that lives and knows them is enough for every workflow to settle";
pub(crate) const KNOWN: &str = "nobody works on what it does not know";

/// Everything that is looked at.
pub(crate) fn all(holding: Holding) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(ONE_OWNER, |_, state: &State| one_owner(state)),
        Property::always(OWNED, |_, state: &State| owned(state)),
        Property::always(LATE, |_, state: &State| !state.late_write_landed),
        Property::always(KEPT, |_, state: &State| !state.overwritten),
        Property::always(NOT_AGAIN, |_, state: &State| !state.ran_again),
        Property::always(ONE_END, |_, state: &State| one_end(state)),
        Property::always(ONE_CALL, |_, state: &State| state.rows.iter().all(|row| row.calls <= 1)),
        Property::always(STORED, |_, state: &State| stored(state)),
        Property::always(KNOWN, |_, state: &State| known(state)),
        Property::always(NOT_STUCK, |protocol: &Protocol, state: &State| {
            protocol.reached.settles(protocol, state)
        }),
        Property::sometimes("every workflow has settled", |_, state: &State| {
            state.rows.iter().all(|row| row.status == Status::Settled)
        }),
        Property::sometimes(
            "a call that must not run twice has an unknown outcome",
            |_, state: &State| state.rows.iter().any(|row| row.status == Status::Unknown),
        ),
        Property::sometimes("every process is down, and work is left", |_, state: &State| {
            state.processes.iter().all(|process| process.life == Life::Down)
                && state.rows.iter().any(|row| row.is_unsettled())
        }),
        Property::sometimes("two processes work at once", |_, state: &State| {
            let works = |it: &&Process| it.steps.iter().any(|step| *step != Step::Idle);
            state.processes.iter().filter(works).count() == 2
        }),
    ];
    if holding == Holding::Timed {
        all.extend([
            Property::sometimes("a stopped process has lost its lease amid a write", |_, state| {
                has_late_write(state, Life::Paused)
            }),
            Property::sometimes(
                "and goes on, while another has settled the workflow",
                |_, state| has_late_write(state, Life::Up),
            ),
        ]);
    }
    all
}

fn one_owner(state: &State) -> bool {
    state.processes.iter().filter(|it| it.epoch != NOBODY && state.stands(it.epoch)).all(|it| {
        let works = |(step, row): (&Step, &Row)| {
            *step == Step::Idle || row.epoch == it.epoch || *step == Step::Recorded
        };
        it.steps.iter().zip(&state.rows).all(works)
    })
}

fn known(state: &State) -> bool {
    let knows = |(step, knows): (&Step, &bool)| *step == Step::Idle || *knows;
    state.processes.iter().all(|it| it.steps.iter().zip(&it.knows).all(knows))
}

fn owned(state: &State) -> bool {
    let mut unsettled = state.rows.iter().filter(|row| row.is_unsettled());
    unsettled.all(|row| row.epoch == NOBODY || state.stands(row.epoch))
}

fn one_end(state: &State) -> bool {
    state.rows.iter().all(|row| row.outcomes == u8::from(row.status == Status::Settled))
}

fn stored(state: &State) -> bool {
    let is_stored = |status| matches!(status, Status::Begun | Status::Unknown | Status::Settled);
    state.rows.iter().all(|row| row.calls == 0 || is_stored(row.status))
}

/// Whether a process of this kind is about to write of a workflow that another lease has taken to
/// its end.
fn has_late_write(state: &State, life: Life) -> bool {
    state.processes.iter().filter(|it| it.life == life && it.epoch != NOBODY).any(|it| {
        !state.stands(it.epoch)
            && it
                .steps
                .iter()
                .zip(&state.rows)
                .any(|(step, row)| *step == Step::Calling && row.status == Status::Settled)
    })
}
