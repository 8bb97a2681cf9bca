//! What `--version` prints: the release, the commit that it was built from, the features of the build.

use std::sync::LazyLock;

/// Each feature of the package, and whether this build has it.
const FEATURES: [(&str, bool); 6] = [
    ("sqlite", cfg!(feature = "sqlite")),
    ("postgres", cfg!(feature = "postgres")),
    ("python", cfg!(feature = "python")),
    ("docker", cfg!(feature = "docker")),
    ("ollama", cfg!(feature = "ollama")),
    ("server", cfg!(feature = "server")),
];

/// The lines after the name of the program.
pub(crate) fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let built = FEATURES.iter().filter(|(_, is_built)| *is_built).map(|(name, _)| *name);
        format!(
            "{}\ncommit: {}\nfeatures: {}",
            env!("CARGO_PKG_VERSION"),
            env!("GLEITZEIT_COMMIT"),
            built.collect::<Vec<_>>().join(", ")
        )
    });
    &LONG
}
