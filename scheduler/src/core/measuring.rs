//! Which guests are measured: those that the standing plan wants to move and of which no fresh dirty curve is known.
//!
//! After them those on a hot or draining host of which only an older figure is known: libvirt goes on showing it for as
//! long as the guest runs, and a guest that once wrote too fast to be moved would never be looked at again.
//!
//! A move never waits for it: the plan is made anew every cycle, and what is known by then is in it. Most steps wait
//! longer than a measurement takes anyway, for the hold time, a limit or an operator. Pure; the shell asks the agents and
//! tells what came of it.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_planner::{Guest, GuestState, HostState, Plan};
use evenkeel_types::{GuestId, HostName};

use super::{Assessment, dirty};
use crate::observe::Fleet;

/// Measurements at one time, in the whole fleet: a cycle's worth of candidates of a large one within a few cycles.
const AT_ONCE: usize = 4;
/// A guest that was asked for is left alone for so long, twice as long after each further failure …
const REST_MS: i64 = 60_000;
/// … at most so often: half an hour.
const MOST_DOUBLINGS: u32 = 5;
/// An agent that cannot measure is not asked again for so long, or until its version changes.
const LACKING_MS: i64 = 6 * 3_600_000;

/// What came of asking an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The curve comes with the host's next report.
    Done,
    /// Not now.
    Failed,
    /// The agent is of a version that cannot.
    Lacking,
}

/// A guest to be measured, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its host.
    pub host: HostName,
    /// The guest.
    pub guest: GuestId,
}

/// When a guest may be asked for again.
#[derive(Debug, Clone, Copy)]
struct Rest {
    failures: u32,
    until_ms: i64,
}

/// Who is being measured, and who is not to be asked for a while. It can be lost at any time.
#[derive(Debug, Clone, Default)]
pub struct Measuring {
    under_way: BTreeMap<HostName, GuestId>,
    rests: BTreeMap<GuestId, Rest>,
    /// Versions of agents that cannot measure, and until when that is believed.
    lacking: BTreeMap<HostName, (String, i64)>,
}

impl Measuring {
    /// Guests to be measured now, one a host, in the order of the plan; they count as asked for until
    /// [`Measuring::note`].
    #[must_use]
    pub fn choose(
        &mut self,
        fleet: &Fleet,
        assessment: &Assessment,
        plan: &Plan,
        now_ms: i64,
    ) -> Vec<Candidate> {
        self.forget(fleet, now_ms);
        let open = fleet.open_migrations();
        let migrating: BTreeSet<&HostName> = open
            .values()
            .flat_map(|order| [&order.source, &order.target])
            .collect();
        let mut chosen = vec![];
        for guest in wanted(assessment, plan).chain(outdated(fleet, assessment)) {
            if self.under_way.len() >= AT_ONCE {
                break;
            }
            let Some(candidate) = candidate(fleet, assessment, guest) else {
                continue;
            };
            let Candidate { host, guest } = &candidate;
            let busy = migrating.contains(host) || self.under_way.contains_key(host);
            if busy || self.lacking.contains_key(host) || self.rests(guest, now_ms) {
                continue;
            }
            self.under_way.insert(host.clone(), guest.clone());
            chosen.push(candidate);
        }
        chosen
    }

    /// Notes what came of asking.
    pub fn note(&mut self, asked: &Candidate, came: Measured, fleet: &Fleet, now_ms: i64) {
        self.under_way.remove(&asked.host);
        if came == Measured::Lacking {
            let version = version_of(fleet, &asked.host);
            let until_ms = now_ms.saturating_add(LACKING_MS);
            self.lacking.insert(asked.host.clone(), (version, until_ms));
            return;
        }
        let failures = match came {
            Measured::Failed => self.rests.get(&asked.guest).map_or(0, |r| r.failures) + 1,
            // It rests all the same: a curve that never shows in a report is not measured over and over.
            Measured::Done | Measured::Lacking => 0,
        };
        let doublings = failures.saturating_sub(1).min(MOST_DOUBLINGS);
        let until_ms = now_ms.saturating_add(REST_MS << doublings);
        let rest = Rest { failures, until_ms };
        self.rests.insert(asked.guest.clone(), rest);
    }

    fn rests(&self, guest: &GuestId, now_ms: i64) -> bool {
        let rest = self.rests.get(guest);
        rest.is_some_and(|rest| rest.until_ms > now_ms)
    }

    /// Failures are forgotten when a guest has not been asked for as long as it rested at most.
    fn forget(&mut self, fleet: &Fleet, now_ms: i64) {
        let remembered_ms = REST_MS << MOST_DOUBLINGS;
        self.rests
            .retain(|_, rest| rest.until_ms.saturating_add(remembered_ms) > now_ms);
        self.lacking.retain(|host, (version, until_ms)| {
            *until_ms > now_ms && version_of(fleet, host) == *version
        });
    }
}

fn version_of(fleet: &Fleet, host: &HostName) -> String {
    let facts = fleet.hosts.get(host);
    facts.map_or_else(String::new, |facts| facts.agent_version.clone())
}

/// Guests that a plan moves, in its order.
fn wanted<'a>(assessment: &'a Assessment, plan: &'a Plan) -> impl Iterator<Item = &'a Guest> {
    let steps = plan.steps.iter();
    steps.filter_map(|step| {
        let key = step.uuid.as_deref().unwrap_or(&step.guest);
        assessment.snapshot.guest(key)
    })
}

/// Guests of hosts that are to be relieved, of which something is known that may have changed.
fn outdated<'a>(fleet: &'a Fleet, assessment: &'a Assessment) -> impl Iterator<Item = &'a Guest> {
    let hosts = assessment.snapshot.hosts.iter();
    let draining = hosts.filter(|host| host.state == HostState::Draining);
    let relieved: BTreeSet<&str> = draining
        .map(|host| host.name.as_str())
        .chain(assessment.hot_since.keys().map(String::as_str))
        .collect();
    let sampled = |guest: &&Guest| {
        let report = guest
            .host
            .parse()
            .ok()
            .and_then(|host: HostName| fleet.reports.get(&host));
        let mut readings = report.into_iter().flat_map(|report| &report.guests);
        readings.any(|g| g.id.as_str() == guest.key() && g.dirty_rate_mib_s.is_some())
    };
    let guests = assessment.snapshot.guests.iter();
    guests
        .filter(move |guest| relieved.contains(guest.host.as_str()))
        .filter(sampled)
}

/// A guest, if a curve of it is missing, would count, and can be measured now.
fn candidate(fleet: &Fleet, assessment: &Assessment, planned: &Guest) -> Option<Candidate> {
    let guest = assessment.guests.get(&planned.name)?;
    let host: HostName = planned.host.parse().ok()?;
    let report = fleet.reports.get(&host)?;
    let reading = report.guests.iter().find(|g| g.id == *guest)?;
    let measurable = planned.state == GuestState::Running
        && planned.movable
        && report.libvirt_up
        && report.migrations_running == 0;
    let missing = reading.dirty_curve.is_empty() && dirty::is_of_use(fleet.remembered.get(guest));
    (measurable && missing).then(|| Candidate {
        host,
        guest: guest.clone(),
    })
}

#[cfg(test)]
mod tests;
