//! A snapshot file as the same documents that a live fleet gives. What a snapshot does not hold is null.

use evenkeel_planner as planner;
use evenkeel_planner::{HostState, Policy, Snapshot, fleet_loss};

use super::number::basis_points;
use super::{Guest, Host, Migration, Phase, Pressure, Status};

/// The hosts of a snapshot, judged by a policy.
#[must_use]
pub fn hosts(snapshot: &Snapshot, policy: &Policy) -> Vec<Host> {
    let losses = fleet_loss(snapshot, policy).per_host;
    let loss = |name: &str| {
        losses
            .iter()
            .find(|loss| loss.name == name)
            .map_or(0.0, |l| l.loss)
    };
    snapshot
        .hosts
        .iter()
        .map(|host| view(snapshot, host, loss(&host.name)))
        .collect()
}

fn view(snapshot: &Snapshot, host: &planner::Host, loss: f64) -> Host {
    let on_it = || {
        snapshot
            .guests
            .iter()
            .filter(|guest| guest.host == host.name)
    };
    let alive = || on_it().filter(|guest| guest.state != planner::GuestState::Shutoff);
    let touching = snapshot
        .in_flight
        .iter()
        .filter(|f| f.from == host.name || f.to == host.name);
    Host {
        name: host.name.clone(),
        state: host.state.as_str().to_owned(),
        libvirt_up: None,
        cpu_cores: host.cpu_cores,
        cpu_demand_cores: alive().map(|guest| guest.cpu_demand_cores).sum(),
        cpu_used_cores: None,
        memory_mib: host.memory_mib,
        memory_allocated_mib: alive().map(|guest| guest.memory_mib).sum(),
        pressure: host.pressure.map(pressure),
        guests: small(on_it().count()),
        loss_guest_seconds_per_second: loss,
        migrations_running: Some(small(touching.count())),
        report_age_ms: None,
        agent_address: None,
        agent_version: None,
        disk_locks: None,
        troubles: vec![],
        intent: None,
        drain: None,
    }
}

fn pressure(pressure: planner::Pressure) -> Pressure {
    Pressure {
        cpu_some_bp: basis_points(pressure.cpu_some),
        memory_some_bp: basis_points(pressure.memory_some),
        memory_full_bp: basis_points(pressure.memory_full),
        io_some_bp: basis_points(pressure.io_some),
        io_full_bp: basis_points(pressure.io_full),
    }
}

/// The guests of a snapshot.
#[must_use]
pub fn guests(snapshot: &Snapshot) -> Vec<Guest> {
    let target = |guest: &planner::Guest| {
        snapshot
            .in_flight
            .iter()
            .find(|f| f.guest == guest.name)
            .map(|f| f.to.clone())
    };
    snapshot
        .guests
        .iter()
        .map(|guest| guest_view(guest, target(guest)))
        .collect()
}

fn guest_view(guest: &planner::Guest, migrating_to: Option<String>) -> Guest {
    let unmovable = || {
        guest
            .unmovable_reason
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned())
    };
    Guest {
        name: guest.name.clone(),
        uuid: guest.uuid.clone(),
        host: guest.host.clone(),
        state: guest.state.as_str().to_owned(),
        vcpus: guest.vcpus,
        cpu_used_cores: None,
        cpu_demand_cores: guest.cpu_demand_cores,
        cpu_demand_stddev_cores: guest.cpu_demand_stddev_cores,
        memory_mib: guest.memory_mib,
        memory_rss_mib: None,
        dirty_rate_mib_s: (guest.dirty_rate_mib_s > 0.0).then_some(guest.dirty_rate_mib_s),
        dirty_curve: guest.dirty_curve.clone(),
        local_disk_mib: guest.local_disk_mib,
        unmovable_reason: (!guest.movable).then(unmovable),
        cooldown_until: guest.cooldown_until,
        migrating_to,
    }
}

/// The migrations that ran when the snapshot was taken.
#[must_use]
pub fn migrations(snapshot: &Snapshot) -> Vec<Migration> {
    let uuid = |name: &str| snapshot.guest(name).and_then(|guest| guest.uuid.clone());
    let view = |flight: &planner::InFlight| Migration {
        id: None,
        guest: flight.guest.clone(),
        guest_uuid: uuid(&flight.guest),
        source: flight.from.clone(),
        target: flight.to.clone(),
        phase: Some(Phase::Running),
        outcome_reason: None,
        abort: None,
        whereabouts: None,
        detail: None,
        trigger: None,
        created_at: None,
        started_at: None,
        ended_at: None,
        deadline: None,
        progress: None,
        prediction: None,
    };
    snapshot.in_flight.iter().map(view).collect()
}

/// A snapshot at a glance.
#[must_use]
pub fn status(snapshot: &Snapshot, policy: &Policy) -> Status {
    let in_state = |states: &[HostState]| {
        small(
            snapshot
                .hosts
                .iter()
                .filter(|host| states.contains(&host.state))
                .count(),
        )
    };
    Status {
        schema: Status::SCHEMA,
        cluster: snapshot.cluster.clone(),
        replica: None,
        version: None,
        leader: None,
        epoch: None,
        mode: None,
        policy_revision: None,
        pause: None,
        loss_guest_seconds_per_second: fleet_loss(snapshot, policy).total,
        loss_planned_guest_seconds_per_second: None,
        plan_moves: None,
        hosts_active: in_state(&[HostState::Active]),
        hosts_absent: in_state(&[HostState::Absent]),
        hosts_closed: Some(in_state(&[HostState::Cordoned, HostState::Draining])),
        hosts_libvirt_down: None,
        hosts_stale: None,
        guests: small(snapshot.guests.len()),
        migrations_running: small(snapshot.in_flight.len()),
        migrations_unknown: 0,
        troubles: vec![],
        foreign_migrations: vec![],
        migrations: migrations(snapshot),
        holds: vec![],
        drains: vec![],
        last_cycle_at: None,
        etcd_reachable: None,
        taken_at: Some(snapshot.taken_at),
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
