//! The fault suite: faults are injected into migrations in labs side by side, and what becomes of the guests is held
//! against a table. A sample of it runs with the other tests; `make fault-test` runs all. docs/reference/faults.md
//! tells what came of it.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod inject;
mod plan;
mod report;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use evenkeel_tests::{Lab, LabOptions, tell};

use plan::{Case, cases};
use run::{Stage, Verdict};

/// A silent peer is given up by libvirt after 3 s in most labs, and after its usual 30 s in the first.
const SHORT_KEEPALIVE: (u32, u32) = (1, 3);
const USUAL_KEEPALIVE: (u32, u32) = (5, 5);
/// Faults that are injected with the other tests.
const SAMPLE: usize = 15;

/// Injects faults into migrations.
#[derive(Debug, Parser)]
struct Options {
    /// What chance decides, it decides the same way for the same seed; several run one after the other
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Faults of each seed
    #[arg(long, default_value_t = SAMPLE)]
    count: usize,
    /// Labs side by side
    #[arg(long, default_value_t = 3)]
    labs: usize,
    /// Write a page about it, too
    #[arg(long)]
    into: Option<PathBuf>,
    /// Only cases of this name, such as kill/leader/copying, or the one of this number
    filter: Option<String>,
    /// Ignored: other tests know it
    #[arg(long, hide = true)]
    quiet: bool,
    /// Ignored: other tests know it
    #[arg(long, hide = true)]
    nocapture: bool,
}

/// What came of a case.
pub(crate) struct Done {
    pub(crate) case: Case,
    pub(crate) verdict: Result<Verdict, String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = |case: &Case| {
        options.filter.as_ref().is_none_or(|filter| {
            case.to_string().contains(filter.as_str()) || case.number.to_string() == *filter
        })
    };
    let seeds = options.seeds.iter();
    let all = seeds.flat_map(|seed| cases(*seed, options.count));
    let all: Vec<Case> = all.filter(wanted).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..options.labs.min(all.len()) {
            let (all, next, done) = (&all, &next, &done);
            let keepalive = if worker == 0 && options.count > SAMPLE {
                USUAL_KEEPALIVE
            } else {
                SHORT_KEEPALIVE
            };
            scope.spawn(move || work(all, next, done, keepalive));
        }
    });
    let mut done = done.into_inner().expect("no worker has panicked");
    done.sort_by_key(|done| (done.case.seed, done.case.number));
    let summary = report::summary(&done, &options.seeds, began.elapsed());
    tell!("{summary}");
    if let Some(page) = &options.into {
        report::write(page, &summary).expect("the page is written");
    }
    let whole = done.iter().all(|done| done.verdict.is_ok()) && done.len() == all.len();
    if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays cases in one lab after the other; a lab in which something went wrong is not used again.
fn work(all: &[Case], next: &AtomicUsize, done: &Mutex<Vec<Done>>, keepalive: (u32, u32)) {
    let mut stage: Option<Stage> = None;
    while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
        let played = catch_unwind(AssertUnwindSafe(|| {
            stage
                .get_or_insert_with(|| Stage::new(new_lab(keepalive)))
                .play(case)
        }));
        let verdict = played.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(words.unwrap_or("the suite itself has failed").to_owned())
        });
        if verdict.is_err()
            && let Some(stage) = stage.take()
        {
            stage.lab.keep_logs();
        }
        let case = *case;
        let finished = Done { case, verdict };
        tell!("{}", report::line(&finished));
        done.lock().expect("no worker has panicked").push(finished);
    }
}

fn new_lab(keepalive: (u32, u32)) -> Lab {
    let lab = Lab::up(&LabOptions {
        etcd_members: 3,
        keepalive,
        memory_mib: 512,
        ..LabOptions::default()
    });
    lab.apply_policy("schema = 1\n", 0).expect("a policy");
    lab
}
