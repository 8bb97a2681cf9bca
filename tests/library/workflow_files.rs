//! Workflow files: what is read, and what is reported about those that are wrong.
//!
//! `tests/files/good` has files with the workflow each must give (`.spec.json`), `tests/files/bad`
//! files with the text that each must be refused with (`.txt`). `GLEITZEIT_UPDATE=1` writes the
//! expected files anew; read the difference before it is kept.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use gleitzeit::files::{
    self, BatchError, BatchWork, FileError, Format, WorkflowFile, batch_spec, dot, mermaid,
};
use gleitzeit_domain::{
    error::ErrorCode,
    problem::Problem,
    protocol::catalog::ProtocolCatalog,
    reference::{self, Template},
    workflow::{TaskSpec, WorkflowSpec},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The files in a folder of the corpus that are no expectations, sorted.
fn corpus(folder: &str) -> Vec<PathBuf> {
    let is_input = |path: &PathBuf| {
        let extension = path.extension().and_then(OsStr::to_str);
        let name = path.file_name().and_then(OsStr::to_str).unwrap();
        path.is_file() && extension != Some("txt") && !name.ends_with(".spec.json")
    };
    let folder = Path::new("tests/files").join(folder);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_input).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// Compares with the expected file beside the input, or writes it when asked to.
fn check(input: &Path, extension: &str, actual: &str) {
    let expected = PathBuf::from(format!("{}.{extension}", input.display()));
    if env::var_os("GLEITZEIT_UPDATE").is_some() {
        fs::write(&expected, actual).unwrap();
    }
    let text = fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(actual, text, "{} differs", expected.display());
}

fn yaml(text: &str) -> Result<WorkflowFile, FileError> {
    files::parse(text, Format::Yaml, "test.yaml")
}

/// The parameters of the only task of a workflow.
fn parameters(text: &str) -> Value {
    (*yaml(text).unwrap().spec.tasks[0].parameters).clone()
}

/// Every good file gives the workflow that it gave when someone last looked at it.
#[test]
fn good_files_are_read_as_the_expected_workflows() {
    for path in corpus("good") {
        let file = files::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let mut text = serde_json::to_string_pretty(&file.spec).unwrap();
        text.push('\n');
        let here = env::current_dir().unwrap().display().to_string();
        let text = text.replace(&here, "<here>");
        check(&path, "spec.json", &text);
    }
}

/// Every bad file is refused with the expected text, carets included.
#[test]
fn bad_files_are_refused_with_the_expected_text() {
    for path in corpus("bad") {
        let error = files::read(&path).map(|file| file.spec).unwrap_err();
        let here = env::current_dir().unwrap().display().to_string();
        check(&path, "txt", &error.to_string().replace(&here, "<here>"));
    }
}

/// A workflow means the same in every format.
#[test]
fn the_three_formats_are_read_as_equal_workflows() {
    let read = |extension: &str| {
        files::read(Path::new(&format!("tests/files/same/workflow.{extension}"))).unwrap().spec
    };
    assert_eq!(read("yaml"), read("json"));
    assert_eq!(read("yaml"), read("toml"));
}

/// What is stored must be readable again, as it was.
#[test]
fn workflows_of_files_survive_storage() {
    for path in corpus("good") {
        let spec = files::read(&path).unwrap().spec;
        let stored = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<WorkflowSpec>(&stored).unwrap(), spec);
    }
}

/// An author who mends one mistake must not be shown the next one only then: shape, methods,
/// references, dependencies and circles are reported together.
#[test]
fn errors_of_shape_and_sense_are_reported_together() {
    let path = Path::new("tests/files/judged/everything.yaml");
    let catalog = ProtocolCatalog::builtin();
    let judge = |spec: &WorkflowSpec| gleitzeit_domain::plan::problems(spec, &catalog);
    let Err(FileError::Invalid(found)) = files::read_and_judge(path, &judge) else {
        panic!("accepted");
    };
    check(path, "txt", &found.render(false));
    let codes: Vec<ErrorCode> = found.iter().map(|it| it.code).collect();
    assert_eq!(
        codes,
        [
            ErrorCode::MethodNotFound,
            ErrorCode::WorkflowValidationFailed,
            ErrorCode::TaskNotFound,
            ErrorCode::WorkflowValidationFailed,
            ErrorCode::WorkflowCircularDependency,
        ]
    );
}

/// A newcomer's first typing error: the key, its place, and what was meant.
#[test]
fn an_unknown_key_is_reported_with_its_position_and_the_nearest_known_one() {
    let text = "name: report\ntasks:\n  - method: llm/chat\n    depencies: [numbers]\n";
    let error = yaml(text).unwrap_err();
    let expected = "\
error[WORKFLOW_VALIDATION_FAILED]: unknown key `depencies`
 --> test.yaml:4:5
  |
4 |     depencies: [numbers]
  |     ^^^^^^^^^ did you mean `dependencies`?
";
    assert_eq!(error.to_string(), expected);
}

/// Programs get the same as people: place, kind, message and help.
#[test]
fn diagnostics_are_a_list_for_programs() {
    let Err(FileError::Invalid(diagnostics)) = yaml("name: x\ntasks:\n- odd: a/b\n") else {
        panic!("accepted");
    };
    let list = serde_json::to_value(&diagnostics).unwrap();
    let expected = json!([
        {
            "severity": "error", "code": -28001, "name": "WORKFLOW_VALIDATION_FAILED",
            "file": "test.yaml",
            "line": 3, "column": 3, "len": 3,
            "message": "unknown key `odd`",
            "help": "a task has id, name, protocol, method, parameters, dependencies, priority, \
                     timeout, total_timeout, retry, resources, on_dependency_failure, profile, when, in, value, switch"
        },
        {
            "severity": "error", "code": -28001, "name": "WORKFLOW_VALIDATION_FAILED",
            "file": "test.yaml",
            "line": 3, "column": 3, "len": 3,
            "message": "a task needs `method`", "help": "add `method: <protocol>/<method>`"
        }
    ]);
    assert_eq!(list, expected);
    assert_eq!(diagnostics.code(), ErrorCode::WorkflowValidationFailed);
    assert!(diagnostics.render(true).contains("\x1b[1;31m^^^"));
    assert!(!diagnostics.render(false).contains('\x1b'));
}

/// A later check names a place in the workflow; the person is shown the place in the file.
#[test]
fn problems_of_later_checks_are_located_in_the_file() {
    let text = "\
name: later
tasks:
  - id: a
    method: python/execute
    params:
      code: |
        x
      odd/key: 5
    depends_on: [b, c]
    retry: { initial_delay: 2 }
  - method: llm/chat
";
    let source = yaml(text).unwrap().source;
    let position = |pointer: &str| {
        let problem = Problem::new(ErrorCode::InvalidParams, pointer, "wrong").help("mend it");
        let diagnostics = source.diagnostics(&[problem]);
        let only = diagnostics.iter().next().unwrap();
        assert_eq!(only.code, ErrorCode::InvalidParams);
        assert_eq!(only.help.as_deref(), Some("mend it"));
        (only.line, only.column, only.len)
    };
    assert_eq!(position("/tasks/0/parameters/code"), (6, 7, 4));
    assert_eq!(position("/tasks/0/parameters/odd~1key"), (8, 16, 1));
    assert_eq!(position("/tasks/0/parameters"), (5, 5, 6));
    assert_eq!(position("/tasks/0/dependencies/1"), (9, 21, 1));
    assert_eq!(position("/tasks/0/retry/base_delay"), (10, 29, 1));
    assert_eq!(position("/tasks/0/method"), (4, 13, 14));
    // What the file does not say is placed at what stands above it.
    assert_eq!(position("/tasks/0/parameters/missing"), (5, 5, 6));
    assert_eq!(position("/tasks/1/parameters/messages"), (11, 5, 6));
    assert_eq!(position("/tasks/9"), (2, 1, 5));
    assert_eq!(position(""), (1, 1, 4));
    assert_eq!(position("no pointer"), (1, 1, 4));
}

/// Problems are reported in the order of the file, whatever order they were found in.
#[test]
fn problems_are_sorted_by_position() {
    let source = yaml("name: x\ntimeout: 1\ntasks:\n- method: a/b\n").unwrap().source;
    let problem = |pointer: &str| Problem::new(ErrorCode::InvalidRequest, pointer, pointer);
    let diagnostics = source.diagnostics(&[problem("/tasks/0/method"), problem("/name")]);
    let messages: Vec<&str> = diagnostics.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages, ["/name", "/tasks/0/method"]);
}

/// A file of a kilobyte must not fill the memory.
#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("name: bomb\nmetadata:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let nine = [below.as_str(); 9].join(", ");
        writeln!(text, "  a{level}: &a{level} [{nine}]").unwrap();
    }
    text += "tasks:\n- method: echo/echo\n";
    let error = yaml(&text).unwrap_err().to_string();
    assert!(error.contains("expand to too much"), "{error}");
}

/// The same with one long text, which a count of nodes alone would let pass.
#[test]
fn an_alias_bomb_of_text_is_refused() {
    let text = format!(
        "name: bomb\nmetadata:\n- &long {}\n- [{}]\ntasks:\n- method: echo/echo\n",
        "x".repeat(1 << 20),
        vec!["*long"; 100].join(", ")
    );
    let error = yaml(&text).unwrap_err().to_string();
    assert!(error.contains("expand to too much"), "{}", &error[..200]);
}

/// Depth is bounded in every format: what is stored must be readable again.
#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &str, close: &str, levels| open.repeat(levels) + &close.repeat(levels);
    let nested = |format, head: &str, tail: &str, open: &str, close: &str, levels| {
        let text = format!("{head}{}{tail}", deep(open, close, levels));
        files::parse(&text, format, "deep").map(|file| file.spec)
    };
    let json = |levels| {
        let head = r#"{"name": "x", "tasks": [{"method": "a/b", "params": "#;
        nested(Format::Json, head, "}]}", "[", "]", levels)
    };
    let toml = |levels| {
        nested(Format::Toml, "name='x'\n[[tasks]]\nmethod='a/b'\nparams=", "\n", "[", "]", levels)
    };
    let yaml = |levels| {
        nested(Format::Yaml, "name: x\ntasks:\n- method: a/b\n  params: ", "\n", "[", "]", levels)
    };
    for levels in [200, 100_000] {
        for error in [json(levels), toml(levels), yaml(levels)].map(Result::unwrap_err) {
            assert!(matches!(error, FileError::Invalid(_)), "{error}");
        }
    }
    for spec in [json(60), toml(60), yaml(60)].map(Result::unwrap) {
        let stored = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<WorkflowSpec>(&stored).unwrap(), spec);
    }
    let dotted = format!("name='x'\n{}a = 1\n", "a.".repeat(100_000));
    assert!(files::parse(&dotted, Format::Toml, "dotted").is_err());
}

/// Aliases inside of aliases may not go around the bound on depth.
#[test]
fn deep_nesting_through_aliases_is_refused() {
    let mut text = String::from("name: x\nmetadata:\n  a0: &a0 x\n");
    for level in 1..400 {
        writeln!(text, "  a{level}: &a{level} [[*a{}]]", level - 1).unwrap();
    }
    text += "tasks:\n- method: echo/echo\n";
    let error = yaml(&text).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 100 levels"), "{error}");
}

/// A large file that is wrong all over is refused in reasonable time and length.
#[test]
fn more_problems_than_anyone_reads_are_counted() {
    let tasks = vec![r#"{"method": "a/b", "x": 1}"#; 20_000].join(", ");
    let text = format!(r#"{{"name": "x", "tasks": [{tasks}]}}"#);
    let Err(FileError::Invalid(all)) = files::parse(&text, Format::Json, "x.json") else {
        panic!("accepted");
    };
    assert_eq!(all.len(), 1_001);
    let last = all.iter().last().unwrap();
    assert_eq!(last.message, "19000 more problems from here on, not shown");
}

/// Anchors inside of anchors are copies too.
#[test]
fn anchors_inside_of_anchors_are_bounded() {
    let open = (0..90).map(|level| format!("&a{level} [")).collect::<Vec<_>>().concat();
    let text = format!(
        "name: x\nmetadata: {open}{}{}\ntasks:\n- method: a/b\n",
        "x".repeat(1 << 20),
        "]".repeat(90)
    );
    let error = yaml(&text).unwrap_err().to_string();
    assert!(error.contains("expand to too much"), "{}", &error[..200]);
}

/// An anchor that contains itself has no value.
#[test]
fn an_alias_inside_of_its_anchor_is_refused() {
    let error = yaml("name: x\ntasks: &a\n- method: a/b\n  params: [*a]\n").unwrap_err();
    assert!(error.to_string().contains("inside of what it names"), "{error}");
}

/// Own keys win over merged ones, and earlier sources over later ones.
#[test]
fn merge_keys_fill_in_what_is_missing() {
    let text = "name: x\ntasks:\n- method: a/b\n  params:\n    <<: [{a: 1, b: 1}, {b: 2, c: 2}]\n    c: 3\n";
    assert_eq!(parameters(text), json!({"a": 1, "b": 1, "c": 3}));
}

/// Windows writes files with a mark and with carriage returns.
#[test]
fn byte_order_mark_and_carriage_returns_are_no_obstacle() {
    let text = "\u{feff}name: x\r\ntasks:\r\n- method: a/b\r\n  params:\r\n    code: |\r\n      1\r\n      2\r\n";
    assert_eq!(parameters(text), json!({"code": "1\n2\n"}));
    let error = yaml(&text.replace("params", "parms")).unwrap_err().to_string();
    assert!(error.contains("test.yaml:4:3\n  |\n4 |   parms:\n  |   ^^^^^ did you"), "{error}");
}

/// A file must not write to the terminal of who reads its errors.
#[test]
fn control_characters_are_not_printed() {
    let text = "{\"name\": \"x\", \"tasks\": [], \"a\u{7f}\u{9b}31m\": 1}";
    let error = files::parse(text, Format::Json, "x\u{1b}.json").unwrap_err().to_string();
    assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
}

/// The extension says the format; without a known one, the text does.
#[test]
fn the_format_is_found_by_name_or_by_text() {
    for (name, format) in [
        ("a.yaml", Some(Format::Yaml)),
        ("a.YML", Some(Format::Yaml)),
        ("a.json", Some(Format::Json)),
        ("a.b.toml", Some(Format::Toml)),
        ("a.txt", None),
        ("yaml", None),
    ] {
        assert_eq!(Format::of_path(Path::new(name)), format, "{name}");
    }
    for (text, format) in [
        ("# x\n\n{ \"name\": 1 }", Format::Json),
        ("# x\nname = \"a: b\"\n", Format::Toml),
        ("[[tasks]]\n", Format::Toml),
        ("name: \"a = b\"\n", Format::Yaml),
        ("", Format::Yaml),
    ] {
        assert_eq!(Format::of_text(text), format, "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, extension) in [("first", "yaml"), ("second", "json"), ("third", "toml")] {
        let path = folder.path().join(name);
        fs::copy(format!("tests/files/same/workflow.{extension}"), &path).unwrap();
        assert_eq!(files::read(&path).unwrap().spec.name, "same");
    }
}

/// A file that is not there, is a folder or is too large is reported as such.
#[test]
fn a_file_that_cannot_be_read_is_reported_with_its_name() {
    let error = files::read(Path::new("tests/files/nowhere.yaml")).unwrap_err();
    assert!(matches!(error, FileError::Io { .. }));
    assert!(error.to_string().contains("cannot read `tests/files/nowhere.yaml`"), "{error}");
    let error = files::read(Path::new("tests/files")).unwrap_err();
    assert!(matches!(error, FileError::Io { .. }));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    // A sparse file: it takes no place on the disk.
    fs::File::create(&path).unwrap().set_len(files::FILE_BYTES_MAX + 1).unwrap();
    assert!(matches!(files::read(&path).unwrap_err(), FileError::TooLarge { .. }));
}

/// Reads a batch of the corpus, with paths relative to its folder.
fn batch(text: &str) -> Vec<(String, Value)> {
    let spec = files::parse(text, Format::Yaml, "tests/files/batch/batch.yaml")
        .unwrap_or_else(|error| panic!("{error}"))
        .spec;
    let root = fs::canonicalize("tests/files/batch").unwrap().display().to_string();
    let relative = |task: &TaskSpec| {
        let text = serde_json::to_string(&task.parameters).unwrap();
        assert!(text.contains(&root), "{text} has no absolute path in {root}");
        (task.id.clone(), serde_json::from_str(&text.replace(&root, "")).unwrap())
    };
    spec.tasks.iter().map(relative).collect()
}

/// A text task gets `file_path`; hidden files and other folders stay out; the order is sorted.
#[test]
fn a_batch_of_texts_has_a_task_for_each_file() {
    let text = "name: b\ntype: batch\nbatch: {directory: notes, pattern: '*.txt'}\ntemplate:\n  \
                method: llm/chat\n  priority: low\n  model: m\n  messages: []\n";
    let expected = [
        (
            "process-a-txt-0".to_owned(),
            json!({"file_path": "/notes/a.txt", "messages": [], "model": "m"}),
        ),
        (
            "process-b-txt-1".to_owned(),
            json!({"file_path": "/notes/b.txt", "messages": [], "model": "m"}),
        ),
    ];
    assert_eq!(batch(text), expected);
    let file = files::parse(text, Format::Yaml, "tests/files/batch/batch.yaml").unwrap();
    let task = &file.spec.tasks[0];
    assert_eq!(task.priority.as_str(), "low");
    assert_eq!(task.name.as_deref(), Some("Process a.txt"));
}

/// `**` goes into all folders; without a name, the batch gets one.
#[test]
fn a_pattern_may_go_into_all_folders() {
    let text = "type: batch\nbatch: {directory: notes, pattern: '**/*.txt'}\ntemplate: {}\n";
    let ids: Vec<String> = batch(text).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["process-a-txt-0", "process-b-txt-1", "process-c-txt-2"]);
    let spec = files::parse(text, Format::Yaml, "tests/files/batch/b.yaml").unwrap().spec;
    assert_eq!(spec.name, "Batch of 3 files");
    assert_eq!(spec.tasks[0].method, "llm/chat");
}

/// Python code finds the path in its context, beside what the template puts there.
#[test]
fn a_batch_of_python_tasks_puts_the_path_into_the_context() {
    let text = "name: b\nbatch: {directory: notes, pattern: n.md}\ntemplate:\n  \
                method: python/execute\n  params: {code: x, context: {k: 1}}\n  timeout: 5\n";
    let expected = json!({
        "code": "x", "timeout": 5, "context": {"k": 1, "file_path": "/notes/n.md"}
    });
    assert_eq!(batch(text), [("process-n-md-0".to_owned(), expected)]);
    let older = "name: b\ntype: batch\nprotocol: python/v1\nbatch: {directory: notes, pattern: n.md}\n\
                 template: {method: execute, file: s.py}\n";
    let expected = json!({"file": "s.py", "context": {"file_path": "/notes/n.md"}});
    assert_eq!(batch(older), [("process-n-md-0".to_owned(), expected)]);
}

/// A method for vision gets images, which are not text.
#[test]
fn a_batch_of_images_gets_image_paths() {
    let text =
        "name: b\nbatch: {directory: photos}\ntemplate: {method: llm/vision, prompt: what}\n";
    let expected = [
        ("process-p-GIF-0".to_owned(), json!({"image_path": "/photos/p.GIF", "prompt": "what"})),
        (
            "process-q-tar-png-1".to_owned(),
            json!({"image_path": "/photos/q.tar.png", "prompt": "what"}),
        ),
    ];
    assert_eq!(batch(text), expected);
}

/// Older files give folders as seen from the current one.
#[test]
fn a_batch_falls_back_to_the_current_folder() {
    let text = "batch: {directory: tests/files/batch/notes}\ntemplate: {}\n";
    let spec = files::parse(text, Format::Yaml, "elsewhere/batch.yaml").unwrap().spec;
    assert_eq!(spec.tasks.len(), 3);
}

/// A problem with a task of a batch is placed in the template that all tasks come from.
#[test]
fn problems_of_batch_tasks_are_located_in_the_template() {
    let text = "name: b\nbatch: {directory: notes}\ntemplate:\n  method: llm/chat\n  model: 5\n  \
                params: {stream: 7}\n";
    let file = files::parse(text, Format::Yaml, "tests/files/batch/batch.yaml").unwrap();
    let position = |pointer: &str| {
        let diagnostics =
            file.source.diagnostics(&[Problem::new(ErrorCode::InvalidParams, pointer, "wrong")]);
        let only = diagnostics.iter().next().unwrap();
        (only.line, only.column)
    };
    assert_eq!(position("/tasks/1/parameters/model"), (5, 10));
    assert_eq!(position("/tasks/1/parameters/stream"), (6, 20));
    assert_eq!(position("/tasks/0/method"), (4, 11));
    assert_eq!(position("/tasks/0/parameters/messages"), (6, 3));
    assert_eq!(position("/tasks/0"), (3, 1));
    assert_eq!(position("/tasks"), (2, 1));
}

/// The command line's batches: images are looked at, texts are read, scripts get the path.
#[test]
fn batches_of_the_command_line_choose_the_method_by_the_file() {
    let prompt = BatchWork::Prompt { prompt: "sum up".into(), model: Some("m".into()) };
    let texts = batch_spec(Path::new("tests/files/batch/notes"), "*.txt", &prompt).unwrap();
    assert_eq!(texts.tasks[0].method, "llm/chat");
    assert_eq!(texts.tasks[0].parameters["messages"][0]["content"], "sum up");
    assert_eq!(texts.tasks[0].parameters["model"], "m");
    let images = batch_spec(Path::new("tests/files/batch/photos"), "*", &prompt).unwrap();
    assert_eq!(images.tasks[0].method, "llm/vision");
    assert_eq!(images.tasks[0].parameters["prompt"], "sum up");
    let script = BatchWork::Script { file: "count.py".into() };
    let scripts = batch_spec(Path::new("tests/files/batch"), "**/*.md", &script).unwrap();
    let [task] = scripts.tasks.as_slice() else { panic!("{scripts:?}") };
    assert_eq!(task.method, "python/execute");
    assert!(Path::new(task.parameters["file"].as_str().unwrap()).is_absolute());
    assert!(task.parameters["context"]["file_path"].as_str().unwrap().ends_with("notes/n.md"));
}

/// A file may be called anything; its name is no reference.
#[test]
fn a_reference_in_the_name_of_a_file_is_text() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("${a}.txt"), "x").unwrap();
    let work = BatchWork::Call { method: "llm/chat".into(), parameters: serde_json::Map::new() };
    let spec = batch_spec(folder.path(), "*", &work).unwrap();
    let path = spec.tasks[0].parameters["file_path"].as_str().unwrap();
    assert!(path.ends_with("/$${a}.txt"), "{path}");
}

/// A link that leads to itself or to nothing is no file, and no reason to give up.
#[test]
fn links_that_lead_nowhere_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "x").unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.txt")).unwrap();
    let work = BatchWork::Call { method: "llm/chat".into(), parameters: serde_json::Map::new() };
    let spec = batch_spec(folder.path(), "**/*.txt", &work).unwrap();
    let ids: Vec<&str> = spec.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["process-a-txt-0"]);
}

/// A batch without files is a mistake, not a workflow that is done at once.
#[test]
fn a_batch_without_files_is_an_error() {
    let work = BatchWork::Prompt { prompt: "x".into(), model: None };
    let batch = |folder: &str, pattern: &str| batch_spec(Path::new(folder), pattern, &work);
    let error = batch("tests/files/batch/notes", "*.pdf").unwrap_err();
    assert!(matches!(error, BatchError::NothingFound { .. }), "{error}");
    let error = batch("tests/files/nowhere", "*").unwrap_err();
    assert!(matches!(error, BatchError::NoDirectory { .. }), "{error}");
    let error = batch("tests/files/batch", "[").unwrap_err();
    assert!(matches!(error, BatchError::Pattern { .. }), "{error}");
}

/// Names are data: they may not break out of the drawing.
#[test]
fn drawings_escape_names() {
    let spec = WorkflowSpec::new("a \"quoted\" name")
        .task(TaskSpec::new("one", "python/execute").named("say \"hi\"]\n<b> & \\ `x`; #1"))
        .task(TaskSpec { protocol: Some("llm/v1".into()), ..TaskSpec::new("two", "llm/chat") });
    let expected = "\
---
title: \"a \\\"quoted\\\" name\"
---
flowchart TD
    t0[\"say #34;hi#34;]<br/>#60;b#62; #38; #92; #96;x#96;#59; #35;1<br/>python/execute\"]
    t1[\"two<br/>llm/v1:chat\"]
    t0 --> t1
";
    assert_eq!(mermaid(&spec, &[(0, 1)]), expected);
    let expected = "\
digraph \"a \\\"quoted\\\" name\" {
    node [shape=box];
    t0 [label=\"say \\\"hi\\\"]\\n<b> & \\\\ `x`; #1\\npython/execute\"];
    t1 [label=\"two\\nllm/v1:chat\"];
    t0 -> t1;
}
";
    assert_eq!(dot(&spec, &[(0, 1)]), expected);
}

/// The examples are the first files that people copy: each task calls a method that is there, with
/// parameters that fit, and refers to tasks that exist.
#[test]
fn every_example_fits_the_built_in_protocols() {
    let catalog = ProtocolCatalog::builtin();
    let mut count = 0;
    for entry in fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if Format::of_path(&path).is_none() {
            continue;
        }
        count += 1;
        let WorkflowFile { spec, source } = files::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let problems: Vec<Problem> =
            (0..spec.tasks.len()).flat_map(|index| task_problems(&spec, index, &catalog)).collect();
        assert!(problems.is_empty(), "{}", source.diagnostics(&problems));
    }
    assert!(count >= 9, "only {count} examples");
}

/// What is wrong with the parameters of a task, as far as the protocols know.
fn task_problems(spec: &WorkflowSpec, index: usize, catalog: &ProtocolCatalog) -> Vec<Problem> {
    let task = &spec.tasks[index];
    let base = format!("/tasks/{index}/parameters");
    let mut template = Template::parse(Arc::clone(&task.parameters)).unwrap();
    let position = |name: &str| {
        let is_meant = |task: &TaskSpec| task.id == name || task.name.as_deref() == Some(name);
        spec.tasks.iter().position(is_meant).and_then(|at| u32::try_from(at).ok())
    };
    let bound = template.bind(&mut |name| position(name), std::iter::empty);
    let unbound = bound.err().unwrap_or_default().into_iter();
    if task.is_decided() {
        return unbound.map(|error| error.to_problem(&base)).collect();
    }
    let method = catalog.resolve(task.protocol.as_deref(), &task.method).unwrap();
    let violations = method.params.check_open(&task.parameters, &reference::has_reference);
    let misfit = violations.into_iter().map(|violation| {
        let pointer = format!("{base}{}", violation.pointer);
        Problem::new(ErrorCode::InvalidParams, pointer, violation.message)
    });
    unbound.map(|error| error.to_problem(&base)).chain(misfit).collect()
}

/// Pieces that make up most of the odd files that people write.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "name: x\n",
        "tasks:\n",
        "- method: a/b\n",
        "  params:\n",
        "    ",
        "  ",
        "- ",
        ": ",
        "? ",
        "<<: ",
        "*a",
        "&a ",
        "!!str ",
        "!x ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "#",
        "\t",
        "\r\n",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\\",
        "\\u",
        "=",
        "[[tasks]]\n",
        "0x",
        "1e999",
        "-",
        "012",
        "null",
        "batch",
        "\u{feff}",
        "\u{85}",
        "\0",
        "ü",
        "😀",
        "~",
        "\"\"\"",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No text, in whatever format, makes the reader or the printer panic, and what is read can
    /// be stored.
    #[test]
    fn no_text_panics(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        for format in [Format::Yaml, Format::Json, Format::Toml] {
            match files::parse(&text, format, "any") {
                Ok(file) => {
                    let stored = serde_json::to_string(&file.spec).unwrap();
                    prop_assert!(serde_json::from_str::<WorkflowSpec>(&stored).is_ok());
                    let problem = Problem::new(ErrorCode::InvalidParams, "/tasks/0/x", "wrong");
                    prop_assert_eq!(file.source.diagnostics(&[problem]).len(), 1);
                }
                Err(FileError::Invalid(diagnostics)) => {
                    prop_assert!(!diagnostics.is_empty());
                    prop_assert!(!diagnostics.render(true).is_empty());
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    /// A text parameter comes out as it went in, however YAML has to quote it.
    #[test]
    fn quoted_text_is_kept(text in "\\PC{0,40}") {
        let quoted = Value::from(text.as_str()).to_string();
        let file = format!("name: x\ntasks:\n- method: a/b\n  params:\n    text: {quoted}\n");
        prop_assert_eq!(&parameters(&file)["text"], &Value::from(text));
    }

    /// JSON is read as `serde_json` reads it.
    #[test]
    fn json_values_are_read_as_by_serde_json(numbers in prop::collection::vec(any::<f64>(), 0..5), text in ".{0,20}", whole: i64) {
        let numbers: Vec<f64> = numbers.into_iter().filter(|n| n.is_finite()).collect();
        let value = json!({"numbers": numbers, "text": text, "whole": whole});
        let file = json!({"name": "x", "tasks": [{"method": "a/b", "params": value}]});
        let read = files::parse(&file.to_string(), Format::Json, "x.json").unwrap();
        prop_assert_eq!(&*read.spec.tasks[0].parameters, &value);
    }
}

/// A batch works on what is put there, not on what earlier batches made of it, and its files are
/// stored with it.
#[test]
fn a_batch_skips_results_and_excluded_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().canonicalize().unwrap();
    for (name, text) in [
        ("a.txt", "x"),
        ("left.txt", "x"),
        ("run.py", "x"),
        ("w-1.md", "# B\n\nWorkflow `w-1`: completed.\n"),
        ("w-1.json", "{\n  \"name\": \"b\",\n  \"workflow_id\": \"w-1\"\n}\n"),
        ("w-2.json", "{\"workflow_id\": \"w-1\"}"),
    ] {
        fs::write(at.join(name), text).unwrap();
    }
    let work = BatchWork::Script { file: at.join("run.py") };
    let left_out = |path: &Path| path.ends_with("left.txt");
    let spec = files::batch_spec_without(&at, "*", &work, &left_out).unwrap();
    let ids: Vec<&str> = spec.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["process-a-txt-0", "process-w-2-json-1"]);
    let access = spec.file_access.unwrap();
    let texts = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| at.join(name).display().to_string()).collect()
    };
    assert_eq!(access.files, texts(&["a.txt", "w-2.json"]));
    assert_eq!(access.scripts, texts(&["run.py"]));
}

/// Suggestions cost a look at all tasks, so a file that is wrong all over gets a few of them.
#[test]
fn a_file_that_is_wrong_all_over_gets_few_suggestions() {
    let task = |n: usize| {
        format!(r#"{{"id": "task{n}", "method": "echo/echo", "params": {{"x": "${{tsk{n}.a}}"}}}}"#)
    };
    let tasks: Vec<String> = (0..20_000).map(task).collect();
    let text = format!(r#"{{"name": "x", "tasks": [{}]}}"#, tasks.join(","));
    let file = files::parse(&text, Format::Json, "x.json").unwrap();
    let problems = gleitzeit_domain::plan::problems(&file.spec, &ProtocolCatalog::builtin());
    assert_eq!(problems.len(), 20_000);
    let is_helped = |it: &&Problem| it.help.as_ref().is_some_and(|it| it.contains("did you mean"));
    assert_eq!(problems.iter().filter(is_helped).count(), 20);
    let diagnostics = file.source.diagnostics(&problems);
    assert_eq!(diagnostics.len(), 1_001);
    let last = diagnostics.iter().last().unwrap();
    assert!(last.line == 1 && last.column > 1_000, "{}", last.column);
}
