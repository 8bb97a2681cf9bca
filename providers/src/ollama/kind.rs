//! The kind `ollama`: a provider out of its settings.

use gleitzeit_domain::provider::ProviderSpec;

use super::{OllamaConfig, spec};
use crate::{
    config::{ConfigProblem, read},
    kinds::{ProviderKind, ProviderRequest},
};

/// The kind `ollama` of settings.
pub fn kind() -> ProviderKind {
    ProviderKind::new("ollama", build)
}

/// `[security]` holds for what the provider's own settings leave out.
fn build(request: &ProviderRequest<'_>) -> Result<ProviderSpec, Vec<ConfigProblem>> {
    let ProviderRequest { id, config, security, guarded } = request;
    let mut own: OllamaConfig = read(config)?;
    if !config.contains_key("file_roots") {
        own.file_roots.clone_from(&security.file_roots);
    }
    own.place_roots.clone_from(&security.place_roots);
    own.guarded.extend_from_slice(guarded.files());
    spec((*id).clone(), own).map_err(|error| vec![ConfigProblem::refused(&error)])
}
