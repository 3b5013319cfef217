//! No guest goes back and forth: where it left a short time ago it does not return for its balance's sake, unless it is
//! itself another one by now.
//!
//! What has changed meanwhile is its neighbours, and one of those can move instead. That a guest moved stands in etcd;
//! what it wanted then is in memory only, so a scheduler that was just started takes every guest for unchanged.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_planner::Snapshot;
use evenkeel_types::{GuestId, HostName, MigrationState, Outcome};

use super::millis;
use crate::observe::Fleet;

/// How long a guest stays away. Shorter, and the two sides of a daily wave chase guests to and fro; longer, and a fleet
/// of two hosts has few moves left.
pub const STAYS_AWAY: Duration = Duration::from_secs(6 * 3600);
/// Its demand is another one when it differs by more than this share of the larger value …
const CHANGE: f64 = 2.0 / 3.0;
/// … and by more than this many cores. Estimates of a bursty guest differ by half within hours although its load is
/// what it was; less than that, and it goes back and forth; more, and a guest that grew cannot go where it fits.
const CHANGE_CORES: f64 = 0.5;
/// Departures remembered of each guest.
const MOST: usize = 8;

/// A guest was seen to have left a host.
#[derive(Debug, Clone, PartialEq)]
struct Departure {
    host: HostName,
    at_ms: i64,
    demand_cores: f64,
}

/// What guests wanted when they left hosts.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures {
    of: BTreeMap<GuestId, Vec<Departure>>,
}

/// Per guest (by its name in the snapshot) the hosts that it does not return to, and until when, milliseconds since
/// the Unix epoch.
pub type StayAway = BTreeMap<String, BTreeMap<String, i64>>;

impl Departures {
    /// A guest that wanted so much is elsewhere now.
    pub(super) fn note(&mut self, guest: &GuestId, host: HostName, at_ms: i64, demand_cores: f64) {
        let departures = self.of.entry(guest.clone()).or_default();
        departures.push(Departure {
            host,
            at_ms,
            demand_cores,
        });
        let surplus = departures.len().saturating_sub(MOST);
        departures.drain(..surplus);
    }

    /// Forgets what is long ago.
    pub(super) fn forget(&mut self, now_ms: i64) {
        let since = now_ms.saturating_sub(millis(STAYS_AWAY));
        self.of.retain(|_, departures| {
            departures.retain(|departure| departure.at_ms >= since);
            !departures.is_empty()
        });
    }

    /// What keeps guests from returning now.
    pub(super) fn stay_away(
        &self,
        fleet: &Fleet,
        snapshot: &Snapshot,
        guests: &BTreeMap<String, GuestId>,
        now_ms: i64,
    ) -> StayAway {
        let mut all = StayAway::new();
        for guest in &snapshot.guests {
            let Some(id) = guests.get(&guest.name) else {
                continue;
            };
            let hosts = self.left_by(id, fleet, guest.cpu_demand_cores, now_ms);
            if !hosts.is_empty() {
                all.insert(guest.name.clone(), hosts);
            }
        }
        all
    }

    fn left_by(
        &self,
        id: &GuestId,
        fleet: &Fleet,
        demand: f64,
        now_ms: i64,
    ) -> BTreeMap<String, i64> {
        let stays = millis(STAYS_AWAY);
        let mut hosts = BTreeMap::new();
        let moves = fleet.remembered.get(id).map(|r| r.moves.as_slice());
        for past in moves.unwrap_or_default() {
            let done = past.state.as_ref().and_then(MigrationState::outcome) == Some(Outcome::Done);
            if done {
                hosts.insert(past.source.clone(), past.ended_ms.saturating_add(stays));
            }
        }
        for departure in self.of.get(id).map_or(&[][..], Vec::as_slice) {
            let host = departure.host.to_string();
            if differs(departure.demand_cores, demand) {
                hosts.remove(&host);
            } else {
                hosts.insert(host, departure.at_ms.saturating_add(stays));
            }
        }
        hosts.retain(|_, until_ms| *until_ms > now_ms);
        hosts
    }
}

fn differs(then: f64, now: f64) -> bool {
    let change = (then - now).abs();
    change > CHANGE * then.max(now) && change > CHANGE_CORES
}
