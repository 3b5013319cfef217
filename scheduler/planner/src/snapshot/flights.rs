//! Migrations under way, and which of them can be counted.
//!
//! A snapshot is taken piece by piece and a migration may begin or end meanwhile: what it says of one may not
//! fit the rest. That is no reason to refuse the whole of it. What cannot be counted is named, and a guest that
//! is somewhere between is left alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{InFlight, Snapshot};

/// The migrations of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Flights<'s> {
    /// Guest, both ends and where the guest stands fit together; one per guest.
    pub(crate) counted: Vec<&'s InFlight>,
    /// The others: the guest's name, and why.
    pub(crate) uncounted: Vec<(&'s str, String)>,
}

impl Snapshot {
    /// The migrations under way, sorted out.
    pub(crate) fn flights(&self) -> Flights<'_> {
        let mut flights = Flights::default();
        if self.in_flight.is_empty() {
            return flights;
        }
        let hosts: BTreeSet<&str> = self.hosts.iter().map(|h| h.name.as_str()).collect();
        let guests = self
            .guests
            .iter()
            .map(|g| (g.name.as_str(), g.host.as_str()));
        let at: BTreeMap<&str, &str> = guests.collect();
        let mut seen = BTreeSet::new();
        for flight in &self.in_flight {
            let name = flight.guest.as_str();
            match misfit(flight, &hosts, at.get(name).copied()) {
                Some(why) => flights.uncounted.push((name, why)),
                None if !seen.insert(name) => {
                    let why = "stands twice among the migrations that run".to_owned();
                    flights.uncounted.push((name, why));
                }
                None => flights.counted.push(flight),
            }
        }
        flights
    }
}

/// Why a migration cannot be counted.
fn misfit(flight: &InFlight, hosts: &BTreeSet<&str>, host: Option<&str>) -> Option<String> {
    let InFlight { from, to, .. } = flight;
    let way = format!("is said to go from {from} to {to}");
    let Some(host) = host else {
        return Some(format!("{way}, but there is no such guest"));
    };
    if let Some(unknown) = [from, to].into_iter().find(|h| !hosts.contains(h.as_str())) {
        return Some(format!("{way}, but there is no host {unknown:?}"));
    }
    if from == to {
        return Some(format!("{way}, which is no way"));
    }
    (host != from && host != to).then(|| format!("{way}, but is on {host}"))
}
