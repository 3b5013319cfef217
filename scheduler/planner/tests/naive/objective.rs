//! What is minimised, and what a plan claims about it, added up by the book.

use evenkeel_planner::policy::RuleKind;
use evenkeel_planner::{Guest, GuestState, Host, HostState, Plan, Policy, Snapshot, Strategy};

use super::loss::{self, Placement};

/// Loss and strategy's term of all hosts and the price of broken `should` rules, guest-seconds per second.
pub(crate) fn rate(snapshot: &Snapshot, placement: &Placement<'_>, policy: &Policy) -> f64 {
    let strategy = match policy.strategy {
        Strategy::Contention => 0.0,
        Strategy::Spread => policy.price.balance * unevenness(snapshot, placement),
        Strategy::Consolidate => policy.price.powered_host * powered(snapshot, placement),
    };
    loss::fleet(snapshot, placement, policy) + strategy + soft(snapshot, placement, policy)
}

fn guests<'a>(placement: &Placement<'a>, host: &Host) -> Vec<&'a Guest> {
    placement
        .get(host.name.as_str())
        .cloned()
        .unwrap_or_default()
}

fn demand(guests: &[&Guest]) -> f64 {
    let running = guests.iter().filter(|g| g.state == GuestState::Running);
    running.map(|g| loss::wanted(g)).sum()
}

fn allocated(guests: &[&Guest]) -> f64 {
    guests.iter().map(|g| super::held_mib(g)).sum::<u64>() as f64
}

/// Σ cores × squared distance of both utilisations from the fleet's, over active and cordoned hosts.
fn unevenness(snapshot: &Snapshot, placement: &Placement<'_>) -> f64 {
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let counted = || {
        let hosts = snapshot.hosts.iter();
        hosts.filter(|h| matches!(h.state, HostState::Active | HostState::Cordoned))
    };
    let seen: Vec<&Guest> = snapshot
        .hosts
        .iter()
        .filter(|h| h.state != HostState::Absent)
        .flat_map(|h| guests(placement, h))
        .collect();
    let cpu = share(demand(&seen), counted().map(|h| h.cpu_cores).sum());
    let memory = share(
        allocated(&seen),
        counted().map(|h| h.memory_mib as f64).sum(),
    );
    counted()
        .map(|host| {
            let here = guests(placement, host);
            let u = share(demand(&here), host.cpu_cores) - cpu;
            let m = share(allocated(&here), host.memory_mib as f64) - memory;
            host.cpu_cores * (u * u + m * m)
        })
        .sum()
}

fn powered(snapshot: &Snapshot, placement: &Placement<'_>) -> f64 {
    let on = |g: &&Guest| g.state == GuestState::Running || super::held_mib(g) > 0;
    let hosts = snapshot.hosts.iter();
    hosts
        .filter(|h| guests(placement, h).iter().any(&on))
        .count() as f64
}

/// Price × (pairs in one place that should not be + pairs apart that should not be + guests off their pins).
fn soft(snapshot: &Snapshot, placement: &Placement<'_>, policy: &Policy) -> f64 {
    let on = |guest: &Guest| {
        let here = |h: &&Host| guests(placement, h).iter().any(|g| g.name == guest.name);
        snapshot.hosts.iter().find(here).unwrap()
    };
    let mut broken = 0;
    for rule in policy.rules.iter().filter(|r| !super::must(r)) {
        let members = super::members(rule, snapshot);
        let pairs = || {
            let firsts = members.iter().enumerate();
            firsts.flat_map(|(at, a)| members[at + 1..].iter().map(move |b| (on(a), on(b))))
        };
        broken += match &rule.kind {
            RuleKind::AntiAffinity { over } => pairs()
                .filter(|(a, b)| {
                    super::place(over.as_deref(), a) == super::place(over.as_deref(), b)
                })
                .count(),
            RuleKind::Affinity => pairs().filter(|(a, b)| a.name != b.name).count(),
            RuleKind::Pin { hosts } => members
                .iter()
                .filter(|m| !super::allows(hosts, on(m)))
                .count(),
            RuleKind::OptOut => 0,
        };
    }
    broken as f64 * policy.price.should_rule
}

/// A claim that is not what comes out when it is computed.
pub(crate) fn false_claims(snapshot: &Snapshot, policy: &Policy, plan: &Plan) -> Vec<String> {
    let mut claims = Claims(Vec::new());
    let mut placement = loss::placed(snapshot);
    let slope = |name: &str, placement: &Placement<'_>| {
        let host = super::host(snapshot, name);
        loss::slope(host, &guests(placement, host), snapshot.peak_correlation)
    };
    let first = placement.clone();
    let mut now = loss::fleet(snapshot, &placement, policy);
    claims.same("loss_before", plan.loss_before, now);
    for (at, step) in plan.steps.iter().enumerate() {
        let name = |what: &str| format!("step {}: {what}", at + 1);
        let guest = super::guest(snapshot, &step.guest);
        placement
            .get_mut(step.from.as_str())
            .unwrap()
            .retain(|g| g.name != step.guest);
        placement.entry(&step.to).or_default().push(guest);
        let after = loss::fleet(snapshot, &placement, policy);
        claims.difference(
            &name("savings"),
            step.saves_guest_seconds_per_hour,
            (now, after),
        );
        let ends = (
            super::host(snapshot, &step.from),
            super::host(snapshot, &step.to),
        );
        let slopes = slope(&step.from, &first) + slope(&step.to, &first);
        let copy = loss::copy(guest, ends, slopes, policy);
        claims.same(&name("costs"), step.costs_guest_seconds, copy.cost);
        claims.same(
            &name("price"),
            step.price_guest_seconds,
            policy.price.migration_guest_seconds,
        );
        claims.same(&name("copy"), step.copy_seconds, copy.seconds);
        claims.same(&name("downtime"), step.downtime_seconds, copy.downtime);
        claims.same(
            &name("bytes"),
            step.bytes as f64,
            (copy.mib * 1_048_576.0).round(),
        );
        now = after;
    }
    claims.same("loss_after", plan.loss_after, now);
    claims.0
}

struct Claims(Vec<String>);

impl Claims {
    /// Equal to a millionth; the planner's table of the normal distribution is true to 1e-9 per core.
    fn same(&mut self, what: &str, claimed: f64, computed: f64) {
        let tolerance = 1e-6 * claimed.abs().max(computed.abs()) + 1e-6;
        self.within(what, claimed, computed, tolerance);
    }

    /// A saving per hour is the difference of two large numbers, true to a millionth of those.
    fn difference(&mut self, what: &str, claimed: f64, (before, after): (f64, f64)) {
        let tolerance = 3600.0 * (1e-9 * before.abs().max(after.abs()) + 1e-6);
        self.within(what, claimed, (before - after) * 3600.0, tolerance);
    }

    fn within(&mut self, what: &str, claimed: f64, computed: f64, tolerance: f64) {
        let far = (claimed - computed).abs() > tolerance;
        if far || !claimed.is_finite() || !computed.is_finite() {
            self.0
                .push(format!("{what}: claimed {claimed}, computed {computed}"));
        }
    }
}

/// What a plan brings within its horizon over doing nothing, guest-seconds: gain less `factor` × all costs,
/// everything computed anew.
pub(crate) fn net(snapshot: &Snapshot, policy: &Policy, plan: &Plan, factor: f64) -> f64 {
    let start = loss::placed(snapshot);
    let mut end = start.clone();
    let mut cost = 0.0;
    for step in &plan.steps {
        let guest = super::guest(snapshot, &step.guest);
        let (from, to) = (
            super::host(snapshot, &step.from),
            super::host(snapshot, &step.to),
        );
        let slopes = loss::slope(from, &guests(&start, from), snapshot.peak_correlation)
            + loss::slope(to, &guests(&start, to), snapshot.peak_correlation);
        cost += loss::copy(guest, (from, to), slopes, policy).cost;
        cost += policy.price.migration_guest_seconds;
        end.get_mut(step.from.as_str())
            .unwrap()
            .retain(|g| g.name != step.guest);
        end.entry(&step.to).or_default().push(guest);
    }
    let gain = rate(snapshot, &start, policy) - rate(snapshot, &end, policy);
    plan.horizon_seconds * gain - factor * cost
}
