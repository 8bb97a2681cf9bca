//! A whole runtime, and the program, with Python tasks in containers.

use std::{rc::Rc, time::Duration};

use crate::support::{
    engine,
    whole::{settings, within},
};
use gleitzeit::{
    ErrorCode, ResourceRequirements, Runtime, StartError, TaskSpec, WorkflowSpec, WorkflowStatus,
    providers::{
        conformance::{self, Sample},
        python::{self, DockerConfig, PythonConfig},
    },
};
use gleitzeit_domain::{
    health::HealthStatus,
    protocol::catalog::ProtocolCatalog,
    provider::Provider,
    security::{SandboxLevel, SecurityRequirements},
};
use serde_json::{Value, json};

/// The engine and an image there, as settings; `None` where there is no engine.
async fn containers() -> Option<DockerConfig> {
    let address = engine::address(std::thread::current().name().unwrap_or("containers"))?;
    let python = std::env::var("GLEITZEIT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let image = engine::image(&engine::connect(&address).await, &python).await;
    Some(DockerConfig { image, host: Some(address), pool_size: Some(1), ..DockerConfig::default() })
}

fn config(docker: DockerConfig) -> PythonConfig {
    PythonConfig {
        sandbox: SandboxLevel::Docker,
        docker: Some(docker),
        max_workers: Some(2),
        ..PythonConfig::default()
    }
}

fn sample(method: &str, params: Value) -> Sample {
    Sample::new(&ProtocolCatalog::builtin(), &format!("python/v1.0:{method}"), params).unwrap()
}

fn code(id: &str, code: &str) -> TaskSpec {
    TaskSpec::new(id, "python/execute").params(json!({ "code": code }))
}

async fn runtime(config: PythonConfig) -> Result<Runtime, StartError> {
    let builder = Runtime::builder(settings("")).without_settings_providers();
    within("the start", builder.provider(python::spec("python", config).unwrap()).start()).await
}

/// What every provider must hold to.
#[actix_rt::test]
async fn python_in_containers_conforms() {
    let Some(docker) = containers().await else { return };
    let returns = |result: Value| {
        move |value: &Value| match &value["result"] {
            actual if *actual == result => Ok(()),
            _ => Err(format!("expected {result}")),
        }
    };
    let samples = [
        sample("execute", json!({"code": "result = 1"})).accepting(returns(json!(1))),
        sample("validate", json!({"code": "x = 1"}))
            .returning(json!({"is_valid": true, "errors": [], "diagnostics": []})),
    ];
    conformance::check(&python::spec("python", config(docker)).unwrap(), &samples).await.unwrap();
}

/// Through the engine: a result has the fields of every other level, what a task reserves is what
/// its container lets it have, and a stopped runtime leaves no container.
#[tokio::test]
async fn a_workflow_runs_in_containers() {
    let Some(docker) = containers().await else { return };
    let engine = engine::connect(docker.host.as_deref().unwrap()).await;
    let image = engine::own_name(&engine, &docker.image, "runtime").await;
    let docker = DockerConfig { image: image.clone(), ..docker };
    let runtime = runtime(config(docker)).await.unwrap();
    let workflow = WorkflowSpec::new("w")
        .task(code("one", "print('x')\nresult = {'n': [1]}"))
        .task(code("two", "result = ${one.result.n} + [2]").after("one"));
    let ended = within("the workflow", runtime.handle().run(workflow)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    let result = ended.tasks[0].result.as_deref().unwrap();
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
        ("sandbox", json!("docker")),
    ] {
        assert_eq!(result[field], value, "{field}");
    }
    for field in ["execution_time", "cpu_time", "max_rss_bytes"] {
        assert!(result[field].as_f64().unwrap() > 0.0, "{field}: {result}");
    }
    assert_eq!(ended.tasks[1].result.as_deref().unwrap()["result"], json!([1, 2]));
    let with = |id: &str, memory_mb: u64| {
        let mut task = code(id, "x = bytearray(150 << 20)\nresult = len(x)");
        task.resources = Some(ResourceRequirements {
            memory_mb: Some(memory_mb),
            ..ResourceRequirements::default()
        });
        WorkflowSpec::new(id).task(task)
    };
    let ended = within("the workflow", runtime.handle().run(with("enough", 300))).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    let ended = within("the workflow", runtime.handle().run(with("little", 100))).await.unwrap();
    let error = ended.tasks[0].error.as_ref().unwrap();
    assert_eq!(error.data.as_deref().unwrap()["status"], "memory_limit", "{error}");
    runtime.stop(Duration::from_secs(20)).await;
    engine::none_is_left_of(&engine, &image).await;
}

/// Without an engine, or without the image, a runtime does not start, and says what to do; nothing
/// weaker takes its place.
#[tokio::test]
async fn without_an_engine_there_is_a_clear_error_at_the_start() {
    let nowhere = DockerConfig {
        image: "python:3.11".to_owned(),
        host: Some("unix:///no/such/socket".to_owned()),
        ..DockerConfig::default()
    };
    let error = runtime(config(nowhere)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigurationError);
    let text = error.to_string();
    for part in ["`python`", "`unix:///no/such/socket`", "docker.io", "gleitzeit doctor"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    let Some(docker) = containers().await else { return };
    let no_image = DockerConfig { image: "gleitzeit-test:missing".to_owned(), ..docker };
    let text = runtime(config(no_image)).await.unwrap_err().to_string();
    assert!(text.contains("image `gleitzeit-test:missing`") && text.contains("pull"), "{text}");
}

/// An engine that goes away is reported with a code, by the call and by the health check; the provider
/// is well again when it is back. A method that demands containers is content with them.
#[actix_rt::test]
async fn an_engine_that_disappears_makes_the_provider_unhealthy() {
    let Some(docker) = containers().await else { return };
    let mut way = engine::Way::to(docker.host.as_deref().unwrap());
    let docker = DockerConfig { host: Some(way.address()), ..docker };
    let spec = python::spec("python", config(docker)).unwrap();
    let provider: Rc<dyn Provider> = (spec.factory)().unwrap();
    provider.initialize().await.unwrap();
    let report = provider.health_check().await;
    assert_eq!(report.status, HealthStatus::Healthy, "{report:?}");
    let parts = ["sandbox docker", "19 of 19 ways out closed", "Docker "];
    assert!(parts.iter().all(|part| report.detail.contains(part)), "{report:?}");
    let mut call = sample("execute", json!({"code": "result = 1"})).call("task");
    let mut spec = call.method.spec.clone();
    spec.security_requirements = Some(SecurityRequirements {
        sandbox_minimum: Some(SandboxLevel::Docker),
        ..SecurityRequirements::default()
    });
    let mut catalog = ProtocolCatalog::new();
    let protocol =
        gleitzeit_domain::protocol::ProtocolSpec::new("python", call.protocol().version());
    catalog.register(protocol.method(spec)).unwrap();
    call.method = catalog.method(&call.method.capability).unwrap();
    let outcome = provider.execute(call.clone()).await.unwrap();
    assert_eq!(
        (&outcome.value["result"], &outcome.value["sandbox"]),
        (&json!(1), &json!("docker"))
    );
    way.cut().await;
    let gone = async {
        while provider.health_check().await.status == HealthStatus::Healthy {
            tokio::task::yield_now().await;
        }
        provider.execute(call.clone()).await.unwrap_err()
    };
    let error = within("the engine to be missed", gone).await;
    assert_eq!(error.code, ErrorCode::ProviderUnhealthy, "{error}");
    assert!(error.is_retryable() && error.message.contains(&way.address()), "{error}");
    way.open();
    let back = async {
        while provider.health_check().await.status != HealthStatus::Healthy {
            tokio::task::yield_now().await;
        }
        provider.execute(call.clone()).await.unwrap()
    };
    assert_eq!(within("the engine to be back", back).await.value["result"], json!(1));
    provider.shutdown().await;
}

/// From a settings file with the strictest minimum, and `doctor` tells what it found.
#[tokio::test]
async fn the_program_reads_the_settings_and_doctor_reports_them() {
    let Some(docker) = containers().await else { return };
    let scratch = crate::support::Scratch::new();
    let write = |name: &str, image: &str| {
        scratch.file(
            name,
            &format!(
                "[security]\nsandbox = \"docker\"\nsandbox_minimum = \"docker\"\n\
                 [providers.python.config.docker]\nimage = \"{image}\"\nhost = \"{}\"\n\
                 pool_size = 1\ncpu_millicores = 500\npids = 32\n",
                docker.host.as_deref().unwrap()
            ),
        )
    };
    let good = write("good.toml", &docker.image);
    let answer =
        scratch.json(&["exec", "-c", "result = 42", "--json", "--config", &good]).success();
    assert!(answer.to_string().contains("\"sandbox\":\"docker\""), "{answer}");
    let answer = scratch.json(&["doctor", "--json", "--config", &good]).success();
    let found = answer["machine"].as_array().unwrap().iter().find(|it| it["name"] == "docker");
    let detail = found.unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains(&docker.image) && detail.ends_with("is there"), "{detail}");
    let python = &answer["python"][0];
    assert_eq!(python["level"], "docker", "{python}");
    assert_eq!(python["verdict"]["engine"]["image"], json!(docker.image), "{python}");
    let bad = write("bad.toml", "gleitzeit-test:missing");
    let answer = scratch.json(&["doctor", "--json", "--config", &bad]).status(3);
    let error = answer["python"][0]["error"].as_str().unwrap();
    assert!(error.contains("image `gleitzeit-test:missing` is not at"), "{error}");
}
