//! Stand-in.
use crate::hypervisor::GuestCounters;
use crate::pressure::HostSample;
use evenkeel_proto::v1::Report;
use evenkeel_types::HostName;
use prometheus::Registry;
use std::time::Duration;
/// Stand-in.
#[derive(Debug, Clone)]
pub struct AgentMetrics;
impl AgentMetrics {
    /// New.
    pub fn new(_r: &Registry, _h: &HostName, _d: bool) -> Result<Self, prometheus::Error> {
        Ok(Self)
    }
    /// Observe.
    pub fn observe(
        &self,
        _r: &Report,
        _g: Option<&[GuestCounters]>,
        _h: &HostSample,
        _t: Duration,
    ) {
    }
    /// Published.
    pub fn published(&self, _ok: bool, _ms: i64) {}
}
