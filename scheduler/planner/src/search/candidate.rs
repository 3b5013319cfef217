//! Judging one candidate: may the unit be there, what would it bring, what would it cost.
//!
//! The same judgement serves the search, manual moves, the re-check before a step starts and the
//! explanation, so that they cannot disagree.

use super::State;
use crate::constants::STANDARD_ERRORS;
use crate::loss::Load;
use crate::num::{from_count, from_mib};
use crate::plan::BlockReason;
use crate::precopy;
use crate::snapshot::HostState;

/// Why a unit cannot be on a host; the words are made only when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// It is there.
    AlreadyThere,
    /// The host takes no guests.
    Closed,
    /// The host lacks what the guest needs, or a pin forbids it.
    Profile(BlockReason),
    /// An `apart` rule: another member is there.
    Apart(usize),
    /// Too many guests there.
    Guests,
    /// Too little memory there.
    Memory,
    /// It left this host a short time ago, and nothing forces it back.
    LeftLately,
    /// The copy would not converge.
    NotConverging,
}

/// What a move would bring and cost, in guest-seconds within the horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Saved loss, and soft rules mended.
    pub(crate) gain: f64,
    /// Cost with the fixed price, not yet multiplied by the payback factor.
    pub(crate) cost: f64,
    /// Gain less factor × cost.
    pub(crate) score: f64,
    /// Standard error of the gain.
    pub(crate) error: f64,
}

/// A score below this is rounding, not a gain. Guest-seconds.
const LEAST_SCORE: f64 = 1e-6;

impl Candidate {
    /// Whether the move is worth it: it pays, and surely enough.
    pub(crate) fn pays(&self) -> bool {
        self.score > LEAST_SCORE && self.gain > STANDARD_ERRORS * self.error
    }
}

impl State<'_, '_> {
    /// Why a unit cannot be on a host, apart from what copying it would take.
    pub(crate) fn block(&self, unit: usize, to: usize) -> Option<Block> {
        if self.at[unit] == to {
            return Some(Block::AlreadyThere);
        }
        if !self.model.hosts[to].takes {
            return Some(Block::Closed);
        }
        self.block_on_open_host(unit, to)
    }

    /// Why a unit cannot go to a host for gain: what it left lately is closed to it as well.
    pub(crate) fn block_for_gain(&self, unit: usize, to: usize) -> Option<Block> {
        let away = || self.stays_away(unit, to).then_some(Block::LeftLately);
        self.block(unit, to).or_else(away)
    }

    /// Whether a unit left this host so lately that it does not return for gain. What is drained may go anywhere.
    pub(crate) fn stays_away(&self, unit: usize, to: usize) -> bool {
        let (u, model) = (&self.units[unit], self.model);
        let left = |&g: &usize| model.guests[g].left_lately.contains(&to);
        let draining = || model.hosts[u.home].data.state == HostState::Draining;
        u.guests.iter().any(left) && to != u.home && !draining()
    }

    /// Whether a unit that went away could be back at its home, be that open or not.
    ///
    /// It stood there: what the host offers was enough for it, and as long as nobody new has come, it may
    /// take up what is kept free for host failures.
    pub(crate) fn could_stay_at(&self, unit: usize, home: usize) -> bool {
        let model = self.model;
        let pinned = |&g: &usize| model.rules.pin_against(g, home).is_some();
        let is_new = |&other: &usize| self.units[other].home != home;
        let host = &model.hosts[home];
        let limit = if self.members[home].iter().any(is_new) {
            host.open_capacity
        } else {
            host.capacity
        };
        !self.units[unit].guests.iter().any(pinned) && self.no_room(unit, home, limit).is_none()
    }

    /// Whether everything that is demanded of a unit's place holds where it is now.
    pub(crate) fn holds(&self, unit: usize) -> bool {
        let (model, u, at) = (self.model, &self.units[unit], self.at[unit]);
        let fits = |&g: &usize| model.profiles[model.guests[g].profile][at].is_none();
        let alone = |&r: &usize| {
            let rule = &model.rules.apart[r];
            let own = u
                .guests
                .iter()
                .filter(|g| model.rules.apart_of[**g].contains(&r))
                .count();
            f64::from(self.apart_count[r][rule.place[at]]) <= from_count(own)
        };
        let most = i64::from(model.policy.limits.max_guests_per_host);
        u.guests.iter().all(fits)
            && u.hard_apart.iter().all(alone)
            && (most == 0 || self.held(at).guests <= most)
            && self.held(at).memory <= model.hosts[at].open_capacity
    }

    fn block_on_open_host(&self, unit: usize, to: usize) -> Option<Block> {
        let model = self.model;
        for &guest in &self.units[unit].guests {
            if let Some(reason) = model.profiles[model.guests[guest].profile][to] {
                return Some(Block::Profile(reason));
            }
        }
        self.no_room(unit, to, model.hosts[to].open_capacity)
    }

    /// What stands in the way beside those that are there, with this much memory in all.
    fn no_room(&self, unit: usize, to: usize, limit: i64) -> Option<Block> {
        let (model, u) = (self.model, &self.units[unit]);
        let from = self.at[unit];
        for &r in &u.hard_apart {
            let place = &model.rules.apart[r].place;
            // Whoever stays in a shared place makes nothing worse there.
            let refused = if place[from] == place[to] {
                u.parting == Some(r)
            } else {
                self.apart_count[r][place[to]] > 0
            };
            if refused {
                return Some(Block::Apart(r));
            }
        }
        let held = self.held(to);
        let most = i64::from(model.policy.limits.max_guests_per_host);
        if most > 0 && held.guests + u.load.guests > most {
            return Some(Block::Guests);
        }
        let memory = held.memory + u.load.memory;
        (u.load.memory > 0 && memory > limit).then_some(Block::Memory)
    }

    /// The named reason and the number that decided.
    pub(crate) fn words(&self, block: Block, unit: usize, to: usize) -> (BlockReason, String) {
        let model = self.model;
        let host = &model.hosts[to];
        match block {
            Block::AlreadyThere => (BlockReason::AlreadyThere, "is there already".to_owned()),
            Block::Closed if !host.shape.present => (
                BlockReason::HostAbsent,
                format!("{} is silent", host.data.name),
            ),
            Block::Closed => (
                BlockReason::HostClosed,
                format!("{} is {}", host.data.name, host.data.state.as_str()),
            ),
            Block::Profile(reason) => (reason, self.profile_words(reason, unit, to)),
            Block::Apart(rule) => (
                BlockReason::RuleForbids,
                model.rules.apart[rule].name.clone(),
            ),
            Block::Guests => {
                let most = model.policy.limits.max_guests_per_host;
                (
                    BlockReason::NoCapacity,
                    format!("{} guests, at most {most}", self.held(to).guests),
                )
            }
            Block::Memory => {
                let free = host.open_capacity - self.held(to).memory;
                let needs = self.units[unit].load.memory;
                (
                    BlockReason::NoCapacity,
                    format!(
                        "needs {needs} MiB, {} has {} free",
                        host.data.name,
                        free.max(0)
                    ),
                )
            }
            Block::LeftLately => (BlockReason::LeftLately, self.absence(unit, to)),
            Block::NotConverging => {
                let guest = model.guests[self.units[unit].guests[0]].data;
                let detail = match guest.dirty_curve.last() {
                    Some((seconds, mib)) => format!("dirties {mib:.0} MiB in {seconds} s"),
                    None => format!("dirties {} MiB/s", guest.dirty_rate_mib_s),
                };
                (BlockReason::NotConverging, detail)
            }
        }
    }

    /// Until when a unit stays away from a host that it left lately.
    fn absence(&self, unit: usize, to: usize) -> String {
        let host = self.model.hosts[to].data;
        let guests = self.units[unit].guests.iter();
        let until = guests.filter_map(|&g| self.model.guests[g].data.left_lately.get(&host.name));
        let until = until.max().map(ToString::to_string).unwrap_or_default();
        format!("left {} lately, stays away until {until}", host.name)
    }

    fn profile_words(&self, reason: BlockReason, unit: usize, to: usize) -> String {
        let model = self.model;
        let host = model.hosts[to].data;
        let fails = |g: &&usize| model.profiles[model.guests[**g].profile][to] == Some(reason);
        let Some(&at) = self.units[unit].guests.iter().find(fails) else {
            return String::new();
        };
        let guest = model.guests[at].data;
        let missing = |needs: &[String], has: &[String]| {
            let lacking: Vec<&str> = needs
                .iter()
                .filter(|n| !has.contains(n))
                .map(String::as_str)
                .collect();
            format!("{} lacks {}", host.name, lacking.join(", "))
        };
        if reason == BlockReason::MissingNetwork {
            missing(&guest.networks, &host.networks)
        } else if reason == BlockReason::MissingStorage {
            missing(&guest.storage, &host.storage)
        } else if reason == BlockReason::Pinned {
            model
                .rules
                .pin_against(at, to)
                .unwrap_or_default()
                .to_owned()
        } else if reason == BlockReason::Refused {
            let by = guest.refused_by.get(&host.name);
            by.map_or_else(String::new, |by| {
                format!(
                    "{} refused it ({}), until {}",
                    host.name, by.reason, by.until
                )
            })
        } else {
            format!("{} has CPU class {:?}", host.name, host.cpu_class)
        }
    }

    /// What a unit's soft rules cost on a host, guest-seconds per second.
    pub(crate) fn soft(&self, unit: usize, on: usize) -> f64 {
        if !self.units[unit].has_soft {
            return 0.0;
        }
        let (pairs, alone) = self.broken(unit, on);
        (pairs + alone) * self.model.policy.price.should_rule
    }

    /// What all soft rules cost, guest-seconds per second.
    pub(crate) fn soft_in_all(&self) -> f64 {
        let soft = (0..self.units.len()).filter(|&u| self.units[u].has_soft);
        // Each broken pair is seen from both of its guests.
        let halved = soft.map(|u| {
            let (pairs, alone) = self.broken(u, self.at[u]);
            pairs / 2.0 + alone
        });
        halved.sum::<f64>() * self.model.policy.price.should_rule
    }

    /// Soft rules that a unit breaks on a host: with other guests, and by itself.
    fn broken(&self, unit: usize, on: usize) -> (f64, f64) {
        let (u, rules, from) = (&self.units[unit], &self.model.rules, self.at[unit]);
        let (mut pairs, mut alone) = (0.0, 0.0);
        for &guest in &u.guests {
            for &r in rules.apart_of[guest]
                .iter()
                .filter(|&&r| !rules.apart[r].hard)
            {
                let rule = &rules.apart[r];
                let here = f64::from(self.apart_count[r][rule.place[on]]);
                let own = self.own_members(unit, &rules.apart_of, r);
                pairs += if rule.place[from] == rule.place[on] {
                    here - own
                } else {
                    here
                };
            }
            for &r in rules.together_of[guest]
                .iter()
                .filter(|&&r| !rules.together[r].hard)
            {
                let here = f64::from(self.together_count[r][on]);
                let own = self.own_members(unit, &rules.together_of, r);
                let others = if from == on { here - own } else { here };
                pairs += from_count(rules.together[r].members.len()) - own - others;
            }
            let pins = rules.pins_of[guest].iter().map(|&r| &rules.pins[r]);
            alone += from_count(pins.filter(|p| !p.hard && !p.allowed[on]).count());
        }
        (pairs, alone)
    }

    fn own_members(&self, unit: usize, of: &[Vec<usize>], rule: usize) -> f64 {
        from_count(
            self.units[unit]
                .guests
                .iter()
                .filter(|g| of[**g].contains(&rule))
                .count(),
        )
    }

    /// Cost of bringing a unit from its home to a host, price included; `None` if a copy does not converge.
    pub(crate) fn cost(&self, unit: usize, to: usize) -> Option<f64> {
        let (model, u) = (self.model, &self.units[unit]);
        if u.home == to {
            return Some(0.0);
        }
        let slopes = (self.first_slopes[u.home], self.first_slopes[to]);
        let mut total = 0.0;
        for &guest in &u.guests {
            let (copy, bandwidth) = self.copy(guest, u.home, to);
            if !copy.converges {
                return None;
            }
            total += precopy::cost(model.guests[guest].data, &copy, bandwidth, slopes);
        }
        Some(total + from_count(u.guests.len()) * model.policy.price.migration_guest_seconds)
    }

    /// Loss saved by a move, and its soft rules, guest-seconds per second.
    pub(crate) fn gain_rate(&self, unit: usize, to: usize) -> f64 {
        let from = self.at[unit];
        let load = &self.units[unit].load;
        let from_after = self.model.value(from, &self.loads[from].minus(load));
        let to_after = self.model.value(to, &self.loads[to].plus(load));
        self.values[from] - from_after + self.values[to] - to_after + self.soft(unit, from)
            - self.soft(unit, to)
    }

    /// Judges a move that nothing blocks; `None` if its copy does not converge.
    pub(crate) fn judge(&self, unit: usize, to: usize) -> Option<Candidate> {
        let gain = self.model.payback.horizon_seconds * self.gain_rate(unit, to);
        self.judge_gain(unit, to, gain)
    }

    pub(crate) fn judge_gain(&self, unit: usize, to: usize, gain: f64) -> Option<Candidate> {
        let cost = self.cost(unit, to)? - self.cost(unit, self.at[unit])?;
        let score = gain - self.model.payback.factor * cost;
        Some(Candidate {
            gain,
            cost,
            score,
            error: self.gain_error(unit, to),
        })
    }

    /// Standard error of a move's gain within the horizon, guest-seconds.
    ///
    /// Each guest's mean demand is known to σ/√[`crate::constants::SAMPLES`]; the gain's slope in it is the difference of
    /// the hosts' slopes that it sees.
    fn gain_error(&self, unit: usize, to: usize) -> f64 {
        let from = self.at[unit];
        let load = &self.units[unit].load;
        let from_after = self.model.slope(from, &self.loads[from].minus(load));
        let to_after = self.model.slope(to, &self.loads[to].plus(load));
        let moved = self.slopes[from] - to_after;
        let left = self.slopes[from] - from_after;
        let joined = to_after - self.slopes[to];
        let rest = |load: &Load, part: f64| (load.sigma_sq - part).max(0.0);
        let variance = moved * moved * load.sigma_sq
            + left * left * rest(&self.loads[from], load.sigma_sq)
            + joined * joined * rest(&self.loads[to], 0.0);
        self.standard_error(variance)
    }

    /// Standard error of a gain within the horizon, guest-seconds, from the variance of its rate if each guest's
    /// demand were what it is at one moment.
    pub(crate) fn standard_error(&self, variance: f64) -> f64 {
        self.model.payback.horizon_seconds * (variance / self.model.samples).sqrt()
    }

    /// Whether the mean demands would leave no core wanting on a host with this unit.
    pub(crate) fn has_cores_for(&self, unit: usize, to: usize) -> bool {
        let shape = &self.model.hosts[to].shape;
        let demand = self.loads[to].demand + self.units[unit].load.demand;
        demand + shape.own <= shape.cores
    }

    /// Free memory of a host below its limit, MiB; negative when it is above.
    pub(crate) fn free_memory(&self, host: usize) -> i64 {
        self.model.hosts[host].capacity - self.held(host).memory
    }

    /// Memory utilisation of a host.
    pub(crate) fn memory_share(&self, host: usize) -> f64 {
        let capacity = self.model.hosts[host].capacity.max(1);
        from_mib(self.loads[host].memory) / from_mib(capacity)
    }
}
