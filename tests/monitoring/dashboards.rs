//! The dashboards are what their source gives, nothing is wrong with them, and the checker finds what is spoilt on purpose.

use std::collections::BTreeSet;

use evenkeel_tests::dashboards::check::{Kind, faults, panels, text, variables_in};
use evenkeel_tests::dashboards::{draw, file, live, promql, shipped, source};
use serde_json::{Value, json};

use crate::{catalogue, rules};

/// Metrics and recorded series that there are.
fn known() -> BTreeSet<String> {
    let families = catalogue::agent().into_iter().chain(catalogue::scheduler());
    let recorded = rules::shipped().into_iter().filter(|r| !r.is_alert);
    families
        .map(|f| f.name)
        .chain(recorded.map(|r| r.name))
        .collect()
}

#[test]
fn the_files_are_what_the_source_gives() {
    let mut names = BTreeSet::new();
    for dashboard in source::all() {
        let (path, drawn) = (file(dashboard.uid), dashboard.text());
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            std::fs::write(&path, &drawn).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            written == drawn,
            "{name} is stale; run with EVENKEEL_BLESS=1"
        );
        names.insert(name);
    }
    let there: BTreeSet<String> = shipped().into_iter().map(|(name, _)| name).collect();
    assert_eq!(there, names, "files without a source");
}

#[test]
fn nothing_is_wrong_with_what_is_shipped() {
    let known = known();
    let all = shipped();
    assert_eq!(all.len(), 5);
    for (name, dashboard) in all {
        let found: Vec<String> = faults(&dashboard, &known)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
        assert!(panels(&dashboard).count() > 4, "{name}");
    }
}

#[test]
fn every_metric_is_shown_by_a_dashboard_or_an_alert() {
    let known = known();
    let all = shipped();
    let of_panels = all.iter().flat_map(|(_, d)| panels(d)).flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets
            .iter()
            .map(|t| text(t, "expr").to_owned())
            .collect::<Vec<_>>()
    });
    let of_rules = rules::shipped().into_iter().map(|rule| rule.expr);
    let used: BTreeSet<String> = of_panels
        .chain(of_rules)
        .flat_map(|expr| promql::series(&expr))
        .map(|series| promql::metric(&series, &known).to_owned())
        .collect();
    let unseen: Vec<&String> = known.difference(&used).collect();
    assert!(unseen.is_empty(), "shown nowhere: {unseen:?}");
}

/// A small dashboard with which nothing is wrong.
fn good() -> Value {
    let panel = |kind| {
        draw::Panel::new(kind, "Loss", "What is lost.")
            .unit("s")
            .width(12)
            .query(r#"evenkeel_agent_info{host=~"$host"}"#, "{{host}}")
    };
    let row = draw::Row {
        title: "Row",
        height: 5,
        panels: vec![panel(draw::Kind::Lines), panel(draw::Kind::Stat)],
    };
    let dashboard = draw::Dashboard {
        uid: "good",
        title: "Good",
        description: "Good.",
        variables: vec![("host", "label_values(evenkeel_agent_info, host)")],
        rows: vec![row],
    };
    dashboard.draw()
}

fn kinds(dashboard: &Value) -> BTreeSet<Kind> {
    let known = BTreeSet::from(["evenkeel_agent_info".to_owned()]);
    faults(dashboard, &known).iter().map(|f| f.kind).collect()
}

/// Spoils the good dashboard; exactly this kind of fault must be found.
fn check(expected: Kind, spoil: impl Fn(&mut Value)) {
    let mut dashboard = good();
    spoil(&mut dashboard);
    assert_eq!(kinds(&dashboard), BTreeSet::from([expected]));
}

#[test]
fn planted_faults_are_found_by_name() {
    assert_eq!(kinds(&good()), BTreeSet::new());
    check(Kind::WrongSchemaVersion, |d| d["schemaVersion"] = json!(38));
    check(Kind::HardWiredDatasource, |d| {
        d["panels"][1]["targets"][0]["datasource"]["uid"] = json!("PBFA97CFB590B2093");
    });
    check(Kind::HardWiredDatasource, |d| {
        d["panels"][1]["datasource"] = json!("Prometheus");
    });
    check(Kind::UndefinedVariable, |d| {
        d["panels"][1]["targets"][0]["expr"] = json!(r#"evenkeel_agent_info{host=~"${hots}"}"#);
    });
    check(Kind::UnusedVariable, |d| {
        let list = d["templating"]["list"].as_array_mut().unwrap();
        let mut more = list[1].clone();
        more["name"] = json!("domain");
        list.push(more);
    });
    check(Kind::OverlappingPanels, |d| {
        d["panels"][2]["gridPos"]["x"] = json!(11);
    });
    check(Kind::OutsideGrid, |d| {
        d["panels"][2]["gridPos"]["w"] = json!(13);
    });
    check(Kind::DuplicateId, |d| d["panels"][2]["id"] = json!(2));
    check(Kind::MissingTitle, |d| d["panels"][1]["title"] = json!(""));
    check(Kind::MissingDescription, |d| {
        d["panels"][1]
            .as_object_mut()
            .unwrap()
            .remove("description");
    });
    check(Kind::MissingUnit, |d| {
        d["panels"][1]["fieldConfig"]["defaults"]["unit"] = json!("");
    });
    check(Kind::NoQuery, |d| d["panels"][1]["targets"] = json!([]));
    check(Kind::UnknownMetric, |d| {
        d["panels"][1]["targets"][0]["expr"] = json!(r#"evenkeel_agent_inof{host=~"$host"}"#);
    });
}

/// Answers everything with one answer.
struct Canned(Value);

impl live::Ask for Canned {
    fn get(&self, path: &str) -> String {
        if path.starts_with("/api/v1/label/") {
            json!({"status": "success", "data": ["h1", "h2"]}).to_string()
        } else {
            self.0.to_string()
        }
    }
}

fn answered(answer: Value) -> Vec<Kind> {
    let span = live::Span {
        start: 0,
        end: 10,
        step: 5,
    };
    let found = live::faults(&Canned(answer), span, &good(), &[]);
    let mut kinds: Vec<Kind> = found.iter().map(|fault| fault.kind).collect();
    kinds.dedup();
    kinds
}

#[test]
fn answers_that_show_nothing_are_found_by_name() {
    let of = |series: Value| json!({"status": "success", "data": {"result": series}});
    let values = json!([[1, "NaN"], [2, "0.5"]]);
    assert_eq!(
        answered(of(json!([{"metric": {"host": "h1"}, "values": values}]))),
        []
    );
    assert_eq!(answered(of(json!([]))), [Kind::NoData]);
    assert_eq!(
        answered(of(
            json!([{"metric": {"host": "h1"}, "values": [[1, "NaN"]]}])
        )),
        [Kind::OnlyNan]
    );
    assert_eq!(
        answered(of(json!([{"metric": {}, "values": values}]))),
        [Kind::LegendWithoutLabel]
    );
    assert_eq!(answered(json!({"status": "error"})), [Kind::QueryRefused]);
    // Two panels, each for all hosts, for h1 and for h2.
    let span = live::Span {
        start: 0,
        end: 10,
        step: 5,
    };
    assert_eq!(
        live::faults(&Canned(of(json!([]))), span, &good(), &[]).len(),
        6
    );
    let sparse = [("Loss", "only busy hosts have it")];
    let of_all = live::faults(&Canned(of(json!([]))), span, &good(), &sparse);
    assert_eq!(
        of_all.len(),
        2,
        "for all of them there must be data: {of_all:?}"
    );
}

#[test]
fn variables_are_told_from_grafanas_own_words() {
    let found = variables_in(
        r#"rate(x{a=~"$host",b="${domain:regex}",c="[[job]]"}[$__rate_interval]) 5$ {{host}}"#,
    );
    let expected = ["domain", "host", "job"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected));
}
