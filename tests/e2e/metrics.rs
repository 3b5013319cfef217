//! Every metric is scraped by a real Prometheus, and named as its own checker wants it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use evenkeel_proto::v1::MigrationPhase;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, wait_for};

use crate::prometheus::{becomes, result};
use crate::{END, SOON};

/// What agents show, the prefix left out.
const AGENT: [&str; 21] = [
    "agent_info",
    "agent_collect_duration_seconds_count",
    "agent_collect_errors_total",
    "agent_report_last_success_timestamp_seconds",
    "agent_reports_total",
    "agent_libvirt_up",
    "host_cpus",
    "host_cpu_seconds_total",
    "host_memory_bytes",
    "host_memory_available_bytes",
    "host_pressure_stalled_seconds_total",
    "host_pressure_available",
    "domain_info",
    "domain_cpu_seconds_total",
    "domain_vcpu_delay_seconds_total",
    "domain_vcpus",
    "domain_memory_assigned_bytes",
    "domain_memory_rss_bytes",
    "build_info",
    "certificate_expiry_timestamp_seconds",
    "etcd_request_duration_seconds_count",
];
/// What is there only while memory is copied.
const COPYING: [&str; 3] = [
    "migration_progress_transferred_bytes",
    "migration_progress_remaining_bytes",
    "migration_progress_total_bytes",
];
/// What schedulers show.
const SCHEDULER: [&str; 28] = [
    "build_info",
    "etcd_request_duration_seconds_count",
    "certificate_expiry_timestamp_seconds",
    "scheduler_leader",
    "scheduler_leader_transitions_total",
    "scheduler_epoch",
    "scheduler_cycle_duration_seconds_count",
    "scheduler_cycles_total",
    "scheduler_last_cycle_timestamp_seconds",
    "scheduler_last_look_timestamp_seconds",
    "scheduler_hold",
    "fleet_loss_guest_seconds_per_second",
    "host_loss_guest_seconds_per_second",
    "host_utilisation_ratio",
    "host_state",
    "mode",
    "policy_info",
    "plan_moves",
    "migrations_running",
    "migrations_running_limit",
    "migrations_total",
    "migration_duration_seconds_count",
    "migration_downtime_seconds_count",
    "migration_bytes_count",
    "migration_prediction_error_ratio_count",
    "migrations_unknown",
    "foreign_migrations_total",
    "guest_moves_day_max",
];

#[test]
fn every_metric_reaches_prometheus_under_a_proper_name() {
    let options = LabOptions {
        prometheus: true,
        ..LabOptions::default()
    };
    let lab = Lab::up(&options);
    let leader = lab.some_leader();
    lab.set_mode(Caller::Operator, &leader, "observe").unwrap();
    lab.add_slow_guest("h1", "g");
    lab.wait_for_guest("g");
    let order = lab.migrate(Caller::Operator, &leader, "g", "h2").unwrap();

    scraped(&lab, "evenkeel-agent", &COPYING);
    lab.full_speed("h1");
    let migration = lab.wait_for_end(&order.id, END);
    assert_eq!(phase_of(&migration), MigrationPhase::Done);
    scraped(&lab, "evenkeel-agent", &AGENT);
    scraped(&lab, "evenkeel-scheduler", &SCHEDULER);
    becomes(
        &lab,
        r#"sum(evenkeel_migrations_total{trigger="manual",result="done"})"#,
        1.0,
    );
    becomes(&lab, "sum(evenkeel_scheduler_leader)", 1.0);
    // Two agents, three schedulers.
    becomes(&lab, r#"sum(up{job=~"evenkeel-.*"})"#, 5.0);

    for address in ["10.90.0.11:9641", "10.90.0.2:9640"] {
        promtool_has_nothing_to_say(&lab, address);
    }
}

/// Waits until Prometheus has all of these of one job.
fn scraped(lab: &Lab, job: &str, names: &[&str]) {
    let mut missing: BTreeSet<String> = names.iter().map(|n| format!("evenkeel_{n}")).collect();
    let query = format!(r#"group by (__name__) ({{job="{job}",__name__=~"evenkeel_.+"}})"#);
    wait_for(&format!("{job} to show {missing:?}"), SOON, || {
        for series in result(lab, &query) {
            let name = series["metric"]["__name__"].as_str().unwrap_or_default();
            missing.remove(name);
        }
        missing.is_empty().then_some(())
    });
}

fn promtool_has_nothing_to_say(lab: &Lab, address: &str) {
    let exposition = lab.http_get(address, "/metrics");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, a part of Debian's prometheus");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(exposition.as_bytes()).unwrap();
    drop(input);
    let done = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && said.is_empty(),
        "{address}: {said}"
    );
}
