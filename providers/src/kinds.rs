//! The kinds of providers that settings may name: a folder for each, and one line in
//! [`ProviderKinds::builtin`].
//!
//! Asked by the settings when they are checked, and by the runtime before it starts. A host adds
//! kinds of its own with [`ProviderKinds::with`].

use crate::echo;

pub use crate::kind::{ProviderKind, ProviderRequest};

/// The kinds that settings may name.
#[derive(Debug, Clone)]
pub struct ProviderKinds(Vec<ProviderKind>);

impl ProviderKinds {
    /// The kinds of gleitzeit. A kind without its feature is included, so that settings with that
    /// kind get a more precise error than an unknown kind.
    pub fn builtin() -> Self {
        Self(vec![
            #[cfg(feature = "python")]
            crate::python::kind(),
            #[cfg(not(feature = "python"))]
            ProviderKind::not_built("python"),
            #[cfg(feature = "ollama")]
            crate::ollama::kind(),
            #[cfg(not(feature = "ollama"))]
            ProviderKind::not_built("ollama"),
            echo::kind(),
        ])
    }

    /// The same with one more; a kind of the same name is replaced.
    #[must_use]
    pub fn with(mut self, kind: ProviderKind) -> Self {
        self.0.retain(|known| known.name() != kind.name());
        self.0.push(kind);
        self
    }

    /// The kind of this name.
    pub fn get(&self, name: &str) -> Option<&ProviderKind> {
        self.0.iter().find(|kind| kind.name() == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ProviderKind> {
        self.0.iter()
    }
}

impl Default for ProviderKinds {
    fn default() -> Self {
        Self::builtin()
    }
}
