use std::sync::Arc;

use evenkeel_daemon::metrics::Registry;
use tokio::sync::watch;

use super::*;
use crate::driver::bench::{Bench, EPOCH, GUEST, LEADER, order, within};

const ROLES: [Role; 4] = [Role::Agent, Role::Scheduler, Role::Operator, Role::Viewer];
const METHODS: [Method; 7] = [
    Method::Prepare,
    Method::Release,
    Method::Migrate,
    Method::Cancel,
    Method::Resolve,
    Method::Inspect,
    Method::MeasureDirtyRate,
];

#[test]
fn every_method_is_open_to_its_roles_and_to_no_other() {
    let allowed = |method: Method| -> Vec<&str> {
        let permitted = ROLES.into_iter().filter(|role| {
            let name = "x".to_owned();
            method.permit(&Identity { role: *role, name }).is_ok()
        });
        permitted.map(Role::as_str).collect()
    };
    let table = METHODS.map(|method| (method, allowed(method).join(" ")));
    let expected = [
        (Method::Prepare, "agent"),
        (Method::Release, "agent"),
        (Method::Migrate, "scheduler"),
        (Method::Cancel, "scheduler"),
        (Method::Resolve, "scheduler"),
        (Method::Inspect, "agent scheduler operator"),
        (Method::MeasureDirtyRate, "scheduler"),
    ]
    .map(|(method, roles)| (method, roles.to_owned()));
    assert_eq!(table, expected);
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_nobody_to_every_method() {
    let bench = Bench::new();
    let (api, _own) = api(&bench, CancellationToken::new());
    let codes = [
        api.prepare(Request::new(Default::default())).await.err(),
        api.release(Request::new(Default::default())).await.err(),
        api.migrate(Request::new(Default::default())).await.err(),
        api.cancel(Request::new(Default::default())).await.err(),
        api.resolve(Request::new(Default::default())).await.err(),
        api.inspect(Request::new(Default::default())).await.err(),
        api.measure_dirty_rate(Request::new(Default::default()))
            .await
            .err(),
    ]
    .map(|status| status.map(|s| s.code()));
    assert_eq!(codes, [Some(tonic::Code::Unauthenticated); 7]);
}

type BenchApi = Api<
    crate::hypervisor::fake::FakeHypervisor,
    crate::driver::bench::MemoryRecords,
    crate::driver::bench::DirectPeers,
>;

fn api(bench: &Bench, stop: CancellationToken) -> (BenchApi, watch::Sender<v1::Inventory>) {
    let host: HostName = "h1".parse().unwrap();
    let (own, known) = watch::channel(v1::Inventory::default());
    let target = Target::new(
        host.clone(),
        bench.driver.calls.clone(),
        bench.records.clone(),
        known,
        (4, bench.peers.incomings.clone()),
        &Registry::new(),
    )
    .unwrap();
    let libvirt = crate::config::sample("h1").libvirt;
    let hands = Hands {
        driver: bench.driver.clone(),
        target: Arc::new(target),
        meter: Arc::new(Meter::new(bench.driver.calls.clone(), Arc::default())),
    };
    let api = Api::new(host, hands, libvirt, stop);
    (api, own)
}

#[tokio::test]
async fn a_stream_tells_the_end_and_then_ends() {
    let bench = Bench::new();
    let (api, _own) = api(&bench, CancellationToken::new());
    let updates = bench.order(&order(1)).await.unwrap();
    let told: Vec<_> = within(api.until_end(updates).collect()).await;
    let last = told.last().unwrap().as_ref().unwrap();
    assert_eq!(
        last.state.as_ref().unwrap().phase(),
        v1::MigrationPhase::Done
    );
}

#[tokio::test]
async fn a_stopping_daemon_ends_its_streams_and_not_the_migration() {
    let bench = Bench::new();
    bench.script(crate::hypervisor::fake::Ending::NeverConverges);
    let stop = CancellationToken::new();
    let (api, _own) = api(&bench, stop.clone());
    let order = order(1);
    let updates = bench.order(&order).await.unwrap();
    let stream = api.until_end(updates);
    stop.cancel();
    let _told: Vec<_> = within(stream.collect()).await;
    assert!(bench.driver.running.has(&GUEST.parse().unwrap()));
    let leader = (LEADER, EPOCH);
    let cancelled = bench.driver.cancel(&order.guest, &order.id, leader, "t");
    assert_eq!(cancelled.await, Ok(()));
    bench.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_measured_when_no_migration_touches_its_host() {
    let bench = Bench::new();
    let (api, _own) = api(&bench, CancellationToken::new());
    let guest: GuestId = GUEST.parse().unwrap();
    let curve = api.measure_guest(&guest).await.unwrap();
    assert_eq!(curve.points.len(), 3);
    let unknown = "00000000-0000-0000-0000-000000000001".parse().unwrap();
    let refused = api.measure_guest(&unknown).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn beside_a_migration_nothing_is_measured_and_a_stopping_daemon_measures_nothing() {
    let bench = Bench::new();
    let stop = CancellationToken::new();
    let (api, _own) = api(&bench, stop.clone());
    let guest: GuestId = GUEST.parse().unwrap();
    bench.script(crate::hypervisor::fake::Ending::NeverConverges);
    let order = order(1);
    let _updates = bench.order(&order).await.unwrap();
    let refused = api.measure_guest(&guest).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let leader = (LEADER, EPOCH);
    let cancelled = bench.driver.cancel(&order.guest, &order.id, leader, "t");
    assert_eq!(cancelled.await, Ok(()));
    bench.idle().await;
    stop.cancel();
    let refused = within(api.measure_guest(&guest)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
}
