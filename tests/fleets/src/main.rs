//! `fleets`: writes fleets of the seven families, and runs the comparisons over them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use evenkeel_fleets::case::{Case, Key};
use evenkeel_fleets::family::{Family, generate};
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
    #[arg(long, default_value = "target/quality")]
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

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Generate {
            family,
            hosts,
            seed,
            strategy,
            out,
        } => {
            let fleet = generate(family, hosts, seed);
            std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
            write(&out.join("snapshot.json"), &fleet.snapshot.to_json())?;
            write(&out.join("policy.toml"), &fleet.policy_text(strategy))
        }
        What::Cases(cases) => write_cases(&cases),
    }
}

fn write_cases(cases: &Cases) -> anyhow::Result<()> {
    std::fs::create_dir_all(&cases.dir).with_context(|| cases.dir.display().to_string())?;
    for key in cases.keys() {
        let case = Case::run(key)?;
        let file = cases.dir.join(format!("{key}.json"));
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

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
