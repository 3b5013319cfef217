//! The seven families of fleets, at any size.
//!
//! A family says how loaded and how full each host is; its guests are then drawn and scaled to that, so that fleets
//! of one family look alike at every size. Where values must be rounded they are, so that the JSON and the
//! fleet in memory are the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use evenkeel_planner::{Guest, Host, HostState, Policy, Snapshot, Strategy};

use crate::dice::Dice;

/// A kind of fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Family {
    /// One host in ten wants more than it has, the others are at ease: few moves help.
    HotSpot,
    /// Every host has its own load, between a third and nine tenths.
    RandomSkew,
    /// One host in five has just been added and is empty.
    NewEmptyHosts,
    /// One host (two from 20 on) is being drained, the others are skewed.
    Maintenance,
    /// Memory is allocated to 92 %, and loaded hosts have the room that idle ones lack: only swaps and
    /// chains help.
    FullMemory,
    /// Two thirds of the guests are in must anti-affinity groups, by host or by rack.
    AntiAffinity,
    /// Hosts of 16, 32 and 64 cores.
    ThreeSizes,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::HotSpot,
        Self::RandomSkew,
        Self::NewEmptyHosts,
        Self::Maintenance,
        Self::FullMemory,
        Self::AntiAffinity,
        Self::ThreeSizes,
    ];

    /// The name on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HotSpot => "hot_spot",
            Self::RandomSkew => "random_skew",
            Self::NewEmptyHosts => "new_empty_hosts",
            Self::Maintenance => "maintenance",
            Self::FullMemory => "full_memory",
            Self::AntiAffinity => "anti_affinity",
            Self::ThreeSizes => "three_sizes",
        }
    }
}

/// A fleet and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The fleet.
    pub snapshot: Snapshot,
    /// The rules, as lines of a policy file.
    rules: String,
}

impl Fleet {
    /// The text of a policy file for this fleet: aggressiveness 5, so that a move need save no more than it costs
    /// within an hour.
    #[must_use]
    pub fn policy_text(&self, strategy: Strategy) -> String {
        let rules = &self.rules;
        format!("schema = 1\nstrategy = \"{strategy}\"\naggressiveness = 5\n{rules}")
    }

    /// The same, read.
    ///
    /// # Errors
    /// When the text is no policy, which would be a fault of the generator.
    pub fn policy(&self, strategy: Strategy) -> anyhow::Result<Policy> {
        Policy::parse(&self.policy_text(strategy)).context("the family's policy")
    }
}

/// What a host is to look like.
#[derive(Debug, Clone, Copy)]
struct Target {
    cores: f64,
    memory_mib: u64,
    guests: usize,
    /// CPU demand over cores.
    cpu: f64,
    /// Allocated over offered memory.
    memory: f64,
    state: HostState,
}

const GIB: u64 = 1024;
/// Memory sizes that operators offer, and how often each is taken, in percent.
const LADDER: [(u64, usize); 5] = [(2, 15), (4, 30), (8, 30), (16, 18), (32, 7)];
/// Sizes where memory is what is sold: none fits into what is left of a full host.
const LARGE_LADDER: [(u64, usize); 5] = [(8, 25), (12, 30), (16, 25), (20, 12), (24, 8)];
/// Corrections of drawn sizes until a host is as full as wanted, at most.
const MAX_CORRECTIONS: usize = 400;
/// Share of its vCPUs that a guest uses at most.
const BUSIEST: f64 = 0.98;
/// Hosts in one rack.
const RACK: usize = 4;

/// The fleet of a family with that many hosts (at least 3) and that seed.
#[must_use]
pub fn generate(family: Family, hosts: usize, seed: u64) -> Fleet {
    generate_with(family, hosts, seed, None)
}

/// The same with a fixed number of guests on every host that has any.
#[must_use]
pub fn generate_with(family: Family, hosts: usize, seed: u64, per_host: Option<usize>) -> Fleet {
    let hosts = hosts.max(3);
    // Families and sizes with the same seed have nothing in common.
    let mut dice = Dice::new(seed);
    let size = u64::try_from(hosts).unwrap_or(u64::MAX);
    for part in family.name().bytes().map(u64::from).chain([size]) {
        dice = Dice::new(dice.roll() ^ part);
    }
    let mut snapshot = Snapshot::new(family.name(), jiff::Timestamp::UNIX_EPOCH);
    for (at, mut target) in targets(family, hosts, &mut dice).into_iter().enumerate() {
        target.guests = per_host.map_or(target.guests, |n| n.min(target.guests * n));
        add_host(&mut snapshot, family, at, &target, hosts, &mut dice);
    }
    let rules = if family == Family::AntiAffinity {
        keep_apart(&mut snapshot, &mut dice)
    } else {
        String::new()
    };
    Fleet { snapshot, rules }
}

/// Loads of the hosts whose load is skewed: from a third to nine tenths of the cores, or about it.
const SKEW: f64 = 0.31;

fn targets(family: Family, hosts: usize, dice: &mut Dice) -> Vec<Target> {
    // Each host has a slice of the range to itself, so that small fleets are as skewed as large ones.
    let mut slices: Vec<usize> = (0..hosts).collect();
    dice.shuffle(&mut slices);
    let mut targets: Vec<Target> = slices
        .into_iter()
        .enumerate()
        .map(|(at, slice)| {
            let place = (count(slice) + dice.unit()) / count(hosts);
            let skew = SKEW * (2.0 * place - 1.0);
            match family {
                Family::HotSpot => hot_spot(at, dice),
                Family::RandomSkew | Family::AntiAffinity => medium(dice, 0.6 + skew, 0.63),
                Family::NewEmptyHosts => new_empty(at, dice),
                Family::Maintenance => medium(dice, 0.56 + skew, 0.55),
                Family::FullMemory => full_memory(at, dice),
                Family::ThreeSizes => three_sizes(at, 0.64 + skew, dice),
            }
        })
        .collect();
    dice.shuffle(&mut targets);
    if family == Family::Maintenance {
        let drained = if hosts < 20 { 1 } else { 2 };
        for target in &mut targets[..drained] {
            target.state = HostState::Draining;
        }
    }
    targets
}

/// 32 cores and 256 GiB with 15 to 20 guests, filled about that far.
fn medium(dice: &mut Dice, cpu: f64, memory: f64) -> Target {
    Target {
        cores: 32.0,
        memory_mib: 256 * GIB,
        guests: 15 + dice.below(6),
        cpu,
        memory: dice.between(memory - 0.08, memory + 0.08),
        state: HostState::Active,
    }
}

fn hot_spot(at: usize, dice: &mut Dice) -> Target {
    let cpu = if at.is_multiple_of(10) {
        dice.between(0.97, 1.13)
    } else {
        dice.between(0.42, 0.62)
    };
    medium(dice, cpu, 0.63)
}

fn new_empty(at: usize, dice: &mut Dice) -> Target {
    let cpu = dice.between(0.68, 0.92);
    let target = medium(dice, cpu, 0.75);
    if at.is_multiple_of(5) {
        Target {
            guests: 0,
            ..target
        }
    } else {
        target
    }
}

/// Two hosts in five are loaded and have a sixth of their memory free, the others are idle and full.
fn full_memory(at: usize, dice: &mut Dice) -> Target {
    if at % 5 < 2 {
        let cpu = dice.between(0.82, 1.02);
        medium(dice, cpu, 0.84)
    } else {
        let cpu = dice.between(0.35, 0.55);
        let target = medium(dice, cpu, 0.0);
        Target {
            memory: dice.between(0.97, 0.99),
            ..target
        }
    }
}

fn three_sizes(at: usize, cpu: f64, dice: &mut Dice) -> Target {
    let target = medium(dice, cpu, 0.63);
    match at % 3 {
        0 => Target {
            cores: 16.0,
            memory_mib: 128 * GIB,
            guests: 15,
            ..target
        },
        1 => target,
        _ => Target {
            cores: 64.0,
            memory_mib: 512 * GIB,
            guests: 20,
            ..target
        },
    }
}

fn add_host(
    snapshot: &mut Snapshot,
    family: Family,
    at: usize,
    target: &Target,
    hosts: usize,
    dice: &mut Dice,
) {
    let name = format!("h{:04}", at + 1);
    // Small fleets have small racks, so that rules over racks mean something.
    let rack = at / RACK.min(hosts.div_ceil(4));
    snapshot.hosts.push(Host {
        name: name.clone(),
        state: target.state,
        cpu_cores: target.cores,
        memory_mib: target.memory_mib,
        labels: BTreeMap::from([("rack".to_owned(), format!("r{:03}", rack + 1))]),
        ..Host::default()
    });
    let ladder = if family == Family::FullMemory {
        &LARGE_LADDER
    } else {
        &LADDER
    };
    let sizes = sizes(ladder, target, dice);
    let mut guests: Vec<Guest> = sizes
        .into_iter()
        .enumerate()
        .map(|(n, gib)| draw(format!("g{:04}-{:02}", at + 1, n + 1), &name, gib, dice))
        .collect();
    scale(&mut guests, target.cpu * target.cores);
    for guest in &mut guests {
        let deviation = dice.between(0.1, 0.4) * guest.cpu_demand_cores;
        guest.cpu_demand_stddev_cores = rounded(deviation);
    }
    snapshot.guests.append(&mut guests);
}

/// Memory sizes (GiB) of a host's guests: drawn, then corrected until the host is as full as wanted.
fn sizes(ladder: &[(u64, usize); 5], target: &Target, dice: &mut Dice) -> Vec<u64> {
    let mut steps: Vec<usize> = (0..target.guests)
        .map(|_| {
            let mut percent = dice.below(100);
            let mut step = 0;
            while percent >= ladder[step].1 && step + 1 < ladder.len() {
                percent -= ladder[step].1;
                step += 1;
            }
            step
        })
        .collect();
    let wanted = whole(target.memory * whole_to_float(target.memory_mib / GIB));
    let sum = |steps: &[usize]| -> u64 { steps.iter().map(|&s| ladder[s].0).sum() };
    for _ in 0..MAX_CORRECTIONS {
        let off = sum(&steps).abs_diff(wanted);
        if off == 0 || steps.is_empty() {
            break;
        }
        let (guest, up) = (dice.below(steps.len()), sum(&steps) < wanted);
        let old = steps[guest];
        let new = if up {
            (old + 1).min(4)
        } else {
            old.saturating_sub(1)
        };
        steps[guest] = new;
        // Never above: a host that is full is full.
        if sum(&steps).abs_diff(wanted) >= off || sum(&steps) > wanted && up {
            steps[guest] = old;
        }
    }
    steps.into_iter().map(|step| ladder[step].0).collect()
}

/// A guest of that size: about a vCPU for 4 GiB, a demand that is mostly low, a working set of a third to
/// six tenths, a dirty rate that is mostly low.
fn draw(name: String, host: &str, gib: u64, dice: &mut Dice) -> Guest {
    let middle = (gib / 4).max(1).ilog2();
    let shift = dice.below(3);
    let vcpus = match shift {
        0 => 1 << middle.saturating_sub(1),
        1 => 1 << middle,
        _ => 1_u32 << (middle + 1).min(4),
    };
    let (u, w) = (dice.unit(), dice.unit());
    let memory_mib = gib * GIB;
    Guest {
        name,
        host: host.to_owned(),
        vcpus,
        cpu_demand_cores: f64::from(vcpus) * (0.03 + 0.95 * u * u),
        memory_mib,
        memory_active_mib: Some(whole(dice.between(0.33, 0.6) * whole_to_float(memory_mib))),
        dirty_rate_mib_s: rounded(2.0 + 250.0 * w * w * w),
        ..Guest::default()
    }
}

/// Scales the guests' demands until they add up, none above what its vCPUs can do.
fn scale(guests: &mut [Guest], wanted: f64) {
    for _ in 0..40 {
        let sum: f64 = guests.iter().map(|g| g.cpu_demand_cores).sum();
        if sum <= 0.0 {
            return;
        }
        for guest in guests.iter_mut() {
            let most = BUSIEST * f64::from(guest.vcpus);
            guest.cpu_demand_cores = (guest.cpu_demand_cores * wanted / sum).min(most);
        }
    }
    for guest in guests {
        guest.cpu_demand_cores = rounded(guest.cpu_demand_cores);
    }
}

/// Puts two thirds of the guests into groups of two to five that stand on different hosts or racks already,
/// and returns the rules.
fn keep_apart(snapshot: &mut Snapshot, dice: &mut Dice) -> String {
    let rack_of: BTreeMap<String, String> = snapshot
        .hosts
        .iter()
        .map(|h| (h.name.clone(), h.labels["rack"].clone()))
        .collect();
    let racks = rack_of
        .values()
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    let mut open: Vec<usize> = (0..snapshot.guests.len()).collect();
    dice.shuffle(&mut open);
    let mut left = open.len() * 2 / 3;
    let mut rules = String::new();
    let mut group = 0;
    while left > 1 && open.len() > 1 {
        group += 1;
        let over_racks = dice.below(3) == 0;
        let places = if over_racks { racks } else { rack_of.len() };
        // One place at least stays free, so that somebody can move.
        let wanted = (2 + dice.below(4)).min(places - 1).max(2);
        let place = |g: &usize| {
            let host = &snapshot.guests[*g].host;
            if over_racks {
                rack_of[host].clone()
            } else {
                host.clone()
            }
        };
        let mut members: Vec<usize> = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        open.retain(|g| {
            let joins = members.len() < wanted && taken.insert(place(g));
            if joins {
                members.push(*g);
            }
            !joins
        });
        left = left.saturating_sub(members.len());
        let app = format!("a{group:04}");
        for &member in &members {
            snapshot.guests[member]
                .labels
                .insert("app".into(), app.clone());
        }
        let over = if over_racks { "over = \"rack\"\n" } else { "" };
        let _ = write!(
            rules,
            "\n[anti_affinity.{app}]\nguest_labels = {{ app = \"{app}\" }}\nstrength = \"must\"\n{over}"
        );
    }
    rules
}

/// Three decimals.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The nearest whole number of a non-negative float.
#[expect(
    clippy::as_conversions,
    reason = "float to integer `as` saturates, which is what is wanted"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// A count as a float.
fn count(n: usize) -> f64 {
    whole_to_float(u64::try_from(n).unwrap_or(u64::MAX))
}

/// Exact below 2^53.
#[expect(clippy::as_conversions, reason = "sizes of memory are far below 2^53")]
fn whole_to_float(value: u64) -> f64 {
    value as f64
}
