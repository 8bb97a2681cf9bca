//! `gleitzeit-bench`: figures of the real engine, counted where the work is done, beside what the
//! database charges. No figure is judged here: machines differ.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::Scratch;

/// The keys of every workload.
const COMMON: [&str; 14] = [
    "commits",
    "durability",
    "effect",
    "executed",
    "load",
    "p50_ms",
    "p99_ms",
    "per_second",
    "per_second_range",
    "price",
    "rounds",
    "seconds",
    "tasks",
    "workload",
];

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn bench(scratch: &Scratch, workload: &str, more: &[&str]) -> Value {
    let arguments = ["--workload", workload, "--tasks", "20", "--json"];
    scratch.json(&[&arguments[..], more].concat(), 0)
}

fn is_positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}

/// Figures in one document, counted at the provider. A store in memory has no price.
#[test]
fn the_real_engine_is_driven() {
    let scratch = Scratch::new();
    for workload in ["burn-down", "workflows", "chain", "latency"] {
        let report = bench(&scratch, workload, &[]);
        assert_eq!(keys(&report), COMMON, "{workload}");
        assert_eq!((&report["workload"], &report["executed"]), (&json!(workload), &json!(20)));
        assert_eq!((&report["durability"], &report["price"]), (&json!("none"), &Value::Null));
    }
    let report = bench(&scratch, "fan-out", &["--rounds", "3"]);
    let counts = (&report["tasks"], &report["rounds"], &report["executed"]);
    assert_eq!(counts, (&json!(22), &json!(3), &json!(66)));
    let [least, greatest] = [0, 1].map(|at| report["per_second_range"][at].as_f64().unwrap());
    let median = report["per_second"].as_f64().unwrap();
    assert!(least <= median && median <= greatest, "{report}");
}

/// Each figure stands beside the price of a flush, as a ratio that means the same on every disk.
#[test]
fn each_figure_has_the_cost_of_a_flush_beside_it() {
    let scratch = Scratch::new();
    for (number, (workload, ratios)) in [
        ("chain", &["flushes_per_hop", "hop_in_bare_commits"][..]),
        ("latency", &["p50_in_bare_commits"]),
        ("workflows", &["plain_per_second", "share_of_plain"]),
        ("burn-down", &["plain_per_second", "share_of_plain"]),
        ("fan-out", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let report = bench(&scratch, workload, &["--store", &format!("sqlite:{number}.db")]);
        let mut expected = [&COMMON[..], ratios].concat();
        expected.sort_unstable();
        assert_eq!(keys(&report), expected, "{workload}");
        assert_eq!(report["durability"], "full");
        for price in ["bare_commit_ms", "raw_flush_ms"] {
            assert!(is_positive(&report["price"][price]), "{workload}: {report}");
        }
        for ratio in ratios {
            assert!(is_positive(&report[*ratio]["median"]), "{workload}: {report}");
        }
    }
    let out = scratch.text(&["--workload", "chain", "--tasks", "20", "--store", "sqlite:p.db"]);
    for part in ["bare commit", "raw flush", "flushes", "load"] {
        assert!(out.contains(part), "no `{part}` in:\n{out}");
    }
}

/// Group commit, counted: a hop of a chain costs one transaction, and the submission one for all.
#[test]
fn a_hop_of_a_chain_costs_one_commit() {
    let scratch = Scratch::new();
    let arguments = ["--workload", "chain", "--tasks", "200", "--json", "--store", "sqlite:c.db"];
    let report = scratch.json(&arguments, 0);
    // One for the submission, and one for the lease.
    assert!(report["commits"].as_f64().unwrap() <= 202.0, "{report}");
    assert!(report["flushes_per_hop"]["median"].as_f64().unwrap() <= 1.05, "{report}");
}

/// What a long run and a killed process leave: tenths with sizes, and every task once.
#[test]
fn a_long_run_keeps_its_size_and_a_killed_one_is_recovered() {
    let scratch = Scratch::new();
    for (workload, workflows) in [("recovery", 500), ("recovery-one", 1)] {
        let store = format!("sqlite:{workload}.db");
        let arguments = ["--workload", workload, "--tasks", "500", "--json", "--store", &store];
        let report = scratch.json(&arguments, 0);
        assert_eq!(report["executed"], 500, "{report}");
        assert_eq!(report["recovery"]["workflows"], workflows, "{report}");
        assert!(is_positive(&report["recovery"]["taken_up"]["median"]), "{report}");
    }
    let report = scratch.json(&["--workload", "recovery", "--tasks", "5", "--json"], 3);
    assert!(report["error"]["message"].as_str().unwrap().contains("--store"), "{report}");

    let arguments = ["--workload", "sustained", "--tasks", "1000", "--keep", "0.1"];
    let store = ["--json", "--store", "sqlite:s.db"];
    let report = scratch.json(&[&store[..], &arguments].concat(), 0);
    let tenths = report["tenths"].as_array().unwrap();
    assert_eq!((tenths.len(), &report["executed"]), (10, &json!(1000)));
    for tenth in tenths {
        assert!(["per_second", "store_mib"].iter().all(|it| is_positive(&tenth[it])), "{report}");
    }
    assert!(is_positive(&report["last_to_first"]));
}

/// Python tasks stand beside a cold interpreter, measured in turns with them.
#[cfg(feature = "python")]
#[test]
fn python_tasks_are_compared_with_a_cold_interpreter() {
    let report = bench(&Scratch::new(), "python", &[]);
    let python = &report["python"];
    assert_eq!((&report["tasks"], &python["sandbox"]), (&json!(20), &json!("process")), "{report}");
    for figure in ["share_of_cold", "cpu_ms_per_task", "parallel_per_second", "parallel"] {
        assert!(is_positive(&python[figure]), "{figure}: {report}");
    }
    let [p50, p99] = [0, 1].map(|at| python["cold_ms"][at].as_f64().unwrap());
    assert!(p50 > 0.0 && p50 <= p99, "{report}");
    assert_eq!(python["docker_run_ms"], Value::Null, "{report}");
}

/// Tasks in containers stand beside `docker run` of the same image, where there is such a program.
#[cfg(feature = "docker")]
#[tokio::test]
async fn containers_are_compared_with_docker_run() {
    let Some(address) = support::engine::address("containers_are_compared") else { return };
    let python = std::env::var("GLEITZEIT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let engine = support::engine::connect(&address).await;
    let image = support::engine::image(&engine, &python).await;
    let scratch = Scratch::new();
    let arguments = ["--workload", "python", "--tasks", "4", "--sandbox", "docker"];
    let arguments = [&arguments[..], &["--docker-image", &image, "--json"]].concat();
    let mut command = scratch.command(&arguments);
    let report = support::json(command.env("DOCKER_HOST", address), 0);
    let python = &report["python"];
    assert_eq!((&report["tasks"], &python["sandbox"]), (&json!(4), &json!("docker")), "{report}");
    assert!(python["parallel_per_second"].as_f64().unwrap() > 0.0, "{report}");
    if std::process::Command::new("docker").arg("--version").output().is_ok() {
        assert!(python["share_of_docker_run"].as_f64().unwrap() < 0.5, "{report}");
    }
}

/// A server is driven like a file; a disk of its own has no flush to time.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_server_is_driven_like_a_file() {
    let Some(server) = support::postgres::Server::reach("bench").await else { return };
    let scratch = Scratch::new();
    let url = server.database().await;
    for (workload, tasks) in [
        ("burn-down", 20),
        ("workflows", 20),
        ("chain", 20),
        ("fan-out", 22),
        ("latency", 20),
        ("recovery", 20),
        ("recovery-one", 20),
        ("sustained", 20),
    ] {
        let report = bench(&scratch, workload, &["--store", url.expose()]);
        assert_eq!((&report["tasks"], &report["executed"]), (&json!(tasks), &json!(tasks)));
        assert!(is_positive(&report["price"]["bare_commit_ms"]), "{report}");
        assert_eq!(report["price"]["raw_flush_ms"], Value::Null, "{report}");
        let is_compared = matches!(workload, "burn-down" | "workflows");
        assert_eq!(is_positive(&report["share_of_plain"]["median"]), is_compared, "{report}");
    }
    let arguments = ["--store", url.expose(), "--effect", "at-least-once", "--in-flight", "4"];
    let report = bench(&scratch, "workflows", &arguments);
    assert!(is_positive(&report["share_of_plain"]["median"]), "{report}");
    server.drop_all().await;
}

/// Calls with an effect are written in two transactions, by the engine and by the plain loop.
#[test]
fn calls_with_an_effect_are_compared_with_a_plain_loop() {
    let arguments = ["--store", "sqlite:e.db", "--effect", "at-least-once", "--in-flight", "4"];
    let report = bench(&Scratch::new(), "workflows", &arguments);
    assert_eq!((&report["effect"], &report["executed"]), (&json!("at-least-once"), &json!(20)));
    assert!(is_positive(&report["share_of_plain"]["median"]), "{report}");
}

/// A program that reads the output learns of a wrong command line, of wrong settings and of a store
/// that is not there as of any other failure.
#[test]
fn a_failure_is_one_document() {
    let scratch = Scratch::new();
    let report = scratch.json(&["--json", "--workload", "nothing"], 2);
    assert_eq!(report["error"]["name"], "INVALID_REQUEST", "{report}");
    std::fs::write(scratch.path().join("bad.toml"), "[engine]\nmax_concurrent_tasks = 0\n")
        .unwrap();
    let report = scratch.json(&["--json", "--config", "bad.toml"], 2);
    assert_eq!(report["error"]["name"], "CONFIGURATION_ERROR", "{report}");
    assert!(report["error"]["data"]["problems"].is_array(), "{report}");
    std::fs::create_dir(scratch.path().join("folder")).unwrap();
    let report = scratch.json(&["--json", "--store", "sqlite:folder"], 3);
    assert!(report["error"]["message"].as_str().unwrap().contains("folder"), "{report}");
    // The variable names a store as well.
    let mut command = scratch.command(&["--json", "--tasks", "3"]);
    let report = support::json(command.env("GLEITZEIT_STORE", "sqlite:folder"), 3);
    assert!(report["error"]["message"].as_str().unwrap().contains("folder"), "{report}");
}

/// A board without a battery can be measured, too.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_clock_before_1970_changes_nothing() {
    let scratch = Scratch::new();
    let shim = support::old_clock::build(scratch.path());
    let mut command = scratch.command(&["--json", "--tasks", "10", "--workload", "latency"]);
    command.env("LD_PRELOAD", shim).env("GLEITZEIT__PROVIDERS__PYTHON__ENABLED", "false");
    assert_eq!(support::json(&mut command, 0)["executed"], 10);
}
