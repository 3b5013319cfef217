//! Rules and runbooks, as far as they can be judged without promtool (that is tests/e2e/alerts.rs).

use std::collections::BTreeSet;

use evenkeel_tests::dashboards::check::{panels, text};
use evenkeel_tests::dashboards::promql::{self, Rule, rules};
use evenkeel_tests::dashboards::shipped as dashboards;
use evenkeel_tests::lab::repository;

use crate::catalogue;

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All rules that are shipped.
pub(crate) fn shipped() -> Vec<Rule> {
    let files = ["evenkeel-rules.yml", "evenkeel-alerts.yml"];
    let texts = files.map(|file| read(&format!("deploy/prometheus/{file}")));
    texts.iter().flat_map(|text| rules(text)).collect()
}

#[test]
fn rule_files_are_read_as_they_are_meant() {
    let text = "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: |\n          a\n          or\n            b\n        \
                for: 5m\n        annotations:\n          runbook_url: docs/A.md\n      - record: r\n        expr: c > 1\n";
    let read = rules(text);
    let expected = [
        ("A", true, "a\nor\nb\n", "docs/A.md"),
        ("r", false, "c > 1", ""),
    ];
    let found: Vec<_> = read
        .iter()
        .map(|r| {
            (
                r.name.as_str(),
                r.is_alert,
                r.expr.as_str(),
                r.runbook.as_str(),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn expressions_name_series_that_there_are() {
    let all = shipped();
    let families = catalogue::agent().into_iter().chain(catalogue::scheduler());
    let recorded = all.iter().filter(|r| !r.is_alert).map(|r| r.name.clone());
    let known: BTreeSet<String> = families.map(|f| f.name).chain(recorded).collect();
    for rule in &all {
        let named = promql::series(&rule.expr);
        assert!(!named.is_empty(), "{}: {:?}", rule.name, rule.expr);
        for series in named {
            assert!(
                known.contains(promql::metric(&series, &known)),
                "{}: {series}",
                rule.name
            );
        }
    }
}

#[test]
fn what_is_recorded_is_read() {
    let all = shipped();
    let of_panels: Vec<String> = dashboards()
        .iter()
        .flat_map(|(_, d)| panels(d).map(|p| p["targets"].clone()).collect::<Vec<_>>())
        .flat_map(|targets| targets.as_array().cloned().unwrap_or_default())
        .map(|target| text(&target, "expr").to_owned())
        .collect();
    let alerts = all.iter().filter(|r| r.is_alert).map(|r| r.expr.clone());
    let used: BTreeSet<String> = of_panels
        .into_iter()
        .chain(alerts)
        .flat_map(|e| promql::series(&e))
        .collect();
    let recorded = all.iter().filter(|r| !r.is_alert);
    let idle: Vec<&str> = recorded
        .map(|r| r.name.as_str())
        .filter(|n| !used.contains(*n))
        .collect();
    assert!(idle.is_empty(), "recorded and never read: {idle:?}");
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let all = shipped();
    let alerts: Vec<&Rule> = all.iter().filter(|r| r.is_alert).collect();
    assert!(alerts.len() >= 20, "{}", alerts.len());
    let mut pages = BTreeSet::new();
    for alert in alerts {
        assert_eq!(alert.runbook, format!("docs/runbooks/{}.md", alert.name));
        assert!(read(&alert.runbook).starts_with(&format!("# {}\n", alert.name)));
        pages.insert(format!("{}.md", alert.name));
    }
    let folder = std::fs::read_dir(repository().join("docs/runbooks")).unwrap();
    let there: BTreeSet<String> = folder
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, pages);
}

/// Series that a runbook names exist, and so do the commands that it tells to give.
#[test]
fn runbooks_name_commands_and_series_that_there_are() {
    use clap::Parser;
    let families = catalogue::agent().into_iter().chain(catalogue::scheduler());
    let known: BTreeSet<String> = families.map(|f| f.name).collect();
    let (mut commands, mut wrong) = (0, vec![]);
    for rule in shipped().iter().filter(|r| r.is_alert) {
        let page = read(&rule.runbook)
            .replace("\n   ", " ")
            .replace("\n  ", " ")
            .replace('\n', " ");
        for code in page.split('`').skip(1).step_by(2) {
            for series in promql::series(code).iter().filter(|s| s.contains('_')) {
                assert!(
                    known.contains(promql::metric(series, &known)),
                    "{}: {series}",
                    rule.name
                );
            }
            let Some(words) = code.strip_prefix("evenkeel ") else {
                continue;
            };
            let words = words.split(" > ").next().unwrap().split_whitespace();
            let given = std::iter::once("evenkeel").chain(words.map(|word| match word {
                "REVISION" => "7", // a number
                other => other,
            }));
            let parsed = evenkeel::args::Cli::try_parse_from(given);
            if let Err(error) = parsed {
                let first = error
                    .to_string()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                wrong.push(format!("{}: {code}: {first}", rule.name));
            }
            commands += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(commands > 40, "{commands}");
}
