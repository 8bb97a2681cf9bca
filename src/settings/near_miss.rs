//! Variables that set nothing, and look as if they should.

use super::problem::SettingsProblem;

/// The tables of the settings, as a variable would name them.
const SECTIONS: [&str; 11] = [
    "ENGINE",
    "RESOURCES",
    "STORAGE",
    "BALANCING",
    "SUPERVISION",
    "PROVIDERS",
    "PROTOCOLS",
    "MONITORING",
    "LOGGING",
    "SERVER",
    "SECURITY",
];

/// True for a variable such as `GLEITZEIT_ENGINE_SEED`, which has one underscore where two belong.
pub(super) fn is_near_miss(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("GLEITZEIT_") else { return false };
    let is_section = |section: &&str| {
        let after = rest.trim_start_matches('_').strip_prefix(*section);
        after.is_some_and(|after| after.starts_with('_'))
    };
    SECTIONS.iter().any(is_section)
}

/// The warning about one.
pub(super) fn near_miss(name: &str) -> SettingsProblem {
    SettingsProblem::new("", format!("the variable `{name}` sets nothing"))
        .help("two underscores stand before each key, as in `GLEITZEIT__ENGINE__SEED`")
}
