//! What must hold for every fleet, policy and plan by the planner's own referee, and for every text.
//! `PROPTEST_CASES` sets how many are tried.

mod fleet;

use evenkeel_planner::{
    Options, Policy, Purpose, Snapshot, check, place_one, plan, step_is_still_good,
};
use fleet::wild;
use proptest::prelude::*;

fn random_pair(seed: u64, hosts: usize, guests: usize) -> (Snapshot, Policy) {
    let snapshot = wild::fleet(seed, hosts, guests);
    let policy = wild::policy(seed, &snapshot);
    (snapshot, policy)
}

proptest! {
    #[test]
    fn a_plan_breaks_nothing_at_any_moment(seed in any::<u64>(), hosts in 1..9_usize, guests in 0..50_usize) {
        let (snapshot, policy) = random_pair(seed, hosts, guests);
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        prop_assert_eq!(check(&snapshot, &policy, &found), vec![], "{}", found.to_json());
    }

    #[test]
    fn a_limited_plan_keeps_its_limit_and_breaks_nothing(seed in any::<u64>(), hosts in 2..7_usize, guests in 0..40_usize, most in 0..5_usize) {
        let (snapshot, policy) = random_pair(seed, hosts, guests);
        for purpose in [Purpose::Balance, Purpose::Repair, Purpose::Drain] {
            let options = Options { max_moves: Some(most), purpose, ..Options::default() };
            let (found, _) = plan(&snapshot, &policy, &options);
            prop_assert!(found.steps.len() <= most);
            prop_assert_eq!(check(&snapshot, &policy, &found), vec![], "{}", found.to_json());
        }
    }

    #[test]
    fn the_first_step_of_a_fresh_plan_is_still_good(seed in any::<u64>(), hosts in 2..9_usize, guests in 0..50_usize) {
        let (mut snapshot, policy) = random_pair(seed, hosts, guests);
        snapshot.in_flight.clear();
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let Some(step) = found.steps.first() else { return Ok(()) };
        let group = found.steps.iter().filter(|s| s.wave == step.wave && s.from == step.from && s.to == step.to).count();
        // The first of a swap of equals may depend on its partner.
        if group == 1 && step.saves_guest_seconds_per_hour > 0.0 {
            prop_assert_eq!(step_is_still_good(&snapshot, &policy, step), Ok(()), "{}", found.to_json());
        }
    }

    #[test]
    fn a_manual_move_breaks_nothing(seed in any::<u64>(), hosts in 2..7_usize, guests in 1..40_usize) {
        let (snapshot, policy) = random_pair(seed, hosts, guests);
        let name = snapshot.guests[usize::try_from(seed % u64::try_from(guests).unwrap()).unwrap()].name.clone();
        match place_one(&snapshot, &policy, &name, None) {
            Err(rejections) => prop_assert!(!rejections.is_empty()),
            Ok(step) => {
                let (mut by_hand, _) = plan(&snapshot, &policy, &Options { max_moves: Some(0), ..Options::default() });
                by_hand.loss_after = by_hand.loss_before - step.saves_guest_seconds_per_hour / 3600.0;
                by_hand.steps = vec![step];
                let in_flight = !snapshot.in_flight.is_empty();
                let found: Vec<_> = check(&snapshot, &policy, &by_hand).into_iter()
                    .filter(|v| !(in_flight && v.kind == evenkeel_planner::check::ViolationKind::Limits)).collect();
                prop_assert_eq!(found, vec![]);
            }
        }
    }

    #[test]
    fn the_policy_parser_never_panics(text in "\\PC{0,200}") {
        if let Err(error) = Policy::parse(&text) {
            prop_assert!(!error.faults.is_empty());
            prop_assert!(error.to_string().starts_with("policy:"));
        }
    }

    #[test]
    fn nor_on_text_that_looks_like_a_policy(
        lines in prop::collection::vec(
            "(schema|mode|limits|strategy|aggressiveness|hold|\\[limits\\]|\\[pin\\.x\\]|guests|strength|\\[anti_affinity\\.é\\])( = )?(1|\"must\"|\"30s\"|\\[\"a\\*\", 3\\]|-5|1e9|true|\\{a=1\\}|\"é\u{1F600})?", 0..12)
    ) {
        let text = lines.join("\n");
        if let Err(error) = Policy::parse(&text) {
            let _ = error.to_string();
        }
        let _ = Policy::with_mode(&text, evenkeel_planner::Mode::Automatic);
    }
}
