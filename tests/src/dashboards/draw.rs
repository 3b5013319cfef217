//! From a dashboard's source to Grafana's classic JSON.

use serde_json::{Value, json};

/// Columns of a dashboard.
const COLUMNS: u32 = 24;
/// The version of the format.
pub const SCHEMA_VERSION: u64 = 39;

/// A dashboard as it is written down.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Name of its file, and in links.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What can be chosen, beside the data source: name and query.
    pub variables: Vec<(&'static str, &'static str)>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// A row of panels.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its heading.
    pub title: &'static str,
    /// Of its panels, in Grafana's units.
    pub height: u32,
    /// From left to right; their widths sum up to 24 or less.
    pub panels: Vec<Panel>,
}

/// How a panel shows its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One number a series.
    Stat,
    /// One word a series: the legend of those that there are.
    Name,
    /// Lines.
    Lines,
    /// Bars of states over time.
    States,
}

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    kind: Kind,
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    width: u32,
    queries: Vec<(String, &'static str)>,
    steps: Vec<(f64, &'static str)>,
    words: Vec<(&'static str, &'static str, &'static str)>,
}

impl Panel {
    /// A panel without queries, a quarter of the width.
    #[must_use]
    pub fn new(kind: Kind, title: &'static str, description: &'static str) -> Self {
        Self {
            kind,
            title,
            description,
            unit: "short",
            width: COLUMNS / 4,
            queries: vec![],
            steps: vec![],
            words: vec![],
        }
    }

    /// Grafana's name of the unit.
    #[must_use]
    pub fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Columns, of 24.
    #[must_use]
    pub fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// One more query; `legend` has `{{label}}`s.
    #[must_use]
    pub fn query(mut self, expr: &str, legend: &'static str) -> Self {
        self.queries.push((expr.to_owned(), legend));
        self
    }

    /// One more threshold: from this value on it is of that colour. Below the first it is green.
    #[must_use]
    pub fn from(mut self, value: f64, colour: &'static str) -> Self {
        self.steps.push((value, colour));
        self
    }

    /// A value that is shown as a word.
    #[must_use]
    pub fn word(mut self, value: &'static str, text: &'static str, colour: &'static str) -> Self {
        self.words.push((value, text, colour));
        self
    }

    fn draw(&self, id: u64, (x, y, height): (u32, u32, u32)) -> Value {
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..='Z')
            .map(|((expr, legend), letter)| {
                json!({
                    "datasource": datasource(),
                    "editorMode": "code",
                    "expr": expr,
                    "legendFormat": legend,
                    "range": true,
                    "refId": letter.to_string(),
                })
            })
            .collect();
        let (kind, options) = self.options();
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": height},
            "targets": targets,
            "fieldConfig": {"defaults": self.defaults(), "overrides": []},
            "options": options,
        })
    }

    fn options(&self) -> (&'static str, Value) {
        let reduce = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        let stat = |text_mode: &str| {
            json!({
                "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
                "reduceOptions": reduce, "textMode": text_mode,
            })
        };
        match self.kind {
            Kind::Stat => ("stat", stat("auto")),
            Kind::Name => ("stat", stat("name")),
            Kind::Lines => (
                "timeseries",
                json!({
                    "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": true},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }),
            ),
            Kind::States => (
                "state-timeline",
                json!({
                    "alignValue": "left", "mergeValues": true, "rowHeight": 0.9, "showValue": "auto",
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                    "tooltip": {"mode": "single", "sort": "none"},
                }),
            ),
        }
    }

    fn defaults(&self) -> Value {
        let mut steps = vec![json!({"color": "green", "value": null})];
        let more = self.steps.iter();
        steps.extend(more.map(|(value, colour)| json!({"color": colour, "value": value})));
        let words: serde_json::Map<String, Value> = self
            .words
            .iter()
            .zip(0..)
            .map(|((value, text, colour), index)| {
                let shown = json!({"text": text, "color": colour, "index": index});
                ((*value).to_owned(), shown)
            })
            .collect();
        let mappings = if words.is_empty() {
            json!([])
        } else {
            json!([{"type": "value", "options": words}])
        };
        let by_value = self.kind != Kind::Lines;
        let custom = match self.kind {
            Kind::Lines => {
                json!({"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false})
            }
            Kind::States => json!({"fillOpacity": 80, "lineWidth": 0}),
            Kind::Stat | Kind::Name => json!({}),
        };
        json!({
            "unit": self.unit,
            "color": {"mode": if by_value { "thresholds" } else { "palette-classic" }},
            "thresholds": {"mode": "absolute", "steps": steps},
            "mappings": mappings,
            "custom": custom,
        })
    }
}

fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Dashboard {
    /// Grafana's JSON.
    #[must_use]
    pub fn draw(&self) -> Value {
        let (mut panels, mut y, mut id) = (vec![], 0, 1_u64);
        for row in &self.rows {
            panels.push(json!({
                "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }));
            (y, id) = (y + 1, id + 1);
            let mut x = 0;
            for panel in &row.panels {
                panels.push(panel.draw(id, (x, y, row.height)));
                (x, id) = (x + panel.width, id + 1);
            }
            y += row.height;
        }
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["evenkeel"],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": []},
            "links": [{
                "type": "dashboards", "title": "Evenkeel", "tags": ["evenkeel"], "asDropdown": true,
                "includeVars": false, "keepTime": true, "targetBlank": false, "icon": "external link", "url": "", "tooltip": "",
            }],
            "templating": {"list": self.templating()},
            "panels": panels,
        })
    }

    fn templating(&self) -> Vec<Value> {
        let source = json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "hide": 0, "includeAll": false, "multi": false, "refresh": 1, "regex": "", "options": [], "current": {},
        });
        let chosen = self.variables.iter().map(|(name, query)| {
            json!({
                "name": name, "label": name, "type": "query", "datasource": datasource(),
                "query": {"query": query, "refId": "variable"}, "definition": query,
                "hide": 0, "includeAll": true, "multi": true, "refresh": 2, "sort": 1, "regex": "", "options": [],
                "current": {"text": ["All"], "value": ["$__all"]},
            })
        });
        std::iter::once(source).chain(chosen).collect()
    }

    /// The text of its file.
    #[must_use]
    pub fn text(&self) -> String {
        let drawn = serde_json::to_string_pretty(&self.draw());
        drawn.unwrap_or_default() + "\n"
    }
}
