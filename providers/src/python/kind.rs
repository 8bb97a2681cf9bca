//! The kind `python`: a provider out of its settings.

use futures_util::FutureExt as _;
use gleitzeit_domain::{provider::ProviderSpec, security::SandboxLevel};
use gleitzeit_sandbox::Preset;
use serde_json::{Map, Value};

use super::{PythonConfig, check_level, spec};
use crate::{
    config::{ConfigProblem, read},
    guarded::Guarded,
    kind::{ProviderKind, ProviderRequest},
    security::{PolicyPreset, SecuritySettings},
};

/// The kind `python` of settings. Its preflight checks that the sandbox level is available.
pub fn kind() -> ProviderKind {
    ProviderKind::new("python", build)
        .preflight(|spec| async move { check_level(&spec).await }.boxed_local())
}

/// `[security]` holds for what the provider's own settings leave out.
fn build(request: &ProviderRequest<'_>) -> Result<ProviderSpec, Vec<ConfigProblem>> {
    let ProviderRequest { id, config, security, guarded } = request;
    let mut own: PythonConfig = read(config)?;
    set_level(&mut own, config, security)?;
    set_network(&mut own, config, security)?;
    if own.launcher.is_none() {
        own.launcher.clone_from(&security.launcher);
    }
    if !config.contains_key("policy") {
        own.policy = match security.policy {
            PolicyPreset::Auto if own.sandbox == SandboxLevel::None => Preset::Basic,
            PolicyPreset::Auto | PolicyPreset::Off => Preset::Off,
            PolicyPreset::Basic => Preset::Basic,
            PolicyPreset::Strict => Preset::Strict,
        };
    }
    if !config.contains_key("file_roots") {
        own.file_roots.clone_from(&security.file_roots);
    }
    own.workflow_file_roots.clone_from(&security.workflow_file_roots);
    check_read_only_paths(&own, guarded)?;
    own.guarded.extend_from_slice(guarded.files());
    own.read_only_paths.extend_from_slice(&security.read_only_paths);
    own.allowed_modules.extend_from_slice(&security.allowed_modules);
    own.blocked_modules.extend_from_slice(&security.blocked_modules);
    spec((*id).clone(), own).map_err(|error| vec![ConfigProblem::refused(&error)])
}

fn set_level(
    own: &mut PythonConfig,
    config: &Map<String, Value>,
    security: &SecuritySettings,
) -> Result<(), Vec<ConfigProblem>> {
    if !config.contains_key("sandbox") {
        own.sandbox = security.sandbox;
    } else if let Some(message) = security.weakness_of(own.sandbox) {
        return Err(vec![ConfigProblem::Refused { path: vec!["sandbox".to_owned()], message }]);
    }
    if own.root.is_none() && own.sandbox == SandboxLevel::Chroot {
        own.root.clone_from(&security.root);
    }
    Ok(())
}

fn set_network(
    own: &mut PythonConfig,
    config: &Map<String, Value>,
    security: &SecuritySettings,
) -> Result<(), Vec<ConfigProblem>> {
    if !config.contains_key("network") {
        own.network = security.network;
    }
    if !config.contains_key("network_allow") {
        let rules: Result<_, String> =
            security.network_allow.iter().map(|rule| rule.parse()).collect();
        own.network_allow = rules.map_err(|message| {
            vec![ConfigProblem::Elsewhere { key: "security.network_allow".to_owned(), message }]
        })?;
    }
    Ok(())
}

/// Rejects a read-only path that contains the database or the settings: tasks would read them.
fn check_read_only_paths(own: &PythonConfig, guarded: &Guarded) -> Result<(), Vec<ConfigProblem>> {
    for (number, path) in own.read_only_paths.iter().enumerate() {
        if let Some(file) = guarded.seen_through(path) {
            let (path, file) = (path.display(), file.display());
            return Err(vec![ConfigProblem::Refused {
                path: vec!["read_only_paths".to_owned(), number.to_string()],
                message: format!(
                    "`{path}` would show tasks `{file}`, which belongs to the service"
                ),
            }]);
        }
    }
    Ok(())
}
