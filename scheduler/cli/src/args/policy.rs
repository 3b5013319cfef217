//! Verbs of `policy`.

use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;

use super::DryRun;

/// Verbs of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check a policy file: every fault with its place
    Check {
        /// The policy file; - for standard input
        file: PathBuf,
        /// Look for rules that this fleet cannot fulfil, too; - for standard input
        #[arg(long, value_name = "FILE")]
        snapshot: Option<PathBuf>,
    },
    /// Print the policy in force
    Show {
        /// Print this revision instead
        #[arg(long, value_name = "N", value_parser = revision())]
        revision: Option<u64>,
    },
    /// List the policies that were applied: when, by whom, why
    History,
    /// Show what a policy file would change
    Diff {
        /// The policy file; - for standard input
        file: PathBuf,
        /// Compare with this revision [default: the one in force]
        #[arg(long, value_name = "N", value_parser = revision())]
        revision: Option<u64>,
        /// Exit with 2 if anything would change
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Put a policy into force
    Apply {
        /// The policy file; - for standard input
        file: PathBuf,
        /// Only if this revision is in force [default: whichever is]
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
        /// Whether to change anything.
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Put an earlier policy into force again
    Rollback {
        /// Its revision; `policy history` lists them
        #[arg(value_name = "N", value_parser = revision())]
        revision: u64,
        /// Only if this revision is in force [default: whichever is]
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
        /// Whether to change anything.
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Revisions that were applied: 0 stands for the built-in policy.
fn revision() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..)
}
