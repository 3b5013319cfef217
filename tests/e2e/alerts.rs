//! The alerts that are shipped: sound, tested, each with a page for whoever is woken by it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What whoever is woken looks for, in this order.
const HEADINGS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(name: &str) -> String {
    let path = repository().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Values of a key, in the order of the file.
fn values<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = yaml.lines().map(str::trim_start);
    lines.filter_map(move |line| {
        line.trim_start_matches("- ")
            .strip_prefix(key)?
            .strip_prefix(": ")
    })
}

fn promtool(words: &[&str]) {
    let done = Command::new("promtool")
        .args(words)
        .current_dir(repository().join("deploy/prometheus"))
        .output()
        .expect("promtool, a part of Debian's prometheus");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "promtool {words:?}: {said}");
}

#[test]
fn every_alert_is_sound_tested_and_explained() {
    promtool(&[
        "check",
        "rules",
        "evenkeel-rules.yml",
        "evenkeel-alerts.yml",
    ]);
    promtool(&["test", "rules", "evenkeel-alerts.test.yml"]);
    let (rules, tests) = (
        text("deploy/prometheus/evenkeel-alerts.yml"),
        text("deploy/prometheus/evenkeel-alerts.test.yml"),
    );
    let alerts: Vec<&str> = values(&rules, "alert").collect();
    assert!(!alerts.is_empty());
    let pages: Vec<&str> = values(&rules, "runbook_url").collect();
    let expected: Vec<String> = alerts
        .iter()
        .map(|alert| format!("docs/runbooks/{alert}.md"))
        .collect();
    assert_eq!(pages, expected, "each alert names its own runbook");
    for (alert, page) in alerts.iter().zip(pages) {
        let page = text(page);
        let found: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("## "))
            .collect();
        assert_eq!(found, HEADINGS, "{alert}");
        assert!(page.starts_with(&format!("# {alert}\n")), "{alert}");
        // A case of the tests is the text from its `alertname` to the next one.
        let cases = tests.split("alertname: ").filter_map(|case| {
            let case = case.strip_prefix(alert)?;
            case.starts_with('\n').then_some(case)
        });
        let (silent, firing): (Vec<&str>, Vec<&str>) =
            cases.partition(|case| case.contains("exp_alerts: []"));
        assert!(!silent.is_empty(), "{alert} has no silent case");
        assert!(!firing.is_empty(), "{alert} has no firing case");
    }
}
