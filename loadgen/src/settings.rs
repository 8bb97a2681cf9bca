//! The settings, with the options of the command line over them.

use gleitzeit::{
    Runtime, Settings, WaitPolicy,
    runtime::RuntimeBuilder,
    settings::{Durability, Sources, StoreUrl},
};

use crate::{
    options::Options,
    output::{self, Failure},
    python,
};

/// Reads the settings and starts logging.
///
/// # Errors
/// Everything wrong with the settings.
pub(crate) fn load(options: &Options) -> Result<Settings, Failure> {
    let mut sources = Sources::of_process();
    if let Some(file) = &options.config {
        sources = sources.with_file(file.clone());
    }
    let store = options.store.clone().unwrap_or_else(StoreUrl::memory);
    // Read as the variable would be, so that paths that tasks may read are checked against it.
    sources = sources.with_variables([("GLEITZEIT__STORAGE__URL", store.expose())]);
    let mut settings = sources.load()?;
    settings.storage.url = settings.storage.url();
    output::start_log(&settings.logging, options.verbose)?;
    for warning in &settings.warnings {
        output::warn(warning);
    }
    settings.storage.durability = match options.args.durability.as_str() {
        "normal" => Durability::Normal,
        _ => Durability::Full,
    };
    settings.engine.max_concurrent_tasks = options.args.max_concurrent_tasks;
    python::set(&options.args, &mut settings)?;
    Ok(settings)
}

/// A runtime without recovery, with the providers of the settings that serve `protocol`.
///
/// # Errors
/// Invalid settings of a provider.
#[cfg_attr(not(feature = "python"), allow(dead_code, reason = "for the workload `python` alone"))]
pub(crate) fn builder_for(settings: &Settings, protocol: &str) -> anyhow::Result<RuntimeBuilder> {
    let mut builder = Runtime::builder(settings.clone())
        .without_recovery()
        .without_settings_providers()
        .wait_policy(WaitPolicy::OnceForAbsent);
    let mut settings = settings.clone();
    for provider in settings.providers.values_mut().filter(|it| it.kind == "python") {
        // As `gleitzeit run`: no interpreter starts before a task asks for one.
        provider.config.0.entry("prefork").or_insert(false.into());
    }
    for provider in settings.provider_specs()? {
        let own = provider.capabilities.iter().map(|it| &it.protocol);
        if own.chain(&provider.protocols).any(|it| it.name() == protocol) {
            builder = builder.provider(provider);
        }
    }
    Ok(builder)
}
