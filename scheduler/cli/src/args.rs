//! The command line: verbs, flags and their help. Nothing is done here.

mod apply;
mod events;
mod hosts;
mod place;
mod policy;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::Styles;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Address;

pub use apply::ApplyArgs;
pub use events::EventsArgs;
pub use hosts::{DrainArgs, HostNames, RollArgs};
pub use place::PlaceArgs;
pub use policy::PolicyCommand;

/// Steers and watches Evenkeel, the load balancer of a libvirt fleet.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    styles = Styles::plain(),
    after_help = "Data goes to standard output, everything else to standard error. \
                  Any scheduler answers; changes are carried out by the leader."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Client configuration [default: ~/.config/evenkeel.toml, then /etc/evenkeel/evenkeel.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "EVENKEEL_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// Ask this scheduler instead of those in the configuration
    #[arg(long, global = true, value_name = "ADDR")]
    pub scheduler: Option<Address>,
    /// How to print the answer [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,
    /// No colours, also on a terminal; so does the variable NO_COLOR
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Why this is changed; recorded with the change
    #[arg(long, global = true, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For programs: one versioned document
    Json,
    /// Names or ids only, one a line
    Name,
}

/// Everything the tool can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Leader, mode, loss, hosts, running migrations and what holds the balancer back
    Status(StatusArgs),
    /// The fleet on one screen, live: hosts as bars, migrations, the plan and what is not moved
    Top {
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
    /// List the hosts
    Hosts(ListArgs<HostColumn>),
    /// List the guests
    Guests(ListArgs<GuestColumn>),
    /// List migrations, open and remembered ones, newest last
    Migrations(MigrationsArgs),
    /// List what has happened, who did it and why, newest last
    Events(EventsArgs),
    /// One host
    #[command(subcommand)]
    Host(ShowHost),
    /// One guest
    #[command(subcommand)]
    Guest(ShowGuest),
    /// One migration
    #[command(subcommand)]
    Migration(ShowMigration),
    /// What the balancer would do now and what that is worth; nothing is moved
    Plan(PlanArgs),
    /// Carry out exactly that plan, wave by wave; refused when the fleet has moved on
    ///
    /// The tool orders the moves and follows them. Ctrl-C detaches: what was ordered goes on, later waves are not begun.
    Apply(ApplyArgs),
    /// Why something is moved or not: for each other host the number or rule that decided
    #[command(subcommand)]
    Explain(ExplainCommand),
    /// The best host for a guest that is to be made, and what each other host would lose by it
    Place(PlaceArgs),
    /// Play hours or days on a snapshot: what doing nothing, the balancer and a clairvoyant would lose
    Simulate(SimulateArgs),
    /// Show or set what the balancer does by itself
    Mode(ModeArgs),
    /// Start no new migrations until the pause is over
    Pause(PauseArgs),
    /// End the pause
    Resume(DryRun),
    /// Migrate one guest now and follow it; Ctrl-C detaches and never cancels
    Migrate(MigrateArgs),
    /// Abort a migration; the guest stays where it is
    Cancel(CancelArgs),
    /// Let hosts take no new guests; those that are there stay
    Cordon(HostNames),
    /// Let hosts take guests again, and end their drains
    Uncordon(HostNames),
    /// Migrate all guests off hosts and follow that; Ctrl-C detaches and never cancels
    Drain(DrainArgs),
    /// Drain hosts in turn, run a command for each, and put it back when it is healthy; stops at the first failure
    Roll(RollArgs),
    /// Check schedulers, hosts, versions, disk locks and your certificate, and say what would mend them
    ///
    /// It knows what the schedulers know, and no more: hosts' clocks are not compared, nor is looked at disks or networks.
    Doctor,
    /// Print the fleet as it is now, as a document that offline commands read
    Snapshot,
    /// Check and apply policies
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where to read.
    #[command(flatten)]
    pub source: Source,
    /// How long to look.
    #[command(flatten)]
    pub watch: Watch,
}

/// Whether to go on looking.
#[derive(Debug, Clone, Copy, Args)]
pub struct Watch {
    /// Look again every 2 s: redraw on a terminal, print what has changed elsewhere
    #[arg(short, long)]
    pub watch: bool,
}

/// Live from the schedulers, or from a file.
#[derive(Debug, Clone, Default, Args)]
pub struct Source {
    /// Read this snapshot instead of asking a scheduler; - for standard input
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// The policy that goes with the snapshot [default: the built-in one]
    #[arg(long, value_name = "FILE", requires = "snapshot")]
    pub policy: Option<PathBuf>,
}

/// Flags of `hosts` and `guests`.
#[derive(Debug, Args)]
pub struct ListArgs<C: ValueEnum + Clone + Send + Sync + 'static> {
    /// Where to read.
    #[command(flatten)]
    pub source: Source,
    /// How long to look.
    #[command(flatten)]
    pub watch: Watch,
    /// Order by this column: numbers from the highest, words from A
    #[arg(long, value_name = "COLUMN", value_enum)]
    pub sort: Option<C>,
    /// Only those with this label; all of several must match
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

/// Flags of `migrations`.
#[derive(Debug, Args)]
pub struct MigrationsArgs {
    /// Where to read.
    #[command(flatten)]
    pub source: Source,
    /// How long to look.
    #[command(flatten)]
    pub watch: Watch,
    /// Order by this column: numbers from the highest, words from A
    #[arg(long, value_name = "COLUMN", value_enum)]
    pub sort: Option<MigrationColumn>,
    /// Only those that are not over
    #[arg(long)]
    pub open: bool,
}

/// What hosts can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostColumn {
    /// Its name
    Name,
    /// Its state
    State,
    /// CPU demand over cores
    Cpu,
    /// Memory allocated over memory
    Memory,
    /// Share of time in which something waited for CPU
    Stalled,
    /// Guest-seconds lost per second
    Loss,
    /// Number of guests
    Guests,
}

/// What guests can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuestColumn {
    /// Its name
    Name,
    /// The host it is on
    Host,
    /// Its state
    State,
    /// CPU demand, cores
    Cpu,
    /// Memory
    Memory,
    /// Rate at which it dirties memory
    Dirty,
}

/// What migrations can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrationColumn {
    /// The guest's name
    Guest,
    /// The host it leaves
    From,
    /// The host it goes to
    To,
    /// The phase
    Phase,
    /// When it was ordered
    Started,
    /// How long it took
    Took,
}

/// Verbs of `host`.
#[derive(Debug, Subcommand)]
pub enum ShowHost {
    /// Show a host and its guests
    Show {
        /// The host's name
        #[arg(value_name = "HOST")]
        name: String,
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
}

/// Verbs of `guest`.
#[derive(Debug, Subcommand)]
pub enum ShowGuest {
    /// Say where a guest is whose migration's outcome is unknown; its migration is then closed
    ///
    /// Both hosts are asked once more: a host that answers and denies it keeps the migration open.
    Resolve(ResolveArgs),
    /// Show a guest and its migrations
    Show {
        /// The guest's name, host/name or UUID
        #[arg(value_name = "GUEST")]
        name: String,
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
}

/// Flags of `guest resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The guest's name, host/name or UUID, or the first characters of the migration's id
    #[arg(value_name = "GUEST")]
    pub guest: String,
    /// The host on which it is: where it came from or where it was to go
    #[arg(
        long,
        value_name = "HOST",
        required_unless_present = "gone",
        conflicts_with = "gone"
    )]
    pub host: Option<String>,
    /// It runs nowhere any more
    #[arg(long)]
    pub gone: bool,
    /// Destroy the half that the migration has left paused on the host it came from
    #[arg(long, conflicts_with = "gone")]
    pub discard_source: bool,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Verbs of `migration`.
#[derive(Debug, Subcommand)]
pub enum ShowMigration {
    /// Show a migration
    Show {
        /// Its id, or the first characters of it
        #[arg(value_name = "MIGRATION")]
        id: String,
    },
}

/// Flags of `plan`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PlanArgs {
    /// `plan show`.
    #[command(subcommand)]
    pub command: Option<ShowPlan>,
    /// Where to read.
    #[command(flatten)]
    pub source: Source,
    /// At most so many moves [default: as many as pay]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_moves: Option<u32>,
    /// Write the plan to this file, too
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit with 2 when the plan has moves
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// Verbs of `plan`.
#[derive(Debug, Subcommand)]
pub enum ShowPlan {
    /// Show a plan that was written with --out
    Show {
        /// The plan's file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Verbs of `explain`.
#[derive(Debug, Subcommand)]
pub enum ExplainCommand {
    /// Where a guest goes or why it stays, host by host
    Guest {
        /// The guest's name, host/name or UUID
        #[arg(value_name = "GUEST")]
        name: String,
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
    /// What a host loses, who leaves and comes, and why the others stay
    Host {
        /// The host's name
        #[arg(value_name = "HOST")]
        name: String,
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
    /// One guest on one host, with all numbers
    Move {
        /// The guest's name, host/name or UUID
        #[arg(value_name = "GUEST")]
        guest: String,
        /// The other host [default: where the plan brings it, or the best there is]
        #[arg(value_name = "HOST")]
        target: Option<String>,
        /// Where to read.
        #[command(flatten)]
        source: Source,
    },
}

/// Flags of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The fleet at the start
    #[arg(long, value_name = "FILE")]
    pub snapshot: PathBuf,
    /// The policy, its mode taken for automatic [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// How much virtual time, such as 6h or 7d
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1d")]
    pub duration: Duration,
    /// Two runs of one seed are the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Recorded load (CSV: a guest and its samples in per cent, every 5 min, a line) whose ups and downs the guests
    /// follow at their own means [default: their demand stays as it is, give or take its deviation]
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Lose hosts, reports, agents and migrations as in a bad week
    #[arg(long)]
    pub faults: bool,
    /// Draw loss and moves over time into this file, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// What the balancer may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing: neither moves nor recommends
    Off,
    /// Recommend only
    Observe,
    /// Carry out what pays
    Automatic,
}

impl Mode {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Automatic => "automatic",
        }
    }
}

/// Flags of `mode`.
#[derive(Debug, Args)]
pub struct ModeArgs {
    /// The new mode; without it the present one is printed
    #[arg(value_enum)]
    pub mode: Option<Mode>,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Whether to change anything.
#[derive(Debug, Clone, Copy, Args)]
pub struct DryRun {
    /// Ask whether it could be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// How long, such as 90s, 30m, 2h or 1d [default: until resumed]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// How local disks are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CopyStorage {
    /// All of their contents.
    Whole,
    /// What lies above a backing image that the target has already.
    Inc,
}

/// Flags of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The guest's name, host/name or UUID
    pub guest: String,
    /// Where to [default: the best host]
    #[arg(long, value_name = "HOST")]
    pub to: Option<String>,
    /// The guest is shut off: move its definition, and its disks if they are copied
    #[arg(long)]
    pub offline: bool,
    /// Copy disks that only its host reaches: whole, or only what lies above a backing image that the target has
    #[arg(
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "whole"
    )]
    pub copy_storage: Option<CopyStorage>,
    /// Also while the fleet is paused
    #[arg(long)]
    pub override_pause: bool,
    /// Do not wait for the end
    #[arg(long)]
    pub detach: bool,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Flags of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Its id, or the first characters of it
    #[arg(value_name = "MIGRATION")]
    pub id: String,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("expected a few words".to_owned());
    }
    Ok(text.to_owned())
}

/// Seconds, minutes, hours or days: a number and `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a whole number and s, m, h or d, such as 2h".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(expected)?;
    let number: u64 = text[..digits].parse().map_err(|_| expected())?;
    let unit = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let seconds = number
        .checked_mul(unit)
        .filter(|s| *s > 0)
        .ok_or_else(expected)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_need_a_unit_and_mean_something() {
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in [
            "",
            "2",
            "h",
            "0s",
            "-1s",
            "1.5h",
            "1w",
            "99999999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("rack=r1"), Ok(("rack".into(), "r1".into())));
        assert_eq!(label("rack="), Ok(("rack".into(), String::new())));
        assert!(label("rack").is_err());
        assert!(label("=r1").is_err());
    }
}
