//! The provider of a service: finds the handler of a call and runs it on its thread.

use std::{collections::HashMap, future::Future, panic, pin::Pin, sync::Arc};

use async_trait::async_trait;
use gleitzeit_actors::stall::Watched;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::{Call, Outcome, Provider},
};
use serde_json::Value;
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinError, JoinHandle},
};
use tracing::Instrument as _;

use super::{
    CallContext, HandlerError,
    method::{Method, Run},
};

pub(super) type Methods = Arc<HashMap<String, Method>>;

pub(super) struct ServiceProvider {
    name: Arc<str>,
    methods: Methods,
    pool: Option<Pool>,
}

impl ServiceProvider {
    /// A provider whose handlers run on `threads` threads of their own; `None` runs them on the
    /// provider's thread.
    pub(super) fn new(
        name: Arc<str>,
        methods: Methods,
        threads: Option<usize>,
    ) -> Result<Self, TaskError> {
        let pool = threads.map(|threads| Pool::start(&name, threads)).transpose()?;
        Ok(Self { name, methods, pool })
    }

    async fn run(&self, method: &Method, context: CallContext) -> Result<Value, HandlerError> {
        let input = method.input(context.call());
        match &method.run {
            Run::Local(run) => run(&input, context).await,
            Run::Shared(run) if method.is_blocking => {
                let run = Arc::clone(run);
                let cancelled = context.clone();
                let future = async move { run(&input, context).await };
                on_blocking_thread(future, cancelled).await
            }
            Run::Shared(run) => match &self.pool {
                None => run(&input, context).await,
                Some(pool) => {
                    let run = Arc::clone(run);
                    let future = async move { run(&input, context).await };
                    pool.run(Watched::new(Arc::clone(&self.name), Box::pin(future))).await
                }
            },
        }
    }
}

#[async_trait(?Send)]
impl Provider for ServiceProvider {
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        let Some(method) = self.methods.get(call.method_name()) else {
            let message = format!("service `{}` has no method `{}`", self.name, call.method_name());
            return Err(TaskError::new(ErrorCode::MethodNotSupported, message));
        };
        // Dropping it with this future cancels the handler's context.
        let (context, _alive) = CallContext::new(call);
        match self.run(method, context).await {
            Ok(value) => Ok(Outcome::from(value)),
            Err(error) => Err(error.into_task_error(method.spec.effect)),
        }
    }
}

/// Threads for handlers.
struct Pool(Option<Runtime>);

impl Pool {
    fn start(name: &str, threads: usize) -> Result<Self, TaskError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(format!("gleitzeit-{name}"))
            .enable_all()
            .build();
        let refused = |error| {
            let message = format!("no threads for service `{name}`: {error}");
            TaskError::new(ErrorCode::ResourceExhausted, message)
        };
        runtime.map(|runtime| Self(Some(runtime))).map_err(refused)
    }

    async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let Some(runtime) = &self.0 else { unreachable!("it is there until the drop") };
        let task = runtime.spawn(future.instrument(tracing::Span::current()));
        outcome(AbortOnDrop(task)).await
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A handler that blocks its thread must not block the one that drops the pool.
            runtime.shutdown_background();
        }
    }
}

/// Runs a handler that may block. It ends at its next await after its call has ended.
async fn on_blocking_thread<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
    context: CallContext,
) -> T {
    let runtime = tokio::runtime::Handle::current();
    let span = tracing::Span::current();
    let work = move || {
        let ended = async {
            tokio::select! {
                biased;
                value = future => Some(value),
                () = context.cancelled() => None,
            }
        };
        runtime.block_on(ended.instrument(span))
    };
    match outcome(AbortOnDrop(tokio::task::spawn_blocking(work))).await {
        Some(value) => value,
        None => std::future::pending().await,
    }
}

/// Cancels a task with the call that waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// The value of a task. A panic is resumed here, and the provider's guard catches it.
async fn outcome<T>(task: AbortOnDrop<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(text) => panic::resume_unwind(text),
            // The threads have ended with the instance, and so has the caller of this function.
            Err(_) => std::future::pending().await,
        },
    }
}
