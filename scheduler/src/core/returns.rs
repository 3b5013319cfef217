//! No guest goes back and forth: where it left a short time ago it does not return for its balance's sake.
//!
//! What has changed meanwhile is its neighbours or its own load, and either way one of those it would join or one of
//! those it would leave can move instead. A guest that had to go because its host was drained has not been sent away for
//! balance and comes back when that pays. The core's part is to say so in the snapshot; the planner keeps to it. Own
//! moves stand in etcd; that somebody else moved a guest is seen, and known until the scheduler ends.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_types::{GuestId, HostName, MigrationState, Outcome};
use jiff::Timestamp;

use super::millis;
use crate::observe::Past;

/// How long a guest stays away. Shorter, and the two sides of a daily wave chase guests to and fro; longer, and a fleet
/// of two hosts has few moves left.
pub const STAYS_AWAY: Duration = Duration::from_secs(6 * 3600);
/// What was seen to leave and what a record says to have left within this time is one move: reports and settling
/// are seconds apart.
const SAME_MOVE_MS: u64 = 120_000;
/// Departures remembered of each guest.
const MOST: usize = 8;

/// When guests were seen to have left hosts, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default)]
pub(super) struct Departures {
    of: BTreeMap<GuestId, Vec<(HostName, i64)>>,
}

impl Departures {
    /// A guest is elsewhere now.
    pub(super) fn note(&mut self, guest: &GuestId, host: HostName, at_ms: i64) {
        let departures = self.of.entry(guest.clone()).or_default();
        departures.push((host, at_ms));
        let surplus = departures.len().saturating_sub(MOST);
        departures.drain(..surplus);
    }

    /// Forgets what is long ago.
    pub(super) fn forget(&mut self, now_ms: i64) {
        let since = now_ms.saturating_sub(millis(STAYS_AWAY));
        self.of.retain(|_, departures| {
            departures.retain(|(_, at_ms)| *at_ms >= since);
            !departures.is_empty()
        });
    }

    /// The hosts that a guest stays away from, and until when, by what was seen and by the moves it is remembered for.
    pub(super) fn left_lately(
        &self,
        guest: &GuestId,
        moves: &[Past],
        now_ms: i64,
    ) -> BTreeMap<String, Timestamp> {
        let done = |past: &&Past| {
            past.state.as_ref().and_then(MigrationState::outcome) == Some(Outcome::Done)
        };
        let drained = |past: &&Past| past.trigger == "drain";
        let by_drain = |host: &HostName, at_ms: i64| {
            let mut drains = moves.iter().filter(done).filter(drained);
            drains.any(|past| {
                past.source == host.as_str() && past.ended_ms.abs_diff(at_ms) < SAME_MOVE_MS
            })
        };
        let own = moves.iter().filter(done).filter(|past| !drained(past));
        let own = own.map(|past| (past.source.clone(), past.ended_ms));
        let seen = self.of.get(guest).into_iter().flatten();
        let seen = seen.filter(|(host, at_ms)| !by_drain(host, *at_ms));
        let seen = seen.map(|(host, at_ms)| (host.to_string(), *at_ms));
        let mut hosts = BTreeMap::new();
        for (host, left_ms) in own.chain(seen) {
            let until_ms = left_ms.saturating_add(millis(STAYS_AWAY));
            if let (true, Ok(until)) = (until_ms > now_ms, Timestamp::from_millisecond(until_ms)) {
                let latest = hosts.entry(host).or_insert(until);
                *latest = until.max(*latest);
            }
        }
        hosts
    }
}
