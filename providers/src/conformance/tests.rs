//! A suite that accepts everything proves nothing: each claim is shown to be refused.

use std::cell::{Cell, RefCell};

use async_trait::async_trait;
use gleitzeit_domain::{
    error::TaskError,
    health::HealthReport,
    protocol::{builtin, catalog::ProtocolCatalog},
    provider::{Call, Outcome},
};
use serde_json::json;

use super::*;

/// What is wrong with the provider under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    NamesNothing,
    FactoryPanics,
    InitializesOnce,
    Sickly,
    WrongResult,
    AcceptsAnyMethod,
    StuckAfterDrop,
    MixesCalls,
    PanicsAfterShutdown,
}

struct Flawed {
    flaw: Flaw,
    initialized: Cell<u32>,
    running: Cell<bool>,
    last: RefCell<Value>,
    stopped: Cell<bool>,
}

#[async_trait(?Send)]
impl Provider for Flawed {
    async fn initialize(&self) -> Result<(), TaskError> {
        self.initialized.set(self.initialized.get() + 1);
        if self.flaw == Flaw::InitializesOnce && self.initialized.get() > 1 {
            return Err(TaskError::failed("already there"));
        }
        Ok(())
    }

    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        assert!(self.flaw != Flaw::PanicsAfterShutdown || !self.stopped.get(), "stopped");
        if call.method_name() != "echo" && self.flaw != Flaw::AcceptsAnyMethod {
            return Err(TaskError::new(ErrorCode::MethodNotSupported, "no"));
        }
        if self.flaw == Flaw::StuckAfterDrop && self.running.replace(true) {
            return Err(TaskError::failed("busy"));
        }
        self.last.replace((*call.params).clone());
        tokio::task::yield_now().await;
        self.running.set(false);
        Ok(match self.flaw {
            Flaw::WrongResult => json!({ "n": "wrong" }),
            Flaw::MixesCalls => self.last.borrow().clone(),
            _ => (*call.params).clone(),
        }
        .into())
    }

    async fn health_check(&self) -> HealthReport {
        match self.flaw {
            Flaw::Sickly => HealthReport::unhealthy("cough"),
            _ => HealthReport::healthy(),
        }
    }

    async fn shutdown(&self) {
        self.stopped.set(true);
    }
}

async fn claims_refused(flaw: Flaw) -> Vec<Claim> {
    let mut spec = ProviderSpec::new("flawed", "echo/v1.0", move || {
        assert!(flaw != Flaw::FactoryPanics, "no parts");
        Ok(Flawed {
            flaw,
            initialized: Cell::new(0),
            running: Cell::new(false),
            last: RefCell::new(Value::Null),
            stopped: Cell::new(false),
        })
    })
    .unwrap();
    if flaw == Flaw::NamesNothing {
        spec.protocols.clear();
    }
    let catalog = ProtocolCatalog::builtin();
    let samples = [1, 2].map(|n| {
        let params = json!({ "n": n });
        Sample::new(&catalog, "echo/v1.0:echo", params.clone()).unwrap().returning(params)
    });
    let mut claims: Vec<Claim> = match check(&spec, &samples).await {
        Ok(()) => Vec::new(),
        Err(failures) => failures.0.into_iter().map(|failure| failure.claim).collect(),
    };
    claims.dedup();
    claims
}

/// A provider without a flaw passes; each flaw is found, and nothing else is blamed first.
#[actix_rt::test]
async fn every_claim_can_be_refused() {
    assert_eq!(claims_refused(Flaw::None).await, []);
    for (flaw, claim) in [
        (Flaw::NamesNothing, Claim::Serves),
        (Flaw::FactoryPanics, Claim::Builds),
        (Flaw::InitializesOnce, Claim::Initializes),
        (Flaw::Sickly, Claim::AnswersHealthChecks),
        (Flaw::WrongResult, Claim::Serving),
        (Flaw::AcceptsAnyMethod, Claim::RefusesUnknownMethods),
        (Flaw::StuckAfterDrop, Claim::SurvivesDroppedCalls),
        (Flaw::MixesCalls, Claim::KeepsCallsApart),
        (Flaw::PanicsAfterShutdown, Claim::ShutsDown),
    ] {
        assert_eq!(claims_refused(flaw).await.first(), Some(&claim), "{flaw:?}");
    }
}

/// A sample that the engine would never send says nothing about a provider.
#[test]
fn samples_are_checked_like_calls() {
    let catalog = ProtocolCatalog::builtin();
    let unknown = Sample::new(&catalog, "echo/v1.0:shout", json!({})).unwrap_err();
    assert!(matches!(unknown, SampleError::UnknownMethod { .. }), "{unknown}");
    let wrong = Sample::new(&catalog, "echo/v1.0:sleep", json!({ "seconds": "x" })).unwrap_err();
    assert!(wrong.to_string().contains("seconds"), "{wrong}");
    let filled = Sample::new(&catalog, "llm/v1.0:embed", json!({ "text": "x" })).unwrap();
    let default = builtin::llm().methods["embed"].params_schema["model"].default.clone();
    assert_eq!(filled.call("t").param("model"), default.as_ref());
}
