//! What is wrong with a dashboard as far as its text shows.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::draw::SCHEMA_VERSION;
use super::promql;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is said by its name")]
pub enum Kind {
    WrongSchemaVersion,
    HardWiredDatasource,
    UndefinedVariable,
    UnusedVariable,
    OverlappingPanels,
    OutsideGrid,
    DuplicateId,
    MissingTitle,
    MissingDescription,
    MissingUnit,
    NoQuery,
    UnknownMetric,
    // What only a Prometheus can tell.
    NoData,
    OnlyNan,
    LegendWithoutLabel,
    QueryRefused,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// Of which panel, or of the dashboard.
    pub place: String,
    /// Details.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}: {}", self.kind, self.place, self.detail)
    }
}

impl Fault {
    pub(super) fn new(kind: Kind, place: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            place: place.to_owned(),
            detail: detail.into(),
        }
    }
}

/// A text field, empty if it is none.
#[must_use]
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Entries of a list field.
pub fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[field].as_array().into_iter().flatten()
}

/// Panels that show something.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").filter(|panel| text(panel, "type") != "row")
}

/// `$name`, `${name}` and `[[name]]` in a text; Grafana's own (`$__…`) are left out.
#[must_use]
pub fn variables_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |mark: &'static str| {
        text.split(mark).skip(1).map(move |rest| {
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            rest[..end].to_owned()
        })
    };
    let all = names("$").chain(names("${")).chain(names("[["));
    all.filter(|name| !name.is_empty() && !name.starts_with("__"))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
        .collect()
}

/// Everything wrong with a dashboard; `known`: metrics and recorded series that there are.
#[must_use]
pub fn faults(dashboard: &Value, known: &BTreeSet<String>) -> Vec<Fault> {
    let name = text(dashboard, "title");
    let mut found = vec![];
    if dashboard["schemaVersion"].as_u64() != Some(SCHEMA_VERSION) {
        let detail = format!("{}, not {SCHEMA_VERSION}", dashboard["schemaVersion"]);
        found.push(Fault::new(Kind::WrongSchemaVersion, name, detail));
    }
    for (field, kind) in [
        ("title", Kind::MissingTitle),
        ("description", Kind::MissingDescription),
    ] {
        if text(dashboard, field).is_empty() {
            found.push(Fault::new(kind, name, field));
        }
    }
    found.extend(variables(dashboard));
    found.extend(sources(dashboard, name));
    found.extend(grid(dashboard));
    found.extend(panels(dashboard).flat_map(|panel| of_panel(panel, known)));
    found
}

/// Texts in which variables are used: expressions, titles, and the queries of other variables.
fn variables(dashboard: &Value) -> Vec<Fault> {
    let name = text(dashboard, "title");
    let templating = || list(&dashboard["templating"], "list");
    let defined: BTreeSet<&str> = templating().map(|v| text(v, "name")).collect();
    let mut used = BTreeSet::new();
    let content = [dashboard["panels"].to_string()].into_iter();
    let queries = templating().map(|v| format!("{}{}", v["query"], v["datasource"]));
    for text in content.chain(queries) {
        used.extend(variables_in(&text));
    }
    let undefined = used.iter().filter(|n| !defined.contains(n.as_str()));
    let undefined = undefined.map(|n| Fault::new(Kind::UndefinedVariable, name, n));
    let unused = defined.iter().filter(|n| !used.contains(**n));
    let unused = unused.map(|n| Fault::new(Kind::UnusedVariable, name, *n));
    undefined.chain(unused).collect()
}

/// Every `datasource` that is named must be the variable's.
fn sources(value: &Value, place: &str) -> Vec<Fault> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, inner)| {
                let place = fields.get("title").and_then(Value::as_str).unwrap_or(place);
                let uid = inner.get("uid").and_then(Value::as_str);
                if key == "datasource" && uid != Some("${datasource}") {
                    let detail = inner.to_string();
                    return vec![Fault::new(Kind::HardWiredDatasource, place, detail)];
                }
                sources(inner, place)
            })
            .collect(),
        Value::Array(entries) => entries.iter().flat_map(|v| sources(v, place)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    }
}

fn grid(dashboard: &Value) -> Vec<Fault> {
    let rectangle = |panel: &Value| -> [u64; 4] {
        ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or(0))
    };
    let all: Vec<&Value> = list(dashboard, "panels").collect();
    let mut found = vec![];
    for (at, panel) in all.iter().enumerate() {
        let [x, y, w, h] = rectangle(panel);
        let title = text(panel, "title");
        if w == 0 || h == 0 || x + w > 24 {
            let detail = panel["gridPos"].to_string();
            found.push(Fault::new(Kind::OutsideGrid, title, detail));
        }
        for other in &all[..at] {
            let [ox, oy, ow, oh] = rectangle(other);
            if x < ox + ow && ox < x + w && y < oy + oh && oy < y + h {
                let detail = text(other, "title");
                found.push(Fault::new(Kind::OverlappingPanels, title, detail));
            }
            if panel["id"] == other["id"] {
                let detail = panel["id"].to_string();
                found.push(Fault::new(Kind::DuplicateId, title, detail));
            }
        }
    }
    found
}

fn of_panel(panel: &Value, known: &BTreeSet<String>) -> Vec<Fault> {
    let title = text(panel, "title");
    let mut found = vec![];
    for (missing, kind) in [
        (title.is_empty(), Kind::MissingTitle),
        (
            text(panel, "description").is_empty(),
            Kind::MissingDescription,
        ),
        (
            text(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
            Kind::MissingUnit,
        ),
        (list(panel, "targets").next().is_none(), Kind::NoQuery),
    ] {
        if missing {
            found.push(Fault::new(kind, title, "nothing"));
        }
    }
    for target in list(panel, "targets") {
        for series in promql::series(text(target, "expr")) {
            if !known.contains(promql::metric(&series, known)) {
                found.push(Fault::new(Kind::UnknownMetric, title, series));
            }
        }
    }
    found
}
