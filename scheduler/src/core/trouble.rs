//! What somebody must know at once of guests: one that runs on two hosts, two that write to one disk, and
//! migrations that are not ours. Nothing is done to any of them but to leave it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use evenkeel_types::{GuestId, HostName, MigrationState, Whereabouts};

use super::Arrival;
use crate::observe::{Fleet, GuestReading, RunState};

/// One such thing, in the picture as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A guest runs on several hosts.
    TwoHosts {
        /// Its name.
        guest: String,
        /// Those.
        hosts: Vec<String>,
    },
    /// Guests that run write to the same disk, none of them with `<shareable/>`.
    SharedDisk {
        /// The disk.
        disk: String,
        /// Those, `host/name`.
        guests: Vec<String>,
    },
    /// A guest is migrated by somebody else.
    ForeignMigration {
        /// Its name.
        guest: String,
        /// Where it leaves.
        host: String,
    },
}

impl Trouble {
    /// Whether a guest may be running twice, which must never be.
    #[must_use]
    pub fn is_double(&self) -> bool {
        match self {
            Self::TwoHosts { .. } | Self::SharedDisk { .. } => true,
            Self::ForeignMigration { .. } => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoHosts { guest, hosts } => write!(
                f,
                "{guest} runs on {}: stop one of them, nothing else touches it",
                hosts.join(" and ")
            ),
            Self::SharedDisk { disk, guests } => write!(
                f,
                "{} write to the same disk {disk}: one may be a copy of the other; they are left alone",
                guests.join(" and ")
            ),
            Self::ForeignMigration { guest, host } => {
                write!(f, "{guest} is migrated from {host} by somebody else")
            }
        }
    }
}

/// Who is involved in what, by a key that stays the same from look to look.
struct Sight {
    trouble: Trouble,
    hosts: BTreeSet<HostName>,
    guests: BTreeSet<GuestId>,
}

/// What was seen, and since when.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    since: BTreeMap<Trouble, i64>,
}

/// Guests that must not be moved for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Involved {
    pub(super) in_double: BTreeSet<GuestId>,
    pub(super) moved_by_others: BTreeSet<GuestId>,
}

impl Watch {
    /// What is certain: every host involved has reported since it was first seen, or the journal of a migration
    /// says so. Two reports are not of the same moment, and a guest that is handed over is in both for one.
    pub(super) fn look(
        &mut self,
        fleet: &Fleet,
        arrivals: &BTreeMap<HostName, Arrival>,
        now_ms: i64,
    ) -> Vec<Trouble> {
        let seen = sights(fleet);
        let known: BTreeSet<&Trouble> = seen.iter().map(|sight| &sight.trouble).collect();
        self.since.retain(|trouble, _| known.contains(trouble));
        let mut certain = vec![];
        for sight in &seen {
            let since = *self.since.entry(sight.trouble.clone()).or_insert(now_ms);
            let again = |host: &HostName| arrivals.get(host).is_some_and(|a| a.at_ms > since);
            if sight.hosts.iter().all(again) || told_by_journal(fleet, &sight.guests) {
                certain.push(sight.trouble.clone());
            }
        }
        certain
    }
}

/// Who must be left alone on the first sight of it.
pub(super) fn involved(fleet: &Fleet) -> Involved {
    let mut all = Involved::default();
    for sight in sights(fleet) {
        if sight.trouble.is_double() {
            all.in_double.extend(sight.guests);
        } else {
            all.moved_by_others.extend(sight.guests);
        }
    }
    all
}

fn told_by_journal(fleet: &Fleet, guests: &BTreeSet<GuestId>) -> bool {
    let both = |state: &MigrationState| {
        matches!(
            state,
            MigrationState::Unknown {
                last: Whereabouts::Both,
                ..
            }
        )
    };
    let mut journals = fleet.journals.values();
    journals.any(|journal| guests.contains(&journal.order.guest) && both(&journal.state))
}

fn sights(fleet: &Fleet) -> Vec<Sight> {
    let mut living: BTreeMap<&GuestId, Vec<(&HostName, &GuestReading)>> = BTreeMap::new();
    let mut writers: BTreeMap<&str, Vec<(&HostName, &GuestReading)>> = BTreeMap::new();
    let answers = |host: &HostName| fleet.reports.get(host).is_some_and(|r| r.libvirt_up);
    let foreign = fleet.foreign().filter(|(host, _)| answers(host));
    let foreign = foreign.map(|(host, guest)| Sight {
        trouble: Trouble::ForeignMigration {
            guest: guest.name.clone(),
            host: host.to_string(),
        },
        hosts: BTreeSet::from([host.clone()]),
        guests: BTreeSet::from([guest.id.clone()]),
    });
    let mut sights: Vec<Sight> = foreign.collect();
    for (host, report) in fleet.reports.iter().filter(|(_, report)| report.libvirt_up) {
        for guest in &report.guests {
            // What is being handed over runs here no more, or there not yet.
            let lives = matches!(guest.state, RunState::Running | RunState::Paused);
            if lives && !guest.migrating_out {
                living.entry(&guest.id).or_default().push((host, guest));
                for disk in &guest.written_disks {
                    writers.entry(disk).or_default().push((host, guest));
                }
            }
        }
    }
    let double = |trouble, all: &[(&HostName, &GuestReading)]| Sight {
        trouble,
        hosts: all.iter().map(|(host, _)| (*host).clone()).collect(),
        guests: all.iter().map(|(_, guest)| guest.id.clone()).collect(),
    };
    for all in living.values().filter(|all| all.len() > 1) {
        let trouble = Trouble::TwoHosts {
            guest: all
                .first()
                .map_or_else(String::new, |(_, g)| g.name.clone()),
            hosts: all.iter().map(|(host, _)| host.to_string()).collect(),
        };
        sights.push(double(trouble, all));
    }
    for (disk, all) in writers {
        let ids: BTreeSet<&GuestId> = all.iter().map(|(_, guest)| &guest.id).collect();
        // One guest on two hosts has been told already.
        if ids.len() > 1 {
            let guests = all.iter().map(|(host, g)| format!("{host}/{}", g.name));
            let trouble = Trouble::SharedDisk {
                disk: disk.to_owned(),
                guests: guests.collect(),
            };
            sights.push(double(trouble, &all));
        }
    }
    sights
}

#[cfg(test)]
mod tests;
