//! The loop's picture as messages. Pure, but for the clock that ages are counted by.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_daemon::unix_ms;
use evenkeel_planner::{Guest, Host, HostState};
use evenkeel_proto::v1;
use evenkeel_types::{HostName, MigrationState};
use tonic::Status;

use crate::controller::Controller;
use crate::core::drains::{Drain, sentence};
use crate::core::unknown::silent_host;
use crate::core::{Choice, Postponed, Trouble};
use crate::observe::{Fleet, GuestReading, JournalEntry, OrderEntry, RunState};

/// Sentences about steps that wait: status is a glance, the plan tells the rest.
const MOST_WAITS: usize = 3;

/// `evenkeel status`
#[must_use]
pub fn status(c: &Controller) -> v1::Status {
    let (fleet, assessment) = (c.fleet(), c.assessment());
    let leader = fleet.leader();
    let absent = fleet
        .hosts
        .keys()
        .filter(|host| !fleet.reports.contains_key(*host))
        .count();
    let usable = assessment
        .snapshot
        .hosts
        .iter()
        .filter(|h| h.state != HostState::Absent)
        .count();
    let libvirt_down = fleet
        .reports
        .values()
        .filter(|report| !report.libvirt_up)
        .count();
    let plan = c.planned().map(|planned| &planned.plan);
    v1::Status {
        cluster: c.cluster().to_string(),
        replica: c.name().to_string(),
        is_leader: c.mandate().is_some(),
        leader: leader
            .map(|(_, info)| info.name.clone())
            .unwrap_or_default(),
        epoch: leader.map_or(0, |(epoch, _)| epoch),
        mode: c.active().policy().mode.as_str().to_owned(),
        policy_revision: c.active().revision(),
        pause: crate::core::holds::pause_in_force(fleet, unix_ms())
            .and_then(|_| fleet.pause.clone()),
        loss: assessment.loss.total,
        loss_planned: plan.map_or(assessment.loss.total, |plan| plan.loss_after),
        plan_moves: plan.map_or(0, |plan| count(plan.steps.len())),
        hosts_active: count(usable),
        hosts_absent: count(absent),
        hosts_libvirt_down: count(libvirt_down),
        guests: count(assessment.snapshot.guests.len()),
        migrations_running: count(fleet.open_migrations().len()),
        holds: held_back(c),
        last_cycle_ms: c.last_cycle_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        etcd_reachable: c.etcd_reachable(),
        migrations_unknown: count(c.unknown_migrations()),
        troubles: told(&assessment.troubles, |_| true),
        foreign_migrations: told(&assessment.troubles, |trouble| !trouble.is_double()),
        drains: drains(c),
        hosts_closed: Some(count(fleet.intents.len())),
    }
}

fn told(troubles: &[Trouble], which: impl Fn(&Trouble) -> bool) -> Vec<String> {
    let troubles = troubles.iter().filter(|trouble| which(trouble));
    troubles.map(ToString::to_string).collect()
}

/// How the drains stand, one sentence each.
fn drains(c: &Controller) -> Vec<String> {
    let now_ms = c.assessment().at_ms;
    let drains = c.drains().into_iter();
    drains
        .map(|(host, entry, drain)| sentence(host, &drain, entry.message.deadline_ms, now_ms))
        .collect()
}

/// Why nothing moves, or not all that the standing plan would move.
fn held_back(c: &Controller) -> Vec<String> {
    let holds = c.assessment().holds.iter().map(ToString::to_string);
    let planned = c.planned().map(|planned| &planned.choice);
    let since = unix_ms().saturating_sub(c.last_cycle_ms());
    let since = Duration::from_millis(u64::try_from(since).unwrap_or(0));
    holds
        .chain(planned.map_or_else(Vec::new, |choice| waits(choice, since)))
        .collect()
}

/// What steps of a plan still wait for, `since` they were chosen from: each sentence once.
fn waits(choice: &Choice, since: Duration) -> Vec<String> {
    let mut said: Vec<String> = vec![];
    for (step, why) in &choice.postponed {
        let sentence = match why {
            // Holds are said as they are now, and a later wave waits for what is said of the first.
            Postponed::Held(_) | Postponed::LaterWave => continue,
            Postponed::HoldTime { left } => {
                let left = left.saturating_sub(since);
                format!("{}: {}", step.from, Postponed::HoldTime { left })
            }
            Postponed::Settling { host, left } => {
                let (host, left) = (host.clone(), left.saturating_sub(since));
                Postponed::Settling { host, left }.to_string()
            }
            Postponed::Limit { .. } => why.to_string(),
            Postponed::NotNow(_) => format!("{}: {why}", step.guest),
        };
        if said.len() < MOST_WAITS && !said.contains(&sentence) {
            said.push(sentence);
        }
    }
    said
}

/// `evenkeel hosts`: those of these names, all where none is given.
#[must_use]
pub fn hosts(c: &Controller, names: &[String]) -> v1::ListHostsReply {
    let losses: BTreeMap<&str, _> = c
        .assessment()
        .loss
        .per_host
        .iter()
        .map(|host| (host.name.as_str(), host))
        .collect();
    let mut allocated: BTreeMap<&str, u64> = BTreeMap::new();
    for guest in c
        .assessment()
        .snapshot
        .guests
        .iter()
        .filter(|g| holds_memory(g))
    {
        *allocated.entry(guest.host.as_str()).or_default() += guest.memory_mib;
    }
    let asked = |host: &&Host| names.is_empty() || names.contains(&host.name);
    let hosts = c.assessment().snapshot.hosts.iter().filter(asked);
    let hosts = hosts.filter_map(|host| {
        let name: HostName = host.name.parse().ok()?;
        let report = c.fleet().reports.get(&name);
        let facts = c.fleet().hosts.get(&name)?;
        let loss = losses.get(host.name.as_str());
        Some(v1::HostView {
            name: host.name.clone(),
            state: state_of(host.state, report.is_some()),
            libvirt_up: report.is_some_and(|r| r.libvirt_up),
            cpu_cores: host.cpu_cores,
            cpu_demand_cores: loss.map_or(0.0, |l| l.cpu_utilisation * host.cpu_cores),
            cpu_used_cores: report.map_or(0.0, |r| r.host_cpu_cores),
            memory_mib: host.memory_mib,
            memory_allocated_mib: allocated.get(host.name.as_str()).copied().unwrap_or(0),
            pressure: report.map(|r| r.pressure),
            guests: loss.map_or(0, |l| u32::try_from(l.guests).unwrap_or(0)),
            loss: loss.map_or(0.0, |l| l.loss),
            report_age_ms: c
                .core()
                .report_age(&name, unix_ms())
                .map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            migrations_running: report.map_or(0, |r| r.migrations_running),
            agent_address: facts.agent_address.clone(),
            agent_version: facts.agent_version.clone(),
            troubles: report.map(|r| r.troubles.clone()).unwrap_or_default(),
            intent: c.fleet().intents.get(&name).map(|i| i.message.clone()),
            drain: c.drain_of(&name).map(drain_view),
            disk_locks: facts.disk_locks.into(),
        })
    });
    v1::ListHostsReply {
        hosts: hosts.collect(),
    }
}

/// A host whose agent reports but whose data cannot be used is shown as it is known, not as silent.
fn state_of(state: HostState, reports: bool) -> String {
    match (state, reports) {
        (HostState::Absent, true) => "unusable".to_owned(),
        (state, _) => state.as_str().to_owned(),
    }
}

fn drain_view(drain: Drain) -> v1::DrainView {
    let obstacles = drain.obstacles.into_iter().map(|o| v1::DrainObstacle {
        guest: o.guest,
        reason: o.reason.to_owned(),
        detail: o.detail,
        retry_at_ms: o.retry_at_ms.unwrap_or(0),
    });
    v1::DrainView {
        state: drain.state.as_str().to_owned(),
        left: count(drain.left),
        moving: count(drain.moving),
        shut_off_stay: count(drain.shut_off_stay),
        obstacles: obstacles.collect(),
        holds: drain.holds,
        overdue: drain.overdue,
    }
}

fn holds_memory(guest: &Guest) -> bool {
    guest.state.as_str() != "shutoff"
}

/// `evenkeel guests`
#[must_use]
pub fn guests(c: &Controller) -> v1::ListGuestsReply {
    let mut readings: BTreeMap<(&str, &str), &GuestReading> = BTreeMap::new();
    for (host, report) in &c.fleet().reports {
        for reading in report
            .guests
            .iter()
            .filter(|g| g.state != RunState::Incoming)
        {
            readings.insert((host.as_str(), reading.id.as_str()), reading);
        }
    }
    let targets: BTreeMap<&str, &str> = c
        .assessment()
        .snapshot
        .in_flight
        .iter()
        .map(|flight| (flight.guest.as_str(), flight.to.as_str()))
        .collect();
    let guests = c.assessment().snapshot.guests.iter().map(|guest| {
        let reading = readings.get(&(guest.host.as_str(), guest.key()));
        v1::GuestView {
            name: guest.name.clone(),
            uuid: guest.key().to_owned(),
            host: guest.host.clone(),
            state: guest.state.as_str().to_owned(),
            vcpus: guest.vcpus,
            cpu_used_cores: reading.map_or(0.0, |r| r.cpu_used_cores),
            cpu_demand_cores: guest.cpu_demand_cores,
            cpu_demand_stddev_cores: guest.cpu_demand_stddev_cores,
            memory_mib: guest.memory_mib,
            memory_rss_mib: reading.map_or(0, |r| r.memory_rss_mib),
            dirty_rate_mib_s: guest.dirty_rate_mib_s,
            dirty_curve: guest.dirty_curve.iter().map(point).collect(),
            local_disk_mib: guest.local_disk_mib,
            unmovable_reason: guest.unmovable_reason.clone().unwrap_or_default(),
            cooldown_until_ms: guest.cooldown_until.map_or(0, |at| at.as_millisecond()),
            migrating_to: targets
                .get(guest.name.as_str())
                .copied()
                .unwrap_or("")
                .to_owned(),
        }
    });
    v1::ListGuestsReply {
        guests: guests.collect(),
    }
}

fn point(&(seconds, mib): &(f64, f64)) -> v1::DirtyPoint {
    v1::DirtyPoint { seconds, mib }
}

/// `evenkeel migrations`: open ones and what the guests' records remember, newest last.
#[must_use]
pub fn migrations(c: &Controller, open_only: bool) -> v1::ListMigrationsReply {
    let found = if open_only {
        under_way(c.fleet(), |_| true)
    } else {
        everywhere(c.fleet(), |_| true)
    };
    let mut migrations: Vec<v1::Migration> = found.values().map(|place| place.view(c)).collect();
    if open_only {
        migrations.retain(|m| m.ended_at_ms == 0);
    }
    migrations.sort_by_key(|m| (m.started_at_ms, m.order.as_ref().map(|o| o.id.clone())));
    v1::ListMigrationsReply { migrations }
}

/// One migration by its id or the beginning of it.
///
/// # Errors
/// `NotFound`, or `InvalidArgument` when several begin so.
pub fn migration_by_prefix(c: &Controller, prefix: &str) -> Result<v1::Migration, Status> {
    let found = everywhere(c.fleet(), |id| id.starts_with(prefix));
    let mut places = found.values();
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place.view(c)),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!("{prefix:?} is ambiguous"))),
        (None, _) => Err(Status::not_found(format!(
            "there is no migration {prefix:?}"
        ))),
    }
}

/// `evenkeel policy history`, and one policy of it.
///
/// # Errors
/// When that revision is not kept, or cannot be read.
pub fn policy_history(c: &Controller, revision: u64) -> Result<v1::GetPolicyHistoryReply, Status> {
    let history = &c.fleet().policy_history;
    let active = c.active().revision();
    let records = if revision == 0 {
        let newest_first = history.iter().rev();
        let without_text = newest_first.map(|(n, record)| v1::PolicyRecord {
            text: String::new(),
            revision: *n,
            ..record.clone()
        });
        without_text.collect()
    } else {
        let record = history.get(&revision).ok_or_else(|| {
            Status::not_found(format!("policy rev {revision} is not kept (any more)"))
        })?;
        if record.revision != revision {
            let message = format!("policy rev {revision} cannot be read in etcd");
            return Err(Status::failed_precondition(message));
        }
        vec![record.clone()]
    };
    Ok(v1::GetPolicyHistoryReply { records, active })
}

/// Where a migration stands in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place<'a> {
    Ordered(&'a OrderEntry),
    Journalled(&'a JournalEntry),
    Remembered(&'a v1::GuestRecord, &'a v1::MoveRecord),
}

impl Place<'_> {
    fn view(self, c: &Controller) -> v1::Migration {
        match self {
            Self::Ordered(entry) => migration_of(c, entry),
            Self::Journalled(journal) => of_journal(c, journal),
            Self::Remembered(record, past) => of_record(record, past),
        }
    }
}

/// Orders and journals whose id fits, by that; a journal tells more than its order.
fn under_way(fleet: &Fleet, fits: impl Fn(&str) -> bool) -> BTreeMap<&str, Place<'_>> {
    let orders = fleet.orders.values();
    let orders = orders.map(|entry| (entry.order.id.as_str(), Place::Ordered(entry)));
    let journals = fleet.journals.values();
    let journals = journals.map(|entry| (entry.order.id.as_str(), Place::Journalled(entry)));
    orders.chain(journals).filter(|(id, _)| fits(id)).collect()
}

/// As [`under_way`], and what is remembered, which tells more than a journal. Borrowed: a fleet remembers
/// hundreds of thousands of moves, and a watcher asks for one twice a second.
fn everywhere(fleet: &Fleet, fits: impl Fn(&str) -> bool) -> BTreeMap<&str, Place<'_>> {
    let mut found = under_way(fleet, &fits);
    for remembered in fleet.remembered.values() {
        let record = &remembered.message;
        let fitting = record.moves.iter().filter(|past| fits(&past.order_id));
        found.extend(fitting.map(|past| (past.order_id.as_str(), Place::Remembered(record, past))));
    }
    found
}

/// The migration of a standing order.
#[must_use]
pub fn migration_of(c: &Controller, entry: &OrderEntry) -> v1::Migration {
    match c.fleet().journal_of(entry) {
        Some(journal) => of_journal(c, journal),
        None => v1::Migration {
            order: Some(entry.order.message.clone()),
            state: Some(MigrationState::Ordered.into()),
            started_at_ms: entry.order.message.created_at_ms,
            ..v1::Migration::default()
        },
    }
}

fn of_journal(c: &Controller, entry: &JournalEntry) -> v1::Migration {
    let journal = &entry.message;
    let mut migration = v1::Migration {
        order: journal.order.clone(),
        state: journal.state.clone(),
        progress: journal.progress,
        started_at_ms: journal.started_at_ms,
        ended_at_ms: journal.ended_at_ms,
        detail: journal.detail.clone(),
    };
    let assessment = c.assessment();
    if let Some(host) = silent_host(entry, &assessment.snapshot, assessment.at_ms) {
        let state = migration.state.get_or_insert_default();
        state.set_phase(v1::MigrationPhase::Unknown);
        migration.detail = format!("{host} is silent and the deadline has passed");
    }
    migration
}

fn of_record(record: &v1::GuestRecord, past: &v1::MoveRecord) -> v1::Migration {
    let order = v1::Order {
        id: past.order_id.clone(),
        guest_uuid: record.uuid.clone(),
        guest_name: record.name.clone(),
        source: past.source.clone(),
        target: past.target.clone(),
        trigger: past.trigger.clone(),
        reason: past.reason.clone(),
        why: past.why.clone(),
        by: past.by.clone(),
        prediction: past.prediction,
        ..v1::Order::default()
    };
    v1::Migration {
        order: Some(order),
        state: past.state.clone(),
        progress: past.progress,
        started_at_ms: past.started_at_ms,
        ended_at_ms: past.ended_at_ms,
        detail: past.detail.clone(),
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use evenkeel_planner::Step;

    use super::*;
    use crate::observe::Remembered;
    use crate::observe::samples::order_entry;

    fn order(id: u128) -> OrderEntry {
        order_entry(id, |_| {})
    }

    #[test]
    fn a_migration_is_found_once_where_most_is_told_of_it() {
        let mut fleet = Fleet::default();
        let entry = order(1);
        let (guest, id) = (entry.order.guest.clone(), entry.order.id.to_string());
        let key = (entry.order.source.clone(), guest.clone());
        let journal = JournalEntry {
            order: entry.order.clone(),
            state: MigrationState::Preparing,
            message: v1::Journal::default(),
            mod_revision: 4,
        };
        let past = v1::MoveRecord {
            order_id: id.clone(),
            ..Default::default()
        };
        let record = v1::GuestRecord {
            moves: vec![past],
            ..Default::default()
        };
        fleet.orders.insert(guest.clone(), entry);
        let by_prefix = |fleet: &Fleet| -> Vec<String> {
            let found = everywhere(fleet, |known| known.starts_with(&id[..8]));
            found.values().map(|place| format!("{place:?}")).collect()
        };
        assert!(by_prefix(&fleet)[0].starts_with("Ordered"));
        fleet.journals.insert(key, journal);
        assert!(by_prefix(&fleet)[0].starts_with("Journalled"));
        let remembered = Remembered {
            cooldown_until_ms: 0,
            moves: vec![],
            message: record,
            mod_revision: 5,
        };
        fleet.remembered.insert(guest, remembered);
        assert!(by_prefix(&fleet)[0].starts_with("Remembered"));
        assert_eq!(by_prefix(&fleet).len(), 1);
        assert_eq!(everywhere(&fleet, |id| id.starts_with("no")).len(), 0);
        assert_eq!(under_way(&fleet, |_| true).len(), 1);
    }

    #[test]
    fn what_steps_wait_for_is_said_once_each_and_counted_down() {
        let seconds = Duration::from_secs;
        let step = |guest: &str| -> Step {
            let text = format!(
                r#"{{"wave": 1, "guest": "{guest}", "from": "h1", "to": "h2", "reason": "relieve_cpu",
                "saves_guest_seconds_per_hour": 1, "costs_guest_seconds": 1, "copy_seconds": 1,
                "downtime_seconds": 0, "bytes": 1}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let settling = |left| Postponed::Settling {
            host: "h2".to_owned(),
            left: seconds(left),
        };
        let limit = Postponed::Limit {
            of: "h1".to_owned(),
            limit: 2,
        };
        let postponed = vec![
            (step("a"), Postponed::HoldTime { left: seconds(25) }),
            (step("b"), Postponed::HoldTime { left: seconds(25) }),
            (step("c"), Postponed::LaterWave),
            (step("d"), settling(4)),
            (step("e"), limit),
            (step("f"), Postponed::NotNow("it is gone".to_owned())),
        ];
        let choice = Choice {
            start: vec![],
            postponed,
        };
        assert_eq!(
            waits(&choice, seconds(5)),
            [
                "h1: hot for too short, 20 s left",
                "h2 is settling after a move, 0 s left",
                "h1 runs 2 migrations already",
            ]
        );
    }
}
