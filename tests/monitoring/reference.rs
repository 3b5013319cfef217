//! docs/reference/metrics.md is made of what the daemons register. Stale? Run this with EVENKEEL_BLESS=1.

use std::fmt::Write as _;

use evenkeel_daemon::metrics::Family;
use evenkeel_tests::lab::repository;

use crate::catalogue;

const PAGE: &str = "docs/reference/metrics.md";
const HEAD: &str = "\
# Metrics

<!-- Made by the tests from what the daemons register. To renew it:
     EVENKEEL_BLESS=1 cargo test -p evenkeel-tests --test monitoring reference -->

Agents show them on port 9641, schedulers on 9640, at `/metrics`; `/healthz` and `/readyz` are there, too. [monitoring.md](../monitoring.md)
says how to scrape them. Every scheduler shows the whole fleet as it sees it, so take series of schedulers together over
`instance`, or take the leader's, as the recording rules do. Labels are bounded: hosts, libvirt's names of guests (label `domain`, on
agents only; `[metrics] domains = false` in `agent.toml` switches those series off), rules of the policy, and closed sets. A
histogram `X` has series `X_bucket`, `X_sum` and `X_count`. Counters start when their daemon does.
";

/// What a metric is measured in, by its name.
fn unit(family: &Family) -> &'static str {
    let name = family.name.trim_end_matches("_total");
    let ends = |end: &str| name.ends_with(end);
    if ends("_timestamp_seconds") {
        "s since 1970"
    } else if ends("_guest_seconds_per_second") {
        "guest-seconds/s"
    } else if ends("_bytes_per_second") {
        "bytes/s"
    } else if ends("_seconds") {
        "s"
    } else if ends("_bytes") {
        "bytes"
    } else if ends("_ratio") {
        "ratio"
    } else {
        "number"
    }
}

fn table(page: &mut String, title: &str, families: &[Family]) {
    write!(
        page,
        "\n## {title}\n\n| metric | type | unit | labels | tells |\n|---|---|---|---|---|\n"
    )
    .unwrap();
    for family in families {
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            family.name,
            family.kind,
            unit(family),
            labels.join(" "),
            family.help
        )
        .unwrap();
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let (agent, scheduler) = (catalogue::agent(), catalogue::scheduler());
    let both: Vec<Family> = agent
        .iter()
        .filter(|f| scheduler.contains(f))
        .cloned()
        .collect();
    let without = |all: &[Family]| -> Vec<Family> {
        all.iter().filter(|f| !both.contains(f)).cloned().collect()
    };
    let mut page = HEAD.to_owned();
    table(&mut page, "Every daemon", &both);
    table(&mut page, "Agents", &without(&agent));
    table(&mut page, "Schedulers", &without(&scheduler));
    let file = repository().join(PAGE);
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "{PAGE} is stale; run with EVENKEEL_BLESS=1"
    );
}

#[test]
fn names_and_labels_keep_the_conventions() {
    for family in catalogue::agent().iter().chain(&catalogue::scheduler()) {
        let Family {
            name,
            kind,
            labels,
            help,
        } = family;
        if name.starts_with("process_") {
            continue; // named by their library
        }
        assert!(name.starts_with("evenkeel_"), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            *kind == "counter",
            "{name}: {kind}"
        );
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help:?}");
        let known = ["domain", "uuid", "movable"];
        let of_agents = catalogue::agent().contains(family);
        for label in labels {
            // `cluster` is a site's own target label; ids are no labels of a scheduler's.
            assert!(
                label != "cluster" && label != "job" && label != "instance",
                "{name}"
            );
            assert!(
                of_agents || !known.contains(&label.as_str()),
                "{name}: {label}"
            );
        }
    }
}
