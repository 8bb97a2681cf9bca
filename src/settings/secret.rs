//! Secrets in a provider's settings, which are never shown.

use gleitzeit_storage::StoreUrl;
use serde_json::{Map, Value};

/// Shown instead of a secret.
const HIDDEN: &str = "***";

/// Parts of a key that make its value a secret.
const SECRET_WORDS: [&str; 7] =
    ["password", "secret", "token", "api_key", "apikey", "authorization", "credential"];

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
            let masked = match value {
                _ if SECRET_WORDS.iter().any(|word| lower.contains(word)) => Value::from(HIDDEN),
                // Any header may be what a server knows its friends by.
                Value::Object(headers) if lower == "headers" => {
                    headers.keys().map(|name| (name.clone(), Value::from(HIDDEN))).collect()
                }
                value => hide_within(value),
            };
            (key.clone(), masked)
        })
        .collect()
}

fn hide_within(value: &Value) -> Value {
    match value {
        Value::Object(table) => Value::Object(hide(table)),
        Value::Array(items) => items.iter().map(hide_within).collect(),
        Value::String(text) if text.contains("://") && text.contains('@') => {
            Value::from(StoreUrl::hide_password(text))
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        let masked = Value::Object(hide(&table));
        assert!(!masked.to_string().contains("geheim"), "{masked}");
        assert_eq!(masked["list"][0]["accept"], "json");
    }
}
