//! What is wrong with a dashboard as a Prometheus answers it.
//!
//! Variables are resolved as Grafana does it, and each query is run over the whole time that is looked at: once for all
//! values of all variables, once for each value of each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{Fault, Kind, list, panels, text};

/// Someone who answers an HTTP GET of Prometheus' API; `path` starts with a slash.
pub trait Ask {
    /// The answer's text.
    fn get(&self, path: &str) -> String;
}

/// The time that is looked at, seconds since the Unix epoch, and the distance of points.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// From.
    pub start: i64,
    /// To.
    pub end: i64,
    /// Seconds between two points.
    pub step: u32,
}

/// A panel that may be empty for single values of variables, and why.
pub type Sparse<'a> = (&'a str, &'a str);

/// A text as part of an address.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Runs all queries of a dashboard.
pub fn faults(ask: &dyn Ask, span: Span, dashboard: &Value, sparse: &[Sparse<'_>]) -> Vec<Fault> {
    let choices = choices(ask, span, dashboard);
    let mut found = vec![];
    for (name, values) in &choices {
        if values.is_empty() {
            let detail = format!("variable {name} has no value");
            found.push(Fault::new(Kind::NoData, text(dashboard, "title"), detail));
        }
    }
    for panel in panels(dashboard) {
        let title = text(panel, "title");
        found.extend(run(ask, span, panel, &all_of(&choices), "All"));
        for (name, values) in &choices {
            let used =
                list(panel, "targets").any(|t| text(t, "expr").contains(&format!("${name}")));
            for value in values.iter().filter(|_| used) {
                let mut chosen = all_of(&choices);
                chosen.insert(name.clone(), value.clone());
                let mut faults = run(ask, span, panel, &chosen, &format!("{name}={value}"));
                if sparse.iter().any(|(panel, _)| *panel == title) {
                    faults.retain(|fault| fault.kind != Kind::NoData);
                }
                found.extend(faults);
            }
        }
    }
    found
}

/// Grafana joins several values to a group.
fn all_of(choices: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, String> {
    let group = |values: &Vec<String>| format!("({})", values.join("|"));
    let all = choices.iter();
    all.map(|(name, values)| (name.clone(), group(values)))
        .collect()
}

fn choices(ask: &dyn Ask, span: Span, dashboard: &Value) -> BTreeMap<String, Vec<String>> {
    let mut chosen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = list(&dashboard["templating"], "list");
    for variable in all.filter(|v| text(v, "type") == "query") {
        let query = text(&variable["query"], "query");
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inner
            .and_then(|inner| inner.rsplit_once(','))
            .expect("label_values(series, label)");
        let series = fill(series, &all_of(&chosen));
        let Span { start, end, .. } = span;
        let path = format!(
            "/api/v1/label/{}/values?start={start}&end={end}&match%5b%5d={}",
            label.trim(),
            encode(&series)
        );
        let told: Value = serde_json::from_str(&ask.get(&path)).unwrap_or_default();
        let values = list(&told, "data").filter_map(Value::as_str);
        let values = values.map(str::to_owned).collect();
        chosen.insert(text(variable, "name").to_owned(), values);
    }
    chosen
}

fn fill(expr: &str, chosen: &BTreeMap<String, String>) -> String {
    let mut filled = expr.replace("$__rate_interval", "20s");
    for (name, value) in chosen {
        filled = filled.replace(&format!("${name}"), value);
    }
    filled
}

fn run(
    ask: &dyn Ask,
    span: Span,
    panel: &Value,
    chosen: &BTreeMap<String, String>,
    choice: &str,
) -> Vec<Fault> {
    let title = text(panel, "title");
    let mut found = vec![];
    for target in list(panel, "targets") {
        let expr = fill(text(target, "expr"), chosen);
        let Span { start, end, step } = span;
        let path = format!(
            "/api/v1/query_range?start={start}&end={end}&step={step}&query={}",
            encode(&expr)
        );
        let told: Value = serde_json::from_str(&ask.get(&path)).unwrap_or_default();
        if told["status"] != "success" {
            let detail = format!("{expr}: {told}");
            found.push(Fault::new(Kind::QueryRefused, title, detail));
            continue;
        }
        let series: Vec<&Value> = list(&told["data"], "result").collect();
        let faults = judge(&series, text(target, "legendFormat")).into_iter();
        let named = faults
            .map(|(kind, detail)| Fault::new(kind, title, format!("{choice}: {expr}: {detail}")));
        found.extend(named);
    }
    found
}

/// What is wrong with an answer: its series as `query_range` gives them, and the legend that is to name them.
#[must_use]
pub fn judge(series: &[&Value], legend: &str) -> Vec<(Kind, String)> {
    if series.is_empty() {
        return vec![(Kind::NoData, "no series".to_owned())];
    }
    let mut found = vec![];
    let mut points = series.iter().flat_map(|one| list(one, "values"));
    let is_number = |point: &Value| {
        let value = point[1].as_str().and_then(|text| text.parse::<f64>().ok());
        value.is_some_and(|value| !value.is_nan())
    };
    if !points.any(is_number) {
        found.push((Kind::OnlyNan, format!("{} series", series.len())));
    }
    let wanted: BTreeSet<&str> = legend
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next())
        .map(str::trim)
        .collect();
    for label in wanted {
        if series.iter().any(|one| one["metric"].get(label).is_none()) {
            found.push((Kind::LegendWithoutLabel, label.to_owned()));
        }
    }
    found
}
