//! How drains stand: who is left, who cannot go and why, and whether libvirt says that nobody is.
//!
//! Pure, and from etcd's picture alone, so that a new leader sees the same. What it decides is only what is told and
//! when a guest is tried again; moves are the planner's, which finds the draining hosts in the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use evenkeel_planner::{BlockReason, GuestState, HostState, Mode, Plan, Purpose, Snapshot};
use evenkeel_types::{GuestId, HostName, MigrationState, Outcome};

use super::{Assessment, Choice, Hold, Postponed, millis};
use crate::observe::{Fleet, IntentEntry, Past, Remembered, RunState};

/// A guest that failed to leave is tried again after this time, and after twice the last time each further time:
/// a target that is busy or an agent that restarts is back by then.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// Most doublings: 32 min. What has not helped by then needs a person, who should not have to wait for hours after it.
const MOST_DOUBLINGS: u32 = 6;
/// Failures after which a guest counts as one that cannot go, though it is still tried.
const HOPELESS: u32 = 3;

/// How a drain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainState {
    /// Guests leave, or are about to.
    Draining,
    /// Nothing is started now, whoever could go.
    Held,
    /// Nobody who is left can go.
    Stuck,
    /// libvirt says that nothing is left.
    Drained,
}

impl DrainState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Draining, Self::Held, Self::Stuck, Self::Drained];

    /// The name in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Held => "held",
            Self::Stuck => "stuck",
            Self::Drained => "drained",
        }
    }
}

/// A guest that cannot go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Its name.
    pub guest: String,
    /// Why: the name of a block reason, or `not_now`.
    pub reason: &'static str,
    /// The same in words and numbers.
    pub detail: String,
    /// When it is tried again, milliseconds since the Unix epoch; `None`: when what stands in the way is gone.
    pub retry_at_ms: Option<i64>,
    /// Whether waiting alone may not be expected to help.
    pub hopeless: bool,
}

/// A drain, looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    /// How it stands.
    pub state: DrainState,
    /// Guests that have to go and are there.
    pub left: usize,
    /// Of them: on their way.
    pub moving: usize,
    /// Shut-off guests that stay because nobody asked to move them.
    pub shut_off_stay: usize,
    /// Those that cannot go now.
    pub obstacles: Vec<Obstacle>,
    /// What holds it, one sentence each.
    pub holds: Vec<String>,
    /// Whether its deadline has passed and something is left.
    pub overdue: bool,
}

/// The newest plan and what came of it, if it was made with the host draining.
#[derive(Debug, Clone, Copy)]
pub struct Newest<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What was started and what was not.
    pub choice: &'a Choice,
}

/// Whether something has to leave a host: what plans are for, whatever the mode.
fn has_to_lose(snapshot: &Snapshot, host: &evenkeel_planner::Host) -> bool {
    let leaves = |state| state != GuestState::Shutoff || host.offline_too;
    let mut here = snapshot.guests.iter().filter(|g| g.host == host.name);
    host.state == HostState::Draining && here.any(|guest| leaves(guest.state))
}

/// How far the next plan goes; `None`: none is made. A drain goes on in every mode and whatever holds balance moves
/// back, but then it must not be planned together with them: what one move makes room for, another might take.
#[must_use]
pub fn purpose(assessment: &Assessment, mode: Mode) -> Option<Purpose> {
    let snapshot = &assessment.snapshot;
    let drains = || snapshot.hosts.iter().any(|h| has_to_lose(snapshot, h));
    if assessment.holds.is_empty() {
        Some(Purpose::Balance)
    } else if drains() {
        Some(Purpose::Drain)
    } else {
        (mode != Mode::Off).then_some(Purpose::Balance)
    }
}

/// The names of the hosts that a snapshot has as draining.
#[must_use]
pub fn draining(snapshot: &Snapshot) -> BTreeSet<String> {
    let hosts = snapshot.hosts.iter();
    hosts
        .filter(|host| host.state == HostState::Draining)
        .map(|host| host.name.clone())
        .collect()
}

/// A guest's attempts to leave a draining host that came to nothing, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempts {
    failed: u32,
    /// What came of the last one, in words.
    last: String,
    retry_at_ms: i64,
}

/// The attempts since the drain began; `None`: the last one succeeded, or there was none.
fn attempts(remembered: &Remembered, guest: &GuestId, intent: &IntentEntry) -> Option<Attempts> {
    let is_vain = |past: &Past| {
        let outcome = past.state.as_ref().and_then(MigrationState::outcome);
        past.trigger == "drain"
            && past.ended_ms >= intent.message.since_ms
            && outcome != Some(Outcome::Done)
    };
    let vain = remembered.moves.iter().rev().take_while(|p| is_vain(p));
    let failed = u32::try_from(vain.count())
        .ok()
        .filter(|failed| *failed > 0)?;
    let last = remembered.moves.last()?;
    let outcome = last.state.as_ref().and_then(MigrationState::outcome);
    let mut words = outcome.map_or_else(|| "failed".to_owned(), |outcome| outcome.to_string());
    let detail = remembered.message.moves.last().map(|m| m.detail.as_str());
    if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
        words = format!("{words}: {detail}");
    }
    Some(Attempts {
        failed,
        last: format!("to {}: {words}", last.target),
        retry_at_ms: last.ended_ms.saturating_add(wait_ms(guest, failed)),
    })
}

/// The wait after so many failures, with up to a quarter more that differs from guest to guest: those that failed
/// together, with their target or their link, are not all tried at once.
fn wait_ms(guest: &GuestId, failed: u32) -> i64 {
    let doublings = failed.saturating_sub(1).min(MOST_DOUBLINGS);
    let wait = millis(FIRST_WAIT.saturating_mul(1 << doublings));
    let seed = u64::from(failed);
    let hash = guest.as_str().bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let share = i64::try_from((hash >> 40) % 256).unwrap_or(0);
    wait + wait / 4 * share / 256
}

/// When a guest of a draining host is tried again, milliseconds since the Unix epoch; `None`: now.
#[must_use]
pub fn retry_at(fleet: &Fleet, host: &HostName, guest: &GuestId) -> Option<i64> {
    let intent = fleet.drain_of(host)?;
    let remembered = fleet.remembered.get(guest)?;
    attempts(remembered, guest, intent).map(|attempts| attempts.retry_at_ms)
}

/// Whether a reported guest keeps its host from being drained.
fn is_left(state: RunState, offline_too: bool) -> bool {
    match state {
        RunState::Running | RunState::Paused | RunState::Incoming => true,
        RunState::ShutOff => offline_too,
    }
}

/// What a host's own libvirt says about its drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing is left, and nothing is on its way there.
    Nothing,
    /// Something is.
    Something,
    /// It has not said anything newer than what was done to it, or does not answer.
    Unheard,
}

/// What can be concluded from the report of a draining host. By etcd's revisions, not by clocks: a report counts when
/// it was written after the intent and after the last guest was brought there.
#[must_use]
pub fn evidence(fleet: &Fleet, snapshot: &Snapshot, host: &HostName) -> Evidence {
    let usable = snapshot
        .host(host.as_str())
        .is_some_and(|h| h.state != HostState::Absent);
    let (Some(report), Some(intent)) = (fleet.reports.get(host), fleet.intents.get(host)) else {
        return Evidence::Unheard;
    };
    if !usable {
        return Evidence::Unheard;
    }
    let offline_too = intent.message.offline_too;
    if report.guests.iter().any(|g| is_left(g.state, offline_too)) {
        return Evidence::Something;
    }
    let touches =
        |order: &&evenkeel_proto::order::Order| [&order.source, &order.target].contains(&host);
    if fleet.open_migrations().into_values().any(|o| touches(&o)) {
        return Evidence::Something;
    }
    if report.revision > last_change(fleet, host, intent) {
        Evidence::Nothing
    } else {
        Evidence::Unheard
    }
}

/// Revision of the last thing that a report must be newer than.
fn last_change(fleet: &Fleet, host: &HostName, intent: &IntentEntry) -> i64 {
    let came = |remembered: &&Remembered| {
        remembered
            .moves
            .last()
            .is_some_and(|past| past.target == host.as_str())
    };
    let arrivals = fleet.remembered.values().filter(came);
    let arrivals = arrivals.map(|remembered| remembered.mod_revision).max();
    intent.mod_revision.max(arrivals.unwrap_or(0))
}

/// How the drain of a host stands; `None`: it is not being drained.
#[must_use]
pub fn stand(
    fleet: &Fleet,
    assessment: &Assessment,
    host: &HostName,
    newest: Option<Newest<'_>>,
) -> Option<Drain> {
    let intent = fleet.drain_of(host)?;
    let (snapshot, now_ms) = (&assessment.snapshot, assessment.at_ms);
    let offline_too = intent.message.offline_too;
    let here = || snapshot.guests.iter().filter(|g| g.host == host.as_str());
    let is_off = |state| state == GuestState::Shutoff;
    let left: Vec<&str> = here()
        .filter(|guest| offline_too || !is_off(guest.state))
        .map(|guest| guest.name.as_str())
        .collect();
    let flying: BTreeSet<&str> = snapshot
        .in_flight
        .iter()
        .map(|f| f.guest.as_str())
        .collect();
    let obstacles: Vec<Obstacle> = left
        .iter()
        .filter(|guest| !flying.contains(*guest))
        .filter_map(|guest| obstacle(fleet, assessment, (host, intent), guest, newest))
        .collect();
    let moving = left.iter().filter(|guest| flying.contains(*guest)).count();
    let holds = holds(assessment, host);
    let drained = intent.message.drained_at_ms > 0;
    let hopeless = obstacles.iter().filter(|o| o.hopeless).count();
    let state = if drained {
        DrainState::Drained
    } else if !holds.is_empty() {
        DrainState::Held
    } else if !left.is_empty() && hopeless == left.len() {
        DrainState::Stuck
    } else {
        DrainState::Draining
    };
    let deadline_ms = intent.message.deadline_ms;
    Some(Drain {
        state,
        left: left.len(),
        moving,
        shut_off_stay: here().filter(|g| is_off(g.state) && !offline_too).count(),
        obstacles,
        holds: if drained { vec![] } else { holds },
        overdue: !drained && deadline_ms > 0 && deadline_ms <= now_ms,
    })
}

/// What holds the drain of a host, in words.
fn holds(assessment: &Assessment, host: &HostName) -> Vec<String> {
    let mut holds: Vec<String> = assessment.drain_holds().map(Hold::to_string).collect();
    let seen = assessment.snapshot.host(host.as_str());
    if seen.is_none_or(|host| host.state == HostState::Absent) {
        holds.push(format!("{host} is silent, or its data cannot be used"));
    }
    holds
}

/// What keeps one guest from going now; `None`: nothing that is known.
fn obstacle(
    fleet: &Fleet,
    assessment: &Assessment,
    (host, intent): (&HostName, &IntentEntry),
    guest: &str,
    newest: Option<Newest<'_>>,
) -> Option<Obstacle> {
    let id = assessment.guests.get(guest);
    let tried = id.and_then(|id| attempts(fleet.remembered.get(id)?, id, intent));
    let tried = tried.filter(|tried| tried.retry_at_ms > assessment.at_ms);
    if let Some(tried) = tried {
        let times = if tried.failed == 1 { "time" } else { "times" };
        return Some(Obstacle {
            guest: guest.to_owned(),
            reason: BlockReason::CoolDown.as_str(),
            detail: format!("failed {} {times}, last {}", tried.failed, tried.last),
            retry_at_ms: Some(tried.retry_at_ms),
            hopeless: tried.failed >= HOPELESS,
        });
    }
    let newest = newest?;
    let named = |name: &Option<String>| name.as_deref() == Some(guest);
    if let Some(blocked) = newest.plan.blocked.iter().find(|b| named(&b.guest)) {
        return Some(Obstacle {
            guest: guest.to_owned(),
            reason: blocked.reason.as_str(),
            detail: blocked.detail.clone(),
            retry_at_ms: None,
            hopeless: true,
        });
    }
    let (reason, detail) = newest.choice.postponed.iter().find_map(|(step, why)| {
        let of_this = step.guest == guest && step.from == host.as_str();
        match why {
            Postponed::NotNow(detail) if of_this => Some((why.as_str(), detail.clone())),
            Postponed::NotNow(_)
            | Postponed::Held(_)
            | Postponed::LaterWave
            | Postponed::HoldTime { .. }
            | Postponed::Settling { .. }
            | Postponed::Limit { .. } => None,
        }
    })?;
    Some(Obstacle {
        guest: guest.to_owned(),
        reason,
        detail,
        retry_at_ms: None,
        hopeless: false,
    })
}

/// Drains by state, and how many are late: what is counted of all.
#[must_use]
pub fn census<'a>(drains: impl Iterator<Item = &'a Drain>) -> BTreeMap<DrainState, usize> {
    let mut count: BTreeMap<DrainState, usize> = DrainState::ALL.map(|s| (s, 0)).into();
    for drain in drains {
        *count.entry(drain.state).or_default() += 1;
    }
    count
}

/// One sentence about a drain, for status and logs.
#[must_use]
pub fn sentence(host: &HostName, drain: &Drain, deadline_ms: i64, now_ms: i64) -> String {
    let mut text = match drain.state {
        DrainState::Drained => format!("{host}: drained"),
        DrainState::Draining | DrainState::Held | DrainState::Stuck => {
            format!("{host}: draining, {} left", drain.left)
        }
    };
    if drain.moving > 0 {
        text.push_str(&format!(", {} moving", drain.moving));
    }
    if drain.shut_off_stay > 0 {
        let guests = if drain.shut_off_stay == 1 {
            "guest stays"
        } else {
            "guests stay"
        };
        text.push_str(&format!(", {} shut-off {guests}", drain.shut_off_stay));
    }
    if drain.overdue {
        let late = now_ms.saturating_sub(deadline_ms) / 60_000;
        text.push_str(&format!(", its deadline passed {late} min ago"));
    }
    if let Some(hold) = drain.holds.first() {
        text.push_str(&format!("; held: {hold}"));
    }
    if let Some(first) = drain.obstacles.first() {
        let more = drain.obstacles.len() - 1;
        text.push_str(&format!(
            "; {} cannot go: {}: {}",
            first.guest, first.reason, first.detail
        ));
        if more > 0 {
            text.push_str(&format!(", and {more} more"));
        }
    }
    text
}

#[cfg(test)]
mod tests;
