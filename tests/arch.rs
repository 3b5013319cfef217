//! The shape of the workspace: who may import whom, what the pure crates must not touch, where files lie.
//!
//! The dependency graph of our own crates is compared with `arch/dependencies.txt`. A change of that file is
//! a change of the architecture: docs/architecture.md says what it has to respect.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folders of the repository, and no others.
const FOLDERS: [&str; 6] = ["agent", "deploy", "docs", "proto", "scheduler", "tests"];
/// Lines of a source file, tests left out.
const LONGEST_FILE: usize = 600;
/// Crates that decide and never do: nothing with I/O, a clock, entropy or logging below them.
const PURE: [&str; 2] = ["evenkeel-planner", "evenkeel-types"];
/// What gives a crate I/O, time or chance.
const IMPURE: [&str; 12] = [
    "axum",
    "etcd-client",
    "getrandom",
    "hyper",
    "mio",
    "prometheus",
    "rand",
    "rustix",
    "tokio",
    "tonic",
    "tracing",
    "virt",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository's root")
}

fn metadata() -> Value {
    // Of this platform only: of others nothing has been downloaded, and nothing is to be.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let done = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(
        done.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    serde_json::from_slice(&done.stdout).expect("cargo's JSON")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Our crates and which of ours each depends on, development dependencies left out.
fn our_graph(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<&str> = list(metadata, "workspace_members")
        .filter_map(Value::as_str)
        .collect();
    let ours = || list(metadata, "packages").filter(|p| members.contains(text(p, "id")));
    let names: BTreeSet<&str> = ours().map(|package| text(package, "name")).collect();
    ours()
        .map(|package| {
            let dependencies = list(package, "dependencies")
                .filter(|d| text(d, "kind") != "dev")
                .map(|d| text(d, "name"))
                .filter(|name| names.contains(name))
                .map(str::to_owned);
            (text(package, "name").to_owned(), dependencies.collect())
        })
        .collect()
}

/// Everything that a crate is linked with: its normal dependencies and theirs.
fn linked_with(metadata: &Value, crate_name: &str) -> BTreeSet<String> {
    let names: BTreeMap<&str, &str> = list(metadata, "packages")
        .map(|package| (text(package, "id"), text(package, "name")))
        .collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"], "nodes")
        .map(|node| (text(node, "id"), node))
        .collect();
    let mut open: Vec<&str> = names
        .iter()
        .filter(|(_, name)| **name == crate_name)
        .map(|(id, _)| *id)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let dependencies = nodes
            .get(id)
            .into_iter()
            .flat_map(|node| list(node, "deps"));
        for dependency in dependencies {
            let normal = list(dependency, "dep_kinds").any(|kind| kind["kind"].is_null());
            let package = text(dependency, "pkg");
            if normal && seen.insert(package) {
                open.push(package);
            }
        }
    }
    seen.iter().map(|id| names[id].to_owned()).collect()
}

#[test]
fn our_crates_depend_on_one_another_as_agreed() {
    let mut graph = String::new();
    for (name, dependencies) in our_graph(&metadata()) {
        let dependencies: Vec<String> = dependencies.into_iter().collect();
        let line = format!("{name} -> {}", dependencies.join(" "));
        graph.push_str(line.trim_end());
        graph.push('\n');
    }
    let file = root().join("tests/arch/dependencies.txt");
    let agreed = std::fs::read_to_string(&file).expect("the golden file");
    let agreed: String = agreed
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        graph,
        agreed,
        "the graph has changed; {} holds what was agreed",
        file.display()
    );
}

#[test]
fn agent_and_scheduler_never_reach_one_another() {
    let metadata = metadata();
    for (one, other) in [
        ("evenkeel-agent", "evenkeel-scheduler"),
        ("evenkeel-scheduler", "evenkeel-agent"),
    ] {
        assert!(
            !linked_with(&metadata, one).contains(other),
            "{one} is linked with {other}"
        );
    }
}

#[test]
fn the_pure_crates_are_linked_with_nothing_that_acts() {
    let metadata = metadata();
    for pure in PURE {
        let linked = linked_with(&metadata, pure);
        assert!(linked.len() < 60, "{pure} is linked with {linked:?}");
        for impure in IMPURE {
            assert!(!linked.contains(impure), "{pure} is linked with {impure}");
        }
    }
    // The walk itself works: what does act is found.
    assert!(linked_with(&metadata, "evenkeel-agent").contains("tokio"));
}

#[test]
fn there_are_six_folders() {
    let entries = std::fs::read_dir(root()).expect("the repository");
    let folders: BTreeSet<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let agreed: BTreeSet<String> = FOLDERS.map(str::to_owned).into();
    assert_eq!(folders, agreed);
}

#[test]
fn no_source_file_is_too_long() {
    let mut files = vec![];
    for folder in FOLDERS {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "only {} files were found", files.len());
    let too_long: Vec<String> = files
        .iter()
        .map(|file| (file, lines_without_tests(file)))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(file, lines)| format!("{}: {lines}", file.display()))
        .collect();
    assert!(
        too_long.is_empty(),
        "over {LONGEST_FILE} lines without tests:\n{}",
        too_long.join("\n")
    );
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Files that hold nothing but tests count as empty.
fn lines_without_tests(file: &Path) -> usize {
    let below_root = file.strip_prefix(root()).unwrap_or(file);
    let only_tests = below_root
        .components()
        .any(|part| part.as_os_str() == "tests")
        || file.file_name().is_some_and(|name| name == "tests.rs");
    if only_tests {
        return 0;
    }
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let code = text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    // A `mod tests;` in the middle ends nothing.
    if text.contains("#[cfg(test)]\nmod tests {") {
        code
    } else {
        text.lines().count()
    }
}
