//! What the agent shows to Prometheus of its host and guests.
//!
//! Written by the reporter after each look; a running copy's progress is the driver's to show. Totals are the kernel's and
//! libvirt's own, passed on as counters, so that Prometheus can make its own rates of them. Everything that
//! belongs to a guest goes when the guest goes, and can be switched off as a whole.

mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evenkeel_daemon::metrics::Registry;
use evenkeel_proto::v1::Report;
use evenkeel_types::HostName;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts,
};

use self::totals::Totals;
use crate::hypervisor::GuestCounters;
use crate::pressure::{HostSample, Stalled};

const MIB: f64 = 1_048_576.0;
const MICROSECOND: f64 = 1e-6;
const NANOSECOND: f64 = 1e-9;
/// One look takes milliseconds; a QEMU that does not answer makes it seconds.
const LOOK_BUCKETS: [f64; 8] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 5.0];

/// The agent's metrics; clones share them.
#[derive(Debug, Clone)]
pub struct AgentMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    agent: OwnMetrics,
    host: HostMetrics,
    /// `None`: switched off.
    domains: Option<DomainMetrics>,
}

#[derive(Debug)]
struct OwnMetrics {
    collect_seconds: HistogramVec,
    collect_errors: IntCounterVec,
    last_success: Gauge,
    reports: IntCounterVec,
    libvirt_up: IntGauge,
}

#[derive(Debug)]
struct HostMetrics {
    cpus: Gauge,
    cpu_seconds: Totals<1>,
    memory: IntGauge,
    memory_available: IntGauge,
    stalled: Totals<2>,
    pressure_available: IntGauge,
    migrations: IntGauge,
}

#[derive(Debug)]
struct DomainMetrics {
    info: IntGaugeVec,
    cpu_seconds: Totals<1>,
    delay_seconds: Totals<1>,
    vcpus: IntGaugeVec,
    assigned: GaugeVec,
    rss: GaugeVec,
    dirty_rate: GaugeVec,
    /// Guests that have values now: name, and the labels of its info.
    shown: Mutex<BTreeMap<String, [String; 2]>>,
}

/// Makes metrics that carry the host's name, and registers them.
struct Maker<'a> {
    registry: &'a Registry,
    host: &'a HostName,
}

impl Maker<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("evenkeel_{name}"), help).const_label("host", self.host.as_str())
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::with_opts(self.opts(name, help))?)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(self.opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
        self.add(GaugeVec::new(self.opts(name, help), &["domain"])?)
    }

    fn int_gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(self.opts(name, help), &["domain"])?)
    }

    fn int_counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(self.opts(name, help), &[label])?)
    }

    fn totals<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
    ) -> Result<Totals<N>, prometheus::Error> {
        let counters = CounterVec::new(self.opts(name, help), &labels)?;
        Ok(Totals::new(self.add(counters)?))
    }
}

impl OwnMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let (name, help) = (
            "evenkeel_agent_collect_duration_seconds",
            "Time that one look took, by what was looked at.",
        );
        let opts = HistogramOpts::new(name, help)
            .const_label("host", make.host.as_str())
            .buckets(LOOK_BUCKETS.to_vec());
        Ok(Self {
            collect_seconds: make.add(HistogramVec::new(opts, &["collector"])?)?,
            collect_errors: make.int_counters(
                "agent_collect_errors_total",
                "Looks that brought nothing, by what was looked at.",
                "collector",
            )?,
            last_success: make.gauge(
                "agent_report_last_success_timestamp_seconds",
                "When a report was last written to etcd, seconds since the Unix epoch.",
            )?,
            reports: make.int_counters(
                "agent_reports_total",
                "Reports written to etcd, by result.",
                "result",
            )?,
            libvirt_up: make
                .int_gauge("agent_libvirt_up", "Whether libvirt answers: 1 yes, 0 no.")?,
        })
    }
}

impl HostMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpus: make.gauge("host_cpus", "Cores that the host offers to guests.")?,
            cpu_seconds: make.totals(
                "host_cpu_seconds_total",
                "CPU time used, by mode: all (by everything on the host).",
                ["mode"],
            )?,
            memory: make.int_gauge("host_memory_bytes", "Memory of the host.")?,
            memory_available: make.int_gauge(
                "host_memory_available_bytes",
                "Memory that could be given out without swapping.",
            )?,
            stalled: make.totals(
                "host_pressure_stalled_seconds_total",
                "Time in which some or all (full) tasks waited, by resource.",
                ["resource", "kind"],
            )?,
            pressure_available: make.int_gauge(
                "host_pressure_available",
                "Whether the kernel tells pressure: 1 yes, 0 no.",
            )?,
            migrations: make.int_gauge(
                "host_migrations_running",
                "Migrations that touch the host now, also those of others.",
            )?,
        })
    }
}

impl DomainMetrics {
    fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let info = make.opts("domain_info", "Guests of the host; always 1.");
        Ok(Self {
            info: make.add(IntGaugeVec::new(info, &["domain", "uuid", "movable"])?)?,
            cpu_seconds: make.totals(
                "domain_cpu_seconds_total",
                "CPU time that the guest's vCPUs ran.",
                ["domain"],
            )?,
            delay_seconds: make.totals(
                "domain_vcpu_delay_seconds_total",
                "Time that the guest's vCPUs were ready to run and did not.",
                ["domain"],
            )?,
            vcpus: make.int_gauges("domain_vcpus", "vCPUs of the guest.")?,
            assigned: make.gauges(
                "domain_memory_assigned_bytes",
                "Memory that the guest may use now.",
            )?,
            rss: make.gauges(
                "domain_memory_rss_bytes",
                "Memory of the host that the guest's process holds.",
            )?,
            dirty_rate: make.gauges(
                "domain_dirty_rate_bytes_per_second",
                "Memory that the guest changes, as last measured.",
            )?,
            shown: Mutex::default(),
        })
    }
}

impl AgentMetrics {
    /// Registers everything; `per_domain`: also what belongs to single guests.
    ///
    /// # Errors
    /// When a metric of such a name is in `registry` already.
    pub fn new(
        registry: &Registry,
        host: &HostName,
        per_domain: bool,
    ) -> Result<Self, prometheus::Error> {
        let make = Maker { registry, host };
        let info = make.int_gauge("agent_info", "The agent of this host; always 1.")?;
        info.set(1);
        let domains = per_domain.then(|| DomainMetrics::new(&make)).transpose()?;
        Ok(Self(Arc::new(Inner {
            agent: OwnMetrics::new(&make)?,
            host: HostMetrics::new(&make)?,
            domains,
        })))
    }

    /// Shows the cores that are offered to guests.
    pub fn set_host_cpus(&self, cores: f64) {
        self.0.host.cpus.set(cores);
    }

    /// Shows what one look brought; it took `took`.
    pub fn observe(
        &self,
        report: &Report,
        guests: Option<&[GuestCounters]>,
        host: &HostSample,
        took: Duration,
    ) {
        let agent = &self.0.agent;
        let seconds = agent.collect_seconds.with_label_values(&["libvirt"]);
        seconds.observe(took.as_secs_f64());
        agent.libvirt_up.set(i64::from(guests.is_some()));
        // Touched either way, so that the series is there before the first error.
        let errors = agent.collect_errors.with_label_values(&["libvirt"]);
        errors.inc_by(u64::from(guests.is_none()));
        let errors = agent.collect_errors.with_label_values(&["host"]);
        errors.inc_by(u64::from(!host.troubles.is_empty()));
        self.0.host.observe(report, host);
        if let (Some(domains), Some(guests)) = (&self.0.domains, guests) {
            domains.observe(report, guests);
        }
    }

    /// Counts a report that was written to etcd, or not, at `now_ms` of the wall clock.
    pub fn published(&self, ok: bool, now_ms: i64) {
        let agent = &self.0.agent;
        for (result, hit) in [("ok", ok), ("error", !ok)] {
            agent
                .reports
                .with_label_values(&[result])
                .inc_by(u64::from(hit));
        }
        if ok {
            let ms = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
            agent.last_success.set(ms.as_secs_f64());
        }
    }
}

impl HostMetrics {
    fn observe(&self, report: &Report, sample: &HostSample) {
        if let Some(us) = sample.cpu_used_us {
            self.cpu_seconds.set(["all"], us, MICROSECOND);
        }
        let bytes = |mib: Option<u64>| {
            let bytes = mib.unwrap_or(0).saturating_mul(1 << 20);
            i64::try_from(bytes).unwrap_or(i64::MAX)
        };
        self.memory.set(bytes(sample.memory_total_mib));
        self.memory_available
            .set(bytes(sample.memory_available_mib));
        self.migrations.set(report.migrations_running.into());
        self.pressure_available
            .set(i64::from(sample.pressure.is_some()));
        let Some(pressure) = &sample.pressure else {
            return;
        };
        let all = [
            ("cpu", pressure.cpu),
            ("memory", pressure.memory),
            ("io", pressure.io),
        ];
        for (resource, Stalled { some_us, full_us }) in all {
            self.stalled.set([resource, "some"], some_us, MICROSECOND);
            if let Some(full_us) = full_us {
                self.stalled.set([resource, "full"], full_us, MICROSECOND);
            }
        }
    }
}

impl DomainMetrics {
    fn observe(&self, report: &Report, guests: &[GuestCounters]) {
        let movable: BTreeSet<&str> = report
            .guests
            .iter()
            .filter(|g| g.hindrances.is_empty())
            .map(|g| g.uuid.as_str())
            .collect();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let here: BTreeSet<&str> = guests.iter().map(|g| g.name.as_str()).collect();
        shown.retain(|name, info| {
            let stays = here.contains(name.as_str());
            if !stays {
                self.remove(name, info);
            }
            stays
        });
        for guest in guests {
            let movable = movable.contains(guest.id.as_str());
            let info = [guest.id.to_string(), movable.to_string()];
            if shown.get(&guest.name) != Some(&info) {
                if let Some(old) = shown.insert(guest.name.clone(), info.clone()) {
                    self.remove_info(&guest.name, &old);
                }
                self.info
                    .with_label_values(&[&guest.name, &info[0], &info[1]])
                    .set(1);
            }
            self.show(guest);
        }
    }

    fn show(&self, guest: &GuestCounters) {
        let name = guest.name.as_str();
        self.vcpus
            .with_label_values(&[name])
            .set(guest.vcpus.into());
        let mib = |mib: u64| f64::from(u32::try_from(mib).unwrap_or(u32::MAX)) * MIB;
        self.assigned
            .with_label_values(&[name])
            .set(mib(guest.memory_mib));
        self.rss
            .with_label_values(&[name])
            .set(mib(guest.memory_rss_mib));
        if let Some(rate) = guest.dirty_rate_mib_s {
            self.dirty_rate.with_label_values(&[name]).set(rate * MIB);
        }
        if guest.complete {
            self.cpu_seconds.set([name], guest.vcpu_time_ns, NANOSECOND);
            self.delay_seconds
                .set([name], guest.vcpu_delay_ns, NANOSECOND);
        }
    }

    /// Takes away everything that a guest that has left had. What it never had is no error.
    fn remove(&self, name: &str, info: &[String; 2]) {
        self.remove_info(name, info);
        self.cpu_seconds.remove([name]);
        self.delay_seconds.remove([name]);
        let _ = self.vcpus.remove_label_values(&[name]);
        for gauges in [&self.assigned, &self.rss, &self.dirty_rate] {
            let _ = gauges.remove_label_values(&[name]);
        }
    }

    fn remove_info(&self, name: &str, info: &[String; 2]) {
        let _ = self.info.remove_label_values(&[name, &info[0], &info[1]]);
    }
}

#[cfg(test)]
mod tests;
