//! Bad policy files, each with what operators are told: the place, the cause and what would be right.
//!
//! A new kind of fault gets a file in `policy-faults`; the answers are snapshots.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::path::{Path, PathBuf};

use evenkeel_planner::Policy;
use evenkeel_planner::policy::{Fault, PolicyCheck};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

fn faults_of(bytes: &[u8]) -> Vec<Fault> {
    match Policy::text_of(bytes) {
        Ok(text) => Policy::check(text).faults,
        Err(error) => error.faults,
    }
}

/// What is shown of faults, after a look at each of them.
fn told(name: &str, faults: &[Fault], bytes: &[u8]) -> String {
    let lines = bytes.split(|&b| b == b'\n').count();
    for fault in faults {
        assert!((1..=lines).contains(&fault.line), "{name}: {fault:?}");
        assert!(fault.column >= 1 && fault.width >= 1, "{name}: {fault:?}");
        assert!(
            !fault.message.is_empty() && !fault.hint.is_empty(),
            "{name}: {fault:?}"
        );
    }
    let shown: Vec<String> = faults.iter().map(Fault::to_string).collect();
    shown.join("\n")
}

#[test]
fn every_bad_file_gets_a_place_a_cause_and_a_suggestion() {
    let files = files("tests/policy-faults");
    assert!(files.len() >= 100, "{} files", files.len());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&file).unwrap();
        let faults = faults_of(&bytes);
        assert!(!faults.is_empty(), "{name} is sound");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.as_str(), told(&name, &faults, &bytes));
        });
    }
}

#[test]
fn questionable_files_are_sound_but_get_advice() {
    for file in files("tests/policy-warnings") {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let PolicyCheck {
            policy,
            faults,
            warnings,
        } = Policy::check(&text);
        assert!(policy.is_some() && faults.is_empty(), "{name}: {faults:?}");
        assert!(!warnings.is_empty(), "{name} gets no advice");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            let told = told(&name, &warnings, text.as_bytes());
            insta::assert_snapshot!(format!("warning-{name}"), told);
        });
    }
}

#[test]
fn sound_files_get_neither() {
    let page = "schema = 1\r\nmode = \"observe\"\r\n\r\n[limits]\r\nmemory_overcommit = 1.0\r\n";
    let pins = "schema = 1\n[pin.a]\nguests = [\"a-*\"]\nhosts = [\"h1\"]\nstrength = \"must\"\n\
                [pin.b]\nguests = [\"b-*\"]\nhosts = [\"h2\"]\nstrength = \"must\"\n\
                [pin.c]\nguests = [\"a-1\"]\nhosts = [\"h?\"]\nstrength = \"must\"\n";
    for text in ["", "# nothing\n", "\u{feff}schema = 1\n", page, pins] {
        let check = Policy::check(text);
        assert_eq!((check.faults, check.warnings), (vec![], vec![]), "{text}");
    }
}

#[test]
fn monstrous_texts_get_a_short_answer() {
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("mode = \"{}\"", "x".repeat(500_000));
    let long = "# a comment\n".repeat(100_000);
    let rule = |at: usize| {
        format!(
            "[pin.p{at}]\nguests = [\"a{at}-*\", \"*-b{at}\"]\nhosts = [\"h{at}\"]\nstrength = \"must\"\n"
        )
    };
    let many: String = (0..3_000).map(rule).collect();
    for (name, text) in [
        ("deep", deep),
        ("wide", wide),
        ("long", long),
        ("many", many),
    ] {
        let check = Policy::check(&text);
        if name == "many" {
            assert!(check.policy.is_some(), "{:?}", check.faults.first());
            assert_eq!(check.warnings.len(), 101);
            continue;
        }
        let shown = told(name, &check.faults, text.as_bytes());
        assert!((1..1_000).contains(&shown.len()), "{name}: {}", shown.len());
    }
}

#[test]
fn both_contradicting_rules_are_named_with_their_places() {
    for file in files("tests/policy-faults") {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("conflict-") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let tables: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
        let fault = Policy::check(&text).faults.pop().unwrap();
        let mut places: Vec<&str> = fault
            .related
            .iter()
            .map(|r| r.source_line.as_str())
            .collect();
        places.push(&fault.source_line);
        assert_eq!(places, tables, "{name}: {fault}");
        for table in tables {
            assert!(
                fault.message.contains(table.trim_matches(['[', ']'])),
                "{name}: {fault}"
            );
        }
    }
}
