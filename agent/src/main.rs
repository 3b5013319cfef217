//! `evenkeel-agent`: reads its configuration and runs the agent until it is told to stop.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use evenkeel_agent::config::Config;
use evenkeel_agent::hypervisor::libvirt::{LibvirtConfig, LibvirtHypervisor};
use evenkeel_daemon::config::{ConfigArgs, ConfigError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a bad configuration, as sysexits.h has it: a service manager need not try again.
const BAD_CONFIGURATION: u8 = 78;
/// Threads that may block: the hypervisor's calls, which are bounded, and the migrations themselves.
const BLOCKING_THREADS: usize = 48;
/// An idle blocking thread ends after this time.
const IDLE_THREAD: Duration = Duration::from_secs(5);

/// Measures one libvirt host for Evenkeel and carries out migrations.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-agent", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    evenkeel_daemon::logging::init();
    evenkeel_daemon::install_crypto();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent failed");
            if error.is::<ConfigError>() {
                ExitCode::from(BAD_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    let (config, description) = Config::load(&args.config)?;
    if args.config.print_config {
        std::io::Write::write_all(&mut std::io::stdout(), description.as_bytes())?;
        return Ok(());
    }
    if args.config.check_config {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let hypervisor = LibvirtHypervisor::start(LibvirtConfig {
        uri: config.libvirt.uri.clone(),
        ..LibvirtConfig::default()
    })?;
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        stop_on_signal(stop.clone())?;
        evenkeel_agent::run::run(config, hypervisor, stop).await
    });
    // A thread inside libvirt's migrate call does not come back before the copy's end: leave it.
    runtime.shutdown_background();
    ended
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
