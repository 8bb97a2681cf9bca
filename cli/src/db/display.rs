//! What is in a database, for a person.

use std::{fmt::Write as _, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use gleitzeit::storage::admin::{Contents, Holder, Size, Span, Status};

use super::output;

/// The text of `db status`.
pub(super) fn status(status: &Status) -> String {
    let Status { url, database, schema, size: bytes, contents } = status;
    let mut table = output::table(["database", url]);
    let mut row = |name: &str, text: String| {
        table.add_row([name, &text]);
    };
    row("kind", database.clone());
    let version = schema.version.as_deref().unwrap_or("none: it has no tables of gleitzeit");
    row("schema", version.to_owned());
    if !schema.pending.is_empty() {
        row("to be applied", format!("{}; see `gleitzeit db migrate`", schema.pending.join(", ")));
    }
    if !schema.newer.is_empty() {
        let newer = schema.newer.join(", ");
        row("of a newer program", format!("{newer}; this one cannot read the rest"));
    }
    row("size", size(bytes));
    for (name, bytes) in &bytes.tables {
        row("", format!("{name} {}", amount(*bytes)));
    }
    if let Some(contents) = contents {
        add(contents, &mut row);
    }
    let mut text = table.trim_fmt();
    if let Some(contents) = contents {
        text.push_str(&leases(contents));
    }
    text
}

fn add(contents: &Contents, row: &mut impl FnMut(&str, String)) {
    let Contents { workflows, tasks, unowned, blobs, requests, unsettled, settled, .. } = contents;
    let counts: Vec<String> = workflows
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    row("workflows", if counts.is_empty() { "none".into() } else { counts.join(", ") });
    row("tasks", tasks.to_string());
    row("blobs", blobs.to_string());
    row("owned by nobody", format!("{unowned} workflows that are not settled"));
    row("requests", format!("{requests} not answered"));
    row("not settled", span(*unsettled, "submitted"));
    row("settled", span(*settled, "settled"));
}

/// The processes that hold leases, as a table.
fn leases(contents: &Contents) -> String {
    if contents.leases.is_empty() {
        return "\n\nno process holds a lease".into();
    }
    let mut table = output::table(["lease", "process", "owner", "alive", "runs out in", "owns"]);
    for holder in &contents.leases {
        let Holder { epoch, owner, process_id, is_alive, is_idle, runs_out_in, workflows } = holder;
        table.add_row([
            epoch.to_string(),
            process_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            owner.clone(),
            match (is_idle, is_alive) {
                (true, _) => "idle",
                (false, true) => "yes",
                (false, false) => "no",
            }
            .to_owned(),
            runs_out_in.map_or_else(|| "-".to_owned(), seconds),
            workflows.to_string(),
        ]);
    }
    let mut text = String::from("\n\n");
    let _ = write!(text, "{}", table.trim_fmt());
    text
}

/// A size in one line.
pub(super) fn size(size: &Size) -> String {
    let mut text = amount(size.bytes);
    if let Some(unused) = size.unused_bytes {
        let _ = write!(text, ", of which {} are unused", amount(unused));
    }
    if let Some(log) = size.log_bytes {
        let _ = write!(text, ", and a log of {}", amount(log));
    }
    text
}

fn amount(bytes: u64) -> String {
    const STEPS: [(&str, u64); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, bits) in STEPS {
        if bytes >> bits > 0 {
            let tenths = (bytes >> (bits - 10)) * 10 / 1024;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} bytes")
}

fn span(span: Option<Span>, what: &str) -> String {
    match span {
        None => "none".into(),
        Some(Span { oldest, newest }) => {
            format!("{what} from {} to {}", time(oldest), time(newest))
        }
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_down_to_tenths() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
    }
}
