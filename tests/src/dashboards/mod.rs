//! The dashboards that are shipped: their source, from which the JSON in `deploy/grafana/dashboards` is made, and a checker
//! that knows nothing of the source.
//!
//! ```text
//!  source::all ──▶ draw ──▶ deploy/grafana/dashboards/*.json ──▶ check   what can be seen in the text
//!                                                           └──▶ live    what a Prometheus answers
//! ```

pub mod check;
pub mod draw;
pub mod live;
pub mod promql;
pub mod source;

use std::path::PathBuf;

use serde_json::Value;

use crate::lab::repository;

/// The file of a dashboard.
#[must_use]
pub fn file(uid: &str) -> PathBuf {
    repository().join(format!("deploy/grafana/dashboards/{uid}.json"))
}

/// Every dashboard in the repository, by its file's name.
#[must_use]
pub fn shipped() -> Vec<(String, Value)> {
    let folder = repository().join("deploy/grafana/dashboards");
    let entries = std::fs::read_dir(&folder).expect("the dashboards' folder");
    let mut all: Vec<(String, Value)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a dashboard");
            let parsed = serde_json::from_str(&text);
            let dashboard = parsed.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
            (name.unwrap_or_default(), dashboard)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
