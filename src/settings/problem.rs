//! Problems of the settings: all at once, each with its key and its place.

use std::fmt;

use super::secret;

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The key, such as `engine.max_concurrent_tasks`; empty where it is about a whole file.
    pub path: String,
    /// The place of the value, such as `config/production.toml:3:24`, or the name of a variable.
    pub origin: Option<String>,
    /// The value that was found, and what was expected.
    pub message: String,
    /// The remedy, if there is more to say.
    pub help: Option<String>,
}

impl SettingsProblem {
    /// A problem of a key, without its place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), origin: None, message: message.into(), help: None }
    }

    /// Adds where it was written.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(out, "{origin}: ")?;
        }
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(out, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Everything wrong with the settings. Its code is `CONFIGURATION_ERROR`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong settings:{}", list(.problems))]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<SettingsProblem>,
}

fn list(problems: &[SettingsProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    lines.concat()
}

/// The meaning of a deserializer's error at a key.
pub(super) fn explain(path: String, error: &str) -> SettingsProblem {
    let mut problem = SettingsProblem::new(path, in_plain_words(error));
    if secret::is_secret(&problem.path)
        && let Some((_, expected)) = problem.message.rsplit_once(", expected ")
    {
        problem.message = format!("found something else, expected {expected}");
    }
    let known = known_names(error);
    let wrong = error.split('`').nth(1).unwrap_or_default();
    if error.starts_with("unknown field") {
        problem.message = "no such setting".into();
        problem.help = match nearest(wrong, &known) {
            Some(nearest) => Some(format!("did you mean `{nearest}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known here: {}", known.join(", "))),
        };
    } else if error.starts_with("unknown variant") {
        problem.message = format!("found `{wrong}`, expected one of {}", known.join(", "));
        problem.help = nearest(wrong, &known).map(|name| format!("did you mean `{name}`?"));
    }
    problem
}

/// Says what a deserializer's error says, in the words of a settings file.
///
/// `invalid type: string "x", expected u64` becomes ``found string "x", expected a whole number``.
fn in_plain_words(error: &str) -> String {
    let error = error
        .strip_prefix("invalid type: ")
        .or_else(|| error.strip_prefix("invalid value: "))
        .map_or_else(|| error.to_owned(), |rest| format!("found {rest}"));
    let Some((found, expected)) = error.rsplit_once(", expected ") else { return error };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of 0 or more",
        "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => "a whole number of 1 or more",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        shape if shape.starts_with("struct ") => "a table",
        "path string" => "a string",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// The names in backticks behind `expected`, of an error about an unknown key or variant.
fn known_names(error: &str) -> Vec<&str> {
    match error.rsplit_once("expected ") {
        Some((_, names)) => names.split('`').skip(1).step_by(2).collect(),
        None => Vec::new(),
    }
}

/// The known name that `name` was most likely meant to be.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), other);
    known
        .iter()
        .copied()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) > 0.75)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of the message need not know Rust's types.
    #[test]
    fn types_are_written_in_words() {
        assert_eq!(
            in_plain_words("invalid type: string \"x\", expected a nonzero u64"),
            "found string \"x\", expected a whole number of 1 or more"
        );
        assert_eq!(in_plain_words("missing field `kind`"), "missing field `kind`");
    }

    /// Both forms in which serde lists what it knows.
    #[test]
    fn the_nearest_known_name_is_found() {
        let known = known_names("unknown field `urll`, expected one of `url`, `durability`");
        assert_eq!(known, ["url", "durability"]);
        assert_eq!(nearest("urll", &known), Some("url"));
        assert_eq!(nearest("zzz", &known), None);
        assert_eq!(known_names("unknown field `a`, expected `b` or `c`"), ["b", "c"]);
    }
}
