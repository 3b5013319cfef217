//! Figures that are known beforehand are found again.

use evenkeel_planner::{Policy, fleet_loss};
use evenkeel_proto::v1;
use evenkeel_types::GuestId;

use super::*;

fn id(n: usize) -> GuestId {
    format!("00000000-0000-0000-0000-{n:012}").parse().unwrap()
}

fn name() -> HostName {
    "h1".parse().unwrap()
}

fn guest(n: usize, used: f64, delay: f64) -> GuestReading {
    GuestReading {
        id: id(n),
        name: format!("g{n}"),
        state: RunState::Running,
        vcpus: 2,
        cpu_used_cores: used,
        cpu_delay_cores: delay,
        cpu_limit_cores: 2.0,
        memory_mib: 1024,
        memory_rss_mib: 900,
        memory_used_mib: None,
        dirty_rate_mib_s: None,
        dirty_curve: vec![],
        hindrances: vec![],
        networks: vec![],
        storage: vec![],
        written_disks: vec![],
        migrating_out: false,
        local_disk_mib: 0,
        during_migration: false,
        group: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

fn report(guests: Vec<GuestReading>) -> HostReport {
    HostReport {
        revision: 0,
        sequence: 1,
        measured_at_ms: 0,
        libvirt_up: true,
        guests_cpu_cores: 0.0,
        host_cpu_cores: 0.0,
        pressure: v1::Pressure::default(),
        guests,
        migrations_running: 0,
        troubles: vec![],
    }
}

/// A fleet of one host and a loss that the model predicts for it, calibration included.
struct Scene {
    learned: Learned,
    fleet: Fleet,
    now_ms: i64,
}

impl Scene {
    fn of(report: HostReport) -> Self {
        let mut fleet = Fleet::default();
        fleet.reports.insert(name(), report);
        Self {
            learned: Learned::default(),
            fleet,
            now_ms: 0,
        }
    }

    /// Half a minute in which the model, uncalibrated, predicts these losses at 10 cores of demand.
    fn pass(&mut self, half_minutes: u32, cpu_loss: f64, memory_loss: f64) {
        for _ in 0..half_minutes {
            self.now_ms += 30_000;
            let mut snapshot = Snapshot::new("", jiff::Timestamp::UNIX_EPOCH);
            snapshot.hosts.push(Host {
                name: "h1".into(),
                cpu_cores: 10.0,
                ..Host::default()
            });
            let mut loss = fleet_loss(&snapshot, &Policy::default());
            let host = &mut loss.per_host[0];
            host.cpu_utilisation = 1.0;
            host.cpu_loss = cpu_loss * self.learned.calibration(&name());
            host.memory_loss = memory_loss * self.learned.memory_calibration(&name());
            self.learned
                .compare(&self.fleet, &snapshot, &loss, self.now_ms);
        }
    }

    fn calibrations(&self) -> (f64, f64) {
        let learned = &self.learned;
        (
            learned.calibration(&name()),
            learned.memory_calibration(&name()),
        )
    }
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 0.03
}

#[test]
fn a_host_that_waits_more_than_predicted_is_scaled_and_slowly() {
    let mut scene = Scene::of(report(vec![guest(1, 1.0, 0.5), guest(2, 1.0, 0.25)]));
    scene.pass(1, 0.5, 0.0);
    assert!(
        near(scene.calibrations().0, 1.0),
        "{:?}",
        scene.calibrations()
    );
    scene.pass(40, 0.5, 0.0);
    assert!(
        (1.1..1.4).contains(&scene.calibrations().0),
        "{:?}",
        scene.calibrations()
    );
    scene.pass(400, 0.5, 0.0);
    assert!(
        near(scene.calibrations().0, 1.5),
        "{:?}",
        scene.calibrations()
    );
}

#[test]
fn a_calibration_is_bounded_and_needs_a_prediction_worth_the_name() {
    let mut scene = Scene::of(report(vec![guest(1, 1.0, 1.9)]));
    scene.pass(500, 0.1, 0.0);
    assert_eq!(scene.calibrations(), (1.0, 1.0));
    scene.pass(500, 0.2, 0.0);
    assert_eq!(scene.calibrations(), (2.0, 1.0));
    let mut calm = Scene::of(report(vec![guest(1, 1.0, 0.0)]));
    calm.pass(500, 0.4, 0.0);
    assert_eq!(calm.calibrations(), (0.5, 1.0));
}

#[test]
fn what_a_quota_holds_back_is_not_the_hosts_doing() {
    let mut throttled = guest(1, 0.48, 1.5);
    throttled.cpu_limit_cores = 0.5;
    let mut scene = Scene::of(report(vec![throttled, guest(2, 1.0, 0.3)]));
    scene.pass(500, 0.3, 0.0);
    assert!(
        near(scene.calibrations().0, 1.0),
        "{:?}",
        scene.calibrations()
    );
}

#[test]
fn nothing_is_learned_beside_a_migration() {
    let mut scene = Scene::of(report(vec![guest(1, 1.0, 1.9)]));
    scene
        .fleet
        .reports
        .get_mut(&name())
        .unwrap()
        .migrations_running = 1;
    scene.pass(500, 0.5, 1.0);
    assert_eq!(scene.calibrations(), (1.0, 1.0));
}

#[test]
fn memory_loss_is_scaled_by_memory_pressure() {
    let mut stalled = report(vec![guest(1, 1.0, 0.0)]);
    stalled.pressure.memory_some_bp = 1400;
    let mut scene = Scene::of(stalled);
    // A tenth of 10 cores predicted, 14 % measured; without pressure information nothing is.
    scene.pass(400, 0.0, 1.0);
    assert_eq!(scene.calibrations(), (1.0, 1.0));
    scene
        .fleet
        .reports
        .get_mut(&name())
        .unwrap()
        .pressure
        .available = true;
    scene.pass(400, 0.0, 1.0);
    assert!(
        near(scene.calibrations().1, 1.4),
        "{:?}",
        scene.calibrations()
    );
}

/// Pseudo-random numbers around 0 with a deviation of 0.1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        let sum: f64 = (0..12)
            .map(|_| {
                self.0 = self
                    .0
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX) - 0.5
            })
            .sum();
        0.1 * sum
    }
}

/// The correlation that is found of 12 guests whose noise is in part a common one.
fn found(common_share: f64) -> f64 {
    let mut noise = Noise(7);
    let mut learned = Learned::default();
    let (common_weight, own_weight) = (common_share.sqrt(), (1.0 - common_share).sqrt());
    for _ in 0..4000 {
        let common = noise.next();
        let one = |n| {
            guest(
                n,
                0.8 + common_weight * common + own_weight * noise.next(),
                0.0,
            )
        };
        let guests: Vec<GuestReading> = (0..12).map(one).collect();
        learned.note(&report(guests), Duration::from_secs(10));
    }
    learned.peak_correlation()
}

#[test]
fn guests_that_rise_together_are_found_out_and_others_keep_the_floor() {
    assert!(near(found(0.0), 0.1), "{}", found(0.0));
    // Of the n² pairs in (Σσ)² those of a guest with itself are no evidence of the others: 0.6 × 11/12.
    assert!((found(0.6) - 0.55).abs() < 0.08, "{}", found(0.6));
}

#[test]
fn an_hour_of_evidence_is_asked_for() {
    let mut learned = Learned::default();
    let mut noise = Noise(3);
    for at in 0..500 {
        let common = noise.next();
        let guests = (0..12).map(|n| guest(n, 0.8 + common, 0.0)).collect();
        learned.note(&report(guests), Duration::from_secs(10));
        // The first ten minutes tell what is usual.
        if at < 400 {
            assert!(near(learned.peak_correlation(), 0.1), "after {at}");
        }
    }
    assert!(
        learned.peak_correlation() > 0.7,
        "{}",
        learned.peak_correlation()
    );
}
