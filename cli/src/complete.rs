//! Completions that a shell asks the program for: ids of stored workflows, protocols and methods.
//!
//! A shell prints no errors here: settings or a store that cannot be read complete nothing.

use std::{env, ffi::OsStr};

use clap_complete::CompletionCandidate;
use gleitzeit::{
    protocol_files, runtime,
    settings::{Settings, Sources},
};
use gleitzeit_domain::{printable, protocol::catalog::ProtocolCatalog, store::ListFilter};

use super::{ids::LAST, project};

/// The most candidates that are returned.
const CANDIDATES_MAX: usize = 50;

/// The settings in force, without the options of the command line that is being written.
fn settings() -> Option<Settings> {
    let mut sources = Sources::of_process();
    match env::var_os("GLEITZEIT_CONFIG").filter(|file| !file.is_empty()) {
        Some(file) => sources = sources.with_file(file),
        None => {
            if let Some(file) = project::find().ok()? {
                sources = sources.with_project_file(file.path, file.text);
            }
        }
    }
    if let Ok(store) = env::var("GLEITZEIT_STORE") {
        sources = sources.with_variables([("GLEITZEIT__STORAGE__URL", store)]);
    }
    sources.load().ok()
}

/// The ids of stored workflows that begin so: the newest first, then any.
pub(crate) fn ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(prefix) = current.to_str() else { return Vec::new() };
    let mut found = stored(prefix).unwrap_or_default();
    if LAST.starts_with(prefix) {
        found.push(CompletionCandidate::new(LAST).help(Some("the newest workflow".into())));
    }
    found
}

fn stored(prefix: &str) -> Option<Vec<CompletionCandidate>> {
    let settings = settings()?;
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    threads.block_on(async {
        let store = runtime::open_existing_store(&settings).await.ok()??;
        let filter = ListFilter { limit: CANDIDATES_MAX, ..ListFilter::default() };
        let newest = store.list(filter).await.ok()?;
        let begins = newest.iter().filter(|it| it.id.as_str().starts_with(prefix));
        let described = |id: &str, name: &str, status: &str| {
            let help = printable::line(&format!("{name}, {status}")).into_owned();
            CompletionCandidate::new(id.to_owned()).help(Some(help.into()))
        };
        let mut found: Vec<CompletionCandidate> =
            begins.map(|it| described(it.id.as_str(), &it.name, it.status.as_str())).collect();
        if found.is_empty() && !prefix.is_empty() {
            let ids = store.ids(prefix, CANDIDATES_MAX).await.ok()?;
            found = ids.iter().map(|id| CompletionCandidate::new(id.as_str().to_owned())).collect();
        }
        Some(found)
    })
}

fn catalog() -> Option<ProtocolCatalog> {
    let mut catalog = ProtocolCatalog::builtin();
    if let Some(settings) = settings()
        && let Ok(specs) = protocol_files::load_dir(&settings.protocols.directory)
    {
        catalog.register_all(specs).ok()?;
    }
    Some(catalog)
}

/// Protocols, as `name/version`.
pub(crate) fn protocols(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(catalog) = catalog() else { return Vec::new() };
    let names = catalog.list().map(|spec| spec.protocol_id().to_string());
    beginning(current, names.collect())
}

/// The methods of all protocols.
pub(crate) fn methods(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(catalog) = catalog() else { return Vec::new() };
    let methods = catalog.list().flat_map(|spec| spec.methods.keys().cloned());
    beginning(current, methods.collect())
}

fn beginning(current: &OsStr, mut all: Vec<String>) -> Vec<CompletionCandidate> {
    let prefix = current.to_str().unwrap_or_default();
    all.retain(|text| text.starts_with(prefix));
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(CompletionCandidate::new).collect()
}
