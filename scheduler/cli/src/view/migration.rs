//! Migrations: `evenkeel.migrations/1` and `evenkeel.migration/1`.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{permille, some_text, some_time};

/// `evenkeel.migrations/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migrations {
    /// Always `evenkeel.migrations/1`.
    pub schema: &'static str,
    /// The migrations, newest last unless another order was asked for.
    pub migrations: Vec<Migration>,
}

/// `evenkeel.migration/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MigrationDetail {
    /// Always `evenkeel.migration/1`.
    pub schema: &'static str,
    /// The migration.
    pub migration: Migration,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The order stands, no agent has taken it up.
    Ordered,
    /// The target is being asked.
    Preparing,
    /// Memory is copied, the guest runs at the source.
    Running,
    /// The guest is being handed over, or the hosts are being asked.
    Switching,
    /// The hosts do not agree or do not answer.
    Unknown,
    /// The guest lives at the target.
    Done,
    /// It never started.
    Refused,
    /// It was cancelled, the guest lives at the source.
    Cancelled,
    /// It ended elsewhere than at the target.
    Failed,
    /// A phase that this version of the tool does not know.
    Newer,
}

impl Phase {
    /// Its fixed name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Switching => "switching",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Newer => "newer",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Refused | Self::Cancelled | Self::Failed
        )
    }
}

/// Who or what asked for a migration, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trigger {
    /// balance, repair, drain or manual.
    pub kind: String,
    /// The plan's name of the reason, such as `relieve_cpu`.
    pub reason: String,
    /// The reason in words and numbers.
    pub why: Option<String>,
    /// Who asked, such as `operator/alice`.
    pub by: Option<String>,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migration {
    /// Its id; null for a dry run.
    pub id: Option<String>,
    /// The guest's name.
    pub guest: String,
    /// The guest's UUID.
    pub guest_uuid: Option<String>,
    /// The host it leaves.
    pub source: String,
    /// The host it goes to.
    pub target: String,
    /// Where it stands; null for a dry run.
    pub phase: Option<Phase>,
    /// Why it was refused or failed, by name.
    pub outcome_reason: Option<String>,
    /// cancelled or deadline, once an abort was asked for.
    pub abort: Option<String>,
    /// Where the guest is, where that matters: source, target, both, nowhere, unsettled or unanswered.
    pub whereabouts: Option<String>,
    /// What was said by libvirt or a refusing agent.
    pub detail: Option<String>,
    /// Who asked, and why; null in a snapshot.
    pub trigger: Option<Trigger>,
    /// When it was ordered.
    pub created_at: Option<Timestamp>,
    /// When an agent took it up.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// It is aborted then.
    pub deadline: Option<Timestamp>,
    /// How far it is.
    pub progress: Option<Progress>,
    /// What the planner expected of it.
    pub prediction: Option<Prediction>,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// To be copied in the first round.
    pub total_bytes: u64,
    /// Copied so far; more than the total where memory was written again.
    pub transferred_bytes: u64,
    /// Still to be copied.
    pub remaining_bytes: u64,
    /// How fast the guest writes to its memory.
    pub dirty_bytes_per_second: u64,
    /// How fast it is copied.
    pub bandwidth_bytes_per_second: u64,
    /// Rounds over the memory.
    pub iteration: u32,
    /// How long the guest stood still; null until it is over.
    pub downtime_ms: Option<u64>,
    /// Since the start.
    pub elapsed_ms: u64,
}

/// What was expected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// What the fleet gains.
    pub saves_guest_seconds_per_hour: f64,
    /// What the migration itself costs, once.
    pub costs_guest_seconds: f64,
    /// How long it copies.
    pub copy_seconds: f64,
    /// How long the guest stands still.
    pub downtime_seconds: f64,
    /// What it copies.
    pub bytes: u64,
}

impl Migrations {
    /// A list of migrations.
    #[must_use]
    pub fn new(migrations: Vec<Migration>) -> Self {
        Self {
            schema: "evenkeel.migrations/1",
            migrations,
        }
    }
}

impl MigrationDetail {
    /// One migration.
    #[must_use]
    pub fn new(migration: Migration) -> Self {
        Self {
            schema: "evenkeel.migration/1",
            migration,
        }
    }
}

impl Migration {
    /// The first eight characters of its id: enough to tell migrations apart.
    #[must_use]
    pub fn short_id(&self) -> &str {
        let id = self.id.as_deref().unwrap_or("");
        id.get(..8).unwrap_or(id)
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase.is_some_and(Phase::is_over)
    }

    /// How much of it is copied, in thousandths; `None` before the copy has begun.
    #[must_use]
    pub fn copied_permille(&self) -> Option<u64> {
        let progress = self.progress.filter(|p| p.total_bytes > 0)?;
        if self.phase == Some(Phase::Done) {
            return Some(1000);
        }
        let copied = progress
            .total_bytes
            .saturating_sub(progress.remaining_bytes);
        Some(permille(copied, progress.total_bytes))
    }
}

impl From<v1::Migration> for Migration {
    fn from(migration: v1::Migration) -> Self {
        let state = migration.state.unwrap_or_default();
        Self {
            phase: Some(phase(&state)),
            outcome_reason: some_text(state.reason),
            abort: some_text(state.abort),
            whereabouts: some_text(state.whereabouts),
            detail: some_text(migration.detail),
            started_at: some_time(migration.started_at_ms),
            ended_at: some_time(migration.ended_at_ms),
            progress: migration.progress.map(Into::into),
            ..migration.order.unwrap_or_default().into()
        }
    }
}

impl From<v1::Order> for Migration {
    /// A migration that is only an order yet, or would be one.
    fn from(order: v1::Order) -> Self {
        let is_ordered = !order.id.is_empty();
        Self {
            id: some_text(order.id),
            guest: order.guest_name,
            guest_uuid: some_text(order.guest_uuid),
            source: order.source,
            target: order.target,
            phase: is_ordered.then_some(Phase::Ordered),
            outcome_reason: None,
            abort: None,
            whereabouts: None,
            detail: None,
            trigger: Some(Trigger {
                kind: order.trigger,
                reason: order.reason,
                why: some_text(order.why),
                by: some_text(order.by),
            }),
            created_at: some_time(order.created_at_ms),
            started_at: None,
            ended_at: None,
            deadline: some_time(order.deadline_ms),
            progress: None,
            prediction: order.prediction.map(Into::into),
        }
    }
}

fn phase(state: &v1::MigrationState) -> Phase {
    use v1::MigrationPhase as Wire;
    match state.phase() {
        Wire::Unspecified => Phase::Newer,
        Wire::Ordered => Phase::Ordered,
        Wire::Preparing => Phase::Preparing,
        Wire::Running => Phase::Running,
        Wire::Switching => Phase::Switching,
        Wire::Unknown => Phase::Unknown,
        Wire::Done => Phase::Done,
        Wire::Refused => Phase::Refused,
        Wire::Cancelled => Phase::Cancelled,
        Wire::Failed => Phase::Failed,
    }
}

impl From<v1::CopyProgress> for Progress {
    fn from(progress: v1::CopyProgress) -> Self {
        Self {
            total_bytes: progress.total_bytes,
            transferred_bytes: progress.transferred_bytes,
            remaining_bytes: progress.remaining_bytes,
            dirty_bytes_per_second: progress.dirty_bytes_per_second,
            bandwidth_bytes_per_second: progress.bandwidth_bytes_per_second,
            iteration: progress.iteration,
            downtime_ms: (progress.downtime_ms > 0).then_some(progress.downtime_ms),
            elapsed_ms: progress.elapsed_ms,
        }
    }
}

impl From<v1::Prediction> for Prediction {
    fn from(prediction: v1::Prediction) -> Self {
        Self {
            saves_guest_seconds_per_hour: prediction.saves_guest_seconds_per_hour,
            costs_guest_seconds: prediction.costs_guest_seconds,
            copy_seconds: prediction.copy_seconds,
            downtime_seconds: prediction.downtime_seconds,
            bytes: prediction.bytes,
        }
    }
}
