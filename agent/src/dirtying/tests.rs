use super::*;
use crate::driver::bench::GUEST;
use crate::hypervisor::fake::{Dirtying, FakeHypervisor, FakeWorld};

struct Bench {
    world: FakeWorld,
    guest: GuestId,
    curves: Arc<Curves>,
    meter: Meter<FakeHypervisor>,
}

impl Bench {
    fn new() -> Self {
        let (world, guest) = (FakeWorld::new(), GUEST.parse().unwrap());
        let calls = Calls::new(world.host("h1"));
        world.add_guest("h1", &guest, "web", 1024);
        let curves = Arc::new(Curves::default());
        Self {
            meter: Meter::new(calls, Arc::clone(&curves)),
            world,
            guest,
            curves,
        }
    }

    fn dirtying(edit: impl FnOnce(&mut Dirtying)) -> Self {
        let bench = Self::new();
        bench.world.edit_dirtying("h1", &bench.guest, edit);
        bench
    }

    async fn measure(&self) -> Result<Vec<(f64, f64)>, NotMeasured> {
        let curve = self.meter.measure(&self.guest, || true).await?;
        assert!(curve.measured_at_ms > 0);
        let points = curve.points.iter();
        Ok(points.map(|point| (point.seconds, point.mib)).collect())
    }

    /// It was refused or given up, and nothing is left for the reports.
    async fn assert_not_measured(&self, why: &str) {
        let error = self.measure().await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(self.curves.take().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hot_set_gives_a_flat_curve_and_a_large_one_a_steep_one() {
    let hot = Bench::dirtying(|d| (d.mib_per_second, d.working_set_mib) = (500.0, 64.0));
    assert_eq!(
        hot.measure().await.unwrap(),
        [(1.0, 64.0), (2.0, 64.0), (4.0, 64.0)]
    );
    let large = Bench::dirtying(|d| d.mib_per_second = 50.0);
    assert_eq!(
        large.measure().await.unwrap(),
        [(1.0, 50.0), (2.0, 100.0), (4.0, 200.0)]
    );
    let left = large.curves.take();
    assert_eq!(left[&large.guest].points.len(), 3, "for the reports");
    assert!(large.curves.take().is_empty(), "once");
}

#[tokio::test(start_paused = true)]
async fn each_length_is_the_mean_of_its_samples_and_never_below_a_shorter_one() {
    let said = [0.0, 0.0, 30.0, 4.0, 4.0, 4.0, 12.0, 16.0, 20.0];
    let bench = Bench::dirtying(|d| d.said = said.into());
    assert_eq!(
        bench.measure().await.unwrap(),
        [(1.0, 10.0), (2.0, 10.0), (4.0, 16.0)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_run_or_has_a_job_is_not_measured() {
    let bench = Bench::new();
    bench.world.back_up("h1", &bench.guest, true);
    bench.assert_not_measured("a job holds the guest").await;
    bench.world.back_up("h1", &bench.guest, false);
    for presence in [
        Presence::Paused,
        Presence::PausedByMigration,
        Presence::ShutOff,
    ] {
        bench.world.set_presence("h1", &bench.guest, presence);
        bench.assert_not_measured("not running").await;
    }
    bench
        .world
        .set_presence("h1", &bench.guest, Presence::Absent);
    bench.assert_not_measured("is not here").await;
    assert_eq!(bench.world.dirty_samples("h1", &bench.guest), 0);
}

#[tokio::test(start_paused = true)]
async fn what_begins_meanwhile_spoils_the_whole_curve() {
    let bench = Bench::dirtying(|d| d.backup_after = Some(5));
    bench.assert_not_measured("a job holds the guest").await;
    assert_eq!(bench.world.dirty_samples("h1", &bench.guest), 6);
    let bench = Bench::new();
    let looks = std::sync::atomic::AtomicU32::new(0);
    let calm = || looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 3;
    let error = bench.meter.measure(&bench.guest, calm).await.unwrap_err();
    assert!(matches!(error, NotMeasured::Unfit(_)), "{error}");
    assert!(bench.curves.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sample_without_an_end_is_given_up_and_the_place_is_free_again() {
    let bench = Bench::dirtying(|d| d.endless = true);
    bench.assert_not_measured("did not finish in time").await;
    bench
        .world
        .edit_dirtying("h1", &bench.guest, |d| d.endless = false);
    assert!(bench.measure().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_guest_at_a_time_and_who_goes_away_frees_the_place() {
    let bench = Bench::dirtying(|d| d.endless = true);
    {
        let first = bench.meter.measure(&bench.guest, || true);
        tokio::pin!(first);
        // In the middle of the first sample: no call is out that would hold the place a little longer.
        let begun = tokio::time::timeout(Duration::from_millis(500), &mut first).await;
        assert!(begun.is_err(), "it takes longer");
        let second = bench.meter.measure(&bench.guest, || true).await;
        assert!(matches!(second, Err(NotMeasured::Occupied)), "{second:?}");
    }
    bench
        .world
        .edit_dirtying("h1", &bench.guest, |d| d.endless = false);
    assert!(bench.measure().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_is_away_is_no_curve() {
    let bench = Bench::new();
    bench.world.set_up("h1", false);
    bench.assert_not_measured("unreachable").await;
}
