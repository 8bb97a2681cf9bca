//! A key's path as a person writes it: `engine.seed`, `balancing.protocols."llm/v1.0"`.

/// The path as TOML writes it.
pub(super) fn written(path: &[String]) -> String {
    path.iter().map(|step| key(step)).collect::<Vec<_>>().join(".")
}

/// One key, in quotes where TOML wants them.
pub(super) fn key(key: &str) -> String {
    let bare =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { format!("\"{key}\"") }
}

/// The keys of a path that [`written`] made.
pub(super) fn read(path: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut quoted = false;
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => keys.push(String::new()),
            c => {
                if let Some(last) = keys.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A problem keeps its path as text; finding its place in a file needs the keys again.
    #[test]
    fn paths_are_reversible() {
        let path = ["balancing", "protocols", "llm/v1.0"].map(String::from);
        assert_eq!(written(&path), "balancing.protocols.\"llm/v1.0\"");
        assert_eq!(read(&written(&path)), path);
    }
}
