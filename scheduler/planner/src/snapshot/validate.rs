//! What a snapshot must fulfil before anything is concluded from it.
//!
//! A value that cannot be true makes the whole snapshot unusable: acting on the rest would be acting on
//! a guess. The error names the place, so that the reporter can be found.

use std::collections::BTreeSet;

use super::{Guest, Host, SCHEMA, Snapshot};

/// 2^40 MiB (one exbibyte): above that a size is a mistake. Keeps all sums exact in `f64` and `i64`.
pub(super) const MAX_MIB: f64 = 1_099_511_627_776.0;
/// No host offers, and no guest asks for, more cores than this.
const MAX_CORES: f64 = 1_000_000.0;
/// Fractions of time may exceed 1 by the error of two clocks.
const MAX_FRACTION: f64 = 1.1;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not JSON, or not of the snapshot's shape.
    #[error("not a snapshot: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version or by another tool.
    #[error("schema is {found:?}, expected {SCHEMA:?}")]
    Schema {
        /// What the snapshot says.
        found: String,
    },
    /// A value that cannot be true.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where, for example `guests[web-1].cpu_demand_cores`.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn invalid(place: String, problem: impl Into<String>) -> SnapshotError {
    SnapshotError::Invalid {
        place,
        problem: problem.into(),
    }
}

impl Snapshot {
    /// Checks every value: finite, not negative, not absurd, names unique, hosts of guests known.
    ///
    /// Migrations under way that do not fit the rest are no fault: a plan names them and counts the others.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn validate(&self) -> Result<(), SnapshotError> {
        if self.schema != SCHEMA {
            return Err(SnapshotError::Schema {
                found: self.schema.clone(),
            });
        }
        let hosts = unique("hosts", self.hosts.iter().map(|h| h.name.as_str()))?;
        unique("guests", self.guests.iter().map(|g| g.name.as_str()))?;
        self.hosts.iter().try_for_each(check_host)?;
        self.guests.iter().try_for_each(|g| check_guest(g, &hosts))
    }
}

fn unique<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<BTreeSet<&'a str>, SnapshotError> {
    let mut seen = BTreeSet::new();
    for (at, name) in names.enumerate() {
        if name.is_empty() {
            return Err(invalid(format!("{kind}[{at}].name"), "is empty"));
        }
        if !seen.insert(name) {
            return Err(invalid(
                format!("{kind}[{at}].name"),
                format!("{name:?} stands twice"),
            ));
        }
    }
    Ok(seen)
}

fn known(
    hosts: &BTreeSet<&str>,
    name: &str,
    place: impl Fn() -> String,
) -> Result<(), SnapshotError> {
    if hosts.contains(name) {
        Ok(())
    } else {
        Err(invalid(place(), format!("no host {name:?}")))
    }
}

fn within(value: f64, limit: f64, place: impl Fn() -> String) -> Result<(), SnapshotError> {
    if !value.is_finite() {
        return Err(invalid(place(), format!("{value} is not a number")));
    }
    if value < 0.0 {
        return Err(invalid(place(), format!("{value} is negative")));
    }
    if value > limit {
        return Err(invalid(
            place(),
            format!("{value} is absurd (limit {limit})"),
        ));
    }
    Ok(())
}

fn size(mib: u64, place: impl Fn() -> String) -> Result<(), SnapshotError> {
    let limit = crate::num::round_bytes(MAX_MIB);
    if mib > limit {
        return Err(invalid(place(), format!("{mib} is absurd (limit {limit})")));
    }
    Ok(())
}

fn check_host(host: &Host) -> Result<(), SnapshotError> {
    let place = |field: &str| format!("hosts[{}].{field}", host.name);
    within(host.cpu_cores, MAX_CORES, || place("cpu_cores"))?;
    size(host.memory_mib, || place("memory_mib"))?;
    within(host.migration_bandwidth_mib_s, MAX_MIB, || {
        place("migration_bandwidth_mib_s")
    })?;
    within(host.own_cpu_cores.unwrap_or(0.0), MAX_CORES, || {
        place("own_cpu_cores")
    })?;
    within(host.calibration, MAX_CORES, || place("calibration"))?;
    let Some(p) = host.pressure else {
        return Ok(());
    };
    for (name, value) in [
        ("cpu_some", p.cpu_some),
        ("memory_some", p.memory_some),
        ("memory_full", p.memory_full),
        ("io_some", p.io_some),
        ("io_full", p.io_full),
    ] {
        within(value, MAX_FRACTION, || place(&format!("pressure.{name}")))?;
    }
    Ok(())
}

fn check_guest(guest: &Guest, hosts: &BTreeSet<&str>) -> Result<(), SnapshotError> {
    let place = |field: &str| format!("guests[{}].{field}", guest.name);
    known(hosts, &guest.host, || place("host"))?;
    within(f64::from(guest.vcpus), MAX_CORES, || place("vcpus"))?;
    within(guest.cpu_demand_cores, MAX_CORES, || {
        place("cpu_demand_cores")
    })?;
    within(guest.cpu_demand_stddev_cores, MAX_CORES, || {
        place("cpu_demand_stddev_cores")
    })?;
    size(guest.memory_mib, || place("memory_mib"))?;
    size(guest.active_mib(), || place("memory_active_mib"))?;
    size(guest.local_disk_mib, || place("local_disk_mib"))?;
    within(guest.dirty_rate_mib_s, MAX_MIB, || {
        place("dirty_rate_mib_s")
    })?;
    let mut last = -1.0;
    for &(seconds, mib) in &guest.dirty_curve {
        within(seconds, MAX_MIB, || place("dirty_curve"))?;
        within(mib, MAX_MIB, || place("dirty_curve"))?;
        if seconds <= last {
            return Err(invalid(
                place("dirty_curve"),
                "seconds must rise from point to point",
            ));
        }
        last = seconds;
    }
    Ok(())
}
