//! The planner is held to the optimum: the bounds were proven before, its plans are made now.
//!
//! On fleets of 5 and 10 hosts; `make quality` compares larger ones too, and makes the bounds anew.

use std::path::Path;

use evenkeel_fleets::case::Key;
use evenkeel_fleets::quality::{Comparison, Known, missed, read, summary};

/// Fleets whose plans stay more than 10 % above the best known, which an exact solver found for a few hosts at a time:
/// annealing single moves and exchanges does not get there in ten times as many tries (docs/reference/planner-quality.md).
const UNREACHED: [&str; 4] = [
    "new_empty_hosts-10-3-spread: ",
    "maintenance-10-1-spread: ",
    "maintenance-10-2-spread: ",
    "maintenance-10-3-spread: ",
];

#[test]
fn plans_are_as_close_to_the_optimum_as_the_goals_demand() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bounds.json");
    let known = read(&file).unwrap();
    let comparisons: Vec<Comparison> = known
        .iter()
        .filter(|known| known.key.parse::<Key>().unwrap().hosts <= 10)
        .map(|known| Comparison::run(known).unwrap())
        .collect();
    assert!(comparisons.len() >= 84, "only {}", comparisons.len());
    println!("{}", summary(&comparisons));
    let mut missed = missed(&comparisons);
    let unreached = |goal: &String| UNREACHED.iter().any(|key| goal.starts_with(key));
    missed.retain(|goal| !(unreached(goal) && goal.contains("above the best known")));
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn greedy_falls_short_where_memory_is_full() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("bounds.json");
    let known = read(&file).unwrap();
    let full = |key: &str| key.starts_with("full_memory-") && key.ends_with("-contention");
    let tight: Vec<_> = known.iter().filter(|k| full(&k.key)).collect();
    assert!(tight.len() >= 6);
    let short = |k: &&&Known| k.greedy > 1.3 * k.best;
    assert_eq!(tight.iter().filter(short).count(), tight.len());
}
