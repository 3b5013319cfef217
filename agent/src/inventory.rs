//! What this host is: facts of the hypervisor and the configuration, put into etcd when they change.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::Store;
use evenkeel_daemon::retry::Backoff;
use evenkeel_proto::keys::Keys;
use evenkeel_proto::v1;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::config::Config;
use crate::hypervisor::{HostFacts, Hypervisor, HypervisorEvent};
use crate::pressure::HostReader;

/// Between two looks at what changes rarely. It is also the longest time after which an inventory that
/// someone has removed stands again.
const LOOK: Duration = Duration::from_secs(60);
/// Least time between two looks, however often the hypervisor comes and goes.
const AT_MOST: Duration = Duration::from_secs(1);
/// Gathering facts may make libvirt probe its QEMU, which takes seconds the first time.
const FACTS_DEADLINE: Duration = Duration::from_secs(20);

/// What the host has beside what the hypervisor says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// MiB of memory; 0: unknown.
    pub memory_mib: u64,
    /// Whether its libvirt takes locks on disks.
    pub disk_locks: v1::DiskLocks,
}

/// Makes the inventory.
#[must_use]
pub fn compose(config: &Config, machine: Machine, facts: &HostFacts) -> v1::Inventory {
    let capacity = &config.capacity;
    let cores = capacity.cpu_cores.unwrap_or_else(|| facts.cpus.into());
    let memory_mib = capacity.memory_mib.unwrap_or(machine.memory_mib);
    v1::Inventory {
        host: config.host.to_string(),
        agent_address: config.listen.advertise.clone(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        libvirt_version: facts.libvirt_version.clone(),
        hypervisor_version: facts.hypervisor_version.clone(),
        cpu_cores: (cores - capacity.reserve_cpu_cores).max(0.0),
        memory_mib: memory_mib.saturating_sub(capacity.reserve_memory_mib),
        cpu_class: facts.cpu_class.clone(),
        labels: config
            .labels
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        networks: sorted(&facts.networks),
        storage: sorted(&facts.storage),
        libvirt_peer_uri: config.libvirt.peer_uri.clone(),
        migration_uri: config.libvirt.migration_uri.clone(),
        migration_bandwidth_mib_s: capacity.migration_bandwidth_mib_s,
        host_uuid: facts.host_uuid.clone(),
        disk_locks: machine.disk_locks.into(),
    }
}

/// In a fixed order: what only changed places has not changed.
fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// Publishes the inventory, to etcd and to `own`, until `stop`.
pub async fn publish<H: Hypervisor>(
    config: Arc<Config>,
    calls: Calls<H>,
    (store, keys): (Store, Keys),
    own: watch::Sender<v1::Inventory>,
    stop: CancellationToken,
) {
    let mut events = calls.hypervisor().events();
    let mut backoff = Backoff::default();
    let key = keys.inventory(&config.host);
    let mut failures = 0_u32;
    loop {
        let wait = match look(&config, &calls).await {
            Ok(fresh) => {
                failures = 0;
                own.send_if_modified(|was| {
                    let changed = *was != fresh;
                    if changed {
                        log_change(&fresh);
                        was.clone_from(&fresh);
                    }
                    changed
                });
                put_if_changed(&store, &key, &fresh).await
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                // The first may only mean that we are quicker than the connection.
                if failures == 2 {
                    tracing::warn!(%error, "the hypervisor does not say what this host is");
                }
                None
            }
        };
        let wait = match wait {
            Some(wait) => {
                backoff.reset();
                wait
            }
            None => backoff.next_wait(),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = connected(&mut events) => tokio::time::sleep(AT_MOST).await,
        }
    }
}

fn log_change(fresh: &v1::Inventory) {
    tracing::info!(
        host = fresh.host,
        cpu_cores = fresh.cpu_cores,
        memory_mib = fresh.memory_mib,
        libvirt = fresh.libvirt_version,
        hypervisor = fresh.hypervisor_version,
        cpu_class = fresh.cpu_class,
        networks = ?fresh.networks,
        storage = ?fresh.storage,
        disk_locks = fresh.disk_locks().as_str_name(),
        "this host's inventory"
    );
}

async fn look<H: Hypervisor>(
    config: &Arc<Config>,
    calls: &Calls<H>,
) -> Result<v1::Inventory, crate::hypervisor::HypervisorError> {
    let reader = HostReader::new(config.sources.clone());
    let config = Arc::clone(config);
    let machine = move |config: &Config| Machine {
        memory_mib: reader.read().memory_total_mib.unwrap_or(0),
        disk_locks: disk_locks(config),
    };
    calls
        .call_within(FACTS_DEADLINE, move |h| {
            Ok(compose(&config, machine(&config), &h.host_facts()?))
        })
        .await
}

fn disk_locks(config: &Config) -> v1::DiskLocks {
    let file = &config.libvirt.qemu_conf;
    crate::disk_locks::read(file).unwrap_or_else(|error| {
        tracing::debug!(file = %file.display(), %error, "whether libvirt takes locks on disks is not known");
        v1::DiskLocks::Unknown
    })
}

/// Puts the inventory unless it stands already; answers when to look again, `None`: soon, etcd is away.
async fn put_if_changed(store: &Store, key: &str, fresh: &v1::Inventory) -> Option<Duration> {
    let stands = store.get_message::<v1::Inventory>(key).await;
    let outcome = match stands {
        Ok(Some(stands)) if stands == *fresh => return Some(LOOK),
        Ok(_) | Err(evenkeel_daemon::StoreError::Malformed { .. }) => {
            store.put(key, fresh, None).await
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Some(LOOK),
        Err(error) => {
            tracing::debug!(%error, "inventory not published");
            None
        }
    }
}

/// Waits until the hypervisor has been connected (again).
async fn connected(events: &mut tokio::sync::broadcast::Receiver<HypervisorEvent>) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_)) => return,
            Ok(
                HypervisorEvent::GuestChanged(_)
                | HypervisorEvent::SwitchoverBegan(_)
                | HypervisorEvent::JobCompleted(..)
                | HypervisorEvent::ConnectionLost,
            ) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_is_what_is_there_less_the_reserve() {
        let mut config = crate::config::sample("h1");
        let facts = HostFacts {
            cpus: 8,
            networks: vec!["b".into(), "a".into()],
            ..HostFacts::default()
        };
        let machine = Machine {
            memory_mib: 1_000,
            disk_locks: v1::DiskLocks::Lockd,
        };
        let whole = compose(&config, machine, &facts);
        assert_eq!(whole.disk_locks(), v1::DiskLocks::Lockd);
        assert_eq!((whole.cpu_cores, whole.memory_mib), (8.0, 1_000));
        assert_eq!(whole.networks, ["a", "b"]);
        config.capacity.reserve_cpu_cores = 0.5;
        config.capacity.reserve_memory_mib = 2_000;
        let less = compose(&config, machine, &facts);
        assert_eq!((less.cpu_cores, less.memory_mib), (7.5, 0));
        config.capacity.cpu_cores = Some(2.0);
        assert_eq!(compose(&config, machine, &facts).cpu_cores, 1.5);
    }
}
