use evenkeel_proto::v1::GuestReport;
use prometheus::{Encoder, TextEncoder};

use super::*;
use crate::hypervisor::RunState;
use crate::pressure::PressureTotals;

fn guest(name: &str, vcpu_time_ns: u64) -> GuestCounters {
    GuestCounters {
        id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
        name: name.into(),
        state: RunState::Running,
        persistent: true,
        generation: 1,
        vcpus: 2,
        cpu_time_ns: 0,
        vcpu_time_ns,
        vcpu_delay_ns: 500_000_000,
        memory_mib: 64,
        memory_rss_mib: 32,
        memory_used_mib: None,
        block_bytes: None,
        net_bytes: None,
        dirty_rate_mib_s: Some(1.0),
        migrating_out: false,
        complete: true,
    }
}

struct Bench {
    registry: Registry,
    metrics: AgentMetrics,
    host: HostSample,
}

impl Bench {
    fn new(per_domain: bool) -> Self {
        let registry = Registry::new();
        let host = "h1".parse().unwrap();
        let metrics = AgentMetrics::new(&registry, &host, per_domain).unwrap();
        let host = HostSample {
            cpu_used_us: Some(2_000_000),
            memory_total_mib: Some(2),
            memory_available_mib: Some(1),
            pressure: Some(PressureTotals::default()),
            ..HostSample::default()
        };
        Self {
            registry,
            metrics,
            host,
        }
    }

    fn look(&self, guests: Option<&[GuestCounters]>, hindrances: &[&str]) -> String {
        let report = Report {
            guests: guests
                .unwrap_or_default()
                .iter()
                .map(|g| GuestReport {
                    uuid: g.id.to_string(),
                    hindrances: hindrances.iter().map(|&h| h.to_owned()).collect(),
                    ..GuestReport::default()
                })
                .collect(),
            ..Report::default()
        };
        self.metrics
            .observe(&report, guests, &self.host, Duration::from_millis(5));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        String::from_utf8(text).unwrap()
    }
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|l| l == line)
}

#[test]
fn host_figures_come_in_base_units_with_the_hosts_name() {
    let text = Bench::new(true).look(Some(&[]), &[]);
    for line in [
        "evenkeel_host_cpu_seconds_total{host=\"h1\",mode=\"all\"} 2",
        "evenkeel_host_memory_bytes{host=\"h1\"} 2097152",
        "evenkeel_host_memory_available_bytes{host=\"h1\"} 1048576",
        "evenkeel_host_pressure_available{host=\"h1\"} 1",
        "evenkeel_agent_libvirt_up{host=\"h1\"} 1",
        "evenkeel_agent_collect_errors_total{collector=\"libvirt\",host=\"h1\"} 0",
    ] {
        assert!(has(&text, line), "{line}\n{text}");
    }
}

#[test]
fn counters_follow_totals_and_never_shrink() {
    let bench = Bench::new(true);
    let line = |seconds: u8| {
        format!("evenkeel_domain_cpu_seconds_total{{domain=\"web\",host=\"h1\"}} {seconds}")
    };
    assert!(has(
        &bench.look(Some(&[guest("web", 2_000_000_000)]), &[]),
        &line(2)
    ));
    assert!(has(
        &bench.look(Some(&[guest("web", 5_000_000_000)]), &[]),
        &line(5)
    ));
    assert!(has(
        &bench.look(Some(&[guest("web", 1_000_000_000)]), &[]),
        &line(6)
    ));
}

#[test]
fn a_guest_that_leaves_takes_its_metrics_along() {
    let bench = Bench::new(true);
    let text = bench.look(Some(&[guest("web", 1)]), &[]);
    assert!(text.contains("movable=\"true\""));
    let text = bench.look(Some(&[guest("web", 1)]), &["local_disk"]);
    assert!(text.contains("movable=\"false\"") && !text.contains("movable=\"true\""));
    assert!(
        bench.look(None, &[]).contains("\"web\""),
        "libvirt away is not guest away"
    );
    assert!(!bench.look(Some(&[]), &[]).contains("\"web\""));
}

#[test]
fn metrics_of_guests_can_be_switched_off() {
    let bench = Bench::new(false);
    assert!(
        !bench
            .look(Some(&[guest("web", 1)]), &[])
            .contains("\"web\"")
    );
}

#[test]
fn reports_are_counted_by_result() {
    let bench = Bench::new(true);
    bench.metrics.published(true, 1_500);
    bench.metrics.published(false, 2_500);
    bench.metrics.set_host_cpus(1.5);
    let text = bench.look(None, &[]);
    for line in [
        "evenkeel_agent_reports_total{host=\"h1\",result=\"ok\"} 1",
        "evenkeel_agent_reports_total{host=\"h1\",result=\"error\"} 1",
        "evenkeel_agent_report_last_success_timestamp_seconds{host=\"h1\"} 1.5",
        "evenkeel_agent_libvirt_up{host=\"h1\"} 0",
        "evenkeel_host_cpus{host=\"h1\"} 1.5",
    ] {
        assert!(has(&text, line), "{line}\n{text}");
    }
}
