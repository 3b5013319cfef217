//! Making metrics: each is registered as it is made.

use evenkeel_daemon::metrics::Registry;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts,
};

/// Makes and registers metrics.
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let metric = IntGauge::new(format!("evenkeel_{name}"), help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn float(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        let metric = Gauge::new(format!("evenkeel_{name}"), help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let metric = IntGaugeVec::new(Opts::new(format!("evenkeel_{name}"), help), by)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn floats(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        let metric = GaugeVec::new(Opts::new(format!("evenkeel_{name}"), help), by)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let metric = IntCounter::new(format!("evenkeel_{name}"), help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let metric = IntCounterVec::new(Opts::new(format!("evenkeel_{name}"), help), by)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        by: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(format!("evenkeel_{name}"), help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(opts, by)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
