//! Fleets for the tests: by hand, and seeded random ones.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod wild;

use evenkeel_planner::check::carried_out;
use evenkeel_planner::{Guest, Host, Options, Plan, Policy, Snapshot, check, plan};
use jiff::Timestamp;

pub(crate) fn fleet(hosts: Vec<Host>, guests: Vec<Guest>) -> Snapshot {
    let mut snapshot = Snapshot::new("test", Timestamp::UNIX_EPOCH);
    snapshot.hosts = hosts;
    snapshot.guests = guests;
    snapshot
}

pub(crate) fn host(name: &str, cores: f64, memory_mib: u64) -> Host {
    Host {
        name: name.into(),
        cpu_cores: cores,
        memory_mib,
        ..Host::default()
    }
}

pub(crate) fn guest(name: &str, on: &str, demand: f64, memory_mib: u64) -> Guest {
    let vcpus = if demand > 1.0 { 4 } else { 1 };
    Guest {
        name: name.into(),
        host: on.into(),
        vcpus,
        cpu_demand_cores: demand,
        memory_mib,
        memory_active_mib: Some(memory_mib / 2),
        ..Guest::default()
    }
}

/// Both oracles: the check is clean, and replanning changes nothing. Returns the plan.
pub(crate) fn plan_and_judge(snapshot: &Snapshot, policy: &Policy) -> Plan {
    let options = Options::default();
    let (found, _) = plan(snapshot, policy, &options);
    assert_eq!(
        check(snapshot, policy, &found),
        vec![],
        "{}",
        found.to_json()
    );
    let after = carried_out(snapshot, &found);
    let (again, _) = plan(&after, policy, &options);
    assert_eq!(again.steps, vec![], "replanning after\n{}", found.to_json());
    found
}

/// A small generator of pseudo-random numbers (splitmix64), so that a fleet is its seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.roll() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// `hosts` hosts of 16 cores and 64 GiB with `per_host` guests each; demand is skewed to the first hosts.
pub(crate) fn skewed(seed: u64, hosts: usize, per_host: usize, load: f64) -> Snapshot {
    let mut dice = Dice(seed);
    let names: Vec<String> = (0..hosts).map(|h| format!("h{h:04}")).collect();
    let mut guests = Vec::new();
    for (h, name) in names.iter().enumerate() {
        let skew = if h * 4 < hosts { 2.0 } else { 0.6 };
        for g in 0..per_host {
            let mean = 16.0 * load / f64::from(u32::try_from(per_host).unwrap_or(1));
            let demand = mean * skew * (0.3 + 1.4 * dice.unit());
            let memory = 1024 + 512 * dice.below(4);
            guests.push(Guest {
                vcpus: 4,
                cpu_demand_stddev_cores: 0.2 * demand,
                dirty_rate_mib_s: 20.0 * dice.unit(),
                ..guest(&format!("g{h:04}-{g:02}"), name, demand.min(4.0), memory)
            });
        }
    }
    fleet(
        names.iter().map(|n| host(n, 16.0, 65_536)).collect(),
        guests,
    )
}
