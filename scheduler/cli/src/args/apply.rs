//! Flags of `apply`.

use clap::Args;

use super::DryRun;

/// Flags of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The first characters of the id of a plan that `evenkeel plan` showed lately, or the file of one; - for standard input
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Do not ask; needed when standard input is no terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Also while the fleet is paused
    #[arg(long)]
    pub override_pause: bool,
    /// Whether to change anything.
    #[command(flatten)]
    pub dry_run: DryRun,
}
