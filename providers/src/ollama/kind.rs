//! The kind `ollama`: a provider out of its settings, and of `OLLAMA_HOST`, which Ollama's own
//! client goes by.

use gleitzeit_domain::provider::ProviderSpec;

use super::{OllamaConfig, spec};
use crate::{
    config::{ConfigProblem, read},
    kind::{ProviderKind, ProviderRequest},
};

/// The kind `ollama` of settings.
pub fn kind() -> ProviderKind {
    ProviderKind::new("ollama", build)
}

/// `[security]` holds for what the provider's own settings leave out.
fn build(request: &ProviderRequest<'_>) -> Result<ProviderSpec, Vec<ConfigProblem>> {
    let ProviderRequest { id, config, security, guarded } = request;
    let mut own: OllamaConfig = read(config)?;
    if !config.contains_key("base_url")
        && let Ok(host) = std::env::var("OLLAMA_HOST")
        && !host.trim().is_empty()
    {
        own.base_url = url_of(host.trim());
    }
    if !config.contains_key("file_roots") {
        own.file_roots.clone_from(&security.file_roots);
    }
    own.workflow_file_roots.clone_from(&security.workflow_file_roots);
    own.guarded.extend_from_slice(guarded.files());
    spec((*id).clone(), own).map_err(|error| vec![ConfigProblem::refused(&error)])
}

/// The port of a server that names none.
const PORT: u16 = 11_434;

/// The address that `OLLAMA_HOST` means: a host, a port or both, with or without a scheme. A server
/// that listens everywhere is reached on this machine.
fn url_of(host: &str) -> String {
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let has_port = authority.rsplit_once(':').is_some_and(|(before, port)| {
        !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()) && !before.ends_with(':')
    });
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if has_port => (name, format!(":{port}")),
        // With a scheme, the port is the scheme's own.
        _ if host.contains("://") => (authority, String::new()),
        _ => (authority, format!(":{PORT}")),
    };
    let name = match name {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        name => name,
    };
    let path = path.trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{name}{port}{slash}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms that Ollama's own client takes.
    #[test]
    fn a_host_becomes_an_address() {
        for (host, url) in [
            ("gpu", "http://gpu:11434"),
            ("gpu:8080", "http://gpu:8080"),
            (":8080", "http://127.0.0.1:8080"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("[::1]", "http://[::1]:11434"),
            ("https://models.example", "https://models.example"),
            ("http://gpu:8080/ollama/", "http://gpu:8080/ollama"),
        ] {
            assert_eq!(url_of(host), url, "{host}");
            assert!(OllamaConfig { base_url: url_of(host), ..Default::default() }.check().is_ok());
        }
    }
}
