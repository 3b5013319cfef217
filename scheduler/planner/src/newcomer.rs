//! A guest that is not there yet: which host it should be started on.
//!
//! It is judged as a move from nowhere, by the search's own judgement: must-rules and room decide where it may go,
//! what the fleet would lose more decides where it goes best. Nothing is copied, so that no move is priced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Model, ShutOffGuests};
use crate::plan::BlockReason;
use crate::policy::Policy;
use crate::search::State;
use crate::snapshot::{Guest, GuestState, Host, HostState, Snapshot, SnapshotError};

/// The value of `schema` that this version writes.
pub const SCHEMA: &str = "evenkeel.placement/1";

/// What a guest demands of a fleet that has none to compare with: a share of its vCPUs.
const DEMAND_UNKNOWN: f64 = 0.5;

/// A guest that is to be made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Newcomer {
    /// Its name, by which rules may select it; empty: it has none yet.
    pub name: String,
    /// Number of virtual CPUs, at least 1.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Expected CPU demand, cores; `None`: what the fleet's guests demand per vCPU.
    pub cpu_demand_cores: Option<f64>,
    /// Rules select it as the label `group`.
    pub group: Option<String>,
    /// Labels that rules can select.
    pub labels: BTreeMap<String, String>,
    /// Networks that its host must have.
    pub networks: Vec<String>,
    /// Storage that its host must reach.
    pub storage: Vec<String>,
    /// CPU classes that take it; empty: any.
    pub cpu_classes: Vec<String>,
}

/// Where a newcomer can go: the `evenkeel.placement/1` format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The cluster's name.
    pub cluster: String,
    /// The best host; absent: none can take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What it was taken to demand, cores.
    pub cpu_demand_cores: f64,
    /// Whether that was assumed from the fleet's other guests.
    pub cpu_demand_assumed: bool,
    /// Contention loss of the fleet without it, guest-seconds per second.
    pub loss_before: f64,
    /// Hosts that can take it, the best first.
    pub candidates: Vec<Berth>,
    /// Hosts that cannot, by name.
    pub rejected: Vec<Turned>,
}

/// A host with the newcomer on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Berth {
    /// The host's name.
    pub host: String,
    /// Its contention loss with the newcomer, guest-seconds per second.
    pub loss_after: f64,
    /// What the newcomer adds to that, guest-seconds per hour.
    pub adds_guest_seconds_per_hour: f64,
    /// What its soft rules cost there, guest-seconds per hour.
    pub soft_rules_guest_seconds_per_hour: f64,
    /// CPU demand over cores with it.
    pub cpu_utilisation_after: f64,
    /// Allocated over offered memory with it.
    pub memory_utilisation_after: f64,
    /// Memory that newcomers may still have after it, MiB.
    pub free_memory_mib_after: i64,
}

/// A host that cannot take the newcomer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// The host's name.
    pub host: String,
    /// The first reason against it.
    pub reason: BlockReason,
    /// The name or number that decided.
    pub detail: String,
}

/// Where a guest that is to be made goes best, and why not elsewhere.
///
/// # Errors
/// When the snapshot, or the newcomer, has values that cannot be true.
pub fn place_new(
    snapshot: &Snapshot,
    policy: &Policy,
    newcomer: &Newcomer,
) -> Result<Placement, SnapshotError> {
    snapshot.validate()?;
    let assumed = newcomer.cpu_demand_cores.is_none();
    let guest = guest(snapshot, newcomer);
    let demand = guest.cpu_demand_cores;
    let (nowhere, name) = (guest.host.clone(), guest.name.clone());
    let with = with_newcomer(snapshot, guest);
    with.validate()?;
    let model = Model::new(&with, policy, ShutOffGuests::Stay);
    let home = model.homes();
    let state = State::new(&model, &home, 0);
    let at = model.guests.iter().position(|g| g.data.name == name);
    let unit = at.map_or(0, |at| state.unit_of[at]);
    let (mut found, mut rejected) = (vec![], vec![]);
    for (to, host) in model.hosts.iter().enumerate() {
        if host.data.name == nowhere {
            continue;
        }
        match refused(&state, unit, to) {
            None => found.push(berth(&state, unit, to)),
            Some((reason, detail)) => rejected.push(Turned {
                host: host.data.name.clone(),
                reason,
                detail,
            }),
        }
    }
    // Where nothing is lost anywhere, the emptiest host is the best.
    found.sort_by(|(a, x), (b, y)| {
        let fullness = |b: &Berth| b.cpu_utilisation_after.max(b.memory_utilisation_after);
        let by_cost = a.total_cmp(b);
        by_cost.then(fullness(x).total_cmp(&fullness(y)))
    });
    let candidates: Vec<Berth> = found.into_iter().map(|(_, berth)| berth).collect();
    let losses = model.hosts.iter().zip(&state.loads);
    Ok(Placement {
        schema: SCHEMA.to_owned(),
        cluster: snapshot.cluster.clone(),
        host: candidates.first().map(|best| best.host.clone()),
        cpu_demand_cores: demand,
        cpu_demand_assumed: assumed,
        loss_before: losses.map(|(host, load)| host.shape.loss(load)).sum(),
        candidates,
        rejected,
    })
}

/// The newcomer as a running guest of a host that no other guest is on.
fn guest(snapshot: &Snapshot, newcomer: &Newcomer) -> Guest {
    let (per_vcpu, deviation) = typical(snapshot);
    let vcpus = f64::from(newcomer.vcpus);
    let demand = newcomer.cpu_demand_cores.unwrap_or(per_vcpu * vcpus);
    let classes: std::collections::BTreeSet<&String> =
        snapshot.hosts.iter().map(|host| &host.cpu_class).collect();
    let any = || classes.into_iter().cloned().collect();
    let free = |wanted: &str, taken: &dyn Fn(&str) -> bool| {
        let mut name = wanted.to_owned();
        while name.is_empty() || taken(&name) {
            name.push('*');
        }
        name
    };
    Guest {
        name: free(&newcomer.name, &|name| snapshot.guest(name).is_some()),
        host: free("", &|name| snapshot.host(name).is_some()),
        state: GuestState::Running,
        vcpus: newcomer.vcpus,
        cpu_demand_cores: demand,
        cpu_demand_stddev_cores: deviation * demand,
        memory_mib: newcomer.memory_mib,
        group: newcomer.group.clone(),
        labels: newcomer.labels.clone(),
        networks: newcomer.networks.clone(),
        storage: newcomer.storage.clone(),
        cpu_classes: match newcomer.cpu_classes.is_empty() {
            true => any(),
            false => newcomer.cpu_classes.clone(),
        },
        ..Guest::default()
    }
}

/// What running guests demand per vCPU, cores, and the deviation of that over its mean.
fn typical(snapshot: &Snapshot) -> (f64, f64) {
    let running = || {
        let guests = snapshot.guests.iter();
        guests.filter(|guest| guest.state == GuestState::Running && guest.vcpus > 0)
    };
    let vcpus: f64 = running().map(|guest| f64::from(guest.vcpus)).sum();
    let demand: f64 = running().map(Guest::demand_cores).sum();
    let deviation: f64 = running().map(|guest| guest.cpu_demand_stddev_cores).sum();
    if running().count() == 0 {
        return (DEMAND_UNKNOWN, 0.0);
    }
    let deviation = match demand > 0.0 {
        true => deviation / demand,
        false => 0.0,
    };
    (demand / vcpus.max(1.0), deviation)
}

/// The fleet and the newcomer, who waits on a host that counts for nothing.
fn with_newcomer(snapshot: &Snapshot, guest: Guest) -> Snapshot {
    let mut with = snapshot.clone();
    with.hosts.push(Host {
        name: guest.host.clone(),
        state: HostState::Absent,
        ..Host::default()
    });
    with.guests.push(guest);
    with
}

/// The first reason why the newcomer cannot start on a host.
fn refused(state: &State<'_, '_>, unit: usize, to: usize) -> Option<(BlockReason, String)> {
    if let Some(block) = state.block(unit, to) {
        return Some(state.words(block, unit, to));
    }
    let rules = &state.model.rules;
    let own = &state.units[unit].guests;
    // Whoever moves takes its group along; a newcomer has to go where its group is.
    let parted = own.iter().flat_map(|&g| &rules.together_of[g]).find(|&&r| {
        let rule = &rules.together[r];
        rule.hard && rule.members.len() > own.len() && state.together_count[r][to] == 0
    });
    parted.map(|&r| {
        let detail = format!("{}: its group is not there", rules.together[r].name);
        (BlockReason::RuleForbids, detail)
    })
}

/// The newcomer on a host, and what that costs the policy's objective, guest-seconds per second.
fn berth(state: &State<'_, '_>, unit: usize, to: usize) -> (f64, Berth) {
    const HOUR: f64 = 3600.0;
    let host = &state.model.hosts[to];
    let more = &state.units[unit].load;
    let (before, after) = (&state.loads[to], state.loads[to].plus(more));
    let loss = host.shape.loss(&after);
    let soft = state.soft(unit, to);
    let cost = state.model.value(to, &after) - state.model.value(to, before) + soft;
    let berth = Berth {
        host: host.data.name.clone(),
        loss_after: loss,
        adds_guest_seconds_per_hour: HOUR * (loss - host.shape.loss(before)),
        soft_rules_guest_seconds_per_hour: HOUR * soft,
        cpu_utilisation_after: host.shape.cpu_utilisation(&after),
        memory_utilisation_after: host.shape.memory_utilisation(&after),
        free_memory_mib_after: host.open_capacity - state.held(to).memory - more.memory,
    };
    (cost, berth)
}
