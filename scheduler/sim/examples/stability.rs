//! Seven days of 500 recorded guests, for several capacities, starts and seeds: what the goals of stability are judged by.
//!
//! `cargo run --release -p evenkeel-sim --example stability [-- --days 7 --seeds 1 --cores 24,32 --faults --policy FILE --svg FILE]`
//!
//! The trace is Bitbrains' (traces/README.md), the policy the built-in one (or another) in mode `automatic`, on 25 equal hosts with
//! 256 GiB and links of 1,000 MiB/s each. One line of verdicts follows each report.

#![allow(clippy::print_stdout, reason = "a report goes to standard output")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use evenkeel_sim::trace::{FIVE_MINUTES, folder};
use evenkeel_sim::{Faults, Fleet, GuestSpec, Hosts, Report, Scenario, Start, Strategy, Trace};

/// What is run.
struct Args {
    days: f64,
    seeds: u64,
    cores: Vec<f64>,
    starts: Vec<Start>,
    faults: Faults,
    svg: Option<PathBuf>,
    policy: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::read()?;
    let trace = Trace::read(&folder().join("bitbrains-rnd-cpu-7d.csv"), FIVE_MINUTES)?;
    let specs = GuestSpec::read(&folder().join("bitbrains-rnd-guests.csv"))?;
    for &cpu_cores in &args.cores {
        for &start in &args.starts {
            for seed in 1..=args.seeds {
                let hosts = Hosts {
                    count: 25,
                    cpu_cores,
                    memory_mib: 262_144,
                    bandwidth_mib_s: 1000.0,
                };
                let scenario = Scenario {
                    fleet: Fleet::of_trace(&trace, &specs, hosts, start, seed)?,
                    faults: args.faults,
                    policy: args.policy.clone(),
                    seconds: std::time::Duration::from_secs_f64(args.days * 86_400.0)
                        .as_secs()
                        .try_into()?,
                    tick_ms: 30_000,
                    seed,
                };
                println!("{cpu_cores} cores a host, {start:?} start");
                show(&scenario, args.svg.as_ref())?;
            }
        }
    }
    Ok(())
}

fn show(scenario: &Scenario, svg: Option<&PathBuf>) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let report = Report::of(scenario, &Strategy::ALL)?;
    print!("{}", report.to_text());
    println!(
        "{}   took {:.0} s\n",
        verdicts(&report),
        began.elapsed().as_secs_f64()
    );
    if let Some(file) = svg {
        std::fs::write(file, report.to_svg())?;
    }
    Ok(())
}

/// Each goal, and whether it is met.
fn verdicts(report: &Report) -> String {
    let Some(row) = report.row(Strategy::Evenkeel) else {
        return String::new();
    };
    let share = |to| report.loss_ratio(Strategy::Evenkeel, to).unwrap_or(0.0);
    let goals = [
        ("ping-pong 0", row.ping_pongs == 0),
        ("day one <= 0.3", row.moves_per_guest_day_first <= 0.3),
        ("later <= 0.03", row.moves_per_guest_day_later <= 0.03),
        (
            "<= 25 % of doing nothing",
            share(Strategy::DoNothing) <= 0.25,
        ),
        ("<= 1.5 x clairvoyant", share(Strategy::Clairvoyant) <= 1.5),
    ];
    let said = goals.map(|(goal, met)| format!("{goal}: {}", if met { "met" } else { "MISSED" }));
    said.join("   ")
}

impl Args {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut args = Self {
            days: 7.0,
            seeds: 1,
            cores: vec![16.0, 20.0, 24.0],
            starts: vec![Start::Skewed, Start::Balanced],
            faults: Faults::NONE,
            svg: None,
            policy: "schema = 1\n".to_owned(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--faults" {
                args.faults = Faults::BAD_WEEK;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--days" => args.days = value.parse()?,
                "--seeds" => args.seeds = value.parse()?,
                "--cores" => {
                    args.cores = value.split(',').map(str::parse).collect::<Result<_, _>>()?
                }
                "--start" => args.starts = vec![start(&value)?],
                "--policy" => args.policy = std::fs::read_to_string(value)?,
                "--svg" => args.svg = Some(value.into()),
                _ => return Err(format!("{word} is not known").into()),
            }
        }
        Ok(args)
    }
}

fn start(name: &str) -> Result<Start, String> {
    match name {
        "balanced" => Ok(Start::Balanced),
        "skewed" => Ok(Start::Skewed),
        "random" => Ok(Start::Random),
        _ => Err(format!("{name} is none of balanced, skewed, random")),
    }
}
