//! The addresses on the way of a task: each as the messages that the pipeline sends there.

use std::rc::Rc;

use actix::prelude::*;

use super::{
    effect_gate::EffectGate,
    messages::{
        StillScheduled, TaskWaits, TasksFinished, TasksHeld, TasksStarted, WaitingCountChanged,
    },
};
use crate::{
    dependency_resolver::ResolveParameters,
    load_balancer::{CancelTasks, PickProviders},
    peers::Peers,
    protocol_registry::ValidateCalls,
    resource_manager::{Acquire, CancelWaiting},
};

/// The stations of the pipeline; lives on the control thread.
#[derive(Debug)]
pub struct Route {
    /// The resolver, for parameters.
    pub(super) resolve: Recipient<ResolveParameters>,
    /// The registry, which checks them.
    pub(super) validate: Recipient<ValidateCalls>,
    /// The resource manager.
    pub(super) acquire: Recipient<Acquire>,
    pub(super) cancel_acquire: Recipient<CancelWaiting>,
    /// The load balancer.
    pub(super) pick: Recipient<PickProviders>,
    pub(super) cancel_pick: Recipient<CancelTasks>,
    /// The engine.
    pub(super) scheduled: Recipient<StillScheduled>,
    pub(super) started: Recipient<TasksStarted>,
    pub(super) finished: Recipient<TasksFinished>,
    pub(super) held: Recipient<TasksHeld>,
    pub(super) waiting: Recipient<WaitingCountChanged>,
    pub(super) waits: Recipient<TaskWaits>,
    /// Read before each call.
    pub(super) gate: Rc<EffectGate>,
}

impl Route {
    /// The way from `engine` over its peers and back.
    pub fn new<E>(engine: &Addr<E>, peers: &Peers, gate: Rc<EffectGate>) -> Rc<Self>
    where
        E: Actor<Context = Context<E>>
            + Handler<StillScheduled>
            + Handler<TasksStarted>
            + Handler<TasksFinished>
            + Handler<TasksHeld>
            + Handler<WaitingCountChanged>
            + Handler<TaskWaits>,
    {
        // Recipients are boxed: made once per engine, and not for each batch.
        Rc::new(Self {
            resolve: peers.resolver.clone().recipient(),
            validate: peers.registry.clone().recipient(),
            acquire: peers.resources.clone().recipient(),
            cancel_acquire: peers.resources.clone().recipient(),
            pick: peers.balancer.clone().recipient(),
            cancel_pick: peers.balancer.clone().recipient(),
            scheduled: engine.clone().recipient(),
            started: engine.clone().recipient(),
            finished: engine.clone().recipient(),
            held: engine.clone().recipient(),
            waiting: engine.clone().recipient(),
            waits: engine.clone().recipient(),
            gate,
        })
    }
}
