//! What libvirt's numbers mean: states, reasons and job figures.

use std::time::Duration;

use evenkeel_types::Presence;

use super::raw::Params;
use crate::hypervisor::{DiskProgress, JobProgress, RunState};

/// `virDomainState`
const NO_STATE: i32 = 0;
const RUNNING: i32 = 1;
const BLOCKED: i32 = 2;
const PAUSED: i32 = 3;
const SHUTTING_DOWN: i32 = 4;
const SHUT_OFF: i32 = 5;
/// `virDomainRunningReason`: the copy after the switch-over failed; the guest does not really run.
const RUNNING_POSTCOPY_FAILED: i32 = 11;
/// `virDomainPausedReason`
const PAUSED_MIGRATION: i32 = 2;
const PAUSED_STARTING_UP: i32 = 11;
const PAUSED_POSTCOPY: i32 = 12;
const PAUSED_POSTCOPY_FAILED: i32 = 13;
/// `virDomainJobType`
pub(super) const JOB_NONE: i32 = 0;
const JOB_BOUNDED: i32 = 1;
const JOB_UNBOUNDED: i32 = 2;
/// `virDomainJobOperation`
const OPERATION_MIGRATION_OUT: i64 = 5;

/// What a host has of a guest in this state.
///
/// A guest that is just being started counts as a half: the target's half begins like that, and
/// "not yet alive" is the answer that settles nothing.
pub(super) fn presence(state: i32, reason: i32) -> Presence {
    match (state, reason) {
        (RUNNING, RUNNING_POSTCOPY_FAILED)
        | (
            PAUSED,
            PAUSED_MIGRATION | PAUSED_STARTING_UP | PAUSED_POSTCOPY | PAUSED_POSTCOPY_FAILED,
        ) => Presence::PausedByMigration,
        (NO_STATE | RUNNING | BLOCKED | SHUTTING_DOWN, _) => Presence::Running,
        (SHUT_OFF, _) => Presence::ShutOff,
        // Paused, crashed but kept, suspended, and whatever a later libvirt invents: a process that
        // does not execute.
        _ => Presence::Paused,
    }
}

/// The same as a state for reports.
pub(super) fn run_state(state: i32, reason: i32) -> RunState {
    match presence(state, reason) {
        Presence::Running => RunState::Running,
        Presence::Paused => RunState::Paused,
        Presence::PausedByMigration => RunState::Migrating,
        Presence::ShutOff | Presence::Absent => RunState::ShutOff,
    }
}

/// Whether a job of this kind is running: neither none nor one that is over.
pub(super) fn is_running(kind: i32) -> bool {
    matches!(kind, JOB_BOUNDED | JOB_UNBOUNDED)
}

/// The progress of a migration away from here; `None`: the job is none.
pub(super) fn outgoing(kind: i32, figures: &Params) -> Option<JobProgress> {
    (is_running(kind) && is_outgoing_migration(figures)).then(|| progress(figures))
}

/// Whether figures of a completed job are those of a migration away from here.
pub(super) fn is_outgoing_migration(figures: &Params) -> bool {
    figures.signed("operation") == Some(OPERATION_MIGRATION_OUT)
}

/// Job figures in our units.
pub(super) fn progress(figures: &Params) -> JobProgress {
    let number = |name| figures.number(name).unwrap_or(0);
    let ms = |name| figures.number(name).map(Duration::from_millis);
    // Page sizes are told since libvirt 3.x; 4 KiB is what every older one had.
    let page = figures
        .number("memory_page_size")
        .filter(|&size| size > 0)
        .unwrap_or(4096);
    let downtime = ms("downtime").unwrap_or_default();
    JobProgress {
        total_bytes: number("data_total"),
        transferred_bytes: number("data_processed"),
        remaining_bytes: number("data_remaining"),
        dirty_bytes_per_second: number("memory_dirty_rate").saturating_mul(page),
        bandwidth_bytes_per_second: number("memory_bps"),
        iteration: u32::try_from(number("memory_iteration")).unwrap_or(u32::MAX),
        expected_downtime: downtime,
        // The same figure is the expected pause while copying and the measured one at the end.
        downtime: None,
        elapsed: ms("time_elapsed").unwrap_or_default(),
        disks: DiskProgress {
            total_bytes: number("disk_total"),
            transferred_bytes: number("disk_processed"),
            remaining_bytes: number("disk_remaining"),
        },
    }
}

/// Figures of a completed job: the pause is then the measured one.
pub(super) fn completed(figures: &Params) -> JobProgress {
    let progress = progress(figures);
    JobProgress {
        downtime: figures.number("downtime").map(Duration::from_millis),
        ..progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_ghosts_are_not_taken_for_living_guests() {
        for (state, reason, expected) in [
            (1, 1, Presence::Running),
            (1, 2, Presence::Running),
            (1, 6, Presence::Running),
            (1, 10, Presence::Running),
            (1, 11, Presence::PausedByMigration),
            (2, 0, Presence::Running),
            (3, 1, Presence::Paused),
            (3, 2, Presence::PausedByMigration),
            (3, 5, Presence::Paused),
            (3, 11, Presence::PausedByMigration),
            (3, 12, Presence::PausedByMigration),
            (3, 13, Presence::PausedByMigration),
            (4, 0, Presence::Running),
            (5, 3, Presence::ShutOff),
            (5, 4, Presence::ShutOff),
            (6, 0, Presence::Paused),
            (7, 0, Presence::Paused),
            (99, 0, Presence::Paused),
        ] {
            assert_eq!(presence(state, reason), expected, "{state}/{reason}");
        }
    }

    #[test]
    fn only_a_running_job_that_leaves_is_an_outgoing_migration() {
        assert_eq!(outgoing(2, &Params::default()), None);
        // virDomainJobOperation: start, save, restore, incoming, outgoing, snapshot, revert, dump, backup.
        for operation in 1..10 {
            let figures = Params::of(&[("operation", operation)]);
            assert_eq!(outgoing(JOB_NONE, &figures), None);
            assert_eq!(outgoing(3, &figures), None, "it is over");
            assert_eq!(outgoing(2, &figures).is_some(), operation == 5);
        }
        assert!(is_running(1) && is_running(2));
        assert!(!is_running(JOB_NONE) && !is_running(3));
    }
}
