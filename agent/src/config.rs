//! The agent's configuration file, read once and resolved to values without options.
//!
//! ```toml
//! cluster = "prod"
//! [etcd]
//! endpoints = ["https://etcd1:2379"]
//! [tls]
//! ca = "ca.pem"
//! certificate = "agent.pem"
//! key = "agent.key"
//! ```
//!
//! is enough for a host; everything else has a default that is stated at its field.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_daemon::config::{ConfigArgs, ConfigError, EtcdSection, Loaded, Span, TlsSection};
use evenkeel_proto::AGENT_PORT;
use evenkeel_proto::identity::TlsFiles;
use evenkeel_types::HostName;
use serde::Deserialize;

use crate::pressure::Sources;

/// Port of `/metrics` unless configured.
const METRICS_PORT: u16 = 9641;
/// Migrations that may leave, and as many that may come, at one time. Each takes a share of the link and
/// of a core from the guests that stay; above four the copies mostly slow each other down.
const MAX_MIGRATIONS: u32 = 4;
/// Most that may be configured: QEMU's default migration ports are 64, and every copy costs a core.
const MAX_MIGRATIONS_CEILING: u32 = 16;
/// Samples that an average covers.
const WINDOW: usize = 5;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: HostName,
    host: Option<HostName>,
    state_dir: Option<PathBuf>,
    etcd: EtcdSection,
    tls: TlsSection,
    #[serde(default)]
    listen: ListenSection,
    #[serde(default)]
    libvirt: LibvirtSection,
    #[serde(default)]
    capacity: CapacitySection,
    #[serde(default)]
    sources: SourcesSection,
    #[serde(default)]
    report: ReportSection,
    #[serde(default)]
    metrics: MetricsSection,
    #[serde(default)]
    migrations: MigrationsSection,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenSection {
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    advertise: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LibvirtSection {
    uri: Option<String>,
    peer_uri: Option<String>,
    migration_uri: Option<String>,
    qemu_conf: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacitySection {
    cpu_cores: Option<f64>,
    memory_mib: Option<u64>,
    reserve_cpu_cores: Option<f64>,
    reserve_memory_mib: Option<u64>,
    migration_bandwidth_mib_s: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourcesSection {
    proc: Option<PathBuf>,
    pressure: Option<PathBuf>,
    cgroup: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportSection {
    interval: Option<Span>,
    heartbeat: Option<Span>,
    lease_ttl: Option<Span>,
    window: Option<usize>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsSection {
    domains: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationsSection {
    max_concurrent: Option<u32>,
}

/// What the agent runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The cluster whose keys are ours.
    pub cluster: HostName,
    /// This host.
    pub host: HostName,
    /// Where the agent keeps what must survive it (default `/var/lib/evenkeel`).
    pub state_dir: PathBuf,
    /// etcd's members.
    pub etcd_endpoints: Vec<String>,
    /// Who we are.
    pub tls: TlsFiles,
    /// Where we listen.
    pub listen: Listen,
    /// This host's libvirt.
    pub libvirt: Libvirt,
    /// What the host offers to guests.
    pub capacity: Capacity,
    /// Roots of the kernel's files, so that an agent can be given a cgroup or a namespace as its host.
    pub sources: Sources,
    /// How reports are made.
    pub report: ReportPace,
    /// Whether metrics are exposed per guest (default: yes).
    pub domain_metrics: bool,
    /// Migrations that may leave, and that may come, at one time.
    pub max_migrations: u32,
    /// Labels for rules, such as `rack`.
    pub labels: BTreeMap<String, String>,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The gRPC service (default `0.0.0.0:7441`).
    pub grpc: SocketAddr,
    /// `/metrics` (default `0.0.0.0:9641`).
    pub metrics: SocketAddr,
    /// `host:port` that others dial (default: `grpc`, or `<host>:<port>` when that is a wildcard).
    pub advertise: String,
}

/// `[libvirt]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libvirt {
    /// This host's daemon (default `qemu:///system`).
    pub uri: String,
    /// How another host's libvirtd reaches it (default `qemu+tls://<host>/system`).
    pub peer_uri: String,
    /// Where migrated memory is to be sent; empty: libvirt decides.
    pub migration_uri: String,
    /// The configuration of its QEMU driver, which tells of disk locks (default `/etc/libvirt/qemu.conf`).
    pub qemu_conf: PathBuf,
}

/// `[capacity]`: what is offered is the total less the reserve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Cores in all; `None`: all threads of the machine.
    pub cpu_cores: Option<f64>,
    /// MiB in all; `None`: all memory of the machine.
    pub memory_mib: Option<u64>,
    /// Cores kept from guests (default 0).
    pub reserve_cpu_cores: f64,
    /// MiB kept from guests (default 0).
    pub reserve_memory_mib: u64,
    /// MiB/s that the migration link gives; 0: unknown.
    pub migration_bandwidth_mib_s: f64,
}

/// `[report]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportPace {
    /// Between samples (default 1 s; 200 ms … 60 s).
    pub interval: Duration,
    /// Longest silence although nothing changed (default 10 s).
    pub heartbeat: Duration,
    /// Time after which a silent host's report is gone (default 15 s; at least 5 s).
    pub lease_ttl: Duration,
    /// Samples an average covers (default 5; 1 … 60).
    pub window: usize,
}

impl Config {
    /// Reads all layers and judges the values.
    ///
    /// # Errors
    /// When a file cannot be read or holds something wrong; the fault names its place.
    pub fn load(args: &ConfigArgs) -> Result<(Self, String), ConfigError> {
        let loaded = evenkeel_daemon::config::load::<File>(args)?;
        Ok((Self::resolve(&loaded)?, loaded.describe()))
    }

    fn resolve(loaded: &Loaded<File>) -> Result<Self, ConfigError> {
        let file = loaded.value.clone();
        if let Some(fault) = file.etcd.fault() {
            return Err(loaded.fault("etcd.endpoints", &fault));
        }
        let host = match file.host.clone() {
            Some(host) => host,
            None => machine_name(loaded)?,
        };
        let max_migrations = file.migrations.max_concurrent.unwrap_or(MAX_MIGRATIONS);
        within(
            loaded,
            "migrations.max_concurrent",
            max_migrations,
            1..=MAX_MIGRATIONS_CEILING,
        )?;
        let capacity = capacity(loaded)?;
        Ok(Self {
            listen: listen(&file.listen, &host),
            libvirt: libvirt(file.libvirt, &host),
            capacity,
            sources: sources(file.sources, &capacity),
            report: pace(loaded)?,
            cluster: file.cluster,
            host,
            state_dir: file.state_dir.unwrap_or_else(|| "/var/lib/evenkeel".into()),
            etcd_endpoints: file.etcd.endpoints,
            tls: file.tls.into(),
            domain_metrics: file.metrics.domains.unwrap_or(true),
            max_migrations,
            labels: file.labels,
        })
    }
}

/// The machine's own name.
fn machine_name(loaded: &Loaded<File>) -> Result<HostName, ConfigError> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    name.parse().map_err(|_| {
        let message =
            format!("the machine's name {name:?} is no host name: set `host = \"…\"` explicitly");
        loaded.fault("host", &message)
    })
}

fn listen(section: &ListenSection, host: &HostName) -> Listen {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let grpc = section.grpc.unwrap_or_else(|| any(AGENT_PORT));
    let advertise = section.advertise.clone().unwrap_or_else(|| {
        if grpc.ip().is_unspecified() {
            format!("{host}:{}", grpc.port())
        } else {
            grpc.to_string()
        }
    });
    Listen {
        grpc,
        metrics: section.metrics.unwrap_or_else(|| any(METRICS_PORT)),
        advertise,
    }
}

fn libvirt(section: LibvirtSection, host: &HostName) -> Libvirt {
    Libvirt {
        uri: section.uri.unwrap_or_else(|| "qemu:///system".to_owned()),
        peer_uri: section
            .peer_uri
            .unwrap_or_else(|| format!("qemu+tls://{host}/system")),
        migration_uri: section.migration_uri.unwrap_or_default(),
        qemu_conf: section
            .qemu_conf
            .unwrap_or_else(|| "/etc/libvirt/qemu.conf".into()),
    }
}

fn sources(section: SourcesSection, capacity: &Capacity) -> Sources {
    let defaults = Sources::default();
    Sources {
        proc: section.proc.unwrap_or(defaults.proc),
        pressure: section.pressure.unwrap_or(defaults.pressure),
        cgroup: section.cgroup,
        memory_capacity_mib: capacity.memory_mib,
    }
}

fn capacity(loaded: &Loaded<File>) -> Result<Capacity, ConfigError> {
    let section = &loaded.value.capacity;
    let figures = [
        ("capacity.cpu_cores", section.cpu_cores, 0.01),
        ("capacity.reserve_cpu_cores", section.reserve_cpu_cores, 0.0),
        (
            "capacity.migration_bandwidth_mib_s",
            section.migration_bandwidth_mib_s,
            0.0,
        ),
    ];
    for (key, value, least) in figures {
        if value.is_some_and(|v| !v.is_finite() || v < least) {
            return Err(loaded.fault(key, &format!("expected a number of at least {least}")));
        }
    }
    if section.memory_mib == Some(0) {
        return Err(loaded.fault("capacity.memory_mib", "expected at least 1 MiB"));
    }
    Ok(Capacity {
        cpu_cores: section.cpu_cores,
        memory_mib: section.memory_mib,
        reserve_cpu_cores: section.reserve_cpu_cores.unwrap_or(0.0),
        reserve_memory_mib: section.reserve_memory_mib.unwrap_or(0),
        migration_bandwidth_mib_s: section.migration_bandwidth_mib_s.unwrap_or(0.0),
    })
}

fn pace(loaded: &Loaded<File>) -> Result<ReportPace, ConfigError> {
    let section = &loaded.value.report;
    let or = |span: Option<Span>, ms| span.map_or(Duration::from_millis(ms), |s| s.0);
    let pace = ReportPace {
        interval: or(section.interval, 1_000),
        heartbeat: or(section.heartbeat, 10_000),
        lease_ttl: or(section.lease_ttl, 15_000),
        window: section.window.unwrap_or(WINDOW),
    };
    let seconds = Duration::from_secs;
    within(
        loaded,
        "report.interval",
        pace.interval,
        Duration::from_millis(200)..=seconds(60),
    )?;
    within(
        loaded,
        "report.heartbeat",
        pace.heartbeat,
        pace.interval..=seconds(600),
    )?;
    within(
        loaded,
        "report.lease_ttl",
        pace.lease_ttl,
        seconds(5)..=seconds(600),
    )?;
    within(loaded, "report.window", pace.window, 1..=60)?;
    Ok(pace)
}

fn within<T: PartialOrd + std::fmt::Debug>(
    loaded: &Loaded<File>,
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = range.into_inner();
    let message = format!("{value:?} is out of range: expected {low:?} to {high:?}");
    Err(loaded.fault(key, &message))
}

/// A configuration for tests.
#[cfg(test)]
pub(crate) fn sample(host: &str) -> Config {
    Config {
        cluster: "test".parse().unwrap(),
        host: host.parse().unwrap(),
        state_dir: std::env::temp_dir(),
        etcd_endpoints: vec![],
        tls: TlsFiles {
            ca: "ca".into(),
            certificate: "crt".into(),
            key: "key".into(),
        },
        listen: listen(&ListenSection::default(), &host.parse().unwrap()),
        libvirt: libvirt(LibvirtSection::default(), &host.parse().unwrap()),
        capacity: Capacity {
            cpu_cores: None,
            memory_mib: None,
            reserve_cpu_cores: 0.0,
            reserve_memory_mib: 0,
            migration_bandwidth_mib_s: 0.0,
        },
        sources: Sources::default(),
        report: ReportPace {
            interval: Duration::from_secs(1),
            heartbeat: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(15),
            window: WINDOW,
        },
        domain_metrics: true,
        max_migrations: MAX_MIGRATIONS,
        labels: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
