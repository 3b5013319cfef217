//! Guests: `evenkeel.guests/1` and `evenkeel.guest/1`.

use evenkeel_proto::v1;
use jiff::Timestamp;
use serde::Serialize;

use super::{Migration, some_text, some_time};

/// `evenkeel.guests/1`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guests {
    /// Always `evenkeel.guests/1`.
    pub schema: &'static str,
    /// The guests, in the order asked for.
    pub guests: Vec<Guest>,
}

/// `evenkeel.guest/1`: one guest and its migrations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestDetail {
    /// Always `evenkeel.guest/1`.
    pub schema: &'static str,
    /// The guest.
    pub guest: Guest,
    /// Its migrations as far as they are remembered, newest last.
    pub migrations: Vec<Migration>,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// libvirt's UUID.
    pub uuid: Option<String>,
    /// The host it is on.
    pub host: String,
    /// running, paused or shutoff.
    pub state: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// What it uses.
    pub cpu_used_cores: Option<f64>,
    /// What it would use uncontended.
    pub cpu_demand_cores: f64,
    /// Standard deviation of that.
    pub cpu_demand_stddev_cores: f64,
    /// What it may use.
    pub memory_mib: u64,
    /// What it holds.
    pub memory_rss_mib: Option<u64>,
    /// How fast it writes to its memory; null: not known.
    pub dirty_rate_mib_s: Option<f64>,
    /// `[seconds, MiB changed within them]`, measured lately: what its copy is priced by instead of the rate.
    pub dirty_curve: Vec<(f64, f64)>,
    /// Disks that only its host reaches.
    pub local_disk_mib: u64,
    /// Why it cannot be migrated; null: it can.
    pub unmovable_reason: Option<String>,
    /// It rests until then.
    pub cooldown_until: Option<Timestamp>,
    /// Where a running migration takes it.
    pub migrating_to: Option<String>,
}

impl Guests {
    /// A list of guests.
    #[must_use]
    pub fn new(guests: Vec<Guest>) -> Self {
        Self {
            schema: "evenkeel.guests/1",
            guests,
        }
    }
}

impl GuestDetail {
    /// One guest; of `migrations` its own are kept.
    #[must_use]
    pub fn new(guest: Guest, mut migrations: Vec<Migration>) -> Self {
        let is_its = |migration: &Migration| match (&migration.guest_uuid, &guest.uuid) {
            (Some(theirs), Some(its)) => theirs == its,
            (None, _) | (_, None) => migration.guest == guest.name,
        };
        migrations.retain(is_its);
        Self {
            schema: "evenkeel.guest/1",
            guest,
            migrations,
        }
    }
}

impl Guest {
    /// Whether it is the one that an operator means: by name, `host/name` or UUID. A name that stands on
    /// two hosts is `host/name` in itself.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let by_uuid = || {
            let uuid = self.uuid.as_ref();
            uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(name))
        };
        name == self.name || name == self.bare() || name == self.full_name() || by_uuid()
    }

    /// `host/name`, which is unique.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.host, self.bare())
    }

    fn bare(&self) -> &str {
        let rest = self.name.strip_prefix(self.host.as_str());
        rest.and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&self.name)
    }
}

impl From<v1::GuestView> for Guest {
    fn from(guest: v1::GuestView) -> Self {
        Self {
            name: guest.name,
            uuid: some_text(guest.uuid),
            host: guest.host,
            state: guest.state,
            vcpus: guest.vcpus,
            cpu_used_cores: Some(guest.cpu_used_cores),
            cpu_demand_cores: guest.cpu_demand_cores,
            cpu_demand_stddev_cores: guest.cpu_demand_stddev_cores,
            memory_mib: guest.memory_mib,
            memory_rss_mib: Some(guest.memory_rss_mib),
            dirty_rate_mib_s: (guest.dirty_rate_mib_s > 0.0).then_some(guest.dirty_rate_mib_s),
            dirty_curve: guest
                .dirty_curve
                .iter()
                .map(|point| (point.seconds, point.mib))
                .collect(),
            local_disk_mib: guest.local_disk_mib,
            unmovable_reason: some_text(guest.unmovable_reason),
            cooldown_until: some_time(guest.cooldown_until_ms),
            migrating_to: some_text(guest.migrating_to),
        }
    }
}
