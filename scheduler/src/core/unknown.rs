//! Migrations of which nobody can say how they stand. A view only: the journal stays its agent's.

use std::time::Duration;

use evenkeel_planner::{HostState, Snapshot};
use evenkeel_types::{HostName, MigrationState};

use super::millis;
use crate::observe::JournalEntry;

/// Past its deadline a migration is aborted and both hosts are asked; an agent that lives is done with that
/// after this long, or says that the outcome is unknown.
const GRACE: Duration = Duration::from_secs(60);

/// The host for whose silence a migration's outcome is not known.
///
/// An agent that died with its host cannot say so itself: an open journal past its deadline, with one of its
/// hosts away, is as unknown as one that says it is.
#[must_use]
pub fn silent_host<'a>(
    journal: &'a JournalEntry,
    snapshot: &Snapshot,
    now_ms: i64,
) -> Option<&'a HostName> {
    let order = &journal.order;
    let overdue = now_ms.saturating_sub(order.message.deadline_ms) > millis(GRACE);
    if journal.state.outcome().is_some() || !overdue {
        return None;
    }
    let is_away = |name: &&HostName| {
        let host = snapshot.host(name.as_str());
        host.is_none_or(|host| host.state == HostState::Absent)
    };
    [&order.source, &order.target].into_iter().find(is_away)
}

/// Whether a migration's outcome is not known, by its agent's word or by its silence.
#[must_use]
pub fn is_unknown(journal: &JournalEntry, snapshot: &Snapshot, now_ms: i64) -> bool {
    matches!(journal.state, MigrationState::Unknown { .. })
        || silent_host(journal, snapshot, now_ms).is_some()
}

#[cfg(test)]
mod tests {
    use evenkeel_planner::Host;
    use evenkeel_proto::v1;
    use evenkeel_types::Outcome;
    use evenkeel_types::lifecycle::CopyFacts;

    use super::*;
    use crate::observe::samples::order_entry;

    fn journal(state: MigrationState) -> JournalEntry {
        JournalEntry {
            order: order_entry(5, |o| o.deadline_ms = 100_000).order,
            state,
            message: v1::Journal::default(),
            mod_revision: 4,
        }
    }

    fn fleet(absent: &str) -> Snapshot {
        let mut snapshot = Snapshot::new("lab", jiff::Timestamp::UNIX_EPOCH);
        for name in ["h1", "h2", "h3"] {
            let mut host = Host {
                name: name.to_owned(),
                ..Host::default()
            };
            if name == absent {
                host.state = HostState::Absent;
            }
            snapshot.hosts.push(host);
        }
        snapshot
    }

    #[test]
    fn a_migration_whose_host_died_is_unknown_once_its_deadline_is_well_over() {
        let running = journal(MigrationState::Running(CopyFacts::default()));
        for host in ["h1", "h2"] {
            assert!(!is_unknown(&running, &fleet(host), 159_000), "it may end");
            assert!(is_unknown(&running, &fleet(host), 161_000));
        }
        assert!(!is_unknown(&running, &fleet("h3"), 161_000));
        let done = journal(MigrationState::Ended(Outcome::Done));
        assert!(!is_unknown(&done, &fleet("h1"), 161_000));
    }
}
