//! Wild fleets and policies: everything the formats allow, in every mixture, from a seed.

#![expect(
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "small numbers of tests, and a panic is a failed test"
)]

use evenkeel_planner::policy::RuleKind;
use evenkeel_planner::{
    Guest, GuestState, Host, HostState, InFlight, Policy, Pressure, RefusedBy, Snapshot, Strength,
};

use super::Dice;

const FAMILIES: [&str; 4] = ["web", "db", "app", "ora"];

impl Dice {
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    /// True once in `n` times.
    fn rarely(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn some(&mut self, of: &[&str]) -> Vec<String> {
        let kept = of.iter().filter(|_| self.below(2) == 0);
        kept.map(|&s| s.to_owned()).collect()
    }
}

/// How a fleet is meant to be, so that each seed is of some kind: nothing is rare in all of them.
struct Kind {
    /// 1 in so many hosts is cordoned, draining or silent.
    closed: u64,
    /// 1 in so many hosts or guests is unlike the others in class, networks or storage.
    odd: u64,
    /// Allocated over offered memory.
    fill: f64,
    /// Demand over cores.
    load: f64,
}

fn kind(dice: &mut Dice) -> Kind {
    Kind {
        closed: dice.one(&[2, 5, 12, 1000]),
        odd: dice.one(&[2, 6, 20, 1000]),
        fill: dice.one(&[0.3, 0.6, 0.8, 0.92, 1.1]),
        load: dice.one(&[0.2, 0.6, 0.9, 1.3]),
    }
}

fn wild_host(dice: &mut Dice, kind: &Kind, at: usize) -> Host {
    let cores = dice.one(&[2.0, 4.0, 4.0, 8.0, 8.0, 16.0, 63.5]);
    let mut host = Host {
        name: format!("h{at}"),
        state: HostState::Active,
        cpu_cores: if dice.rarely(60) { 0.0 } else { cores },
        migration_bandwidth_mib_s: dice.one(&[1000.0, 1000.0, 112.5, 2500.0, 40.0]),
        ..Host::default()
    };
    if dice.rarely(kind.closed) {
        let states = [
            HostState::Cordoned,
            HostState::Draining,
            HostState::Draining,
            HostState::Absent,
        ];
        host.state = dice.one(&states);
    }
    if dice.rarely(80) {
        host.migration_bandwidth_mib_s = dice.one(&[0.0, 1e-9, 1e9]);
    }
    for (label, values, missing) in [("rack", 3, 12), ("room", 2, 4), ("licence", 2, 2)] {
        if !dice.rarely(missing) {
            host.labels
                .insert(label.into(), format!("{label}{}", dice.below(values)));
        }
    }
    if dice.rarely(kind.odd) {
        host.cpu_class = dice.one(&["old", "new"]).into();
        host.networks = dice.some(&["br0", "br1"]);
        host.storage = dice.some(&["nfs-a", "ceph"]);
    }
    host.own_cpu_cores = dice.rarely(3).then(|| 0.3 * cores * dice.unit());
    if dice.rarely(4) {
        host.calibration = 0.2 + 3.0 * dice.unit();
        host.memory_calibration = 0.2 + 3.0 * dice.unit();
    }
    host.pressure = dice.rarely(3).then(|| Pressure {
        cpu_some: dice.unit(),
        ..Pressure::default()
    });
    host
}

fn wild_guest(dice: &mut Dice, kind: &Kind, at: usize, hosts: &[Host]) -> Guest {
    let vcpus = dice.one(&[1, 1, 2, 2, 4, 8]);
    let demand = f64::from(vcpus) * dice.unit() * dice.unit();
    // Skewed: the lower hosts get more.
    let on = dice
        .below(hosts.len() as u64)
        .min(dice.below(hosts.len() as u64));
    let on = &hosts[on as usize];
    let memory_mib = 128 * (1 + dice.below(48));
    let mut guest = Guest {
        name: format!("{}-{at}", dice.one(&FAMILIES)),
        uuid: (!dice.rarely(3)).then(|| format!("0000-{at}")),
        host: on.name.clone(),
        vcpus,
        cpu_demand_cores: if dice.rarely(8) { 0.0 } else { demand },
        cpu_demand_stddev_cores: dice.one(&[0.0, 0.3, 1.5]) * demand * dice.unit(),
        memory_mib,
        memory_active_mib: (!dice.rarely(4)).then(|| memory_mib * (1 + dice.below(10)) / 10),
        dirty_rate_mib_s: dice.one(&[0.0, 5.0, 30.0, 90.0]) * dice.unit(),
        priority: dice.below(5) as i32 - 2,
        ..Guest::default()
    };
    guest
        .labels
        .insert("app".into(), dice.one(&["shop", "mail", "erp"]).into());
    guest.group = dice.rarely(5).then(|| dice.one(&["g1", "g2"]).into());
    unlike_others(dice, kind, &mut guest, at);
    if dice.rarely(8) {
        let left = &hosts[dice.below(hosts.len() as u64) as usize];
        let until = dice.one(&["1970-01-01T05:00:00Z", "1969-12-31T23:59:59Z"]);
        guest
            .left_lately
            .insert(left.name.clone(), until.parse().unwrap());
    }
    if dice.rarely(8) {
        let host = &hosts[dice.below(hosts.len() as u64) as usize];
        let until = dice.one(&["1970-01-01T01:00:00Z", "1969-12-31T23:59:59Z"]);
        let by = RefusedBy {
            reason: "missing_network".into(),
            until: until.parse().unwrap(),
        };
        guest.refused_by.insert(host.name.clone(), by);
    }
    guest
}

/// The rare traits.
fn unlike_others(dice: &mut Dice, kind: &Kind, guest: &mut Guest, at: usize) {
    if dice.rarely(kind.odd) {
        guest.networks = dice.some(&["br0", "br1"]);
        guest.storage = dice.some(&["nfs-a", "ceph"]);
        guest.cpu_classes = dice.some(&["", "old", "new"]);
    }
    match dice.below(40) {
        0 | 1 => guest.state = GuestState::Shutoff,
        2 | 3 => guest.state = GuestState::Paused,
        4 | 5 => guest.cooldown_until = Some("1970-01-01T00:10:00Z".parse().unwrap()),
        6 => guest.cooldown_until = Some("1969-12-31T23:59:59Z".parse().unwrap()),
        7 => guest.dirty_rate_mib_s = 4000.0,
        21 | 22 => guest.unconverged_until = Some("1970-01-01T00:10:00Z".parse().unwrap()),
        8 => guest.local_disk_mib = 10_000,
        9 => guest.memory_mib = 0,
        10 => guest.vcpus = 0,
        11 => guest.cpu_demand_cores = 1.2 * f64::from(guest.vcpus),
        12 => guest.uuid = Some("twin".into()),
        13 | 14 => {
            guest.movable = false;
            guest.unmovable_reason =
                dice.one(&[None, Some("host_device".into()), Some("opted_out".into())]);
        }
        15..=18 => guest.dirty_curve = wild_curve(dice, guest.memory_mib),
        20 => guest.cpu_limit_cores = Some(f64::from(guest.vcpus) * dice.unit()),
        19 => guest.name = format!("h0/twice-{at}"),
        _ => {}
    }
}

/// Mostly concave, as unique pages are; sometimes with an error of measurement.
fn wild_curve(dice: &mut Dice, memory_mib: u64) -> Vec<(f64, f64)> {
    let (mut at, mut mib) = (0.0, 0.0);
    (0..dice.below(6))
        .map(|_| {
            at += 0.1 + 3.0 * dice.unit();
            mib += (0.4 * memory_mib as f64 - mib) * 0.3 * dice.unit();
            (at, if dice.rarely(10) { 0.5 * mib } else { mib })
        })
        .collect()
}

/// Memory and cores that make the fleet as full and as loaded as its kind says, give or take.
fn fit(dice: &mut Dice, kind: &Kind, snapshot: &mut Snapshot) {
    let hosts = snapshot.hosts.len() as f64;
    let all: u64 = snapshot.guests.iter().map(|g| g.memory_mib).sum();
    let cores: f64 = snapshot.hosts.iter().map(|h| h.cpu_cores).sum();
    let demand: f64 = snapshot.guests.iter().map(|g| g.cpu_demand_cores).sum();
    for host in &mut snapshot.hosts {
        let mean = all as f64 / hosts / kind.fill;
        host.memory_mib = (mean * (0.6 + 0.8 * dice.unit())) as u64;
        if dice.rarely(3) {
            let here = snapshot.guests.iter().filter(|g| g.host == host.name);
            host.memory_mib = host.memory_mib.max(here.map(|g| g.memory_mib).sum());
        }
    }
    let scale = if demand > 0.0 {
        kind.load * cores / demand
    } else {
        1.0
    };
    for guest in &mut snapshot.guests {
        let most = f64::from(guest.vcpus) * 1.2;
        guest.cpu_demand_cores = (guest.cpu_demand_cores * scale).min(most);
    }
}

fn take_off(dice: &mut Dice, snapshot: &mut Snapshot) {
    let flights = dice.one(&[0, 0, 0, 1, 1, 3]).min(snapshot.guests.len());
    for guest in snapshot.guests.iter().take(flights) {
        let to = dice.one(&snapshot.hosts).name;
        if to != guest.host {
            let arrives = dice.rarely(3);
            let (from, to) = (guest.host.clone(), to);
            let (from, to) = if arrives { (to, from) } else { (from, to) };
            snapshot.in_flight.push(InFlight {
                guest: guest.name.clone(),
                from,
                to,
            });
        }
    }
}

/// A fleet of so many hosts and guests.
pub(crate) fn fleet(seed: u64, hosts: usize, guests: usize) -> Snapshot {
    let mut dice = Dice(seed);
    let kind = kind(&mut dice);
    let hosts: Vec<Host> = (0..hosts)
        .map(|at| wild_host(&mut dice, &kind, at))
        .collect();
    let guests = (0..guests)
        .map(|at| wild_guest(&mut dice, &kind, at, &hosts))
        .collect();
    let mut snapshot = super::fleet(hosts, guests);
    snapshot.peak_correlation = dice.one(&[0.1, 0.1, 0.0, 0.4, 1.0]);
    fit(&mut dice, &kind, &mut snapshot);
    take_off(&mut dice, &mut snapshot);
    snapshot.validate().unwrap();
    snapshot
}

fn guests_of(dice: &mut Dice, snapshot: &Snapshot) -> String {
    let name = |dice: &mut Dice| match snapshot.guests.len() {
        0 => "nobody".to_owned(),
        _ => dice.one(&snapshot.guests).name,
    };
    match dice.below(6) {
        0 => format!("guests = [\"{}-*\"]", dice.one(&FAMILIES)),
        1 => format!("guests = [\"?*-{}\", \"{}\"]", dice.below(9), name(dice)),
        2 => format!(
            "guest_labels = {{ app = \"{}\" }}",
            dice.one(&["shop", "mail", "e*"])
        ),
        3 => "guest_labels = { group = \"g1\" }".to_owned(),
        _ => {
            let names: Vec<String> = (0..2 + dice.below(3))
                .map(|_| format!("{:?}", name(dice)))
                .collect();
            format!("guests = [{}]", names.join(", "))
        }
    }
}

fn wild_rule(dice: &mut Dice, snapshot: &Snapshot, at: u64) -> String {
    let guests = guests_of(dice, snapshot);
    let strength = dice.one(&["must", "should"]);
    let end = format!("{guests}\nstrength = \"{strength}\"\n");
    match dice.below(9) {
        0..=3 => {
            let over = dice.one(&[
                "",
                "",
                "over = \"rack\"\n",
                "over = \"room\"\n",
                "over = \"licence\"\n",
            ]);
            format!("[anti_affinity.r{at}]\n{over}{end}")
        }
        4..=5 => format!("[affinity.r{at}]\n{end}"),
        6..=7 => {
            let hosts = match dice.below(5) {
                3 => format!("not_hosts = [\"h{}\"]", dice.below(6)),
                4 => "not_host_labels = { licence = \"*\" }".to_owned(),
                0 => format!("hosts = [\"h{}\", \"h{}\"]", dice.below(6), dice.below(6)),
                1 => "host_labels = { rack = \"rack?\", room = \"room0\" }".to_owned(),
                _ => format!("host_labels = {{ licence = \"licence{}\" }}", dice.below(2)),
            };
            format!("[pin.r{at}]\n{hosts}\n{end}")
        }
        _ => format!("[opt_out.r{at}]\n{guests}\n"),
    }
}

/// A policy for a fleet. A rule that contradicts another by its text alone is left out.
pub(crate) fn policy(seed: u64, snapshot: &Snapshot) -> Policy {
    let mut dice = Dice(seed ^ 0x5eed);
    let per_host = 1 + dice.below(4);
    let mut text = format!(
        "schema = 1\nstrategy = \"{}\"\naggressiveness = {}\n[limits]\nmigrations_per_host = {per_host}\n\
         migrations_per_cluster = {}\nmemory_headroom = {}\nmemory_overcommit = {}\n",
        dice.one(&["contention", "contention", "spread", "consolidate"]),
        1 + dice.below(5),
        per_host + dice.below(8),
        dice.one(&["0.05", "0.0", "0.2"]),
        dice.one(&["1.0", "1.0", "1.25", "0.9"]),
    );
    if dice.rarely(4) {
        text += &format!("migrations_per_link = {}\n", 1 + dice.below(3));
    }
    if dice.rarely(5) {
        text += &format!("max_guests_per_host = {}\n", 2 + dice.below(12));
    }
    if dice.rarely(5) {
        text += &format!("reserve_host_failures = {}\n", 1 + dice.below(2));
    }
    text += &format!(
        "[price]\nmigration_guest_seconds = {}\nbalance = {}\npowered_host = {}\nshould_rule = {}\n",
        dice.one(&["60.0", "60.0", "5.0", "0.01"]),
        dice.one(&["1.0", "5.0", "0.0"]),
        dice.one(&["0.5", "3.0"]),
        dice.one(&["0.1", "1.0", "0.0"]),
    );
    text += &format!(
        "[migration]\nauto_converge = {}\nbandwidth_limit_mib_s = {}\ndowntime_limit = \"{}ms\"\n{}",
        dice.one(&["true", "false"]),
        dice.one(&["0.0", "0.0", "80.0"]),
        dice.one(&["300", "300", "20", "2000"]),
        dice.one(&[
            "",
            "",
            "downtime_steps = [\"2500ms\", \"9s\"]\n",
            "post_copy = true\n"
        ]),
    );
    for at in 0..dice.one(&[0, 1, 2, 4, 7]) {
        let with = text.clone() + &wild_rule(&mut dice, snapshot, at);
        if Policy::parse(&with).is_ok() {
            text = with;
        }
    }
    Policy::parse(&text).unwrap()
}

/// Makes the two such that nothing has to move: what is broken may stay so, and nothing is drained.
pub(crate) fn calm(snapshot: &mut Snapshot, policy: &mut Policy) {
    for host in &mut snapshot.hosts {
        if host.state == HostState::Draining {
            host.state = HostState::Active;
        }
        let flies_here = |g: &Guest| {
            let mut flights = snapshot.in_flight.iter().filter(|f| f.guest == g.name);
            flights.any(|f| f.from == host.name || f.to == host.name)
        };
        let here = snapshot
            .guests
            .iter()
            .filter(|g| g.host == host.name || flies_here(g));
        let held = here.map(|g| g.memory_mib).sum::<u64>() as f64;
        let least = (held / policy.limits.memory_overcommit).ceil() as u64 + 1;
        host.memory_mib = host.memory_mib.max(least);
    }
    policy.limits.max_guests_per_host = 0;
    for rule in &mut policy.rules {
        if rule.kind != RuleKind::OptOut {
            rule.strength = Strength::Should;
        }
    }
}
