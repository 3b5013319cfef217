//! What holds in every world within small bounds, and that each guard is what makes it hold.
//!
//! `make model` goes through larger bounds and writes what it finds into docs/reference/model-checking.md.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a panic is a failed test, and counterexamples are there to be read"
)]

use evenkeel_model::bounds::Bounds;
use evenkeel_model::bounds::Guard;
use evenkeel_model::report::{counterexample, row};
use evenkeel_model::runs::{AGAIN, SMALL, mutations, run};
use evenkeel_model::stage::Mark;

/// Steps of the longest counterexample that is still read.
const LONGEST: usize = 24;

/// Goes through bounds; answers with what was reached.
fn holds(bounds: Bounds) -> Vec<Mark> {
    let found = run(bounds).unwrap();
    println!("{}", row(&bounds, &found));
    let broken = found.broken.as_ref().map(counterexample);
    assert_eq!(broken, None, "{}", bounds.name);
    found.reached
}

#[test]
fn everything_holds_in_every_world_within_bounds() {
    let reached: Vec<Mark> = SMALL.into_iter().flat_map(holds).collect();
    let never: Vec<Mark> = Mark::ALL
        .into_iter()
        .filter(|mark| !reached.contains(mark))
        .collect();
    assert!(never.is_empty(), "never reached: {never:?}");
}

#[test]
fn one_order_after_the_other_takes_effect() {
    holds(AGAIN);
}

/// Leaves a guard out and sees what breaks.
fn check(guard: Guard) {
    let all = mutations();
    let mutation = all
        .iter()
        .find(|m| m.bounds.without == Some(guard))
        .unwrap();
    let found = run(mutation.bounds).unwrap();
    println!("{}", row(&mutation.bounds, &found));
    let broken = found.broken.unwrap();
    println!("without {}: {}", guard.as_str(), counterexample(&broken));
    assert_eq!(broken.property, mutation.breaks);
    assert!(broken.way.len() <= LONGEST, "{} steps", broken.way.len());
}

#[test]
fn without_the_epoch_a_deposed_leaders_order_takes_effect() {
    check(Guard::Epoch);
}

#[test]
fn without_the_standing_order_a_withdrawn_one_takes_effect() {
    check(Guard::OrderStands);
}

#[test]
fn without_a_look_for_a_journal_a_duplicate_takes_effect() {
    check(Guard::NoJournalYet);
}

#[test]
fn without_its_mandate_a_deposed_leader_writes_on() {
    check(Guard::Mandate);
}

#[test]
fn without_create_only_if_absent_a_second_order_stands() {
    check(Guard::OnlyIfAbsent);
}

#[test]
fn without_a_guard_on_withdrawal_an_order_under_way_is_removed() {
    check(Guard::Untaken);
}

#[test]
fn without_the_journal_first_libvirt_is_called_unknown_to_anybody() {
    check(Guard::JournalFirst);
}

#[test]
fn without_asking_both_hosts_libvirts_error_is_believed() {
    check(Guard::AskBothHosts);
}

#[test]
fn a_paused_source_that_is_resumed_runs_beside_its_target() {
    check(Guard::NeverResume);
}

#[test]
fn an_answer_from_before_the_calls_end_tells_a_lie() {
    check(Guard::AnswerAfterCall);
}

#[test]
fn a_half_that_is_the_guest_would_be_destroyed() {
    check(Guard::DiscardOnlyRemnants);
}
