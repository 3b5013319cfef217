//! What a live migration will take: pre-copy, replayed round by round.
//!
//! Round 0 copies all memory (and local disks); each further round copies what was dirtied meanwhile:
//! V(i+1) = dirty(V(i)/B), until V/B fits into the allowed pause or the rounds run out (QEMU judges the same
//! way: what switching over itself takes comes on top of the limit); then the longest pause of the policy's steps
//! decides, and post-copy where the policy allows it. Where the policy allows it, a guest that makes no progress is throttled in steps, as QEMU's auto-converge does.
//! Source: Clark et al., Live Migration of Virtual Machines, NSDI 2005; QEMU docs/devel/migration.

use crate::constants::{
    BROWN_OUT, COPY_CORES_PER_MIB_S, DOWNTIME_WEIGHT, LEAST_BANDWIDTH, MAX_ROUNDS, PROGRESS,
    SWITCH_OVER_SECONDS, THROTTLE,
};
use crate::num::{from_mib, round_bytes, signed};
use crate::policy::Policy;
use crate::snapshot::{Guest, GuestState, Host};

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// A predicted migration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Precopy {
    /// Time from start to switch-over, s.
    pub copy_seconds: f64,
    /// Pause at switch-over, s.
    pub downtime_seconds: f64,
    /// Bytes over the link.
    pub bytes: u64,
    /// Whether the pause fits the limit.
    pub converges: bool,
    /// ∫ throttled fraction dt, s: what auto-converge takes from the guest.
    pub throttled_seconds: f64,
}

/// The bandwidth that a migration between two hosts will get, MiB/s.
#[must_use]
pub fn bandwidth(from: &Host, to: &Host, policy: &Policy) -> f64 {
    let link = from
        .migration_bandwidth_mib_s
        .min(to.migration_bandwidth_mib_s);
    let limit = policy.migration.bandwidth_limit_mib_s;
    if limit > 0.0 { link.min(limit) } else { link }
}

/// Unique memory dirtied within a time, MiB.
fn dirtied(guest: &Guest, seconds: f64) -> f64 {
    let all = from_mib(signed(guest.memory_mib));
    if guest.dirty_curve.is_empty() {
        // Pages of the working set are dirtied again and again; each is copied once per round.
        let active = from_mib(signed(guest.active_mib()));
        return (guest.dirty_rate_mib_s * seconds).min(active).min(all);
    }
    let (mut below, mut slope) = ((0.0, 0.0), 0.0);
    for &(at, mib) in &guest.dirty_curve {
        // What is dirty stays so until it is copied: a point below the one before is an error of measurement.
        let mib = mib.max(below.1);
        if at > below.0 {
            slope = (mib - below.1) / (at - below.0);
        }
        if at >= seconds {
            break;
        }
        below = (at, mib);
    }
    // Beyond the last point the last slope is kept: a measured curve is rarely long enough to be flat.
    (below.1 + slope * (seconds - below.0)).min(all)
}

/// Predicts the migration of a guest at a bandwidth (MiB/s). Every number is finite; without a link
/// nothing is copied and nothing converges.
#[must_use]
pub fn predict(guest: &Guest, bandwidth: f64, policy: &Policy) -> Precopy {
    let limit = policy.migration.downtime_limit.as_secs_f64();
    let memory = match guest.state {
        GuestState::Running | GuestState::Paused => from_mib(signed(guest.memory_mib)),
        GuestState::Shutoff => 0.0,
    };
    let disks = from_mib(signed(guest.local_disk_mib));
    if bandwidth < LEAST_BANDWIDTH {
        let converges = memory + disks <= 0.0;
        return Precopy {
            copy_seconds: 0.0,
            downtime_seconds: 0.0,
            bytes: 0,
            converges,
            throttled_seconds: 0.0,
        };
    }
    // Disks go first and once; only memory is copied again. Bounded by MAX_ROUNDS.
    let mut replay = Replay {
        seconds: disks / bandwidth,
        volume: disks,
        throttle: 0.0,
        throttled: 0.0,
        stuck: 0,
    };
    let mut left = memory;
    for _ in 0..MAX_ROUNDS {
        if left / bandwidth <= limit {
            break;
        }
        left = replay.round(guest, left, bandwidth, policy.migration.auto_converge);
    }
    let longest = policy.migration.longest_pause().as_secs_f64();
    let converges = left / bandwidth <= longest;
    let running = guest.state == GuestState::Running;
    // Handed over before it is complete, it waits for no more than the switching itself.
    let early = !converges && policy.migration.post_copy;
    let pause = if early { 0.0 } else { left / bandwidth };
    Precopy {
        copy_seconds: replay.seconds,
        downtime_seconds: if running {
            pause + SWITCH_OVER_SECONDS
        } else {
            0.0
        },
        bytes: round_bytes((replay.volume + left) * MIB),
        converges: converges || early,
        throttled_seconds: replay.throttled,
    }
}

/// What has been copied so far.
struct Replay {
    seconds: f64,
    volume: f64,
    throttle: f64,
    throttled: f64,
    stuck: u32,
}

impl Replay {
    /// Copies `left` MiB and returns what was dirtied meanwhile.
    fn round(&mut self, guest: &Guest, left: f64, bandwidth: f64, auto_converge: bool) -> f64 {
        let time = left / bandwidth;
        self.seconds += time;
        self.volume += left;
        self.throttled += self.throttle * time;
        let next = match guest.state {
            GuestState::Running => dirtied(guest, time * (1.0 - self.throttle)),
            GuestState::Paused | GuestState::Shutoff => 0.0,
        };
        if next > PROGRESS * left {
            self.stuck += 1;
            if auto_converge && self.stuck >= 2 {
                let step = if self.throttle > 0.0 {
                    THROTTLE.1
                } else {
                    THROTTLE.0
                };
                self.throttle = (self.throttle + step).min(THROTTLE.2);
            }
        }
        next
    }
}

/// What guests lose by a migration, by where it comes from, guest-seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CostParts {
    /// The pause at switch-over.
    pub pause: f64,
    /// Running slower while it is copied, throttling included.
    pub brown_out: f64,
    /// CPU that copying takes from guests of the two hosts.
    pub copy_cpu: f64,
}

impl CostParts {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.pause + self.brown_out + self.copy_cpu
    }
}

/// What guests lose by a migration, guest-seconds, without the policy's fixed price.
///
/// Pause × max(demand, vCPUs/10) + (brown-out × copy time + throttled time) × demand + what copying takes
/// from the two hosts: its CPU times the chance that a vCPU waits there (`slopes`, 0–1 each).
#[must_use]
pub fn cost(guest: &Guest, precopy: &Precopy, bandwidth: f64, slopes: (f64, f64)) -> f64 {
    cost_parts(guest, precopy, bandwidth, slopes).total()
}

/// [`cost`], part by part.
#[must_use]
pub fn cost_parts(
    guest: &Guest,
    precopy: &Precopy,
    bandwidth: f64,
    slopes: (f64, f64),
) -> CostParts {
    let demand = match guest.state {
        GuestState::Running => guest.demand_cores(),
        GuestState::Paused | GuestState::Shutoff => 0.0,
    };
    let weight = demand.max(DOWNTIME_WEIGHT * f64::from(guest.vcpus));
    let copy_cores = COPY_CORES_PER_MIB_S * bandwidth;
    CostParts {
        pause: precopy.downtime_seconds * weight,
        brown_out: (BROWN_OUT * precopy.copy_seconds + precopy.throttled_seconds) * demand,
        copy_cpu: copy_cores * precopy.copy_seconds * (slopes.0 + slopes.1),
    }
}
