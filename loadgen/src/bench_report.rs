//! The report: for a person, and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{
    commit_cost::{self, CommitCost},
    figures::Spread,
    options::{BenchArgs, Workload},
    python,
    work::CallEffect,
};

/// The figures; medians over the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) workload: Workload,
    /// Of one round.
    pub(crate) tasks: u64,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Of the slowest round and the fastest.
    pub(crate) per_second_range: [f64; 2],
    /// Of workflows; of the hops of a chain.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) durability: String,
    /// Effect of its calls outside, if they are those of the benchmark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effect: Option<CallEffect>,
    /// Calls that the provider was asked for, over all rounds.
    pub(crate) executed: u64,
    /// Of the machine, over the last minute.
    pub(crate) load: Option<f64>,
    /// `None` for the store in memory.
    pub(crate) price: Option<CommitCost>,
    /// Transactions that wrote, of one round.
    pub(crate) commits: Option<f64>,
    #[serde(flatten)]
    pub(crate) ratios: Ratios,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<Recovery>,
    /// Of the last round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) python: Option<python::Figures>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tenths: Vec<Slice>,
}

impl Report {
    /// A report without figures; the load is that before them.
    pub(crate) fn blank(args: &BenchArgs, is_memory: bool) -> Self {
        Self {
            workload: args.workload,
            tasks: match args.workload {
                Workload::FanOut => args.tasks + 2,
                _ => args.tasks,
            },
            rounds: args.rounds.get(),
            seconds: 0.0,
            per_second: 0.0,
            per_second_range: [0.0; 2],
            p50_ms: 0.0,
            p99_ms: 0.0,
            durability: if is_memory { "none".to_owned() } else { args.durability.clone() },
            effect: match args.workload {
                Workload::Python | Workload::Recovery | Workload::RecoveryOne => None,
                _ => Some(args.effect),
            },
            executed: 0,
            load: commit_cost::load(),
            price: None,
            commits: None,
            ratios: Ratios::default(),
            recovery: None,
            python: None,
            tenths: Vec::new(),
        }
    }
}

/// Figures that mean the same on every disk. Each stands with the workloads that it is about.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Ratios {
    /// Commits for each task of a chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flushes_per_hop: Option<Spread>,
    /// From the end of one task of a chain to that of the next, in bare commits; medians of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hop_in_bare_commits: Option<Spread>,
    /// From submission to end of a workflow alone, in bare commits; medians of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_in_bare_commits: Option<Spread>,
    /// Workflows or tasks a second that a plain loop over the same rows writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plain_per_second: Option<Spread>,
    /// The pace of the engine, of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) share_of_plain: Option<Spread>,
    /// The last tenth's pace, of the first one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_to_first: Option<f64>,
}

/// How a killed process was continued, in seconds after the start of the next one.
#[derive(Debug, Serialize)]
pub(crate) struct Recovery {
    pub(crate) workflows: u64,
    /// The store was open.
    pub(crate) opened: f64,
    /// A provider was called.
    pub(crate) first_call: f64,
    /// Every task was in line again, or executing.
    pub(crate) taken_up: Spread,
    /// Every task had completed.
    pub(crate) completed: f64,
}

/// A tenth of a long run, at its end.
#[derive(Debug, Serialize)]
pub(crate) struct Slice {
    /// The median of its ten slices.
    pub(crate) per_second: f64,
    pub(crate) memory_mib: Option<f64>,
    pub(crate) store_mib: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, seconds, per_second, p50_ms, p99_ms, durability, executed, .. } = self;
        let [least, greatest] = self.per_second_range;
        write!(
            out,
            "{tasks} tasks in {seconds:.3} s: {per_second:.0}/s [{least:.0}–{greatest:.0}], p50 \
             {p50_ms:.3} ms, p99 {p99_ms:.3} ms, durability {durability}, {executed} calls executed"
        )?;
        if let Some(effect) = self.effect {
            write!(out, ", {effect}")?;
        }
        if self.rounds > 1 {
            write!(out, ", {} rounds", self.rounds)?;
        }
        if let Some(load) = self.load {
            write!(out, ", load {load:.2}")?;
        }
        if let Some(CommitCost { raw_flush_ms, bare_commit_ms }) = self.price {
            write!(out, "\nprice: bare commit {bare_commit_ms:.3} ms")?;
            if let Some(raw_flush_ms) = raw_flush_ms {
                write!(out, ", raw flush {raw_flush_ms:.3} ms")?;
            }
        }
        if let Some(commits) = self.commits {
            write!(out, ", {commits:.0} commits")?;
        }
        write!(out, "{}", self.ratios)?;
        if let Some(recovery) = &self.recovery {
            write!(out, "\n{recovery}")?;
        }
        if let Some(python) = &self.python {
            write!(out, "\n{python}")?;
        }
        for (number, slice) in (1..).zip(&self.tenths) {
            write!(out, "\n{number:>3}/10 {slice}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(flushes) = self.flushes_per_hop {
            write!(out, "\nhop: {flushes:.3} flushes")?;
        }
        if let Some(commits) = self.hop_in_bare_commits {
            write!(out, ", the time of {commits:.2} bare commits")?;
        }
        if let Some(commits) = self.p50_in_bare_commits {
            write!(out, "\np50: the time of {commits:.2} bare commits")?;
        }
        if let (Some(plain), Some(share)) = (self.plain_per_second, self.share_of_plain) {
            write!(out, "\nplain loop over the same rows: {plain:.0}/s; of that {share:.2}")?;
        }
        if let Some(ratio) = self.last_to_first {
            write!(out, "\nthe last tenth at {ratio:.2} of the first one's pace")?;
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = out.precision().unwrap_or(2);
        write!(out, "{:.digits$}", self.median)?;
        if self.least < self.greatest {
            write!(out, " [{:.digits$}–{:.digits$}]", self.least, self.greatest)?;
        }
        Ok(())
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workflows, opened, first_call, taken_up, completed } = self;
        write!(
            out,
            "after kill -9, {workflows} workflows: store open in {opened:.3} s, first call \
             after {first_call:.3} s, all taken up after {taken_up:.3} s, all completed after \
             {completed:.3} s"
        )
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.0}/s", self.per_second)?;
        if let Some(memory) = self.memory_mib {
            write!(out, ", {memory:.0} MiB of memory")?;
        }
        if let Some(store) = self.store_mib {
            write!(out, ", {store:.0} MiB of store")?;
        }
        Ok(())
    }
}
