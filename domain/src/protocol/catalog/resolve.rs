//! Finds the method that a task names.

use std::sync::Arc;

use super::ProtocolCatalog;
use crate::{
    error::ErrorCode,
    id::{Capability, ProtocolId, Version, is_name},
    needs::{self, Needs},
    protocol::{builtin::names, method::MethodRef, nearest, spec::ProtocolSpec},
};

/// Why a task's protocol and method name nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No protocol of this name.
    #[error("no protocol `{name}` is registered{}", hint(.nearest.as_deref(), .known))]
    ProtocolNotFound {
        /// The name.
        name: String,
        /// The one that may have been meant.
        nearest: Option<String>,
        /// The names there are.
        known: Vec<String>,
    },
    /// The protocol is there, but not in this version.
    #[error("protocol `{name}` has no version `{version}`{}", hint(.nearest.as_deref(), .known))]
    VersionNotFound {
        /// The name.
        name: String,
        /// The version as it was written.
        version: String,
        /// The one that may have been meant.
        nearest: Option<String>,
        /// The versions there are.
        known: Vec<String>,
    },
    /// The protocol has no such method.
    #[error("protocol `{protocol}` has no method `{method}`{}", hint(.nearest.as_deref(), .known))]
    MethodNotFound {
        /// The protocol.
        protocol: ProtocolId,
        /// The method.
        method: String,
        /// The one that may have been meant.
        nearest: Option<String>,
        /// The methods there are.
        known: Vec<String>,
    },
    /// Neither the protocol nor the method names a protocol.
    #[error("`{method}` does not say which protocol is meant; write `<protocol>/{method}`{}",
        hint(.candidates.first().map(String::as_str), .candidates))]
    ProtocolMissing {
        /// The method.
        method: String,
        /// The protocols that have such a method, as `protocol/method`.
        candidates: Vec<String>,
    },
    /// The protocol and the method's own prefix name different protocols.
    #[error("protocol `{protocol}` and method `{method}` name different protocols; leave one out")]
    Contradiction {
        /// The protocol as it was written.
        protocol: String,
        /// The method as it was written.
        method: String,
    },
}

impl ResolveError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::ProtocolNotFound { .. } | Self::ProtocolMissing { .. } => {
                ErrorCode::ProtocolNotFound
            }
            Self::VersionNotFound { .. } => ErrorCode::ProtocolVersionMismatch,
            Self::MethodNotFound { .. } | Self::Contradiction { .. } => ErrorCode::MethodNotFound,
        }
    }

    /// The known name that was probably meant.
    pub fn nearest(&self) -> Option<&str> {
        match self {
            Self::ProtocolNotFound { nearest, .. }
            | Self::VersionNotFound { nearest, .. }
            | Self::MethodNotFound { nearest, .. } => nearest.as_deref(),
            Self::ProtocolMissing { candidates, .. } => candidates.first().map(String::as_str),
            Self::Contradiction { .. } => None,
        }
    }
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known are `{}`", known.join("`, `")),
    }
}

/// A protocol as a task writes it: a name, perhaps with a version.
#[derive(Clone, Copy, PartialEq)]
struct NamedProtocol<'a> {
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> NamedProtocol<'a> {
    fn read(text: &'a str) -> Self {
        match text.split_once('/') {
            Some((name, version)) => Self { name, version: Some(version) },
            None => Self { name: text, version: None },
        }
    }

    /// True when both can mean the same protocol.
    fn agrees_with(self, other: Self) -> bool {
        let same_version = match (self.version, other.version) {
            (Some(left), Some(right)) => {
                left == right || left.parse::<Version>().is_ok_and(|left| right.parse() == Ok(left))
            }
            _ => true,
        };
        self.name == other.name && same_version
    }
}

/// The protocol that stands before a method, and the bare method: `python/execute`,
/// `python/v1.0:execute` and `python/v1.0/execute` have one, `execute` has none.
fn split(method: &str) -> (Option<NamedProtocol<'_>>, &str) {
    let cut = method.split_once(':').or_else(|| method.rsplit_once('/'));
    cut.map_or((None, method), |(protocol, bare)| (Some(NamedProtocol::read(protocol)), bare))
}

/// True if a task names the version of its protocol.
pub(crate) fn names_version(protocol: Option<&str>, method: &str) -> bool {
    let has_version = |named: NamedProtocol<'_>| named.version.is_some();
    protocol.map(NamedProtocol::read).is_some_and(has_version)
        || split(method).0.is_some_and(has_version)
}

/// The need of a task whose method is unknown here; `None` if the method cannot exist anywhere.
pub(crate) fn unknown_need(protocol: Option<&str>, method: &str) -> Option<Arc<str>> {
    let (prefix, bare) = split(method);
    let named_protocol = protocol.map(NamedProtocol::read);
    let named = named_protocol.or(prefix)?;
    if named_protocol
        .zip(prefix)
        .is_some_and(|(named_protocol, prefix)| !named_protocol.agrees_with(prefix))
    {
        return None;
    }
    let version = named.version.or(prefix.and_then(|prefix| prefix.version));
    // Built-in methods are the same everywhere, so an unknown one is a spelling mistake.
    let is_nameable = is_name(named.name) && is_name(bare) && !names::is_builtin(named.name);
    if is_nameable { needs::unknown_text(named.name, version, bare) } else { None }
}

impl ProtocolCatalog {
    /// The method that a task means by `protocol` (`llm/v1.0`, `llm/v1` or `llm`) and `method`
    /// (`chat`, `llm/chat` or `llm/v1.0:chat`). Without a version the newest one is meant.
    ///
    /// # Errors
    /// [`ResolveError`] names what is not known and what was probably meant.
    pub fn resolve(&self, protocol: Option<&str>, method: &str) -> Result<MethodRef, ResolveError> {
        let (prefix, bare) = split(method);
        let named_protocol = protocol.map(NamedProtocol::read);
        let named = match (named_protocol, prefix) {
            (None, None) => return Err(self.protocol_missing(method)),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(named_protocol), Some(prefix)) if named_protocol.agrees_with(prefix) => {
                NamedProtocol {
                    name: named_protocol.name,
                    version: named_protocol.version.or(prefix.version),
                }
            }
            (Some(_), Some(_)) => {
                let protocol = protocol.unwrap_or_default().to_owned();
                return Err(ResolveError::Contradiction { protocol, method: method.to_owned() });
            }
        };
        let spec = self.named(named)?;
        let id = spec.protocol_id();
        let found = self.method(&Capability::new(id.clone(), bare));
        found.ok_or_else(|| {
            let known: Vec<String> = spec.methods.keys().cloned().collect();
            ResolveError::MethodNotFound {
                protocol: id,
                method: bare.to_owned(),
                nearest: closest(bare, &known),
                known,
            }
        })
    }

    /// The same for a task of a stored workflow. If it names no version, it means the one that it
    /// was checked against, or else the newest one that is compatible with that.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_again(
        &self,
        protocol: Option<&str>,
        method: &str,
        needs: &Needs,
    ) -> Result<MethodRef, ResolveError> {
        let found = self.resolve(protocol, method);
        // As a rule nothing has changed since.
        let is_it = found.as_ref().is_ok_and(|method| method.was_checked_by(needs));
        if is_it || names_version(protocol, method) {
            return found;
        }
        let (prefix, bare) = split(method);
        let named = protocol.map(NamedProtocol::read).or(prefix);
        let Some((name, checked)) =
            named.and_then(|it| Some((it.name, needs.checked_version(it.name, bare)?)))
        else {
            return found;
        };
        let of = |id: &ProtocolId| self.method(&Capability::new(id.clone(), bare));
        let will_do =
            |id: &ProtocolId| id.version().major == checked.major && id.version() > checked;
        let exactly = ProtocolId::new(name, checked);
        let later =
            || self.versions(name).rev().map(|(id, _)| id).filter(|id| will_do(id)).find_map(of);
        match of(&exactly).or_else(later) {
            Some(method) => Ok(method),
            None => self.resolve(Some(&exactly.to_string()), bare),
        }
    }

    fn named(
        &self,
        NamedProtocol { name, version }: NamedProtocol<'_>,
    ) -> Result<&Arc<ProtocolSpec>, ResolveError> {
        let Some(newest) = self.newest(name) else {
            let known: Vec<String> = self.names().into_iter().map(str::to_owned).collect();
            let nearest = closest(name, &known);
            return Err(ResolveError::ProtocolNotFound { name: name.to_owned(), nearest, known });
        };
        let Some(version) = version else { return Ok(newest) };
        let found = version.parse().ok().and_then(|v: Version| self.get(&ProtocolId::new(name, v)));
        found.ok_or_else(|| {
            let versions = self.versions(name).map(|(id, _)| id.version().to_string());
            let known: Vec<String> = versions.collect();
            ResolveError::VersionNotFound {
                name: name.to_owned(),
                version: version.to_owned(),
                nearest: closest(version, &known),
                known,
            }
        })
    }

    fn protocol_missing(&self, method: &str) -> ResolveError {
        let mut candidates: Vec<String> = self
            .find_compatible_protocols(method)
            .iter()
            .map(|id| format!("{}/{method}", id.name()))
            .collect();
        candidates.dedup();
        ResolveError::ProtocolMissing { method: method.to_owned(), candidates }
    }
}

fn closest(named_protocol: &str, known: &[String]) -> Option<String> {
    nearest::nearest(named_protocol, known.iter().map(String::as_str)).map(str::to_owned)
}
