//! The imports and calls that code may use. The policy gives honest users a clear message with line
//! and column; it is no security boundary.
//!
//! Invariant: a policy is never the boundary. Reading the syntax tree stops one of 39 known ways
//! around it; what keeps code in is the operating system.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A set of rules to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Nothing is forbidden.
    #[default]
    Off,
    /// The modules `os`, `subprocess` and `sys` are blocked, and calls of `eval`, `exec` and
    /// `__import__`. `seed` is an older name of it.
    #[serde(alias = "seed")]
    Basic,
    /// Only modules that compute are allowed, and calls that run text or open files are blocked.
    Strict,
}

const BASIC_MODULES: [&str; 3] = ["os", "subprocess", "sys"];
const BASIC_CALLS: [&str; 3] = ["eval", "exec", "__import__"];
const STRICT_CALLS: [&str; 7] =
    ["eval", "exec", "__import__", "compile", "open", "input", "breakpoint"];
const STRICT_MODULES: [&str; 30] = [
    "__future__",
    "abc",
    "array",
    "base64",
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "numbers",
    "operator",
    "random",
    "re",
    "statistics",
    "string",
    "textwrap",
    "time",
    "typing",
];

/// The imports and calls that code may use. Modules are matched by their first dotted component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Policy {
    /// Modules that may be imported; `None` allows all.
    pub allowed_modules: Option<BTreeSet<String>>,
    /// Modules that are rejected, even if they are allowed.
    pub blocked_modules: BTreeSet<String>,
    /// Functions that may not be called by these names.
    pub blocked_calls: BTreeSet<String>,
}

impl Policy {
    /// The rules of a preset.
    pub fn preset(preset: Preset) -> Self {
        match preset {
            Preset::Off => Self::default(),
            Preset::Basic => Self {
                allowed_modules: None,
                blocked_modules: first_components(BASIC_MODULES),
                blocked_calls: BASIC_CALLS.map(str::to_owned).into(),
            },
            Preset::Strict => Self {
                allowed_modules: Some(first_components(STRICT_MODULES)),
                blocked_modules: BTreeSet::new(),
                blocked_calls: STRICT_CALLS.map(str::to_owned).into(),
            },
        }
    }

    /// These rules with the lists of the settings, which add to them: `allowed` modules are let in
    /// although these rules block them or do not list them, and no other module is refused because
    /// of that; `blocked` modules are refused, also those that are allowed.
    #[must_use]
    pub fn with_lists<S: AsRef<str>>(
        mut self,
        allowed: impl IntoIterator<Item = S>,
        blocked: impl IntoIterator<Item = S>,
    ) -> Self {
        let allowed = first_components(allowed);
        self.blocked_modules.retain(|module| !allowed.contains(module));
        if let Some(list) = &mut self.allowed_modules {
            list.extend(allowed);
        }
        self.blocked_modules.extend(first_components(blocked));
        self
    }

    /// These rules and those lists besides: what either forbids is forbidden. An empty `allowed`
    /// adds nothing.
    #[must_use]
    pub fn tightened<S: AsRef<str>>(
        mut self,
        allowed: impl IntoIterator<Item = S>,
        blocked: impl IntoIterator<Item = S>,
    ) -> Self {
        let allowed = first_components(allowed);
        if !allowed.is_empty() {
            self.allowed_modules = Some(match self.allowed_modules.take() {
                Some(before) => before.intersection(&allowed).cloned().collect(),
                None => allowed,
            });
        }
        self.blocked_modules.extend(first_components(blocked));
        self
    }
}

/// `os.path` is `os` here: a policy that lets the one in lets the other in.
fn first_components<S: AsRef<str>>(modules: impl IntoIterator<Item = S>) -> BTreeSet<String> {
    modules
        .into_iter()
        .filter_map(|module| module.as_ref().split('.').next().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method's demands can only take away.
    #[test]
    fn tightening_never_lets_more_in() {
        let strict = Policy::preset(Preset::Strict).tightened(["json", "socket"], ["math"]);
        assert_eq!(strict.allowed_modules, Some(first_components(["json"])));
        assert_eq!(strict.blocked_modules, first_components(["math"]));
        let basic = Policy::preset(Preset::Basic).tightened([], ["os.path", "socket"]);
        assert_eq!(basic.allowed_modules, None);
        assert_eq!(basic.blocked_modules, first_components(["os", "subprocess", "sys", "socket"]));
    }

    /// Both lists of the settings work with every preset.
    #[test]
    fn lists_change_a_preset() {
        let basic = Policy::preset(Preset::Basic).with_lists(["os.path", "json"], ["socket"]);
        assert_eq!(basic.allowed_modules, None, "every other module is allowed as before");
        assert_eq!(basic.blocked_modules, first_components(["socket", "subprocess", "sys"]));
        let strict = Policy::preset(Preset::Strict).with_lists(["numpy"], ["math"]);
        let allowed = strict.allowed_modules.unwrap();
        assert!(allowed.contains("numpy") && allowed.contains("json"));
        assert_eq!(strict.blocked_modules, first_components(["math"]));
        let none: [&str; 0] = [];
        assert_eq!(Policy::default().with_lists(none, none), Policy::default());
        assert_eq!(Policy::default().with_lists(["os"], none), Policy::default());
    }

    /// A method may narrow what was open to a list.
    #[test]
    fn a_list_narrows_an_open_policy() {
        let policy = Policy::default().tightened(["json.decoder"], []);
        assert_eq!(policy.allowed_modules, Some(first_components(["json"])));
    }
}
