//! Everything that the daemons register, whether or not it has a value. That this is what they show is seen in the lab
//! (tests/e2e/metrics.rs).

use evenkeel_daemon::metrics::{Family, Registry, registry, show_certificate};
use evenkeel_daemon::store::request_durations;
use evenkeel_proto::identity::TlsPem;
use evenkeel_types::HostName;

fn common(component: &str) -> Registry {
    let registry = registry(component, "0").unwrap();
    let tls = TlsPem {
        ca: vec![],
        certificate: vec![],
        key: vec![],
    };
    show_certificate(&registry, &tls).unwrap();
    request_durations(&registry).unwrap();
    registry
}

/// What an agent registers.
pub(crate) fn agent() -> Vec<Family> {
    let (registry, host): (Registry, HostName) = (common("agent"), "h1".parse().unwrap());
    evenkeel_agent::metrics::AgentMetrics::new(&registry, &host, true).unwrap();
    evenkeel_agent::driver::Figures::new(&registry, &host).unwrap();
    evenkeel_agent::target::promised_bytes(&registry, &host).unwrap();
    registry.families()
}

/// What a scheduler registers.
pub(crate) fn scheduler() -> Vec<Family> {
    let registry = common("scheduler");
    evenkeel_scheduler::metrics::Metrics::new(&registry).unwrap();
    registry.families()
}
