//! What metrics say, by the leader itself and by the lab's Prometheus.

use evenkeel_tests::{Lab, wait_for};
use serde_json::Value;

use crate::SOON;

/// A series as the leader shows it, `name` or `name{label="value"}`; empty: it shows none.
pub(crate) fn metric(lab: &Lab, series: &str) -> String {
    let leader = lab.some_leader();
    let number: u8 = leader[1..].parse().expect("a scheduler: s1, s2 …");
    let text = lab.http_get(&format!("10.90.0.{}:9640", 1 + number), "/metrics");
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{series} ")));
    line.and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
        .to_owned()
}

/// Waits until a query has that value: Prometheus is a scrape behind, or misses one.
pub(crate) fn becomes(lab: &Lab, query: &str, expected: f64) {
    wait_for(&format!("{query} to be {expected}"), SOON, || {
        let result = result(lab, query);
        let value: f64 = result.first()?["value"][1].as_str()?.parse().ok()?;
        ((value - expected).abs() < 1e-9).then_some(())
    });
}

/// The series that a query gives now.
pub(crate) fn result(lab: &Lab, query: &str) -> Vec<Value> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let told = lab.http_get("10.90.0.1:9090", &format!("/api/v1/query?query={encoded}"));
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    assert_eq!(told["status"], "success", "{query}: {told}");
    told["data"]["result"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}
