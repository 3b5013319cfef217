//! As much of PromQL and of rule files as judging needs: which series an expression names.

use std::collections::BTreeSet;

/// A rule of a rule file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The alert's or the recorded series' name.
    pub name: String,
    /// Whether it is an alert.
    pub is_alert: bool,
    /// Its expression.
    pub expr: String,
    /// Where its runbook is; empty: nowhere.
    pub runbook: String,
}

/// Names of our series (and of the process's own) in an expression.
#[must_use]
pub fn series(expr: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    // What stands between quotes names nothing.
    let outside: String = expr.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    outside
        .split(|c| !is_part(c))
        .filter(|word| word.starts_with("evenkeel") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The metric that a series is a part of: that of a histogram without its suffix.
#[must_use]
pub fn metric<'a>(series: &'a str, known: &BTreeSet<String>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"];
    let mut bases = parts.iter().filter_map(|part| series.strip_suffix(part));
    if known.contains(series) {
        return series;
    }
    bases.find(|base| known.contains(*base)).unwrap_or(series)
}

/// The rules of a file in the form that ours have: one key a line, long expressions as blocks.
#[must_use]
pub fn rules(text: &str) -> Vec<Rule> {
    let mut all: Vec<Rule> = vec![];
    let mut block_below: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if let (Some(column), Some(rule)) = (block_below, all.last_mut())
            && indent > column
        {
            rule.expr.push_str(line);
            rule.expr.push('\n');
            continue;
        }
        block_below = None;
        let value = |key: &str| line.strip_prefix(key).map(|rest| rest.trim().to_owned());
        for (key, is_alert) in [("- alert:", true), ("- record:", false)] {
            if let Some(name) = value(key) {
                all.push(Rule {
                    name,
                    is_alert,
                    ..Rule::default()
                });
            }
        }
        let Some(rule) = all.last_mut() else { continue };
        match value("expr:") {
            Some(block) if block == "|" => block_below = Some(indent),
            Some(expr) => rule.expr = expr,
            None => {}
        }
        if let Some(page) = value("runbook_url:") {
            rule.runbook = page;
        }
    }
    all
}
