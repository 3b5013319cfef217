//! How long a guest rests after a move: doubling with repeats, kept in etcd so that no leader forgets it.

use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_types::{MigrationState, Outcome};

use super::lessons::{did_not_converge, longest_pause_ms};
use super::millis;

/// Moves within this time count as repeats.
const REPEAT_WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Most doublings: 64 times the policy's cool-down.
const MOST_DOUBLINGS: u32 = 6;
const KIB_PER_MIB: f64 = 1024.0;
/// Moves remembered per guest.
const MOST_MOVES: usize = 16;

/// The record of a guest after one more ended move.
///
/// Refused and failed moves rest as well: what did not go now will not go in the next cycle.
#[must_use]
pub fn after_move(
    before: Option<&v1::GuestRecord>,
    ended: &v1::Journal,
    cooldown: Duration,
    now_ms: i64,
) -> v1::GuestRecord {
    let order = ended.order.clone().unwrap_or_default();
    let took_ms = ended.ended_at_ms.saturating_sub(ended.started_at_ms);
    let mut record = before.cloned().unwrap_or_default();
    record.dirty_rate_mib_s = dirty_rate(record.dirty_rate_mib_s, ended);
    let options = order.options.clone().unwrap_or_default();
    record.uuid = order.guest_uuid;
    record.name = order.guest_name;
    record.moves.push(v1::MoveRecord {
        order_id: order.id,
        source: order.source,
        target: order.target,
        // By our clock: agents' clocks must not decide how long their hosts settle.
        started_at_ms: now_ms.saturating_sub(took_ms.max(0)),
        ended_at_ms: now_ms,
        state: ended.state.clone(),
        trigger: order.trigger,
        reason: order.reason,
        why: order.why,
        by: order.by,
        detail: ended.detail.clone(),
        prediction: order.prediction,
        progress: ended.progress,
        longest_pause_ms: longest_pause_ms(&options),
        post_copy: options.post_copy,
    });
    let surplus = record.moves.len().saturating_sub(MOST_MOVES);
    record.moves.drain(..surplus);
    let rest = rest_after(&record, cooldown, now_ms);
    record.cooldown_until_ms = now_ms.saturating_add(millis(rest));
    record
}

/// The rate at which a guest dirties memory, MiB/s: what its last copy saw, and half of what was known before.
/// A copy that ended in its first round saw nothing; one that did not converge saw the most that is to be expected.
fn dirty_rate(known: f64, ended: &v1::Journal) -> f64 {
    let progress = ended.progress.unwrap_or_default();
    let state = ended.state.as_ref();
    let state = state.and_then(|state| MigrationState::try_from(state).ok());
    let too_fast = state.is_some_and(did_not_converge);
    let rate = if too_fast {
        progress.peak_dirty_bytes_per_second
    } else {
        progress.dirty_bytes_per_second
    };
    let seen = f64::from(u32::try_from(rate >> 10).unwrap_or(u32::MAX)) / KIB_PER_MIB;
    if seen <= 0.0 {
        known
    } else if too_fast {
        known.max(seen)
    } else if known > 0.0 {
        f64::midpoint(known, seen)
    } else {
        seen
    }
}

fn rest_after(record: &v1::GuestRecord, cooldown: Duration, now_ms: i64) -> Duration {
    let since = now_ms.saturating_sub(millis(REPEAT_WINDOW));
    let recent = record.moves.iter().filter(|m| m.ended_at_ms >= since);
    let repeats = recent.filter(|m| has_strained(m)).count();
    let doublings = u32::try_from(repeats.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(MOST_DOUBLINGS);
    cooldown.saturating_mul(1 << doublings)
}

/// Whether a move was more than an order that nobody took up.
fn has_strained(record: &v1::MoveRecord) -> bool {
    let state = record
        .state
        .as_ref()
        .and_then(|state| MigrationState::try_from(state).ok());
    !matches!(
        state.and_then(|state| state.outcome()),
        Some(Outcome::Refused(_))
    )
}

/// A journal for an order that never got one: withdrawn before any agent took it up.
#[must_use]
pub fn never_started(
    order: &v1::Order,
    state: MigrationState,
    detail: &str,
    now_ms: i64,
) -> v1::Journal {
    v1::Journal {
        order: Some(order.clone()),
        state: Some(state.into()),
        progress: None,
        started_at_ms: order.created_at_ms,
        updated_at_ms: now_ms,
        ended_at_ms: now_ms,
        detail: detail.to_owned(),
    }
}

/// Whether nothing that a record remembers of its guest matters any more.
#[must_use]
pub fn is_spent(record: &v1::GuestRecord, now_ms: i64) -> bool {
    let since = now_ms.saturating_sub(millis(REPEAT_WINDOW));
    record.cooldown_until_ms <= now_ms && record.moves.iter().all(|m| m.ended_at_ms < since)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ended(at_ms: i64) -> v1::Journal {
        let order = v1::Order {
            id: format!("o{at_ms}"),
            ..Default::default()
        };
        never_started(&order, MigrationState::Ended(Outcome::Done), "", at_ms)
    }

    #[test]
    fn rest_doubles_with_repeats_within_a_day() {
        let mut record = None;
        for (i, expected_minutes) in [1, 2, 4, 8, 16, 32, 64, 64].into_iter().enumerate() {
            let now = i64::try_from(i).unwrap() * 1000;
            let next = after_move(record.as_ref(), &ended(now), MINUTE, now);
            assert_eq!(next.cooldown_until_ms - now, expected_minutes * 60_000);
            record = Some(next);
        }
        let later = 3 * 24 * 3_600_000;
        let next = after_move(record.as_ref(), &ended(later), MINUTE, later);
        assert_eq!(next.cooldown_until_ms - later, 60_000);
    }

    #[test]
    fn refusals_rest_but_do_not_double() {
        let order = v1::Order::default();
        let state = MigrationState::Ended(Outcome::Refused(evenkeel_types::Refusal::NoMemory));
        let mut record = None;
        for now in 0..6 {
            let refused = never_started(&order, state, "", now);
            let next = after_move(record.as_ref(), &refused, MINUTE, now);
            assert_eq!(next.cooldown_until_ms - now, 60_000);
            record = Some(next);
        }
    }

    #[test]
    fn what_a_copy_saw_of_dirtying_is_remembered() {
        let copied = |rate_mib: u64| v1::Journal {
            progress: Some(v1::CopyProgress {
                dirty_bytes_per_second: rate_mib << 20,
                ..Default::default()
            }),
            ..ended(0)
        };
        let first = after_move(None, &copied(80), MINUTE, 0);
        let second = after_move(Some(&first), &copied(40), MINUTE, 0);
        let third = after_move(Some(&second), &copied(0), MINUTE, 0);
        let rates = [&first, &second, &third].map(|r| r.dirty_rate_mib_s);
        assert_eq!(rates, [80.0, 60.0, 60.0]);
    }

    #[test]
    fn the_leaders_clock_says_when_a_move_ended() {
        let mut journal = ended(9_000_000);
        journal.started_at_ms = 9_000_000 - 4_000;
        let record = after_move(None, &journal, MINUTE, 50_000);
        assert_eq!(
            (record.moves[0].started_at_ms, record.moves[0].ended_at_ms),
            (46_000, 50_000)
        );
    }

    #[test]
    fn the_record_is_bounded_and_keeps_the_newest() {
        let mut record = None;
        for now in 0..40 {
            record = Some(after_move(record.as_ref(), &ended(now), MINUTE, now));
        }
        let moves = record.unwrap().moves;
        assert_eq!(moves.len(), MOST_MOVES);
        assert_eq!(moves.last().unwrap().order_id, "o39");
    }
}
