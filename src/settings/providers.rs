//! Providers out of their settings: each built by its kind, with what `[security]` and
//! `[supervision]` say.
//!
//! Asked when settings are loaded, so that every mistake is found at once, and when the runtime
//! starts.

use gleitzeit_domain::{
    id::ProviderId,
    provider::{ProviderSpec, Supervision},
};
use gleitzeit_providers::{config::ConfigProblem, kinds::ProviderRequest};

use super::{ProviderSettings, Settings, SettingsError, SettingsProblem, path, problem::explain};

impl Settings {
    /// The enabled providers, ready to be started.
    ///
    /// # Errors
    /// [`SettingsError`] with everything wrong in any provider's `config`, and with every kind
    /// that is unknown or not in this build.
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
        let key = format!("providers.{}", path::key(id.as_str()));
        let Some(kind) = self.provider_kinds.get(&provider.kind) else {
            return Err(vec![self.unknown_kind(&key, &provider.kind)]);
        };
        let guarded = self.guarded();
        let request = ProviderRequest {
            id,
            config: &provider.config.0,
            security: &self.security,
            guarded: &guarded,
        };
        let mut spec = match kind.build(&request) {
            Some(built) => {
                let at = |problem| located(&key, problem);
                built.map_err(|problems| problems.into_iter().map(at).collect::<Vec<_>>())?
            }
            None => return Err(vec![not_built(&key, kind.name())]),
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

    fn unknown_kind(&self, key: &str, kind: &str) -> SettingsProblem {
        let names: Vec<_> =
            self.provider_kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
        let error = format!("unknown variant `{kind}`, expected one of {}", names.join(", "));
        explain(format!("{key}.kind"), &error)
    }
}

/// The same problem with its whole key.
fn located(key: &str, problem: ConfigProblem) -> SettingsProblem {
    let at = |path: &[String]| match path {
        [] => format!("{key}.config"),
        path => format!("{key}.config.{}", path::written(path)),
    };
    match problem {
        ConfigProblem::Unreadable { path, message } => explain(at(&path), &message),
        ConfigProblem::Refused { path, message } => SettingsProblem::new(at(&path), message),
        ConfigProblem::Elsewhere { key, message } => SettingsProblem::new(key, message),
    }
}

fn not_built(key: &str, kind: &str) -> SettingsProblem {
    SettingsProblem::new(key, format!("this build has no providers of kind `{kind}`"))
        .help("build it with the feature, or set `enabled = false`")
}
