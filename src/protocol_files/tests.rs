use gleitzeit_domain::{
    protocol::{MethodExample, MethodSpec, ParameterSpec},
    resources::ResourceRequirements,
    retry::RetryPolicy,
    security::SecurityRequirements,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{layout::Layout, *};

/// The fields that serde knows of `T`, out of its own complaint.
fn fields_of<T: DeserializeOwned>() -> Vec<String> {
    let complaint = serde_json::from_value::<T>(json!({"?": 0})).err().unwrap().to_string();
    let (_, list) = complaint.split_once("expected one of ").unwrap();
    list.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

fn keys_of(layout: &Layout) -> Vec<String> {
    match layout {
        Layout::Record(keys) => keys.iter().map(|(name, _)| (*name).to_owned()).collect(),
        _ => Vec::new(),
    }
}

/// A field that the layout forgets could never be written in a file.
#[test]
fn the_layout_has_the_fields_of_the_specifications() {
    assert_eq!(keys_of(&layout::PROTOCOL), fields_of::<ProtocolSpec>());
    assert_eq!(keys_of(&layout::METHOD), fields_of::<MethodSpec>());
    assert_eq!(keys_of(&layout::PARAMETER), fields_of::<ParameterSpec>());
    assert_eq!(keys_of(&layout::EXAMPLE), fields_of::<MethodExample>());
    assert_eq!(keys_of(&layout::RETRY), fields_of::<RetryPolicy>());
    assert_eq!(keys_of(&layout::RESOURCES), fields_of::<ResourceRequirements>());
    assert_eq!(keys_of(&layout::SECURITY), fields_of::<SecurityRequirements>());
}

fn messages(text: &str) -> Vec<String> {
    parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Positional parameters follow the order of the file, not that of the alphabet.
#[test]
fn the_order_of_the_file_is_kept() {
    let spec = parse(
        r#"
        name = "x"
        version = "v1"
        [methods.zeta.params_schema]
        second = { type = "object", properties.z = { type = "any" }, properties.a = { type = "any" } }
        first = { type = "string" }
        [methods.alpha]
        [methods.zeta.params_schema.apart]
        type = "string"
        "#,
    )
    .unwrap();
    assert_eq!(spec.methods.keys().collect::<Vec<_>>(), ["zeta", "alpha"]);
    let params = &spec.methods["zeta"].params_schema;
    assert_eq!(params.keys().collect::<Vec<_>>(), ["second", "first", "apart"]);
    let inner = params["second"].properties.as_ref().unwrap();
    assert_eq!(inner.keys().collect::<Vec<_>>(), ["z", "a"]);
}

/// Every unknown key at once, each with its place and what was probably meant.
#[test]
fn unknown_keys_are_reported_with_their_line() {
    let text = "\
name = \"x\"
version = \"v1\"
athor = \"me\"
[methods.a.params_schema]
p = { type = \"string\", patern = \"x\" }
[[methods.a.examples]]
params = { p = \"x\", anything = { goes = 1 } }
outcome = 1
[methods.a.retry_policy]
max_attempt = 2
";
    assert_eq!(
        messages(text),
        [
            "3:1: athor: unknown key `athor`; did you mean `author`?",
            "5:24: methods.a.params_schema.p.patern: unknown key `patern`; did you mean `pattern`?",
            "7:21: methods.a.examples.0.params.anything: the example breaks the schema: unknown \
             parameter `anything`; known are `p`",
            "8:1: methods.a.examples.0.outcome: unknown key `outcome`; known are `params`, \
             `result`, `description`",
            "10:1: methods.a.retry_policy.max_attempt: unknown key `max_attempt`; did you mean \
             `max_attempts`?",
        ]
    );
}

/// What registration would refuse is reported with its line, while the file is at hand.
#[test]
fn wrong_schemas_are_reported_with_their_line() {
    let text = "\
name = \"x\"
version = \"v1\"
[methods.a.params_schema]
p = { type = \"string\", pattern = \"(\" }
n = { type = \"integer\", minimum = 3, maximum = 2 }
d = { type = \"integer\", default = \"no\" }
";
    let messages = messages(text);
    assert_eq!(messages.len(), 3, "{messages:#?}");
    assert!(messages[0].starts_with("4:24: methods.a.params_schema.p.pattern: the pattern `(`"));
    assert!(messages[1].starts_with("5:25: methods.a.params_schema.n.minimum: the minimum 3"));
    assert!(messages[2].starts_with("6:25: methods.a.params_schema.d.default: the default breaks"));
}

/// A wrong type, a missing key and broken syntax have a place too.
#[test]
fn parse_errors_have_a_line() {
    let wrong_type = messages("name = \"x\"\nversion = \"v1\"\ntags = \"one\"\n");
    assert_eq!(wrong_type, ["3:8: tags: invalid type: string \"one\", expected a sequence"]);
    let version = messages("name = \"x\"\nversion = \"one\"\n");
    assert!(version[0].starts_with("2:11: version: `one` is not a version"), "{version:?}");
    let kind = messages(
        "name = \"x\"\nversion = \"v1\"\n[methods.a.params_schema]\np = { type = \"text\" }\n",
    );
    assert!(kind[0].ends_with("unknown variant `text`, expected one of `string`, `integer`, `number`, `boolean`, `array`, `object`, `null`, `any`"), "{kind:?}");
    assert!(kind[0].starts_with("4:14: methods.a.params_schema.p.type: "), "{kind:?}");
    assert!(messages("name = \"x\"\n")[0].contains("missing field `version`"));
    assert!(messages("name = \n")[0].starts_with("1:"), "{:?}", messages("name = \n"));
}

/// JSON has neither dates nor infinite numbers; quietly changed ones would surprise.
#[test]
fn values_that_json_does_not_have_are_refused() {
    let text = "\
name = \"x\"
version = \"v1\"
[methods.a.params_schema]
p = { type = \"any\", default = 2026-11-23 }
q = { type = \"any\", enum = [1.5, -inf, nan] }
";
    let messages = messages(text);
    assert_eq!(messages.len(), 3, "{messages:#?}");
    assert!(
        messages[0].starts_with("4:31: methods.a.params_schema.p.default: `2026-11-23` is a date")
    );
    assert!(
        messages[1].starts_with("5:34: methods.a.params_schema.q.enum.1: `-inf`"),
        "{messages:#?}"
    );
}

/// The caret stands under the place, also behind a tab and characters of several bytes.
#[test]
fn the_report_points_at_the_line() {
    let text = "name = \"x\"\nversion = \"v1\"\n\t\"größe\" = 1\n";
    let problems = parse(text).unwrap_err();
    let error = ProtocolFileError::Invalid { path: "p.toml".into(), problems };
    let report = error.report();
    let lines: Vec<&str> = report.lines().collect();
    assert!(lines[0].starts_with("p.toml:3:2: größe: unknown key `größe`"), "{report}");
    assert_eq!(lines[1..], ["  |", "3 | \t\"größe\" = 1", "  | \t^"]);
}

/// A typing error in one file does not hide those in another; other files are left alone.
#[test]
fn a_directory_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    assert_eq!(load_dir(directory.path().join("missing")).unwrap(), []);
    write("b.toml", "name = \"b\"\nversion = \"v1\"\n");
    write("a.toml", "name = \"a\"\nversion = \"v1\"\nextends = \"b/v1\"\n");
    write("notes.txt", "no protocol");
    let names: Vec<_> = load_dir(directory.path()).unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["a", "b"]);
    write("c.toml", "name = 1\n");
    write("d.toml", "nam = \"d\"\n");
    let errors = load_dir(directory.path()).unwrap_err();
    let paths: Vec<_> = errors.iter().map(|error| error.path().file_name().unwrap()).collect();
    assert_eq!(paths, ["c.toml", "d.toml"]);
    assert!(matches!(load(directory.path()), Err(ProtocolFileError::Read { .. })));
}
