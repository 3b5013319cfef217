//! Judges the estimator on recorded load and prints the table of `docs/reference/estimator.md`.
//!
//! ```text
//! cargo run --release -p evenkeel-sim --example estimator [TRACE.csv …]
//! ```
//!
//! Without arguments: the traces of the source tree. Traces are of five-minute samples, in their format. The last
//! two tables of each trace are of one half of the guests each: what is true of guests in general is true of both.

use std::path::PathBuf;

use evenkeel_sim::judge::{judge, table};
use evenkeel_sim::trace::{self, FIVE_MINUTES, Trace, TraceError};

#[expect(clippy::print_stdout, reason = "a tool's output")]
fn main() -> Result<(), TraceError> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let recorded = ["planetlab-20110303.csv", "bitbrains-rnd-cpu-7d.csv"];
        paths = recorded
            .iter()
            .map(|name| trace::folder().join(name))
            .collect();
    }
    for path in paths {
        let trace = Trace::read(&path, FIVE_MINUTES)?;
        let name = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .display()
            .to_string();
        let all = judge(&trace, |_| true);
        let forecasts = all.first().map_or(0, |score| score.forecasts);
        println!(
            "## {name}: {} guests, {forecasts} forecasts\n\n{}",
            trace.guests.len(),
            table(&all)
        );
        println!(
            "Even guests:\n\n{}",
            table(&judge(&trace, |place| place % 2 == 0))
        );
        println!(
            "Odd guests:\n\n{}",
            table(&judge(&trace, |place| place % 2 == 1))
        );
    }
    Ok(())
}
