//! What a snapshot must fulfil before anything is concluded from it.
//!
//! A value that cannot be true makes the whole snapshot unusable: acting on the rest would be acting on
//! a guess. The error names the place, so that the reporter can be found.

use std::collections::BTreeSet;

use super::locate::{Step, locate};
use super::{Guest, Host, SCHEMA, Snapshot};

/// 2^40 MiB (one exbibyte): above that a size is a mistake. Keeps all sums exact in `f64` and `i64`.
pub(super) const MAX_MIB: f64 = 1_099_511_627_776.0;
/// No host offers, and no guest asks for, more cores than this.
const MAX_CORES: f64 = 1_000_000.0;
/// Fractions of time may exceed 1 by the error of two clocks.
const MAX_FRACTION: f64 = 1.1;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{fault} ({hint})")]
pub struct SnapshotError {
    /// What is wrong.
    pub fault: SnapshotFault,
    /// What would be right.
    pub hint: String,
    /// Line and column in the text it was read from, from 1.
    pub position: Option<(usize, usize)>,
}

/// What is wrong with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// Not JSON, or not of the snapshot's shape.
    #[error("{0}")]
    Json(String),
    /// Written by another version or by another tool.
    #[error("schema is {0:?}, expected {SCHEMA:?}")]
    Schema(String),
    /// A value that cannot be true.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where, for example `guests[web-1].cpu_demand_cores`.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// The list that an item stands in, which of them it is, and how it is called.
#[derive(Clone, Copy)]
struct Item<'s> {
    list: &'static str,
    index: usize,
    name: &'s str,
}

/// The snapshot itself, which stands in no list.
const TOP: Item<'static> = Item {
    list: "",
    index: 0,
    name: "",
};

/// A fault of a value, and where it stands.
struct Found<'s> {
    item: Item<'s>,
    /// Names of keys, the outer first, joined by dots.
    field: String,
    problem: String,
    hint: String,
}

impl<'s> Item<'s> {
    fn found(self, field: &str, problem: impl Into<String>, hint: &str) -> Box<Found<'s>> {
        Box::new(Found {
            item: self,
            field: field.to_owned(),
            problem: problem.into(),
            hint: hint.to_owned(),
        })
    }

    /// A number from 0 to a limit.
    fn within(self, field: &str, value: f64, limit: f64) -> Check<'s> {
        let problem = if !value.is_finite() {
            format!("{value} is not a number")
        } else if value < 0.0 {
            format!("{value} is negative")
        } else if value > limit {
            format!("{value} is absurd (limit {limit})")
        } else {
            return Ok(());
        };
        let hint = format!("write a number from 0 to {limit}, in the unit of the field's name");
        Err(self.found(field, problem, &hint))
    }

    fn size(self, field: &str, mib: u64) -> Check<'s> {
        let limit = crate::num::round_bytes(MAX_MIB);
        if mib <= limit {
            return Ok(());
        }
        let problem = format!("{mib} is absurd (limit {limit})");
        Err(self.found(
            field,
            problem,
            "sizes are in MiB: is this one in bytes or KiB?",
        ))
    }
}

type Check<'s> = Result<(), Box<Found<'s>>>;

impl Snapshot {
    /// Checks every value: finite, not negative, not absurd, names unique, hosts of guests known.
    ///
    /// Migrations under way that do not fit the rest are no fault: a plan names them and counts the others.
    ///
    /// # Errors
    /// The first fault, with its place.
    pub fn validate(&self) -> Result<(), SnapshotError> {
        self.validate_text(None)
    }

    /// The same for a snapshot that was read from this text.
    pub(super) fn validate_text(&self, text: Option<&str>) -> Result<(), SnapshotError> {
        let position = |path: &[Step<'_>]| text.map(|text| locate(text, path));
        if self.schema != SCHEMA {
            return Err(SnapshotError {
                fault: SnapshotFault::Schema(self.schema.clone()),
                hint: format!("write {SCHEMA:?}, or read it with the version that wrote it"),
                position: position(&[Step::Key("schema")]),
            });
        }
        self.check().map_err(|found| {
            let Item { list, index, name } = found.item;
            let mut path = match list {
                "" => vec![],
                _ => vec![Step::Key(list), Step::Index(index)],
            };
            path.extend(found.field.split('.').map(Step::Key));
            let place = match name {
                _ if list.is_empty() => found.field.clone(),
                "" => format!("{list}[{index}].{}", found.field),
                name => format!("{list}[{name}].{}", found.field),
            };
            SnapshotError {
                fault: SnapshotFault::Invalid {
                    place,
                    problem: found.problem,
                },
                hint: found.hint,
                position: position(&path),
            }
        })
    }

    fn check(&self) -> Check<'_> {
        TOP.within("peak_correlation", self.peak_correlation, 1.0)?;
        let hosts = unique("hosts", self.hosts.iter().map(|h| h.name.as_str()))?;
        unique("guests", self.guests.iter().map(|g| g.name.as_str()))?;
        for (index, host) in self.hosts.iter().enumerate() {
            let name = host.name.as_str();
            check_host(
                host,
                Item {
                    list: "hosts",
                    index,
                    name,
                },
            )?;
        }
        for (index, guest) in self.guests.iter().enumerate() {
            let name = guest.name.as_str();
            let item = Item {
                list: "guests",
                index,
                name,
            };
            check_guest(guest, item, &hosts)?;
        }
        Ok(())
    }
}

/// What a snapshot that is no JSON, or not of the right shape, lacks.
pub(super) fn unreadable(error: &serde_json::Error) -> SnapshotError {
    let (line, column) = (error.line(), error.column());
    let told = error.to_string();
    let place = format!(" at line {line} column {column}");
    let problem = told.strip_suffix(&place).unwrap_or(&told).to_owned();
    let hint = match error.classify() {
        serde_json::error::Category::Eof => "the text ends too early: was it cut off?",
        serde_json::error::Category::Syntax => {
            "it is no JSON here: look for a comma, quote or bracket, and for comments"
        }
        serde_json::error::Category::Data | serde_json::error::Category::Io => {
            "docs/reference/snapshot.md lists every field with its type"
        }
    };
    SnapshotError {
        fault: SnapshotFault::Json(problem),
        hint: hint.to_owned(),
        position: (line > 0).then_some((line, column.max(1))),
    }
}

fn unique<'s>(
    list: &'static str,
    names: impl Iterator<Item = &'s str>,
) -> Result<BTreeSet<&'s str>, Box<Found<'s>>> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        // Told by its number: the name is what is wrong.
        let item = Item {
            list,
            index,
            name: "",
        };
        if name.is_empty() {
            return Err(item.found("name", "is empty", "give each of them a name"));
        }
        if !seen.insert(name) {
            let hint = "names are unique in a cluster: write HOST/NAME for guests of one name on two hosts";
            return Err(item.found("name", format!("{name:?} stands twice"), hint));
        }
    }
    Ok(seen)
}

fn check_host<'s>(host: &'s Host, item: Item<'s>) -> Check<'s> {
    item.within("cpu_cores", host.cpu_cores, MAX_CORES)?;
    item.size("memory_mib", host.memory_mib)?;
    item.within(
        "migration_bandwidth_mib_s",
        host.migration_bandwidth_mib_s,
        MAX_MIB,
    )?;
    item.within(
        "own_cpu_cores",
        host.own_cpu_cores.unwrap_or(0.0),
        MAX_CORES,
    )?;
    item.within("calibration", host.calibration, MAX_CORES)?;
    item.within("memory_calibration", host.memory_calibration, MAX_CORES)?;
    let Some(p) = host.pressure else {
        return Ok(());
    };
    for (name, value) in [
        ("pressure.cpu_some", p.cpu_some),
        ("pressure.memory_some", p.memory_some),
        ("pressure.memory_full", p.memory_full),
        ("pressure.io_some", p.io_some),
        ("pressure.io_full", p.io_full),
    ] {
        item.within(name, value, MAX_FRACTION)?;
    }
    Ok(())
}

fn check_guest<'s>(guest: &'s Guest, item: Item<'s>, hosts: &BTreeSet<&str>) -> Check<'s> {
    if !hosts.contains(guest.host.as_str()) {
        let problem = format!("no host {:?}", guest.host);
        let hint = "add it to hosts, with \"state\": \"absent\" when nothing is known of it";
        return Err(item.found("host", problem, hint));
    }
    item.within("vcpus", f64::from(guest.vcpus), MAX_CORES)?;
    item.within("cpu_demand_cores", guest.cpu_demand_cores, MAX_CORES)?;
    item.within(
        "cpu_demand_stddev_cores",
        guest.cpu_demand_stddev_cores,
        MAX_CORES,
    )?;
    item.within(
        "cpu_limit_cores",
        guest.cpu_limit_cores.unwrap_or(0.0),
        MAX_CORES,
    )?;
    item.size("memory_mib", guest.memory_mib)?;
    item.size("memory_active_mib", guest.active_mib())?;
    item.size("local_disk_mib", guest.local_disk_mib)?;
    item.within("dirty_rate_mib_s", guest.dirty_rate_mib_s, MAX_MIB)?;
    let mut last = -1.0;
    for &(seconds, mib) in &guest.dirty_curve {
        item.within("dirty_curve", seconds, MAX_MIB)?;
        item.within("dirty_curve", mib, MAX_MIB)?;
        if seconds <= last {
            let problem = "seconds must rise from point to point";
            let hint = "sort the [seconds, MiB] points and keep one for each time";
            return Err(item.found("dirty_curve", problem, hint));
        }
        last = seconds;
    }
    Ok(())
}
