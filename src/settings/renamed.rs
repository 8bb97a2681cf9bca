//! Keys that had another name: the old one still counts, and a warning names the new one.

use serde_json::Value;

use super::{path, problem::SettingsProblem};

/// Old names and new ones.
const RENAMED: [(&str, &str); 5] = [
    ("engine.arbiters", "engine.provider_threads"),
    ("engine.provider_wait", "engine.provider_wait_timeout"),
    ("storage.lease", "storage.lease_ttl"),
    ("storage.settled_kept", "storage.memory_history_max"),
    ("security.shown", "security.read_only_paths"),
];

/// Moves what stands at old names to the new ones, unless the new one is set in a layer above that of
/// the old one, or beside it; `rank` gives the uppermost layer of a key. One warning for each old name
/// comes back.
pub(super) fn rename(
    tree: &mut Value,
    rank: impl Fn(&[String]) -> Option<usize>,
) -> Vec<SettingsProblem> {
    let mut warnings = Vec::new();
    for (old, new) in RENAMED {
        let (old_path, new_path) = (path::read(old), path::read(new));
        let Some(value) = take(tree, &old_path) else { continue };
        let warning = if rank(&new_path) >= rank(&old_path) {
            SettingsProblem::new(old, format!("is ignored, for `{new}` is set as well"))
                .help("remove it")
        } else {
            put(tree, &new_path, value);
            SettingsProblem::new(old, format!("is called `{new}` now"))
                .help("the old name still counts; write the new one")
        };
        warnings.push(warning);
    }
    warnings
}

/// The old name of a key, if it had one.
pub(super) fn old_name(path: &[String]) -> Option<Vec<String>> {
    let written = path::written(path);
    let (old, new) = RENAMED.iter().find(|(_, new)| {
        written.strip_prefix(new).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })?;
    Some(path::read(&format!("{old}{}", &written[new.len()..])))
}

fn take(tree: &mut Value, path: &[String]) -> Option<Value> {
    let (last, above) = path.split_last()?;
    let table = above.iter().try_fold(tree, |tree, key| tree.get_mut(key))?;
    table.as_object_mut()?.remove(last)
}

fn put(tree: &mut Value, path: &[String], value: Value) {
    let Some((last, above)) = path.split_last() else { return };
    let table = above.iter().try_fold(tree, |tree, key| tree.get_mut(key));
    if let Some(Value::Object(table)) = table {
        table.insert(last.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A settings file of an older release keeps its meaning.
    #[test]
    fn an_old_name_counts_unless_the_new_one_is_set() {
        let before = json!({"engine": {"arbiters": 3, "provider_threads": 1}});
        let mut tree = before.clone();
        let is_old = |path: &[String]| path[1] == "arbiters";
        let warnings = rename(&mut tree, |path| is_old(path).then_some(1));
        assert_eq!(tree, json!({"engine": {"provider_threads": 3}}));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].to_string().contains("`engine.provider_threads`"), "{}", warnings[0]);
        // The variable of an old name is above the file of a new one.
        let mut tree = before.clone();
        rename(&mut tree, |path| Some(if is_old(path) { 2 } else { 1 }));
        assert_eq!(tree, json!({"engine": {"provider_threads": 3}}));
        let mut tree = before;
        let warnings = rename(&mut tree, |_| Some(1));
        assert_eq!(tree, json!({"engine": {"provider_threads": 1}}));
        assert!(warnings[0].to_string().contains("ignored"), "{}", warnings[0]);
    }

    /// A mistake in an old key is found where it was written.
    #[test]
    fn the_old_name_of_a_key_is_known() {
        let path = ["security", "read_only_paths", "1"].map(String::from);
        assert_eq!(old_name(&path).unwrap(), ["security", "shown", "1"]);
        assert_eq!(old_name(&["storage".into(), "lease_ttl_other".into()]), None);
    }
}
