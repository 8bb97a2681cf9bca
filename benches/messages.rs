//! The cost of a message and its answer: to an actor that does nothing, from its own thread and from
//! another, then to each actor of the runtime with its smallest message.
//!
//! A task passes all six actors, in batches that grow with the load; these are the figures for a
//! batch of one.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use actix::prelude::*;
use criterion::{Criterion, criterion_group, criterion_main};
use gleitzeit::{
    BlockingRuntime, Runtime, Settings,
    actors::{
        dependency_resolver::CountWorkflows,
        event_bus::Publish,
        execution_engine::IsIdle,
        load_balancer::GetProviders,
        monitor::{GetMetrics, GetStats},
        protocol_registry::GetCatalog,
        resource_manager::GetResources,
    },
    providers::echo,
};

/// An actor that does nothing.
struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

/// A message without a question.
#[derive(Message)]
#[rtype(result = "()")]
struct Nothing;

impl Handler<Nothing> for Idle {
    type Result = ();

    fn handle(&mut self, Nothing: Nothing, _: &mut Self::Context) {}
}

/// The time of `rounds` messages, one after the other, without entering the runtime for each.
async fn ask(actor: &Addr<Idle>, rounds: u64) -> Duration {
    let begun = Instant::now();
    for _ in 0..rounds {
        actor.send(Nothing).await.expect("it lives");
    }
    begun.elapsed()
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages/round_trip");
    let system = System::new();
    group.bench_function("same_thread", |bencher| {
        let actor = system.block_on(async { Idle.start() });
        bencher.iter_custom(|rounds| system.block_on(ask(&actor, rounds)));
    });
    group.bench_function("other_thread", |bencher| {
        let arbiter = Arbiter::new();
        let actor = Idle::start_in_arbiter(&arbiter.handle(), |_| Idle);
        bencher.iter_custom(|rounds| system.block_on(ask(&actor, rounds)));
        arbiter.stop();
    });
    group.finish();
}

/// A runtime with one echo provider and a store in memory.
fn runtime() -> BlockingRuntime {
    let settings = Settings::from_toml("storage.url = \"memory\"").expect("sound settings");
    let builder = Runtime::builder(settings).without_settings_providers();
    builder.provider(echo::spec("echo")).start_blocking().expect("it starts")
}

fn each_actor(criterion: &mut Criterion) {
    let runtime = runtime();
    let addresses = runtime.handle().addresses().clone();
    let mut group = criterion.benchmark_group("messages/ask");
    macro_rules! ask {
        ($name:literal, $actor:ident, $question:expr) => {
            group.bench_function($name, |bencher| {
                bencher.iter(|| {
                    let answer = runtime.block_on(addresses.$actor.send($question));
                    black_box(answer.expect("it lives"))
                });
            });
        };
    }
    ask!("execution_engine", engine, IsIdle);
    ask!("engine_stats", engine, GetStats);
    ask!("protocol_registry", registry, GetCatalog);
    ask!("dependency_resolver", resolver, CountWorkflows);
    ask!("resource_manager", resources, GetResources);
    ask!("load_balancer_and_supervisor", balancer, GetProviders);
    ask!("event_bus", bus, Publish { events: Vec::new() });
    ask!("monitor", monitor, GetMetrics);
    group.finish();
    runtime.stop(Duration::ZERO);
}

criterion_group!(messages, round_trip, each_actor);
criterion_main!(messages);
