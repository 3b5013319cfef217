//! The `evenkeel.explain/1` document.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HostReport, Rejection};
use crate::plan::{BlockReason, Blocked, Step};

/// The value of `schema` that this version writes.
pub const SCHEMA: &str = "evenkeel.explain/1";

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A guest: where it could go, and why it does or does not.
    Guest {
        /// Its name or UUID.
        name: String,
    },
    /// A host: what it loses, who comes and goes, and why the others stay.
    Host {
        /// Its name.
        name: String,
    },
    /// One guest on one host.
    Move {
        /// The guest's name or UUID.
        guest: String,
        /// Where to; none means where the plan brings it, or the best there is.
        target: Option<String>,
    },
}

/// The answer to a question.
///
/// Candidates are judged as the search judges: with all other steps of the plan carried out and the guest where
/// it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The cluster's name.
    pub cluster: String,
    /// When the values were true.
    pub taken_at: Timestamp,
    /// What was asked about.
    pub about: Subject,
    /// The plan that the fleet would get now.
    pub plan: PlanFrame,
    /// The host, when a host was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostExplanation>,
    /// The guest asked about, or those on the host, by name.
    pub guests: Vec<GuestExplanation>,
}

/// The plan behind an explanation, and what it asks of a move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFrame {
    /// The plan's id.
    pub id: String,
    /// Number of steps.
    pub steps: usize,
    /// Contention loss of the fleet as it is, guest-seconds per second.
    pub loss_before: f64,
    /// The same after the last step.
    pub loss_after: f64,
    /// Seconds within which a move has to pay.
    pub horizon_seconds: f64,
    /// How many times its cost (price included) a move has to save within the horizon.
    pub payback_factor: f64,
}

/// A host before and after the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostExplanation {
    /// The host's name.
    pub host: String,
    /// `active`, `cordoned`, `draining` or `absent`.
    pub state: String,
    /// CPU offered to guests, cores.
    pub cpu_cores: f64,
    /// Memory offered to guests, MiB.
    pub memory_mib: u64,
    /// As it is.
    pub before: HostReport,
    /// After the plan's last step.
    pub after: HostReport,
    /// The plan's steps from or to it, in order.
    pub moves: Vec<MoveExplanation>,
    /// What the plan says stands in the way here.
    pub blocked: Vec<Blocked>,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The plan does it.
    Planned,
    /// It would pay by itself, and is not in the plan: the guest is held, or the plan has no more steps.
    Pays,
    /// It is possible, but saves too little for what it costs.
    DoesNotPay,
    /// A rule, a limit or a lack forbids it.
    Impossible,
}

/// A guest, and what each host would mean for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestExplanation {
    /// The guest's name.
    pub guest: String,
    /// Its UUID, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Where it is, or is on its way to.
    pub host: String,
    /// Guests that a must-affinity moves together with it; the candidates' numbers are for all of them in sum.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves_with: Vec<String>,
    /// Why it is not moved for gain, whatever the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Rejection>,
    /// Its steps in the plan; more than one when it makes a detour.
    pub moves: Vec<MoveExplanation>,
    /// Where it could go: the planned target first, then the best.
    pub candidates: Vec<Candidate>,
    /// How many hosts are refused for which reason, those included that `candidates` leaves out.
    pub rejected: Vec<RejectedCount>,
    /// Hosts that `candidates` leaves out.
    pub hosts_left_out: usize,
}

/// Hosts that are refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedCount {
    /// The reason.
    pub reason: BlockReason,
    /// How many hosts.
    pub hosts: usize,
}

/// A step of the plan, with all that it changes when its turn has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MoveExplanation {
    /// Its number in the plan, from 1.
    pub number: usize,
    /// The step itself.
    pub step: Step,
    /// The host that it leaves.
    pub source: HostEffect,
    /// The host that it goes to.
    pub target: HostEffect,
    /// What it costs.
    pub cost: CostReport,
    /// Time until its own saving has paid its cost, s; none when it saves nothing by itself.
    pub payback_seconds: Option<f64>,
    /// The best other host, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<RunnerUp>,
}

/// The best host that was not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// The host.
    pub host: String,
    /// By how much it is worse within the horizon, guest-seconds. Negative: it looks better, but within the error
    /// of the estimate, or the order of the steps did not allow it.
    pub worse_guest_seconds: f64,
}

/// One host that a guest could go to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The host.
    pub host: String,
    /// With all other steps of the plan carried out.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// As the fleet is now, where that reads differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_plan: Option<Judgement>,
}

/// Whether a move is worth it, and why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// In one word.
    pub verdict: Verdict,
    /// The first rule that forbids it, or that it does not pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejection>,
    /// What it would do; none where it is impossible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The host that is left.
    pub source: HostEffect,
    /// The host that is gone to.
    pub target: HostEffect,
    /// Contention of both hosts before, guest-seconds per second.
    pub loss_before: f64,
    /// The same after.
    pub loss_after: f64,
    /// Contention saved, guest-seconds per hour.
    pub saves_guest_seconds_per_hour: f64,
    /// All that is saved within the horizon, guest-seconds: contention, the strategy's term and `should` rules.
    pub gain_guest_seconds: f64,
    /// What has to be saved within the horizon, guest-seconds: the cost times the payback factor.
    pub needed_guest_seconds: f64,
    /// Standard error of the gain, guest-seconds. A gain below two of them is not believed.
    pub error_guest_seconds: f64,
    /// Gain less what is needed, guest-seconds: what candidates are ranked by.
    pub score_guest_seconds: f64,
    /// What it costs.
    pub cost: CostReport,
    /// Time until the gain has paid the cost, s; none when it never does.
    pub payback_seconds: Option<f64>,
    /// Time from start to switch-over, s; of several guests the sum.
    pub copy_seconds: f64,
    /// Pause at switch-over, s; of several guests the longest.
    pub downtime_seconds: f64,
    /// Bytes over the link.
    pub bytes: u64,
}

/// One end of a move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostEffect {
    /// The host.
    pub host: String,
    /// Contention for CPU, guest-seconds per second.
    pub cpu_loss_before: f64,
    /// The same after.
    pub cpu_loss_after: f64,
    /// Loss for want of memory, guest-seconds per second.
    pub memory_loss_before: f64,
    /// The same after.
    pub memory_loss_after: f64,
    /// Mean CPU demand of its guests, cores.
    pub demand_cores_before: f64,
    /// The same after.
    pub demand_cores_after: f64,
    /// CPU that it offers, cores.
    pub cpu_cores: f64,
    /// Memory allocated to its guests, MiB.
    pub memory_mib_before: i64,
    /// The same after.
    pub memory_mib_after: i64,
    /// Memory that it offers, MiB.
    pub memory_mib: u64,
}

impl HostEffect {
    /// Contention before, guest-seconds per second.
    #[must_use]
    pub fn loss_before(&self) -> f64 {
        self.cpu_loss_before + self.memory_loss_before
    }

    /// Contention after, guest-seconds per second.
    #[must_use]
    pub fn loss_after(&self) -> f64 {
        self.cpu_loss_after + self.memory_loss_after
    }
}

impl MoveExplanation {
    /// Contention of both hosts before the step, guest-seconds per second.
    #[must_use]
    pub fn loss_before(&self) -> f64 {
        self.source.loss_before() + self.target.loss_before()
    }

    /// The same after it.
    #[must_use]
    pub fn loss_after(&self) -> f64 {
        self.source.loss_after() + self.target.loss_after()
    }
}

/// What a migration costs, guest-seconds each.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct CostReport {
    /// The pause at switch-over.
    pub pause: f64,
    /// Running slower while it is copied.
    pub brown_out: f64,
    /// CPU that copying takes from guests of the two hosts.
    pub copy_cpu: f64,
    /// The policy's fixed price.
    pub price: f64,
    /// All of it.
    pub total: f64,
}
