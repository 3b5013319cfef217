//! Counters to rates to reports. Pure: readings and their times come in, reports go out.
//!
//! The reporter pushes one [`Reading`] a second and asks [`deadband`] whether the resulting report is worth
//! sending. Rates are averages over a sliding window of readings; a restarted guest, a counter that went back,
//! a missed reading or a clock that was set spoil at most the rates of that guest for one interval, and a rate
//! that could not be measured is left out rather than guessed (`measured_at_ms` then stays where it was).

pub mod deadband;
mod series;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use evenkeel_proto::v1::{DirtyCurve, GuestReport, GuestState, Pressure, Report};
use evenkeel_types::{GuestId, HostName};

use self::series::{Series, Window, basis_points, cores, mib_per_second};
use crate::hypervisor::{GuestCounters, GuestTraits, RunState};
use crate::pressure::{HostSample, PressureTotals};

/// Hindrance of a guest whose owner wants it left where it is.
pub(crate) const OPTED_OUT: &str = "opted_out";
/// Hindrance of a guest whose definition has not been read yet: unknown is never "not restricted".
const UNKNOWN_TRAITS: &str = "definition_not_read";
/// Trouble of a host with a guest whose QEMU does not answer.
const GUEST_SILENT: &str = "guest_not_answering";

/// A dirty curve is reported for so long: what a guest does changes within the hour.
const CURVE_STANDS: Duration = Duration::from_secs(1800);

/// One moment's readings.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Monotonic time of the reading, since any fixed start.
    pub at: Duration,
    /// Wall clock, ms since the Unix epoch: only shown, never computed with.
    pub wall_ms: i64,
    /// Counters of all guests; `None`: the hypervisor does not answer.
    pub guests: Option<&'a [GuestCounters]>,
    /// The host's own figures.
    pub host: &'a HostSample,
    /// Migrations towards this host that the agent has prepared for; those whose half is among `guests` may be
    /// counted here too.
    pub incoming: u32,
}

/// What is remembered of one guest between readings.
#[derive(Debug)]
struct Track {
    generation: i64,
    /// vCPU time and vCPU run delay, ns.
    cpu: Series<2>,
    block: Series<1>,
    net: Series<1>,
    /// Whether each interval of the window touched a migration, newest last.
    migrating: VecDeque<bool>,
    /// Its dirty curve, and when it was measured.
    curve: Option<(Duration, DirtyCurve)>,
    report: GuestReport,
}

impl Track {
    fn new(window: Window) -> Self {
        Self {
            generation: 0,
            cpu: Series::over(window),
            // Read rarely: two successive readings are window enough.
            block: Series::over(window.of_one()),
            net: Series::over(window.of_one()),
            migrating: VecDeque::new(),
            curve: None,
            report: GuestReport::default(),
        }
    }

    fn restart(&mut self, generation: i64) {
        self.generation = generation;
        self.cpu.clear();
        self.block.clear();
        self.net.clear();
        self.curve = None;
        self.report = GuestReport::default();
    }
}

/// The host's own series.
#[derive(Debug)]
struct HostTrack {
    /// CPU time, µs.
    cpu: Series<1>,
    net: Series<1>,
    /// cpu, memory and io, each `some` and `full`, µs.
    pressure: Series<6>,
}

/// Makes reports out of readings.
#[derive(Debug)]
pub struct Sampler {
    host: HostName,
    window: Window,
    guests: BTreeMap<GuestId, Track>,
    traits: BTreeMap<GuestId, GuestTraits>,
    own: HostTrack,
}

impl Sampler {
    /// A sampler whose rates are averages over the last `window` intervals between readings, one of which
    /// comes every `interval`.
    #[must_use]
    pub fn new(host: HostName, window: usize, interval: Duration) -> Self {
        let window = Window::new(window, interval);
        let own = HostTrack {
            cpu: Series::over(window),
            net: Series::over(window),
            pressure: Series::over(window),
        };
        Self {
            host,
            window,
            guests: BTreeMap::new(),
            traits: BTreeMap::new(),
            own,
        }
    }

    /// Remembers what changes rarely about a guest; it is repeated in every report until the guest leaves.
    pub fn set_traits(&mut self, guest: &GuestId, traits: GuestTraits) {
        self.traits.insert(guest.clone(), traits);
    }

    /// Remembers a guest's dirty curve, measured `at`; it is reported until it is too old, the guest leaves or is
    /// started anew.
    pub fn set_curve(&mut self, guest: &GuestId, at: Duration, curve: DirtyCurve) {
        if let Some(track) = self.guests.get_mut(guest) {
            track.curve = Some((at, curve));
        }
    }

    /// Guests of the last reading.
    pub fn guests(&self) -> impl Iterator<Item = &GuestId> {
        self.guests.keys()
    }

    /// Guests of the last reading whose traits are not known yet.
    #[must_use]
    pub fn without_traits(&self) -> Vec<GuestId> {
        let unknown = |id: &&GuestId| !self.traits.contains_key(*id);
        self.guests.keys().filter(unknown).cloned().collect()
    }

    /// Takes a reading and answers with the report as of now. `sequence` is the sender's to set.
    pub fn push(&mut self, reading: &Reading<'_>) -> Report {
        let migrations_running = migrations(reading);
        if let Some(guests) = reading.guests {
            self.forget_the_gone(guests);
            for counters in guests {
                self.push_guest(reading, counters, migrations_running > 0);
            }
        }
        let mut troubles: BTreeSet<&str> = reading.host.troubles.iter().copied().collect();
        if reading.guests.into_iter().flatten().any(|c| !c.complete) {
            troubles.insert(GUEST_SILENT);
        }
        // While the hypervisor is away its guests run on: the last that was known of them stands, with its age.
        let guests: Vec<_> = self.guests.values().map(|t| t.report.clone()).collect();
        let own = self.push_host(reading);
        Report {
            host: self.host.to_string(),
            measured_at_ms: reading.wall_ms,
            libvirt_up: reading.guests.is_some(),
            guests_cpu_cores: guests.iter().map(|g| g.cpu_used_cores).sum(),
            migrations_running,
            troubles: troubles.into_iter().map(str::to_owned).collect(),
            guests,
            ..own
        }
    }

    fn forget_the_gone(&mut self, guests: &[GuestCounters]) {
        let here: BTreeSet<&GuestId> = guests.iter().map(|c| &c.id).collect();
        self.guests.retain(|id, _| here.contains(id));
        self.traits.retain(|id, _| here.contains(id));
    }

    fn push_guest(&mut self, reading: &Reading<'_>, counters: &GuestCounters, migrating: bool) {
        let window = self.window;
        let track = self
            .guests
            .entry(counters.id.clone())
            .or_insert_with(|| Track::new(window));
        if track.generation != counters.generation {
            track.restart(counters.generation);
        }
        track.migrating.push_back(migrating);
        while track.migrating.len() > window.intervals() {
            track.migrating.pop_front();
        }
        measure_guest(track, reading, counters);
        describe_guest(&mut track.report, counters);
        track.report.during_migration = track.migrating.contains(&true);
        let stands =
            |(at, _): &(Duration, DirtyCurve)| reading.at.saturating_sub(*at) < CURVE_STANDS;
        track.curve = track.curve.take().filter(stands);
        track.report.dirty_curve = track.curve.as_ref().map(|(_, curve)| curve.clone());
        add_traits(&mut track.report, self.traits.get(&counters.id));
    }

    /// The report's part that is about the host itself.
    fn push_host(&mut self, reading: &Reading<'_>) -> Report {
        let host = reading.host;
        if let Some(us) = host.cpu_used_us {
            self.own.cpu.push(reading.at, [us.saturating_mul(1000)]);
        }
        if let Some(bytes) = host.net_bytes {
            self.own.net.push(reading.at, [bytes]);
        }
        if let Some(totals) = &host.pressure {
            self.own.pressure.push(reading.at, flat(totals));
        }
        let one = |series: &Series<1>, rate: fn(u64, Duration) -> f64| {
            let growth = series.growth();
            growth.map_or(0.0, |([grown], elapsed)| rate(grown, elapsed))
        };
        let total = host.memory_total_mib.unwrap_or(0);
        let available = host.memory_available_mib.unwrap_or(0);
        Report {
            host_cpu_cores: one(&self.own.cpu, cores),
            net_mib_s: one(&self.own.net, mib_per_second),
            memory_used_mib: total.saturating_sub(available),
            memory_available_mib: available,
            swap_used_mib: host.swap_used_mib.unwrap_or(0),
            pressure: Some(self.pressure(host.pressure.is_some())),
            ..Report::default()
        }
    }

    fn pressure(&self, available: bool) -> Pressure {
        let growth = self.own.pressure.growth().filter(|_| available);
        let Some((grown, elapsed)) = growth else {
            return Pressure {
                available,
                ..Pressure::default()
            };
        };
        let [
            cpu_some,
            cpu_full,
            memory_some,
            memory_full,
            io_some,
            io_full,
        ] = grown.map(|us| basis_points(us, elapsed));
        Pressure {
            cpu_some_bp: cpu_some,
            cpu_full_bp: cpu_full,
            memory_some_bp: memory_some,
            memory_full_bp: memory_full,
            io_some_bp: io_some,
            io_full_bp: io_full,
            available: true,
        }
    }
}

/// Migrations that touch this host: those leaving, and the larger of those prepared for and those whose half
/// is here.
fn migrations(reading: &Reading<'_>) -> u32 {
    let guests = reading.guests.unwrap_or_default();
    let count = |which: fn(&GuestCounters) -> bool| {
        let count = guests.iter().filter(|c| which(c)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let leaving = count(|c| c.migrating_out);
    let halves = count(|c| c.state == RunState::Migrating && !c.migrating_out);
    leaving.saturating_add(halves.max(reading.incoming))
}

fn flat(totals: &PressureTotals) -> [u64; 6] {
    let PressureTotals { cpu, memory, io } = totals;
    let full = |us: Option<u64>| us.unwrap_or(0);
    [
        cpu.some_us,
        full(cpu.full_us),
        memory.some_us,
        full(memory.full_us),
        io.some_us,
        full(io.full_us),
    ]
}

/// Rates, where this reading allows any.
fn measure_guest(track: &mut Track, reading: &Reading<'_>, counters: &GuestCounters) {
    if !counters.complete {
        return;
    }
    let at = reading.at;
    let report = &mut track.report;
    if counters.state == RunState::ShutOff {
        track.cpu.clear();
        report.cpu_used_cores = 0.0;
        report.cpu_delay_cores = 0.0;
        report.measured_at_ms = reading.wall_ms;
        return;
    }
    track
        .cpu
        .push(at, [counters.vcpu_time_ns, counters.vcpu_delay_ns]);
    if let Some(([time, delay], elapsed)) = track.cpu.growth() {
        let most = f64::from(counters.vcpus.max(1));
        report.cpu_used_cores = cores(time, elapsed).min(most);
        report.cpu_delay_cores = cores(delay, elapsed).min(most);
        report.measured_at_ms = reading.wall_ms;
    }
    if let Some(bytes) = counters.block_bytes {
        track.block.push(at, [bytes]);
    }
    if let Some(bytes) = counters.net_bytes {
        track.net.push(at, [bytes]);
    }
    let rate = |series: &Series<1>| {
        let growth = series.growth();
        growth.map_or(0.0, |([grown], elapsed)| mib_per_second(grown, elapsed))
    };
    report.block_mib_s = rate(&track.block);
    report.net_mib_s = rate(&track.net);
}

fn describe_guest(report: &mut GuestReport, counters: &GuestCounters) {
    report.uuid = counters.id.to_string();
    report.name.clone_from(&counters.name);
    report.set_state(match (counters.state, counters.migrating_out) {
        (RunState::Running, _) => GuestState::Running,
        // A source that is handing its guest over is still a guest.
        (RunState::Paused, _) | (RunState::Migrating, true) => GuestState::Paused,
        (RunState::Migrating, false) => GuestState::Incoming,
        (RunState::ShutOff, _) => GuestState::Shutoff,
    });
    report.persistent = counters.persistent;
    report.migrating_out = counters.migrating_out;
    report.vcpus = counters.vcpus;
    report.memory_mib = counters.memory_mib;
    report.memory_rss_mib = counters.memory_rss_mib;
    report.memory_used_mib = counters.memory_used_mib.unwrap_or(0);
    report.dirty_rate_mib_s = counters.dirty_rate_mib_s.unwrap_or(0.0);
}

fn add_traits(report: &mut GuestReport, traits: Option<&GuestTraits>) {
    let Some(traits) = traits else {
        report.hindrances = vec![UNKNOWN_TRAITS.to_owned()];
        return;
    };
    report.hindrances.clone_from(&traits.hindrances);
    if traits.opted_out {
        report.hindrances.push(OPTED_OUT.to_owned());
    }
    report.networks.clone_from(&traits.networks);
    report.storage.clone_from(&traits.storage);
    report.written_disks.clone_from(&traits.written_disks);
    report.local_disk_mib = traits.local_disk_mib;
    report.cpu_limit_cores = traits.cpu_limit_cores.unwrap_or(0.0);
    report.group = traits.group.clone().unwrap_or_default();
    report.labels = traits.labels.clone().into_iter().collect();
    report.priority = traits.priority;
}

#[cfg(test)]
mod tests;
