//! `model`: goes through the bounds and prints what was found; fails where something does not hold, or where a guard
//! that is left out is not missed.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use evenkeel_model::bounds::Guard;
use evenkeel_model::report;
use evenkeel_model::runs::{AGAIN, LARGE, SMALL};

/// Leaders, agents, journal and libvirt, gone through exhaustively within small bounds.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs to go through; all, and every guard left out, when none is named.
    runs: Vec<String>,
    /// Leave a guard out of the runs that are named, and print what then goes wrong.
    #[arg(long, requires = "runs", value_parser = guard)]
    without: Option<Guard>,
    /// Follow the runs that are named for so many steps only.
    #[arg(long, requires = "runs")]
    deepest: Option<usize>,
    /// Write the tables into this file too, between its markers.
    #[arg(long, conflicts_with = "runs")]
    into: Option<std::path::PathBuf>,
}

fn guard(name: &str) -> Result<Guard, String> {
    let found = Guard::ALL.into_iter().find(|guard| guard.as_str() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = Guard::ALL.into_iter().map(Guard::as_str).collect();
        format!("one of {}", names.join(", "))
    })
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout();
    let mut holds = true;
    let all: Vec<_> = SMALL.into_iter().chain([AGAIN]).chain(LARGE).collect();
    if arguments.runs.is_empty() {
        let told = report::all(&all, |line| writeln!(out, "{line}"))?;
        if let Some(file) = &arguments.into {
            told.write_into(file)?;
        }
        holds = told.holds;
    }
    for name in &arguments.runs {
        let bounds = all.iter().find(|bounds| bounds.name == name);
        let mut bounds = *bounds.ok_or_else(|| anyhow::anyhow!("no run is called {name:?}"))?;
        bounds.without = arguments.without;
        bounds.deepest = arguments.deepest.or(bounds.deepest);
        let found = evenkeel_model::runs::run(bounds)?;
        holds &= found.broken.is_none();
        writeln!(out, "{}", report::row(&bounds, &found))?;
        writeln!(out, "reached: {:?}", found.reached)?;
        if let Some(broken) = &found.broken {
            writeln!(out, "{}", report::counterexample(broken))?;
        }
    }
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
