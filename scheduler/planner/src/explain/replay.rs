//! A plan's steps carried out one by one, to see what each changes when its turn has come.

use std::collections::BTreeMap;

use super::document::MoveExplanation;
use super::judge::{cost_report, host_effect};
use crate::loss::Load;
use crate::model::Model;
use crate::plan::Plan;
use crate::precopy::cost_parts;

/// One step: the guest that moves, where to, and what it changes; its runner-up is not known here.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) guest: usize,
    pub(super) to: usize,
    pub(super) explained: MoveExplanation,
}

/// Every step of a plan, in order.
pub(super) fn replay(
    model: &Model<'_>,
    start: &[usize],
    first_slopes: &[f64],
    plan: &Plan,
) -> Vec<Replayed> {
    let hosts = model.hosts.iter().enumerate();
    let host_at: BTreeMap<&str, usize> = hosts.map(|(at, h)| (h.data.name.as_str(), at)).collect();
    let guests = model.guests.iter().enumerate();
    let guest_at: BTreeMap<&str, usize> =
        guests.map(|(at, g)| (g.data.name.as_str(), at)).collect();
    let mut members = vec![Vec::new(); model.hosts.len()];
    for (guest, &host) in start.iter().enumerate() {
        members[host].push(guest);
    }
    let mut steps = Vec::with_capacity(plan.steps.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let known = (
            guest_at.get(step.guest.as_str()),
            host_at.get(step.from.as_str()),
            host_at.get(step.to.as_str()),
        );
        // A plan names guests and hosts of its own snapshot only.
        let (Some(&guest), Some(&from), Some(&to)) = known else {
            continue;
        };
        let before = (load(model, &members[from]), load(model, &members[to]));
        members[from].retain(|&g| g != guest);
        if let Err(place) = members[to].binary_search(&guest) {
            members[to].insert(place, guest);
        }
        let after = (load(model, &members[from]), load(model, &members[to]));
        let (copy, bandwidth) = model.precopy(guest, from, to);
        let slopes = (first_slopes[from], first_slopes[to]);
        let parts = cost_parts(model.guests[guest].data, &copy, bandwidth, slopes);
        let cost = cost_report(&parts, step.price_guest_seconds);
        let rate = step.saves_guest_seconds_per_hour / 3600.0;
        let explained = MoveExplanation {
            number: index + 1,
            step: step.clone(),
            source: host_effect(&model.hosts[from], &before.0, &after.0),
            target: host_effect(&model.hosts[to], &before.1, &after.1),
            cost,
            payback_seconds: (rate > 0.0).then(|| cost.total / rate),
            runner_up: None,
        };
        steps.push(Replayed {
            guest,
            to,
            explained,
        });
    }
    steps
}

/// Added up in the order of the guests, as the plan's prices are.
fn load(model: &Model<'_>, members: &[usize]) -> Load {
    let sum = |load: Load, &g: &usize| load.plus(&model.guests[g].load);
    members.iter().fold(Load::default(), sum)
}
