//! The Python provider runs real code with this machine's Python, as `python/v1.0` says.

use std::{
    fs,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use gleitzeit::providers::{
    conformance::{self, Sample},
    python::{self, PythonConfig},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthStatus,
    protocol::{Method, catalog::ProtocolCatalog},
    provider::{Call, Outcome, Placement, Provider},
    resources::Resources,
    security::{SandboxLevel, SecurityRequirements},
};
use serde_json::{Value, json};

/// Settings whose jails are built by the program that is built beside the tests.
fn settings() -> PythonConfig {
    let launcher = option_env!("CARGO_BIN_EXE_gleitzeit").map(Into::into);
    PythonConfig { launcher, ..PythonConfig::default() }
}

/// Tasks run with the rights of these tests, so that they can leave traces.
fn unjailed() -> PythonConfig {
    PythonConfig { sandbox: SandboxLevel::None, ..PythonConfig::default() }
}

fn sample(method: &str, params: Value) -> Sample {
    Sample::new(&ProtocolCatalog::builtin(), &format!("python/v1.0:{method}"), params).unwrap()
}

fn call(params: Value) -> Call {
    sample("execute", params).call("task")
}

async fn provider(config: PythonConfig) -> Rc<dyn Provider> {
    let provider = (python::spec("python", config).unwrap().factory)().unwrap();
    provider.initialize().await.unwrap();
    provider
}

async fn outcome(call: Call) -> Result<Outcome, TaskError> {
    provider(settings()).await.execute(call).await
}

async fn run(params: Value) -> Result<Value, TaskError> {
    outcome(call(params)).await.map(|outcome| Arc::unwrap_or_clone(outcome.value))
}

fn data(error: &TaskError) -> &Value {
    error.data.as_deref().unwrap()
}

/// What every provider must hold to.
#[actix_rt::test]
async fn python_conforms() {
    let returns = |result: Value| {
        move |value: &Value| match &value["result"] {
            actual if *actual == result => Ok(()),
            _ => Err(format!("expected {result}")),
        }
    };
    let samples = [
        sample("execute", json!({"code": "result = 1"})).accepting(returns(json!(1))),
        sample("execute", json!({"code": "print('two')"})).accepting(returns(json!("two\n"))),
        sample("validate", json!({"code": "x = 1"}))
            .returning(json!({"is_valid": true, "errors": [], "diagnostics": []})),
    ];
    conformance::check(&python::spec("python", settings()).unwrap(), &samples).await.unwrap();
}

/// Every field that the protocol and older files read is there, with its type.
#[actix_rt::test]
async fn a_result_has_every_field() {
    let outcome = outcome(call(json!({"code": "print('x')\nresult = {'n': [1]}"}))).await.unwrap();
    let result = outcome.value;
    for (field, value) in [
        ("result", json!({"n": [1]})),
        ("result_type", json!("json")),
        ("stdout", json!("x\n")),
        ("output", json!("x\n")),
        ("stderr", json!("")),
        ("exit_code", json!(0)),
        ("success", json!(true)),
        ("status", json!("ok")),
        ("signal", Value::Null),
        ("truncated", json!(false)),
        ("sandbox", json!("process")),
    ] {
        assert_eq!(result[field], value, "{field}");
    }
    assert!(result["execution_time"].as_f64().unwrap() > 0.0);
    assert!(result["cpu_time"].as_f64().unwrap() > 0.0);
    assert_eq!(result["max_rss_bytes"].as_u64(), outcome.memory_bytes);
    assert!(outcome.memory_bytes.unwrap() > 1 << 20);
}

/// The example of the protocol gives what it says.
#[actix_rt::test]
async fn the_example_of_the_protocol_holds() {
    let result = run(json!({"code": "print('Hello, World!')", "timeout": 10})).await.unwrap();
    for (field, value) in [
        ("result", json!("Hello, World!\n")),
        ("stdout", json!("Hello, World!\n")),
        ("stderr", json!("")),
        ("exit_code", json!(0)),
    ] {
        assert_eq!(result[field], value, "{field}");
    }
}

/// What a call gives is visible to the code, the number of the attempt included.
#[actix_rt::test]
async fn parameters_reach_the_code() {
    let params = json!({
        "code": "import os\nresult = [context, attempt, math.floor(2.5), os.environ['N'], os.environ['B']]",
        "context": {"file_path": "a.txt", "deep": [{"x": null}]},
        "imports": ["math"],
        "environment": {"N": 5, "B": true},
    });
    let call = Call { attempt: 3, ..call(params) };
    let result = outcome(call).await.unwrap().value;
    let context = json!({"file_path": "a.txt", "deep": [{"x": null}]});
    assert_eq!(result["result"], json!([context, 3, 2, "5", "true"]));
    assert_eq!(run(json!({"code": "context"})).await.unwrap()["result"], json!({}));
    let read = "import sys\nsys.stdin.read()";
    let result = run(json!({"code": read, "stdin": "line\n"})).await.unwrap();
    assert_eq!(result["result"], "line\n");
    assert_eq!(run(json!({"code": read})).await.unwrap()["result"], "");
}

/// Code that raises has failed: its error is named with its line, its output is kept, and it is not
/// run again by itself.
#[actix_rt::test]
async fn code_that_raises_fails_with_its_output_kept() {
    let error =
        run(json!({"code": "print('before')\nraise ValueError('no good')"})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskExecutionFailed);
    assert_eq!(error.message, "ValueError: no good (line 2)");
    assert!(!error.is_retryable());
    let data = data(&error);
    assert_eq!((&data["stdout"], &data["exit_code"]), (&json!("before\n"), &json!(1)));
    assert_eq!((&data["success"], &data["status"]), (&json!(false), &json!("error")));
    assert_eq!(data["error"]["type"], "ValueError");
    assert!(data["error"]["traceback"].as_str().unwrap().contains("line 2, in <module>"));
}

/// So has code that exits with a status other than 0, or is ended by a signal.
#[actix_rt::test]
async fn exit_codes_and_signals_fail_the_task() {
    let error = run(json!({"code": "exit(3)"})).await.unwrap_err();
    assert_eq!(error.message, "SystemExit: exited with status 3 (line 1)");
    assert_eq!(data(&error)["exit_code"], 3);
    let error = run(json!({"code": "import os\nos.abort()"})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskExecutionFailed);
    assert_eq!((&data(&error)["exit_code"], &data(&error)["signal"]), (&json!(-6), &json!(6)));
    assert!(error.message.contains("SIGABRT"), "{error}");
}

/// The nearest of a task's limits stops it, and what it had printed stays.
#[actix_rt::test]
async fn a_timeout_is_retryable_and_keeps_the_output() {
    let code = "print('begun')\nwhile True: pass";
    let begin = Instant::now();
    let error = run(json!({"code": code, "timeout": 2})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskTimeout);
    assert!(error.is_retryable() && error.message.contains("after 2s"), "{error}");
    let details = data(&error);
    assert_eq!((&details["stdout"], &details["exit_code"]), (&json!("begun\n"), &json!(-1)));
    assert_eq!(details["status"], "timeout");
    assert!((2.0..12.0).contains(&begin.elapsed().as_secs_f64()));
    // The limit of the call counts, which the parameter's default of 30 s says nothing about.
    let short = Call { timeout: Duration::from_secs(2), ..call(json!({"code": code})) };
    let error = outcome(short).await.unwrap_err();
    assert_eq!((error.code, &data(&error)["stdout"]), (ErrorCode::TaskTimeout, &json!("begun\n")));
    assert!(error.message.contains("after 2s"), "{error}");
}

/// A module that is not there may be one that the interpreter lacks: the error says where tasks look.
#[actix_rt::test]
async fn a_missing_module_is_reported_with_what_to_do() {
    let error = run(json!({"code": "import nosuchmodule"})).await.unwrap_err();
    assert!(error.message.contains("No module named 'nosuchmodule'"), "{error}");
    assert!(error.message.contains("set `virtual_env`"), "{error}");
}

/// The text of a result is given where it is asked for, and code may begin with a byte order mark.
#[actix_rt::test]
async fn a_result_is_json_unless_its_text_is_asked_for() {
    let result =
        run(json!({"code": "\u{feff}result = {1: b'x'}", "result_type": "repr"})).await.unwrap();
    assert_eq!((&result["result"], &result["result_type"]), (&json!("{1: b'x'}"), &json!("repr")));
    let error = run(json!({"code": "result = {1: b'x'}"})).await.unwrap_err();
    assert!(error.message.contains("ResultNotJson: result[1] is of type bytes"), "{error}");
}

/// The growth of memory is that of the code, without what the interpreter has anyway.
#[actix_rt::test]
async fn the_growth_of_memory_is_reported() {
    let large = outcome(call(json!({"code": "x = bytearray(32 << 20)\nresult = len(x)"}))).await;
    let large = large.unwrap();
    let (peak, grown) = (large.memory_bytes.unwrap(), large.memory_delta_bytes.unwrap());
    assert!(grown >= 32 << 20 && grown < peak, "{grown} of {peak}");
    let small = outcome(call(json!({"code": "1"}))).await.unwrap();
    assert!(small.memory_delta_bytes.unwrap() < 16 << 20);
}

/// A limit is never early: it counts from the start of the code, and what it cost to start Python
/// is not taken off.
#[actix_rt::test]
async fn code_gets_all_of_its_time() {
    let code = "import time\ntime.sleep(0.9)\nresult = 'slept'";
    let outcome = outcome(Call { timeout: Duration::from_secs(1), ..call(json!({"code": code})) });
    assert_eq!(outcome.await.unwrap().value["result"], "slept");
}

/// What a task leased is what it gets.
#[actix_rt::test]
async fn the_memory_that_was_leased_is_the_limit() {
    let code = "x = bytearray(200 << 20)\nresult = len(x)";
    let leased = |memory_mib| Call {
        resources: Resources { memory_mib, ..Resources::default() },
        ..call(json!({"code": code}))
    };
    assert!(outcome(leased(0)).await.is_ok(), "the default is 512 MiB");
    let error = outcome(leased(100)).await.unwrap_err();
    assert_eq!(data(&error)["status"], "memory_limit");
    assert!(error.message.contains("memory_mb"), "{error}");
}

/// Scripts are read by the provider, below its roots only, and know their name.
#[actix_rt::test]
async fn scripts_are_run_below_the_roots_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.py"), "import sys\nresult = [context['n'], __file__, sys.argv]")
        .unwrap();
    fs::write(dir.path().join("latin.py"), b"# -*- coding: latin-1 -*-\nresult = '\xe4'\n")
        .unwrap();
    fs::write(dir.path().join("bad.py"), "\n\nraise KeyError('k')\n").unwrap();
    let config = PythonConfig { file_roots: vec![dir.path().into()], ..settings() };
    let provider = provider(config).await;
    let run = async |params| provider.execute(call(params)).await.map(|outcome| outcome.value);
    let result = run(json!({"file": "a.py", "context": {"n": 1}})).await.unwrap();
    assert_eq!(result["result"], json!([1, "a.py", ["a.py"]]));
    assert_eq!(run(json!({"file": "latin.py"})).await.unwrap()["result"], "ä");
    let error = run(json!({"file": "bad.py"})).await.unwrap_err();
    let traceback = data(&error)["error"]["traceback"].as_str().unwrap().to_owned();
    assert!(traceback.contains("File \"bad.py\", line 3"), "{traceback}");
    assert!(traceback.contains("raise KeyError('k')"), "{traceback}");
    let error = run(json!({"file": "/etc/hostname"})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskValidationFailed);
    assert!(error.message.contains(dir.path().to_str().unwrap()), "{error}");
}

/// Exactly one of the two, and nothing that would steer the interpreter.
#[actix_rt::test]
async fn bad_parameters_are_refused_by_name() {
    for (params, part) in [
        (json!({}), "neither is"),
        (json!({"code": "1", "file": "x.py"}), "both are"),
        (json!({"code": "1", "environment": {"LD_PRELOAD": "x"}}), "`LD_PRELOAD`"),
        (json!({"code": "1", "environment": {"PYTHONPATH": "x"}}), "`PYTHONPATH`"),
        (json!({"code": "1", "environment": {"A": [1]}}), "/environment/A"),
        (json!({"code": "1", "imports": ["os; evil()"]}), "`os; evil()`"),
    ] {
        let error = run(params).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidParams, "{error}");
        assert!(error.message.contains(part) && !error.is_retryable(), "{error}");
    }
}

/// A policy is reported with its place, before anything runs.
#[actix_rt::test]
async fn a_policy_violation_is_a_refusal() {
    let config = PythonConfig {
        policy: gleitzeit_sandbox::Preset::Basic,
        blocked_modules: vec!["socket".to_owned()],
        ..settings()
    };
    let provider = provider(config).await;
    let error = provider.execute(call(json!({"code": "x = 1\nimport os"}))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskValidationFailed);
    assert!(error.message.contains("2:1: module `os` is blocked"), "{error}");
    assert_eq!(data(&error)["status"], "policy_violation");
    let error = provider.execute(call(json!({"code": "import socket"}))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskValidationFailed);
    let validate = sample("validate", json!({"code": "eval('1')"})).call("task");
    let report = provider.execute(validate).await.unwrap().value;
    assert_eq!(report["errors"], json!(["1:1: a call of `eval` is blocked by the policy"]));
}

/// A method's own demands are met or refused, never overlooked.
#[actix_rt::test]
async fn a_methods_security_requirements_count() {
    let demanding = |requirements| {
        let call = call(json!({"code": "import json"}));
        let found = ProtocolCatalog::builtin().method(&call.method.capability).unwrap();
        let mut spec = found.spec.clone();
        spec.security_requirements = Some(requirements);
        let protocol =
            gleitzeit_domain::protocol::ProtocolSpec::new("python", call.protocol().version());
        let mut catalog = ProtocolCatalog::new();
        catalog.register(protocol.method(spec)).unwrap();
        let method: Arc<Method> = catalog.method(&call.method.capability).unwrap();
        Call { method, ..call }
    };
    let jail = SecurityRequirements {
        sandbox_minimum: Some(SandboxLevel::Docker),
        ..SecurityRequirements::default()
    };
    let error = outcome(demanding(jail)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TaskValidationFailed);
    let list = SecurityRequirements {
        allowed_modules: vec!["math".to_owned()],
        ..SecurityRequirements::default()
    };
    let error = outcome(demanding(list)).await.unwrap_err();
    assert!(error.message.contains("`json` is not among"), "{error}");
    assert!(outcome(demanding(SecurityRequirements::default())).await.is_ok());
}

/// Findings have their place, as text and as data; the code does not run.
#[actix_rt::test]
async fn validate_reports_positions() {
    let provider = provider(settings()).await;
    let validate = async |code: &str| {
        let call = sample("validate", json!({"code": code})).call("task");
        provider.execute(call).await.unwrap().value
    };
    let report = validate("print('x')\ndef f(:\n    pass").await;
    assert_eq!(report["is_valid"], false);
    assert!(report["errors"][0].as_str().unwrap().starts_with("2:7: "), "{report}");
    let found = &report["diagnostics"][0];
    assert_eq!(
        (&found["line"], &found["column"], &found["rule"]),
        (&json!(2), &json!(7), &json!("syntax"))
    );
    assert_eq!(validate("x = 1").await["is_valid"], true);
    assert_eq!(validate("").await["is_valid"], true);
    assert_eq!(validate(&"(".repeat(5000)).await["is_valid"], false);
}

/// A wrong interpreter is named at the start, and at no task's cost.
#[actix_rt::test]
async fn a_missing_interpreter_is_named_at_the_start() {
    let config = PythonConfig { interpreter: "/no/such/python".into(), ..settings() };
    let provider = (python::spec("python", config).unwrap().factory)().unwrap();
    let error = provider.initialize().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ProviderInitializationFailed);
    assert!(error.message.contains("`/no/such/python`"), "{error}");
    assert_eq!(provider.health_check().await.status, HealthStatus::Unhealthy);
    let error = provider.execute(call(json!({"code": "1"}))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ProviderUnhealthy);
}

/// Health is a task that runs, and the interpreter can be told apart.
#[actix_rt::test]
async fn health_is_a_task_that_runs() {
    let report = provider(settings()).await.health_check().await;
    assert_eq!(report.status, HealthStatus::Healthy);
    assert!(report.detail.starts_with("Python 3."), "{report:?}");
    assert!(report.detail.contains("sandbox process: "), "{report:?}");
    assert!(report.detail.contains(" ways out closed"), "{report:?}");
    let report = provider(unjailed()).await.health_check().await;
    assert!(report.detail.ends_with("sandbox none"), "{report:?}");
}

/// A dropped call is stopped at once, with its children.
#[actix_rt::test]
async fn a_dropped_call_stops_the_code() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("pid");
    let code = format!(
        "import os, time\nopen({m:?}, 'w').write(str(os.getpid()))\ntime.sleep(60)",
        m = marker.to_str().unwrap()
    );
    let provider = provider(unjailed()).await;
    let running = actix_rt::spawn({
        let provider = Rc::clone(&provider);
        async move { provider.execute(call(json!({"code": code}))).await }
    });
    let written = || fs::read_to_string(&marker).ok().filter(|text| !text.is_empty());
    until(|| written().is_some()).await;
    let process = format!("/proc/{}", written().unwrap());
    assert!(fs::exists(&process).unwrap());
    running.abort();
    until(|| !fs::exists(&process).unwrap()).await;
}

/// Waits for an event among processes, which know no clock but the real one.
async fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "did not happen within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a supervisor and a person are told before the provider exists.
#[actix_rt::test]
async fn the_spec_describes_the_provider() {
    let spec = python::spec("python", settings()).unwrap();
    assert_eq!((&*spec.kind, spec.placement), ("python", Placement::Worker));
    assert!(spec.max_concurrent.unwrap() >= 1);
    assert_eq!(spec.config["interpreter"], "python3");
    assert_eq!(spec.config["sandbox"], "process");
    let wrong = PythonConfig { max_workers: Some(0), ..settings() };
    assert!(python::spec("python", wrong).unwrap_err().to_string().starts_with("max_workers"));
}

/// Without a jail the result says so, each time.
#[actix_rt::test]
async fn a_task_without_a_jail_says_so() {
    let provider = provider(unjailed()).await;
    let result = provider.execute(call(json!({"code": "1"}))).await.unwrap().value;
    assert_eq!((&result["sandbox"], &result["result"]), (&json!("none"), &json!(1)));
}

/// A jail that cannot be had is an error, and no task runs without it.
#[actix_rt::test]
async fn no_jail_means_no_task() {
    for launcher in [None, Some("/no/such/launcher".into())] {
        let config = PythonConfig { launcher, ..PythonConfig::default() };
        let provider = (python::spec("python", config).unwrap().factory)().unwrap();
        let error = provider.initialize().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ProviderInitializationFailed);
        assert!(error.message.contains("gleitzeit doctor"), "{error}");
        assert_eq!(provider.health_check().await.status, HealthStatus::Unhealthy);
        assert!(provider.execute(call(json!({"code": "1"}))).await.is_err());
    }
}

/// A virtual environment brings its packages, read-only.
#[actix_rt::test]
async fn a_virtual_environment_brings_its_packages() {
    let dir = tempfile::tempdir().unwrap();
    let env = dir.path().join("env");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip", "--symlinks"])
        .arg(&env)
        .output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: packages of a virtual environment (python3 -m venv fails: {made:?})");
        return;
    }
    let packages = fs::read_dir(env.join("lib")).unwrap().next().unwrap().unwrap().path();
    let package = packages.join("site-packages/answer.py");
    fs::write(&package, "ANSWER = 42\n").unwrap();
    // As root, the tasks' user is another one.
    for path in [dir.path(), &env] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let provider = provider(PythonConfig { virtual_env: Some(env), ..settings() }).await;
    let code = format!(
        "import answer\ntry: open({:?}, 'a'); left = True\nexcept OSError: left = False\n\
         result = [answer.ANSWER, left]",
        package.to_str().unwrap()
    );
    let result = provider.execute(call(json!({"code": code}))).await.unwrap().value;
    assert_eq!(result["result"], json!([42, false]));
}

/// Providers with different interpreters run side by side, each with its own.
#[actix_rt::test]
async fn interpreters_run_side_by_side() {
    let mut tried = 0;
    for minor in 9..=14 {
        let home = std::env::var("HOME").unwrap_or_default();
        let version = format!("3.{minor}");
        let own = fs::read_dir(format!("{home}/.pyenv/versions")).into_iter().flatten().flatten();
        let pyenv = own
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{version}.")))
            })
            .map(|path| path.join("bin/python3"));
        let system = Some(format!("/usr/bin/python{version}").into());
        let Some(interpreter) = [pyenv, system].into_iter().flatten().find(|path| path.exists())
        else {
            println!("SKIPPED: Python {version} (it is not installed)");
            continue;
        };
        let config = PythonConfig { interpreter, max_workers: Some(1), ..settings() };
        let provider = provider(config).await;
        let code = "import asyncio, sys\nresult = ['%d.%d' % sys.version_info[:2], asyncio.run(asyncio.sleep(0, 1))]";
        let result = provider.execute(call(json!({"code": code}))).await.unwrap().value;
        assert_eq!(result["result"], json!([version, 1]), "{result}");
        let error = provider.execute(call(json!({"code": "x = 1\n1 / 0"}))).await.unwrap_err();
        assert!(error.message.contains("ZeroDivisionError: division by zero (line 2)"), "{error}");
        provider.shutdown().await;
        tried += 1;
    }
    assert!(tried > 0, "no interpreter was found");
}

/// The network is there for who asks for it, where the settings let it.
#[actix_rt::test]
async fn network_is_an_opt_in() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', {port}), 2)\nresult = 'connected'"
    );
    let error = run(json!({"code": code})).await.unwrap_err();
    assert!(error.message.contains("PermissionError"), "{error}");
    // What is near is reached only where it is named.
    let open = PythonConfig { network: true, ..settings() };
    let near = provider(open.clone()).await;
    let error = near.execute(call(json!({"code": code}))).await.unwrap_err();
    assert!(error.message.contains("PermissionError"), "{error}");
    near.shutdown().await;
    let network_allow = vec![format!("127.0.0.1:{port}").parse().unwrap()];
    let named = provider(PythonConfig { network_allow, ..open }).await;
    let result = named.execute(call(json!({"code": code}))).await.unwrap().value;
    assert_eq!(result["result"], "connected");
}

/// Tasks that take long do not make their provider ill.
#[actix_rt::test]
async fn a_busy_provider_is_healthy() {
    let config = PythonConfig { max_workers: Some(1), ..settings() };
    let provider = provider(config).await;
    let long = actix_rt::spawn({
        let provider = Rc::clone(&provider);
        let sleep = call(json!({"code": "import time\ntime.sleep(30)"}));
        async move { provider.execute(sleep).await }
    });
    // Its place is taken when it was polled once.
    tokio::task::yield_now().await;
    let report = provider.health_check().await;
    assert_eq!(report.status, HealthStatus::Healthy, "{report:?}");
    long.abort();
    provider.shutdown().await;
}
