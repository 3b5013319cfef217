use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::watch;

use super::*;
use crate::driver::bench::{Bench, EPOCH, GUEST, LEADER, order, within};

const ROLES: [Role; 4] = [Role::Agent, Role::Scheduler, Role::Operator, Role::Viewer];
const METHODS: [Method; 6] = [
    Method::Prepare,
    Method::Release,
    Method::Migrate,
    Method::Cancel,
    Method::Resolve,
    Method::Inspect,
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
    ]
    .map(|status| status.map(|s| s.code()));
    assert_eq!(codes, [Some(tonic::Code::Unauthenticated); 6]);
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
    let api = Api::new(host, bench.driver.clone(), Arc::new(target), libvirt, stop);
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
