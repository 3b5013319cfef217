//! What a changing command has done: small documents, one per verb.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{Migration, Pause, some_text, some_time};

/// `evenkeel.mode/1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModeChange {
    /// Always `evenkeel.mode/1`.
    pub schema: &'static str,
    /// The mode now.
    pub mode: String,
    /// The mode before; null when it was only asked for.
    pub previous: Option<String>,
    /// Revision of the policy that holds it.
    pub policy_revision: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// `evenkeel.pause/1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseChange {
    /// Always `evenkeel.pause/1`.
    pub schema: &'static str,
    /// The pause now; null: none.
    pub pause: Option<Pause>,
    /// Whether the fleet was paused before `resume`; null for `pause`.
    pub was_paused: Option<bool>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// `evenkeel.migration_change/1`: a migration that was ordered or cancelled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MigrationChange {
    /// Always `evenkeel.migration_change/1`.
    pub schema: &'static str,
    /// The migration.
    pub migration: Migration,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// `evenkeel.resolved/1`: a guest of which an operator has said where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolved {
    /// Always `evenkeel.resolved/1`.
    pub schema: &'static str,
    /// The migration that was closed.
    pub migration: Migration,
    /// Where the guest is said to be; null: nowhere.
    pub host: Option<String>,
    /// What the hosts said, and what was done.
    pub said: String,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// `evenkeel.policy_applied/1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyApplied {
    /// Always `evenkeel.policy_applied/1`.
    pub schema: &'static str,
    /// The revision that was in force before.
    pub previous_revision: u64,
    /// The revision in force now.
    pub policy_revision: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// `evenkeel.policy_history/1`: policies that were applied and are kept, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyHistory {
    /// Always `evenkeel.policy_history/1`.
    pub schema: &'static str,
    /// Those.
    pub policies: Vec<PolicyRevision>,
}

/// A policy that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyRevision {
    /// Its revision.
    pub policy_revision: u64,
    /// Whether it is the newest: the one in force, unless that cannot be read.
    pub active: bool,
    /// When it was applied.
    pub applied_at: Option<Timestamp>,
    /// Who applied it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// `evenkeel.policy_diff/1`: what a file would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyDiff {
    /// Always `evenkeel.policy_diff/1`.
    pub schema: &'static str,
    /// What it was compared with.
    pub policy_revision: u64,
    /// The file.
    pub file: String,
    /// Whether anything differs.
    pub differs: bool,
    /// The difference, in the unified format; empty: none.
    pub diff: String,
}

/// `evenkeel.policy_check/1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyCheck {
    /// Always `evenkeel.policy_check/1`.
    pub schema: &'static str,
    /// The file.
    pub file: String,
    /// What is wrong with it; empty: nothing.
    pub faults: Vec<PolicyFault>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<PolicyFault>,
    /// Rules that the fleet of `--snapshot` cannot fulfil.
    pub unfulfilled: Vec<UnfulfilledRule>,
}

/// A rule that a fleet cannot fulfil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnfulfilledRule {
    /// Line of its table, from 1.
    pub line: usize,
    /// Its full name, such as `anti_affinity.db`.
    pub rule: String,
    /// `rule_impossible` or `rule_conflict`.
    pub reason: String,
    /// Why, with the other rule's name where there is one.
    pub detail: String,
}

/// `evenkeel.policy/1`: the policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyShown {
    /// Always `evenkeel.policy/1`.
    pub schema: &'static str,
    /// Its revision; 0: nothing was ever applied.
    pub policy_revision: u64,
    /// Its text.
    pub text: String,
    /// What is wrong with the newest one in etcd, when that is not the one in force; else null.
    pub fault: Option<String>,
}

/// One fault of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyFault {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Other places that it is about, such as the rule that is contradicted.
    pub related: Vec<PolicyPlace>,
}

/// A place of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyPlace {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What stands there.
    pub what: String,
}

impl ModeChange {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.mode/1";
}

impl PauseChange {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.pause/1";
}

impl MigrationChange {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.migration_change/1";
}

impl Resolved {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.resolved/1";
}

impl PolicyApplied {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.policy_applied/1";
}

impl PolicyHistory {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.policy_history/1";
}

impl PolicyDiff {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.policy_diff/1";
}

impl From<v1::GetPolicyHistoryReply> for PolicyHistory {
    fn from(reply: v1::GetPolicyHistoryReply) -> Self {
        let records = reply.records.into_iter();
        let policies = records.map(|record| PolicyRevision {
            policy_revision: record.revision,
            active: record.revision == reply.active,
            applied_at: some_time(record.applied_at_ms),
            by: some_text(record.author),
            reason: some_text(record.reason),
        });
        Self {
            schema: Self::SCHEMA,
            policies: policies.collect(),
        }
    }
}

impl PolicyShown {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.policy/1";
}

impl PolicyCheck {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.policy_check/1";
}
