//! The scheduler's configuration file, resolved once to values without options.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_daemon::config::{
    ConfigArgs, ConfigError, EtcdSection, Loaded, Span, TlsSection, load,
};
use evenkeel_proto::identity::TlsFiles;
use evenkeel_types::HostName;
use serde::Deserialize;

/// Standbys lead within this after a leader's death, plus the time of one campaign.
const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(5);
/// Shorter leases would be lost to a slow disk under etcd.
const SHORTEST_LEASE_TTL: Duration = Duration::from_secs(3);
/// Longer ones leave a fleet without a leader for too long.
const LONGEST_LEASE_TTL: Duration = Duration::from_secs(60);

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: HostName,
    name: HostName,
    etcd: EtcdSection,
    tls: TlsSection,
    listen: ListenSection,
    #[serde(default)]
    election: ElectionSection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenSection {
    grpc: SocketAddr,
    metrics: SocketAddr,
    advertise: Option<String>,
    #[serde(default)]
    reflection: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ElectionSection {
    lease_ttl: Option<Span>,
}

/// Everything a replica needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster it schedules.
    pub cluster: HostName,
    /// Its own name among the replicas; its certificate must be for it.
    pub name: HostName,
    /// etcd's members.
    pub etcd_endpoints: Vec<String>,
    /// Its identity.
    pub tls: TlsFiles,
    /// Where the API listens.
    pub grpc: SocketAddr,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Where other replicas reach the API, `host:port`.
    pub advertise: String,
    /// Whether gRPC reflection is on.
    pub reflection: bool,
    /// Time of the leader's lease.
    pub lease_ttl: Duration,
}

/// Loads the configuration; returns it with its description for `--print-config`.
///
/// # Errors
/// When a file cannot be read or anything in it is wrong.
pub fn read(args: &ConfigArgs) -> Result<(Config, String), ConfigError> {
    let loaded: Loaded<File> = load(args)?;
    let description = loaded.describe();
    Ok((resolve(loaded)?, description))
}

fn resolve(loaded: Loaded<File>) -> Result<Config, ConfigError> {
    let file = &loaded.value;
    if let Some(fault) = file.etcd.fault() {
        return Err(loaded.fault("etcd.endpoints", &fault));
    }
    let lease_ttl = file
        .election
        .lease_ttl
        .map_or(DEFAULT_LEASE_TTL, |span| span.0);
    if !(SHORTEST_LEASE_TTL..=LONGEST_LEASE_TTL).contains(&lease_ttl) {
        return Err(loaded.fault("election.lease_ttl", "expected 3s to 60s"));
    }
    if lease_ttl.subsec_nanos() != 0 {
        return Err(loaded.fault(
            "election.lease_ttl",
            "expected whole seconds: etcd counts in them",
        ));
    }
    if file.listen.grpc.ip().is_unspecified() && file.listen.advertise.is_none() {
        let message = "listening on every address, say which one others reach: listen.advertise";
        return Err(loaded.fault("listen.grpc", message));
    }
    let file = loaded.value;
    Ok(Config {
        cluster: file.cluster,
        name: file.name,
        etcd_endpoints: file.etcd.endpoints,
        tls: file.tls.into(),
        grpc: file.listen.grpc,
        metrics: file.listen.metrics,
        advertise: file
            .listen
            .advertise
            .unwrap_or_else(|| file.listen.grpc.to_string()),
        reflection: file.listen.reflection,
        lease_ttl,
    })
}
