use proptest::prelude::*;

use super::*;
use crate::pressure::Stalled;

fn id(n: u8) -> GuestId {
    format!("00000000-0000-0000-0000-0000000000{n:02x}")
        .parse()
        .unwrap()
}

fn guest(n: u8) -> GuestCounters {
    GuestCounters {
        id: id(n),
        name: format!("g{n}"),
        state: RunState::Running,
        persistent: true,
        generation: 1,
        vcpus: 2,
        cpu_time_ns: 0,
        vcpu_time_ns: 0,
        vcpu_delay_ns: 0,
        memory_mib: 64,
        memory_rss_mib: 40,
        memory_used_mib: None,
        block_bytes: None,
        net_bytes: None,
        dirty_rate_mib_s: None,
        migrating_out: false,
        complete: true,
    }
}

fn with(edit: impl FnOnce(&mut GuestCounters)) -> GuestCounters {
    let mut counters = guest(1);
    edit(&mut counters);
    counters
}

/// A guest that has run for `ms` and waited for half of that.
fn ran(ms: u64) -> GuestCounters {
    with(|c| {
        c.vcpu_time_ns = ms * 1_000_000;
        c.vcpu_delay_ns = ms * 500_000;
    })
}

/// A sampler whose readings come from a list.
struct Bench {
    sampler: Sampler,
    host: HostSample,
    incoming: u32,
}

impl Bench {
    fn new() -> Self {
        let mut sampler = Sampler::new("h1".parse().unwrap(), 5, Duration::from_secs(1));
        sampler.set_traits(&id(1), GuestTraits::default());
        Self {
            sampler,
            host: HostSample::default(),
            incoming: 0,
        }
    }

    fn push(&mut self, second: u64, guests: Option<&[GuestCounters]>) -> Report {
        self.sampler.push(&Reading {
            at: Duration::from_secs(second),
            wall_ms: i64::try_from(second * 1000).unwrap(),
            guests,
            host: &self.host,
            incoming: self.incoming,
        })
    }

    fn one(&mut self, second: u64, counters: GuestCounters) -> GuestReport {
        self.push(second, Some(&[counters])).guests[0].clone()
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn a_jump_to_busy_shows_after_one_reading_and_is_whole_after_the_window() {
    let mut bench = Bench::new();
    for second in 1..=6 {
        bench.one(second, ran(0));
    }
    let first = bench.one(7, ran(1000));
    assert!(close(first.cpu_used_cores, 0.2), "{}", first.cpu_used_cores);
    assert!(close(first.cpu_delay_cores, 0.1));
    for (second, ms) in [(8, 2000), (9, 3000), (10, 4000)] {
        bench.one(second, ran(ms));
    }
    assert!(close(bench.one(11, ran(5000)).cpu_used_cores, 1.0));
}

#[test]
fn one_reading_is_no_rate_and_says_so() {
    let mut bench = Bench::new();
    let first = bench.one(1, ran(1000));
    assert_eq!((first.cpu_used_cores, first.measured_at_ms), (0.0, 0));
    assert_eq!(bench.one(2, ran(1500)).measured_at_ms, 2000);
}

#[test]
fn a_restarted_guest_does_not_inherit_rates() {
    let mut bench = Bench::new();
    bench.one(1, ran(50_000));
    bench.one(2, ran(51_000));
    let restarted = with(|c| {
        c.generation = 2;
        c.vcpu_time_ns = 200_000_000;
    });
    let report = bench.one(3, restarted.clone());
    assert_eq!((report.cpu_used_cores, report.measured_at_ms), (0.0, 0));
    let mut later = restarted;
    later.vcpu_time_ns += 500_000_000;
    assert!(close(bench.one(4, later).cpu_used_cores, 0.5));
}

#[test]
fn counters_that_go_back_within_a_generation_are_a_restart_too() {
    let mut bench = Bench::new();
    bench.one(1, ran(50_000));
    bench.one(2, ran(51_000));
    let kept = bench.one(3, ran(10));
    assert!(close(kept.cpu_used_cores, 1.0), "the last rate stands");
    assert_eq!(kept.measured_at_ms, 2000, "with its age");
    assert!(close(bench.one(4, ran(260)).cpu_used_cores, 0.25));
}

#[test]
fn missed_readings_average_and_a_silent_guest_keeps_its_age() {
    let mut bench = Bench::new();
    bench.one(1, ran(0));
    let after_a_gap = bench.one(5, ran(2000));
    assert!(close(after_a_gap.cpu_used_cores, 0.5));
    let silent = with(|c| c.complete = false);
    let report = bench.push(6, Some(&[silent]));
    assert_eq!(report.troubles, ["guest_not_answering"]);
    assert!(close(report.guests[0].cpu_used_cores, 0.5));
    assert_eq!(report.guests[0].measured_at_ms, 5000);
}

#[test]
fn a_hypervisor_that_is_away_leaves_its_guests_as_they_were() {
    let mut bench = Bench::new();
    bench.one(1, ran(0));
    bench.one(2, ran(500));
    let report = bench.push(3, None);
    assert!(!report.libvirt_up);
    assert_eq!(report.guests.len(), 1);
    assert_eq!(report.guests[0].measured_at_ms, 2000);
    let gone = bench.push(4, Some(&[]));
    assert!(gone.libvirt_up && gone.guests.is_empty());
}

#[test]
fn readings_near_a_migration_are_marked_until_they_leave_the_window() {
    let mut bench = Bench::new();
    bench.incoming = 1;
    assert!(bench.one(1, ran(0)).during_migration);
    bench.incoming = 0;
    for second in 2..=5 {
        assert!(bench.one(second, ran(0)).during_migration, "{second}");
    }
    assert!(!bench.one(6, ran(0)).during_migration);
    let leaving = with(|c| c.migrating_out = true);
    let report = bench.push(7, Some(&[leaving]));
    assert_eq!(report.migrations_running, 1);
    assert!(report.guests[0].during_migration);
}

#[test]
fn an_incoming_half_is_no_guest_and_is_counted_once() {
    let mut bench = Bench::new();
    bench.incoming = 1;
    let half = with(|c| c.state = RunState::Migrating);
    let report = bench.push(1, Some(&[half]));
    assert_eq!(report.migrations_running, 1);
    assert_eq!(report.guests[0].state(), GuestState::Incoming);
    let handing_over = with(|c| {
        c.state = RunState::Migrating;
        c.migrating_out = true;
    });
    let report = bench.push(2, Some(&[handing_over]));
    assert_eq!(report.guests[0].state(), GuestState::Paused);
}

#[test]
fn traits_are_repeated_and_unknown_ones_hinder() {
    let mut bench = Bench::new();
    let report = bench.push(1, Some(&[guest(1), guest(2)]));
    assert!(report.guests[0].hindrances.is_empty());
    assert_eq!(report.guests[1].hindrances, ["definition_not_read"]);
    assert_eq!(bench.sampler.without_traits(), [id(2)]);
    let traits = GuestTraits {
        hindrances: vec!["local_disk".into()],
        opted_out: true,
        cpu_limit_cores: Some(0.5),
        ..GuestTraits::default()
    };
    bench.sampler.set_traits(&id(2), traits);
    let report = bench.push(2, Some(&[guest(2)]));
    assert_eq!(report.guests[0].hindrances, ["local_disk", "opted_out"]);
    assert!(close(report.guests[0].cpu_limit_cores, 0.5));
    assert!(bench.sampler.without_traits().is_empty());
    bench.push(3, Some(&[guest(1)]));
    assert_eq!(
        bench.sampler.without_traits(),
        [id(1)],
        "what left is forgotten"
    );
}

#[test]
fn rarely_read_counters_make_rates_over_their_own_time() {
    let mut bench = Bench::new();
    let moved = |mib: u64| with(|c| c.block_bytes = Some(mib << 20));
    bench.one(1, moved(0));
    bench.one(2, guest(1));
    let report = bench.one(11, moved(100));
    assert!(close(report.block_mib_s, 10.0), "{}", report.block_mib_s);
    assert!(close(bench.one(12, guest(1)).block_mib_s, 10.0));
}

#[test]
fn host_figures_are_rates_of_totals() {
    let mut bench = Bench::new();
    let at = |second: u64| HostSample {
        cpu_used_us: Some(second * 500_000),
        memory_total_mib: Some(1024),
        memory_available_mib: Some(256),
        swap_used_mib: Some(3),
        net_bytes: Some(second << 20),
        pressure: Some(PressureTotals {
            cpu: Stalled {
                some_us: second * 250_000,
                full_us: None,
            },
            ..PressureTotals::default()
        }),
        troubles: vec![],
    };
    bench.host = at(1);
    let first = bench.push(1, Some(&[]));
    assert_eq!(first.pressure.unwrap().cpu_some_bp, 0);
    bench.host = at(2);
    let report = bench.push(2, Some(&[]));
    assert!(close(report.host_cpu_cores, 0.5));
    assert!(close(report.net_mib_s, 1.0));
    assert_eq!(report.memory_used_mib, 768);
    let pressure = report.pressure.unwrap();
    assert_eq!((pressure.cpu_some_bp, pressure.cpu_full_bp), (2_500, 0));
    assert!(pressure.available);
    bench.host = HostSample {
        troubles: vec!["no_pressure"],
        ..HostSample::default()
    };
    let blind = bench.push(3, Some(&[]));
    assert!(!blind.pressure.unwrap().available);
    assert_eq!(blind.troubles, ["no_pressure"]);
}

proptest! {
    #[test]
    fn no_series_of_readings_makes_an_absurd_report(
        readings in proptest::collection::vec(
            (0_u64..60, any::<u64>(), any::<u64>(), -1_i64..3, any::<bool>(), any::<bool>()),
            1..40,
        )
    ) {
        let mut bench = Bench::new();
        for (second, time, delay, generation, complete, up) in readings {
            let counters = with(|c| {
                c.vcpu_time_ns = time;
                c.vcpu_delay_ns = delay;
                c.generation = generation;
                c.complete = complete;
            });
            let report = bench.push(second, up.then_some(&[counters]));
            for guest in report.guests {
                prop_assert!((0.0..=2.0).contains(&guest.cpu_used_cores));
                prop_assert!((0.0..=2.0).contains(&guest.cpu_delay_cores));
            }
        }
    }
}

fn curve() -> evenkeel_proto::v1::DirtyCurve {
    let point = evenkeel_proto::v1::DirtyPoint {
        seconds: 1.0,
        mib: 20.0,
    };
    evenkeel_proto::v1::DirtyCurve {
        points: vec![point],
        measured_at_ms: 1000,
    }
}

#[test]
fn a_dirty_curve_is_reported_until_it_is_old() {
    let mut bench = Bench::new();
    assert_eq!(bench.one(1, ran(0)).dirty_curve, None);
    bench
        .sampler
        .set_curve(&id(1), Duration::from_secs(1), curve());
    assert_eq!(bench.one(2, ran(0)).dirty_curve, Some(curve()));
    assert_eq!(bench.one(1800, ran(0)).dirty_curve, Some(curve()));
    assert_eq!(bench.one(1801, ran(0)).dirty_curve, None);
}

#[test]
fn a_guest_that_left_or_was_started_anew_has_no_curve() {
    let mut bench = Bench::new();
    bench.one(1, ran(0));
    let at = Duration::from_secs(1);
    bench.sampler.set_curve(&id(1), at, curve());
    let anew = with(|c| c.generation += 1);
    assert_eq!(bench.one(2, anew.clone()).dirty_curve, None);
    bench.sampler.set_curve(&id(1), at, curve());
    assert_eq!(bench.one(3, anew.clone()).dirty_curve, Some(curve()));
    bench.push(4, Some(&[]));
    bench.sampler.set_curve(&id(1), at, curve());
    assert_eq!(bench.one(5, anew).dirty_curve, None, "it was nobody's");
}
