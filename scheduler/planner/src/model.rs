//! A snapshot and a policy, indexed for planning.
//!
//! Hosts and guests are numbered in the order of their names, so that a plan does not depend on the order
//! of a file. What changes while a plan is made stands in [`crate::search`]; this is what stays.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::constants::{Payback, SAMPLES, payback};
use crate::loss::{Load, Shape};
use crate::num::{floor_mib, from_count, from_mib, index, signed};
use crate::plan::BlockReason;
use crate::policy::{Policy, Strategy};
use crate::precopy::{self, Precopy};
use crate::rules::Rules;
use crate::snapshot::{Guest, GuestState, Host, HostState, Snapshot};
use crate::surrogate::{Variance, frozen_variances};

/// Whether shut-off guests are moved off draining hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ShutOffGuests {
    /// They stay, and are named as blocked, but for hosts of which the snapshot says otherwise.
    #[default]
    Stay,
    /// They are moved offline.
    Move,
}

/// A host as planning sees it.
#[derive(Debug, Clone)]
pub(crate) struct HostModel<'a> {
    pub(crate) data: &'a Host,
    pub(crate) shape: Shape,
    /// Memory × overcommit, MiB: never exceeded.
    pub(crate) capacity: i64,
    /// The same less the reserve for host failures: what arrivals may fill.
    pub(crate) open_capacity: i64,
    /// Whether it takes guests.
    pub(crate) takes: bool,
    /// Whether it is one of those whose utilisation should be even.
    pub(crate) counted: bool,
}

/// How free the planner is with a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mobility {
    /// Moved when it pays.
    Free,
    /// Moved only for drains, broken must-rules and memory above its limit.
    ForcedOnly(BlockReason, String),
    /// Never moved.
    Fixed(BlockReason, String),
}

/// A guest as planning sees it.
#[derive(Debug, Clone)]
pub(crate) struct GuestModel<'a> {
    pub(crate) data: &'a Guest,
    pub(crate) load: Load,
    pub(crate) home: usize,
    /// Row of [`Model::profiles`].
    pub(crate) profile: usize,
    pub(crate) mobility: Mobility,
    /// Hosts that it does not return to for gain yet.
    pub(crate) left_lately: Vec<usize>,
    /// Seconds until it is tried again to move it off a draining host, if that failed.
    pub(crate) retry_seconds: Option<i64>,
}

/// A migration that runs already: its guest is on both hosts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) guest: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// What guests hold on a host, whether they stay or leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// Allocated memory, MiB.
    pub(crate) memory: i64,
    pub(crate) guests: i64,
}

/// Everything that stays the same while a plan is made.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) payback: Payback,
    pub(crate) hosts: Vec<HostModel<'a>>,
    pub(crate) guests: Vec<GuestModel<'a>>,
    pub(crate) flights: Vec<Flight>,
    /// Migrations under way that cannot be counted: the guest's name, and why.
    pub(crate) strays: Vec<(&'a str, String)>,
    pub(crate) rules: Rules,
    /// Per profile and host: why a guest of that kind cannot be there, rules over other guests aside.
    pub(crate) profiles: Vec<Vec<Option<BlockReason>>>,
    /// Demand over cores, and allocation over memory, of the counted hosts together.
    pub(crate) mean: (f64, f64),
    /// Independent samples behind each guest's mean demand; infinite where it is taken to be known.
    pub(crate) samples: f64,
}

impl<'a> Model<'a> {
    /// The limited links that a migration takes.
    pub(crate) fn links(&self, from: usize, to: usize) -> impl Iterator<Item = &'a str> {
        let labels = |host: usize| &self.hosts[host].data.labels;
        self.policy.limits.links(labels(from), labels(to))
    }

    /// Indexes a validated snapshot.
    pub(crate) fn new(snapshot: &'a Snapshot, policy: &'a Policy, shut_off: ShutOffGuests) -> Self {
        let mut hosts: Vec<&Host> = snapshot.hosts.iter().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut guests: Vec<&Guest> = snapshot.guests.iter().collect();
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        let rules = Rules::resolve(policy, &hosts, &guests);
        let host_at = numbered(hosts.iter().map(|h| h.name.as_str()));
        let find = |name: &str| host_at.get(name).copied().unwrap_or(0);
        let guest_at = numbered(guests.iter().map(|g| g.name.as_str()));
        let known = snapshot.flights();
        let flights: Vec<Flight> = known
            .counted
            .into_iter()
            .filter_map(|f| {
                let guest = *guest_at.get(f.guest.as_str())?;
                Some(Flight {
                    guest,
                    from: find(&f.from),
                    to: find(&f.to),
                })
            })
            .collect();
        let judge = MobilityJudge {
            snapshot,
            rules: &rules,
            shut_off,
            twice: twice(&guests),
            strays: known
                .uncounted
                .iter()
                .map(|(g, why)| (*g, why.as_str()))
                .collect(),
        };
        let mut profiles = Profiles::new(snapshot.taken_at);
        let models: Vec<GuestModel<'a>> = guests
            .iter()
            .enumerate()
            .map(|(at, guest)| GuestModel {
                data: guest,
                load: Load::of(guest),
                home: find(&guest.host),
                profile: profiles.row(at, guest, find(&guest.host), &hosts, &rules),
                mobility: judge.mobility(at, guest, hosts[find(&guest.host)]),
                left_lately: left_lately(snapshot, guest, &hosts),
                retry_seconds: retry_seconds(snapshot, guest),
            })
            .collect();
        let mut model = Self {
            policy,
            payback: payback(policy.aggressiveness),
            hosts: host_models(&hosts, policy, snapshot.peak_correlation),
            guests: models,
            flights: Vec::new(),
            strays: known.uncounted,
            rules,
            profiles: profiles.rows,
            mean: (0.0, 0.0),
            samples: SAMPLES,
        };
        flights
            .into_iter()
            .for_each(|flight| model.take_off(flight));
        model.mean = mean_utilisation(&model.hosts, &model.guests);
        model
    }

    /// The same model under the frozen-variance surrogate, or as it is.
    pub(crate) fn under(mut self, variance: Variance, snapshot: &Snapshot) -> Self {
        if variance == Variance::Frozen {
            let frozen = frozen_variances(snapshot, self.policy);
            let by_name: BTreeMap<&str, f64> = snapshot
                .hosts
                .iter()
                .zip(frozen)
                .map(|(host, variance)| (host.name.as_str(), variance))
                .collect();
            for host in &mut self.hosts {
                host.shape.frozen_variance = by_name.get(host.data.name.as_str()).copied();
            }
            self.samples = f64::INFINITY;
        }
        self
    }

    /// A migration is under way from now on: its guest belongs to the host it goes to and stays there.
    pub(crate) fn take_off(&mut self, flight: Flight) {
        let to = &self.hosts[flight.to].data.name;
        let guest = &mut self.guests[flight.guest];
        guest.home = flight.to;
        guest.mobility = Mobility::Fixed(BlockReason::InFlight, format!("is on its way to {to}"));
        self.flights.push(flight);
    }

    /// Per guest: the host it is on, or on its way to.
    pub(crate) fn homes(&self) -> Vec<usize> {
        self.guests.iter().map(|g| g.home).collect()
    }

    /// Per host: what guests in flight hold where they leave, until they have left. It is in the way of
    /// others, but no load: that counts where they go.
    pub(crate) fn leaving(&self) -> Vec<Held> {
        let mut leaving = vec![Held::default(); self.hosts.len()];
        for flight in &self.flights {
            let held = &mut leaving[flight.from];
            held.memory += self.guests[flight.guest].load.memory;
            held.guests += 1;
        }
        leaving
    }

    /// What is minimised per host: contention and the strategy's term, guest-seconds per second.
    pub(crate) fn value(&self, host: usize, load: &Load) -> f64 {
        let model = &self.hosts[host];
        let contention = model.shape.loss(load);
        match self.policy.strategy {
            Strategy::Contention => contention,
            Strategy::Spread => contention + self.imbalance(model, load),
            Strategy::Consolidate => {
                let powered = load.memory > 0 || load.vcpus > 0.0;
                contention
                    + if powered {
                        self.policy.price.powered_host
                    } else {
                        0.0
                    }
            }
        }
    }

    /// balance price × cores × ((u − ū)² + (m − m̄)²).
    fn imbalance(&self, host: &HostModel<'_>, load: &Load) -> f64 {
        if !host.counted {
            return 0.0;
        }
        let cpu = host.shape.cpu_utilisation(load) - self.mean.0;
        let memory = host.shape.memory_utilisation(load) - self.mean.1;
        self.policy.price.balance * host.shape.cores * (cpu * cpu + memory * memory)
    }

    /// Slope of [`Self::value`] in the demand: what one more core of demand costs there.
    pub(crate) fn slope(&self, host: usize, load: &Load) -> f64 {
        let model = &self.hosts[host];
        let contention = model.shape.cpu_slope(load) + model.shape.memory_stall(load);
        match self.policy.strategy {
            Strategy::Contention | Strategy::Consolidate => contention,
            Strategy::Spread if model.counted => {
                let cpu = model.shape.cpu_utilisation(load) - self.mean.0;
                contention + 2.0 * self.policy.price.balance * cpu
            }
            Strategy::Spread => contention,
        }
    }

    /// Slope of [`Self::value`] in the allocated memory, per MiB: under `spread` only.
    pub(crate) fn memory_slope(&self, host: usize, load: &Load) -> f64 {
        let model = &self.hosts[host];
        if self.policy.strategy != Strategy::Spread || !model.counted {
            return 0.0;
        }
        let memory = model.shape.memory_utilisation(load) - self.mean.1;
        2.0 * self.policy.price.balance * memory * model.shape.cores / model.shape.memory.max(1.0)
    }

    /// The bandwidth that a migration between two hosts will get, MiB/s.
    pub(crate) fn bandwidth(&self, from: usize, to: usize) -> f64 {
        precopy::bandwidth(self.hosts[from].data, self.hosts[to].data, self.policy)
    }

    /// The predicted migration of a guest at a bandwidth, MiB/s.
    pub(crate) fn copy(&self, guest: usize, bandwidth: f64) -> Precopy {
        precopy::predict(self.guests[guest].data, bandwidth, self.policy)
    }

    /// The predicted migration of a guest between two hosts, and the bandwidth assumed.
    pub(crate) fn precopy(&self, guest: usize, from: usize, to: usize) -> (Precopy, f64) {
        let bandwidth = self.bandwidth(from, to);
        (self.copy(guest, bandwidth), bandwidth)
    }
}

/// Guests whose UUID stands on another guest too.
fn twice(guests: &[&Guest]) -> Vec<bool> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for uuid in guests.iter().filter_map(|g| g.uuid.as_deref()) {
        *count.entry(uuid).or_default() += 1;
    }
    let stands_twice = |g: &&Guest| {
        g.uuid
            .as_deref()
            .is_some_and(|uuid| count.get(uuid).is_some_and(|&n| n > 1))
    };
    guests.iter().map(stands_twice).collect()
}

/// The number of each name.
pub(crate) fn numbered<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    names.zip(0..).collect()
}

/// How long a guest still waits whose last move off its host failed, rounded up.
fn retry_seconds(snapshot: &Snapshot, guest: &Guest) -> Option<i64> {
    let left_ms = guest
        .retry_after?
        .duration_since(snapshot.taken_at)
        .as_millis();
    let left_ms = i64::try_from(left_ms).ok().filter(|left| *left > 0)?;
    Some(left_ms.saturating_add(999) / 1000)
}

/// The hosts that a guest left so lately that it does not return for gain. One that is gone from the fleet is none.
fn left_lately(snapshot: &Snapshot, guest: &Guest, hosts: &[&Host]) -> Vec<usize> {
    let away = |&(_, host): &(usize, &&Host)| {
        let until = guest.left_lately.get(&host.name);
        host.name != guest.host && until.is_some_and(|until| *until > snapshot.taken_at)
    };
    if guest.left_lately.is_empty() {
        return Vec::new();
    }
    let left = hosts.iter().enumerate().filter(away);
    left.map(|(at, _)| at).collect()
}

struct MobilityJudge<'s> {
    snapshot: &'s Snapshot,
    rules: &'s Rules,
    shut_off: ShutOffGuests,
    twice: Vec<bool>,
    /// Guests that are said to be migrating, which does not fit the rest, and why.
    strays: BTreeMap<&'s str, &'s str>,
}

impl MobilityJudge<'_> {
    fn mobility(&self, at: usize, guest: &Guest, host: &Host) -> Mobility {
        if let Some((reason, detail)) = self.fixed(at, guest, host) {
            return Mobility::Fixed(reason, detail);
        }
        if guest.state != GuestState::Running {
            let detail = format!("is {}: it gains nothing by a move", guest.state.as_str());
            return Mobility::ForcedOnly(BlockReason::DoesNotPay, detail);
        }
        self.resting(guest).unwrap_or(Mobility::Free)
    }

    /// A time that its last moves leave it alone for. A copy that did not converge tells more than the cool-down
    /// after it.
    fn resting(&self, guest: &Guest) -> Option<Mobility> {
        let now = self.snapshot.taken_at;
        let left = |until: Timestamp| until.duration_since(now).as_secs();
        if let Some(until) = guest.unconverged_until.filter(|until| *until > now) {
            let detail = format!(
                "its last copy did not converge, at {:.1} MiB/s dirtied; left alone for {} s",
                guest.dirty_rate_mib_s,
                left(until)
            );
            return Some(Mobility::ForcedOnly(BlockReason::NotConverging, detail));
        }
        let until = guest.cooldown_until.filter(|until| *until > now)?;
        let detail = format!("{} s left", left(until));
        Some(Mobility::ForcedOnly(BlockReason::CoolDown, detail))
    }

    fn fixed(&self, at: usize, guest: &Guest, host: &Host) -> Option<(BlockReason, String)> {
        if host.state == HostState::Absent {
            return Some((BlockReason::HostAbsent, format!("{} is silent", host.name)));
        }
        if let Some(why) = self.strays.get(guest.name.as_str()) {
            return Some((BlockReason::StaleData, (*why).to_owned()));
        }
        if self.twice[at] {
            let uuid = guest.uuid.clone().unwrap_or_default();
            return Some((
                BlockReason::DuplicateUuid,
                format!("{uuid} stands on two guests"),
            ));
        }
        if !guest.movable {
            let why = guest
                .unmovable_reason
                .clone()
                .unwrap_or_else(|| "cannot be migrated".into());
            let letters = why.to_lowercase().replace(['-', '_', ' '], "");
            let opted_out = letters.starts_with("optedout") || letters.starts_with("optout");
            let reason = if opted_out {
                BlockReason::OptedOut
            } else {
                BlockReason::Unmovable
            };
            return Some((reason, why));
        }
        if let Some(rule) = &self.rules.opted_out[at] {
            return Some((BlockReason::OptedOut, rule.clone()));
        }
        if let Some(fault) = self.rules.conflict[at] {
            return Some((
                BlockReason::RuleConflict,
                self.rules.faults[fault].rules.join(" and "),
            ));
        }
        let asked = host.state == HostState::Draining && host.offline_too;
        let stays =
            guest.state == GuestState::Shutoff && self.shut_off == ShutOffGuests::Stay && !asked;
        stays.then(|| {
            (
                BlockReason::ShutOff,
                "is shut off; moving it offline was not asked for".into(),
            )
        })
    }
}

fn host_models<'a>(
    hosts: &[&'a Host],
    policy: &Policy,
    peak_correlation: f64,
) -> Vec<HostModel<'a>> {
    let capacity = |host: &Host| {
        floor_mib(from_mib(signed(host.memory_mib)) * policy.limits.memory_overcommit + 1e-6)
    };
    // Filled evenly, the rest of the fleet can take the guests of the largest hosts when they fail.
    let mut sizes: Vec<i64> = hosts
        .iter()
        .filter(|h| h.state == HostState::Active)
        .map(|h| capacity(h))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let all = from_mib(sizes.iter().sum());
    let lost: i64 = sizes
        .iter()
        .take(index(policy.limits.reserve_host_failures))
        .sum();
    let kept = if all > 0.0 {
        (all - from_mib(lost)) / all
    } else {
        1.0
    };
    let model = |host: &&'a Host| HostModel {
        data: host,
        shape: Shape::of(host, policy).correlated(peak_correlation),
        capacity: capacity(host),
        open_capacity: if lost == 0 {
            capacity(host)
        } else {
            floor_mib(from_mib(capacity(host)) * kept)
        },
        takes: host.state == HostState::Active,
        counted: matches!(host.state, HostState::Active | HostState::Cordoned),
    };
    hosts.iter().map(model).collect()
}

fn mean_utilisation(hosts: &[HostModel<'_>], guests: &[GuestModel<'_>]) -> (f64, f64) {
    let counted = || hosts.iter().filter(|h| h.counted);
    let cores: f64 = counted().map(|h| h.shape.cores).sum();
    let memory: f64 = counted().map(|h| h.shape.memory).sum();
    let here = guests.iter().filter(|g| hosts[g.home].shape.present);
    let load = here.fold(Load::default(), |sum, g| sum.plus(&g.load));
    let share = |used: f64, all: f64| if all > 0.0 { used / all } else { 0.0 };
    (
        share(load.demand, cores),
        share(from_mib(load.memory), memory),
    )
}

/// Standard deviation of the counted hosts' CPU utilisation.
pub(crate) fn imbalance_of(hosts: &[HostModel<'_>], loads: &[Load]) -> f64 {
    let values: Vec<f64> = hosts
        .iter()
        .zip(loads)
        .filter(|(h, _)| h.counted)
        .map(|(h, load)| h.shape.cpu_utilisation(load))
        .collect();
    if values.is_empty() {
        return 0.0;
    }
    let n = from_count(values.len());
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt()
}

/// What decides where a guest could run, whatever else runs there.
type ProfileKey<'g> = (
    Vec<&'g str>,
    &'g [String],
    &'g [String],
    Vec<usize>,
    Vec<&'g str>,
);

/// Rows of hosts, shared by all guests with the same needs.
struct Profiles<'g> {
    taken_at: Timestamp,
    known: BTreeMap<ProfileKey<'g>, usize>,
    rows: Vec<Vec<Option<BlockReason>>>,
}

impl<'g> Profiles<'g> {
    fn new(taken_at: Timestamp) -> Self {
        Self {
            taken_at,
            known: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    fn row(
        &mut self,
        at: usize,
        guest: &'g Guest,
        home: usize,
        hosts: &[&'g Host],
        rules: &Rules,
    ) -> usize {
        let classes: Vec<&str> = if guest.cpu_classes.is_empty() {
            vec![hosts[home].cpu_class.as_str()]
        } else {
            guest.cpu_classes.iter().map(String::as_str).collect()
        };
        let pins = rules.pins_of[at]
            .iter()
            .copied()
            .filter(|&p| rules.pins[p].hard)
            .collect();
        let key = (
            classes,
            guest.networks.as_slice(),
            guest.storage.as_slice(),
            pins,
            refusing(self.taken_at, guest),
        );
        if let Some(&row) = self.known.get(&key) {
            return row;
        }
        let row = hosts
            .iter()
            .enumerate()
            .map(|(h, host)| against(&key, h, host, rules))
            .collect();
        self.rows.push(row);
        self.known.insert(key, self.rows.len() - 1);
        self.rows.len() - 1
    }
}

/// Hosts that refused a guest and have not had time to change. Where it is, it was not refused.
fn refusing(taken_at: Timestamp, guest: &Guest) -> Vec<&str> {
    let refused = guest.refused_by.iter();
    refused
        .filter(|(host, by)| **host != guest.host && by.until > taken_at)
        .map(|(host, _)| host.as_str())
        .collect()
}

fn against(key: &ProfileKey<'_>, at: usize, host: &Host, rules: &Rules) -> Option<BlockReason> {
    let lacks = |needs: &[String], has: &[String]| {
        !has.is_empty() && needs.iter().any(|need| !has.contains(need))
    };
    if !key.0.contains(&host.cpu_class.as_str()) {
        Some(BlockReason::IncompatibleCpu)
    } else if lacks(key.1, &host.networks) {
        Some(BlockReason::MissingNetwork)
    } else if lacks(key.2, &host.storage) {
        Some(BlockReason::MissingStorage)
    } else if key.3.iter().any(|&p| !rules.pins[p].allowed[at]) {
        Some(BlockReason::Pinned)
    } else if key.4.contains(&host.name.as_str()) {
        Some(BlockReason::Refused)
    } else {
        None
    }
}
