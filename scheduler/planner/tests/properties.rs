//! What must hold for every fleet, policy and plan. `PROPTEST_CASES` sets how many are tried.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;

use evenkeel_planner::check::carried_out;
use evenkeel_planner::{
    Guest, GuestState, Host, HostState, InFlight, Options, Policy, Purpose, Snapshot, Strategy,
    check, place_one, plan, step_is_still_good,
};
use fleet::{Dice, fleet, guest, host};
use proptest::prelude::*;

fn random_host(dice: &mut Dice, at: usize) -> Host {
    let mut made = host(
        &format!("h{at}"),
        4.0 + 4.0 * dice.unit(),
        8192 + 4096 * dice.below(3),
    );
    made.state = match dice.below(12) {
        0 => HostState::Draining,
        1 => HostState::Cordoned,
        2 if dice.below(3) == 0 => HostState::Absent,
        _ => HostState::Active,
    };
    made.labels.insert("rack".into(), format!("r{}", at % 3));
    made.migration_bandwidth_mib_s = [100.0, 1000.0][usize::from(dice.below(4) > 0)];
    if dice.below(6) == 0 {
        made.networks = vec!["br0".into()];
    }
    if dice.below(8) == 0 {
        made.cpu_class = "old".into();
    }
    made
}

fn random_guest(dice: &mut Dice, at: usize, hosts: &[Host]) -> Guest {
    // Skewed: the lower numbers get more.
    let low = dice
        .below(u64::try_from(hosts.len()).unwrap())
        .min(dice.below(u64::try_from(hosts.len()).unwrap()));
    let on = &hosts[usize::try_from(low).unwrap()];
    let name = format!("{}-{at}", ["web", "db", "app"][at % 3]);
    let mut made = guest(
        &name,
        &on.name,
        1.5 * dice.unit() * dice.unit(),
        256 + 256 * dice.below(6),
    );
    made.cpu_demand_stddev_cores = 0.3 * made.cpu_demand_cores * dice.unit();
    made.dirty_rate_mib_s = if dice.below(10) == 0 {
        400.0
    } else {
        10.0 * dice.unit()
    };
    made.movable = dice.below(15) > 0;
    match dice.below(20) {
        0 => made.state = GuestState::Shutoff,
        1 => made.state = GuestState::Paused,
        2 => made.cooldown_until = Some("1970-01-01T00:10:00Z".parse().unwrap()),
        3 => made.networks = vec!["br1".into()],
        _ => {}
    }
    made
}

fn random_fleet(seed: u64, hosts: usize, guests: usize) -> Snapshot {
    let mut dice = Dice(seed);
    let hosts: Vec<Host> = (0..hosts).map(|at| random_host(&mut dice, at)).collect();
    let guests: Vec<Guest> = (0..guests)
        .map(|at| random_guest(&mut dice, at, &hosts))
        .collect();
    let mut snapshot = fleet(hosts, guests);
    if dice.below(3) == 0 && !snapshot.guests.is_empty() && snapshot.hosts.len() > 1 {
        let flying = &snapshot.guests[0];
        let to = snapshot
            .hosts
            .iter()
            .find(|h| h.name != flying.host)
            .unwrap();
        let flight = InFlight {
            guest: flying.name.clone(),
            from: flying.host.clone(),
            to: to.name.clone(),
        };
        snapshot.in_flight.push(flight);
    }
    snapshot
}

fn random_policy(seed: u64) -> Policy {
    let mut dice = Dice(seed ^ 0x5eed);
    let strategy = ["contention", "spread", "consolidate"][usize::try_from(dice.below(3)).unwrap()];
    let mut text = format!(
        "schema = 1\nstrategy = \"{strategy}\"\naggressiveness = {}\n",
        1 + dice.below(5)
    );
    let per_host = 1 + dice.below(3);
    text += &format!(
        "[limits]\nmigrations_per_host = {per_host}\nmigrations_per_cluster = {}\n",
        per_host + dice.below(6)
    );
    if dice.below(3) == 0 {
        text += "memory_overcommit = 1.25\n";
    }
    if dice.below(5) == 0 {
        text += "max_guests_per_host = 9\n";
    }
    if dice.below(5) == 0 {
        text += "reserve_host_failures = 1\n";
    }
    let strength = |dice: &mut Dice| ["must", "should"][usize::from(dice.below(2) == 0)];
    if dice.below(2) == 0 {
        let over = if dice.below(2) == 0 {
            "over = \"rack\"\n"
        } else {
            ""
        };
        text += &format!(
            "[anti_affinity.db]\nguests = [\"db-1\", \"db-4\", \"db-7\"]\n{over}strength = \"{}\"\n",
            strength(&mut dice)
        );
    }
    if dice.below(2) == 0 {
        text += &format!(
            "[affinity.app]\nguests = [\"app-2\", \"web-3\"]\nstrength = \"{}\"\n",
            strength(&mut dice)
        );
    }
    if dice.below(2) == 0 {
        text += &format!(
            "[pin.web]\nguests = [\"web-0\", \"web-6\"]\nhosts = [\"h0\", \"h1\", \"h2\"]\nstrength = \"{}\"\n",
            strength(&mut dice)
        );
    }
    if dice.below(4) == 0 {
        text += "[opt_out.old]\nguests = [\"db-10\"]\n";
    }
    Policy::parse(&text).unwrap()
}

proptest! {
    #[test]
    fn a_plan_breaks_nothing_at_any_moment(seed in any::<u64>(), hosts in 1..9_usize, guests in 0..50_usize) {
        let (snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        prop_assert_eq!(check(&snapshot, &policy, &found), vec![], "{}", found.to_json());
    }

    #[test]
    fn planning_after_a_plan_finds_nothing(seed in any::<u64>(), hosts in 1..9_usize, guests in 0..50_usize) {
        let (mut snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
        snapshot.in_flight.clear();
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let (again, _) = plan(&carried_out(&snapshot, &found), &policy, &Options::default());
        prop_assert!(again.steps.is_empty(), "{}\nthen\n{}", found.to_json(), again.to_json());
    }

    #[test]
    fn a_plan_without_forced_steps_saves_more_than_it_costs(seed in any::<u64>(), hosts in 2..9_usize, guests in 0..50_usize) {
        let (mut snapshot, mut policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
        policy.strategy = Strategy::Contention;
        policy.rules.clear();
        policy.limits.max_guests_per_host = 0;
        for host in &mut snapshot.hosts {
            host.state = HostState::Active;
        }
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        let forced = found.steps.iter().any(|s| s.reason == evenkeel_planner::StepReason::RelieveMemory);
        let cost: f64 = found.steps.iter().map(|s| s.costs_guest_seconds + s.price_guest_seconds).sum();
        let gain = found.horizon_seconds * (found.loss_before - found.loss_after);
        prop_assert!(forced || gain >= cost, "gain {gain}, cost {cost}: {}", found.to_json());
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes(seed in any::<u64>(), hosts in 1..7_usize, guests in 0..30_usize) {
        let (snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
        let first = plan(&snapshot, &policy, &Options::default());
        prop_assert_eq!(first, plan(&snapshot, &policy, &Options::default()));
    }

    #[test]
    fn a_limited_plan_keeps_its_limit_and_breaks_nothing(seed in any::<u64>(), hosts in 2..7_usize, guests in 0..40_usize, most in 0..5_usize) {
        let (snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
        for purpose in [Purpose::Balance, Purpose::Repair, Purpose::Drain] {
            let options = Options { max_moves: Some(most), purpose, ..Options::default() };
            let (found, _) = plan(&snapshot, &policy, &options);
            prop_assert!(found.steps.len() <= most);
            prop_assert_eq!(check(&snapshot, &policy, &found), vec![], "{}", found.to_json());
        }
    }

    #[test]
    fn the_first_step_of_a_fresh_plan_is_still_good(seed in any::<u64>(), hosts in 2..9_usize, guests in 0..50_usize) {
        let (mut snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
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
        let (snapshot, policy) = (random_fleet(seed, hosts, guests), random_policy(seed));
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
