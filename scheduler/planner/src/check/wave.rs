//! One wave, all of its steps under way at the same time: the worst moment for every limit.

use std::collections::BTreeMap;

use super::{Fleet, Violation, ViolationKind};
use crate::num::{floor_mib, from_count, from_mib, index, signed};
use crate::plan::{Plan, Step};
use crate::snapshot::{GuestState, HostState};

/// A step of the wave, by index.
#[derive(Debug, Clone, Copy)]
struct Going {
    step: usize,
    guest: usize,
    from: usize,
    to: usize,
}

impl Fleet<'_> {
    /// Judges the steps `first..end` of the plan, then brings their guests to their targets.
    pub(super) fn run_wave(&mut self, plan: &Plan, first: usize, end: usize) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut going: Vec<Going> = Vec::new();
        for (offset, step) in plan.steps[first..end].iter().enumerate() {
            let number = first + offset + 1;
            match self.resolve(number, step) {
                Err(violation) => found.push(violation),
                Ok(g) if going.iter().any(|other| other.guest == g.guest) => {
                    found.push(violation(
                        number,
                        ViolationKind::Waves,
                        format!("{} moves twice in a wave", step.guest),
                    ));
                }
                Ok(g) => {
                    found.extend(self.allowed(&g));
                    going.push(g);
                }
            }
        }
        let first_wave = plan
            .steps
            .first()
            .is_some_and(|s| s.wave == plan.steps[first].wave)
            && plan.steps[first].wave == 1;
        found.extend(self.capacity(&going));
        found.extend(self.limits(&going, first_wave));
        found.extend(self.apart(&going));
        for g in &going {
            self.at[g.guest] = g.to;
        }
        found.extend(self.together(plan, end));
        found
    }

    fn resolve(&self, number: usize, step: &Step) -> Result<Going, Violation> {
        let bad = |detail: String| violation(number, ViolationKind::Reference, detail);
        let host = |name: &str| {
            self.hosts
                .iter()
                .position(|h| h.name == name)
                .ok_or_else(|| bad(format!("no host {name:?}")))
        };
        let guest = self.guests.iter().position(|g| g.name == step.guest);
        let guest = guest.ok_or_else(|| bad(format!("no guest {:?}", step.guest)))?;
        let (from, to) = (host(&step.from)?, host(&step.to)?);
        if self.at[guest] != from || from == to {
            let here = &self.hosts[self.at[guest]].name;
            return Err(bad(format!(
                "{} is on {here}, to go from {} to {}",
                step.guest, step.from, step.to
            )));
        }
        Ok(Going {
            step: number,
            guest,
            from,
            to,
        })
    }

    /// Whether this guest may move at all, and be there.
    fn allowed(&self, g: &Going) -> Vec<Violation> {
        let (guest, from, to) = (self.guests[g.guest], self.hosts[g.from], self.hosts[g.to]);
        let mut found = Vec::new();
        let mut bad = |kind, detail: String| found.push(violation(g.step, kind, detail));
        if !guest.movable {
            bad(
                ViolationKind::NotAllowed,
                format!("{} is unmovable", guest.name),
            );
        }
        if self.rules.opted_out[g.guest].is_some() {
            bad(
                ViolationKind::NotAllowed,
                format!("{} is opted out", guest.name),
            );
        }
        if self.flights.iter().any(|&(flying, _)| flying == g.guest) {
            bad(
                ViolationKind::NotAllowed,
                format!("{} is in flight", guest.name),
            );
        }
        if to.state != HostState::Active || from.state == HostState::Absent {
            bad(
                ViolationKind::NotAllowed,
                format!("{} is {}", to.name, to.state.as_str()),
            );
        }
        let home = &self.hosts[self.start[g.guest]].cpu_class;
        let class_fits = if guest.cpu_classes.is_empty() {
            to.cpu_class == *home
        } else {
            guest.cpu_classes.contains(&to.cpu_class)
        };
        let has = |needs: &[String], there: &[String]| {
            there.is_empty() || needs.iter().all(|n| there.contains(n))
        };
        if !class_fits || !has(&guest.networks, &to.networks) || !has(&guest.storage, &to.storage) {
            bad(
                ViolationKind::Compatibility,
                format!("{} does not suit {}", to.name, guest.name),
            );
        }
        let refused = guest.refused_by.get(&to.name);
        if refused.is_some_and(|by| by.until > self.taken_at && to.name != guest.host) {
            bad(
                ViolationKind::NotAllowed,
                format!("{} refused {} lately", to.name, guest.name),
            );
        }
        for &pin in &self.rules.pins_of[g.guest] {
            let pin = &self.rules.pins[pin];
            if pin.hard && !pin.allowed[g.to] {
                bad(
                    ViolationKind::Rule,
                    format!("{} forbids {} for {}", pin.name, to.name, guest.name),
                );
            }
        }
        found
    }

    fn held_memory(&self, guest: usize) -> i64 {
        match self.guests[guest].state {
            GuestState::Running | GuestState::Paused => signed(self.guests[guest].memory_mib),
            GuestState::Shutoff => 0,
        }
    }

    fn limit_of(&self, host: usize) -> i64 {
        let memory = from_mib(signed(self.hosts[host].memory_mib));
        floor_mib(memory * self.policy.limits.memory_overcommit + 1e-6)
    }

    /// Per host: memory and guests now, those of migrations in flight on both hosts.
    fn residents(&self) -> (Vec<i64>, Vec<i64>) {
        let mut memory = vec![0; self.hosts.len()];
        let mut guests = vec![0; self.hosts.len()];
        let here = self.at.iter().copied().enumerate();
        for (guest, host) in here.chain(self.flights.iter().copied()) {
            memory[host] += self.held_memory(guest);
            guests[host] += 1;
        }
        (memory, guests)
    }

    /// Everybody who arrives is there before anybody has left.
    fn capacity(&self, going: &[Going]) -> Vec<Violation> {
        let (mut memory, mut guests) = self.residents();
        let most = i64::from(self.policy.limits.max_guests_per_host);
        let mut found = Vec::new();
        for g in going {
            let needs = self.held_memory(g.guest);
            memory[g.to] += needs;
            guests[g.to] += 1;
            let limit = self.limit_of(g.to);
            let name = &self.hosts[g.to].name;
            if needs > 0 && memory[g.to] > limit {
                let detail = format!("{name} would hold {} of {limit} MiB", memory[g.to]);
                found.push(violation(g.step, ViolationKind::Memory, detail));
            }
            if most > 0 && guests[g.to] > most {
                let detail = format!("{name} would have {} guests, at most {most}", guests[g.to]);
                found.push(violation(g.step, ViolationKind::Guests, detail));
            }
        }
        found
    }

    fn limits(&self, going: &[Going], first_wave: bool) -> Vec<Violation> {
        let mut per_host = vec![0_usize; self.hosts.len()];
        let mut per_link: BTreeMap<&str, usize> = BTreeMap::new();
        let mut all = 0;
        let limits = &self.policy.limits;
        let place = |host: usize| {
            let place = self.hosts[host].labels.get(&limits.link_label);
            place.map(String::as_str)
        };
        let mut busiest_link = |from: usize, to: usize| {
            let (from, to) = (place(from), place(to));
            let taken = [from, to].into_iter().flatten().filter(|_| from != to);
            taken
                .map(|link| {
                    let taken = per_link.entry(link).or_default();
                    *taken += 1;
                    *taken
                })
                .max()
                .unwrap_or(0)
        };
        if first_wave {
            for &(guest, from) in &self.flights {
                per_host[from] += 1;
                per_host[self.start[guest]] += 1;
                busiest_link(from, self.start[guest]);
                all += 1;
            }
        }
        let mut found = Vec::new();
        for g in going {
            per_host[g.from] += 1;
            per_host[g.to] += 1;
            all += 1;
            let most = per_host[g.from].max(per_host[g.to]);
            let link = busiest_link(g.from, g.to);
            if limits.migrations_per_link > 0 && link > index(limits.migrations_per_link) {
                let detail = format!("{link} migrations at a link");
                found.push(violation(g.step, ViolationKind::Limits, detail));
            }
            if most > index(limits.migrations_per_host)
                || all > index(limits.migrations_per_cluster)
            {
                let detail = format!("{most} migrations at a host, {all} in the cluster");
                found.push(violation(g.step, ViolationKind::Limits, detail));
            }
        }
        found
    }

    /// No guest comes to a place where another member of an anti-affinity is, leaves, or comes to.
    fn apart(&self, going: &[Going]) -> Vec<Violation> {
        let mut found = Vec::new();
        for g in going {
            for &r in &self.rules.apart_of[g.guest] {
                let rule = &self.rules.apart[r];
                let place = rule.place[g.to];
                if !rule.hard || rule.place[g.from] == place {
                    continue;
                }
                let stands = |m: usize| rule.place[self.at[m]] == place;
                let comes = |m: usize| {
                    going
                        .iter()
                        .any(|o| o.guest == m && rule.place[o.to] == place)
                };
                let leaves = |m: usize| {
                    self.flights
                        .iter()
                        .any(|&(f, h)| f == m && rule.place[h] == place)
                };
                let other = rule
                    .members
                    .iter()
                    .find(|&&m| m != g.guest && (stands(m) || comes(m) || leaves(m)));
                if let Some(&other) = other {
                    let detail = format!(
                        "{}: {} meets {}",
                        rule.name, self.guests[g.guest].name, self.guests[other].name
                    );
                    found.push(violation(g.step, ViolationKind::Rule, detail));
                }
            }
        }
        found
    }

    /// Groups that were together are so again, at the latest when the next wave is done.
    fn together(&self, plan: &Plan, end: usize) -> Vec<Violation> {
        let next_wave = plan.steps.get(end).map(|s| s.wave);
        let mut found = Vec::new();
        for rule in self.rules.together.iter().filter(|r| r.hard) {
            let on_one = |at: &[usize]| rule.members.windows(2).all(|w| at[w[0]] == at[w[1]]);
            let goes_on = plan.steps[end..]
                .iter()
                .take_while(|s| Some(s.wave) == next_wave)
                .any(|s| rule.members.iter().any(|&m| self.guests[m].name == s.guest));
            if on_one(&self.start) && !on_one(&self.at) && !goes_on {
                let detail = format!("{} is torn apart", rule.name);
                found.push(violation(end, ViolationKind::Rule, detail));
            }
        }
        found
    }

    /// Hosts that took guests leave the reserve for host failures free in the end.
    pub(super) fn reserve(&self) -> Vec<Violation> {
        let lost = index(self.policy.limits.reserve_host_failures);
        let active = |h: &usize| self.hosts[*h].state == HostState::Active;
        let mut sizes: Vec<i64> = (0..self.hosts.len())
            .filter(active)
            .map(|h| self.limit_of(h))
            .collect();
        if lost == 0 || sizes.is_empty() {
            return Vec::new();
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let all: i64 = sizes.iter().sum();
        let kept = sizes.iter().skip(lost).sum::<i64>();
        let share = from_mib(kept) / from_mib(all).max(from_count(1));
        let (memory, _) = self.residents();
        let mut found = Vec::new();
        for (guest, (&start, &at)) in self.start.iter().zip(&self.at).enumerate() {
            let open = floor_mib(from_mib(self.limit_of(at)) * share);
            if start != at && self.held_memory(guest) > 0 && memory[at] > open {
                let detail = format!(
                    "{} holds {} of {open} MiB outside of the reserve",
                    self.hosts[at].name, memory[at]
                );
                found.push(violation(0, ViolationKind::Memory, detail));
            }
        }
        found
    }
}

fn violation(step: usize, kind: ViolationKind, detail: String) -> Violation {
    Violation { step, kind, detail }
}
