//! Rules over several parameters of a built-in method, which no single schema can express.

use serde_json::Value;

use crate::id::Capability;

/// Parameters of which so many must be given, which their own schemas cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Their names.
    pub names: &'static [&'static str],
    /// True if exactly one must be set.
    pub only_one: bool,
}

impl Choice {
    /// The violation by parameters given by name; `None` if there is none, or if they are given by
    /// position.
    pub fn violation(&self, parameters: &Value) -> Option<String> {
        let fields = match parameters {
            Value::Null => None,
            Value::Object(fields) => Some(fields),
            _ => return None,
        };
        let is_present = |name: &&&str| {
            fields.and_then(|fields| fields.get(**name)).is_some_and(|value| !value.is_null())
        };
        let count = self.names.iter().filter(is_present).count();
        let names = self.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let (both, either) = (names.join(" and "), names.join(", "));
        match (count, self.only_one) {
            (0, true) => Some(format!("exactly one of {both} must be given, and neither is")),
            (0, false) => Some(format!("at least one of {either} must be given, and none is")),
            (1, _) | (_, false) => None,
            _ => Some(format!("exactly one of {both} must be given, and both are")),
        }
    }
}

/// The choice among parameters of a method that is built in.
pub fn choice(capability: &Capability) -> Option<Choice> {
    match (capability.protocol.name(), &*capability.method) {
        ("python", "execute") => Some(Choice { names: &["code", "file"], only_one: true }),
        ("llm", "vision") => Some(Choice { names: &["messages", "prompt"], only_one: false }),
        _ => None,
    }
}
