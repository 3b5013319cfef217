//! Carries a plan out, event by event, and notes whatever breaks that held before.
//!
//! The steps of a wave start and end in any order that a seed gives; one that has started and not ended holds
//! its guest on both hosts. After every single event everything is counted again from nothing.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_planner::policy::RuleKind;
use evenkeel_planner::{
    Guest, GuestState, Host, HostState, Plan, Policy, Snapshot, Step, StepReason,
};

use crate::fleet::Dice;

/// Where every guest is: one host, or two while it moves.
type Whereabouts<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Something broken, and how badly.
type Broken = BTreeMap<String, u64>;

/// The fleet while the plan runs.
pub(crate) struct Run<'a> {
    snapshot: &'a Snapshot,
    policy: &'a Policy,
    plan: &'a Plan,
    on: Whereabouts<'a>,
    /// Guests that were in flight before the plan and still are.
    flying: BTreeSet<&'a str>,
    broken: Broken,
    faults: Vec<String>,
    dice: Dice,
}

/// Everything that goes wrong when the plan is carried out in one of the orders it allows.
pub(crate) fn faults(snapshot: &Snapshot, policy: &Policy, plan: &Plan, seed: u64) -> Vec<String> {
    let mut run = Run::new(snapshot, policy, plan, Dice(seed));
    let spare = run.keeps_its_reserve();
    run.waves();
    if spare && plan.steps.last().is_some() && !run.outlives_its_largest() {
        run.fault("the largest hosts' guests would find no room".to_owned());
    }
    run.faults
}

impl<'a> Run<'a> {
    fn new(snapshot: &'a Snapshot, policy: &'a Policy, plan: &'a Plan, dice: Dice) -> Self {
        let mut on: Whereabouts<'a> = BTreeMap::new();
        for guest in &snapshot.guests {
            on.insert(&guest.name, vec![&guest.host]);
        }
        for flight in &snapshot.in_flight {
            on.insert(&flight.guest, vec![&flight.from, &flight.to]);
        }
        let flying = snapshot
            .in_flight
            .iter()
            .map(|f| f.guest.as_str())
            .collect();
        let mut run = Self {
            snapshot,
            policy,
            plan,
            on,
            flying,
            broken: Broken::new(),
            faults: Vec::new(),
            dice,
        };
        run.broken = run.look();
        run
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn waves(&mut self) {
        let mut numbers: Vec<u32> = self.plan.steps.iter().map(|s| s.wave).collect();
        if !numbers.is_sorted() || numbers.first() == Some(&0) {
            self.fault(format!("waves {numbers:?} do not rise from 1"));
        }
        numbers.dedup();
        let mut whole = self.whole_groups();
        for (at, &number) in numbers.iter().enumerate() {
            let plan = self.plan;
            let steps: Vec<&Step> = plan.steps.iter().filter(|s| s.wave == number).collect();
            self.limits(number, &steps);
            self.wave(&steps);
            let next = numbers.get(at + 1).copied();
            whole = self.groups(&whole, next);
        }
    }

    fn active(&self) -> impl Iterator<Item = &'a Host> {
        let hosts = self.snapshot.hosts.iter();
        hosts.filter(|h| h.state == HostState::Active)
    }

    fn held_on(&self, host: &Host) -> u64 {
        let here = self.guests_on(&host.name);
        here.iter().map(|g| super::held_mib(g)).sum()
    }

    /// Whether every open host is filled no further than the reserve for host failures allows.
    fn keeps_its_reserve(&self) -> bool {
        self.active()
            .all(|h| self.held_on(h) <= super::open_mib(h, self.snapshot, self.policy))
    }

    /// Whether the guests of the largest hosts would fit on the others, by their memory in all.
    fn outlives_its_largest(&self) -> bool {
        let limit = |h: &&Host| super::limit_mib(h, self.policy);
        let mut hosts: Vec<&Host> = self.active().collect();
        hosts.sort_by_key(|h| std::cmp::Reverse(limit(h)));
        let failures = self.policy.limits.reserve_host_failures as usize;
        let (lost, left) = hosts.split_at(failures.min(hosts.len()));
        let homeless: u64 = lost.iter().map(|h| self.held_on(h)).sum();
        let room: u64 = left
            .iter()
            .map(|h| limit(h).saturating_sub(self.held_on(h)))
            .sum();
        // Each host's share is rounded down to a MiB.
        homeless <= room + hosts.len() as u64
    }

    /// Migrations at a time: all steps of the wave at once, beside those that ran before in the first.
    fn limits(&mut self, number: u32, steps: &[&Step]) {
        let mut at: BTreeMap<&str, u32> = BTreeMap::new();
        let mut links: BTreeMap<&str, u32> = BTreeMap::new();
        let mut all = 0;
        let flights = self.snapshot.in_flight.iter().filter(|_| number == 1);
        let flights = flights.map(|f| (f.from.as_str(), f.to.as_str(), false));
        let starts = steps.iter().map(|s| (s.from.as_str(), s.to.as_str(), true));
        for (from, to, starts) in flights.chain(starts) {
            *at.entry(from).or_default() += 1;
            *at.entry(to).or_default() += 1;
            all += 1;
            let limits = &self.policy.limits;
            let most = at[from].max(at[to]);
            let rack = |name: &str| {
                let host = self.snapshot.hosts.iter().find(|h| h.name == name);
                host.and_then(|h| h.labels.get(&limits.link_label))
            };
            for link in [rack(from), rack(to)].into_iter().flatten() {
                *links.entry(link).or_default() += u32::from(rack(from) != rack(to));
                let limit = limits.migrations_per_link;
                if starts && limit > 0 && rack(from) != rack(to) && links[link.as_str()] > limit {
                    let what = format!(
                        "wave {number}: {} over the link of {link}",
                        links[link.as_str()]
                    );
                    self.faults.push(what);
                }
            }
            if starts && (all > limits.migrations_per_cluster || most > limits.migrations_per_host)
            {
                let what = format!("wave {number}: {all} migrations, {most} at {from} or {to}");
                self.faults.push(what);
            }
        }
    }

    fn wave(&mut self, steps: &[&'a Step]) {
        let mut waiting: Vec<&Step> = steps.to_vec();
        let mut moving: Vec<&Step> = Vec::new();
        // Half of the times everybody is under way before the first arrives: the worst moment.
        let together = self.dice.below(2) == 0;
        for _ in 0..2 * steps.len() {
            let starts =
                !waiting.is_empty() && (moving.is_empty() || together || self.dice.below(2) == 0);
            if starts {
                let step = waiting.swap_remove(self.pick(waiting.len()));
                self.may_start(step);
                self.on.insert(&step.guest, vec![&step.from, &step.to]);
                moving.push(step);
            } else if !moving.is_empty() {
                let step = moving.swap_remove(self.pick(moving.len()));
                self.on.insert(&step.guest, vec![&step.to]);
            }
            self.compare();
            self.maybe_land();
        }
    }

    fn pick(&mut self, of: usize) -> usize {
        self.dice.below(of as u64) as usize
    }

    /// One of the migrations that ran before the plan may end at any time.
    fn maybe_land(&mut self) {
        let first = self.flying.first().copied();
        if let Some(guest) = first.filter(|_| self.dice.below(6) == 0) {
            self.flying.remove(guest);
            let target = self.on[guest][1];
            self.on.insert(guest, vec![target]);
            self.compare();
        }
    }

    fn compare(&mut self) {
        let now = self.look();
        for (what, &how) in &now {
            if how > self.broken.get(what).copied().unwrap_or(0) {
                self.faults.push(format!("{what} by {how}"));
            }
        }
        self.broken = now;
    }

    /// All that is broken at this moment.
    fn look(&self) -> Broken {
        let mut broken = Broken::new();
        for host in &self.snapshot.hosts {
            let here = self.guests_on(&host.name);
            let held: u64 = here.iter().map(|g| super::held_mib(g)).sum();
            let over = held.saturating_sub(super::limit_mib(host, self.policy));
            broken.insert(format!("memory of {}", host.name), over);
            let most = u64::from(self.policy.limits.max_guests_per_host);
            if most > 0 {
                let over = (here.len() as u64).saturating_sub(most);
                broken.insert(format!("guests of {}", host.name), over);
            }
        }
        self.look_apart(&mut broken);
        broken
    }

    fn guests_on(&self, host: &str) -> Vec<&'a Guest> {
        let guests = self.snapshot.guests.iter();
        guests
            .filter(|g| self.on[g.name.as_str()].contains(&host))
            .collect()
    }

    fn look_apart(&self, broken: &mut Broken) {
        for rule in self.policy.rules.iter().filter(|r| super::must(r)) {
            let RuleKind::AntiAffinity { over } = &rule.kind else {
                continue;
            };
            let members = super::members(rule, self.snapshot);
            let mut places: BTreeMap<Option<String>, BTreeSet<&str>> = BTreeMap::new();
            for member in members {
                for host in &self.on[member.name.as_str()] {
                    let host = super::host(self.snapshot, host);
                    let place = super::place(over.as_deref(), host);
                    places.entry(place).or_default().insert(&member.name);
                }
            }
            for (place, here) in places {
                for a in &here {
                    for b in here.range(*a..).skip(1) {
                        let what = format!("{}: {a} and {b} in {place:?}", rule.name);
                        broken.insert(what, 1);
                    }
                }
            }
        }
    }

    /// The must-affinity rules whose guests are all on one host.
    fn whole_groups(&self) -> BTreeSet<&'a str> {
        let rules = self.policy.rules.iter();
        let groups = rules.filter(|r| super::must(r) && r.kind == RuleKind::Affinity);
        let flies = |g: &&Guest| self.snapshot.in_flight.iter().any(|f| f.guest == g.name);
        groups
            .filter(|rule| {
                let members = super::members(rule, self.snapshot);
                let hosts: BTreeSet<&Vec<&str>> =
                    members.iter().map(|g| &self.on[g.name.as_str()]).collect();
                hosts.len() == 1 && !members.iter().any(flies)
            })
            .map(|rule| rule.name.as_str())
            .collect()
    }

    /// A group that was whole is so again after a wave, or goes on in the next one.
    fn groups(&mut self, whole: &BTreeSet<&'a str>, next: Option<u32>) -> BTreeSet<&'a str> {
        let now = self.whole_groups();
        let mut judged = now.clone();
        for &name in whole.difference(&now) {
            let rules = &self.policy.rules;
            let rule = rules
                .iter()
                .find(|r| r.name == name && r.kind == RuleKind::Affinity);
            let members = super::members(rule.unwrap(), self.snapshot);
            let mut steps = self.plan.steps.iter();
            let goes_on =
                steps.any(|s| Some(s.wave) == next && members.iter().any(|m| m.name == s.guest));
            if goes_on {
                judged.insert(name);
            } else {
                self.fault(format!("affinity {name} is torn before wave {next:?}"));
            }
        }
        judged
    }

    /// Whether this guest may go there at all, now.
    fn may_start(&mut self, step: &'a Step) {
        let (snapshot, policy) = (self.snapshot, self.policy);
        let guest = super::guest(snapshot, &step.guest);
        let (from, to) = (
            super::host(snapshot, &step.from),
            super::host(snapshot, &step.to),
        );
        let twin = |g: &&Guest| g.uuid.is_some() && g.uuid == guest.uuid && g.name != guest.name;
        let opted_out = |r: &&evenkeel_planner::policy::Rule| {
            r.kind == RuleKind::OptOut
                && super::members(r, snapshot)
                    .iter()
                    .any(|m| m.name == guest.name)
        };
        let still = |until: Option<jiff::Timestamp>| until.is_some_and(|u| u > snapshot.taken_at);
        let rests = still(guest.cooldown_until) || still(guest.unconverged_until);
        let stays_away = guest
            .left_lately
            .get(&step.to)
            .is_some_and(|until| *until > snapshot.taken_at);
        let refused = guest.refused_by.get(&step.to).map(|by| by.until);
        let refused = step.to != guest.host && still(refused);
        let held = self
            .guests_on(&step.to)
            .iter()
            .map(|g| super::held_mib(g))
            .sum::<u64>();
        let needs = super::held_mib(guest);
        let in_reserve = needs > 0 && held + needs > super::open_mib(to, snapshot, policy);
        let objections = [
            (
                self.on[step.guest.as_str()] != vec![step.from.as_str()],
                "is not there",
            ),
            (step.from == step.to, "stays"),
            (!guest.movable, "is unmovable"),
            (snapshot.guests.iter().any(|g| twin(&g)), "has a twin"),
            (policy.rules.iter().any(|r| opted_out(&r)), "is opted out"),
            (
                snapshot.in_flight.iter().any(|f| f.guest == guest.name),
                "is in flight",
            ),
            (from.state == HostState::Absent, "leaves a silent host"),
            (to.state != HostState::Active, "goes to a closed host"),
            (
                !super::suits(policy, snapshot, guest, to),
                "does not suit the target",
            ),
            (in_reserve, "takes what is kept for host failures"),
            (guest.state == GuestState::Shutoff, "is shut off"),
            (
                self.gains(step) && guest.state == GuestState::Paused,
                "is paused",
            ),
            (self.gains(step) && rests, "rests"),
            (refused, "was refused there lately"),
            (self.gains(step) && stays_away, "returns too soon"),
            (
                !super::loss::copy(guest, (from, to), 0.0, policy).converges,
                "does not converge",
            ),
        ];
        for (_, why) in objections.iter().filter(|(applies, _)| *applies) {
            self.faults
                .push(format!("{} to {}: {why}", step.guest, step.to));
        }
        self.waits_rightly(step);
    }

    /// Whether a step is there for the gain only. Memory above its limit must go in any case.
    fn gains(&self, step: &Step) -> bool {
        match step.reason {
            StepReason::RelieveCpu | StepReason::Spread | StepReason::Consolidate => true,
            StepReason::RelieveMemory => {
                let held = |g: &&Guest| {
                    let flight = self.snapshot.in_flight.iter().find(|f| f.guest == g.name);
                    g.host == step.from
                        || flight.is_some_and(|f| f.from == step.from || f.to == step.from)
                };
                let guests = self.snapshot.guests.iter().filter(held);
                let host = super::host(self.snapshot, &step.from);
                guests.map(super::held_mib).sum::<u64>() <= super::limit_mib(host, self.policy)
            }
            StepReason::Drain
            | StepReason::RepairRule
            | StepReason::MakeRoom
            | StepReason::Manual => false,
        }
    }

    /// `after` names steps of earlier waves.
    fn waits_rightly(&mut self, step: &Step) {
        for &number in &step.after {
            let earlier = number.checked_sub(1).and_then(|at| self.plan.steps.get(at));
            if earlier.is_none_or(|e| e.wave >= step.wave) {
                self.fault(format!("{} waits for step {number}", step.guest));
            }
        }
    }
}
