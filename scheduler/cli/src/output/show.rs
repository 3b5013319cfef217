//! One thing in full: a fact a line.

use super::paint::{Tone, paint};
use super::text::{bytes, cores, harmless, hundredths, mib, of_mib, percent, tenths, words};
use super::{Look, drain, table, time};
use crate::view::{Guest, GuestDetail, Host, HostDetail, Migration, MigrationDetail, Progress};

type Facts = Vec<(&'static str, Option<String>)>;

/// A host and its guests.
#[must_use]
pub fn host(detail: &HostDetail, look: Look) -> String {
    let mut out = render(host_facts(&detail.host, look), look);
    if !detail.guests.is_empty() {
        out.push('\n');
        out.push_str(&table::guests(&detail.guests, look));
    }
    out
}

fn host_facts(host: &Host, look: Look) -> Facts {
    let of_cores = |used: f64| {
        format!(
            "{} of {} cores",
            cores(used, host.cpu_cores),
            cores(host.cpu_cores, host.cpu_cores)
        )
    };
    let pressure = host.pressure.map(|p| {
        format!(
            "cpu {}, memory {} (full {}), io {} (full {})",
            percent(p.cpu_some_bp),
            percent(p.memory_some_bp),
            percent(p.memory_full_bp),
            percent(p.io_some_bp),
            percent(p.io_full_bp)
        )
    });
    let libvirt = host
        .libvirt_up
        .map(|up| if up { "up" } else { "down" }.to_owned());
    let age = host
        .report_age_ms
        .map(|ms| format!("{} old", time::duration(time::milliseconds(ms))));
    vec![
        ("host", Some(host.name.clone())),
        ("state", Some(drain::state(host))),
        ("intent", drain::intent(host, look)),
        (
            "drain",
            host.drain.as_ref().map(|d| drain::left_over(&host.name, d)),
        ),
        ("libvirt", libvirt),
        ("cpu demand", Some(of_cores(host.cpu_demand_cores))),
        ("cpu used", host.cpu_used_cores.map(of_cores)),
        (
            "memory",
            Some(of_mib(host.memory_allocated_mib, host.memory_mib)),
        ),
        ("stalled", pressure),
        (
            "losing",
            Some(format!(
                "{} guest-seconds/s",
                tenths(host.loss_guest_seconds_per_second)
            )),
        ),
        ("guests", Some(host.guests.to_string())),
        (
            "migrations",
            host.migrations_running.map(|n| format!("{n} running")),
        ),
        ("report", age),
        ("agent", host.agent_address.clone()),
        ("version", host.agent_version.clone()),
        ("disk locks", host.disk_locks.clone()),
        (
            "troubles",
            (!host.troubles.is_empty()).then(|| host.troubles.join(", ")),
        ),
    ]
}

/// A guest and its migrations.
#[must_use]
pub fn guest(detail: &GuestDetail, look: Look) -> String {
    let guest = &detail.guest;
    let demand = format!(
        "{} of {} vCPUs, deviation {}",
        hundredths(guest.cpu_demand_cores),
        guest.vcpus,
        hundredths(guest.cpu_demand_stddev_cores)
    );
    let rests = guest
        .cooldown_until
        .filter(|until| *until > look.now)
        .map(|until| {
            let left = time::duration(time::between(look.now, until));
            format!("until {}, {left} left", time::stamp(until))
        });
    let facts = vec![
        ("guest", Some(guest.name.clone())),
        ("uuid", guest.uuid.clone()),
        ("host", Some(guest.host.clone())),
        ("state", Some(guest.state.clone())),
        ("cpu demand", Some(demand)),
        (
            "cpu used",
            guest
                .cpu_used_cores
                .map(|used| format!("{} cores", hundredths(used))),
        ),
        ("memory", Some(mib(guest.memory_mib))),
        ("held", guest.memory_rss_mib.map(mib)),
        (
            "local disks",
            (guest.local_disk_mib > 0).then(|| mib(guest.local_disk_mib)),
        ),
        ("dirties", dirties(guest)),
        ("unmovable", guest.unmovable_reason.clone()),
        ("rests", rests),
        ("moving to", guest.migrating_to.clone()),
    ];
    let mut out = render(facts, look);
    if !detail.migrations.is_empty() {
        out.push('\n');
        out.push_str(&table::migrations(&detail.migrations, look));
    }
    out
}

/// What the price of its copy rests on; `None`: it does not run, so that nothing changes while it is copied.
fn dirties(guest: &Guest) -> Option<String> {
    let point = |(seconds, mib): &(f64, f64)| format!("{mib:.0} MiB in {seconds} s");
    let curve: Vec<String> = guest.dirty_curve.iter().map(point).collect();
    match guest.dirty_rate_mib_s {
        _ if guest.state != "running" => None,
        _ if !curve.is_empty() => Some(format!("{} (measured)", curve.join(", "))),
        Some(rate) => Some(format!("{rate:.0} MiB/s (by its last copy or sample)")),
        None => Some("not known: its copy is priced as if it wrote nothing".to_owned()),
    }
}

/// A migration.
#[must_use]
pub fn migration(detail: &MigrationDetail, look: Look) -> String {
    render(migration_facts(&detail.migration), look)
}

fn migration_facts(migration: &Migration) -> Facts {
    let trigger = migration.trigger.as_ref();
    let asked = trigger.map(|t| {
        let by = t.by.as_deref().unwrap_or("-");
        format!("by {by}, {} ({})", words(&t.kind), words(&t.reason))
    });
    let phase = migration.phase.map(|phase| phase.as_str().to_owned());
    let expected = migration.prediction.map(|p| {
        format!(
            "{} in ~{:.0} s, pause {:.0} ms; saves {:.0} s/h, costs {} s",
            bytes(p.bytes),
            p.copy_seconds,
            p.downtime_seconds * 1000.0,
            p.saves_guest_seconds_per_hour,
            tenths(p.costs_guest_seconds)
        )
    });
    vec![
        ("migration", migration.id.clone()),
        ("guest", Some(migration.guest.clone())),
        ("uuid", migration.guest_uuid.clone()),
        ("from", Some(migration.source.clone())),
        ("to", Some(migration.target.clone())),
        ("phase", phase),
        ("reason", migration.outcome_reason.as_deref().map(words)),
        ("abort", migration.abort.clone()),
        ("guest is at", migration.whereabouts.clone()),
        ("detail", migration.detail.clone()),
        ("asked", asked),
        ("why", trigger.and_then(|t| t.why.clone())),
        ("ordered", migration.created_at.map(time::stamp)),
        ("started", migration.started_at.map(time::stamp)),
        ("ended", migration.ended_at.map(time::stamp)),
        ("deadline", migration.deadline.map(time::stamp)),
        ("expected", expected),
        ("copied", migration.progress.map(copied)),
        (
            "paused for",
            migration
                .progress
                .and_then(|p| p.downtime_ms)
                .map(|ms| format!("{ms} ms")),
        ),
    ]
}

fn copied(progress: Progress) -> String {
    format!(
        "{}, {} of {} left, {}/s, dirtied {}/s, round {}",
        bytes(progress.transferred_bytes),
        bytes(progress.remaining_bytes),
        bytes(progress.total_bytes),
        bytes(progress.bandwidth_bytes_per_second),
        bytes(progress.dirty_bytes_per_second),
        progress.iteration
    )
}

fn render(facts: Facts, look: Look) -> String {
    let mut out = String::new();
    for (label, value) in facts {
        let Some(value) = value else { continue };
        out.push_str(&paint(&format!("{label:<12}"), Tone::Strong, look.colour));
        out.push_str(&harmless(&value).replace('\n', "\n            "));
        out.push('\n');
    }
    out
}
