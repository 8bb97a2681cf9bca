//! Services: methods with typed inputs and results, declared once.
//!
//! A [`Service`] is a protocol and its provider in one. The schemas of the protocol come from the
//! types of the handlers, so that a workflow with a wrong parameter is refused when it is
//! submitted, and so that a handler never sees one.
//!
//! ```
//! use gleitzeit::{
//!     Runtime, Settings, TaskSpec, WorkflowSpec,
//!     service::{CallContext, HandlerError, Service},
//!     schemars::{self, JsonSchema},
//! };
//! use serde::{Deserialize, Serialize};
//! use serde_json::json;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Charge {
//!     /// Whom to charge.
//!     customer: String,
//!     /// Cents, at least one.
//!     #[schemars(range(min = 1))]
//!     amount: u32,
//! }
//!
//! #[derive(Serialize, JsonSchema)]
//! struct Receipt {
//!     number: String,
//! }
//!
//! async fn charge(input: Charge, call: CallContext) -> Result<Receipt, HandlerError> {
//!     // The bank drops a request whose key it knows.
//!     let key = call.idempotency_key();
//!     Ok(Receipt { number: format!("{}: {} ({key})", input.customer, input.amount) })
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shop = Service::new("shop", "v1.0").method("charge", charge).at_most_once();
//! let runtime = Runtime::builder(Settings::from_toml("storage.url = \"memory\"")?)
//!     .without_settings_providers()
//!     .service(shop)
//!     .start_blocking()?;
//! let order = |amount: i64| {
//!     let params = json!({ "customer": "Ada", "amount": amount });
//!     WorkflowSpec::new("order").id("1").task(TaskSpec::new("pay", "shop/charge").params(params))
//! };
//! let refused = runtime.submit(order(0)).unwrap_err();
//! assert!(refused.to_string().contains("0 is less than the minimum of 1"), "{refused}");
//! let ended = runtime.run(order(250))?;
//! assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!({ "number": "Ada: 250 (1/pay)" })));
//! runtime.stop(std::time::Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```
//!
//! # Types
//!
//! The input is a struct with named fields, or `()`. A doc comment becomes the description of its
//! parameter; `Option` and `#[serde(default)]` make it optional; `#[schemars(range(…))]`,
//! `length` and `regex` become its bounds; an enum of unit variants becomes a list of values. A
//! number has the bounds of its type. Parameters that the struct does not name are refused.
//!
//! Enums with data, types that contain themselves, tuples of several types, maps whose keys are
//! not text and a few rules (`multipleOf`, an exclusive bound of a float) have no schema here. A
//! runtime with such a service does not start: [`ServiceError`] names the type, the field and the
//! reason. `#[schemars(with = "serde_json::Value")]` above a field leaves it to the handler. The
//! values of a map and the format of a text, such as a date, are checked when the call begins.
//!
//! # Threads
//!
//! A service has a thread of its own, so that a handler that blocks it holds up no other provider;
//! the log names the provider after 100 ms. [`Service::threads`] gives it more,
//! [`Service::blocking`] runs one method on tokio's threads for blocking calls.

mod context;
mod error;
mod lower;
mod method;
mod provider;

use std::{
    collections::HashMap, fmt, future::Future, num::NonZeroUsize, sync::Arc, time::Duration,
};

use gleitzeit_domain::{
    id::{ProviderId, Version},
    protocol::{Effect, MethodSpec, ProtocolSpec},
    provider::{Placement, ProviderSpec},
    retry::RetryPolicy,
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

pub use context::CallContext;
pub use error::HandlerError;

use method::Method;
use provider::ServiceProvider;

type Configure = Box<dyn FnOnce(ProviderSpec) -> ProviderSpec + Send>;

/// Methods with typed handlers: a protocol and its provider. See the [module](self).
pub struct Service {
    name: String,
    version: String,
    id: ProviderId,
    description: Option<String>,
    methods: Vec<Method>,
    threads: usize,
    configure: Vec<Configure>,
    problems: Vec<String>,
}

impl fmt::Debug for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|method| &method.spec.name).collect();
        out.debug_struct("Service")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("methods", &methods)
            .finish_non_exhaustive()
    }
}

/// Why a service cannot be registered: everything wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service `{service}` cannot be registered: {}", .problems.join("; "))]
pub struct ServiceError {
    /// The service: `shop/v1.0`.
    pub service: String,
    /// Each problem with its method, its type and its field.
    pub problems: Vec<String>,
}

/// A service that is ready for a runtime.
#[derive(Debug, Clone)]
pub struct BuiltService {
    /// The protocol.
    pub protocol: ProtocolSpec,
    /// The provider of all its methods.
    pub provider: ProviderSpec,
}

impl Service {
    /// A service without methods. Workflows call its methods as `name/method`; its provider has the
    /// id `name`.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            id: ProviderId::from(name.as_str()),
            name,
            version: version.into(),
            description: None,
            methods: Vec::new(),
            threads: 1,
            configure: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Sets the description of the protocol.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Sets the id of the provider; the service's name otherwise.
    #[must_use]
    pub fn provider_id(mut self, id: impl Into<ProviderId>) -> Self {
        self.id = id.into();
        self
    }

    /// Runs the handlers of [`method`](Self::method) on so many threads of the service's own; 1
    /// otherwise. Calls of [`local_method`](Self::local_method) share one thread in any case.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = threads.get();
        self
    }

    /// Changes the provider: its weight, its bound on calls in flight, its supervision, its thread.
    #[must_use]
    pub fn provider(
        mut self,
        change: impl FnOnce(ProviderSpec) -> ProviderSpec + Send + 'static,
    ) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Adds a method. The following settings ([`at_most_once`](Self::at_most_once),
    /// [`timeout`](Self::timeout), …) apply to this method, up to the next one.
    ///
    /// State goes into the closure: `move |input, call| charge(shop.clone(), input, call)`.
    #[must_use]
    pub fn method<I, O, E, F, R>(mut self, name: &str, handler: F) -> Self
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: Into<HandlerError>,
        F: Fn(I, CallContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + Send + 'static,
    {
        let declared = Method::shared::<I, O, E, F, R>(name, handler);
        self.add(declared);
        self
    }

    /// Adds a method whose futures stay on one thread and need not be `Send`.
    #[must_use]
    pub fn local_method<I, O, E, F, R>(mut self, name: &str, handler: F) -> Self
    where
        I: DeserializeOwned + JsonSchema,
        O: Serialize + JsonSchema,
        E: Into<HandlerError>,
        F: Fn(I, CallContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + 'static,
    {
        let declared = Method::local::<I, O, E, F, R>(name, handler);
        self.add(declared);
        self
    }

    fn add(&mut self, (method, problems): (Method, Vec<lower::LowerProblem>)) {
        let name = &method.spec.name;
        self.problems.extend(problems.iter().map(|it| format!("method `{name}`, {it}")));
        if self.methods.iter().any(|it| it.spec.name == *name) {
            self.problems.push(format!("method `{name}` is declared twice"));
        }
        self.methods.push(method);
    }

    fn last(&mut self, what: &str) -> Option<&mut Method> {
        if self.methods.is_empty() {
            self.problems.push(format!("`{what}` stands before the first method"));
        }
        self.methods.last_mut()
    }

    fn with(mut self, what: &str, change: impl FnOnce(&mut MethodSpec)) -> Self {
        if let Some(method) = self.last(what) {
            change(&mut method.spec);
        }
        self
    }

    /// The method has no effect outside: [`Effect::Pure`].
    #[must_use]
    pub fn pure(self) -> Self {
        self.with("pure", |spec| spec.effect = Effect::Pure)
    }

    /// Running the method twice equals running it once: [`Effect::Idempotent`].
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.with("idempotent", |spec| spec.effect = Effect::Idempotent)
    }

    /// The method must not run twice: [`Effect::AtMostOnce`]. Without this and the two above it may
    /// ([`Effect::AtLeastOnce`]).
    #[must_use]
    pub fn at_most_once(self) -> Self {
        self.with("at_most_once", |spec| spec.effect = Effect::AtMostOnce)
    }

    /// Limits one attempt of the method, if the task sets no limit.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.with("timeout", |spec| spec.timeout_seconds = Some(limit))
    }

    /// Sets the retry policy of the method, if the task sets none.
    #[must_use]
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.with("retry", |spec| spec.retry_policy = Some(policy))
    }

    /// Sets the description of the method.
    #[must_use]
    pub fn describe(self, text: impl Into<String>) -> Self {
        self.with("describe", |spec| spec.description = Some(text.into()))
    }

    /// Changes anything else of the method's specification: resources, examples, deprecation.
    #[must_use]
    pub fn specify(self, change: impl FnOnce(&mut MethodSpec)) -> Self {
        self.with("specify", change)
    }

    /// Runs the method on a thread that it may block. Each call takes one of tokio's threads for
    /// blocking calls. The engine cannot interrupt blocking code, which should poll
    /// [`CallContext::is_cancelled`].
    #[must_use]
    pub fn blocking(mut self) -> Self {
        let Some(method) = self.last("blocking") else { return self };
        if matches!(method.run, method::Run::Local(_)) {
            let name = method.spec.name.clone();
            self.problems.push(format!("method `{name}` is local, and cannot be blocking"));
        } else {
            method.is_blocking = true;
        }
        self
    }

    /// The protocol and the provider, for a host that registers them itself.
    ///
    /// # Errors
    /// [`ServiceError`] with everything wrong with the service.
    pub fn build(self) -> Result<BuiltService, ServiceError> {
        let Self { name, version, id, description, methods, threads, configure, mut problems } =
            self;
        let service = format!("{name}/{version}");
        let parsed: Option<Version> = match version.parse() {
            Ok(version) => Some(version),
            Err(error) => {
                problems.push(format!("version `{version}`: {error}"));
                None
            }
        };
        if methods.is_empty() {
            problems.push("it has no method".to_owned());
        }
        let (Some(version), true) = (parsed, problems.is_empty()) else {
            return Err(ServiceError { service, problems });
        };
        let mut protocol = ProtocolSpec::new(name, version);
        protocol.description = description;
        let mut by_name = HashMap::new();
        for method in methods {
            protocol = protocol.method(method.spec.clone());
            by_name.insert(method.spec.name.clone(), method);
        }
        let (name, by_name) = (id.shared(), Arc::new(by_name));
        let pool = (threads > 1).then_some(threads);
        let make = move || ServiceProvider::new(Arc::clone(&name), Arc::clone(&by_name), pool);
        let provider = ProviderSpec::new(id, &protocol.protocol_id().to_string(), make)
            .map_err(|error| ServiceError { service, problems: vec![error.to_string()] })?;
        let provider = ProviderSpec { kind: "service".into(), ..provider };
        let provider = provider.placement(Placement::Dedicated);
        let provider = configure.into_iter().fold(provider, |spec, change| change(spec));
        Ok(BuiltService { protocol, provider })
    }

    /// Keeps every handler on the provider's thread, as a virtual clock needs it.
    #[must_use]
    pub fn on_one_thread(mut self) -> Self {
        self.threads = 1;
        self
    }
}
