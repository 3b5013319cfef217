//! Records of guests that are gone are removed, a few at a time, or they would be kept for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use evenkeel_types::GuestId;

use super::Controller;
use crate::core::cooldown::is_spent;
use crate::lease::Mandate;
use crate::observe::Fleet;

/// How often it is looked for what can go.
const EVERY: Duration = Duration::from_secs(10);
/// Records removed at a time, in one transaction.
const MOST: usize = 16;

impl Controller {
    /// Removes records of guests that are gone, when it is time to.
    pub(super) async fn sweep(&mut self, mandate: &Mandate, now_ms: i64) {
        if Duration::from_millis(now_ms.abs_diff(self.swept_ms)) < EVERY {
            return;
        }
        self.swept_ms = now_ms;
        let gone = gone(&self.fleet, now_ms);
        if gone.is_empty() {
            return;
        }
        match self.orders.forget(mandate, &gone).await {
            Ok(()) => tracing::info!(count = gone.len(), "forgot guests that are gone"),
            Err(error) => self.note_failed_write("forget", mandate, &error),
        }
    }
}

/// Guests that no host reports and nothing moves, whose record is spent; with the revision of that record.
fn gone(fleet: &Fleet, now_ms: i64) -> Vec<(GuestId, i64)> {
    let reports = fleet.reports.values();
    let here: BTreeSet<&GuestId> = reports
        .flat_map(|report| report.guests.iter().map(|guest| &guest.id))
        .collect();
    let open = fleet.open_migrations();
    let moving: BTreeSet<&GuestId> = open.values().map(|order| &order.guest).collect();
    fleet
        .remembered
        .iter()
        .filter(|(guest, _)| !here.contains(guest) && !moving.contains(guest))
        .filter(|(_, record)| is_spent(&record.message, now_ms))
        .map(|(guest, record)| (guest.clone(), record.mod_revision))
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::v1;

    use super::*;
    use crate::observe::samples::order_entry;
    use crate::observe::{OrderEntry, Remembered};

    const DAY_MS: i64 = 24 * 3_600_000;

    fn id(n: usize) -> GuestId {
        format!("00000000-0000-0000-0000-{n:012}").parse().unwrap()
    }

    fn moved_at(ended_at_ms: i64) -> Remembered {
        let message = v1::GuestRecord {
            moves: vec![v1::MoveRecord {
                ended_at_ms,
                ..Default::default()
            }],
            ..Default::default()
        };
        Remembered {
            cooldown_until_ms: 0,
            moves: vec![],
            message,
            mod_revision: 9,
        }
    }

    fn order(guest: &GuestId) -> OrderEntry {
        order_entry(5, |o| o.guest_uuid = guest.to_string())
    }

    #[test]
    fn a_record_goes_a_day_after_the_last_move_of_a_guest_that_is_gone() {
        let mut fleet = Fleet::default();
        fleet.remembered.insert(id(1), moved_at(1000));
        assert_eq!(gone(&fleet, DAY_MS), []);
        assert_eq!(gone(&fleet, DAY_MS + 2000), [(id(1), 9)]);
        fleet.orders.insert(id(1), order(&id(1)));
        assert_eq!(gone(&fleet, DAY_MS + 2000), [], "it is being moved");
    }

    #[test]
    fn records_go_a_few_at_a_time() {
        let mut fleet = Fleet::default();
        fleet
            .remembered
            .extend((1..=100).map(|n| (id(n), moved_at(0))));
        assert_eq!(gone(&fleet, 2 * DAY_MS).len(), MOST);
    }
}
