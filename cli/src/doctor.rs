//! `gleitzeit doctor`: what this machine offers for keeping Python code apart, the level that
//! results for each provider of the settings, what is missing and how to get it.

use std::path::PathBuf;

use gleitzeit::{
    providers::python::{self, Diagnosis},
    sandbox::{EngineWanted, Finding, machine},
};
use gleitzeit_sandbox::JailSettings;
use serde::Serialize;

use super::{
    Outcome,
    output::{self, Exit},
    session::Session,
};

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// True when every Python provider of the settings can run its tasks.
    healthy: bool,
    /// The files that the settings were read from; `config --json` has them for a program.
    #[serde(skip)]
    settings: Vec<PathBuf>,
    machine: Vec<Finding>,
    python: Vec<Diagnosis>,
}

/// Inspects the machine, tries every provider's sandbox out, and prints a report.
///
/// # Errors
/// Everything wrong with the settings.
pub(crate) async fn doctor(session: &Session) -> Outcome {
    let security = &session.settings.security;
    let jail = JailSettings { launcher: security.launcher.clone(), ..JailSettings::default() };
    let specs = session.settings.provider_specs()?;
    // One line for the machine; each provider has one of its own besides.
    #[cfg(feature = "docker")]
    let wanted = specs.iter().find_map(python::containers);
    #[cfg(not(feature = "docker"))]
    let wanted: Option<(String, String)> = None;
    let engine = wanted.map_or_else(EngineWanted::default, |(address, image)| EngineWanted {
        address: Some(address),
        image: Some(image),
    });
    let machine = machine::inspect(&jail, &engine).await;
    let mut report = Report {
        healthy: true,
        settings: session.settings.read_from.clone(),
        machine,
        python: Vec::new(),
    };
    for spec in specs {
        report.python.extend(python::diagnose(&spec).await);
    }
    report.healthy = report.python.iter().all(|it| it.error.is_none());
    let exit = if report.healthy { Exit::Success } else { Exit::Infrastructure };
    if session.json {
        output::document(&report);
    } else {
        print_report(&report);
    }
    Ok(exit)
}

fn print_report(report: &Report) {
    match report.settings.as_slice() {
        [] => output::text("settings: the defaults; no file was found"),
        files => {
            for file in files {
                output::text(format_args!("settings: {}", file.display()));
            }
        }
    }
    output::text("");
    let mut table = output::table(["this machine", "", "found", "what to do"]);
    for finding in &report.machine {
        table.add_row([
            finding.name,
            if finding.available { "yes" } else { "no" },
            &finding.detail,
            finding.remedy.unwrap_or(""),
        ]);
    }
    output::text(table.trim_fmt());
    output::text("");
    let mut table = output::table(["provider", "Python", "level", "self-test"]);
    for it in &report.python {
        let self_test = it.self_test.as_ref().map(ToString::to_string);
        table.add_row([
            it.provider.to_string(),
            format!("{} {}", it.version.as_deref().unwrap_or("-"), it.interpreter.display()),
            it.level.unwrap_or("-").to_owned(),
            it.error.clone().or(self_test).unwrap_or_else(|| "nothing keeps tasks in".to_owned()),
        ]);
    }
    output::text(table.trim_fmt());
}
