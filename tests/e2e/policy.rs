//! The life of a policy: what was applied is seen at once whichever scheduler is asked, and can be had back.

use evenkeel_tests::{Lab, LabOptions};

use crate::ends_with;

/// Every scheduler's address.
const SCHEDULERS: [&str; 3] = [
    "https://10.90.0.2:7440",
    "https://10.90.0.3:7440",
    "https://10.90.0.4:7440",
];

fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.path(std::path::Path::new(name));
    std::fs::write(&path, text).expect("a policy file");
    path.display().to_string()
}

/// What every scheduler says at once; all must say the same.
fn everywhere(lab: &Lab, words: &[&str]) -> String {
    let mut told = SCHEDULERS
        .iter()
        .map(|address| ends_with(lab, 0, &[words, &["--scheduler", address]].concat()));
    let first = told.next().unwrap_or_default();
    for other in told {
        assert_eq!(other, first, "{words:?}");
    }
    first
}

#[test]
fn what_was_applied_is_known_everywhere_at_once_and_can_be_had_back() {
    let lab = Lab::up(&LabOptions::default());
    drop(lab.some_leader());
    let first = "schema = 1\n\n[limits]\nmigrations_per_host = 1\n";
    let file = write(&lab, "first.toml", first);
    ends_with(
        &lab,
        0,
        &["policy", "apply", &file, "--reason", "carefully"],
    );
    assert_eq!(everywhere(&lab, &["policy", "show"]), first);
    let second = first.replace("= 1\n\n", "= 1\nmode = \"automatic\"\n\n");
    let file = write(&lab, "second.toml", &second);
    let diff = everywhere(&lab, &["policy", "diff", &file]);
    assert!(
        diff.ends_with("+mode = \"automatic\"\n \n [limits]\n migrations_per_host = 1\n"),
        "{diff}"
    );
    // One after the other: no follower lags behind its leader's answer.
    for turn in 0..5 {
        ends_with(&lab, 0, &["policy", "apply", &file]);
        assert_eq!(everywhere(&lab, &["policy", "show"]), second, "{turn}");
        let back = ends_with(&lab, 0, &["policy", "rollback", "1"]);
        assert!(back.contains("from automatic to observe"), "{back}");
        assert_eq!(everywhere(&lab, &["policy", "show"]), first, "{turn}");
    }
    let names = everywhere(&lab, &["policy", "history", "-o", "name"]);
    let expected: Vec<String> = (1..=11).rev().map(|n| n.to_string()).collect();
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), expected);
    let json = everywhere(&lab, &["policy", "history", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    let policies = &json["policies"];
    assert_eq!(policies[0]["active"], true, "{json}");
    assert_eq!(policies[0]["reason"], "rollback to rev 1", "{json}");
    assert_eq!(policies[10]["reason"], "carefully", "{json}");
    assert_eq!(policies[10]["by"], "operator/lab", "{json}");
    ends_with(&lab, 3, &["policy", "rollback", "1", "--if-revision", "5"]);
    ends_with(&lab, 1, &["policy", "rollback", "12"]);
}
