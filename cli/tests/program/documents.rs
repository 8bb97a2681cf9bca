//! The documents say what the code does: keys of settings and of workflow files, error codes, statuses,
//! links, and the workflows that they show.
//!
//! Tables are read by their headings, so a heading that is renamed fails here, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use gleitzeit::{
    ErrorCode, Settings, TaskStatus, WorkflowStatus,
    files::{self, Format},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::support::Scratch;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The lines of a document outside of its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The rows of all tables by the heading that they are under; the cells without their spaces.
fn tables(text: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut heading = String::new();
    let mut tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in prose(text) {
        if let Some(found) = line.strip_prefix('#') {
            found.trim_start_matches('#').replace('`', "").trim().clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| ") {
            let cells = row.trim_end_matches('|').split(" | ");
            tables
                .entry(heading.clone())
                .or_default()
                .push(cells.map(|cell| cell.trim().to_owned()).collect::<Vec<String>>());
        }
    }
    tables
}

/// The words in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The blocks of code in a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    let parts = text.split(&open).skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The keys that a type reads, older names included.
fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(json!({ "?": 0 })).err().expect("`?` is no key");
    let text = error.to_string();
    let (_, known) = text.split_once("expected ").unwrap_or_else(|| panic!("{text}"));
    quoted(known).map(str::to_owned).collect()
}

/// Whether a cell names the default that the code has; `None` stands for an absent one.
fn is_default(cell: &str, value: Option<&Value>) -> bool {
    let text = cell.trim_matches('`');
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return ["–", "[]", "{}"].contains(&text);
    };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Number(number)) => number.as_f64() == value.as_f64(),
        Ok(read) => read == *value,
        Err(_) => value.as_str() == Some(text),
    }
}

/// A section of the page on settings: its heading, the keys that the code reads, its defaults.
type Section = (&'static str, BTreeSet<String>, Value);

fn sections() -> Vec<Section> {
    use gleitzeit::settings as s;
    let all = serde_json::to_value(Settings::default()).unwrap();
    let at = |path: &str| all.pointer(path).cloned().unwrap_or_default();
    let mut engine = fields::<s::EngineSettings>();
    assert!(engine.remove("retry"), "it has a section of its own");
    let mut sections = vec![
        ("[engine]", engine, at("/engine")),
        ("[engine.retry]", fields::<gleitzeit::RetryPolicy>(), at("/engine/retry")),
        ("[resources]", fields::<s::ResourceSettings>(), at("/resources")),
        ("[storage]", fields::<s::StorageSettings>(), at("/storage")),
        ("[balancing]", fields::<s::BalancingSettings>(), at("/balancing")),
        ("[supervision]", fields::<s::SupervisionSettings>(), at("/supervision")),
        ("[providers.<id>]", fields::<s::ProviderSettings>(), at("/providers/echo")),
        ("[protocols]", fields::<s::ProtocolSettings>(), at("/protocols")),
        ("[monitoring]", fields::<s::MonitoringSettings>(), at("/monitoring")),
        ("[logging]", fields::<s::LoggingSettings>(), at("/logging")),
        ("[server]", fields::<s::ServerSettings>(), at("/server")),
        ("[security]", fields::<s::SecuritySettings>(), at("/security")),
    ];
    #[cfg(feature = "python")]
    {
        use gleitzeit::providers::python::{DockerConfig, PythonConfig};
        let mut defaults = serde_json::to_value(PythonConfig::default()).unwrap();
        // Written only where it is not the default.
        defaults["prefork"] = json!(PythonConfig::default().prefork);
        sections.push(("config of kind python", fields::<PythonConfig>(), defaults));
        sections.push(("config.docker of kind python", fields::<DockerConfig>(), Value::Null));
    }
    #[cfg(feature = "ollama")]
    {
        use gleitzeit::providers::ollama::OllamaConfig;
        let defaults = serde_json::to_value(OllamaConfig::default()).unwrap();
        sections.push(("config of kind ollama", fields::<OllamaConfig>(), defaults));
    }
    sections
}

/// A key without a line is found by nobody, and a line without a key sends people into an error.
#[test]
fn every_setting_is_described_with_its_default() {
    let tables = tables(&read("docs/settings.md"));
    let mut wrong = Vec::new();
    for (section, keys, defaults) in sections() {
        let rows = tables.get(section).unwrap_or_else(|| panic!("no section `{section}`"));
        let rows = &rows[1..];
        let named: BTreeSet<&str> = rows.iter().flatten().flat_map(|cell| quoted(cell)).collect();
        for key in keys.iter().filter(|key| !named.contains(key.as_str())) {
            wrong.push(format!("{section}: `{key}` is missing"));
        }
        for row in rows {
            let key = row[0].trim_matches('`');
            if !keys.contains(key) {
                wrong.push(format!("{section}: there is no `{key}`"));
            }
            let is_listed = !["required", "`[security]`"].contains(&row[2].as_str());
            if is_listed && !is_default(&row[2], defaults.get(key)) {
                wrong.push(format!(
                    "{section}: `{key}` is not {}: {:?}",
                    row[2],
                    defaults.get(key)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/settings.md\n{}", wrong.join("\n"));
}

/// A new table of the settings needs a section of its own.
#[test]
fn every_table_of_the_settings_has_a_section() {
    let described: BTreeSet<String> = sections()
        .iter()
        .filter_map(|(name, ..)| name.strip_prefix('['))
        .map(|name| name.trim_end_matches(']').split('.').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(described, fields::<Settings>());
}

/// The keys that the reader of workflow files names when it meets one that it does not know.
fn known_keys(what: &str, text: &str) -> BTreeSet<String> {
    let error = files::parse(text, Format::Yaml, "w.yaml").expect_err("it has a wrong key");
    let error = error.to_string();
    let prefix = format!("{what} has ");
    let list = error.split(&prefix).nth(1).unwrap_or_else(|| panic!("no `{prefix}` in {error}"));
    let list = list.lines().next().unwrap_or_default();
    list.split(", ").map(|key| key.trim().to_owned()).collect()
}

/// Each key of a workflow file has a row.
#[test]
fn every_key_of_a_workflow_file_is_described() {
    let text = read("docs/workflow.md");
    let tables = tables(&text);
    let task = |inner: &str| format!("name: a\ntasks:\n  - {{method: echo/echo, {inner}}}\n");
    for (section, what, file) in [
        ("Keys of a workflow", "a workflow", "name: a\nzzzzzzzzzz: 1\n".to_owned()),
        ("Keys of a task", "a task", task("zzzzzzzzzz: 1")),
        ("Retries", "`retry`", task("retry: {zzzzzzzzzz: 1}")),
        ("Resources", "`resources`", task("resources: {zzzzzzzzzz: 1}")),
        ("Batches", "`batch`", "type: batch\nbatch: {zzzzzzzzzz: 1}\n".to_owned()),
    ] {
        let rows = &tables[section][1..];
        let described: BTreeSet<String> = rows
            .iter()
            .flat_map(|row| row[0].split('(').next().map(quoted).into_iter().flatten())
            .map(str::to_owned)
            .collect();
        assert_eq!(described, known_keys(what, &file), "docs/workflow.md, {section}");
    }
}

/// Clients branch on codes; the table is those of the code, in their order.
#[test]
fn every_error_code_is_described() {
    let tables = tables(&read("docs/workflow.md"));
    let described: Vec<String> =
        tables["Error codes"][1..].iter().map(|row| row[..3].join(" ")).collect();
    let codes = ErrorCode::ALL.iter().map(|code| {
        let retryable = if code.is_retryable() { "yes" } else { "no" };
        format!("{} `{}` {retryable}", code.number(), code.name())
    });
    assert_eq!(described, codes.collect::<Vec<_>>());
}

/// The workflows that people copy are valid, with nothing to warn of.
#[test]
fn every_workflow_of_the_documents_passes_check() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("texts")).unwrap();
    scratch.file("texts/a.txt", "a text");
    let mut checked = 0;
    for document in ["README.md", "docs/workflow.md", "docs/cli.md", "docs/operations.md"] {
        for text in blocks(&read(document), "yaml") {
            let file = scratch.file("shown.yaml", &text);
            let out = scratch.run(&["check", "--strict", &file]);
            assert_eq!(out.status, 0, "{document}\n{text}\n{}", out.stderr);
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked}");
    let order = read("examples/order.yaml");
    assert!(read("README.md").contains(&order), "the README shows the file that its command runs");
    let text = read("docs/workflow.md");
    for (language, format) in [("json", Format::Json), ("toml", Format::Toml)] {
        let [block] = blocks(&text, language).try_into().expect("one of each");
        assert!(files::parse(&block, format, "shown").is_ok(), "{block}");
    }
}

/// The settings that people copy are read.
#[test]
fn every_table_of_settings_in_the_documents_is_read() {
    let all = blocks(&read("docs/security.md"), "toml");
    assert!(all.len() >= 2, "{all:?}");
    for text in all {
        match Settings::from_toml(&text) {
            Ok(_) => {}
            // A build without containers says so, and nothing else.
            Err(error) => assert!(error.to_string().contains("docker"), "{text}\n{error}"),
        }
    }
}

/// The diagram of a task has the transitions that the code allows, and no others.
#[test]
fn the_diagrams_have_the_states_of_the_code() {
    let [tasks, workflows] = blocks(&read("docs/concepts.md"), "mermaid").try_into().unwrap();
    let steps = |text: &str| -> BTreeSet<(String, String)> {
        let step = |line: &str| {
            let (from, to) = line.split(':').next()?.split_once("-->")?;
            Some((from.trim().to_owned(), to.trim().to_owned()))
        };
        text.lines().filter_map(step).filter(|(from, to)| from != "[*]" && to != "[*]").collect()
    };
    let all = TaskStatus::ALL;
    let allowed = all.iter().flat_map(|from| {
        let to = all.iter().filter(|to| from.can_become(**to));
        to.map(|to| (from.to_string(), to.to_string()))
    });
    assert_eq!(steps(&tasks), allowed.collect());
    let named = steps(&workflows).into_iter().flat_map(|(from, to)| [from, to]);
    let statuses = WorkflowStatus::ALL.map(|status| status.to_string());
    assert_eq!(named.collect::<BTreeSet<_>>(), BTreeSet::from(statuses));
}

/// One word for one concept: a term that stands twice has two meanings.
#[test]
fn terms_of_the_glossary_are_unique() {
    let tables = tables(&read("docs/concepts.md"));
    let rows = &tables["Glossary"][1..];
    let terms: Vec<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    let unique: BTreeSet<&str> = terms.iter().copied().collect();
    assert_eq!(terms.len(), unique.len(), "{terms:?}");
    assert!(unique.len() >= 40, "{}", unique.len());
}

/// The documents of the repository.
fn documents() -> Vec<String> {
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|page| format!("docs/{}", page.unwrap().file_name().display()));
    names.into_iter().map(str::to_owned).chain(pages).collect()
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
    };
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

/// A link within the repository leads to a file that is there, and to a heading in it.
#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        let folder = root().join(&document).parent().unwrap().to_owned();
        let lines = prose(&text).collect::<Vec<_>>().join("\n");
        let targets = lines.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            assert!(file.exists(), "{document}: `{target}` is not there");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                assert!(anchors(&text).contains(anchor), "{document}: no heading of `{target}`");
            }
            checked += 1;
        }
    }
    assert!(checked >= 30, "{checked}");
}

/// Files and folders of the repository that a document names are there.
#[test]
fn paths_in_the_documents_are_there() {
    let folders: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().display().to_string())
        .collect();
    // Placeholders such as `config/NAME.toml` have capitals.
    let is_path = |word: &&str| {
        let is_letter =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./".contains(c);
        let first = word.split_once('/').map(|(first, _)| first);
        first.is_some_and(|first| folders.contains(first)) && word.chars().all(is_letter)
    };
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        let prose = prose(&text).collect::<Vec<_>>().join("\n");
        for path in quoted(&prose).filter(is_path) {
            assert!(root().join(path).exists(), "{document}: `{path}` is not there");
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}
