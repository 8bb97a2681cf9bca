//! Workflow files: what is read, and what is told about those that are wrong.

use gleitzeit::files::{self, Format};

/// A newcomer's first typing error: the key, its place, and what was meant.
#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
    let text = "name: report\ntasks:\n  - method: llm/chat\n    depencies: [numbers]\n";
    let error = files::parse(text, Format::Yaml, "report.yaml").unwrap_err();
    let expected = "\
error[WORKFLOW_VALIDATION_FAILED]: unknown key `depencies`
 --> report.yaml:4:5
  |
4 |     depencies: [numbers]
  |     ^^^^^^^^^ did you mean `dependencies`?
";
    assert_eq!(error.to_string(), expected);
}
