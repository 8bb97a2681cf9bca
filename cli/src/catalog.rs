//! The catalog of protocols: those built in, those of the settings' directory, and those of files
//! that the command line names.

use std::path::{Path, PathBuf};

use gleitzeit::protocol_files::{self, ProtocolFileError};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    protocol::{ProtocolSpec, catalog::ProtocolCatalog},
};

use super::output::{Exit, Failure};

/// Reads the protocols below `directory` and those of `files`, and registers all of them.
///
/// # Errors
/// Everything wrong in any of the files.
pub(crate) fn read(directory: &Path, files: &[PathBuf]) -> Result<ProtocolCatalog, Failure> {
    let mut catalog = ProtocolCatalog::builtin();
    let found = protocol_files::load_dir(directory);
    let specs = found.map_err(|errors| {
        let reports: Vec<String> = errors.iter().map(ProtocolFileError::report).collect();
        invalid(&reports)
    })?;
    register(&mut catalog, specs, Vec::new())?;
    let mut specs = Vec::new();
    let mut reports = Vec::new();
    for file in files {
        match protocol_files::load(file) {
            Ok(spec) => specs.push(spec),
            Err(error) => reports.push(error.report()),
        }
    }
    register(&mut catalog, specs, reports)?;
    Ok(catalog)
}

/// Registers protocols, each of which may extend any other, unless `reports` name an error already.
fn register(
    catalog: &mut ProtocolCatalog,
    specs: Vec<ProtocolSpec>,
    mut reports: Vec<String>,
) -> Result<(), Failure> {
    if reports.is_empty() {
        match catalog.register_all(specs) {
            Ok(_) => return Ok(()),
            Err(errors) => reports.extend(errors.iter().map(ToString::to_string)),
        }
    }
    Err(invalid(&reports))
}

fn invalid(reports: &[String]) -> Failure {
    let text = reports.join("\n");
    Failure::new(Exit::Usage, TaskError::new(ErrorCode::ParseError, text))
}
