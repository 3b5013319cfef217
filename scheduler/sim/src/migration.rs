//! A live migration as it really goes, in small steps of time.
//!
//! This is the world's side, and on purpose not the planner's formula: the dirty rate follows the guest's load and
//! wanders; pages of the working set are written again and again, so that the unique ones saturate; links are shared
//! by what runs over them at both ends and are never quite what they promise; there is a start-up time, and a pause
//! that the hypervisor only estimates. QEMU's rules: at the end of each pass over the dirty bitmap the guest is paused
//! if what is left is thought to fit into the allowed downtime, and throttled if two passes made little progress.
//!
//! ```text
//!  Preparing ─▶ Copying ─▶ Paused ─▶ done: the guest runs at the target
//!      ╲           ╲─ deadline, fault, lost host ─▶ failed: the guest stays at the source
//! ```

use rand::RngExt;
use rand::rngs::StdRng;

use crate::load::normal;
use crate::num::{mib, seconds};

/// Length of a step, s.
pub(crate) const STEP_SECONDS: f64 = 0.05;
/// Shortest and longest time until the first page is sent, s.
const START_UP: (f64, f64) = (0.3, 1.5);
/// Shortest and longest fixed part of the pause, s: device state, switching, announcing.
const SWITCH_OVER: (f64, f64) = (0.02, 0.09);
/// The write rate's wandering: log-deviation, and how much of it lasts for a step.
const SWING: (f64, f64) = (0.35, 0.98);
/// Share of a promised bandwidth that migrations get on average, and its deviation from step to step.
const LINK: (f64, f64) = (0.93, 0.04);
/// Writes that go on whatever the guest computes, as a share of its usual rate.
const IDLE_WRITES: f64 = 0.3;
/// CPU that sending and receiving take, cores per MiB/s.
const COPY_CORES: (f64, f64) = (0.0006, 0.0004);
/// Slowdown of a guest while its memory is copied: always, and more for those that write much.
const BROWN_OUT: (f64, f64) = (0.02, 0.06);
/// Write rate at which 1 − 1/e of the second part is reached, MiB/s.
const HEAVY_WRITER: f64 = 150.0;
/// A pass that leaves more than this share of what it sent makes no progress; auto-converge answers the second one.
const LITTLE_PROGRESS: f64 = 0.5;
/// Auto-converge: first throttle, increment and most, as in QEMU.
const THROTTLE: (f64, f64, f64) = (0.2, 0.1, 0.99);
/// Least weight of a pause, as a share of the vCPUs: an idle guest has clients too.
const PAUSE_WEIGHT: f64 = 0.1;

/// What a migration may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Pause that is allowed, s.
    pub downtime_limit_seconds: f64,
    /// Cap on its bandwidth, MiB/s; 0: none.
    pub bandwidth_limit_mib_s: f64,
    /// Whether a guest that writes too fast is throttled.
    pub auto_converge: bool,
    /// When it is given up, ms.
    pub deadline_ms: i64,
}

/// Why a migration failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Not done by its deadline.
    Deadline,
    /// The hypervisor gave up.
    Hypervisor,
    /// One of its hosts was lost.
    HostLost,
}

/// What a migration took, known when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Taken {
    /// From the order to the switch-over's end or the failure, s.
    pub seconds: f64,
    /// Pause, s.
    pub downtime_seconds: f64,
    /// Sent, MiB.
    pub mib: f64,
    /// Guest-seconds lost by being paused, slowed down and throttled.
    pub guest_seconds: f64,
}

/// The guest's side of a migration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    pub(crate) vcpus: f64,
    pub(crate) memory_mib: u64,
    /// Memory that is written to at all, MiB.
    pub(crate) written_mib: f64,
    /// Writes at its usual load, MiB/s.
    pub(crate) writes_mib_s: f64,
    /// Usual load, cores.
    pub(crate) usual_cores: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Preparing { left: f64 },
    Copying,
    Paused { left: f64 },
}

/// A migration under way.
#[derive(Debug, Clone)]
pub(crate) struct Migration {
    pub(crate) guest: usize,
    pub(crate) source: usize,
    pub(crate) target: usize,
    body: Body,
    terms: Terms,
    phase: Phase,
    /// Of this pass, MiB.
    left: f64,
    pass: f64,
    /// Unique memory written to during this pass, MiB.
    dirty: f64,
    throttle: f64,
    slow_passes: u32,
    swing: f64,
    /// Bandwidth as the hypervisor has seen it, MiB/s.
    seen: f64,
    /// Passes the hypervisor survives, where it is to fail.
    fails_after: Option<f64>,
    /// Its source is or was down: it has failed, but nobody is there to say so.
    source_lost: bool,
    ended: Option<Event>,
    pub(crate) taken: Taken,
}

/// What happens to a migration within a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    GoesOn,
    Arrived,
    Failed(Fault),
}

/// What a step takes from the world.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Burden {
    /// Share of the guest's demand that it cannot use.
    pub(crate) slowdown: f64,
    /// CPU at the source and at the target, cores.
    pub(crate) cores: (f64, f64),
}

impl Migration {
    /// A migration that begins now. `fails_after`: the hypervisor gives up once this share of the memory was sent.
    pub(crate) fn new(
        way: (usize, usize, usize),
        body: Body,
        terms: Terms,
        fails_after: Option<f64>,
        rng: &mut StdRng,
    ) -> Self {
        let (guest, source, target) = way;
        let memory = mib(body.memory_mib);
        Self {
            guest,
            source,
            target,
            body,
            terms,
            phase: Phase::Preparing {
                left: rng.random_range(START_UP.0..START_UP.1),
            },
            left: memory,
            pass: memory,
            dirty: 0.0,
            throttle: 0.0,
            slow_passes: 0,
            swing: SWING.0 * normal(rng),
            seen: 0.0,
            fails_after,
            source_lost: false,
            ended: None,
            taken: Taken::default(),
        }
    }

    /// Its source is down: whatever was copied is worth nothing.
    pub(crate) fn lose_source(&mut self) {
        self.source_lost = true;
    }

    /// Whether its source was down for a while.
    pub(crate) fn lost_source(&self) -> bool {
        self.source_lost
    }

    pub(crate) fn end(&mut self, event: Event) {
        self.ended = Some(event);
    }

    pub(crate) fn ended(&self) -> Option<Event> {
        self.ended
    }

    /// Whether it uses the link now.
    pub(crate) fn sends(&self) -> bool {
        !matches!(self.phase, Phase::Preparing { .. })
    }

    /// One step of [`STEP_SECONDS`] at a share of the link (MiB/s), the guest wanting `wanted` cores.
    pub(crate) fn step(
        &mut self,
        share: f64,
        wanted: f64,
        now_ms: i64,
        rng: &mut StdRng,
    ) -> (Event, Burden) {
        let h = STEP_SECONDS;
        self.taken.seconds += h;
        if let Phase::Preparing { left } = &mut self.phase {
            *left -= h;
            if *left <= 0.0 {
                self.phase = Phase::Copying;
            }
            return (self.judged(Event::GoesOn, now_ms), Burden::default());
        }
        let bandwidth = self.bandwidth(share, rng);
        self.taken.mib += (bandwidth * h).min(self.left);
        self.left = (self.left - bandwidth * h).max(0.0);
        let cores = (COPY_CORES.0 * bandwidth, COPY_CORES.1 * bandwidth);
        if let Phase::Paused { left } = &mut self.phase {
            let paused = left.min(h);
            *left -= h;
            let over = *left <= 0.0;
            self.taken.downtime_seconds += paused;
            self.taken.guest_seconds += paused * wanted.max(PAUSE_WEIGHT * self.body.vcpus);
            let burden = Burden {
                slowdown: paused / h,
                cores,
            };
            return (if over { Event::Arrived } else { Event::GoesOn }, burden);
        }
        let slowdown = self.write(wanted, rng);
        self.taken.guest_seconds += slowdown * wanted * h;
        if self.left <= 0.0 {
            self.end_pass(rng);
        }
        (
            self.judged(Event::GoesOn, now_ms),
            Burden { slowdown, cores },
        )
    }

    fn bandwidth(&mut self, share: f64, rng: &mut StdRng) -> f64 {
        let noisy = share * (LINK.0 + LINK.1 * normal(rng)).clamp(0.1, 1.0);
        let limit = self.terms.bandwidth_limit_mib_s;
        let bandwidth = if limit > 0.0 { noisy.min(limit) } else { noisy };
        // The hypervisor sees an average over the last passes of its loop.
        self.seen = if self.seen > 0.0 {
            0.9 * self.seen + 0.1 * bandwidth
        } else {
            bandwidth
        };
        bandwidth
    }

    /// The guest writes; returns the share of its time that it loses.
    fn write(&mut self, wanted: f64, rng: &mut StdRng) -> f64 {
        let (deviation, kept) = SWING;
        self.swing = kept * self.swing + deviation * (1.0 - kept * kept).sqrt() * normal(rng);
        let activity = IDLE_WRITES + (1.0 - IDLE_WRITES) * wanted / self.body.usual_cores.max(0.01);
        let usual = self.body.writes_mib_s * activity * self.swing.exp();
        let brown = BROWN_OUT.0 + BROWN_OUT.1 * (1.0 - (-usual / HEAVY_WRITER).exp());
        let slowdown = 1.0 - (1.0 - brown) * (1.0 - self.throttle);
        let writes = usual * (1.0 - slowdown);
        // A write meets a page that is clean with a chance that falls as the working set fills.
        let set = self.body.written_mib.max(1.0);
        let clean = (1.0 - self.dirty / set).max(0.0);
        self.dirty = set - set * clean * (-writes * STEP_SECONDS / set).exp();
        slowdown
    }

    fn end_pass(&mut self, rng: &mut StdRng) {
        let fits = self.dirty <= self.seen * self.terms.downtime_limit_seconds;
        if self.dirty > LITTLE_PROGRESS * self.pass {
            self.slow_passes += 1;
            if self.terms.auto_converge && self.slow_passes >= 2 && !fits {
                let more = if self.throttle > 0.0 {
                    THROTTLE.1
                } else {
                    THROTTLE.0
                };
                self.throttle = (self.throttle + more).min(THROTTLE.2);
            }
        }
        (self.left, self.pass, self.dirty) = (self.dirty, self.dirty, 0.0);
        if fits {
            let rest = self.left / self.seen.max(1.0) * rng.random_range(0.9..1.2);
            let left = rest + rng.random_range(SWITCH_OVER.0..SWITCH_OVER.1);
            self.phase = Phase::Paused { left };
        }
    }

    fn judged(&self, event: Event, now_ms: i64) -> Event {
        let memory = mib(self.body.memory_mib);
        if self
            .fails_after
            .is_some_and(|share| self.taken.mib >= share * memory)
        {
            Event::Failed(Fault::Hypervisor)
        } else if now_ms >= self.terms.deadline_ms {
            Event::Failed(Fault::Deadline)
        } else {
            event
        }
    }
}

/// Milliseconds that pass in a step.
pub(crate) fn step_ms(number: u32) -> i64 {
    crate::num::millis(f64::from(number) * STEP_SECONDS)
}

/// Steps in a tick.
pub(crate) fn steps_in(tick_ms: i64) -> u32 {
    u32::try_from(crate::num::whole((seconds(tick_ms) / STEP_SECONDS).round())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const GIB_8: Body = Body {
        vcpus: 4.0,
        memory_mib: 8192,
        written_mib: 2048.0,
        writes_mib_s: 40.0,
        usual_cores: 2.0,
    };
    const TERMS: Terms = Terms {
        downtime_limit_seconds: 0.3,
        bandwidth_limit_mib_s: 0.0,
        auto_converge: true,
        deadline_ms: 600_000,
    };

    fn migrate(body: Body, terms: Terms, share: f64, seed: u64) -> (Event, Migration) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut migration = Migration::new((0, 0, 1), body, terms, None, &mut rng);
        for step in 0..100_000 {
            let (event, _) = migration.step(share, body.usual_cores, step_ms(step), &mut rng);
            if event != Event::GoesOn {
                return (event, migration);
            }
        }
        panic!("no end");
    }

    #[test]
    fn a_quiet_guest_takes_its_memory_over_the_link_and_a_short_pause() {
        for seed in 0..20 {
            let (event, done) = migrate(GIB_8, TERMS, 1000.0, seed);
            let taken = done.taken;
            assert_eq!(event, Event::Arrived);
            assert!((8.0..16.0).contains(&taken.seconds), "{taken:?}");
            assert!((0.02..0.5).contains(&taken.downtime_seconds), "{taken:?}");
            assert!(taken.mib > 8192.0, "{taken:?}");
            assert!(
                taken.guest_seconds > 0.0 && taken.guest_seconds < 4.0,
                "{taken:?}"
            );
        }
    }

    #[test]
    fn a_wild_writer_converges_only_when_it_is_throttled() {
        let wild = Body {
            writes_mib_s: 900.0,
            written_mib: 7000.0,
            ..GIB_8
        };
        let (event, throttled) = migrate(wild, TERMS, 400.0, 3);
        assert_eq!(event, Event::Arrived);
        assert!(throttled.throttle > 0.3, "{}", throttled.throttle);
        let untouched = Terms {
            auto_converge: false,
            ..TERMS
        };
        let (event, given_up) = migrate(wild, untouched, 400.0, 3);
        assert_eq!(event, Event::Failed(Fault::Deadline));
        assert!(given_up.taken.seconds >= 600.0);
        assert_eq!(given_up.taken.downtime_seconds, 0.0);
    }

    #[test]
    fn a_small_working_set_saturates_and_converges_however_wild_its_writes() {
        let hot_spot = Body {
            writes_mib_s: 900.0,
            written_mib: 100.0,
            ..GIB_8
        };
        let (event, done) = migrate(hot_spot, TERMS, 400.0, 3);
        assert_eq!(event, Event::Arrived);
        assert_eq!(done.throttle, 0.0);
    }
}
