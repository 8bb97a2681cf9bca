//! The providers of a test: the service's own handlers, and the fakes that replace some.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use gleitzeit::{
    Call, ErrorCode, Outcome, Placement, Provider, ProviderSpec, Supervision, TaskError,
    service::HandlerError,
};
use serde_json::Value;

use crate::world::World;

/// A call of a fake.
#[derive(Debug, Clone)]
pub struct FakeCall {
    /// The call as a provider gets it.
    pub call: Call,
    /// The number of the call among those of its method, over all workflows, attempts and crashes,
    /// from 1.
    pub number: usize,
}

impl FakeCall {
    /// The number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// A parameter by name; null if there is none.
    pub fn param(&self, name: &str) -> &Value {
        self.call.param(name).unwrap_or(&Value::Null)
    }
}

pub(crate) type Fake =
    Arc<dyn Fn(FakeCall) -> BoxFuture<'static, Result<Value, HandlerError>> + Send + Sync>;

/// The fakes by `protocol/method`.
pub(crate) type Fakes = HashMap<String, Fake>;

/// The provider of one protocol.
struct Routed {
    world: Arc<World>,
    fakes: Arc<Fakes>,
    /// The provider of the service itself, for methods without a fake.
    inner: Option<Rc<dyn Provider>>,
}

#[async_trait(?Send)]
impl Provider for Routed {
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        self.world.lives().await;
        let number = self.world.called(call.clone());
        let name = format!("{}/{}", call.protocol().name(), call.method_name());
        let outcome = match (self.fakes.get(&name), &self.inner) {
            (Some(fake), _) => {
                let effect = call.method.spec.effect;
                let answer = fake(FakeCall { call: call.clone(), number }).await;
                answer.map(Outcome::from).map_err(|error| error.into_task_error(effect))
            }
            (None, Some(inner)) => inner.execute(call.clone()).await,
            (None, None) => {
                let message = format!("`{name}` has no handler; give the test a fake of it");
                Err(TaskError::new(ErrorCode::MethodNotSupported, message))
            }
        };
        if self.world.dies_during(&call) {
            match self.world.die().await {}
        }
        outcome
    }
}

/// The provider of `protocol`; `inner` is that of the service itself.
pub(crate) fn provider(
    world: &Arc<World>,
    fakes: &Arc<Fakes>,
    protocol: &str,
    inner: Option<&ProviderSpec>,
) -> ProviderSpec {
    let (world, fakes) = (Arc::clone(world), Arc::clone(fakes));
    let own = inner.map(|inner| Arc::clone(&inner.factory));
    let make = move || {
        let inner = own.as_ref().map(|own| own()).transpose()?;
        Ok(Routed { world: Arc::clone(&world), fakes: Arc::clone(&fakes), inner })
    };
    let id = inner.map_or_else(|| protocol.into(), |inner| inner.id.clone());
    let spec = ProviderSpec::new(id, protocol, make).expect("it is the id of a protocol");
    let spec = ProviderSpec { max_concurrent: inner.and_then(|it| it.max_concurrent), ..spec };
    // A check every thirty seconds would be most of the events of a virtual month, and a test would
    // spend its time on them.
    let health_interval = std::time::Duration::from_hours(24);
    spec.placement(Placement::Control)
        .supervision(Supervision { health_interval, ..Supervision::default() })
}
