//! From two placements to waves of steps that fit when they run.
//!
//! While a guest moves, it holds its memory, counts as a guest and obeys anti-affinity on both hosts; what
//! it leaves is free from the next wave on. Steps that wait for each other in a circle are broken by a
//! detour over a third host. What still cannot be ordered is returned: the caller gives it up.
//!
//! The reserve for host failures is kept free on the way too, so that a plan may be cut short anywhere.
//!
//! Guests that a must-affinity holds together move in one wave, or in adjacent ones where the limits of
//! migrations at a time do not allow that.

use std::collections::BTreeMap;

use crate::model::{Held, Model};
use crate::num::index;
use crate::search::State;
use crate::snapshot::GuestState;

/// One migration of the ordered plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) wave: u32,
    pub(crate) guest: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Only to make room for others; the guest moves on later.
    pub(crate) detour: bool,
}

/// Whether circles may be broken by an extra migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detours {
    Allowed,
    Refused,
}

/// Legs in the order of their waves, and where every guest is in the end.
#[derive(Debug, Clone)]
pub(crate) struct Ordered {
    pub(crate) legs: Vec<Leg>,
    pub(crate) end: Vec<usize>,
    /// Whether every wanted move is among the legs.
    pub(crate) complete: bool,
}

impl Ordered {
    /// Everything stays where it is.
    pub(crate) fn nothing(at: &[usize]) -> Self {
        Self {
            legs: Vec::new(),
            end: at.to_vec(),
            complete: true,
        }
    }
}

/// Moves that belong into one wave: one guest, or a group.
#[derive(Debug, Clone)]
struct Batch {
    moves: Vec<(usize, usize)>,
    rank: (bool, f64),
    /// Some of its moves are under way: the rest follows in the next wave.
    begun: bool,
}

/// Orders the difference of two placements. `forced` moves go first, then those that save most.
pub(crate) fn order(
    state: &State<'_, '_>,
    wanted: &[usize],
    forced: &[bool],
    detours: Detours,
) -> Ordered {
    let model = state.model;
    let start = state.placement();
    let mut batches = batches(state, wanted, forced);
    batches.sort_by(|a, b| {
        b.rank
            .0
            .cmp(&a.rank.0)
            .then(b.rank.1.total_cmp(&a.rank.1))
            .then(a.moves.cmp(&b.moves))
    });
    let mut yard = Yard::new(state, start);
    while !batches.is_empty() {
        let before = batches.len();
        yard.fill_wave(&mut batches);
        if batches.len() == before && yard.wave_is_empty() {
            // A first wave that other migrations fill up is no circle: the next one is free.
            let waits = yard.wave == 1 && !model.flights.is_empty();
            let detoured = !waits && detours == Detours::Allowed && yard.detour(&batches);
            if !waits && !detoured {
                break;
            }
        }
        yard.end_wave();
    }
    Ordered {
        legs: yard.legs,
        end: yard.at,
        complete: batches.is_empty(),
    }
}

fn batches(state: &State<'_, '_>, wanted: &[usize], forced: &[bool]) -> Vec<Batch> {
    let rules = &state.model.rules;
    let start = state.placement();
    let mut group_of: Vec<usize> = (0..wanted.len()).collect();
    for rule in rules.together.iter().filter(|r| r.hard) {
        let moving = rule.members.iter().filter(|&&m| wanted[m] != start[m]);
        let lowest = moving.clone().map(|&m| group_of[m]).min();
        for &member in moving {
            let old = group_of[member];
            let new = lowest.unwrap_or(old);
            group_of
                .iter_mut()
                .filter(|g| **g == old)
                .for_each(|g| *g = new);
        }
    }
    let mut batches: Vec<Batch> = Vec::new();
    let mut batch_at: Vec<Option<usize>> = vec![None; wanted.len()];
    for guest in (0..wanted.len()).filter(|&g| wanted[g] != start[g]) {
        let gain = state.gain_rate(state.unit_of[guest], wanted[guest]);
        let at = *batch_at[group_of[guest]].get_or_insert_with(|| {
            batches.push(Batch {
                moves: Vec::new(),
                rank: (false, 0.0),
                begun: false,
            });
            batches.len() - 1
        });
        let batch = &mut batches[at];
        batch.moves.push((guest, wanted[guest]));
        batch.rank.0 |= forced[guest];
        // Members of a unit share one gain; of others the gains add up.
        batch.rank.1 = if batch.moves.len() == 1 {
            gain
        } else {
            batch.rank.1.max(gain)
        };
    }
    batches
}

/// Where everything is while waves are filled.
struct Yard<'s, 'm, 'a> {
    state: &'s State<'m, 'a>,
    at: Vec<usize>,
    /// Per host: what is there or on its way, and what has not left yet.
    held: Vec<Held>,
    apart: Vec<Vec<u32>>,
    legs: Vec<Leg>,
    wave: u32,
    wave_start: usize,
    per_host: Vec<usize>,
    per_link: BTreeMap<&'a str, usize>,
    in_cluster: usize,
}

impl<'s, 'm, 'a> Yard<'s, 'm, 'a> {
    fn new(state: &'s State<'m, 'a>, at: Vec<usize>) -> Self {
        let model = state.model;
        let mut yard = Self {
            state,
            at,
            held: (0..model.hosts.len()).map(|h| state.held(h)).collect(),
            apart: state.apart_count.clone(),
            legs: Vec::new(),
            wave: 1,
            wave_start: 0,
            per_host: vec![0; model.hosts.len()],
            per_link: BTreeMap::new(),
            in_cluster: 0,
        };
        for flight in &model.flights {
            yard.count(flight.from, flight.to, true);
        }
        yard
    }

    fn model(&self) -> &'m Model<'a> {
        self.state.model
    }

    fn wave_is_empty(&self) -> bool {
        self.wave_start == self.legs.len()
    }

    fn fill_wave(&mut self, batches: &mut Vec<Batch>) {
        batches.retain_mut(|batch| {
            if batch.begun {
                self.reserve(&batch.moves, -1);
            }
            if self.start_batch(&batch.moves) {
                return false;
            }
            if batch.begun || (self.wave_is_empty() && self.room_for(&batch.moves)) {
                // Too many for one wave: the rest goes first in the next.
                let before = batch.moves.len();
                batch
                    .moves
                    .retain(|&(guest, to)| !self.start(guest, to, false));
                batch.begun |= batch.moves.len() < before;
            }
            if batch.begun {
                self.reserve(&batch.moves, 1);
            }
            !batch.moves.is_empty()
        });
        batches.sort_by_key(|batch| !batch.begun);
    }

    /// Keeps (1) or gives free (−1) what the rest of a begun batch needs where it goes: nobody else may
    /// take it before the next wave.
    fn reserve(&mut self, moves: &[(usize, usize)], sign: i64) {
        for &(guest, to) in moves {
            self.occupy(guest, to, sign);
        }
    }

    /// Whether all moves of a batch fit, limits of migrations at a time aside.
    fn room_for(&self, moves: &[(usize, usize)]) -> bool {
        let most = i64::from(self.model().policy.limits.max_guests_per_host);
        let mut held = self.held.clone();
        moves.iter().all(|&(guest, to)| {
            held[to].memory += self.model().guests[guest].load.memory;
            held[to].guests += 1;
            let crowded = most > 0 && held[to].guests > most;
            let fits = held[to].memory <= self.model().hosts[to].open_capacity;
            !crowded && fits && self.alone(guest, to)
        })
    }

    /// Starts all moves of a batch, or none.
    fn start_batch(&mut self, moves: &[(usize, usize)]) -> bool {
        let legs_before = self.legs.len();
        for &(guest, to) in moves {
            if !self.start(guest, to, false) {
                while self.legs.len() > legs_before {
                    self.take_back();
                }
                return false;
            }
        }
        true
    }

    fn start(&mut self, guest: usize, to: usize, detour: bool) -> bool {
        let from = self.at[guest];
        if !self.within_limits(from, to) || !self.fits(guest, to) || !self.converges(guest, to) {
            return false;
        }
        self.occupy(guest, to, 1);
        self.count(from, to, true);
        self.legs.push(Leg {
            wave: self.wave,
            guest,
            from,
            to,
            detour,
        });
        true
    }

    fn take_back(&mut self) {
        if let Some(leg) = self.legs.pop() {
            self.occupy(leg.guest, leg.to, -1);
            self.count(leg.from, leg.to, false);
        }
    }

    fn count(&mut self, from: usize, to: usize, more: bool) {
        let step = |n: usize| if more { n + 1 } else { n - 1 };
        self.per_host[from] = step(self.per_host[from]);
        self.per_host[to] = step(self.per_host[to]);
        self.in_cluster = step(self.in_cluster);
        for link in self.model().links(from, to) {
            let taken = self.per_link.entry(link).or_default();
            *taken = step(*taken);
        }
    }

    fn within_limits(&self, from: usize, to: usize) -> bool {
        let limits = &self.model().policy.limits;
        let per_host = index(limits.migrations_per_host);
        let taken = |link| self.per_link.get(link).copied().unwrap_or(0);
        let per_link = index(limits.migrations_per_link);
        let mut links = self.model().links(from, to);
        links.all(|link| taken(link) < per_link)
            && self.per_host[from] < per_host
            && self.per_host[to] < per_host
            && self.in_cluster < index(limits.migrations_per_cluster)
    }

    /// Whether a guest can be on a host beside all that is there or on its way.
    fn fits(&self, guest: usize, to: usize) -> bool {
        let model = self.model();
        let load = &model.guests[guest].load;
        let most = i64::from(model.policy.limits.max_guests_per_host);
        let held = self.held[to];
        let memory = load.memory == 0 || held.memory + load.memory <= model.hosts[to].open_capacity;
        memory && (most == 0 || held.guests < most) && self.alone(guest, to)
    }

    /// Whether no other member of an anti-affinity is, leaves or comes where the guest goes. In the place
    /// it is in already it may meet those that are there, but not a second one that moves.
    fn alone(&self, guest: usize, to: usize) -> bool {
        let rules = &self.model().rules;
        let under_way = &self.legs[self.wave_start..];
        rules.apart_of[guest]
            .iter()
            .filter(|&&r| rules.apart[r].hard)
            .all(|r| {
                let place = &rules.apart[*r].place;
                if place[self.at[guest]] != place[to] {
                    return self.apart[*r][place[to]] == 0;
                }
                let arrives =
                    |leg: &Leg| place[leg.to] == place[to] && rules.apart_of[leg.guest].contains(r);
                !under_way.iter().any(arrives)
            })
    }

    /// Adds (1) or takes away (−1) what a guest holds on a host.
    fn occupy(&mut self, guest: usize, host: usize, sign: i64) {
        let model = self.model();
        let load = &model.guests[guest].load;
        self.held[host].memory += sign * load.memory;
        self.held[host].guests += sign;
        for &r in &model.rules.apart_of[guest] {
            let count = &mut self.apart[r][model.rules.apart[r].place[host]];
            *count = if sign > 0 {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
    }

    fn end_wave(&mut self) {
        for at in self.wave_start..self.legs.len() {
            let leg = self.legs[at];
            self.occupy(leg.guest, leg.from, -1);
            self.at[leg.guest] = leg.to;
        }
        // Migrations that ran already are taken to be over after the first wave; their memory is not.
        self.per_host.iter_mut().for_each(|n| *n = 0);
        self.per_link.clear();
        self.in_cluster = 0;
        self.wave_start = self.legs.len();
        self.wave += 1;
    }

    /// Sends one waiting guest to a third host so that another can take its place.
    fn detour(&mut self, batches: &[Batch]) -> bool {
        let mut waiting: Vec<(usize, usize, bool)> = batches
            .iter()
            .filter(|b| b.moves.len() == 1 && !b.begun)
            .map(|b| (b.moves[0].0, b.moves[0].1, b.rank.0))
            .collect();
        waiting.sort_by_key(|&(guest, ..)| (self.model().guests[guest].load.memory, guest));
        for &(guest, to, forced) in &waiting {
            let from = self.at[guest];
            let running = self.model().guests[guest].data.state == GuestState::Running;
            let already = self.legs.iter().any(|leg| leg.guest == guest);
            let helps = |other: &Batch| other.moves.iter().any(|&(g, t)| g != guest && t == from);
            if !running || already || !batches.iter().any(helps) {
                continue;
            }
            for refuge in 0..self.model().hosts.len() {
                let stays_away = self.model().guests[guest].left_lately.contains(&refuge);
                let is_refuge =
                    refuge != to && (forced || !stays_away) && self.is_refuge(guest, refuge);
                if is_refuge && self.start(guest, refuge, true) {
                    return true;
                }
            }
        }
        false
    }

    /// Whether a copy from where the guest is would converge: a way that was made shorter is another copy.
    fn converges(&self, guest: usize, to: usize) -> bool {
        self.state.copy(guest, self.at[guest], to).0.converges
    }

    fn is_refuge(&self, guest: usize, host: usize) -> bool {
        let model = self.model();
        host != self.at[guest]
            && model.hosts[host].takes
            && model.profiles[model.guests[guest].profile][host].is_none()
            && self.fits(guest, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShutOffGuests;
    use crate::policy::Policy;
    use crate::snapshot::{Guest, Host, InFlight, Snapshot};

    #[test]
    fn nobody_takes_the_place_of_a_group_that_has_begun() {
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        for (name, memory_mib) in [("h1", 1500), ("h2", 1500), ("h3", 1500), ("h4", 1500)] {
            snapshot.hosts.push(Host {
                name: name.into(),
                cpu_cores: 4.0,
                memory_mib,
                ..Host::default()
            });
        }
        let places = [
            ("a1", "h1"),
            ("a2", "h1"),
            ("flies", "h1"),
            ("x", "h3"),
            ("y", "h2"),
        ];
        snapshot.guests = places
            .map(|(name, host)| Guest {
                name: name.into(),
                host: host.into(),
                memory_mib: 400,
                ..Guest::default()
            })
            .to_vec();
        snapshot.in_flight.push(InFlight {
            guest: "flies".into(),
            from: "h1".into(),
            to: "h4".into(),
        });
        let policy = Policy::parse(
            "[limits]\nmigrations_per_host = 2\n\
             [affinity.a]\nguests = [\"a1\", \"a2\"]\nstrength = \"must\"\n",
        )
        .unwrap();
        let model = Model::new(&snapshot, &policy, ShutOffGuests::Stay);
        let state = State::new(&model, &model.homes(), 0);
        // The migration in flight lets one of the group go; x would fit beside it as long as y is there.
        let forced = [true, true, false, true, false];
        let ordered = order(&state, &[1, 1, 3, 1, 2], &forced, Detours::Refused);
        let waves: Vec<(&str, u32)> = ordered
            .legs
            .iter()
            .map(|leg| (places[leg.guest].0, leg.wave))
            .collect();
        assert_eq!(waves, [("a1", 1), ("y", 1), ("a2", 2), ("x", 2)]);
    }
}
