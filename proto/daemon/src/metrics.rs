//! The metrics endpoint: `/metrics`, `/healthz` and `/readyz` on a port of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use evenkeel_proto::identity::TlsPem;
use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, IntGauge, IntGaugeVec, Opts, TextEncoder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether the daemon does its work; `/readyz` answers 503 until it says so.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<watch::Sender<bool>>);

impl Readiness {
    /// Says whether the daemon is ready.
    pub fn set(&self, ready: bool) {
        self.0.send_replace(ready);
    }

    fn get(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub async fn wait(&self) {
        // The sender is ours: it does not end while we wait.
        drop(self.0.subscribe().wait_for(|ready| *ready).await);
    }
}

/// A metric as a daemon may show it, whether or not it has a value yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    /// Its name; the unit is part of it.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels, sorted; what Prometheus adds is not among them.
    pub labels: Vec<String>,
    /// What it tells, one sentence.
    pub help: String,
}

/// What a daemon shows. Unlike Prometheus' own registry it can also tell what has no value yet.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    shown: prometheus::Registry,
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

impl Registry {
    /// A registry of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric, or several that are collected together.
    ///
    /// # Errors
    /// When one of that name is there already.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        let described = describe(collector.as_ref());
        self.shown.register(collector)?;
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.extend(described);
        Ok(())
    }

    /// What has a value now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.shown.gather()
    }

    /// Everything that was registered, by name.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.values().cloned().collect()
    }
}

fn describe(collector: &dyn Collector) -> Vec<(String, Family)> {
    let kinds = collector.collect();
    let of = |name: &str| kinds.iter().find(|family| family.name() == name);
    let descriptions = collector.desc().into_iter();
    let families = descriptions.filter_map(|desc| {
        let constant = desc.const_label_pairs.iter().map(|l| l.name().to_owned());
        let mut labels: Vec<String> = constant.chain(desc.variable_labels.clone()).collect();
        labels.sort_unstable();
        let family = Family {
            name: desc.fq_name.clone(),
            kind: kind_of(of(&desc.fq_name)?.get_field_type()),
            labels,
            help: desc.help.clone(),
        };
        Some((family.name.clone(), family))
    });
    families.collect()
}

fn kind_of(kind: MetricType) -> &'static str {
    match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

/// Shows until when our certificate is valid. One that cannot be read has no end, and TLS refuses it anyway.
///
/// # Errors
/// When it is shown already.
pub fn show_certificate(registry: &Registry, tls: &TlsPem) -> Result<(), prometheus::Error> {
    let ends = IntGauge::new(
        "evenkeel_certificate_expiry_timestamp_seconds",
        "When the certificate that this daemon has loaded ends, seconds since the Unix epoch.",
    )?;
    if let Some(seconds) = tls.ends_at_unix_seconds() {
        ends.set(seconds);
    }
    registry.register(Box::new(ends))
}

/// A registry with `evenkeel_build_info{component,version}` and the process's own figures.
///
/// # Errors
/// Never in practice: the names are constants and the registry is new.
pub fn registry(component: &str, version: &str) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process))?;
    let opts = Opts::new(
        "evenkeel_build_info",
        "Version of the running daemon; always 1.",
    );
    let info = IntGaugeVec::new(opts, &["component", "version"])?;
    info.with_label_values(&[component, version]).set(1);
    registry.register(Box::new(info))?;
    Ok(registry)
}

/// Serves `registry` at `address` until `stop`.
///
/// # Errors
/// When the address cannot be bound or the server fails.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    ready: Readiness,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state((registry, ready));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, app)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn exposition(State((registry, _)): State<(Registry, Readiness)>) -> impl IntoResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string().into_bytes(),
        ),
    }
}

async fn readiness(State((_, ready)): State<(Registry, Readiness)>) -> impl IntoResponse {
    if ready.get() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_registry_tells_the_build() {
        let registry = registry("agent", "1.2.3").unwrap();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(r#"evenkeel_build_info{component="agent",version="1.2.3"} 1"#));
    }

    #[test]
    fn what_has_no_value_yet_is_described() {
        let registry = Registry::new();
        let opts = Opts::new("x_total", "Xs.").const_label("host", "h1");
        let counters = prometheus::IntCounterVec::new(opts, &["reason", "kind"]).unwrap();
        registry.register(Box::new(counters.clone())).unwrap();
        assert!(registry.gather().is_empty());
        let expected = Family {
            name: "x_total".to_owned(),
            kind: "counter",
            labels: ["host", "kind", "reason"].map(str::to_owned).to_vec(),
            help: "Xs.".to_owned(),
        };
        assert_eq!(registry.families(), [expected]);
        assert!(registry.register(Box::new(counters)).is_err());
        assert_eq!(registry.families().len(), 1);
    }

    #[test]
    fn a_certificate_that_is_none_has_no_end() {
        let registry = Registry::new();
        let none = TlsPem {
            ca: vec![],
            certificate: b"none".to_vec(),
            key: vec![],
        };
        show_certificate(&registry, &none).unwrap();
        assert_eq!(
            registry.gather()[0].get_metric()[0].get_gauge().get_value(),
            0.0
        );
    }
}
