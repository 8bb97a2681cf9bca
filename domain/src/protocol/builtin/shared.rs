//! Parts that several built-in protocols use.

use crate::{id::Version, protocol::parameter::ParameterSpec};

pub(super) const V1: Version = Version { major: 1, minor: 0, patch: 0 };

pub(super) fn texts() -> ParameterSpec {
    ParameterSpec::array(ParameterSpec::string())
}

pub(super) fn tags(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
