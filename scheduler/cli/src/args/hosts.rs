//! Flags of the verbs that take hosts out of service and put them back.

use std::time::Duration;

use clap::Args;

use super::{DryRun, duration};

/// Hosts by name; shared by the verbs.
#[derive(Debug, Args)]
pub struct HostNames {
    /// The hosts' names; * and ? stand for any characters
    #[arg(value_name = "HOST", required = true)]
    pub hosts: Vec<String>,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// Flags of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Which hosts.
    #[command(flatten)]
    pub names: HostNames,
    /// When it should be over, such as 30m or 2h from now; it goes on after that, and is told to be late
    /// [default: no matter when]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// Do not wait for the end
    #[arg(long)]
    pub detach: bool,
    /// End the drain: nothing more is started, what runs ends; the host is what it was before
    #[arg(long, conflicts_with_all = ["deadline", "detach", "offline_too"])]
    pub cancel: bool,
    /// Move shut-off guests, too; without it they stay and do not count
    #[arg(long)]
    pub offline_too: bool,
}

/// Flags of `roll`.
#[derive(Debug, Args)]
pub struct RollArgs {
    /// Which hosts, by name or pattern; may be given several times, or with commas
    #[arg(long, value_name = "HOSTS", required = true, value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// At most so many hosts out of service at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub max: u16,
    /// What to do with each host once it is drained, by sh(1); EVENKEEL_HOST is its name. It has to be over when the
    /// host is back
    #[arg(long, value_name = "COMMAND")]
    pub exec: String,
    /// For each host's drain, from its beginning [default: no matter how long]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// For the command, and again for the host to be healthy after it
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    pub timeout: Duration,
    /// Move shut-off guests, too
    #[arg(long)]
    pub offline_too: bool,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}
