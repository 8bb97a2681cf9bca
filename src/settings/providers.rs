//! Providers out of their settings: each kind's `config` read strictly, and what `[security]` and
//! `[supervision]` say added to it.
//!
//! Asked when settings are loaded, so that every mistake is told at once, and when the runtime
//! starts.

#[cfg(feature = "python")]
use gleitzeit_domain::security::SandboxLevel;
use gleitzeit_domain::{
    id::ProviderId,
    provider::{ProviderSpec, Supervision},
};
#[cfg(feature = "python")]
use gleitzeit_sandbox::Preset;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[cfg(feature = "python")]
use super::PolicyPreset;
use super::{
    ProviderKind, ProviderSettings, Settings, SettingsError, SettingsProblem, path,
    problem::explain,
};
use crate::providers;

impl Settings {
    /// The providers that are not left out, ready to be started.
    ///
    /// # Errors
    /// [`SettingsError`] with everything wrong in any provider's `config`, and with every kind
    /// that this build does not have.
    pub fn provider_specs(&self) -> Result<Vec<ProviderSpec>, SettingsError> {
        let mut specs = Vec::new();
        let mut problems = Vec::new();
        for (id, provider) in self.enabled_providers() {
            match self.provider_spec(id, provider) {
                Ok(spec) => specs.push(spec),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(specs) } else { Err(SettingsError { problems }) }
    }

    fn provider_spec(
        &self,
        id: &ProviderId,
        provider: &ProviderSettings,
    ) -> Result<ProviderSpec, Vec<SettingsProblem>> {
        let place = format!("providers.{}", path::key(id.as_str()));
        let mut spec = match provider.kind {
            ProviderKind::Echo => {
                let NoConfig {} = read(&place, &provider.config.0)?;
                providers::echo::spec(id.clone())
            }
            ProviderKind::Ollama => self.ollama(id, &place, &provider.config.0)?,
            ProviderKind::Python => self.python(id, &place, &provider.config.0)?,
        };
        spec.weight = provider.weight;
        if let Some(limit) = provider.max_concurrent {
            spec.max_concurrent = Some(limit.get());
        }
        // A kind that asks for more time gets it, unless the settings of this provider say less.
        spec.supervise_by_default(self.supervision.over(Supervision::default()));
        let supervision = provider.supervision.over(spec.supervision);
        Ok(spec.supervision(supervision))
    }

    #[cfg(feature = "ollama")]
    fn ollama(
        &self,
        id: &ProviderId,
        place: &str,
        config: &Map<String, Value>,
    ) -> Result<ProviderSpec, Vec<SettingsProblem>> {
        let mut own: providers::ollama::OllamaConfig = read(place, config)?;
        if !config.contains_key("file_roots") {
            own.file_roots.clone_from(&self.security.file_roots);
        }
        own.place_roots.clone_from(&self.security.place_roots);
        own.guarded.extend_from_slice(self.guarded().files());
        providers::ollama::spec(id.clone(), own).map_err(|error| vec![refused(place, &error)])
    }

    #[cfg(not(feature = "ollama"))]
    fn ollama(
        &self,
        _: &ProviderId,
        place: &str,
        _: &Map<String, Value>,
    ) -> Result<ProviderSpec, Vec<SettingsProblem>> {
        Err(vec![not_built(place, "ollama")])
    }

    /// What `[security]` says holds where the provider's own settings say nothing.
    #[cfg(feature = "python")]
    fn python(
        &self,
        id: &ProviderId,
        place: &str,
        config: &Map<String, Value>,
    ) -> Result<ProviderSpec, Vec<SettingsProblem>> {
        let mut own: providers::python::PythonConfig = read(place, config)?;
        let general = &self.security;
        if !config.contains_key("sandbox") {
            own.sandbox = general.sandbox;
        } else if let Some(message) = self.weakness_of(own.sandbox) {
            let key = format!("{place}.config.sandbox");
            return Err(vec![SettingsProblem::new(key, message)]);
        }
        if !config.contains_key("network") {
            own.network = general.network;
        }
        if !config.contains_key("network_allow") {
            let rules: Result<_, String> =
                general.network_allow.iter().map(|rule| rule.parse()).collect();
            let key = "security.network_allow";
            own.network_allow =
                rules.map_err(|message| vec![SettingsProblem::new(key, message)])?;
        }
        if own.root.is_none() && own.sandbox == SandboxLevel::Chroot {
            own.root.clone_from(&general.root);
        }
        if own.launcher.is_none() {
            own.launcher.clone_from(&general.launcher);
        }
        if !config.contains_key("policy") {
            own.policy = match general.policy {
                PolicyPreset::Auto if own.sandbox == SandboxLevel::None => Preset::Basic,
                PolicyPreset::Auto | PolicyPreset::Off => Preset::Off,
                PolicyPreset::Basic => Preset::Basic,
                PolicyPreset::Strict => Preset::Strict,
            };
        }
        if !config.contains_key("file_roots") {
            own.file_roots.clone_from(&general.file_roots);
        }
        own.place_roots.clone_from(&general.place_roots);
        let guarded = self.guarded();
        for (number, shown) in own.shown.iter().enumerate() {
            if let Some(file) = guarded.seen_through(shown) {
                let (shown, file) = (shown.display(), file.display());
                return Err(vec![SettingsProblem::new(
                    format!("{place}.config.shown.{number}"),
                    format!("`{shown}` would show tasks `{file}`, which belongs to the service"),
                )]);
            }
        }
        own.guarded.extend_from_slice(guarded.files());
        own.shown.extend_from_slice(&general.shown);
        own.allowed_modules.extend_from_slice(&general.allowed_modules);
        own.blocked_modules.extend_from_slice(&general.blocked_modules);
        providers::python::spec(id.clone(), own).map_err(|error| vec![refused(place, &error)])
    }

    #[cfg(not(feature = "python"))]
    fn python(
        &self,
        _: &ProviderId,
        place: &str,
        _: &Map<String, Value>,
    ) -> Result<ProviderSpec, Vec<SettingsProblem>> {
        Err(vec![not_built(place, "python")])
    }
}

/// A kind's own refusal, which begins with the key: `base_url: …`.
#[cfg(any(feature = "ollama", feature = "python"))]
fn refused(place: &str, error: &impl ToString) -> SettingsProblem {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((key, message)) => SettingsProblem::new(format!("{place}.config.{key}"), message),
        None => SettingsProblem::new(format!("{place}.config"), text),
    }
}

/// The `config` of a kind that has none.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

/// Reads a `config`; a key that cannot be read is noted and left out, and the reading begins
/// again.
fn read<T: DeserializeOwned>(
    place: &str,
    config: &Map<String, Value>,
) -> Result<T, Vec<SettingsProblem>> {
    let mut config = config.clone();
    let mut problems = Vec::new();
    loop {
        let tree = Value::Object(config.clone());
        let error = match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(read) if problems.is_empty() => return Ok(read),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let steps = super::load::steps(error.path());
        let at = match steps.as_slice() {
            [] => format!("{place}.config"),
            steps => format!("{place}.config.{}", path::written(steps)),
        };
        problems.push(explain(at, &error.into_inner().to_string()));
        let left_out = steps.first().and_then(|first| config.remove(first));
        if left_out.is_none() {
            return Err(problems);
        }
    }
}

#[cfg(any(not(feature = "ollama"), not(feature = "python")))]
fn not_built(place: &str, kind: &str) -> SettingsProblem {
    SettingsProblem::new(place, format!("this build has no providers of kind `{kind}`"))
        .help("build it with the feature, or set `enabled = false`")
}
