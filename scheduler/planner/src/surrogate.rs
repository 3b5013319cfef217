//! The frozen-variance surrogate: what is optimised when plans are compared with an exact solver.
//!
//! The contention loss of a host is convex in its mean demand D but not in its guests, because its variance
//! V depends on them too. The surrogate keeps V at a constant per host, as if the fleet's guests were spread
//! over the hosts in proportion to their cores. What is left is convex in D alone, so that a solver with
//! piecewise-linear under-approximations finds the optimum, or a bound of it. Everything else (demand, own
//! use, calibration, the strategy's terms, costs of migrations) is as in [`crate::loss`] and
//! [`crate::precopy`], except that the loss has no cap: the cap is concave.
//!
//! Not called when a fleet is planned for real.

use std::collections::BTreeMap;

use crate::loss::{Load, Shape, loads};
use crate::model::{Mobility, Model, ShutOffGuests, numbered};
use crate::policy::Policy;
use crate::precopy;
use crate::search::cpu_slopes;
use crate::snapshot::{HostState, Snapshot};

/// Which variance the loss of a host is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Variance {
    /// That of the guests it would have: the model.
    #[default]
    Estimated,
    /// The constant of [`frozen_variances`]: the surrogate.
    Frozen,
}

/// The constant variance of every host in the order of [`Snapshot::hosts`], cores².
///
/// V = s·Σ(vᵢpᵢ(1 − pᵢ) + σᵢ²) + ρ(s·Σσᵢ)² + own variance, sums over all guests whose host is known, s the
/// host's cores over those of all active and cordoned hosts.
#[must_use]
pub fn frozen_variances(snapshot: &Snapshot, policy: &Policy) -> Vec<f64> {
    let loads = loads(snapshot);
    let mut present: Vec<_> = snapshot.hosts.iter().zip(&loads).collect();
    present.retain(|(host, _)| host.state != HostState::Absent);
    // In the order of names: the sums do not depend on the order of a file.
    present.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let fleet = present
        .iter()
        .fold(Load::default(), |sum, (_, load)| sum.plus(load));
    let cores: f64 = present
        .iter()
        .filter(|(host, _)| host.state != HostState::Draining)
        .map(|(host, _)| host.cpu_cores)
        .sum();
    let variance = |host| {
        let shape = Shape::of(host, policy).correlated(snapshot.peak_correlation);
        let share = if cores > 0.0 {
            shape.cores / cores
        } else {
            0.0
        };
        let sigma = share * fleet.sigma;
        share * (fleet.binomial + fleet.sigma_sq)
            + shape.correlation * sigma * sigma
            + shape.own_variance
    };
    snapshot.hosts.iter().map(variance).collect()
}

/// What bringing each guest from its host to each host costs, guest-seconds, the policy's price of a
/// migration included: rows are guests, columns hosts, both in the order of the snapshot.
///
/// 0 at home. `None` where a guest cannot be whatever the others do: the host takes none or lacks
/// something, a pin forbids it, the copy would not converge, or the guest is never moved. Room and rules
/// over other guests are not looked at. A snapshot that does not validate has no guests.
#[must_use]
pub fn migration_costs(
    snapshot: &Snapshot,
    policy: &Policy,
    variance: Variance,
) -> Vec<Vec<Option<f64>>> {
    if snapshot.validate().is_err() {
        return Vec::new();
    }
    let model = Model::new(snapshot, policy, ShutOffGuests::Stay).under(variance, snapshot);
    let mut now = vec![Load::default(); model.hosts.len()];
    for guest in &model.guests {
        now[guest.home] = now[guest.home].plus(&guest.load);
    }
    let slopes = cpu_slopes(&model, &now);
    let host_at: BTreeMap<&str, usize> = numbered(model.hosts.iter().map(|h| &*h.data.name));
    let guest_at: BTreeMap<&str, usize> = numbered(model.guests.iter().map(|g| &*g.data.name));
    let row = |guest: usize| -> Vec<Option<f64>> {
        let to = |name: &str| cost(&model, guest, *host_at.get(name)?, &slopes);
        snapshot.hosts.iter().map(|h| to(&h.name)).collect()
    };
    let rows = snapshot.guests.iter();
    rows.filter_map(|g| guest_at.get(&*g.name))
        .map(|&guest| row(guest))
        .collect()
}

fn cost(model: &Model<'_>, guest: usize, to: usize, slopes: &[f64]) -> Option<f64> {
    let known = &model.guests[guest];
    if known.home == to {
        return Some(0.0);
    }
    let fixed = matches!(known.mobility, Mobility::Fixed(..));
    let barred = model.profiles[known.profile][to].is_some();
    let (copy, bandwidth) = model.precopy(guest, known.home, to);
    if fixed || barred || !model.hosts[to].takes || !copy.converges {
        return None;
    }
    let slopes = (slopes[known.home], slopes[to]);
    let lost = precopy::cost(known.data, &copy, bandwidth, slopes);
    Some(lost + model.policy.price.migration_guest_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Guest, Host};

    fn fleet() -> Snapshot {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        let states = [HostState::Active, HostState::Draining, HostState::Active];
        // Not in the order of names.
        for ((name, cores), state) in [("h2", 24.0), ("h3", 8.0), ("h1", 8.0)]
            .into_iter()
            .zip(states)
        {
            snapshot.hosts.push(Host {
                name: name.into(),
                state,
                cpu_cores: cores,
                memory_mib: 65_536,
                ..Host::default()
            });
        }
        for (name, host, demand) in [("b", "h2", 2.0), ("c", "h1", 1.0), ("a", "h3", 3.0)] {
            snapshot.guests.push(Guest {
                name: name.into(),
                host: host.into(),
                vcpus: 4,
                cpu_demand_cores: demand,
                cpu_demand_stddev_cores: 0.5 * demand,
                memory_mib: 4096,
                ..Guest::default()
            });
        }
        snapshot
    }

    #[test]
    fn the_fleets_variance_is_shared_out_by_open_cores() {
        let found = frozen_variances(&fleet(), &Policy::default());
        // Binomial: 2·½ + 1·¾ + 3·¼ = 2.5; Σσ² = 1 + ¼ + 2¼ = 3.5; Σσ = 3. Shares ¾ and ¼ of 32 cores.
        let expected = |share: f64, cores: f64| {
            share * 6.0 + 0.1 * (share * 3.0).powi(2) + (0.02 * cores).powi(2)
        };
        let expected = [
            expected(0.75, 24.0),
            expected(0.25, 8.0),
            expected(0.25, 8.0),
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let mut turned = fleet();
        turned.guests.reverse();
        turned.hosts.reverse();
        let mut again = frozen_variances(&turned, &Policy::default());
        again.reverse();
        assert_eq!(again, found, "bit for bit");
    }

    #[test]
    fn a_frozen_loss_is_convex_in_the_demand_and_has_no_cap() {
        let snapshot = fleet();
        let shape = Shape {
            frozen_variance: Some(4.0),
            ..Shape::of(&snapshot.hosts[2], &Policy::default())
        };
        let at = |demand: f64, vcpus: f64, sigma: f64| {
            shape.cpu_loss(&Load {
                demand,
                vcpus,
                sigma,
                ..Load::default()
            })
        };
        for tenth in 0..200 {
            let d = 0.1 * f64::from(tenth);
            let (below, middle, above) = (
                at(d, 1.0, 0.0),
                at(d + 0.1, 1.0, 0.0),
                at(d + 0.2, 1.0, 0.0),
            );
            assert!(below + above - 2.0 * middle >= -1e-12, "at {d}");
            assert_eq!(at(d, 1.0, 0.0), at(d, 99.0, 7.0), "only the demand counts");
        }
        assert!(at(12.0, 1.0, 0.0) > 4.0, "one vCPU, more than one waiting");
    }

    #[test]
    fn costs_come_in_the_snapshots_order_and_are_those_of_a_plans_steps() {
        let snapshot = fleet();
        let policy = Policy::default();
        let costs = migration_costs(&snapshot, &policy, Variance::Estimated);
        // The drained guest "a" stands on the second host, which nobody may go to.
        assert_eq!(costs[0][0], Some(0.0));
        assert_eq!(costs[0][1], None);
        assert_eq!(costs[2][1], Some(0.0));
        let (plan, _) = crate::plan(&snapshot, &policy, &crate::Options::default());
        let [step] = &plan.steps[..] else {
            panic!("{}", plan.to_json());
        };
        assert_eq!((&*step.guest, &*step.to), ("a", "h2"));
        let total = step.costs_guest_seconds + step.price_guest_seconds;
        assert_eq!(costs[2][0], Some(total));
        let frozen = migration_costs(&snapshot, &policy, Variance::Frozen);
        assert_ne!(frozen[2][0], Some(total), "other slopes");
    }
}
