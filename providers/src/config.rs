//! Reads the `config` table of a provider strictly, and reports every error in it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

/// One thing wrong with the `config` of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// A value cannot be read: an unknown key, or one of the wrong type.
    #[error("{message}")]
    Unreadable {
        /// The keys on the way to it, within `config`.
        path: Vec<String>,
        /// The deserializer's own words.
        message: String,
    },
    /// The kind refuses a value that it could read.
    #[error("{message}")]
    Refused {
        /// The keys on the way to it, within `config`; empty if it is about all of `config`.
        path: Vec<String>,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A setting outside of `config` is wrong.
    #[error("{message}")]
    Elsewhere {
        /// The whole key, such as `security.network_allow`.
        key: String,
        /// The value found, and the expected one.
        message: String,
    },
}

impl ConfigProblem {
    /// A kind's own refusal, whose text begins with the key: `base_url: …`.
    pub fn refused(error: &impl ToString) -> Self {
        let text = error.to_string();
        match text.split_once(": ") {
            Some((key, message)) => {
                Self::Refused { path: vec![key.to_owned()], message: message.to_owned() }
            }
            None => Self::Refused { path: Vec::new(), message: text },
        }
    }
}

/// Reads a `config`; a key that cannot be read is noted and left out, and the reading begins
/// again, so that every mistake is found at once.
///
/// # Errors
/// Everything that cannot be read.
pub fn read<T: DeserializeOwned>(config: &Map<String, Value>) -> Result<T, Vec<ConfigProblem>> {
    let mut config = config.clone();
    let mut problems = Vec::new();
    loop {
        let tree = Value::Object(config.clone());
        let error = match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(read) if problems.is_empty() => return Ok(read),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let path = steps(error.path());
        let first = path.first().cloned();
        problems.push(ConfigProblem::Unreadable { path, message: error.into_inner().to_string() });
        if first.and_then(|first| config.remove(&first)).is_none() {
            return Err(problems);
        }
    }
}

/// The keys on the path to the error.
fn steps(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(key.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Some {
        #[serde(rename = "limit")]
        _limit: u32,
    }

    /// A person who mistypes two keys does not start the program twice to learn of both.
    #[test]
    fn every_mistake_is_found_at_once() {
        let Value::Object(config) = json!({"limit": 1, "a": 1, "b": 2}) else { unreachable!() };
        let problems = read::<Some>(&config).unwrap_err();
        let paths: Vec<_> = problems
            .iter()
            .map(|it| match it {
                ConfigProblem::Unreadable { path, .. } => path.join("."),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(paths, ["a", "b"]);
    }
}
