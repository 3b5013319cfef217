//! The agent as a whole: everything is made here, handed to each other, started and stopped.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use evenkeel_daemon::lease::Held;
use evenkeel_daemon::metrics::{self, Readiness, Registry};
use evenkeel_daemon::supervision::{self, Pulse};
use evenkeel_daemon::{LeaseKeeper, Store};
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::keys::Keys;
use evenkeel_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::Calls;
use crate::config::Config;
use crate::dirtying::{Curves, Meter};
use crate::driver::{Driver, Figures, Running, Timings};
use crate::epoch::EpochFloor;
use crate::hypervisor::Hypervisor;
use crate::incoming::{Incomings, sweep};
use crate::journal::etcd::EtcdRecords;
use crate::ledger::Ledger;
use crate::metrics::AgentMetrics;
use crate::peer::grpc::GrpcPeers;
use crate::pressure::HostReader;
use crate::reporter::{Watcher, WatcherParts};
use crate::service::{self, Api, serve};
use crate::target::Target;
use crate::{adopt, inventory, reporter};

/// How long the parts may take to end; what is not over then is cut off. No migration is among them.
const FAREWELL: Duration = Duration::from_secs(5);

/// What everything stands on.
struct Base<H> {
    config: Arc<Config>,
    calls: Calls<H>,
    tls: TlsPem,
    store: Store,
    keys: Keys,
    registry: Registry,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Who does the work.
type Hands<H> = service::Hands<H, EtcdRecords, GrpcPeers>;

/// Runs the agent until `stop`. A migration that is under way then goes on without it.
///
/// # Errors
/// When it cannot start: the state directory is not ours, an address is taken, certificates are unusable.
pub async fn run<H: Hypervisor>(
    config: Config,
    hypervisor: Arc<H>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let _lock = lock_state(&config)?;
    let tls = config.tls.read()?;
    let registry = metrics::registry("agent", env!("CARGO_PKG_VERSION"))?;
    metrics::show_certificate(&registry, &tls)?;
    let store = Store::connect(&config.etcd_endpoints, &tls, &registry).await?;
    let base = Base {
        keys: Keys::new(&config.cluster),
        config: Arc::new(config),
        calls: Calls::new(hypervisor),
        tls,
        store,
        registry,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    };
    let ready = Readiness::default();
    let curves = Arc::new(Curves::default());
    let hands = start_hands(&base, &curves)?;
    let served = start_services(&base, &hands, ready.clone()).await?;
    start_reporting(&base, &hands, curves)?;
    ready.set(true);
    tracing::info!(
        host = %base.config.host, cluster = %base.config.cluster,
        grpc = %base.config.listen.grpc, metrics = %base.config.listen.metrics,
        epoch = %hands.driver.floor.highest(), "agent is ready"
    );
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = served => ended?.context("a server ended"),
    };
    supervision::stopping();
    let going_on = hands.driver.running.count();
    tracing::info!(going_on, "agent stops; migrations go on without it");
    stop.cancel();
    base.tasks.close();
    // What does not end in time is cut off by the process's end.
    drop(tokio::time::timeout(FAREWELL, base.tasks.wait()).await);
    ended
}

/// Two agents of one host would write the same keys: the state directory belongs to one.
fn lock_state(config: &Config) -> anyhow::Result<File> {
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the state directory {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.try_lock()
        .with_context(|| format!("another agent holds {}", path.display()))?;
    Ok(file)
}

fn start_hands<H: Hypervisor>(base: &Base<H>, curves: &Arc<Curves>) -> anyhow::Result<Hands<H>> {
    let config = &base.config;
    let (own, known) = watch::channel(v1::Inventory::default());
    let records = Arc::new(EtcdRecords::new(
        base.store.clone(),
        base.keys.clone(),
        config.host.clone(),
    ));
    let etcd = (base.store.clone(), base.keys.clone());
    let peers = GrpcPeers::new(etcd.clone(), base.tls.clone(), known.clone());
    let ledger = Arc::new(Ledger::open(&config.state_dir)?);
    let incomings = Arc::new(Incomings::new(base.calls.clone(), Arc::clone(&ledger)));
    let driver = Arc::new(Driver {
        host: config.host.clone(),
        calls: base.calls.clone(),
        records: Arc::clone(&records),
        peers: Arc::new(peers),
        floor: EpochFloor::open(&config.state_dir)?,
        most: config.max_migrations,
        timings: Timings::default(),
        figures: Figures::new(&base.registry, &config.host)?,
        running: Running::default(),
        ledger,
    });
    let target = Arc::new(Target::new(
        config.host.clone(),
        base.calls.clone(),
        records,
        known,
        (config.max_migrations, Arc::clone(&incomings)),
        &base.registry,
    )?);
    base.tasks.spawn(inventory::publish(
        Arc::clone(config),
        base.calls.clone(),
        etcd,
        own,
        base.stop.clone(),
    ));
    base.tasks.spawn(adopt::look_after(
        Arc::clone(&driver),
        base.store.health(),
        base.stop.clone(),
    ));
    base.tasks.spawn(sweep::look_after(
        Arc::clone(&driver),
        incomings,
        base.stop.clone(),
    ));
    let meter = Meter::new(base.calls.clone(), Arc::clone(curves));
    Ok(Hands {
        driver,
        target,
        meter: Arc::new(meter),
    })
}

/// Starts the gRPC service and the metrics endpoint; the handle ends when one of them fails.
async fn start_services<H: Hypervisor>(
    base: &Base<H>,
    hands: &Hands<H>,
    ready: Readiness,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let config = &base.config;
    let api = Api::new(
        config.host.clone(),
        hands.clone(),
        config.libvirt.clone(),
        base.stop.clone(),
    );
    let listener = serve::listen(config.listen.grpc).await?;
    let (tls, stop, address) = (base.tls.clone(), base.stop.clone(), config.listen.metrics);
    let registry = base.registry.clone();
    Ok(base.tasks.spawn(async move {
        let exposition = metrics::serve(address, registry, ready, stop.clone());
        let grpc = serve::serve(listener, &tls, api, stop);
        tokio::try_join!(async { grpc.await.context("gRPC service") }, async {
            exposition
                .await
                .with_context(|| format!("metrics on {address}"))
        },)
        .map(|((), ())| ())
    }))
}

fn start_reporting<H: Hypervisor>(
    base: &Base<H>,
    hands: &Hands<H>,
    curves: Arc<Curves>,
) -> anyhow::Result<()> {
    let config = &base.config;
    let agent_metrics = AgentMetrics::new(&base.registry, &config.host, config.domain_metrics)?;
    let capacity = &config.capacity;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = capacity
        .cpu_cores
        .unwrap_or_else(|| u32::try_from(threads).unwrap_or(1).into());
    agent_metrics.set_host_cpus((cores - capacity.reserve_cpu_cores).max(0.0));
    let lease = LeaseKeeper::new(base.store.clone(), config.report.lease_ttl);
    let (reports, newest) = watch::channel(v1::Report::default());
    base.tasks.spawn(say_ready(
        newest.clone(),
        lease.current(),
        base.stop.clone(),
    ));
    base.tasks.spawn(reporter::publish(
        (base.store.clone(), base.keys.report(&config.host)),
        newest,
        lease.current(),
        agent_metrics.clone(),
        base.stop.clone(),
    ));
    base.tasks.spawn(lease.run(base.stop.clone()));
    let parts = WatcherParts {
        host: config.host.clone(),
        reader: HostReader::new(config.sources.clone()),
        pace: config.report,
        metrics: agent_metrics,
        curves,
    };
    let target = Arc::clone(&hands.target);
    let watcher = Watcher::new(base.calls.clone(), parts);
    base.tasks.spawn(watcher.run(
        reports,
        move || target.promised().0,
        supervised(base.store.health()),
        base.stop.clone(),
    ));
    Ok(())
}

/// Tells the service manager that this agent is ready once it has looked at its host and etcd has answered.
async fn say_ready(
    mut reports: watch::Receiver<v1::Report>,
    mut lease: watch::Receiver<Option<Held>>,
    stop: CancellationToken,
) {
    let all_is_there = async {
        // An error means that the agent ends.
        drop(reports.wait_for(|report| report.sequence > 0).await);
        drop(lease.wait_for(Option::is_some).await);
    };
    tokio::select! {
        _ = tokio::time::timeout(supervision::PATIENCE, all_is_there) => supervision::ready(),
        () = stop.cancelled() => {}
    }
}

/// Tells the service manager of every look at the guests, and how things are.
fn supervised(etcd: watch::Receiver<bool>) -> impl FnMut(&v1::Report) + Send {
    let mut pulse = Pulse::default();
    move |report| pulse.beat(|| status(report, *etcd.borrow()))
}

fn status(report: &v1::Report, is_etcd_up: bool) -> String {
    let mut words = vec![if report.libvirt_up {
        format!(
            "{} guests, {} migrations under way",
            report.guests.len(),
            report.migrations_running
        )
    } else {
        "libvirt does not answer".to_owned()
    }];
    if !is_etcd_up {
        words.push("etcd does not answer".to_owned());
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_missing() {
        let well = v1::Report {
            libvirt_up: true,
            migrations_running: 1,
            guests: vec![v1::GuestReport::default(); 2],
            ..Default::default()
        };
        assert_eq!(status(&well, true), "2 guests, 1 migrations under way");
        assert_eq!(
            status(&v1::Report::default(), false),
            "libvirt does not answer; etcd does not answer"
        );
    }
}
