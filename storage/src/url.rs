//! The URL and the durability of a store, as in the settings.

use std::{
    fmt::{self, Write as _},
    path::Path,
    str::FromStr,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The text in place of a password.
const HIDDEN: &str = "***";

/// The URL of a store: `memory`, `sqlite:PATH` or `postgres://…`.
///
/// Its text has no password; only [`expose`](Self::expose) returns it.
#[derive(Clone)]
pub struct StoreUrl(SecretString);

impl StoreUrl {
    /// The store in memory, which ends with the process.
    pub fn memory() -> Self {
        Self(SecretString::from("memory"))
    }

    /// The URL with its password.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The path of a SQLite database.
    pub fn sqlite_path(&self) -> Option<&Path> {
        let path = self.expose().strip_prefix("sqlite:")?;
        // People write both `sqlite:a.db` and `sqlite://a.db` for the same file.
        let path = path.strip_prefix("//").unwrap_or(path);
        Some(Path::new(path.strip_suffix("?mode=rwc").unwrap_or(path)))
    }

    /// Adds a file of trusted certificates to the URL of a server, unless the URL names one. Other URLs
    /// stay unchanged.
    #[must_use]
    pub fn with_ca_file(self, file: &Path) -> Self {
        let text = self.expose();
        let names_some = ["sslrootcert=", "ssl-root-cert=", "ssl-ca="];
        if !text.starts_with("postgres") || names_some.iter().any(|it| text.contains(it)) {
            return self;
        }
        let separator = if text.contains('?') { '&' } else { '?' };
        let mut escaped = String::new();
        // Percent-encoded: a space or `&` in the path would end the parameter.
        for byte in file.as_os_str().as_encoded_bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                    escaped.push(char::from(*byte));
                }
                other => {
                    let _ = write!(escaped, "%{other:02X}");
                }
            }
        }
        Self(SecretString::from(format!("{text}{separator}sslrootcert={escaped}")))
    }

    /// The text of any URL without its password.
    pub fn hide_password(url: &str) -> String {
        Self(SecretString::from(url)).to_string()
    }

    /// True for the store in memory.
    pub fn is_memory(&self) -> bool {
        self.expose() == "memory"
    }
}

/// The error about a text that is no URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` {why}")]
pub struct StoreUrlError {
    /// The text without its password.
    url: String,
    why: String,
}

/// The fault of a text of unknown form.
const UNKNOWN: &str =
    "names no store; expected `memory`, `sqlite:PATH` or `postgres://user:password@host/name`";

/// The fault of the path of a SQLite database. A path that would create a file with an odd name, or
/// that has a parameter without effect, is a mistake.
fn wrong_path(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.ends_with('/') {
        Some("names no file; expected `sqlite:PATH`")
    } else if path.contains(":memory:") {
        Some("is no file; to keep everything in memory, write `memory`")
    } else if path.contains('?') {
        Some("has parameters; write the path alone, and set the rest under [storage]")
    } else if path.starts_with('~') {
        Some("begins with `~`, which only a shell replaces; write the whole path of the file")
    } else if path.contains('\0') {
        Some("has a NUL in it")
    } else {
        None
    }
}

/// The fault of the URL of a server, as far as this build can parse it.
fn wrong_server(url: &str) -> Option<String> {
    #[cfg(feature = "postgres")]
    if let Err(error) = sea_orm::sqlx::postgres::PgConnectOptions::from_str(url) {
        return Some(format!(
            "cannot be read: {error}; expected `postgres://user:password@host/name`"
        ));
    }
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.is_empty().then(|| UNKNOWN.to_owned())
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let url = Self(SecretString::from(text));
        let wrong = match text.split_once(':') {
            None if text == "memory" => None,
            Some(("sqlite", _)) => {
                let path = url.sqlite_path().and_then(Path::to_str).unwrap_or_default();
                wrong_path(path).map(str::to_owned)
            }
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => wrong_server(text),
            _ => Some(UNKNOWN.to_owned()),
        };
        match wrong {
            None => Ok(url),
            Some(why) => Err(StoreUrlError { url: url.to_string(), why }),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.expose();
        let Some((scheme, rest)) = text.split_once("://") else { return out.write_str(text) };
        write!(out, "{scheme}://")?;
        // The last `@`: a password may contain one that was not escaped, and its rest would be shown.
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
            // All of the query: the text of a password in it may have any form.
            Some((before, query)) if query.contains("password=") => {
                write!(out, "{before}?{HIDDEN}")
            }
            _ => out.write_str(host),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As text without the password: a derived form would hide the whole URL, which logs need.
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

/// The failures that a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A loss of power.
    #[default]
    Full,
    /// The end of the process; a loss of power may lose the last commits.
    Normal,
}

impl Durability {
    /// The name in files and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(url: &str) -> String {
        url.parse::<StoreUrl>().unwrap().to_string()
    }

    /// Settings are copied into logs and bug reports.
    #[test]
    fn no_form_of_a_url_shows_its_password() {
        assert_eq!(text_of("postgres://me:pa@ss@host:5432/db"), "postgres://me:***@host:5432/db");
        assert_eq!(text_of("postgres://me@host/db"), "postgres://me@host/db");
        assert_eq!(text_of("postgres://host/db?user=me&password=x"), "postgres://host/db?***");
        assert_eq!(text_of("sqlite:a.db"), "sqlite:a.db");
        let url: StoreUrl = "postgres://me:geheim@host/db".parse().unwrap();
        assert!(!format!("{url:?}").contains("geheim"));
        assert!(!serde_json::to_string(&url).unwrap().contains("geheim"));
        assert!(url.expose().contains("geheim"));
    }

    /// A typing error in the scheme must not create a file with an odd name.
    #[test]
    fn unknown_stores_are_rejected() {
        for text in ["", "sqlite", "sqlite:", "mysql://x/y", "postgres:x", "postgres://", "Memory"]
        {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }

    /// A path with another meaning elsewhere is an error, not ignored.
    #[test]
    fn paths_with_another_meaning_are_rejected() {
        for (text, what) in [
            ("sqlite::memory:", "write `memory`"),
            ("sqlite:a.db?cache=shared", "has parameters"),
            ("sqlite:dir/", "names no file"),
            ("sqlite:~/a.db", "only a shell"),
            ("sqlite://~/a.db", "only a shell"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(what), "{error}");
        }
        assert!("sqlite:/var/a.db?mode=rwc".parse::<StoreUrl>().is_ok());
    }

    /// The error has no password in it.
    #[cfg(feature = "postgres")]
    #[test]
    fn an_invalid_server_url_is_rejected() {
        let error =
            "postgres://me:geheim@host:port/db".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(error.contains("me:***@host:port"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }

    /// A file in the URL takes precedence.
    #[test]
    fn a_file_of_certificates_becomes_part_of_the_url() {
        let with = |url: &str| {
            let url: StoreUrl = url.parse().unwrap();
            url.with_ca_file(Path::new("/etc/a b.pem")).expose().to_owned()
        };
        assert_eq!(with("postgres://h/n"), "postgres://h/n?sslrootcert=/etc/a%20b.pem");
        assert_eq!(
            with("postgres://h/n?sslmode=verify-full"),
            "postgres://h/n?sslmode=verify-full&sslrootcert=/etc/a%20b.pem"
        );
        assert_eq!(with("postgres://h/n?sslrootcert=x"), "postgres://h/n?sslrootcert=x");
        assert_eq!(with("sqlite:a.db"), "sqlite:a.db");
    }
}
