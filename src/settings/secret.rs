//! What must not be shown: the store's password, and the secrets in a provider's settings.

use std::{fmt, path::Path, str::FromStr};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

/// Shown instead of a secret.
const HIDDEN: &str = "***";

/// Parts of a key that make its value a secret.
const SECRET_WORDS: [&str; 7] =
    ["password", "secret", "token", "api_key", "apikey", "authorization", "credential"];

/// Where workflows are kept: `memory`, `sqlite:PATH` or `postgres://…`.
///
/// Shown without its password; [`expose`](Self::expose) tells all.
#[derive(Clone)]
pub struct StoreUrl(SecretString);

impl StoreUrl {
    /// Everything in memory, gone with the process.
    pub fn memory() -> Self {
        Self(SecretString::from("memory"))
    }

    /// With the password.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The file, where it is a SQLite database.
    pub fn sqlite_path(&self) -> Option<&Path> {
        let path = self.expose().strip_prefix("sqlite:")?;
        let path = path.strip_prefix("//").unwrap_or(path);
        Some(Path::new(path.strip_suffix("?mode=rwc").unwrap_or(path)))
    }

    /// True when nothing is kept beyond the process.
    pub fn is_memory(&self) -> bool {
        self.expose() == "memory"
    }
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no store; expected `memory`, `sqlite:PATH` or `postgres://user:password@host/name`"
)]
pub struct StoreUrlError(String);

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let url = Self(SecretString::from(text));
        let known = match text.split_once(':') {
            None => text == "memory",
            Some(("sqlite", path)) => !path.is_empty(),
            Some(("postgres" | "postgresql", rest)) => rest.starts_with("//") && rest.len() > 2,
            Some(_) => false,
        };
        if known { Ok(url) } else { Err(StoreUrlError(url.to_string())) }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let Some((scheme, rest)) = text.split_once("://") else { return out.write_str(text) };
        write!(out, "{scheme}://")?;
        // The last `@` ends the user's part: a password may hold one that was not escaped.
        let host = match rest.rsplit_once('@') {
            None => rest,
            Some((user, host)) => {
                match user.split_once(':') {
                    Some((name, _)) => write!(out, "{name}:{HIDDEN}@")?,
                    None => write!(out, "{user}@")?,
                }
                host
            }
        };
        match host.split_once('?') {
            Some((before, query)) if query.contains("password=") => {
                write!(out, "{before}?{HIDDEN}")
            }
            _ => out.write_str(host),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for StoreUrl {}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(D::Error::custom)
    }
}

/// True where what stands at the key is not to be shown.
pub(super) fn is_secret(path: &str) -> bool {
    let path = path.to_lowercase().replace('-', "_");
    path.contains(".headers") || SECRET_WORDS.iter().any(|word| path.contains(word))
}

/// The same table with the values of secret keys hidden, at any depth.
pub(super) fn hide(table: &Map<String, Value>) -> Map<String, Value> {
    table
        .iter()
        .map(|(key, value)| {
            let lower = key.to_lowercase().replace('-', "_");
            let shown = match value {
                _ if SECRET_WORDS.iter().any(|word| lower.contains(word)) => Value::from(HIDDEN),
                // Any header may be what a server knows its friends by.
                Value::Object(headers) if lower == "headers" => {
                    headers.keys().map(|name| (name.clone(), Value::from(HIDDEN))).collect()
                }
                value => hide_within(value),
            };
            (key.clone(), shown)
        })
        .collect()
}

fn hide_within(value: &Value) -> Value {
    match value {
        Value::Object(table) => Value::Object(hide(table)),
        Value::Array(items) => items.iter().map(hide_within).collect(),
        Value::String(text) if text.contains("://") && text.contains('@') => {
            Value::from(StoreUrl(SecretString::from(text.as_str())).to_string())
        }
        other => other.clone(),
    }
}

/// The name that a settings file uses for `value`.
pub(super) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(url: &str) -> String {
        url.parse::<StoreUrl>().unwrap().to_string()
    }

    /// Settings end up in logs and in bug reports.
    #[test]
    fn no_form_of_a_url_shows_its_password() {
        assert_eq!(shown("postgres://me:pa@ss@host:5432/db"), "postgres://me:***@host:5432/db");
        assert_eq!(shown("postgres://me@host/db"), "postgres://me@host/db");
        assert_eq!(shown("postgres://host/db?user=me&password=x"), "postgres://host/db?***");
        assert_eq!(shown("sqlite:a.db"), "sqlite:a.db");
        let url: StoreUrl = "postgres://me:geheim@host/db".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        assert!(!serde_json::to_string(&url).unwrap().contains("geheim"));
        assert!(url.expose().contains("geheim"));
    }

    /// A typing error in the scheme must not make a file of an odd name.
    #[test]
    fn unknown_stores_are_refused() {
        for text in ["", "sqlite", "sqlite:", "mysql://x/y", "postgres:x", "Memory"] {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }

    /// Providers keep their secrets under names of their own.
    #[test]
    fn secret_keys_are_hidden_at_any_depth() {
        let Value::Object(table) = json!({
            "url": "http://me:geheim@host",
            "API-Key": "geheim",
            "headers": {"X-Friend": "geheim"},
            "list": [{"Authorization": "Bearer geheim", "accept": "json"}],
        }) else {
            unreachable!("it is an object")
        };
        let shown = Value::Object(hide(&table));
        assert!(!shown.to_string().contains("geheim"), "{shown}");
        assert_eq!(shown["list"][0]["accept"], "json");
    }
}
