//! What other programs read: reports for build servers, the schema for editors; and long code.

use std::fs;

use serde_json::json;

use crate::support::Scratch;

/// Each task is a case; what XML does not have is shown, and the counts are those of the cases.
#[test]
fn a_run_is_reported_in_junits_xml() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "w.yaml",
        "name: 'a <b> & \"c\"'\ntasks:\n  - {id: good, method: echo/echo, params: {x: 1}}\n  - {id: \
         bad, name: 'Fails & ends', method: echo/fail, params: {message: \"no\\u001b[31m <x>\\nmore ]]>\"}}\n  \
         - {id: after, method: echo/echo, params: {x: 1}, dependencies: [bad]}\n",
    );
    assert_eq!(scratch.run(&["run", &file, "--junit", "report.xml"]).status, 1);
    let xml = fs::read_to_string(scratch.path("report.xml")).unwrap();
    for part in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<testsuites name=\"a &lt;b&gt; &amp; &quot;c&quot;\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"",
        "<testcase name=\"good\" classname=\"a &lt;b&gt; &amp; &quot;c&quot;\" time=\"0.",
        "<testcase name=\"bad: Fails &amp; ends\"",
        "no\\u001b[31m &lt;x&gt;",
        "more ]]&gt;",
        "<skipped message=\"",
        "<property name=\"workflow_id\" value=\"",
    ] {
        assert!(xml.contains(part), "no `{part}` in {xml}");
    }
    let is_allowed = |c: char| !c.is_control() || c == '\n';
    assert!(xml.chars().all(is_allowed), "{xml:?}");
    for element in ["testsuites", "testsuite", "failure", "properties"] {
        let (opened, closed) = (format!("<{element}"), format!("</{element}>"));
        assert_eq!(xml.matches(&closed).count(), 1, "{closed}");
        assert!(xml.find(&opened) < xml.find(&closed));
    }
    assert_eq!(xml.matches("<testcase ").count(), 3);
    // Python has a reader of XML.
    let code = "import sys, xml.dom.minidom; d = xml.dom.minidom.parse(sys.argv[1]); \
                print(d.getElementsByTagName('failure')[0].getAttribute('type'))";
    let path = scratch.path("report.xml");
    if let Ok(read) = std::process::Command::new("python3").args(["-c", code]).arg(&path).output() {
        assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "TASK_EXECUTION_FAILED");
    }
    let ok = scratch.file("ok.yaml", "name: ok\ntasks:\n  - {method: echo/echo, params: {x: 1}}\n");
    let out = scratch.run(&["run", &ok, "--junit", "no/such/dir.xml"]);
    assert_eq!(out.status, 3);
    assert!(out.stderr.contains("report not written to `no/such/dir.xml`"), "{}", out.stderr);
}

/// The schema needs no settings, and names its draft.
#[test]
fn the_schema_is_printed() {
    let scratch = Scratch::new();
    scratch.file("gleitzeit.toml", "[");
    let out = scratch.run(&["schema"]);
    assert_eq!(out.status, 0, "{}", out.stderr);
    let schema: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["$defs"]["task"]["properties"]["method"].is_object());
}

/// Inline code of 256 KiB runs, in a jail and without one; a byte more is refused before the start.
#[cfg(feature = "python")]
#[test]
fn code_may_have_256_kib() {
    const MAX: usize = 256 * 1024;
    let file = |scratch: &Scratch, len: usize| {
        let end = "\nresult = len(x)\n";
        let code = format!("x = '{}'{end}", "a".repeat(len - "x = ''".len() - end.len()));
        assert_eq!(code.len(), len);
        let task = json!({"id": "t", "method": "python/execute", "params": {"code": code}});
        scratch.file("w.json", &json!({"name": "w", "tasks": [task]}).to_string())
    };
    for scratch in [Scratch::new(), Scratch::without_jail()] {
        let whole = file(&scratch, MAX);
        let ran = scratch.json(&["--json", "run", &whole]).success();
        let wanted = MAX - "x = ''\nresult = len(x)\n".len();
        assert_eq!(ran["tasks"]["t"]["result"]["result"], wanted);
        let answer = scratch.json(&["--json", "show", "@last", "--task", "t"]).success();
        assert_eq!(answer["parameters"]["code"].as_str().unwrap().len(), MAX);
        let longer = file(&scratch, MAX + 1);
        let out = scratch.run(&["run", &longer]);
        assert_eq!(out.status, 2);
        assert!(out.stderr.contains("262144") && out.stderr.contains("code"), "{}", out.stderr);
        assert!(out.stderr.len() < 2_000, "the code is not repeated");
    }
}
