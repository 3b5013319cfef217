//! `fleets`: writes fleets of the seven families, and runs the comparisons over them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use evenkeel_fleets::case::{Case, Key};
use evenkeel_fleets::document;
use evenkeel_fleets::family::{Family, generate_with};
use evenkeel_fleets::quality::{self, Comparison};
use evenkeel_fleets::search::TRIALS_PER_GUEST;
use evenkeel_fleets::speed::{self, Effort, Measured};
use evenkeel_planner::Strategy;

/// Seeded fleets, and what they show of the planner.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write a fleet as snapshot.json and policy.toml, for `evenkeel plan` and for others.
    Generate {
        /// Kind of fleet.
        #[arg(long)]
        family: Family,
        /// Number of hosts, at least 3.
        #[arg(long)]
        hosts: usize,
        /// Guests on every host that has any; 15 to 20 when not given.
        #[arg(long)]
        guests: Option<usize>,
        /// Seed: the same one gives the same fleet.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Strategy in the policy.
        #[arg(long, default_value = "contention")]
        strategy: Strategy,
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Plan every comparison's fleet and write the cases for exact.py.
    Cases(Cases),
    /// Put what exact.py has found into a file of bounds.
    Record {
        /// Folder of the cases and of what exact.py wrote beside them.
        #[arg(long, default_value = CASES)]
        dir: PathBuf,
        /// File to write.
        #[arg(long, default_value = BOUNDS)]
        bounds: PathBuf,
    },
    /// Plan the fleets whose bounds are known, print tables, and fail where a goal is missed.
    Quality {
        /// File of bounds.
        #[arg(long, default_value = BOUNDS)]
        bounds: PathBuf,
        /// Print every comparison, not only groups of them.
        #[arg(long)]
        each: bool,
        /// Write the tables into this file too, between its markers.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Measure time, work and memory of planning, print a table, and fail where a limit is missed.
    Speed {
        /// Numbers of hosts.
        #[arg(long, value_delimiter = ',', default_value = "50,200,1000,5000")]
        sizes: Vec<usize>,
        #[command(flatten)]
        effort: EffortArguments,
        /// Write the table into this file too, between its markers.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Measure one size, in this process, and print JSON. Called by `speed`.
    #[command(hide = true)]
    Measure {
        /// Number of hosts.
        #[arg(long)]
        hosts: usize,
        #[command(flatten)]
        effort: EffortArguments,
    },
}

/// How a size is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
struct EffortArguments {
    /// Plans to make of each fleet; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of the long search to compare the loss with; 0 leaves it out.
    #[arg(long, default_value_t = 60)]
    long_seconds: u32,
}

/// Which comparisons.
#[derive(Debug, clap::Args)]
struct Cases {
    /// Kinds of fleet; all when none is given.
    #[arg(long, value_delimiter = ',')]
    families: Vec<Family>,
    /// Numbers of hosts.
    #[arg(long, value_delimiter = ',', default_value = "5,10,20")]
    sizes: Vec<usize>,
    /// Seeds, from 1.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Strategies.
    #[arg(long, value_delimiter = ',', default_value = "contention,spread")]
    strategies: Vec<Strategy>,
    /// Folder to write to.
    #[arg(long, default_value = CASES)]
    dir: PathBuf,
}

impl Cases {
    fn keys(&self) -> Vec<Key> {
        let families = if self.families.is_empty() {
            &Family::ALL[..]
        } else {
            &self.families
        };
        let mut keys = Vec::new();
        for &family in families {
            for &hosts in &self.sizes {
                for seed in 1..=self.seeds {
                    keys.extend(self.strategies.iter().map(|&strategy| Key {
                        family,
                        hosts,
                        seed,
                        strategy,
                    }));
                }
            }
        }
        keys
    }
}

/// Where cases are kept.
const CASES: &str = "target/quality";
/// What is known of the families' fleets.
const BOUNDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bounds.json");

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().what {
        What::Generate {
            family,
            hosts,
            guests,
            seed,
            strategy,
            out,
        } => {
            let fleet = generate_with(family, hosts, seed, guests);
            std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
            write(&out.join("snapshot.json"), &fleet.snapshot.to_json())?;
            write(&out.join("policy.toml"), &fleet.policy_text(strategy))?;
        }
        What::Cases(cases) => write_cases(&cases)?,
        What::Record { dir, bounds } => {
            let known = solved(&dir)?
                .into_iter()
                .map(|key| quality::known(&dir, key))
                .collect::<anyhow::Result<Vec<_>>>()?;
            write(&bounds, &quality::text(&known)?)?;
        }
        What::Quality { bounds, each, into } => return compare(&bounds, each, into.as_deref()),
        What::Speed {
            sizes,
            effort,
            into,
        } => return speed_of(&sizes, effort, into.as_deref()),
        What::Measure { hosts, effort } => {
            let effort = Effort {
                runs: effort.runs.max(1),
                long_seconds: effort.long_seconds,
            };
            let measured = serde_json::to_string(&speed::measure(hosts, effort)?)?;
            writeln!(std::io::stdout(), "{measured}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_cases(cases: &Cases) -> anyhow::Result<()> {
    std::fs::create_dir_all(&cases.dir).with_context(|| cases.dir.display().to_string())?;
    for key in cases.keys() {
        let file = cases.dir.join(format!("{key}.json"));
        let known = std::fs::read_to_string(&file).ok();
        let known = known.and_then(|text| serde_json::from_str(&text).ok());
        let case = Case::run(key, known, TRIALS_PER_GUEST)?;
        write(&file, &serde_json::to_string(&case)?)?;
        let line = format!(
            "{key:40} start {:9.1} greedy {:9.1} ours {:9.1} annealed {:9.1}",
            case.start.objective,
            case.greedy.objective,
            case.ours.objective,
            case.annealed.objective
        );
        writeln!(std::io::stderr(), "{line}")?;
    }
    Ok(())
}

/// The comparisons that exact.py has solved, in order.
fn solved(dir: &Path) -> anyhow::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name();
        if let Some(key) = name.to_string_lossy().strip_suffix(".exact.json") {
            keys.push(key.parse()?);
        }
    }
    keys.sort();
    Ok(keys)
}

fn compare(bounds: &Path, each: bool, into: Option<&Path>) -> anyhow::Result<ExitCode> {
    let known = quality::read(bounds)?;
    let comparisons: Vec<Comparison> = known
        .iter()
        .map(Comparison::run)
        .collect::<anyhow::Result<_>>()?;
    let mut out = std::io::stdout().lock();
    for c in comparisons.iter().filter(|_| each) {
        writeln!(
            out,
            "{:40} bound {:9.1} best {:9.1} ours {:9.1} gap {:6.2} % over best {:6.2} %{}",
            c.known.key,
            c.known.bound,
            c.known.best,
            c.ours,
            100.0 * c.gap(),
            100.0 * c.over_best().unwrap_or(0.0),
            if c.known.proven { ", proven" } else { "" }
        )?;
    }
    let (table, summary) = (quality::table(&comparisons), quality::summary(&comparisons));
    let text = format!(
        "{summary}
{table}"
    );
    writeln!(out, "{text}")?;
    if let Some(file) = into {
        document::fill(file, "quality", &text)?;
    }
    let missed = quality::missed(&comparisons);
    verdict(&mut out, &missed)
}

fn speed_of(
    sizes: &[usize],
    effort: EffortArguments,
    into: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut all: Vec<Measured> = Vec::new();
    for hosts in sizes {
        let done = std::process::Command::new(std::env::current_exe()?)
            .args(["measure", "--hosts", &hosts.to_string()])
            .args(["--runs", &effort.runs.to_string()])
            .args(["--long-seconds", &effort.long_seconds.to_string()])
            .stderr(std::process::Stdio::inherit())
            .output()?;
        ensure!(
            done.status.success(),
            "measuring {hosts} hosts: {}",
            done.status
        );
        all.push(serde_json::from_slice(&done.stdout)?);
    }
    let missed: Vec<String> = all.iter().flat_map(Measured::missed).collect();
    let mut out = std::io::stdout().lock();
    let table = speed::table(&all);
    writeln!(out, "{table}")?;
    if let Some(file) = into {
        document::fill(file, "speed", &table)?;
    }
    verdict(&mut out, &missed)
}

/// Names what was missed; the exit code says whether anything was.
fn verdict(out: &mut impl std::io::Write, missed: &[String]) -> anyhow::Result<ExitCode> {
    for goal in missed {
        writeln!(out, "missed: {goal}")?;
    }
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
