//! Which rules a fleet breaks as it is.

use std::collections::BTreeMap;

use super::{Apart, Pinned, Rules, Together};
use crate::policy::Policy;
use crate::snapshot::{Guest, Host, Snapshot};

/// How a rule of the policy stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStanding {
    /// Its name: `anti_affinity.db`.
    pub rule: String,
    /// `must`, else `should`.
    pub must: bool,
    /// The least number of guests that would have to move for it to hold.
    pub guests: usize,
}

/// How each rule stands where the guests are now, by name; none if the snapshot is unusable. An `opt_out` cannot
/// be broken by where guests are.
#[must_use]
pub fn rules_standing(snapshot: &Snapshot, policy: &Policy) -> Vec<RuleStanding> {
    if snapshot.validate().is_err() {
        return Vec::new();
    }
    let hosts: Vec<&Host> = snapshot.hosts.iter().collect();
    let guests: Vec<&Guest> = snapshot.guests.iter().collect();
    let by_name: BTreeMap<&str, usize> = hosts.iter().map(|h| h.name.as_str()).zip(0..).collect();
    // A valid snapshot has the host of every guest.
    let place = |g: &&Guest| by_name.get(g.host.as_str()).copied().unwrap_or(0);
    let at: Vec<usize> = guests.iter().map(place).collect();
    let rules = Rules::resolve(policy, &hosts, &guests);
    let standing = |rule: &String, must: bool, guests: usize| RuleStanding {
        rule: rule.clone(),
        must,
        guests,
    };
    let apart = rules.apart.iter();
    let apart = apart.map(|r| standing(&r.name, r.hard, too_close(r, &at)));
    let together = rules.together.iter();
    let together = together.map(|r| standing(&r.name, r.hard, scattered(r, &at)));
    let pins = rules.pins.iter();
    let pins = pins.map(|r| standing(&r.name, r.hard, astray(r, &at)));
    let mut all: Vec<RuleStanding> = apart.chain(together).chain(pins).collect();
    all.sort_by(|a, b| a.rule.cmp(&b.rule));
    all
}

/// All but one of each place.
fn too_close(rule: &Apart, at: &[usize]) -> usize {
    let mut places: Vec<usize> = rule.members.iter().map(|&m| rule.place[at[m]]).collect();
    let all = places.len();
    places.sort_unstable();
    places.dedup();
    all - places.len()
}

/// All but those on the host that has most of them.
fn scattered(rule: &Together, at: &[usize]) -> usize {
    let mut per_host: BTreeMap<usize, usize> = BTreeMap::new();
    for &member in &rule.members {
        *per_host.entry(at[member]).or_default() += 1;
    }
    let most = per_host.values().max().copied().unwrap_or(0);
    rule.members.len() - most
}

/// Those on a host that is not theirs.
fn astray(rule: &Pinned, at: &[usize]) -> usize {
    let members = rule.members.iter();
    members.filter(|&&m| !rule.allowed[at[m]]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(guests: &[(&str, &str)]) -> Snapshot {
        let host = |name: &str| Host {
            name: name.to_owned(),
            cpu_cores: 8.0,
            memory_mib: 65_536,
            ..Host::default()
        };
        let guest = |(name, at): &(&str, &str)| Guest {
            name: (*name).to_owned(),
            host: (*at).to_owned(),
            vcpus: 1,
            memory_mib: 512,
            ..Guest::default()
        };
        let mut snapshot = Snapshot::new("test", jiff::Timestamp::UNIX_EPOCH);
        snapshot.hosts = ["a", "b", "c"].map(host).to_vec();
        snapshot.guests = guests.iter().map(guest).collect();
        snapshot
    }

    fn check(rule: &str, guests: &[(&str, &str)], must: bool, broken_by: usize) {
        let policy = Policy::parse(&format!("schema = 1\n{rule}")).unwrap();
        let snapshot = fleet(guests);
        assert_eq!(snapshot.validate().map_err(|e| e.to_string()), Ok(()));
        let standing = rules_standing(&snapshot, &policy);
        let found: Vec<(bool, usize)> = standing.iter().map(|r| (r.must, r.guests)).collect();
        assert_eq!(found, [(must, broken_by)], "{rule} {guests:?}");
    }

    #[test]
    fn the_least_number_of_guests_that_would_have_to_move_is_told() {
        let apart = "[anti_affinity.db]\nguests = [\"db*\"]\nstrength = \"must\"";
        check(apart, &[("db1", "a"), ("db2", "b"), ("web", "a")], true, 0);
        check(apart, &[("db1", "a"), ("db2", "a"), ("db3", "a")], true, 2);
        let together = "[affinity.app]\nguests = [\"app*\"]\nstrength = \"should\"";
        check(together, &[("app1", "a"), ("app2", "a")], false, 0);
        check(
            together,
            &[("app1", "a"), ("app2", "b"), ("app3", "b")],
            false,
            1,
        );
        let pin = "[pin.dc]\nguests = [\"dc\"]\nhosts = [\"a\"]\nstrength = \"must\"";
        check(pin, &[("dc", "a")], true, 0);
        check(pin, &[("dc", "c"), ("web", "c")], true, 1);
        check(pin, &[("web", "c")], true, 0);
    }

    #[test]
    fn nothing_is_said_of_a_snapshot_that_contradicts_itself() {
        let policy =
            "schema = 1\n[pin.dc]\nguests = [\"dc\"]\nhosts = [\"a\"]\nstrength = \"must\"";
        let policy = Policy::parse(policy).unwrap();
        assert_eq!(rules_standing(&fleet(&[("dc", "nowhere")]), &policy), []);
    }
}
