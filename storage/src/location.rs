//! The location of a database, parsed from the URL of the settings.

use std::path::PathBuf;

use gleitzeit_domain::store::StoreError;

use crate::StoreUrl;

/// The location of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A file.
    Sqlite(PathBuf),
    /// A server, as `postgres://…`.
    Postgres(String),
}

impl Location {
    pub(super) fn of(url: &StoreUrl) -> Result<Self, StoreError> {
        if let Some(path) = url.sqlite_path() {
            return Ok(Self::Sqlite(path.to_owned()));
        }
        match url.expose().split_once("://") {
            Some(("postgres" | "postgresql", rest)) => {
                Ok(Self::Postgres(format!("postgres://{rest}")))
            }
            _ => Err(StoreError::Open {
                detail: format!(
                    "`{url}` names no database; expected `sqlite:PATH` or `postgres://…`"
                ),
            }),
        }
    }
}

impl Location {
    /// Rejects a kind of database that this build lacks.
    pub(super) fn check_build(&self) -> Result<(), StoreError> {
        let (kind, feature, is_there) = match self {
            Self::Sqlite(_) => ("SQLite", "sqlite", cfg!(feature = "sqlite")),
            Self::Postgres(_) => ("PostgreSQL", "postgres", cfg!(feature = "postgres")),
        };
        if is_there {
            return Ok(());
        }
        Err(StoreError::Open {
            detail: format!(
                "this gleitzeit was built without {kind}; build it with `--features {feature}`"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<Location, StoreError> {
        Location::of(&url.parse().unwrap())
    }

    /// All forms in which people write a file.
    #[test]
    fn a_path_is_not_changed() {
        for (url, path) in [
            ("sqlite:a.db", "a.db"),
            ("sqlite://a.db", "a.db"),
            ("sqlite:///var/a b.db", "/var/a b.db"),
            ("sqlite:/var/a.db?mode=rwc", "/var/a.db"),
        ] {
            assert_eq!(of(url), Ok(Location::Sqlite(path.into())), "{url}");
        }
        assert_eq!(of("postgresql://h/n"), Ok(Location::Postgres("postgres://h/n".into())));
    }

    /// The store in memory has no database.
    #[test]
    fn memory_is_no_database() {
        assert!(matches!(of("memory"), Err(StoreError::Open { .. })));
    }
}
