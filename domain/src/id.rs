//! Names of things: workflows, tasks, providers, protocols and what a provider can do.
//!
//! All are cheap to clone (a shared string) and compare by their text, except [`ProtocolId`],
//! where `v1` and `v1.0` are the same version.

use std::{
    borrow::Borrow, cmp::Ordering, fmt, hash::Hash, str::FromStr, sync::Arc, time::SystemTime,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text; nothing is checked.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, to be kept without a copy.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, out)
            }
        }
    };
}

name_type! {
    /// Names a workflow; unique in a store. Chosen by the submitter, or a new UUID v7.
    WorkflowId
}
name_type! {
    /// Names a task; unique within its workflow.
    TaskId
}
name_type! {
    /// Names a provider; unique within a runtime.
    ProviderId
}

impl WorkflowId {
    /// A new id, ordered by the time of its making.
    pub fn generate() -> Self {
        // `now_v7` panics if the machine's clock stands before 1970.
        let id = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(_) => uuid::Uuid::now_v7(),
            Err(_) => uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 0, 0)),
        };
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut buffer)))
    }
}

/// A protocol's version: up to three numbers, `v1` = `v1.0` = `v1.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// Compatible additions.
    pub minor: u32,
    /// Corrections.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "v{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(out, ".{}", self.patch) } else { Ok(()) }
    }
}

impl FromStr for Version {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Version { text: text.to_owned() };
        let digits = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = [0_u32; 3];
        let mut parts = digits.split('.');
        for (at, slot) in numbers.iter_mut().enumerate() {
            match parts.next() {
                Some(part) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
                    *slot = part.parse().map_err(|_| bad())?;
                }
                None if at > 0 => break,
                _ => return Err(bad()),
            }
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        let [major, minor, patch] = numbers;
        Ok(Self { major, minor, patch })
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `v<major>[.<minor>[.<patch>]]`.
    #[error("`{text}` is not a version; expected up to three numbers such as `v1.0`")]
    Version {
        /// The text as given.
        text: String,
    },
    /// Not `name/version`.
    #[error("`{text}` is not a protocol id; expected `name/version` such as `python/v1.0`")]
    Protocol {
        /// The text as given.
        text: String,
    },
    /// Not `name/version:method`.
    #[error("`{text}` is not a capability; expected `name/version:method`")]
    Capability {
        /// The text as given.
        text: String,
    },
}

/// A protocol of a version: `python/v1.0`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProtocolId {
    name: Arc<str>,
    version: Version,
}

impl ProtocolId {
    /// The protocol `name` in `version`.
    pub fn new(name: impl Into<Arc<str>>, version: Version) -> Self {
        Self { name: name.into(), version }
    }

    /// The part before the slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part after the slash, as numbers.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl PartialOrd for ProtocolId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProtocolId {
    fn cmp(&self, other: &Self) -> Ordering {
        (&*self.name, self.version).cmp(&(&*other.name, other.version))
    }
}

impl fmt::Display for ProtocolId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.name, self.version)
    }
}

impl fmt::Debug for ProtocolId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

impl FromStr for ProtocolId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('/') {
            Some((name, version)) if is_name(name) => Ok(Self::new(name, version.parse()?)),
            _ => Err(IdError::Protocol { text: text.to_owned() }),
        }
    }
}

/// A method of a protocol that a provider serves: `python/v1.0:execute`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// The protocol.
    pub protocol: ProtocolId,
    /// The method's bare name.
    pub method: Arc<str>,
}

impl Capability {
    /// `method` of `protocol`.
    pub fn new(protocol: ProtocolId, method: impl Into<Arc<str>>) -> Self {
        Self { protocol, method: method.into() }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.protocol, self.method)
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

impl FromStr for Capability {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once(':') {
            Some((protocol, method)) if is_name(method) => {
                Ok(Self::new(protocol.parse::<ProtocolId>()?, method))
            }
            _ => Err(IdError::Capability { text: text.to_owned() }),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

serde_as_text!(Version, ProtocolId, Capability);

/// True for what may stand as a protocol's or method's name: letters, digits, `_`, `-`, `.`.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older files write `v1`; both must find the same protocol.
    #[test]
    fn short_versions_name_the_same_protocol() {
        let short: ProtocolId = "python/v1".parse().unwrap();
        assert_eq!(short, "python/v1.0".parse().unwrap());
        assert_eq!(short, "python/1.0.0".parse().unwrap());
        assert_eq!(short.to_string(), "python/v1.0");
        assert_eq!("x/v1.2.3".parse::<ProtocolId>().unwrap().to_string(), "x/v1.2.3");
    }

    /// Ten comes after nine, also in a version.
    #[test]
    fn versions_order_by_number() {
        assert!("v1.10".parse::<Version>().unwrap() > "v1.9".parse().unwrap());
    }

    /// A typing error is told, not guessed at.
    #[test]
    fn malformed_ids_are_refused() {
        for text in ["v", "v1.", "v1.x", "v1.2.3.4", "", "v-1", "v+1"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        for text in ["python", "/v1", "py thon/v1", "python/"] {
            assert!(text.parse::<ProtocolId>().is_err(), "{text}");
        }
        assert!("python/v1.0".parse::<Capability>().is_err());
        assert_eq!("a/v1:b".parse::<Capability>().unwrap().to_string(), "a/v1.0:b");
    }
}
