//! The plan: the `evenkeel.plan/1` format, and the closed sets of names in it.
//!
//! A plan is data. How it is found is in [`crate::planning`]; whether it holds is judged by [`crate::check`].

use serde::{Deserialize, Serialize};

use crate::policy::{UnknownName, named};

/// The value of `schema` that this version writes.
pub const SCHEMA: &str = "evenkeel.plan/1";

named! {
    /// Why a step is in a plan.
    StepReason {
        /// Its host's guests wait for CPU.
        RelieveCpu = "relieve_cpu",
        /// Its host's memory is short, or above its limit.
        RelieveMemory = "relieve_memory",
        /// Strategy `spread`: utilisation becomes more even.
        Spread = "spread",
        /// Strategy `consolidate`: a host becomes empty.
        Consolidate = "consolidate",
        /// Its host is being drained.
        Drain = "drain",
        /// A rule is broken where it is.
        RepairRule = "repair_rule",
        /// Another step needs the room.
        MakeRoom = "make_room",
        /// Somebody asked for it.
        Manual = "manual",
    }
}

named! {
    /// Why something is not moved, or not moved there.
    BlockReason {
        /// It cannot be migrated at all.
        Unmovable = "unmovable",
        /// A pin holds it where it is, or forbids the target.
        Pinned = "pinned",
        /// Its owner or the policy says never to move it.
        OptedOut = "opted_out",
        /// No placement fulfils the rule.
        RuleImpossible = "rule_impossible",
        /// Two rules contradict each other.
        RuleConflict = "rule_conflict",
        /// A rule forbids this target.
        RuleForbids = "rule_forbids",
        /// Memory, or the number of guests, is at its limit.
        NoCapacity = "no_capacity",
        /// The target's CPU class does not take it.
        IncompatibleCpu = "incompatible_cpu",
        /// The target lacks a network.
        MissingNetwork = "missing_network",
        /// The target cannot reach its storage.
        MissingStorage = "missing_storage",
        /// The target's agent refused it lately.
        Refused = "refused",
        /// It was moved a short time ago.
        CoolDown = "cool_down",
        /// It left this host a short time ago and does not return for gain.
        LeftLately = "left_lately",
        /// It dirties memory faster than the link can copy.
        NotConverging = "not_converging",
        /// What is known is too old or cannot be true.
        StaleData = "stale_data",
        /// Its UUID stands on two guests.
        DuplicateUuid = "duplicate_uuid",
        /// The host is silent.
        HostAbsent = "host_absent",
        /// The host takes no guests: cordoned or draining.
        HostClosed = "host_closed",
        /// It would save less than it costs.
        DoesNotPay = "does_not_pay",
        /// It is being migrated already.
        InFlight = "in_flight",
        /// It is shut off, and moving such guests was not asked for.
        ShutOff = "shut_off",
        /// The guest, or the host, is not in the snapshot, or not where it was.
        NotThere = "not_there",
        /// It is there already.
        AlreadyThere = "already_there",
        /// The limit of migrations at a time is reached, or the plan may have no more steps.
        MigrationLimit = "migration_limit",
    }
}

/// What to do, in which order, and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Eight hexadecimal digits that depend on the plan's content only.
    #[serde(default)]
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// Contention loss of the fleet as it is, guest-seconds per second.
    pub loss_before: f64,
    /// The same after the last step.
    pub loss_after: f64,
    /// Seconds over which a saving was weighed against its cost.
    #[serde(default)]
    pub horizon_seconds: f64,
    /// Standard deviation of the hosts' CPU utilisation, before.
    #[serde(default)]
    pub imbalance_before: f64,
    /// Standard deviation of the hosts' CPU utilisation, after.
    #[serde(default)]
    pub imbalance_after: f64,
    /// The migrations, by wave.
    pub steps: Vec<Step>,
    /// What stands in the way.
    pub blocked: Vec<Blocked>,
    /// The hosts that the plan changes, by name.
    #[serde(default)]
    pub hosts: Vec<HostChange>,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1. Steps of one wave may run side by side; waves run in order.
    pub wave: u32,
    /// The guest's name.
    pub guest: String,
    /// Its UUID, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Why.
    pub reason: StepReason,
    /// The deciding number in words.
    #[serde(default)]
    pub why: String,
    /// Contention saved from this step on, given the steps before it; negative when it costs contention.
    pub saves_guest_seconds_per_hour: f64,
    /// What guests lose by the migration itself: pause, brown-out, CPU taken from both hosts. Guest-seconds.
    pub costs_guest_seconds: f64,
    /// The policy's fixed price of a migration, guest-seconds; not part of `costs_guest_seconds`.
    #[serde(default)]
    pub price_guest_seconds: f64,
    /// Time from start to switch-over, s.
    pub copy_seconds: f64,
    /// Pause at switch-over, s.
    pub downtime_seconds: f64,
    /// Bytes over the link.
    pub bytes: u64,
    /// Steps (by their number in the plan, from 1) that must be done before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<usize>,
}

/// What is not done, and why. Names what it is about: a guest, a host, or rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Blocked {
    /// The guest's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The rule's full name, such as `anti_affinity.db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The named reason.
    pub reason: BlockReason,
    /// The number or name that decided.
    pub detail: String,
}

/// A host that a plan changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostChange {
    /// The host's name.
    pub host: String,
    /// Contention loss, guest-seconds per second.
    pub loss_before: f64,
    /// The same after the plan.
    pub loss_after: f64,
    /// CPU demand over cores.
    pub cpu_utilisation_before: f64,
    /// The same after the plan.
    pub cpu_utilisation_after: f64,
    /// Allocated memory over memory.
    pub memory_utilisation_before: f64,
    /// The same after the plan.
    pub memory_utilisation_after: f64,
}

impl Blocked {
    /// A guest that is not moved.
    #[must_use]
    pub fn guest(name: &str, reason: BlockReason, detail: impl Into<String>) -> Self {
        Self {
            guest: Some(name.to_owned()),
            host: None,
            rule: None,
            reason,
            detail: detail.into(),
        }
    }

    /// A host that is not helped.
    #[must_use]
    pub fn host(name: &str, reason: BlockReason, detail: impl Into<String>) -> Self {
        Self {
            guest: None,
            host: Some(name.to_owned()),
            rule: None,
            reason,
            detail: detail.into(),
        }
    }

    /// A rule that is not fulfilled.
    #[must_use]
    pub fn rule(name: &str, reason: BlockReason, detail: impl Into<String>) -> Self {
        Self {
            guest: None,
            host: None,
            rule: Some(name.to_owned()),
            reason,
            detail: detail.into(),
        }
    }
}

impl Plan {
    /// The plan as indented JSON, ending in a newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a plan that was written before.
    ///
    /// # Errors
    /// When the text is no such JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Sets `id` from the rest of the content (FNV-1a over its JSON, 32 bits).
    pub(crate) fn seal(&mut self) {
        self.id.clear();
        let text = serde_json::to_string(self).unwrap_or_default();
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.id = format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff);
    }
}
