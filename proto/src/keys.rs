//! The key schema: every etcd key of a cluster is made and parsed here and nowhere else.
//!
//! Prefix `/evenkeel/v1/<cluster>/`. One writer per key; an agent writes only below its own
//! `hosts/<host>/`. Prefixes end in `/`, so that access rules of `h1` do not cover `h10`.

use evenkeel_types::{GuestId, HostName};

/// Keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: String,
}

/// What a key below the cluster's prefix stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `hosts/<host>/inventory`
    Inventory(HostName),
    /// `hosts/<host>/report`
    Report(HostName),
    /// `hosts/<host>/progress/<guest>`
    Progress(HostName, GuestId),
    /// `orders/<guest>`
    Order(GuestId),
    /// `guests/<guest>`
    Guest(GuestId),
    /// `intents/<host>`
    Intent(HostName),
    /// `control/pause`
    Pause,
    /// `policy/active`
    PolicyActive,
    /// `policy/history/<n>`
    PolicyHistory(u64),
    /// A key below `scheduler/leader/`
    Leader,
    /// `events/<sequence>-<epoch>`
    Event(u64, i64),
}

impl Keys {
    /// Keys of `cluster`; the name takes the same characters as a host's.
    #[must_use]
    pub fn new(cluster: &HostName) -> Self {
        Self {
            root: format!("/evenkeel/v1/{cluster}/"),
        }
    }

    /// The cluster's prefix; everything lies below it.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Prefix of all hosts.
    #[must_use]
    pub fn hosts(&self) -> String {
        format!("{}hosts/", self.root)
    }

    /// Prefix of one host: all that its agent may write.
    #[must_use]
    pub fn host(&self, host: &HostName) -> String {
        format!("{}hosts/{host}/", self.root)
    }

    /// What a host is.
    #[must_use]
    pub fn inventory(&self, host: &HostName) -> String {
        format!("{}inventory", self.host(host))
    }

    /// What a host measures.
    #[must_use]
    pub fn report(&self, host: &HostName) -> String {
        format!("{}report", self.host(host))
    }

    /// Prefix of the journals of migrations that leave `host`.
    #[must_use]
    pub fn journals(&self, host: &HostName) -> String {
        format!("{}progress/", self.host(host))
    }

    /// The journal of `guest`'s migration away from `host`.
    #[must_use]
    pub fn journal(&self, host: &HostName, guest: &GuestId) -> String {
        format!("{}{guest}", self.journals(host))
    }

    /// Prefix of all orders.
    #[must_use]
    pub fn orders(&self) -> String {
        format!("{}orders/", self.root)
    }

    /// The one order that may stand for `guest`.
    #[must_use]
    pub fn order(&self, guest: &GuestId) -> String {
        format!("{}{guest}", self.orders())
    }

    /// Prefix of what is remembered of guests.
    #[must_use]
    pub fn guests(&self) -> String {
        format!("{}guests/", self.root)
    }

    /// What is remembered of `guest`.
    #[must_use]
    pub fn guest(&self, guest: &GuestId) -> String {
        format!("{}{guest}", self.guests())
    }

    /// What operators want of `host`.
    #[must_use]
    pub fn intent(&self, host: &HostName) -> String {
        format!("{}intents/{host}", self.root)
    }

    /// The pause, if one is on.
    #[must_use]
    pub fn pause(&self) -> String {
        format!("{}control/pause", self.root)
    }

    /// The policy in force.
    #[must_use]
    pub fn policy_active(&self) -> String {
        format!("{}policy/active", self.root)
    }

    /// Revision `n` of the policy.
    #[must_use]
    pub fn policy_history(&self, n: u64) -> String {
        format!("{}policy/history/{n:08}", self.root)
    }

    /// Event `sequence`, written in `epoch`: keys of events sort by their time, and no two leaders' are the same.
    #[must_use]
    pub fn event(&self, sequence: u64, epoch: i64) -> String {
        format!("{}events/{sequence:012}-{epoch:012}", self.root)
    }

    /// Name of the election; etcd's Election API puts each candidate below it.
    #[must_use]
    pub fn election(&self) -> String {
        format!("{}scheduler/leader", self.root)
    }

    /// What `key` stands for; `None` for keys of other clusters and for what this version does not know.
    #[must_use]
    pub fn parse(&self, key: &str) -> Option<Key> {
        let rest = key.strip_prefix(&self.root)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            ["hosts", host, "inventory"] => Some(Key::Inventory(host.parse().ok()?)),
            ["hosts", host, "report"] => Some(Key::Report(host.parse().ok()?)),
            ["hosts", host, "progress", guest] => {
                Some(Key::Progress(host.parse().ok()?, guest.parse().ok()?))
            }
            ["orders", guest] => Some(Key::Order(guest.parse().ok()?)),
            ["guests", guest] => Some(Key::Guest(guest.parse().ok()?)),
            ["intents", host] => Some(Key::Intent(host.parse().ok()?)),
            ["control", "pause"] => Some(Key::Pause),
            ["policy", "active"] => Some(Key::PolicyActive),
            ["policy", "history", n] => Some(Key::PolicyHistory(n.parse().ok()?)),
            ["scheduler", "leader", _] => Some(Key::Leader),
            ["events", event] => {
                let (sequence, epoch) = event.split_once('-')?;
                Some(Key::Event(sequence.parse().ok()?, epoch.parse().ok()?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn keys() -> Keys {
        Keys::new(&"lab".parse().unwrap())
    }

    #[test]
    fn every_key_parses_to_what_it_was_made_of() {
        let keys = keys();
        let (host, guest): (HostName, GuestId) = ("h1".parse().unwrap(), GUEST.parse().unwrap());
        let cases = [
            (keys.inventory(&host), Key::Inventory(host.clone())),
            (keys.report(&host), Key::Report(host.clone())),
            (
                keys.journal(&host, &guest),
                Key::Progress(host.clone(), guest.clone()),
            ),
            (keys.order(&guest), Key::Order(guest.clone())),
            (keys.guest(&guest), Key::Guest(guest.clone())),
            (keys.intent(&host), Key::Intent(host.clone())),
            (keys.pause(), Key::Pause),
            (keys.policy_active(), Key::PolicyActive),
            (keys.policy_history(7), Key::PolicyHistory(7)),
            (format!("{}/694d", keys.election()), Key::Leader),
            (keys.event(1042, 57), Key::Event(1042, 57)),
        ];
        for (text, key) in cases {
            assert_eq!(keys.parse(&text), Some(key), "{text}");
        }
    }

    #[test]
    fn foreign_and_malformed_keys_are_nothing() {
        let keys = keys();
        for text in [
            "/evenkeel/v1/other/control/pause",
            "/evenkeel/v1/lab/hosts/h1/report/extra",
            "/evenkeel/v1/lab/orders/not-a-uuid",
            "/evenkeel/v1/lab/",
            "",
        ] {
            assert_eq!(keys.parse(text), None, "{text}");
        }
    }

    #[test]
    fn events_sort_by_their_number() {
        let keys = keys();
        assert!(keys.event(9, 57) < keys.event(10, 57));
        assert!(keys.event(99, 570) < keys.event(100, 57));
    }

    #[test]
    fn a_hosts_prefix_does_not_cover_a_longer_name() {
        let keys = keys();
        let (h1, h10) = ("h1".parse().unwrap(), "h10".parse().unwrap());
        assert!(!keys.report(&h10).starts_with(&keys.host(&h1)));
    }
}
