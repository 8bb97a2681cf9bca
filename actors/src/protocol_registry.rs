//! Knows the protocols: turns drafts into plans and checks the parameters of every call.
//!
//! Asked by the `ExecutionEngine` at admission, by the pipeline before every call, and by the
//! runtime's owner to add, replace and list protocols. Asks no other actor.
//!
//! Invariant: the [`ProtocolCatalog`] is replaced as a whole. A change that fails leaves the old
//! catalog, so a restart of this actor loses nothing.

use std::sync::{Arc, Weak};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::{Capability, ProtocolId},
    plan::{Draft, Plan, PlanDefaults, Replanned},
    problem::{Problem, SubmitError},
    protocol::{
        Method, MethodRef, ProtocolSpec,
        catalog::{ProtocolCatalog, RegisterError},
        validate::{Filled, Violation},
    },
};
use serde_json::Value;

pub use gleitzeit_domain::engine::StoredDraft;

/// Turns drafts into plans: all methods are found, and all known parameters are checked.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Arc<Plan>, SubmitError>>")]
pub struct ValidateWorkflows(pub Vec<Draft>);

/// Turns stored workflows into plans, or reports that this process's protocols cannot run them.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Replanned>")]
pub struct ReplanWorkflows(pub Vec<StoredDraft>);

/// Turns drafts into plans for any process that claims them; each comes with the methods that this
/// process does not know.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<(Arc<Plan>, Vec<Problem>), SubmitError>>")]
pub struct PlanForOthers(pub Vec<Draft>);

/// Checks the parameters of calls about to be made and fills in defaults.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Filled, TaskError>>")]
pub struct ValidateCalls(pub Vec<CallCheck>);

/// One call to be checked.
#[derive(Debug)]
pub struct CallCheck {
    /// The method, as it was planned.
    pub method: MethodRef,
    /// The parameters, with references resolved.
    pub params: Arc<Value>,
}

/// Adds a protocol.
///
/// # Errors
/// [`RegisterError`] with all problems; then nothing has changed.
#[derive(Debug, Message)]
#[rtype(result = "Result<ProtocolId, RegisterError>")]
pub struct RegisterProtocol(pub ProtocolSpec);

/// Replaces the protocol with the same id.
///
/// # Errors
/// [`RegisterError`], also if tasks use the old protocol and the new one would reject parameters that
/// the old one accepts.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RegisterError>")]
pub struct ReplaceProtocol(pub ProtocolSpec);

/// Returns the current catalog.
#[derive(Debug, Message)]
#[rtype(result = "Arc<ProtocolCatalog>")]
pub struct GetCatalog;

/// Returns the methods of a protocol.
///
/// # Errors
/// `PROTOCOL_NOT_FOUND`.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<Capability>, TaskError>")]
pub struct GetCapabilities(pub ProtocolId);

/// The actor. One per system, on the control arbiter.
#[derive(Debug)]
pub struct ProtocolRegistry {
    catalog: Arc<ProtocolCatalog>,
    defaults: PlanDefaults,
    /// Catalogs before the last change that hosts still hold.
    previous_catalogs: Vec<Weak<ProtocolCatalog>>,
    /// Methods that were replaced while tasks used them.
    replaced_methods: Vec<Weak<Method>>,
}

impl ProtocolRegistry {
    /// A registry of the protocols in `catalog`.
    pub fn new(catalog: ProtocolCatalog, defaults: PlanDefaults) -> Self {
        Self {
            catalog: Arc::new(catalog),
            defaults,
            previous_catalogs: Vec::new(),
            replaced_methods: Vec::new(),
        }
    }

    /// Replaces the catalog.
    fn publish_catalog(&mut self, catalog: ProtocolCatalog) {
        let old = std::mem::replace(&mut self.catalog, Arc::new(catalog));
        self.previous_catalogs.retain(|catalog| catalog.strong_count() > 0);
        // A host holds it, and with it references to methods that no task has: uncounted, they would
        // make each of its methods look used for as long.
        if Arc::strong_count(&old) > 1 {
            self.previous_catalogs.push(Arc::downgrade(&old));
        }
    }

    /// True if a plan of an unsettled workflow refers to a method, besides the catalogs.
    fn is_in_use(&self, method: &MethodRef) -> bool {
        let capability = &method.capability;
        let earlier: Vec<_> = self.previous_catalogs.iter().filter_map(Weak::upgrade).collect();
        let catalogs = earlier.iter().chain([&self.catalog]);
        let holds = |catalog: &&Arc<ProtocolCatalog>| {
            catalog.method(capability).is_some_and(|held| Arc::ptr_eq(&held, method))
        };
        // The caller's own reference is one more.
        Arc::strong_count(method) > catalogs.filter(holds).count() + 1
    }

    /// The methods of a protocol and of all that inherit from it.
    fn methods_below(&self, id: &ProtocolId) -> Vec<MethodRef> {
        let inherits = |mut of: ProtocolId| loop {
            if of == *id {
                return true;
            }
            match self.catalog.declared(&of).and_then(|spec| spec.extends.clone()) {
                Some(parent) => of = parent,
                None => return false,
            }
        };
        let ids =
            self.catalog.list().map(|spec| spec.protocol_id()).filter(|of| inherits(of.clone()));
        let capabilities = ids.flat_map(|of| self.catalog.capabilities(&of));
        capabilities.filter_map(|capability| self.catalog.method(&capability)).collect()
    }

    /// The current method: its protocol may have been replaced since the workflow was planned.
    fn current(&self, planned: &MethodRef) -> Result<MethodRef, TaskError> {
        let capability = &planned.capability;
        let current = self.catalog.method(capability).ok_or_else(|| {
            let message = format!("{capability} is no longer registered");
            TaskError::new(ErrorCode::MethodNotFound, message)
        })?;
        if current.warns_now() {
            tracing::warn!(%capability, "deprecated method called");
        }
        Ok(current)
    }
}

fn check(method: &MethodRef, params: &Arc<Value>) -> Result<Filled, TaskError> {
    let filled = method.params.fill(params);
    filled.map_err(|violations| refuse(&method.capability, &violations))
}

fn refuse(capability: &Capability, violations: &[Violation]) -> TaskError {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    TaskError::new(
        ErrorCode::InvalidParams,
        format!("parameters do not fit {capability}: {}", list.join("; ")),
    )
    .with_data(serde_json::json!({ "violations": violations }))
}

impl Actor for ProtocolRegistry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
    }
}

impl Supervised for ProtocolRegistry {}

impl Handler<ValidateWorkflows> for ProtocolRegistry {
    type Result = MessageResult<ValidateWorkflows>;

    fn handle(
        &mut self,
        ValidateWorkflows(drafts): ValidateWorkflows,
        _: &mut Self::Context,
    ) -> Self::Result {
        let plan = |draft: Draft| draft.plan(&self.catalog, &self.defaults).map(Arc::new);
        MessageResult(drafts.into_iter().map(plan).collect())
    }
}

impl Handler<ReplanWorkflows> for ProtocolRegistry {
    type Result = MessageResult<ReplanWorkflows>;

    fn handle(
        &mut self,
        ReplanWorkflows(drafts): ReplanWorkflows,
        _: &mut Self::Context,
    ) -> Self::Result {
        let plan = |StoredDraft { draft, needs, settled }: StoredDraft| {
            let is_settled = |index: usize| settled.get(index).copied().unwrap_or(false);
            draft.plan_again(&self.catalog, &self.defaults, &needs, is_settled)
        };
        MessageResult(drafts.into_iter().map(plan).collect())
    }
}

impl Handler<PlanForOthers> for ProtocolRegistry {
    type Result = MessageResult<PlanForOthers>;

    fn handle(
        &mut self,
        PlanForOthers(drafts): PlanForOthers,
        _: &mut Self::Context,
    ) -> Self::Result {
        let plan = |draft: Draft| {
            let (plan, unknown) = draft.plan_for_others(&self.catalog, &self.defaults)?;
            Ok((Arc::new(plan), unknown))
        };
        MessageResult(drafts.into_iter().map(plan).collect())
    }
}

impl Handler<ValidateCalls> for ProtocolRegistry {
    type Result = MessageResult<ValidateCalls>;

    fn handle(
        &mut self,
        ValidateCalls(calls): ValidateCalls,
        _: &mut Self::Context,
    ) -> Self::Result {
        // Calls of one batch are mostly of one method: a lookup for each would hash its name under
        // every call.
        let mut last: Option<(&MethodRef, Result<MethodRef, TaskError>)> = None;
        let mut answers = Vec::with_capacity(calls.len());
        for call in &calls {
            let known = last.take().filter(|(method, _)| Arc::ptr_eq(method, &call.method));
            let (_, current) = known.unwrap_or_else(|| (&call.method, self.current(&call.method)));
            answers.push(match &current {
                Ok(method) => check(method, &call.params),
                Err(error) => Err(error.clone()),
            });
            last = Some((&call.method, current));
        }
        MessageResult(answers)
    }
}

impl Handler<RegisterProtocol> for ProtocolRegistry {
    type Result = Result<ProtocolId, RegisterError>;

    fn handle(
        &mut self,
        RegisterProtocol(spec): RegisterProtocol,
        _: &mut Self::Context,
    ) -> Self::Result {
        // On a copy: a registration that fails half-way leaves the catalog as it was.
        let mut catalog = ProtocolCatalog::clone(&self.catalog);
        let id = catalog.register(spec)?;
        self.publish_catalog(catalog);
        tracing::info!(protocol = %id, "protocol registered");
        Ok(id)
    }
}

impl Handler<ReplaceProtocol> for ProtocolRegistry {
    type Result = Result<(), RegisterError>;

    fn handle(
        &mut self,
        ReplaceProtocol(spec): ReplaceProtocol,
        _: &mut Self::Context,
    ) -> Self::Result {
        let id = spec.protocol_id();
        let current = self.methods_below(&id);
        // Tasks that were planned before an earlier replacement count as well: they are checked
        // against the current methods when they run.
        let mut retired = std::mem::take(&mut self.replaced_methods);
        retired.retain(|method| method.upgrade().is_some_and(|it| self.is_in_use(&it)));
        self.replaced_methods = retired;
        let concerns =
            |method: &MethodRef| current.iter().any(|it| it.capability == method.capability);
        let retired =
            self.replaced_methods.iter().filter_map(Weak::upgrade).any(|it| concerns(&it));
        let used: Vec<_> = current.iter().filter(|method| self.is_in_use(method)).collect();
        let in_use = retired || !used.is_empty();
        let mut catalog = ProtocolCatalog::clone(&self.catalog);
        catalog.replace(spec, in_use)?;
        // Only now: a replacement that fails has replaced nothing.
        self.replaced_methods.extend(used.into_iter().map(Arc::downgrade));
        self.publish_catalog(catalog);
        tracing::info!(protocol = %id, in_use, "protocol replaced");
        Ok(())
    }
}

impl Handler<GetCatalog> for ProtocolRegistry {
    type Result = MessageResult<GetCatalog>;

    fn handle(&mut self, _: GetCatalog, _: &mut Self::Context) -> Self::Result {
        MessageResult(Arc::clone(&self.catalog))
    }
}

impl Handler<GetCapabilities> for ProtocolRegistry {
    type Result = Result<Vec<Capability>, TaskError>;

    fn handle(
        &mut self,
        GetCapabilities(id): GetCapabilities,
        _: &mut Self::Context,
    ) -> Self::Result {
        if self.catalog.get(&id).is_none() {
            let message = format!("protocol {id} is not registered");
            return Err(TaskError::new(ErrorCode::ProtocolNotFound, message));
        }
        Ok(self.catalog.capabilities(&id))
    }
}
