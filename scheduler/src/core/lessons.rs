//! What a guest's ended moves teach the next plan: hosts that refused it, and a copy that did not converge.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_planner::policy::Migration;
use evenkeel_planner::{Policy, RefusedBy};
use evenkeel_proto::v1;
use evenkeel_types::{FailureReason, MigrationState, Outcome, Refusal};
use jiff::Timestamp;

use super::millis;
use crate::observe::Past;

/// A refusal is believed for so long at first, twice as long after each further one …
const BELIEVED: Duration = Duration::from_secs(3600);
/// … at most so often.
const MOST_DOUBLINGS: u32 = 4;
/// What may be different soon (memory, room on a disk) is believed for so long.
const BELIEVED_BRIEFLY: Duration = Duration::from_secs(600);
/// After a copy that did not converge a guest is left alone for so long, unless it is allowed more by then.
const LEFT_ALONE: Duration = Duration::from_secs(24 * 3600);

/// How long the first refusal of its kind keeps a guest from its host; `None`: it says nothing about the host.
fn believed(refusal: Refusal) -> Option<Duration> {
    match refusal {
        Refusal::IncompatibleCpu
        | Refusal::UnknownMachineType
        | Refusal::MissingNetwork
        | Refusal::MissingStorage
        | Refusal::DiskInUse
        | Refusal::OlderVersion
        | Refusal::NameClash => Some(BELIEVED),
        Refusal::NoMemory | Refusal::NoDiskSpace => Some(BELIEVED_BRIEFLY),
        Refusal::StaleEpoch
        | Refusal::NoSuchOrder
        | Refusal::Duplicate
        | Refusal::NoEtcd
        | Refusal::NoLibvirt
        | Refusal::GuestNotHere
        | Refusal::WrongState
        | Refusal::GuestRunning
        | Refusal::HasSnapshots
        | Refusal::Unmovable
        | Refusal::Busy
        | Refusal::SourceUnreachable
        | Refusal::TargetUnreachable
        | Refusal::TooManyMigrations
        | Refusal::Unsupported
        | Refusal::DeadlinePassed => None,
    }
}

/// Hosts that refused a guest lately, by what is remembered of its moves (oldest first). A move that has gone there
/// since ends it.
#[must_use]
pub fn refused_by(moves: &[Past], now_ms: i64) -> BTreeMap<String, RefusedBy> {
    let mut refusals: BTreeMap<&str, (u32, Refusal, i64)> = BTreeMap::new();
    for past in moves {
        match past.state.and_then(|state| state.outcome()) {
            Some(Outcome::Refused(refusal)) if believed(refusal).is_some() => {
                let (times, last, at_ms) =
                    refusals
                        .entry(&past.target)
                        .or_insert((0, refusal, past.ended_ms));
                (*times, *last, *at_ms) = (*times + 1, refusal, past.ended_ms);
            }
            Some(Outcome::Done) => drop(refusals.remove(past.target.as_str())),
            Some(Outcome::Refused(_) | Outcome::Cancelled | Outcome::Failed { .. }) | None => {}
        }
    }
    let standing = |(host, (times, refusal, at_ms)): (&str, (u32, Refusal, i64))| {
        let doublings = times.saturating_sub(1).min(MOST_DOUBLINGS);
        let time = believed(refusal)?.saturating_mul(1 << doublings);
        let until_ms = at_ms.saturating_add(millis(time));
        let until = Timestamp::from_millisecond(until_ms).ok()?;
        let reason = refusal.as_str().to_owned();
        (until_ms > now_ms).then(|| (host.to_owned(), RefusedBy { reason, until }))
    };
    refusals.into_iter().filter_map(standing).collect()
}

/// Until when a guest whose last copy did not converge is left alone; `None`: it did, it was long ago, or the
/// policy allows more now.
#[must_use]
pub fn unconverged_until(moves: &[Past], policy: &Policy, now_ms: i64) -> Option<Timestamp> {
    let copied = last_copied(moves)?;
    if !did_not_converge(copied.state?) || allows_more(&policy.migration, copied) {
        return None;
    }
    let until_ms = copied.ended_ms.saturating_add(millis(LEFT_ALONE));
    (until_ms > now_ms)
        .then(|| Timestamp::from_millisecond(until_ms).ok())
        .flatten()
}

/// Whether a guest's newest copy, however long ago, did not converge.
#[must_use]
pub fn last_did_not_converge(moves: &[Past]) -> bool {
    let copied = last_copied(moves);
    copied
        .and_then(|past| past.state)
        .is_some_and(did_not_converge)
}

/// The newest move that was more than an order.
fn last_copied(moves: &[Past]) -> Option<&Past> {
    moves.iter().rev().find(|past| {
        let outcome = past.state.and_then(|state| state.outcome());
        !matches!(
            outcome,
            Some(Outcome::Refused(_) | Outcome::Cancelled) | None
        )
    })
}

/// Whether a migration ended because its copy took too long.
#[must_use]
pub fn did_not_converge(state: MigrationState) -> bool {
    matches!(
        state,
        MigrationState::Ended(Outcome::Failed {
            reason: FailureReason::NotConverging | FailureReason::Deadline,
            ..
        })
    )
}

fn allows_more(now: &Migration, past: &Past) -> bool {
    let pause = now.longest_pause() > past.longest_pause;
    pause || (now.post_copy && !past.post_copy)
}

/// What a copy was allowed in the end, by its order.
#[must_use]
pub fn longest_pause_ms(options: &v1::MoveOptions) -> u64 {
    let steps = options.downtime_steps_ms.iter().copied();
    steps.fold(options.downtime_limit_ms, u64::max)
}

#[cfg(test)]
mod tests {
    use evenkeel_types::Whereabouts;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn past(target: &str, ended_ms: i64, outcome: Outcome) -> Past {
        Past {
            source: "h1".into(),
            target: target.into(),
            ended_ms,
            trigger: "balance".into(),
            state: Some(MigrationState::Ended(outcome)),
            longest_pause: Duration::from_millis(300),
            post_copy: false,
        }
    }

    fn refused(target: &str, ended_ms: i64, refusal: Refusal) -> Past {
        past(target, ended_ms, Outcome::Refused(refusal))
    }

    fn standing(moves: &[Past], now_ms: i64) -> Vec<(String, String, i64)> {
        let all = refused_by(moves, now_ms).into_iter();
        all.map(|(host, by)| (host, by.reason, by.until.as_millisecond()))
            .collect()
    }

    #[test]
    fn a_refusal_keeps_a_guest_from_its_host_for_longer_each_time() {
        let network = |ended_ms| refused("h2", ended_ms, Refusal::MissingNetwork);
        let until = |ms: i64| vec![("h2".to_owned(), "missing_network".to_owned(), ms)];
        assert_eq!(standing(&[network(0)], 1), until(HOUR_MS));
        assert_eq!(standing(&[network(0)], HOUR_MS), []);
        let twice = [network(0), network(HOUR_MS)];
        assert_eq!(standing(&twice, 2 * HOUR_MS), until(3 * HOUR_MS));
        let gone_there = [network(0), network(1), past("h2", 2, Outcome::Done)];
        assert_eq!(standing(&gone_there, 3), []);
        let elsewhere = [network(0), past("h3", 2, Outcome::Done)];
        assert_eq!(standing(&elsewhere, 3), until(HOUR_MS));
    }

    #[test]
    fn only_what_a_host_lacks_is_held_against_it() {
        let told = |refusal| standing(&[refused("h2", 0, refusal)], 1).len();
        for (refusal, expected) in [
            (Refusal::NameClash, 1),
            (Refusal::OlderVersion, 1),
            (Refusal::NoDiskSpace, 1),
            (Refusal::StaleEpoch, 0),
            (Refusal::TargetUnreachable, 0),
            (Refusal::Busy, 0),
        ] {
            assert_eq!(told(refusal), expected, "{refusal}");
        }
        let short = refused("h2", 0, Refusal::NoMemory);
        assert_eq!(standing(&[short], 700_000), [], "memory comes and goes");
    }

    #[test]
    fn a_copy_that_did_not_converge_is_not_tried_for_a_day_unless_more_is_allowed() {
        let failed = |reason| {
            let guest = Whereabouts::Source;
            past("h2", 0, Outcome::Failed { reason, guest })
        };
        let until = |moves: &[Past], policy: &str, now_ms| {
            let policy = Policy::parse(policy).unwrap();
            unconverged_until(moves, &policy, now_ms).map(Timestamp::as_millisecond)
        };
        let given_up = failed(FailureReason::NotConverging);
        let day = Some(24 * HOUR_MS);
        let moves = [given_up.clone(), refused("h3", 5, Refusal::NoMemory)];
        assert_eq!(until(&moves, "", 6), day);
        assert_eq!(until(&moves, "", 25 * HOUR_MS), None);
        assert_eq!(until(&[failed(FailureReason::Deadline)], "", 6), day);
        assert_eq!(until(&[failed(FailureReason::Libvirt)], "", 6), None);
        let since = [given_up, past("h2", 9, Outcome::Done)];
        assert_eq!(until(&since, "", 10), None);
        let more = "[migration]\ndowntime_steps = [\"1s\"]";
        assert_eq!(until(&moves, more, 6), None);
        assert_eq!(until(&moves, "[migration]\npost_copy = true", 6), None);
    }
}
