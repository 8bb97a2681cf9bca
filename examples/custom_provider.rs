//! Providers of your own: a protocol, a provider with a health check, a provider that is one closure,
//! and a strategy that chooses between the two.
//!
//!     cargo run --example custom_provider
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{cell::Cell, collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use gleitzeit::{
    Call, Candidate, Effect, ErrorCode, EventFilter, HealthReport, LoadBalancingStrategy,
    MethodSpec, Outcome, ParameterSpec, PickContext, ProtocolSpec, Provider, ProviderSpec, Runtime,
    Settings, TaskError, TaskSpec, WorkflowSpec, async_trait,
};
use serde_json::json;

/// Workflows that are run.
pub(crate) const CITIES: [&str; 4] = ["Bremen", "Atlantis", "Kyoto", "Lima"];

/// What can be asked. Parameters are checked before a provider sees them, results after.
fn weather() -> ProtocolSpec {
    let forecast = MethodSpec {
        effect: Effect::Pure,
        ..MethodSpec::new("forecast")
            .param("city", ParameterSpec::string().min_length(1))
            .returns(ParameterSpec::object([("celsius", ParameterSpec::number())]))
    };
    ProtocolSpec::new("weather", "v1.0".parse().expect("a version")).method(forecast)
}

/// A provider with a state. It lives on one thread, so a `Cell` will do.
#[derive(Default)]
struct Station {
    unknown_cities: Cell<u32>,
}

#[async_trait(?Send)]
impl Provider for Station {
    /// The error's code decides whether the runtime tries again; this one is final.
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        let celsius = match call.param("city").and_then(|city| city.as_str()) {
            Some("Bremen") => 11.5,
            Some("Kyoto") => 19.0,
            Some("Lima") => 22.5,
            city => {
                self.unknown_cities.set(self.unknown_cities.get() + 1);
                let message = format!("no station in {}", city.unwrap_or("no city"));
                return Err(TaskError::new(ErrorCode::TaskExecutionFailed, message));
            }
        };
        Ok(Outcome::from(json!({ "celsius": celsius })))
    }

    /// Asked at intervals. What is degraded gets calls only when nothing healthy is there; what
    /// fails its checks in a row is replaced by a new instance.
    async fn health_check(&self) -> HealthReport {
        match self.unknown_cities.get() {
            0..100 => HealthReport::healthy(),
            many => HealthReport::degraded(format!("asked for {many} unknown cities")),
        }
    }
}

/// Prefers the provider whose id comes first in the alphabet.
struct Alphabetical;

impl LoadBalancingStrategy for Alphabetical {
    fn name(&self) -> &'static str {
        "alphabetical"
    }

    fn select(&mut self, candidates: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        let first = candidates.iter().enumerate().min_by_key(|(_, candidate)| candidate.id);
        first.map_or(0, |(index, _)| index)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for (city, forecast) in run().await? {
        println!("{city}: {forecast}");
    }
    Ok(())
}

/// The forecast of each city.
pub(crate) async fn run() -> Result<BTreeMap<&'static str, String>, Box<dyn Error>> {
    let settings = Settings::from_toml(
        "[storage]\nurl = \"memory\"\n[balancing.protocols]\nweather = \"alphabetical\"",
    )?;
    let station = ProviderSpec::new("station", "weather/v1.0", || Ok(Station::default()))?;
    let almanac = ProviderSpec::from_fn("almanac", "weather/v1.0", |_| async {
        Ok(json!({ "celsius": 14 }))
    })?;
    let runtime = Runtime::builder(settings)
        .without_settings_providers()
        .protocol(weather())
        .strategy("alphabetical", Arc::new(|_| Box::new(Alphabetical)))
        .provider(station)
        .start()
        .await?;
    let handle = runtime.handle();
    let types = vec!["provider:healthy".into()];

    let mut forecasts = BTreeMap::new();
    for city in CITIES {
        let task = TaskSpec::new("ask", "weather/forecast").params(json!({ "city": city }));
        let ended = handle.run(WorkflowSpec::new("forecast").task(task)).await?;
        let task = &ended.tasks[0];
        let by = task.provider_id.as_ref().map_or("nobody", |id| id.as_str());
        let answer = match (&task.result, &task.error) {
            (Some(result), _) => format!("{} °C, says {by}", result["celsius"]),
            (None, Some(error)) => error.to_string(),
            (None, None) => task.status.to_string(),
        };
        forecasts.insert(city, answer);
        // Providers may be added at run time. From now on there are two, and the strategy chooses.
        if city == "Kyoto" {
            let filter = EventFilter { types: types.clone(), ..EventFilter::default() };
            let mut started = handle.subscribe(filter).await?;
            handle.register_provider(almanac.clone()).await?;
            started.next().await;
        }
    }
    runtime.stop(Duration::from_secs(5)).await;
    Ok(forecasts)
}
