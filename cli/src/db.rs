//! `db`: inspects and maintains the database itself.

mod display;
mod move_all;

use gleitzeit::storage::admin::{self, Checked, Finding, MigrationPlan};
use serde_json::json;

use super::{
    Outcome,
    args::Db,
    output::{self, Exit, Failure},
    session::Session,
};

/// Findings that a JSON document holds; the rest are counted.
const FINDINGS_MAX: usize = 1_000;

/// Does one thing with the database of the settings.
pub(crate) async fn db(session: &Session, command: Db) -> Outcome {
    if session.settings.storage.url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is no database; name one with --store".to_owned(),
        ));
    }
    match command {
        Db::Status => status(session).await,
        Db::Check => check(session).await,
        Db::Migrate { plan: true } => plan(session).await,
        Db::Migrate { plan: false } => migrate(session).await,
        Db::Vacuum => vacuum(session).await,
        Db::Export { file } => move_all::export(session, &file).await,
        Db::Import { file } => move_all::import(session, &file).await,
    }
}

async fn status(session: &Session) -> Outcome {
    let status = admin::status(&session.settings.storage.url).await?;
    if session.json {
        output::document(&status);
    } else {
        output::text(display::status(&status));
    }
    Ok(Exit::Success)
}

async fn check(session: &Session) -> Outcome {
    let mut findings = Vec::new();
    let json = session.json;
    let mut on_finding = |finding: Finding| {
        if !json {
            output::text(&finding);
        } else if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        }
    };
    let checked = admin::check(&session.settings.storage.url, &mut on_finding).await?;
    let Checked { workflows, tasks, events, blobs, .. } = &checked;
    let count: u64 = checked.findings.values().sum();
    if json {
        output::document(&json!({
            "sound": checked.is_consistent(), "checked": checked, "findings": findings,
        }));
    } else {
        output::text(format_args!(
            "{}: {} in {workflows} workflows, {tasks} rows of tasks, {events} events, {blobs} blobs",
            session.settings.storage.url,
            if count == 0 { "nothing wrong".to_owned() } else { format!("{count} findings") },
        ));
    }
    Ok(if checked.is_consistent() { Exit::Success } else { Exit::Failed })
}

async fn plan(session: &Session) -> Outcome {
    let url = &session.settings.storage.url;
    let MigrationPlan { pending, makes_file } = admin::plan_migration(url).await?;
    if session.json {
        output::document(&json!({ "pending": pending, "makes_file": makes_file }));
    } else if pending.is_empty() {
        output::text(format_args!("{url}: up to date already"));
    } else {
        let file = if makes_file { "make the file and " } else { "" };
        output::text(format_args!("{url}: would {file}apply {}", pending.join(", ")));
    }
    Ok(Exit::Success)
}

async fn migrate(session: &Session) -> Outcome {
    let url = &session.settings.storage.url;
    let applied = admin::migrate(url).await?;
    if session.json {
        output::document(&json!({ "applied": applied }));
    } else if applied.is_empty() {
        output::text(format_args!("{url}: up to date already"));
    } else {
        output::text(format_args!("{url}: applied {}", applied.join(", ")));
    }
    Ok(Exit::Success)
}

async fn vacuum(session: &Session) -> Outcome {
    let url = &session.settings.storage.url;
    let vacuumed = admin::vacuum(url).await?;
    if session.json {
        output::document(&vacuumed);
    } else {
        let (before, after) = (display::size(&vacuumed.before), display::size(&vacuumed.after));
        output::text(format_args!("{url}: {before} before, {after} after"));
    }
    Ok(Exit::Success)
}
