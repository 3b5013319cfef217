//! `evenkeel-scheduler`: one replica of the scheduler.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use evenkeel_daemon::config::ConfigArgs;
use evenkeel_daemon::metrics::{Readiness, registry, serve, show_certificate};
use evenkeel_daemon::{Store, install_crypto, logging, supervision};
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::keys::Keys;
use evenkeel_proto::v1;
use evenkeel_proto::v1::scheduler_service_server::SchedulerServiceServer;
use evenkeel_scheduler::api::Api;
use evenkeel_scheduler::config::{self, Config};
use evenkeel_scheduler::controller::{self, Handle, Parts};
use evenkeel_scheduler::execute::Agents;
use evenkeel_scheduler::lease::Election;
use evenkeel_scheduler::metrics::Metrics;
use evenkeel_scheduler::observe::feed;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Exit code of a bad configuration, as sysexits.h has it.
const BAD_CONFIGURATION: u8 = 78;

/// Balances a fleet of libvirt hosts: one replica of the scheduler.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-scheduler", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    install_crypto();
    logging::init();
    let args = Args::parse();
    let (config, description) = match config::read(&args.config) {
        Ok(read) => read,
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!("{error:#}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    if args.config.print_config {
        return print(&description);
    }
    if args.config.check_config {
        return ExitCode::SUCCESS;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let version = env!("CARGO_PKG_VERSION");
    let tls = config.tls.read()?;
    let registry = registry("scheduler", version)?;
    show_certificate(&registry, &tls)?;
    let readiness = Readiness::default();
    let store = Store::connect(&config.etcd_endpoints, &tls, &registry)
        .await
        .context("cannot prepare etcd's connections")?;
    let keys = Keys::new(&config.cluster);

    let info = v1::LeaderInfo {
        name: config.name.to_string(),
        address: config.advertise.clone(),
        version: version.to_owned(),
    };
    let (election, standing) = Election::new(store.clone(), &keys, info, config.lease_ttl);
    let mut elected = tokio::spawn(election.run(stop.clone()));
    let changes = feed::start(store.clone(), &keys, stop.clone());
    let parts = Parts {
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        store,
        standing,
        agents: Agents::new(tls.clone()),
        metrics: Metrics::new(&registry)?,
        readiness: readiness.clone(),
    };
    let (handle, mut looping) = controller::start(parts, changes, stop.clone());
    let metrics = serve(config.metrics, registry, readiness.clone(), stop.clone());
    let incoming = TcpIncoming::bind(config.grpc)
        .with_context(|| format!("API on {}", config.grpc))?
        .with_nodelay(Some(true));
    let api = serve_api(&config, tls, handle, (incoming, stop.clone()));

    tracing::info!(version, name = %config.name, cluster = %config.cluster, grpc = %config.grpc, "started");
    let announced = tokio::spawn(async move {
        drop(tokio::time::timeout(supervision::PATIENCE, readiness.wait()).await);
        supervision::ready();
    });
    let ended = tokio::select! {
        served = metrics => served.context("metrics endpoint"),
        served = api => served.context("API"),
        // A replica whose loop or campaign has ended must not go on to hold the lead.
        ended = &mut looping => Err(anyhow::anyhow!("the control loop ended: {ended:?}")),
        ended = &mut elected => Err(anyhow::anyhow!("the campaign ended: {ended:?}")),
        () = asked_to_stop() => {
            tracing::info!("stopping");
            Ok(())
        }
    };
    announced.abort();
    supervision::stopping();
    stop.cancel();
    if !elected.is_finished() {
        // Resigning lets a standby lead at once; a lease would have to run out first.
        drop(tokio::time::timeout(Duration::from_secs(3), elected).await);
    }
    ended
}

async fn serve_api(
    config: &Config,
    tls: TlsPem,
    handle: Handle,
    (incoming, stop): (TcpIncoming, CancellationToken),
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SchedulerServiceServer<Api>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(evenkeel_proto::DESCRIPTORS)
        .build_v1()?;
    let service = SchedulerServiceServer::new(Api::new(handle, tls.clone(), stop.clone()));
    Server::builder()
        .tls_config(tls.server())?
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .concurrency_limit_per_connection(64)
        .add_service(health_service)
        .add_optional_service(config.reflection.then_some(reflection))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}

async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
