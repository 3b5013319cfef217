//! What a test says about the migrations of a fake host.

use std::time::Duration;

use crate::hypervisor::{DiskProgress, JobProgress};

/// How the next migrations from a host go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Iterations before the hand-over.
    pub iterations: u32,
    /// Real time that each takes.
    pub iteration_time: Duration,
    /// What comes then.
    pub ending: Ending,
    /// Whether the call fails at once while the copy goes on: the connection to libvirtd broke.
    pub call_breaks: bool,
    /// A pause that lets a copy end that would not converge; `None`: none does.
    pub pause_needed: Option<Duration>,
}

impl Script {
    /// Whether one of these pauses lets the copy end.
    pub(super) fn suffices(&self, pauses: &[Duration]) -> bool {
        let needed = self.pause_needed;
        needed.is_some_and(|needed| pauses.iter().any(|pause| *pause >= needed))
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            iterations: 3,
            iteration_time: Duration::from_millis(2),
            ending: Ending::Moves,
            call_breaks: false,
            pause_needed: None,
        }
    }
}

impl Script {
    /// What a job says after so many iterations.
    pub(super) fn progress(&self, iteration: u32) -> JobProgress {
        const MIB: u64 = 1 << 20;
        let done = u64::from(iteration);
        let all = u64::from(self.iterations.max(iteration));
        JobProgress {
            total_bytes: all * 16 * MIB,
            transferred_bytes: done * 16 * MIB,
            remaining_bytes: (all - done) * 16 * MIB,
            dirty_bytes_per_second: MIB,
            bandwidth_bytes_per_second: 100 * MIB,
            iteration,
            expected_downtime: Duration::from_millis(20),
            downtime: None,
            elapsed: self.iteration_time * iteration,
            disks: DiskProgress::default(),
        }
    }
}

/// What a scripted migration comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Success; the guest runs at the target.
    Moves,
    /// An error, and the guest stays where it was.
    Fails,
    /// An error, although the guest has moved (the source's libvirtd was killed at the hand-over).
    FailsThoughMoved,
    /// An error, and the source is left paused beside a running target.
    LeavesPausedSource,
    /// An error, and the target's half stays there, paused.
    LeavesPausedTarget,
    /// An error, and both run: the one thing that must never be.
    RunsTwice,
    /// An error, and neither runs: the source's QEMU died.
    Dies,
    /// Copies without end, until aborted or the source's libvirtd goes.
    NeverConverges,
}

/// Where the calls of `migrate` hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Connecting: the call was not made.
    BeforeCall,
    /// libvirtd has the call and does not begin.
    InCall,
}
