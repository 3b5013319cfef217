//! Loss and cost by the book: sums over guests, erf by its series, no tables, nothing kept up to date.

use std::collections::BTreeMap;

use evenkeel_planner::{Guest, GuestState, Host, HostState, Policy, Snapshot};

/// 1 − erf(x) for x ≥ 0, to 1e-14: the Taylor series below 2.5, Lentz's continued fraction above.
fn erfc(x: f64) -> f64 {
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let mut fraction = 0.0;
    for k in (1..200).rev() {
        fraction = f64::from(k) / 2.0 / (x + fraction);
    }
    (-x * x).exp() / (x + fraction) / std::f64::consts::PI.sqrt()
}

/// Φ(z).
pub(crate) fn phi_sum(z: f64) -> f64 {
    let tail = erfc(z.abs() / 2.0_f64.sqrt()) / 2.0;
    if z > 0.0 { 1.0 - tail } else { tail }
}

/// E[(X)⁺] for X normal.
fn expected_excess(mean: f64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        return mean.max(0.0);
    }
    let z = mean / deviation;
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (deviation * density + mean * phi_sum(z)).max(0.0)
}

/// What the guests of a host are to its loss.
struct Sums {
    demand: f64,
    deviation: f64,
    vcpus: f64,
}

fn own(host: &Host) -> f64 {
    host.own_cpu_cores.unwrap_or(0.02 * host.cpu_cores)
}

/// Demand that counts: a quota's throttling is no contention.
pub(crate) fn wanted(guest: &Guest) -> f64 {
    match guest.cpu_limit_cores {
        Some(most) if most < guest.cpu_demand_cores => most,
        _ => guest.cpu_demand_cores,
    }
}

fn sums(host: &Host, guests: &[&Guest], rho: f64) -> Sums {
    let (mut demand, mut vcpus) = (0.0, 0.0);
    let (mut idle_or_busy, mut sigma, mut sigma_sq) = (0.0, 0.0, 0.0);
    for guest in guests.iter().filter(|g| g.state == GuestState::Running) {
        let v = f64::from(guest.vcpus.max(1));
        let d = wanted(guest);
        let p = (d / v).min(1.0);
        let s = guest.cpu_demand_stddev_cores.max(0.1 * d);
        demand += d;
        vcpus += v;
        idle_or_busy += v * p * (1.0 - p);
        sigma += s;
        sigma_sq += s * s;
    }
    let own_sigma = 0.02 * host.cpu_cores;
    let variance = idle_or_busy + sigma_sq + rho.max(0.1) * sigma * sigma + own_sigma * own_sigma;
    Sums {
        demand,
        deviation: variance.sqrt(),
        vcpus,
    }
}

fn cpu_loss(host: &Host, guests: &[&Guest], rho: f64) -> f64 {
    let s = sums(host, guests, rho);
    if s.demand <= 0.0 {
        return 0.0;
    }
    let waiting = expected_excess(s.demand + own(host) - host.cpu_cores, s.deviation);
    let most = (s.vcpus + own(host) - host.cpu_cores).max(0.0);
    waiting.min(most) * host.calibration.clamp(0.5, 2.0)
}

fn memory_loss(host: &Host, guests: &[&Guest], policy: &Policy) -> f64 {
    let active: u64 = guests
        .iter()
        .filter(|g| g.state != GuestState::Shutoff)
        .map(|g| {
            g.memory_active_mib
                .unwrap_or(g.memory_mib)
                .min(g.memory_mib)
        })
        .sum();
    let memory = host.memory_mib as f64;
    let free = memory * policy.limits.memory_headroom;
    let over = active as f64 - (memory - free);
    if active == 0 || over <= 0.0 {
        return 0.0;
    }
    let x = over / free.max(0.01 * memory);
    let calibration = host.memory_calibration.clamp(0.5, 2.0);
    (0.1 * x * x * calibration).min(1.0) * sums(host, guests, 0.1).demand
}

/// Contention of a host with these guests, guest-seconds per second.
fn contention(host: &Host, guests: &[&Guest], policy: &Policy, rho: f64) -> f64 {
    if host.state == HostState::Absent {
        return 0.0;
    }
    cpu_loss(host, guests, rho) + memory_loss(host, guests, policy)
}

/// Guests by where they count.
pub(crate) type Placement<'a> = BTreeMap<&'a str, Vec<&'a Guest>>;

/// The placement of a snapshot.
pub(crate) fn placed(snapshot: &Snapshot) -> Placement<'_> {
    let mut placement: Placement<'_> = BTreeMap::new();
    for guest in &snapshot.guests {
        let on = super::counts_on(snapshot, guest);
        placement.entry(on).or_default().push(guest);
    }
    placement
}

/// Contention of a fleet, guest-seconds per second.
pub(crate) fn fleet(snapshot: &Snapshot, placement: &Placement<'_>, policy: &Policy) -> f64 {
    let guests = |h: &Host| placement.get(h.name.as_str()).cloned().unwrap_or_default();
    let hosts = snapshot.hosts.iter();
    hosts
        .map(|h| contention(h, &guests(h), policy, snapshot.peak_correlation))
        .sum()
}

/// A migration as the design's formula has it.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) seconds: f64,
    pub(crate) downtime: f64,
    pub(crate) mib: f64,
    pub(crate) converges: bool,
    /// Guest-seconds, without the policy's price.
    pub(crate) cost: f64,
}

/// Unique memory dirtied within a time, MiB.
fn dirtied(guest: &Guest, seconds: f64) -> f64 {
    let all = guest.memory_mib as f64;
    if guest.dirty_curve.is_empty() {
        let active = guest.memory_active_mib.unwrap_or(guest.memory_mib) as f64;
        return (guest.dirty_rate_mib_s * seconds).min(active).min(all);
    }
    // What was dirty stays so until it is copied: a point below the one before it is an error of measurement.
    let mut points = vec![(0.0, 0.0)];
    for &(at, mib) in &guest.dirty_curve {
        let highest = points.iter().fold(0.0, |most: f64, p| most.max(p.1));
        points.push((at, mib.max(highest)));
    }
    points.dedup_by(|b, a| {
        b.0 <= a.0 && {
            *a = *b;
            true
        }
    });
    if points.len() == 1 {
        return points[0].1.min(all);
    }
    let above = points
        .iter()
        .position(|p| p.0 >= seconds)
        .unwrap_or(points.len() - 1)
        .max(1);
    let (a, b) = (points[above - 1], points[above]);
    (a.1 + (b.1 - a.1) / (b.0 - a.0) * (seconds - a.0)).min(all)
}

/// Replays the copy of a guest between two hosts. `slopes`: chance that a vCPU waits there before the plan.
pub(crate) fn copy(guest: &Guest, ends: (&Host, &Host), slopes: f64, policy: &Policy) -> Copy {
    let link = ends
        .0
        .migration_bandwidth_mib_s
        .min(ends.1.migration_bandwidth_mib_s);
    let most = policy.migration.bandwidth_limit_mib_s;
    let rate = if most > 0.0 { link.min(most) } else { link };
    let running = guest.state == GuestState::Running;
    let limit = policy.migration.downtime_limit.as_secs_f64();
    let mut left = super::held_mib(guest) as f64;
    let disks = guest.local_disk_mib as f64;
    if rate < 0.01 {
        let nothing = left + disks <= 0.0;
        return Copy {
            seconds: 0.0,
            downtime: 0.0,
            mib: 0.0,
            converges: nothing,
            cost: 0.0,
        };
    }
    let (mut seconds, mut mib) = (disks / rate, disks);
    let (mut throttle, mut throttled, mut without_progress): (f64, f64, u32) = (0.0, 0.0, 0);
    let fits = |left: f64| left / rate <= limit;
    let mut rounds = 0;
    while rounds < 30 && !fits(left) {
        rounds += 1;
        let time = left / rate;
        seconds += time;
        mib += left;
        throttled += throttle * time;
        let next = if running {
            dirtied(guest, time * (1.0 - throttle))
        } else {
            0.0
        };
        if next > 0.5 * left {
            without_progress += 1;
            if policy.migration.auto_converge && without_progress >= 2 {
                throttle = (throttle + if throttle > 0.0 { 0.1 } else { 0.2 }).min(0.99);
            }
        }
        left = next;
    }
    let steps = policy.migration.downtime_steps.iter();
    let most = steps.map(|s| s.as_secs_f64()).fold(limit, f64::max);
    let in_time = left / rate <= most;
    let early = !in_time && policy.migration.post_copy;
    let wait = if early { 0.0 } else { left / rate };
    let downtime = if running { wait + 0.03 } else { 0.0 };
    let demand = if running { wanted(guest) } else { 0.0 };
    let pause = downtime * demand.max(0.1 * f64::from(guest.vcpus));
    let brown_out = (0.05 * seconds + throttled) * demand;
    let cost = pause + brown_out + 0.0005 * rate * seconds * slopes;
    Copy {
        seconds,
        downtime,
        mib: mib + left,
        converges: in_time || early,
        cost,
    }
}

/// Chance that a vCPU waits on a host, calibrated.
pub(crate) fn slope(host: &Host, guests: &[&Guest], rho: f64) -> f64 {
    let s = sums(host, guests, rho);
    let excess = s.demand + own(host) - host.cpu_cores;
    let chance = if s.deviation > 0.0 {
        phi_sum(excess / s.deviation)
    } else if excess >= 0.0 {
        1.0
    } else {
        0.0
    };
    if host.state == HostState::Absent {
        return 0.0;
    }
    chance * host.calibration.clamp(0.5, 2.0)
}

#[test]
fn the_normal_distribution_is_that_of_the_tables() {
    for (z, expected) in [
        (0.0, 0.5),
        (1.959_963_985, 0.975),
        (-1.0, 0.158_655_253_9),
        (-4.0, 3.167_124_18e-5),
    ] {
        assert!((phi_sum(z) / expected - 1.0).abs() < 1e-8, "{z}");
    }
    assert!((expected_excess(-2.0, 1.0) - 0.008_490_702_6).abs() < 1e-9);
    // Both branches meet.
    assert!((erfc(2.499_999) / erfc(2.500_001) - 1.0).abs() < 2e-5);
}
