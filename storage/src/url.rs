//! Where workflows are kept, and what a commit survives: both as settings name them.

use std::{
    fmt::{self, Write as _},
    path::Path,
    str::FromStr,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Shown instead of a password.
const HIDDEN: &str = "***";

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

    /// The same server, whose certificate is checked by those in a file as well; unless the URL
    /// names a file itself. Others stay as they are.
    #[must_use]
    pub fn with_ca_file(self, file: &Path) -> Self {
        let text = self.expose();
        let names_some = ["sslrootcert=", "ssl-root-cert=", "ssl-ca="];
        if !text.starts_with("postgres") || names_some.iter().any(|it| text.contains(it)) {
            return self;
        }
        let mark = if text.contains('?') { '&' } else { '?' };
        let mut escaped = String::new();
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
        Self(SecretString::from(format!("{text}{mark}sslrootcert={escaped}")))
    }

    /// Any URL without its password, as a store's is shown.
    pub fn hide_password(url: &str) -> String {
        Self(SecretString::from(url)).to_string()
    }

    /// True when nothing is kept beyond the process.
    pub fn is_memory(&self) -> bool {
        self.expose() == "memory"
    }
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` {why}")]
pub struct StoreUrlError {
    /// Without the password.
    url: String,
    why: String,
}

/// Why a text of an unknown form names no store.
const UNKNOWN: &str =
    "names no store; expected `memory`, `sqlite:PATH` or `postgres://user:password@host/name`";

/// What is wrong with the path of a SQLite database. What would make a file of an odd name, or be
/// a setting that does nothing, is a mistake.
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

/// What is wrong with the URL of a server, as far as this build can tell.
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

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The loss of power.
    #[default]
    Full,
    /// The death of the process; the last moments may be lost with the power.
    Normal,
}

impl Durability {
    /// Its name in files and output.
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
        for text in ["", "sqlite", "sqlite:", "mysql://x/y", "postgres:x", "postgres://", "Memory"]
        {
            assert!(text.parse::<StoreUrl>().is_err(), "{text}");
        }
    }

    /// What a command would pass over in silence is told by all of them.
    #[test]
    fn paths_that_mean_something_else_are_refused() {
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

    /// The mistake is told without the password.
    #[cfg(feature = "postgres")]
    #[test]
    fn a_server_that_cannot_be_read_is_refused() {
        let error =
            "postgres://me:geheim@host:port/db".parse::<StoreUrl>().unwrap_err().to_string();
        assert!(error.contains("me:***@host:port"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }

    /// A file that the URL names itself comes first.
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
