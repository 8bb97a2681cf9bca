//! `gleitzeit bench`: figures of the real engine, counted where the work is done, beside what the
//! database charges. No figure is judged here: machines differ.

use serde_json::{Value, json};

use crate::support::Place;

/// What is told of every workload.
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

fn bench(place: &Place, workload: &str, more: &[&str]) -> Value {
    let arguments = ["bench", "--workload", workload, "--tasks", "20", "--json"];
    place.json(&[&arguments[..], more].concat()).success()
}

fn is_positive(figure: &Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}

/// Figures in one document, counted at the provider. A store in memory has no price.
#[test]
fn bench_drives_the_real_engine() {
    let place = Place::new();
    for workload in ["burn-down", "workflows", "chain", "latency"] {
        let told = bench(&place, workload, &[]);
        assert_eq!(keys(&told), COMMON, "{workload}");
        assert_eq!((&told["workload"], &told["executed"]), (&json!(workload), &json!(20)));
        assert_eq!((&told["durability"], &told["price"]), (&json!("none"), &Value::Null));
    }
    let told = bench(&place, "fan-out", &["--rounds", "3"]);
    let counts = (&told["tasks"], &told["rounds"], &told["executed"]);
    assert_eq!(counts, (&json!(22), &json!(3), &json!(66)));
    let [least, greatest] = [0, 1].map(|at| told["per_second_range"][at].as_f64().unwrap());
    let median = told["per_second"].as_f64().unwrap();
    assert!(least <= median && median <= greatest, "{told}");
}

/// Each figure stands beside the price of a flush, as a ratio that means the same on every disk.
#[cfg(feature = "sqlite")]
#[test]
fn bench_tells_the_price_of_a_flush_beside_each_figure() {
    let place = Place::new();
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
        let told = bench(&place, workload, &["--store", &format!("sqlite:{number}.db")]);
        let mut expected = [&COMMON[..], ratios].concat();
        expected.sort_unstable();
        assert_eq!(keys(&told), expected, "{workload}");
        assert_eq!(told["durability"], "full");
        for price in ["bare_commit_ms", "raw_flush_ms"] {
            assert!(is_positive(&told["price"][price]), "{workload}: {told}");
        }
        for ratio in ratios {
            assert!(is_positive(&told[*ratio]["median"]), "{workload}: {told}");
        }
    }
    let arguments = ["bench", "--workload", "chain", "--tasks", "20", "--store", "sqlite:p.db"];
    let out = place.run(&arguments);
    for part in ["bare commit", "raw flush", "flushes", "load"] {
        assert!(out.stdout.contains(part), "no `{part}` in:\n{}", out.stdout);
    }
}

/// Group commit, counted: a hop of a chain costs one transaction, and the submission one for all.
#[cfg(feature = "sqlite")]
#[test]
fn a_hop_of_a_chain_costs_one_commit() {
    let place = Place::new();
    let told = place
        .json(&[
            "bench",
            "--workload",
            "chain",
            "--tasks",
            "200",
            "--json",
            "--store",
            "sqlite:c.db",
        ])
        .success();
    // One for the submission, and one for the lease.
    assert!(told["commits"].as_f64().unwrap() <= 202.0, "{told}");
    assert!(told["flushes_per_hop"]["median"].as_f64().unwrap() <= 1.05, "{told}");
}

/// What a long run and a killed process leave: tenths with sizes, and every task once.
#[cfg(feature = "sqlite")]
#[test]
fn bench_goes_on_after_a_kill_and_keeps_its_size() {
    let place = Place::new();
    for (workload, workflows) in [("recovery", 500), ("recovery-one", 1)] {
        let store = format!("sqlite:{workload}.db");
        let arguments =
            ["bench", "--workload", workload, "--tasks", "500", "--json", "--store", &store];
        let told = place.json(&arguments).success();
        assert_eq!(told["executed"], 500, "{told}");
        assert_eq!(told["recovery"]["workflows"], workflows, "{told}");
        assert!(is_positive(&told["recovery"]["taken_up"]["median"]), "{told}");
    }
    let told = place.json(&["bench", "--workload", "recovery", "--tasks", "5", "--json"]).status(3);
    assert!(told["error"]["message"].as_str().unwrap().contains("--store"), "{told}");

    let arguments = ["--workload", "sustained", "--tasks", "1000", "--keep", "0.1"];
    let store = ["bench", "--json", "--store", "sqlite:s.db"];
    let told = place.json(&[&store[..], &arguments].concat()).success();
    let tenths = told["tenths"].as_array().unwrap();
    assert_eq!((tenths.len(), &told["executed"]), (10, &json!(1000)));
    for tenth in tenths {
        assert!(["per_second", "store_mib"].iter().all(|it| is_positive(&tenth[it])), "{told}");
    }
    assert!(is_positive(&told["last_to_first"]));
}

/// Python tasks stand beside a cold interpreter, measured in turns with them.
#[cfg(feature = "python")]
#[test]
fn bench_holds_python_tasks_against_a_cold_interpreter() {
    let told = bench(&Place::new(), "python", &[]);
    let python = &told["python"];
    assert_eq!((&told["tasks"], &python["sandbox"]), (&json!(20), &json!("process")), "{told}");
    for figure in ["share_of_cold", "cpu_ms_per_task", "parallel_per_second", "parallel"] {
        assert!(is_positive(&python[figure]), "{figure}: {told}");
    }
    let [p50, p99] = [0, 1].map(|at| python["cold_ms"][at].as_f64().unwrap());
    assert!(p50 > 0.0 && p50 <= p99, "{told}");
    assert_eq!(python["docker_run_ms"], Value::Null, "{told}");
}
