//! Fields that workflows, tasks and batches have in common.

use gleitzeit_domain::{
    error::ErrorCode,
    retry::{AnyError, Backoff, RetryOn, RetryPolicy},
    task::Priority,
};

use super::{
    decode,
    findings::Findings,
    keys::{self, Fields},
    node::{Entry, Kind, Node},
    span::Span,
};

/// Reports that a key is missing, unless a reported unknown key was probably meant to be it.
pub(super) fn missing(
    fields: &Fields<'_>,
    what: &str,
    key: &str,
    example: &str,
    findings: &mut Findings,
) {
    if fields.is_meant(key) {
        return;
    }
    let found = format!("{what} needs `{key}`");
    findings.error_with_help(fields.location, found, format!("add `{example}`"));
}

/// A name, or a number from 0 (urgent) to 3 (low), also in quotes.
pub(super) fn priority(fields: &Fields<'_>, findings: &mut Findings) -> Priority {
    let Some(entry) = fields.get("priority") else { return Priority::default() };
    let number = match &entry.value.kind {
        Kind::Number(number, _) => number.as_u64(),
        Kind::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    if let Some(priority) = number.and_then(|number| Priority::ALL.get(number)) {
        return *priority;
    }
    if let Kind::Number(..) = entry.value.kind {
        decode::refuse(entry, "a number from 0 (urgent) to 3 (low)", findings);
        return Priority::default();
    }
    let choices = Priority::ALL.map(|priority| (priority.as_str(), priority));
    decode::choice(entry, &choices, findings).unwrap_or_default()
}

/// The retry policy, with the defaults of the format for what it leaves out.
pub(super) fn retry(fields: &Fields<'_>, findings: &mut Findings) -> Option<RetryPolicy> {
    let entry = fields.get("retry")?;
    let fields = Fields::of(&entry.value, entry.location(), &keys::RETRY, findings)?;
    let mut policy = RetryPolicy::default();
    if let Some(entry) = fields.get("max_attempts") {
        policy.max_attempts = decode::small_count(entry, 1, findings).unwrap_or(1);
    }
    if let Some(entry) = fields.get("backoff") {
        let choices = [
            ("fixed", Backoff::Fixed),
            ("linear", Backoff::Linear),
            ("exponential", Backoff::Exponential),
        ];
        policy.backoff = decode::choice(entry, &choices, findings).unwrap_or_default();
    }
    if let Some(pause) = fields.get("base_delay").and_then(|e| decode::pause(e, findings)) {
        policy.base_delay = pause;
    }
    if let Some(pause) = fields.get("max_delay").and_then(|e| decode::pause(e, findings)) {
        policy.max_delay = pause;
    }
    if let Some(flag) = fields.get("jitter").and_then(|e| decode::flag(e, findings)) {
        policy.jitter = flag;
    }
    if let Some(entry) = fields.get("retry_on") {
        policy.retry_on = retry_on(entry, findings);
    }
    Some(policy)
}

/// `any`, one code, or a list of codes; each by name or number.
fn retry_on(entry: &Entry, findings: &mut Findings) -> RetryOn {
    match &entry.value.kind {
        Kind::String(word) if word == "any" || word == "all" => RetryOn::Any(AnyError::Any),
        Kind::String(word) if word == "retryable" => RetryOn::Retryable,
        Kind::Array(items) => {
            let location = |item: &Node| {
                if item.span.start < item.span.end { item.span } else { entry.key_span }
            };
            let mut code = |item| error_code(item, location(item), findings);
            RetryOn::Codes(items.iter().filter_map(&mut code).collect())
        }
        _ => {
            let code = error_code(&entry.value, entry.location(), findings);
            RetryOn::Codes(code.into_iter().collect())
        }
    }
}

fn error_code(node: &Node, location: Span, findings: &mut Findings) -> Option<ErrorCode> {
    let code = match &node.kind {
        Kind::Number(number, _) => number.as_i64().and_then(ErrorCode::from_number),
        Kind::String(text) => ErrorCode::from_name(text)
            .or_else(|| text.trim().parse().ok().and_then(ErrorCode::from_number)),
        _ => None,
    };
    if code.is_none() {
        let found =
            format!("`retry_on` has {}; expected `any`, or codes of errors", node.describe());
        let names: Vec<String> =
            ErrorCode::ALL.iter().map(|code| code.name().to_lowercase()).collect();
        let near = match &node.kind {
            Kind::String(text) => keys::nearest(text, names.iter().map(String::as_str)),
            _ => None,
        };
        let help = match near {
            Some(name) => format!("did you mean `{}`?", name.to_uppercase()),
            None => "such as `TASK_EXECUTION_FAILED` or -29002".to_owned(),
        };
        findings.error_with_help(location, found, help);
    }
    code
}
