//! What a Python task costs in a jail, one at a time and on every core, beside a cold interpreter.
//!
//! The two are measured in turns, so that both see the same machine. Prints a table: the shortest,
//! the median and the 99th percentile of the time from asking to the answer, processor time a task
//! of all processes together, and tasks a second.

#![expect(clippy::cast_precision_loss, reason = "rates of counts")]

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use gleitzeit_sandbox::{Interpreter, JailSettings, Job, Sandbox, SandboxSettings, Status};

/// Tasks of one kind, one at a time.
const TASKS: usize = 1_000;
/// Tasks on all places at once.
const MANY: usize = 4_000;
/// Fresh processes take longer.
const COLD: usize = 200;

fn main() {
    gleitzeit_sandbox::init();
    // Whoever only asks which benchmarks there are, or tests that this one is built, gets no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let report = runtime.block_on(measure());
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes()).expect("somebody listens");
}

async fn measure() -> String {
    let python = std::env::var("GLEITZEIT_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let settings = JailSettings { recycle_tasks: u32::MAX, ..JailSettings::default() };
    let begun = Instant::now();
    let jail = Sandbox::jailed(python.as_ref(), &settings).await.expect("a jail");
    let start = begun.elapsed();
    let interpreter = Interpreter::probe(python.as_ref()).await.expect("an interpreter");
    let path = interpreter.path().to_owned();
    let plain = Sandbox::new(interpreter, SandboxSettings::default());
    let mut report = format!(
        "Python {}, {}\nstarted in {start:.1?} with {} places, self-test included\n\n",
        jail.interpreter().version(),
        jail.self_test().expect("a jail has one"),
        settings.workers,
    );
    for _ in 0..100 {
        task(&jail).await;
    }
    // In turns: a burst of the machine hits both.
    let (mut jailed, mut cold, mut unjailed) = (Vec::new(), Vec::new(), Vec::new());
    let mut spent = 0.0;
    for _ in 0..COLD {
        let before = processor_seconds();
        for _ in 0..TASKS / COLD {
            jailed.push(task(&jail).await);
        }
        spent += processor_seconds() - before;
        cold.push(cold_start(&path));
        unjailed.push(task(&plain).await);
    }
    line(&mut report, "a task in a jail", &mut jailed);
    line(&mut report, "a task without one", &mut unjailed);
    line(&mut report, "python3 -I -S -E -c pass", &mut cold);
    let ratio = median(&jailed).as_secs_f64() / median(&cold).as_secs_f64();
    let each = spent * 1e3 / TASKS as f64;
    let _ = writeln!(report, "\njail / cold start, medians: {ratio:.2}");
    let _ = writeln!(report, "processor time a task, all processes: {each:.2} ms");
    let _ = writeln!(report, "one at a time: {:.0} tasks/s", TASKS as f64 / total(&jailed));
    let begun = Instant::now();
    let lanes = (0..settings.workers).map(|_| {
        let jail = jail.clone();
        let count = MANY / settings.workers;
        tokio::spawn(async move {
            for _ in 0..count {
                task(&jail).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.expect("no task fails");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let _ =
        writeln!(report, "{} at a time: {:.0} tasks/s", settings.workers, MANY as f64 / seconds);
    jail.stop().await;
    report
}

async fn task(sandbox: &Sandbox) -> Duration {
    let begun = Instant::now();
    let outcome = sandbox.run(Job::execute("result = 1")).await.expect("it runs");
    assert_eq!((outcome.status, outcome.result), (Status::Ok, 1.into()), "{:?}", outcome.error);
    begun.elapsed()
}

fn cold_start(path: &std::path::Path) -> Duration {
    let begun = Instant::now();
    let ended = Command::new(path)
        .args(["-I", "-S", "-E", "-c", "pass"])
        .env_clear()
        .stdin(Stdio::null())
        .status();
    assert!(ended.is_ok_and(|status| status.success()), "Python starts");
    begun.elapsed()
}

fn line(report: &mut String, name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).saturating_sub(1)];
    let _ = writeln!(
        report,
        "{name:26} min {:8.2?}  p50 {:8.2?}  p99 {:8.2?}",
        times[0],
        at(50),
        at(99)
    );
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn total(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64()
}

/// Processor time of this process and of all below it, those that have ended included, in seconds.
fn processor_seconds() -> f64 {
    let mut pids = vec![std::process::id()];
    let mut ticks = 0;
    while let Some(pid) = pids.pop() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or("").split(' ');
        // Of itself in user and kernel mode, and of the children that it has waited for.
        ticks += fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    ticks as f64 / each as f64
}
