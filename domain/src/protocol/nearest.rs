//! Suggests a known name for an unknown one.

/// The known name that `given` most probably stands for, or `None` when none comes near.
///
/// Near is an edit distance (transposed letters count once) of at most a third of the longer
/// name, and at least one edit is always forgiven; case does not count.
///
/// ```
/// use gleitzeit_domain::protocol::nearest::nearest;
///
/// assert_eq!(nearest("exceute", ["validate", "execute"]), Some("execute"));
/// assert_eq!(nearest("chat", ["execute"]), None);
/// ```
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase();
    known
        .into_iter()
        .filter_map(|name| {
            let distance = strsim::damerau_levenshtein(&text, &name.to_lowercase());
            let longer = text.chars().count().max(name.chars().count());
            (distance <= (longer / 3).max(1)).then_some((distance, name))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// ``; did you mean `execute`?`` where something comes near, else nothing.
pub fn hint<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(text, known) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hint that is far off sends the reader the wrong way; none is better.
    #[test]
    fn only_near_names_are_hinted_at() {
        let known = ["code", "timeout", "environment"];
        assert_eq!(nearest("cod", known), Some("code"));
        assert_eq!(nearest("Timeout", known), Some("timeout"));
        assert_eq!(nearest("enviroment", known), Some("environment"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(hint("cdoe", known), "; did you mean `code`?");
    }
}
