//! The policy text: what is read, and how each fault is told.

use std::time::Duration;

use evenkeel_planner::policy::{LocalDisks, RuleKind, Strategy};
use evenkeel_planner::{Mode, Policy, Strength};

const FULL: &str = r#"
schema = 1
mode = "automatic"          # comment that stays
strategy = "spread"
aggressiveness = 4

[limits]
migrations_per_host = 3
migrations_per_cluster = 16
migrations_per_link = 4
link_label = "row"
memory_overcommit = 1.5
max_guests_per_host = 40
reserve_host_failures = 1

[control]
cycle = "20s"
hold = "2m"
cooldown = "1h30m"

[migration]
downtime_limit = "500ms"
bandwidth_limit_mib_s = 800
auto_converge = false
local_disks = "copy"
connections = 4
tls = true
allow_older_target = true

[price]
migration_guest_seconds = 30

[anti_affinity.db]
guest_labels = {app = "db"}
over = "rack"
strength = "must"

[affinity.app]
guests = ["app-1", "cache-1"]
strength = "should"

[pin.licence]
guests = ["ora-*"]
host_labels = {licence = "oracle"}
strength = "must"
"#;

#[test]
fn every_key_is_read() {
    let policy = Policy::parse(FULL).unwrap();
    assert_eq!(
        (policy.mode, policy.strategy, policy.aggressiveness),
        (Mode::Automatic, Strategy::Spread, 4)
    );
    assert_eq!(
        (
            policy.limits.migrations_per_host,
            policy.limits.reserve_host_failures
        ),
        (3, 1)
    );
    assert_eq!(
        (
            policy.limits.migrations_per_link,
            policy.limits.link_label.as_str()
        ),
        (4, "row")
    );
    assert_eq!(policy.control.cooldown, Duration::from_secs(5400));
    assert_eq!(policy.control.window, Duration::from_secs(300));
    assert!(!policy.migration.auto_converge);
    assert_eq!(policy.migration.local_disks, LocalDisks::Copy);
    assert_eq!(policy.migration.connections, 4);
    assert!(policy.migration.tls && policy.migration.allow_older_target);
    assert!((policy.migration.bandwidth_limit_mib_s - 800.0).abs() < 1e-9);
    assert!((policy.price.migration_guest_seconds - 30.0).abs() < 1e-9);
    let names: Vec<String> = policy
        .rules
        .iter()
        .map(evenkeel_planner::policy::Rule::full_name)
        .collect();
    assert_eq!(names, ["affinity.app", "anti_affinity.db", "pin.licence"]);
    assert_eq!(
        policy.rules[1].kind,
        RuleKind::AntiAffinity {
            over: Some("rack".into())
        }
    );
    assert_eq!(
        (policy.rules[1].strength, policy.rules[1].line),
        (Strength::Must, 33)
    );
}

#[test]
fn an_empty_text_is_the_default_policy() {
    assert_eq!(Policy::parse(""), Ok(Policy::default()));
    assert_eq!(Policy::parse("schema = 1\n"), Ok(Policy::default()));
}

#[test]
fn a_change_of_mode_keeps_the_rest_of_the_text() {
    let changed = Policy::with_mode(FULL, Mode::Off);
    assert_eq!(changed, FULL.replace("\"automatic\"", "\"off\""));
    for text in [
        "",
        "schema = 1\n",
        "# why\n\n[limits]\nmigrations_per_host = 1\n",
        "schema = 1 # one",
        "aggressiveness = 2",
    ] {
        let changed = Policy::with_mode(text, Mode::Automatic);
        let read = Policy::parse(&changed).unwrap_or_else(|e| panic!("{changed}\n{e}"));
        assert_eq!(
            read,
            Policy {
                mode: Mode::Automatic,
                ..Policy::parse(text).unwrap()
            },
            "{changed}"
        );
    }
}

/// Each bad text with the position and the words that its fault must have.
const BAD: &[(&str, usize, usize, &[&str])] = &[
    (
        "mod = \"off\"",
        1,
        1,
        &["unknown key \"mod\"", "did you mean \"mode\"?"],
    ),
    (
        "mode = \"auto\"",
        1,
        8,
        &["none of observe, automatic, off"],
    ),
    (
        "mode = \"automtic\"",
        1,
        8,
        &["did you mean \"automatic\"?"],
    ),
    ("mode = 3", 1, 8, &["expected one of observe"]),
    (
        "strategy = \"balance\"",
        1,
        12,
        &["none of contention, spread, consolidate"],
    ),
    (
        "aggressiveness = 9",
        1,
        18,
        &["9 is out of range", "from 1 to 5"],
    ),
    ("aggressiveness = 2.5", 1, 18, &["whole number", "float"]),
    ("aggressiveness = \"3\"", 1, 18, &["whole number", "string"]),
    ("schema = 2", 1, 10, &["schema 2 is newer"]),
    ("schema = 0", 1, 10, &["there is no schema 0"]),
    ("limits = 3", 1, 10, &["expected a table: [limits]"]),
    (
        "[limit]\n",
        1,
        2,
        &["unknown table \"limit\"", "did you mean \"limits\"?"],
    ),
    (
        "[limits]\nmigration_per_host = 2",
        2,
        1,
        &["in [limits]", "did you mean \"migrations_per_host\"?"],
    ),
    (
        "[limits]\nmigrations_per_host = 0",
        2,
        23,
        &["out of range"],
    ),
    (
        "[limits]\nmigrations_per_host = -1",
        2,
        23,
        &["-1 is out of range"],
    ),
    ("[limits]\nmemory_overcommit = 0", 2, 21, &["out of range"]),
    (
        "[limits]\nmemory_overcommit = nan",
        2,
        21,
        &["nan is out of range"],
    ),
    (
        "[limits]\nmemory_overcommit = \"150%\"",
        2,
        21,
        &["expected a number"],
    ),
    (
        "[control]\nhold = 60",
        2,
        8,
        &["needs a unit", "did you mean \"60s\"?"],
    ),
    (
        "[control]\nhold = \"60\"",
        2,
        8,
        &["the unit is missing", "did you mean \"60s\"?"],
    ),
    (
        "[control]\nhold = \"5 min\"",
        2,
        8,
        &["did you mean \"5m\"?"],
    ),
    ("[control]\ncycle = \"10ms\"", 2, 9, &["too short"]),
    ("[control]\ncooldown = \"soon\"", 2, 12, &["not a duration"]),
    (
        "[migration]\nauto_converge = \"yes\"",
        2,
        17,
        &["true or false"],
    ),
    (
        "[migration]\nlocal_disks = \"leave\"",
        2,
        15,
        &["none of stay, copy"],
    ),
    ("[migration]\nconnections = 0", 2, 15, &["out of range"]),
    (
        "[migration]\ncompression = \"zstd\"",
        2,
        15,
        &["none of none, xbzrle, mt"],
    ),
    (
        "[migration]\nconnections = 2\npost_copy = true",
        2,
        1,
        &["connections together with post_copy"],
    ),
    (
        "[migration]\nconnections = 2\ncompression = \"mt\"",
        3,
        1,
        &["compression together with connections above 1"],
    ),
    (
        "[migration]\nzero_copy = true",
        2,
        1,
        &["unknown key \"zero_copy\"", "known here"],
    ),
    (
        "[price]\nmigration_guest_seconds = 0",
        2,
        27,
        &["out of range"],
    ),
    (
        "[affinity]\nguests = [\"a\"]",
        2,
        1,
        &["not a rule's table", "[affinity.NAME]"],
    ),
    ("[affinity.x]\nguests = [\"a\"]", 1, 11, &["how strong"]),
    (
        "[affinity.x]\nstrength = \"must\"",
        1,
        11,
        &["which guests"],
    ),
    (
        "[affinity.x]\nguests = \"a\"\nstrength = \"must\"",
        2,
        10,
        &["did you mean [\"a\"]?"],
    ),
    (
        "[affinity.x]\nguests = []\nstrength = \"must\"",
        2,
        10,
        &["the list is empty"],
    ),
    (
        "[affinity.x]\nguests = [\"a\", 3]\nstrength = \"must\"",
        2,
        16,
        &["expected a name"],
    ),
    (
        "[affinity.x]\nguests = [\"a\"]\nstrength = \"hard\"",
        3,
        12,
        &["none of must, should"],
    ),
    (
        "[affinity.x]\nguests = [\"a\"]\nover = \"rack\"\nstrength = \"must\"",
        3,
        1,
        &["unknown key \"over\""],
    ),
    (
        "[pin.x]\nguests = [\"a\"]\nstrength = \"must\"",
        1,
        6,
        &["which hosts"],
    ),
    (
        "[pin.x]\nguests = [\"a\"]\nhost = [\"h\"]\nstrength = \"must\"",
        3,
        1,
        &["did you mean \"hosts\"?"],
    ),
    ("mode = \"off\"\nmode = \"off\"", 2, 1, &["not TOML"]),
    ("mode = off", 1, 8, &["not TOML"]),
    ("[limits\n", 1, 8, &["not TOML"]),
];

#[test]
fn each_fault_has_a_place_a_cause_and_a_suggestion() {
    for (text, line, column, words) in BAD {
        let error = Policy::parse(text).expect_err(text);
        let shown = error.to_string();
        let fault = &error.faults[0];
        assert_eq!(
            (fault.line, fault.column),
            (*line, *column),
            "{text}\n{shown}"
        );
        for word in *words {
            assert!(shown.contains(word), "{word:?} is missing in\n{shown}");
        }
        assert!(
            shown.starts_with(&format!("policy:{line}:{column}: ")),
            "{shown}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let error = Policy::parse("mod = 1\naggressiveness = 0\n[control]\nhold = 3\n").unwrap_err();
    let lines: Vec<usize> = error.faults.iter().map(|f| f.line).collect();
    assert_eq!(lines, [1, 2, 4]);
}

#[test]
fn a_fault_is_shown_below_its_text() {
    let error = Policy::parse("[limits]\n  memory_overcomit = 2.0\n").unwrap_err();
    let expected = "policy:2:3: unknown key \"memory_overcomit\" in [limits]\n \
                    2 |   memory_overcomit = 2.0\n   |   ^^^^^^^^^^^^^^^^\n   \
                    = help: did you mean \"memory_overcommit\"?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn contradicting_must_rules_are_both_named() {
    let both = "[affinity.app]\nguests = [\"a\", \"b\"]\nstrength = \"must\"\n\n\
                [anti_affinity.ha]\nguests = [\"a\", \"b\", \"c\"]\nstrength = \"must\"\n";
    let error = Policy::parse(both).unwrap_err();
    assert_eq!(error.faults[0].line, 5);
    assert!(
        error.faults[0]
            .message
            .contains("anti_affinity.ha contradicts affinity.app (line 1)"),
        "{error}"
    );
    assert!(Policy::parse(&both.replacen("must", "should", 1)).is_ok());
    let pins = "[pin.x]\nguests = [\"a\"]\nhosts = [\"h1\"]\nstrength = \"must\"\n\
                [pin.y]\nguests = [\"a\"]\nhosts = [\"h2\"]\nstrength = \"must\"\n";
    let error = Policy::parse(pins).unwrap_err().to_string();
    assert!(error.contains("pin.y contradicts pin.x"), "{error}");
}
