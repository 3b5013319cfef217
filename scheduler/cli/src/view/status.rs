//! The fleet at a glance: `evenkeel.status/1`.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{Host, Migration, some_text, some_time};

/// `evenkeel.status/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Always `evenkeel.status/1`.
    pub schema: &'static str,
    /// The cluster's name.
    pub cluster: String,
    /// Who answered; null when read from a snapshot.
    pub replica: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Who leads; null: nobody.
    pub leader: Option<String>,
    /// The leader's epoch.
    pub epoch: Option<i64>,
    /// off, observe or automatic.
    pub mode: Option<String>,
    /// Revision of the policy in force; 0: none was ever applied.
    pub policy_revision: Option<u64>,
    /// The pause, if one is on.
    pub pause: Option<Pause>,
    /// Lost now.
    pub loss_guest_seconds_per_second: f64,
    /// Lost after the plan that stands.
    pub loss_planned_guest_seconds_per_second: Option<f64>,
    /// Moves of the plan that stands.
    pub plan_moves: Option<u32>,
    /// Hosts whose reports are fresh.
    pub hosts_active: u32,
    /// Silent hosts.
    pub hosts_absent: u32,
    /// Hosts that take no guests: cordoned or draining; null where that is not known.
    pub hosts_closed: Option<u32>,
    /// Hosts whose libvirt does not answer.
    pub hosts_libvirt_down: Option<u32>,
    /// Hosts that report and whose reports are too old to be used; null where that is not known.
    pub hosts_stale: Option<u32>,
    /// Guests.
    pub guests: u32,
    /// Migrations that run now.
    pub migrations_running: u32,
    /// Migrations whose outcome is not known: their guests are not touched.
    pub migrations_unknown: u32,
    /// What somebody must look at now, a sentence each: guests that run twice, migrations that are not ours.
    pub troubles: Vec<String>,
    /// Those of `troubles` that are migrations by somebody else.
    pub foreign_migrations: Vec<String>,
    /// Migrations that are not over.
    pub migrations: Vec<Migration>,
    /// What keeps the balancer from acting, a sentence each.
    pub holds: Vec<String>,
    /// How the drains stand, a sentence each.
    pub drains: Vec<String>,
    /// When it last planned.
    pub last_cycle_at: Option<Timestamp>,
    /// Whether the replica that answered reaches etcd.
    pub etcd_reachable: Option<bool>,
    /// When the snapshot was taken; null when live.
    pub taken_at: Option<Timestamp>,
}

/// A pause of the whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Who paused.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Until when; null: until resumed.
    pub until: Option<Timestamp>,
}

impl Status {
    /// The schema's name.
    pub const SCHEMA: &'static str = "evenkeel.status/1";

    /// A scheduler's answers.
    #[must_use]
    pub fn new(status: v1::Status, migrations: Vec<Migration>) -> Self {
        Self {
            schema: Self::SCHEMA,
            cluster: status.cluster,
            replica: some_text(status.replica),
            version: some_text(status.version),
            epoch: (!status.leader.is_empty()).then_some(status.epoch),
            leader: some_text(status.leader),
            mode: some_text(status.mode),
            policy_revision: Some(status.policy_revision),
            pause: status.pause.map(Into::into),
            loss_guest_seconds_per_second: status.loss,
            loss_planned_guest_seconds_per_second: Some(status.loss_planned),
            plan_moves: Some(status.plan_moves),
            hosts_active: status.hosts_active,
            hosts_absent: status.hosts_absent,
            hosts_closed: status.hosts_closed,
            hosts_libvirt_down: Some(status.hosts_libvirt_down),
            hosts_stale: None,
            guests: status.guests,
            migrations_running: status.migrations_running,
            migrations_unknown: status.migrations_unknown,
            troubles: status.troubles,
            foreign_migrations: status.foreign_migrations,
            migrations,
            holds: status.holds,
            drains: status.drains,
            last_cycle_at: some_time(status.last_cycle_ms),
            etcd_reachable: Some(status.etcd_reachable),
            taken_at: None,
        }
    }

    /// With what only the list of hosts tells.
    #[must_use]
    pub fn with_hosts(mut self, hosts: &[Host]) -> Self {
        let stale = |host: &&Host| host.state == "unusable" && host.libvirt_up == Some(true);
        self.hosts_stale = u32::try_from(hosts.iter().filter(stale).count()).ok();
        self
    }

    /// Whether the one who answered leads, so that nothing is moved when it cannot.
    #[must_use]
    pub fn is_the_leaders(&self) -> bool {
        self.replica == self.leader
    }

    /// Without what changes although nothing happens.
    #[must_use]
    pub fn steady(mut self) -> Self {
        self.last_cycle_at = None;
        self.replica = None;
        self.version = None;
        self
    }
}

impl From<v1::Pause> for Pause {
    fn from(pause: v1::Pause) -> Self {
        Self {
            by: some_text(pause.by),
            reason: some_text(pause.reason),
            since: some_time(pause.since_ms),
            until: some_time(pause.until_ms),
        }
    }
}
