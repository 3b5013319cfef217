//! A recorded fleet: one hot host, one idle, one silent.

use evenkeel_proto::v1;

/// "Now" of the recording, milliseconds since the Unix epoch.
pub(crate) const NOW_MS: i64 = 1_795_395_600_000;
pub(crate) const DB1: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
pub(crate) const DONE: &str = "0a1b2c3d-0000-4000-8000-000000000001";
pub(crate) const RUNNING: &str = "7f3a0c11-0000-4000-8000-000000000002";
pub(crate) const GIB: u64 = 1024 * 1024 * 1024;

pub(crate) fn status(now_ms: i64) -> v1::Status {
    v1::Status {
        cluster: "lab".into(),
        replica: "s2".into(),
        leader: "s1".into(),
        epoch: 17,
        mode: "automatic".into(),
        policy_revision: 41,
        loss: 12.4,
        loss_planned: 0.9,
        plan_moves: 2,
        hosts_active: 2,
        hosts_absent: 1,
        guests: 4,
        migrations_running: 1,
        last_cycle_ms: now_ms - 12_000,
        version: "0.1.0".into(),
        etcd_reachable: true,
        ..Default::default()
    }
}

pub(crate) fn hosts() -> Vec<v1::HostView> {
    let host = |name: &str, demand: f64, stalled: u32, loss: f64, guests: u32| v1::HostView {
        name: name.into(),
        state: "active".into(),
        libvirt_up: true,
        cpu_cores: 4.0,
        cpu_demand_cores: demand,
        cpu_used_cores: demand.min(4.0),
        memory_mib: 16_384,
        memory_allocated_mib: u64::from(guests) * 4096,
        pressure: Some(v1::Pressure {
            cpu_some_bp: stalled,
            io_some_bp: 30,
            available: true,
            ..Default::default()
        }),
        guests,
        loss,
        report_age_ms: 1_400,
        migrations_running: 1,
        agent_address: format!("{name}:7441"),
        agent_version: "0.1.0".into(),
        disk_locks: v1::DiskLocks::Lockd.into(),
        ..Default::default()
    };
    let silent = v1::HostView {
        name: "kvm3".into(),
        state: "absent".into(),
        report_age_ms: -1,
        disk_locks: v1::DiskLocks::Off.into(),
        cpu_cores: 4.0,
        memory_mib: 16_384,
        ..Default::default()
    };
    let mut hot = host("kvm1", 9.6, 3400, 12.4, 3);
    hot.troubles = vec!["no_io_pressure".into()];
    vec![hot, host("kvm2", 0.4, 0, 0.0, 1), silent]
}

pub(crate) fn guests(now_ms: i64) -> Vec<v1::GuestView> {
    let guest = |name: &str, host: &str, demand: f64| v1::GuestView {
        name: name.into(),
        uuid: uuid(name),
        host: host.into(),
        state: "running".into(),
        vcpus: 4,
        cpu_used_cores: demand / 2.0,
        cpu_demand_cores: demand,
        cpu_demand_stddev_cores: 0.3,
        memory_mib: 4096,
        memory_rss_mib: 3000,
        dirty_rate_mib_s: 20.0,
        ..Default::default()
    };
    let mut moving = guest("db1", "kvm1", 3.9);
    moving.migrating_to = "kvm2".into();
    let mut rests = guest("ci1", "kvm2", 0.4);
    rests.cooldown_until_ms = now_ms + 42 * 60_000 + 30_000;
    let mut fixed = guest("gpu0", "kvm1", 2.0);
    fixed.unmovable_reason = "host device 3b:00.0".into();
    vec![moving, guest("web3", "kvm1", 3.7), rests, fixed]
}

fn uuid(name: &str) -> String {
    let last = match name {
        "db1" => return DB1.to_owned(),
        "web3" => 1,
        "ci1" => 2,
        _ => 3,
    };
    format!("6ba7b810-9dad-11d1-80b4-00c04fd4300{last}")
}

pub(crate) fn order(id: &str, now_ms: i64) -> v1::Order {
    v1::Order {
        id: id.into(),
        guest_uuid: DB1.into(),
        guest_name: "db1".into(),
        source: "kvm1".into(),
        target: "kvm2".into(),
        created_at_ms: now_ms - 30_000,
        deadline_ms: now_ms + 600_000,
        epoch: 17,
        trigger: "balance".into(),
        reason: "relieve_cpu".into(),
        why: "cpu: kvm1 is 34% stalled".into(),
        by: "scheduler/s1".into(),
        prediction: Some(v1::Prediction {
            saves_guest_seconds_per_hour: 410.0,
            costs_guest_seconds: 0.9,
            copy_seconds: 21.0,
            downtime_seconds: 0.12,
            bytes: 6_549_825_946,
        }),
        memory_mib: 4096,
        ..Default::default()
    }
}

pub(crate) fn running(id: &str, copied: u64, now_ms: i64) -> v1::Migration {
    let mut state = v1::MigrationState::default();
    state.set_phase(v1::MigrationPhase::Running);
    let done = (4 * GIB * copied).div_ceil(100);
    v1::Migration {
        order: Some(order(id, now_ms)),
        state: Some(state),
        progress: Some(v1::CopyProgress {
            total_bytes: 4 * GIB,
            transferred_bytes: done,
            remaining_bytes: 4 * GIB - done,
            dirty_bytes_per_second: 20 * 1024 * 1024,
            bandwidth_bytes_per_second: 320 * 1024 * 1024,
            iteration: 1,
            elapsed_ms: 8_000,
            ..Default::default()
        }),
        started_at_ms: now_ms - 29_000,
        ..Default::default()
    }
}

/// A migration that is over: in `phase`, for `reason`, with the guest at `whereabouts`.
pub(crate) fn ended(
    id: &str,
    phase: v1::MigrationPhase,
    reason: &str,
    whereabouts: &str,
    now_ms: i64,
) -> v1::Migration {
    let mut migration = running(id, 100, now_ms);
    let mut state = v1::MigrationState {
        reason: reason.into(),
        whereabouts: whereabouts.into(),
        ..Default::default()
    };
    state.set_phase(phase);
    migration.state = Some(state);
    migration.ended_at_ms = now_ms - 8_000;
    if phase == v1::MigrationPhase::Done {
        if let Some(progress) = &mut migration.progress {
            progress.downtime_ms = 140;
        }
    } else if phase == v1::MigrationPhase::Refused {
        migration.progress = None;
        migration.started_at_ms = 0;
    } else {
        migration.detail = "operation aborted: migration out job".into();
    }
    migration
}

pub(crate) fn migrations(now_ms: i64) -> Vec<v1::Migration> {
    let mut past = ended(DONE, v1::MigrationPhase::Done, "", "", now_ms - 3_600_000);
    if let Some(order) = &mut past.order {
        order.guest_name = "ci1".into();
        order.guest_uuid = uuid("ci1");
    }
    vec![past, running(RUNNING, 62, now_ms)]
}

pub(crate) const PLAN: &str = include_str!("../fleet/plan.json");
pub(crate) const POLICY: &str =
    "schema = 1\nmode = \"automatic\"\n\n[opt_out.db]\nguests = [\"db1\"]\n";
/// Policies that were applied, the newest first: 41 governs.
pub(crate) fn policies() -> Vec<v1::PolicyRecord> {
    let record = |revision, text: &str, reason: &str, hours: i64| v1::PolicyRecord {
        text: text.to_owned(),
        author: "operator/anna".to_owned(),
        reason: reason.to_owned(),
        applied_at_ms: NOW_MS - hours * 3_600_000,
        revision,
    };
    vec![
        record(41, POLICY, "db1 stays", 3),
        record(40, "schema = 1\nmode = \"observe\"\n", "", 50),
        record(
            38,
            "schema = 1\nmode = \"swift\"\n",
            "of a version to come",
            900,
        ),
    ]
}

pub(crate) const SNAPSHOT: &str = include_str!("../fleet/snapshot.json");
