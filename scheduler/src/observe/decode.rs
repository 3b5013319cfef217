//! From messages to typed values. What comes from etcd is foreign data: values that cannot be true
//! (NaN, negative, a thousand cores per vCPU) make the whole value unusable, by name.

use std::collections::BTreeSet;

use evenkeel_daemon::Entry;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, MigrationState};
use prost::Message;

use super::model::{
    EventEntry, GuestReading, HostFacts, HostReport, IntentEntry, JournalEntry, OrderEntry, Past,
    Remembered, RunState,
};

/// More cores than any host or guest has; beyond it a number is nonsense.
const MOST_CORES: f64 = 65_536.0;
/// More MiB/s than any link or memory bus moves.
const MOST_RATE: f64 = 10_000_000.0;
/// More memory than any host has: 1 EiB in MiB.
const MOST_MIB: u64 = 1 << 40;
/// The same as a number with a fraction.
const MOST_DIRTY_MIB: f64 = 1_099_511_627_776.0;
/// More points than a dirty curve has.
const MOST_POINTS: usize = 16;
/// A dirty curve says nothing any more after half an hour; agents drop it by then, too.
const CURVE_STANDS_MS: i64 = 1_800_000;
/// Basis points in one: no share of time is more.
const BASIS_POINTS: u32 = 10_000;
/// More guests than a host can have.
const MOST_GUESTS: usize = 10_000;

/// Decodes a message of any kind.
pub(super) fn message<M: Message + Default>(entry: &Entry) -> Result<M, String> {
    M::decode(entry.value.as_slice()).map_err(|e| format!("no such message: {e}"))
}

fn within(name: &str, value: f64, most: f64) -> Result<f64, String> {
    if value.is_finite() && (0.0..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{name} is {value}, expected 0 to {most}"))
    }
}

fn mib(name: &str, value: u64) -> Result<u64, String> {
    if value <= MOST_MIB {
        Ok(value)
    } else {
        Err(format!("{name} is {value} MiB"))
    }
}

/// A rate that is 0 when it is not known.
fn known_rate(name: &str, value: f64) -> Result<Option<f64>, String> {
    within(name, value, MOST_RATE).map(|rate| (rate > 0.0).then_some(rate))
}

pub(super) fn inventory(host: &HostName, entry: &Entry) -> Result<HostFacts, String> {
    let m: v1::Inventory = message(entry)?;
    if m.host != host.as_str() {
        return Err(format!("written for host {:?}", m.host));
    }
    let bandwidth = known_rate("migration_bandwidth_mib_s", m.migration_bandwidth_mib_s)?;
    // A newer agent's word for it is none that we know.
    let disk_locks = v1::DiskLocks::try_from(m.disk_locks).unwrap_or(v1::DiskLocks::Unknown);
    Ok(HostFacts {
        name: host.clone(),
        agent_address: m.agent_address,
        agent_version: m.agent_version,
        cpu_cores: within("cpu_cores", m.cpu_cores, MOST_CORES)?,
        memory_mib: mib("memory_mib", m.memory_mib)?,
        cpu_class: m.cpu_class,
        labels: m.labels.into_iter().collect(),
        networks: m.networks,
        storage: m.storage,
        migration_bandwidth_mib_s: bandwidth,
        disk_locks,
    })
}

pub(super) fn report(host: &HostName, entry: &Entry) -> Result<HostReport, String> {
    let m: v1::Report = message(entry)?;
    if m.host != host.as_str() {
        return Err(format!("written for host {:?}", m.host));
    }
    if m.guests.len() > MOST_GUESTS {
        return Err(format!("{} guests", m.guests.len()));
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = m
        .guests
        .iter()
        .find(|guest| !ids.insert(guest.uuid.as_str()))
    {
        return Err(format!("guest {} stands in it twice", twice.uuid));
    }
    Ok(HostReport {
        revision: entry.mod_revision,
        sequence: m.sequence,
        measured_at_ms: m.measured_at_ms,
        libvirt_up: m.libvirt_up,
        guests_cpu_cores: within("guests_cpu_cores", m.guests_cpu_cores, MOST_CORES)?,
        host_cpu_cores: within("host_cpu_cores", m.host_cpu_cores, MOST_CORES)?,
        pressure: pressure(m.pressure.unwrap_or_default())?,
        guests: m
            .guests
            .into_iter()
            .map(|guest_report| guest(guest_report, m.measured_at_ms))
            .collect::<Result<_, _>>()?,
        migrations_running: m.migrations_running,
        troubles: m.troubles,
    })
}

fn pressure(p: v1::Pressure) -> Result<v1::Pressure, String> {
    let shares = [
        p.cpu_some_bp,
        p.cpu_full_bp,
        p.memory_some_bp,
        p.memory_full_bp,
        p.io_some_bp,
        p.io_full_bp,
    ];
    match shares.into_iter().find(|share| *share > BASIS_POINTS) {
        Some(share) => Err(format!(
            "a pressure is {share} basis points, expected 0 to 10000"
        )),
        None => Ok(p),
    }
}

fn guest(m: v1::GuestReport, reported_at_ms: i64) -> Result<GuestReading, String> {
    let id: GuestId = m
        .uuid
        .parse()
        .map_err(|e| format!("guest {:?}: {e}", m.name))?;
    if m.name.is_empty() {
        return Err(format!("guest {id} has no name"));
    }
    let named = |error: String| format!("guest {}: {error}", m.name);
    let state = match m.state() {
        v1::GuestState::Running => RunState::Running,
        v1::GuestState::Paused => RunState::Paused,
        v1::GuestState::Shutoff => RunState::ShutOff,
        v1::GuestState::Incoming => RunState::Incoming,
        v1::GuestState::Unspecified => return Err(named("state is missing".to_owned())),
    };
    let vcpus = f64::from(m.vcpus);
    let limit = within("cpu_limit_cores", m.cpu_limit_cores, MOST_CORES).map_err(named)?;
    let used = within("cpu_used_cores", m.cpu_used_cores, MOST_CORES).map_err(named)?;
    let delay = within("cpu_delay_cores", m.cpu_delay_cores, MOST_CORES).map_err(named)?;
    let curve = m.dirty_curve.as_ref();
    let curve = curve.map_or_else(|| Ok(vec![]), |curve| dirty_curve(curve, reported_at_ms));
    Ok(GuestReading {
        state,
        dirty_curve: curve.map_err(named)?,
        vcpus: m.vcpus,
        cpu_used_cores: used,
        cpu_delay_cores: delay,
        cpu_limit_cores: if limit > 0.0 { limit.min(vcpus) } else { vcpus },
        memory_mib: mib("memory_mib", m.memory_mib).map_err(named)?,
        memory_rss_mib: mib("memory_rss_mib", m.memory_rss_mib).map_err(named)?,
        memory_used_mib: (m.memory_used_mib > 0).then_some(m.memory_used_mib.min(m.memory_mib)),
        dirty_rate_mib_s: known_rate("dirty_rate_mib_s", m.dirty_rate_mib_s).map_err(named)?,
        local_disk_mib: mib("local_disk_mib", m.local_disk_mib).map_err(named)?,
        written_disks: m.written_disks,
        migrating_out: m.migrating_out,
        during_migration: m.during_migration,
        group: (!m.group.is_empty()).then_some(m.group),
        labels: m.labels.into_iter().collect(),
        priority: m.priority,
        hindrances: m.hindrances,
        networks: m.networks,
        storage: m.storage,
        name: m.name,
        id,
    })
}

/// The points of a curve; none if it was not fresh in its report. Both times are of one clock.
fn dirty_curve(m: &v1::DirtyCurve, reported_at_ms: i64) -> Result<Vec<(f64, f64)>, String> {
    if m.points.len() > MOST_POINTS {
        return Err(format!("dirty_curve has {} points", m.points.len()));
    }
    let (mut points, mut last) = (vec![], (0.0, 0.0));
    for point in &m.points {
        let seconds = within("dirty_curve.seconds", point.seconds, MOST_RATE)?;
        let mib = within("dirty_curve.mib", point.mib, MOST_DIRTY_MIB)?;
        if seconds <= last.0 || mib < last.1 {
            return Err("dirty_curve does not rise".to_owned());
        }
        last = (seconds, mib);
        points.push(last);
    }
    let age_ms = reported_at_ms.saturating_sub(m.measured_at_ms);
    let fresh = (0..=CURVE_STANDS_MS).contains(&age_ms);
    Ok(if fresh { points } else { vec![] })
}

/// What operators want of a host, and why that is not understood, if it is not: then the host takes no guests. A newer
/// version may have written it, or somebody around the tools; either way nobody said that the host is open.
pub(super) fn intent(host: &HostName, entry: &Entry) -> (IntentEntry, Option<String>) {
    let read = message::<v1::Intent>(entry).and_then(|m| match m.kind() {
        _ if m.host != host.as_str() => Err(format!("written for host {:?}", m.host)),
        v1::IntentKind::Cordon | v1::IntentKind::Drain => Ok(m),
        v1::IntentKind::Unspecified => Err(format!("intent of unknown kind {}", m.kind)),
    });
    let (message, fault) = match read {
        Ok(message) => (message, None),
        Err(fault) => {
            let message = v1::Intent {
                host: host.to_string(),
                kind: v1::IntentKind::Cordon.into(),
                reason: "what stands in etcd for it cannot be read".to_owned(),
                ..v1::Intent::default()
            };
            (message, Some(fault))
        }
    };
    (IntentEntry::new(message, entry.mod_revision), fault)
}

pub(super) fn order(guest: &GuestId, entry: &Entry) -> Result<OrderEntry, String> {
    let order = Order::try_from(message::<v1::Order>(entry)?).map_err(|e| e.to_string())?;
    if order.guest != *guest {
        return Err(format!("written for guest {}", order.guest));
    }
    Ok(OrderEntry {
        order,
        mod_revision: entry.mod_revision,
    })
}

pub(super) fn journal(
    host: &HostName,
    guest: &GuestId,
    entry: &Entry,
) -> Result<JournalEntry, String> {
    let m: v1::Journal = message(entry)?;
    let order = m.order.clone().ok_or("no order in it")?;
    let order = Order::try_from(order).map_err(|e| e.to_string())?;
    if order.guest != *guest || order.source != *host {
        return Err(format!(
            "written for guest {} on {}",
            order.guest, order.source
        ));
    }
    let state = m.state.as_ref().ok_or("no state in it")?;
    let state = MigrationState::try_from(state).map_err(|e| e.to_string())?;
    Ok(JournalEntry {
        order,
        state,
        message: m,
        mod_revision: entry.mod_revision,
    })
}

pub(super) fn remembered(entry: &Entry) -> Result<Remembered, String> {
    let m: v1::GuestRecord = message(entry)?;
    Ok(Remembered {
        cooldown_until_ms: m.cooldown_until_ms,
        moves: m.moves.iter().map(Past::from).collect(),
        mod_revision: entry.mod_revision,
        message: m,
    })
}

pub(super) fn event(key: (u64, i64), entry: &Entry) -> Result<EventEntry, String> {
    let mut message: v1::Event = message(entry)?;
    if (message.sequence, message.epoch) != key {
        let (sequence, epoch) = (message.sequence, message.epoch);
        return Err(format!("written for event {sequence} of epoch {epoch}"));
    }
    message.revision = entry.mod_revision;
    Ok(EventEntry {
        message,
        revision: entry.mod_revision,
    })
}
