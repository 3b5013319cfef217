//! Whether a plan that was made earlier can still be carried out exactly as it stands.

use crate::check::{ViolationKind, carried_out, check};
use crate::loss::fleet_loss;
use crate::plan::{Plan, Step, StepReason};
use crate::policy::Policy;
use crate::snapshot::Snapshot;

/// Why a plan cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Stale {
    /// Only that as much is being migrated as the policy allows: that passes.
    #[error("step {step}: {detail}")]
    Busy {
        /// Number of the step, from 1.
        step: usize,
        /// The limit.
        detail: String,
    },
    /// The fleet has moved on.
    #[error("step {step}: {detail}")]
    Broken {
        /// Number of the step, from 1; 0: the plan as a whole.
        step: usize,
        /// Names and numbers.
        detail: String,
    },
    /// It would cost more than it still saves.
    #[error("it would save {saves:.0} guest-seconds within {horizon:.0} s, and costs {costs:.0}")]
    NotWorthIt {
        /// Guest-seconds that it still saves within the horizon.
        saves: f64,
        /// Guest-seconds that its migrations cost, their price included.
        costs: f64,
        /// Seconds over which the plan weighed the one against the other.
        horizon: f64,
    },
}

/// Judges a plan, or what is left of one, on a fresh snapshot: every guest where the plan says, every wave within rules,
/// room and limits, and, of a plan that is for gain alone, more saved than it costs.
///
/// # Errors
/// The first thing that speaks against it; what passes by itself last.
pub fn still_good(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Result<(), Stale> {
    let left = from_first_wave(plan);
    let found = check(snapshot, policy, &left);
    let mut busy = None;
    for violation in found {
        let (step, detail) = (violation.step, violation.detail);
        match violation.kind {
            // The load is another than it was; what that means is weighed below.
            ViolationKind::Numbers => {}
            ViolationKind::Limits => {
                busy.get_or_insert(Stale::Busy { step, detail });
            }
            ViolationKind::Snapshot
            | ViolationKind::Reference
            | ViolationKind::Waves
            | ViolationKind::NotAllowed
            | ViolationKind::Compatibility
            | ViolationKind::Memory
            | ViolationKind::Guests
            | ViolationKind::Rule => return Err(Stale::Broken { step, detail }),
        }
    }
    worth_it(snapshot, policy, &left)?;
    busy.map_or(Ok(()), Err)
}

/// Its waves numbered from 1, as those of a plan that was just made.
fn from_first_wave(plan: &Plan) -> Plan {
    let mut left = plan.clone();
    let done = left
        .steps
        .first()
        .map_or(0, |step| step.wave.saturating_sub(1));
    for step in &mut left.steps {
        step.wave = step.wave.saturating_sub(done);
    }
    left
}

fn worth_it(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Result<(), Stale> {
    let relieves = |step: &Step| {
        let reason = step.reason;
        reason == StepReason::RelieveCpu || reason == StepReason::RelieveMemory
    };
    if plan.steps.is_empty() || !plan.steps.iter().all(relieves) || plan.horizon_seconds <= 0.0 {
        return Ok(());
    }
    let before = fleet_loss(snapshot, policy).total;
    let after = fleet_loss(&carried_out(snapshot, plan), policy).total;
    let saves = (before - after) * plan.horizon_seconds;
    let price = |step: &Step| step.costs_guest_seconds + step.price_guest_seconds;
    let costs: f64 = plan.steps.iter().map(price).sum();
    if saves > costs {
        return Ok(());
    }
    Err(Stale::NotWorthIt {
        saves,
        costs,
        horizon: plan.horizon_seconds,
    })
}
