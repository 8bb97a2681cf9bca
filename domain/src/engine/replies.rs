//! Callers that wait for something of a workflow: that a change is stored, its state, its end.
//!
//! Two sets for each run: those that wait for the next write, and those that the write under way
//! answers. A caller moves from one to the other when its write begins, so that no write answers for
//! a change that it does not hold.

use std::{fmt, sync::Arc};

use super::effect::{Effect, Effects, Reply};
use crate::{error::TaskError, id::WorkflowId, run::Run, workflow::WorkflowRecord};

/// The callers of an engine. The engine keeps and returns them, without any knowledge of them.
pub trait Callers: fmt::Debug + 'static {
    /// Waits until a change is stored; dropped if it never is.
    type OnStored: fmt::Debug;
    /// Waits for the state of a workflow.
    type OnState: fmt::Debug;
    /// Waits for the end of a workflow.
    type OnEnd: fmt::Debug;
    /// Waits until a submission is accepted.
    type OnAccepted: fmt::Debug;
    /// The span of a submission.
    type Span: fmt::Debug + Clone + Default;
}

/// A caller that waits for the end of a workflow.
#[derive(Debug)]
pub struct Waiter<E> {
    /// The caller.
    pub answer: E,
    /// True if large results may be left out.
    pub outline: bool,
}

impl<E> Waiter<E> {
    /// A caller that needs all results.
    pub fn whole(answer: E) -> Self {
        Self { answer, outline: false }
    }
}

/// The callers that wait for something of one workflow.
#[derive(Debug)]
pub struct Replies<C: Callers> {
    /// Answered once what has changed by now is stored.
    pub on_stored: Vec<C::OnStored>,
    /// Answered with the state, once it is stored.
    pub on_state: Vec<C::OnState>,
    /// Answered with the end.
    pub on_end: Vec<Waiter<C::OnEnd>>,
}

impl<C: Callers> Default for Replies<C> {
    fn default() -> Self {
        Self { on_stored: Vec::new(), on_state: Vec::new(), on_end: Vec::new() }
    }
}

impl<C: Callers> Replies<C> {
    /// Adds the callers of a submission to those of its run.
    pub fn append(&mut self, mut others: Self) {
        self.on_stored.append(&mut others.on_stored);
        self.on_state.append(&mut others.on_state);
        self.on_end.append(&mut others.on_end);
    }

    /// All of the run is stored: sends its state.
    pub fn send_state(&mut self, run: &Run, out: &mut Effects<C>) {
        // A lean run lacks results that the store has: the caller reads it there.
        let is_lean = run.is_lean();
        for reader in self.on_state.drain(..) {
            let state = (!is_lean).then(|| Arc::new(run.record().clone()));
            out.push_back(Effect::Reply(Reply::State(reader, state)));
        }
    }

    /// All of the run is stored: sends its state, and confirms every change.
    pub fn confirm(&mut self, run: &Run, out: &mut Effects<C>) {
        self.send_state(run, out);
        for ack in self.on_stored.drain(..) {
            out.push_back(Effect::Reply(Reply::Stored(ack)));
        }
    }

    /// Sends those that wait for the state to the store.
    pub fn redirect_to_store(&mut self, out: &mut Effects<C>) {
        for reader in self.on_state.drain(..) {
            out.push_back(Effect::Reply(Reply::State(reader, None)));
        }
    }

    /// The run goes without an end: callers of its end get `error`, or wait for it elsewhere.
    pub fn fail(mut self, id: &WorkflowId, error: Option<&TaskError>, out: &mut Effects<C>) {
        self.redirect_to_store(out);
        // `on_stored` is dropped: the change is never stored, and its caller sees the channel close.
        for waiter in self.on_end {
            out.push_back(Effect::Reply(match error {
                Some(error) => Reply::End(waiter.answer, Err(error.clone())),
                None => Reply::EndElsewhere(waiter, id.clone()),
            }));
        }
    }

    /// The run has ended, and its record holds all results unless it is lean.
    pub fn end(mut self, record: &Arc<WorkflowRecord>, is_lean: bool, out: &mut Effects<C>) {
        for waiter in self.on_end.drain(..) {
            out.push_back(Effect::Reply(if is_lean && !waiter.outline {
                Reply::EndElsewhere(waiter, record.id.clone())
            } else {
                Reply::End(waiter.answer, Ok(Arc::clone(record)))
            }));
        }
        for reader in self.on_state.drain(..) {
            let state = (!is_lean).then(|| Arc::clone(record));
            out.push_back(Effect::Reply(Reply::State(reader, state)));
        }
    }
}

/// The callers that the write under way answers, with the state as that write leaves it.
#[derive(Debug)]
pub struct Attached<C: Callers> {
    on_stored: Vec<C::OnStored>,
    on_state: Vec<C::OnState>,
    state: Option<Arc<WorkflowRecord>>,
}

impl<C: Callers> Default for Attached<C> {
    fn default() -> Self {
        Self { on_stored: Vec::new(), on_state: Vec::new(), state: None }
    }
}

impl<C: Callers> Attached<C> {
    /// Takes over the callers of the write that begins now.
    pub fn attach(&mut self, replies: &mut Replies<C>, run: &Run, out: &mut Effects<C>) {
        // Moved, not copied: a caller that comes during the write waits for the next one.
        self.on_stored.append(&mut replies.on_stored);
        if run.is_lean() {
            replies.redirect_to_store(out);
        }
        if !replies.on_state.is_empty() {
            // As it is now: what changes during the write is not stored with it.
            self.state = Some(Arc::new(run.record().clone()));
            self.on_state.append(&mut replies.on_state);
        }
    }

    /// The write is stored.
    pub fn complete(&mut self, out: &mut Effects<C>) {
        for ack in self.on_stored.drain(..) {
            out.push_back(Effect::Reply(Reply::Stored(ack)));
        }
        let state = self.state.take();
        for reader in self.on_state.drain(..) {
            out.push_back(Effect::Reply(Reply::State(reader, state.clone())));
        }
    }

    /// The write fails for now: no caller can know for how long, so those of the state read the store.
    pub fn redirect_to_store(&mut self, out: &mut Effects<C>) {
        self.state = None;
        for reader in self.on_state.drain(..) {
            out.push_back(Effect::Reply(Reply::State(reader, None)));
        }
    }

    /// The change of this run is not in the write after all: its callers wait for the next one.
    pub fn put_off(&mut self, replies: &mut Replies<C>, out: &mut Effects<C>) {
        self.redirect_to_store(out);
        // The change of these callers is in the next write.
        replies.on_stored.append(&mut self.on_stored);
    }
}
