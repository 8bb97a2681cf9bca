//! What running code gives, at every level: results, output, exits and tracebacks.

use gleitzeit_sandbox::{Job, Level, Limits, Policy, Preset, ResultType, Source, Status};
use serde_json::{Value, json};

use crate::support::Bench;

/// The three sources of a result, in their order.
#[tokio::test]
async fn result_is_the_global_then_the_last_expression_then_stdout() {
    let Some(bench) = Bench::open().await else { return };
    for (code, result, kind) in [
        (
            "result = {'a': [1, 2.5, None, True]}\n'other'",
            json!({"a": [1, 2.5, null, true]}),
            "json",
        ),
        ("x = 20\nx + 1", json!(21), "json"),
        ("'text'", json!("text"), "json"),
        ("result = None\n5", Value::Null, "json"),
        ("print('Hello, World!')", json!("Hello, World!\n"), "stdout"),
        ("x = 1", json!(""), "stdout"),
        ("(1, (2, 3))", json!([1, [2, 3]]), "json"),
        ("{1: 'a', None: 'b', True: 'c'}", json!({"1": "c", "null": "b"}), "json"),
        ("2 ** 63", json!(1_u64 << 63), "json"),
        ("-2 ** 63", json!(i64::MIN), "json"),
        ("0.1 + 0.2", json!(0.1 + 0.2), "json"),
        ("'\\ud83d\\ude00 \\ud800'", json!("😀 \u{fffd}"), "json"),
    ] {
        let outcome = bench.execute(code).await;
        assert_eq!(outcome.status, Status::Ok, "{code}: {outcome:?}");
        assert_eq!((&outcome.result, outcome.result_type.as_str()), (&result, kind), "{code}");
    }
}

/// Values of other kinds become what they stand for.
#[tokio::test]
async fn scalars_and_sets_become_json() {
    let Some(bench) = Bench::open().await else { return };
    for (code, expected) in [
        ("{3, 1, 2}", json!([1, 2, 3])),
        ("frozenset({1, 'a'})", json!([1, "a"])),
        ("import datetime\n[datetime.date(2026, 7, 1)]", json!(["2026-07-01"])),
        ("import datetime\n{datetime.date(2026, 7, 1): 1}", json!({"2026-07-01": 1})),
        ("from decimal import Decimal\n{'price': Decimal('1.5')}", json!({"price": 1.5})),
        ("from fractions import Fraction\nFraction(1, 4)", json!(0.25)),
        ("import array\narray.array('i', [1, 2])", json!([1, 2])),
        ("class Index:\n    def __index__(self): return 7\n{'n': Index()}", json!({"n": 7})),
    ] {
        let outcome = bench.execute(code).await;
        assert_eq!(outcome.status, Status::Ok, "{code}: {outcome:?}");
        assert_eq!((outcome.result, outcome.result_type), (expected, ResultType::Json), "{code}");
    }
}

/// What JSON has no form for fails, with its place, and is never changed in silence.
#[tokio::test]
async fn a_result_that_is_no_json_fails_with_its_path() {
    let Some(bench) = Bench::open().await else { return };
    for (code, text) in [
        ("{'a': [1, {'mean': float('nan')}]}", "result['a'][1]['mean'] is nan"),
        ("result = float('-inf')", "result is -inf"),
        ("from decimal import Decimal\n[Decimal('NaN')]", "result[0] is nan"),
        ("{'raw': b'\\xff'}", "result['raw'] is of type bytes"),
        ("[2 ** 70]", "result[0] is an integer of more than 64 bits"),
        ("{(1, 2): 3}", "result[(1, 2)] is a key of type tuple"),
        ("result = []\nresult.append(result)", "or holds itself"),
        ("result = []\nfor _ in range(5000): result = [result]", "100 levels deep"),
        (
            "class Bad:\n    def __index__(self): raise ValueError('no')\nBad()",
            "failed to say it: no",
        ),
        (
            "class H:\n    def __repr__(self):\n        while True: pass\n[H()]",
            "result[0] is of type H",
        ),
    ] {
        let outcome = bench.execute(code).await;
        assert_eq!((outcome.status, &outcome.result), (Status::Error, &Value::Null), "{code}");
        let error = outcome.error.unwrap();
        assert_eq!(error.kind, "ResultNotJson", "{code}");
        assert!(error.message.contains(text), "{code}: {}", error.message);
        assert!(error.message.len() < 5_000);
    }
}

/// Who asks for it gets the text of any value.
#[tokio::test]
async fn the_repr_of_a_result_is_returned_on_request() {
    let Some(bench) = Bench::open().await else { return };
    let printed = async |code: &str| {
        let outcome = bench.run(Job { result_as_repr: true, ..Job::execute(code) }).await;
        assert_eq!((outcome.status, outcome.result_type), (Status::Ok, ResultType::Repr));
        outcome.result.as_str().unwrap().to_owned()
    };
    assert_eq!(printed("result = {1: b'x', 2: float('nan')}").await, "{1: b'x', 2: nan}");
    assert!(printed("b'x' * 1000000").await.len() < 20_000);
    let hostile = "class H:\n    def __repr__(self): raise ValueError\nresult = H()";
    assert_eq!(printed(hostile).await, "<H object, whose repr raised ValueError>");
}

/// A form feed and others end no line for Python, so that the line shown is the one that failed;
/// a coding comment counts for it, too.
#[tokio::test]
async fn tracebacks_show_the_line_that_failed() {
    let Some(bench) = Bench::open().await else { return };
    let code =
        "x = 'a\u{2028}b\u{85}c'\n# page \u{c} two \u{b}\ndef f():\n    return 1 / 0  # here\nf()";
    let outcome = bench.execute(code).await;
    let traceback = outcome.error.unwrap().traceback;
    assert!(traceback.contains("line 4, in f\n    return 1 / 0  # here"), "{traceback}");
    let source = Source {
        bytes: b"# coding: latin-1\nraise ValueError('\xe4')  # \xdf\n".to_vec(),
        filename: "s.py".to_owned(),
        is_file: true,
        modules: std::collections::BTreeMap::new(),
    };
    let outcome = bench.run(Job { source, ..Job::execute("") }).await;
    let traceback = outcome.error.unwrap().traceback;
    assert!(traceback.contains("raise ValueError('ä')  # ß"), "{traceback}");
}

/// Modules that come with a script are imported before all others, packages and all, and are held
/// against the policy when they are.
#[tokio::test]
async fn modules_beside_a_script_are_imported() {
    let Some(bench) = Bench::open().await else { return };
    let modules = [
        ("helper.py", "def hi(): return __file__\ndef bad():\n    return 1 / 0"),
        ("pkg/__init__.py", "from .inner import X"),
        ("pkg/inner.py", "X = 3"),
        ("space/deep.py", "Y = 4"),
        ("colorsys.py", "mine = True"),
    ];
    let script = |text: &str| Source {
        bytes: text.as_bytes().to_vec(),
        filename: "dir/main.py".to_owned(),
        is_file: true,
        modules: modules.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into(),
    };
    let run = async |text: &str| bench.run(Job { source: script(text), ..Job::execute("") }).await;
    let text = run(
        "import helper, colorsys, pkg\nfrom space import deep\nresult = [helper.hi(), colorsys.mine, pkg.X, deep.Y]",
    );
    let text = text.await;
    assert_eq!(text.result, json!(["dir/helper.py", true, 3, 4]), "{text:?}");
    let traceback = run("import helper\nhelper.bad()").await.error.unwrap().traceback;
    assert!(
        traceback.contains("\"dir/helper.py\", line 3, in bad\n    return 1 / 0"),
        "{traceback}"
    );
    assert_eq!(bench.execute("import helper").await.status, Status::Error, "gone with its task");

    let mut job = Job { source: script("import pkg, space.deep"), ..Job::execute("") };
    job.policy = Policy::preset(Preset::Basic).with_lists([""; 0], ["inner"]);
    assert_eq!(bench.run(job).await.status, Status::Ok);
    let mut job = Job { source: script("import helper"), ..Job::execute("") };
    job.source.modules.insert("helper.py".to_owned(), b"\nimport os".to_vec());
    job.policy = Policy::preset(Preset::Basic);
    let error = bench.run(job).await.error.unwrap();
    assert!(error.message.contains("dir/helper.py:2: module `os` is blocked"), "{error:?}");
}

/// A result that is too large fails where it is made, and not where it is missed.
#[tokio::test]
async fn a_result_beyond_the_cap_fails_the_task() {
    let Some(bench) = Bench::open().await else { return };
    for code in ["result = 'x' * (2 << 20)", "result = list(range(1 << 20))"] {
        let outcome = bench.execute(code).await;
        assert_eq!((outcome.status, outcome.exit_code), (Status::OutputLimit, 1), "{outcome:?}");
        assert!(outcome.error.unwrap().message.contains("1048576 bytes"));
    }
    let fits = bench.execute("result = 'x' * ((1 << 20) - 2)").await;
    assert_eq!(fits.result.as_str().map(str::len), Some((1 << 20) - 2));
}

/// Functions see what the module defines, and classes can be pickled: one dictionary, `__main__`'s.
#[tokio::test]
async fn globals_are_one_dictionary() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import pickle
FACTOR = 3
def triple(n): return n * FACTOR
class Point: x = 1
result = [triple(n) for n in range(3)] + [pickle.loads(pickle.dumps(Point())).x, __name__]";
    assert_eq!(bench.execute(code).await.result, json!([0, 3, 6, 1, "__main__"]));
}

/// What the call gives is there by name, and nothing else is.
#[tokio::test]
async fn globals_environment_stdin_and_imports_are_available() {
    let Some(bench) = Bench::open().await else { return };
    let mut job = Job::execute(
        "import sys\nresult = [context['n'], attempt, json.dumps([1]), os.path.sep, sys.stdin.read(), os.environ.pop('GREETING'), dict(os.environ)]",
    )
    .global("context", json!({"n": [1, {"k": "ä"}]}))
    .global("attempt", json!(2));
    job.stdin = "line\nß\n".to_owned();
    job.imports = vec!["json".to_owned(), "os.path".to_owned()];
    job.environment.insert("GREETING".to_owned(), "grüße".to_owned());
    let outcome = bench.run(job).await;
    // Many libraries ask for a home and a user when they are imported.
    let environment = if crate::LEVEL == Level::None {
        json!({})
    } else {
        json!({"HOME": "/task", "USER": "task", "LOGNAME": "task"})
    };
    let expected = json!([[1, {"k": "ä"}], 2, "[1]", "/", "line\nß\n", "grüße", environment]);
    assert_eq!(outcome.result, expected, "{outcome:?}");
    let names = bench.execute("sorted(n for n in globals() if not n.startswith('__'))").await;
    assert_eq!(names.result, json!([]));
    let empty = bench.execute("import sys, os\n[sys.stdin.read(), dict(os.environ)]").await;
    assert_eq!(empty.result, json!(["", environment]));
    if crate::LEVEL != Level::None {
        let mut job =
            Job::execute("import getpass, pathlib\n[getpass.getuser(), str(pathlib.Path.home())]");
        job.environment.insert("HOME".to_owned(), "/elsewhere".to_owned());
        assert_eq!(bench.run(job).await.result, json!(["task", "/elsewhere"]));
    }
}

/// Exits mean what they mean to Python, and the number is the kernel's.
#[tokio::test]
async fn exits_keep_their_status() {
    let Some(bench) = Bench::open().await else { return };
    for (code, exit_code, status) in [
        ("import sys; sys.exit()", 0, Status::Ok),
        ("import sys; sys.exit(0)", 0, Status::Ok),
        ("exit(3)", 3, Status::Error),
        ("import sys; sys.exit(-1)", 255, Status::Error),
        ("import sys; sys.exit('reason')", 1, Status::Error),
        ("raise SystemExit(7)", 7, Status::Error),
        ("import os; os._exit(9)", 9, Status::Error),
        ("import os; print('x', flush=True); os._exit(0)", 0, Status::Ok),
        ("1 / 0", 1, Status::Error),
        ("import atexit, os; atexit.register(os._exit, 4)", 4, Status::Error),
    ] {
        let outcome = bench.execute(code).await;
        assert_eq!((outcome.exit_code, outcome.status), (exit_code, status), "{code}: {outcome:?}");
        assert_eq!(outcome.error.is_some(), status == Status::Error, "{code}");
        assert_eq!(outcome.signal, None);
    }
    let text = bench.execute("import sys; sys.exit('reason')").await;
    assert_eq!(text.stderr.text, "reason\n");
    let kept = bench.execute("import sys\nresult = 5\nsys.exit(0)").await;
    assert_eq!(kept.result, json!(5));
}

/// A crash is reported by its signal.
#[tokio::test]
async fn a_signal_is_the_negative_exit_code() {
    let Some(bench) = Bench::open().await else { return };
    for (code, signal) in [
        ("import os; os.abort()", 6),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 15),
    ] {
        let outcome = bench.execute(code).await;
        assert_eq!(outcome.status, Status::Killed, "{code}: {outcome:?}");
        assert_eq!((outcome.exit_code, outcome.signal), (-signal, Some(signal)));
    }
}

/// The traceback is the user's: own file, own lines, own numbers, nothing of the harness.
#[tokio::test]
async fn tracebacks_show_the_users_own_lines() {
    let Some(bench) = Bench::open().await else { return };
    let code = "def inner(x):\n    return 1 / x\n\nprint('before')\ninner(0)\n";
    let outcome = bench.execute(code).await;
    let error = outcome.error.unwrap();
    assert_eq!((&*error.kind, &*error.message), ("ZeroDivisionError", "division by zero"));
    assert_eq!(error.line, Some(2));
    assert_eq!(error.headline(), "ZeroDivisionError: division by zero (line 2)");
    for part in ["\"<task>\", line 5, in <module>", "\"<task>\", line 2, in inner", "return 1 / x"]
    {
        assert!(error.traceback.contains(part), "{part} in {}", error.traceback);
    }
    assert!(!error.traceback.contains("gleitzeit"), "{}", error.traceback);
    assert_eq!(outcome.stderr.text, error.traceback);
    assert_eq!(outcome.stdout.text, "before\n");
}

/// The last expression is code like all other.
#[tokio::test]
async fn an_error_in_the_last_expression_has_its_line() {
    let Some(bench) = Bench::open().await else { return };
    let error = bench.execute("x = 1\n\nx.missing").await.error.unwrap();
    assert_eq!((error.line, &*error.kind), (Some(3), "AttributeError"));
    assert!(error.traceback.contains("x.missing"), "{}", error.traceback);
}

/// Code that does not compile is an error of its own line.
#[tokio::test]
async fn a_syntax_error_is_reported_with_its_line() {
    let Some(bench) = Bench::open().await else { return };
    let error = bench.execute("x = 1\nif x\n    pass").await.error.unwrap();
    assert_eq!((&*error.kind, error.line), ("SyntaxError", Some(2)));
    assert!(error.traceback.contains("if x"), "{}", error.traceback);
    assert!(!error.traceback.contains("Traceback"), "{}", error.traceback);
    for code in ["x = 'a\0b'", "return 1", "def f(:", "("] {
        let outcome = bench.execute(code).await;
        assert_eq!(outcome.status, Status::Error, "{code:?}: {outcome:?}");
        assert!(outcome.error.is_some());
    }
}

/// Errors that are made to break whoever tells them are told all the same, within bounds.
#[tokio::test]
async fn hostile_exceptions_are_reported_within_bounds() {
    let Some(bench) = Bench::open().await else { return };
    let no_text = "class B(Exception):\n    def __str__(self): raise RuntimeError\nraise B('x')";
    let outcome = bench.execute(no_text).await;
    let error = outcome.error.unwrap();
    assert_eq!((&*error.kind, error.line), ("B", Some(3)));
    for code in [
        "raise ValueError('x' * (20 << 20))",
        "raise ValueError('\\ud800 \\n' * 100)",
        "def f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    if n: f(n - 1)\n    raise KeyError\nf(5000)",
        "e = None\nfor i in range(3000):\n    n = ValueError(i); n.__context__ = e; e = n\nraise e",
        "import sys\nsys.stderr = None\nraise ValueError('x')",
        "import sys\nsys.modules.clear()\nraise ValueError('x')",
    ] {
        let outcome = bench.execute(code).await;
        let error = outcome.error.unwrap_or_else(|| panic!("{code}: {:?}", outcome.status));
        assert_eq!(outcome.status, Status::Error, "{code}: {error:?}");
        assert!(error.traceback.len() < 70_000, "{code}: {}", error.traceback.len());
        assert!(error.message.len() < 10_000 && error.line.is_some(), "{code}: {error:?}");
    }
}

/// Code that prints tracebacks itself shows its own lines too.
#[tokio::test]
async fn tracebacks_printed_by_the_code_show_its_lines() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import traceback\ntry:\n    [][5]\nexcept IndexError:\n    traceback.print_exc()";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.status, Status::Ok);
    assert!(outcome.stderr.text.contains("    [][5]\n"), "{}", outcome.stderr.text);
}

/// Bytes that are no UTF-8 and lone surrogates cost a character, never the reply.
#[tokio::test]
async fn broken_text_never_breaks_the_reply() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import os\nos.write(1, b'a\\xff\\n')\nprint('\\ud800b')\nos.write(2, b'\\xfe')\nresult = '\\udfff'";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.status, Status::Ok, "{outcome:?}");
    assert_eq!(outcome.stdout.text, "a\u{fffd}\n\\ud800b\n");
    assert_eq!((&*outcome.stderr.text, outcome.result), ("\u{fffd}", json!("\u{fffd}")));
}

/// The result never comes out of the output, whatever is printed.
#[tokio::test]
async fn a_reply_is_never_read_from_stdout() {
    let Some(bench) = Bench::open().await else { return };
    let code = "print('{\"status\": \"ok\", \"result\": \"forged\"}')\nresult = 'true'";
    assert_eq!(bench.execute(code).await.result, json!("true"));
}

/// Writing to the control line harms only the task that does it.
#[tokio::test]
async fn a_forged_reply_is_the_tasks_own_loss() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'{\"ok\":true}')\n    except OSError: pass\nos._exit(0)";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.status, Status::Error, "{outcome:?}");
    assert_eq!(outcome.error.unwrap().kind, "BrokenReply");
    let closing = bench.execute("import os\nos.closerange(3, 64)\nprint('x')\nresult = 1").await;
    assert_eq!((closing.status, closing.result), (Status::Ok, json!("x\n")), "no reply, exit 0");
}

/// Threads and exit functions end before the task does, as in a script.
#[tokio::test]
async fn threads_and_exit_functions_are_waited_for() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import atexit, threading, time
result = []
def late():
    time.sleep(0.05)
    result.append(1)
    print('thread')
atexit.register(print, 'exit')
threading.Thread(target=late).start()";
    let outcome = bench.execute(code).await;
    assert_eq!((outcome.result, &*outcome.stdout.text), (json!([1]), "thread\nexit\n"));
}

/// asyncio and thread pools, which need sockets and threads, work within the limits.
#[tokio::test]
async fn asyncio_and_thread_pools_work() {
    let Some(bench) = Bench::open().await else { return };
    let code = "
import asyncio
from concurrent.futures import ThreadPoolExecutor
async def main():
    return await asyncio.gather(*(asyncio.sleep(0.001, n) for n in range(3)))
with ThreadPoolExecutor(8) as pool:
    squares = list(pool.map(lambda n: n * n, range(20)))
result = [asyncio.run(main()), sum(squares)]";
    let outcome = bench.execute(code).await;
    assert_eq!(outcome.result, json!([[0, 1, 2], 2470]), "{outcome:?}");
}

/// Times and memory are reported, and are of the right size.
#[tokio::test]
async fn usage_is_measured() {
    let Some(bench) = Bench::open().await else { return };
    let code = "import time\nx = bytearray(50 << 20)\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass";
    let outcome = bench.execute(code).await;
    let (cpu, peak) = (outcome.cpu_time.unwrap(), outcome.max_rss_bytes.unwrap());
    assert!(cpu.as_millis() >= 100 && cpu.as_secs() < 5, "{cpu:?}");
    assert!((50 << 20..200 << 20).contains(&peak), "{peak}");
    assert!(outcome.execution_time.as_millis() >= 100);
}

/// Code of any length goes over the line: no limit of argument lists, no temporary file.
#[tokio::test]
async fn code_may_be_long() {
    let Some(bench) = Bench::open().await else { return };
    let code = format!("x = '''{}'''\nlen(x)", "y".repeat(3 << 20));
    assert_eq!(bench.execute(&code).await.result, json!(3 << 20));
}

/// A policy is reported with line and column, and nothing has run by then.
#[tokio::test]
async fn a_policy_violation_stops_the_code_before_it_runs() {
    let Some(bench) = Bench::open().await else { return };
    let policies = |preset| Policy::preset(preset);
    for (preset, code, message) in [
        (Preset::Basic, "print(1)\nimport os.path", "2:1: module `os` is blocked by the policy"),
        (Preset::Basic, "from subprocess import run", "1:1: module `subprocess` is blocked"),
        (Preset::Basic, "ä = 'ö'; eval('1')", "1:10: a call of `eval` is blocked"),
        (Preset::Strict, "import socket", "1:1: module `socket` is not among those"),
        (Preset::Strict, "open('/etc/passwd')", "1:1: a call of `open` is blocked"),
    ] {
        let outcome = bench.run(Job { policy: policies(preset), ..Job::execute(code) }).await;
        assert_eq!(outcome.status, Status::PolicyViolation, "{code}: {outcome:?}");
        assert_eq!(outcome.stdout.text, "");
        let error = outcome.error.unwrap();
        assert!(error.message.starts_with(message), "{code}: {}", error.message);
    }
    for (preset, code) in [
        (Preset::Basic, "import math; math.pi"),
        (Preset::Strict, "import json; from math import pi; pi"),
    ] {
        let outcome = bench.run(Job { policy: policies(preset), ..Job::execute(code) }).await;
        assert_eq!(outcome.status, Status::Ok, "{code}: {outcome:?}");
    }
    let mut job = Job { policy: policies(Preset::Basic), ..Job::execute("1") };
    job.imports.push("sys".to_owned());
    assert_eq!(bench.run(job).await.status, Status::PolicyViolation);
}

/// Nothing runs; what the compiler and the policy find has its place.
#[tokio::test]
async fn validate_reports_every_finding_with_its_line() {
    let Some(bench) = Bench::open().await else { return };
    let clean = bench.run(Job::validate("import os\nprint(os.getpid())")).await;
    assert_eq!((clean.status, clean.diagnostics.len()), (Status::Ok, 0));
    assert_eq!(clean.stdout.text, "");
    let broken = bench.run(Job::validate("x = 1\ny = = 2\n")).await;
    assert_eq!(broken.status, Status::Ok);
    let found = &broken.diagnostics[0];
    assert_eq!((found.line, found.column, &*found.rule), (2, 5, "syntax"));
    assert!(found.to_string().starts_with("2:5: "), "{found}");
    // Not an error of the grammar, which a parser alone would let pass.
    let outside = bench.run(Job::validate("x = 1\nreturn x")).await;
    assert_eq!(outside.diagnostics[0].line, 2, "{outside:?}");
    let policy = Policy::preset(Preset::Basic);
    let job = Job { policy, ..Job::validate("x = 'ä'; import os, sys\n\nexec('1')") };
    let origins: Vec<_> = bench
        .run(job)
        .await
        .diagnostics
        .iter()
        .map(|found| (found.line, found.column, found.end_column, found.rule.clone()))
        .collect();
    assert_eq!(
        origins,
        [
            (1, 10, 24, "blocked-module".to_owned()),
            (1, 10, 24, "blocked-module".to_owned()),
            (3, 1, 10, "blocked-call".to_owned())
        ]
    );
}

/// Deep nesting ends the compiler at worst, and never the service.
#[tokio::test]
async fn deep_nesting_is_an_answer() {
    let Some(bench) = Bench::open().await else { return };
    for code in [
        "(".repeat(100_000),
        format!("x = {}1", "-".repeat(200_000)),
        "[".repeat(150) + &"]".repeat(150),
    ] {
        let outcome = bench.run(Job::validate(code.clone())).await;
        let bad = !outcome.diagnostics.is_empty() || outcome.status != Status::Ok;
        assert!(bad || code.len() < 1000, "{outcome:?}");
    }
}

/// Names that steer the process, and text in the place of names, are refused before it starts.
#[tokio::test]
async fn bad_names_are_refused_before_a_process_starts() {
    let Some(bench) = Bench::open().await else { return };
    let mut job = Job::execute("1");
    job.environment.insert("LD_PRELOAD".to_owned(), "x".to_owned());
    let error = bench.sandbox.run(job).await.unwrap_err().to_string();
    assert!(error.contains("`LD_PRELOAD`"), "{error}");
    let mut job = Job::execute("1");
    job.imports.push("os; evil()".to_owned());
    assert!(bench.sandbox.run(job).await.unwrap_err().to_string().contains("`os; evil()`"));
    let mut missing = Job::execute("1");
    missing.imports.push("no_such_module".to_owned());
    let error = bench.run(missing).await.error.unwrap();
    assert_eq!((&*error.kind, error.line), ("ModuleNotFoundError", None));
}

/// The limits of a job are its own.
#[tokio::test]
async fn memory_and_file_limits_hold() {
    let Some(bench) = Bench::open().await else { return };
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    for code in ["x = bytearray(300 << 20)", "x = []\nwhile True: x.append(' ' * 100000)"] {
        let outcome = bench.run(Job { limits: limits.clone(), ..Job::execute(code) }).await;
        assert_eq!(outcome.status, Status::MemoryLimit, "{code}: {outcome:?}");
        assert_eq!(outcome.error.unwrap().kind, "MemoryError");
    }
    let caught = "try: bytearray(300 << 20)\nexcept MemoryError: result = 'caught'";
    let outcome = bench.run(Job { limits, ..Job::execute(caught) }).await;
    assert_eq!(outcome.result, json!("caught"));
    let limits = Limits { file_bytes: 1 << 20, ..Limits::default() };
    let code = "open('f', 'wb').write(b'x' * (2 << 20))";
    let outcome = bench.run(Job { limits, ..Job::execute(code) }).await;
    assert!(outcome.error.unwrap().message.contains("File too large"));
}
