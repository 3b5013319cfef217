//! What happens to a fleet and is kept: the closed set of kinds of events.
//!
//! Names reach operators in `evenkeel events`, as labels of metrics and in what webhooks receive, so none is
//! ever changed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reason::{UnknownReason, reasons};

reasons! {
    /// What an event says.
    EventKind {
        /// An order was put in place.
        MigrationOrdered = "migration_ordered",
        /// A migration was refused: the wish for it by the leader, or its order by an agent. Nothing has moved.
        MigrationRefused = "migration_refused",
        /// A guest has arrived at its target.
        MigrationDone = "migration_done",
        /// A migration that had started did not end at its target.
        MigrationFailed = "migration_failed",
        /// A migration was cancelled; its guest stayed.
        MigrationCancelled = "migration_cancelled",
        /// Nobody can say how a migration ended; its guest is not touched.
        MigrationUnknown = "migration_unknown",
        /// An operator asked for the end of a migration, and it is being aborted.
        CancelAsked = "cancel_asked",
        /// An operator said where a guest is whose migration's outcome was unknown.
        GuestResolved = "guest_resolved",
        /// A change other than a migration was refused.
        RequestRefused = "request_refused",
        /// Another policy is in force.
        PolicyChanged = "policy_changed",
        /// Another mode is in force.
        ModeChanged = "mode_changed",
        /// An operator paused the fleet.
        Paused = "paused",
        /// The pause was ended, or ran out.
        Resumed = "resumed",
        /// A host takes no new guests.
        Cordoned = "cordoned",
        /// A host takes guests again.
        Uncordoned = "uncordoned",
        /// A host's guests have to go.
        DrainBegan = "drain_began",
        /// What was asked of a drain has changed.
        DrainChanged = "drain_changed",
        /// A drain was called off; a cordon from before it stands again.
        DrainCancelled = "drain_cancelled",
        /// Nothing is left on a host that is being drained.
        Drained = "drained",
        /// Something is on a host again that was drained.
        DrainReopened = "drain_reopened",
        /// The deadline of a drain has passed and something is left.
        DrainOverdue = "drain_overdue",
        /// Another replica leads.
        LeaderChanged = "leader_changed",
        /// A guest was found to run on two hosts.
        GuestOnTwoHostsBegan = "guest_on_two_hosts_began",
        /// It runs on two hosts no more.
        GuestOnTwoHostsEnded = "guest_on_two_hosts_ended",
        /// Running guests were found to write to one disk.
        DiskWrittenTwiceBegan = "disk_written_twice_began",
        /// They write to one disk no more.
        DiskWrittenTwiceEnded = "disk_written_twice_ended",
        /// Somebody else was seen to migrate a guest.
        ForeignMigrationBegan = "foreign_migration_began",
        /// Nobody else migrates it any more.
        ForeignMigrationEnded = "foreign_migration_ended",
        /// Something holds automatic moves back that is neither the mode nor a pause.
        HoldBegan = "hold_began",
        /// It holds them back no more.
        HoldEnded = "hold_ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_parses_from_its_own_name_and_matches_serde() {
        for &kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn the_page_on_events_has_a_row_for_every_kind_and_no_other() {
        let page = include_str!("../../../docs/events.md");
        let kinds = page.split("## Kinds").nth(1).unwrap();
        let kinds = kinds.split("\n## ").next().unwrap();
        let rows = kinds.lines().filter_map(|line| line.strip_prefix("| `"));
        let named: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let all: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(named, all);
    }
}
