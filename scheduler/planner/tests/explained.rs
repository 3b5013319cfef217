//! An explanation agrees with the plan that it explains. `PROPTEST_CASES` sets how many fleets are tried.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod fleet;

use evenkeel_planner::explain::{Effect, GuestExplanation, MoveExplanation};
use evenkeel_planner::{
    BlockReason, ExplainError, Explanation, Guest, GuestState, HostState, Options, Plan, Policy,
    Snapshot, StepReason, Subject, Verdict, explain, plan,
};
use fleet::{Dice, fleet, guest, host};
use proptest::prelude::*;

/// A crowded fleet with closed hosts, resting and fixed guests.
fn crowded(seed: u64, hosts: usize, guests: usize) -> Snapshot {
    let mut dice = Dice(seed);
    let count = u64::try_from(hosts).unwrap();
    let mut all = Vec::new();
    for at in 0..hosts {
        let mut made = host(&format!("h{at}"), 4.0, 8192 + 4096 * dice.below(2));
        made.labels.insert("rack".into(), format!("r{}", at % 2));
        made.state = match dice.below(10) {
            0 => HostState::Draining,
            1 => HostState::Cordoned,
            _ => HostState::Active,
        };
        all.push(made);
    }
    let mut made = Vec::new();
    for at in 0..guests {
        let on = dice.below(count).min(dice.below(count));
        let name = format!("{}-{at}", ["web", "db", "app"][at % 3]);
        let mut one = guest(
            &name,
            &format!("h{on}"),
            1.5 * dice.unit(),
            256 + 256 * dice.below(6),
        );
        one.dirty_rate_mib_s = 30.0 * dice.unit();
        one.movable = dice.below(12) > 0;
        match dice.below(16) {
            0 => one.state = GuestState::Shutoff,
            1 => one.cooldown_until = Some("1970-01-01T01:00:00Z".parse().unwrap()),
            _ => {}
        }
        made.push(one);
    }
    fleet(all, made)
}

fn policy(seed: u64) -> Policy {
    let mut dice = Dice(seed ^ 0xdead);
    let strategy = ["contention", "spread", "consolidate"][usize::try_from(dice.below(3)).unwrap()];
    let mut text = format!(
        "schema = 1\nstrategy = \"{strategy}\"\naggressiveness = {}\n",
        1 + dice.below(5)
    );
    if dice.below(2) == 0 {
        text += "[anti_affinity.db]\nguests = [\"db-1\", \"db-4\"]\nstrength = \"must\"\n";
    }
    if dice.below(2) == 0 {
        text += "[affinity.app]\nguests = [\"app-2\", \"web-3\"]\nstrength = \"must\"\n";
    }
    if dice.below(2) == 0 {
        text += "[pin.web]\nguests = [\"web-0\"]\nhosts = [\"h0\", \"h1\"]\nstrength = \"must\"\n";
    }
    Policy::parse(&text).unwrap()
}

fn about_guest(snapshot: &Snapshot, policy: &Policy, name: &str) -> GuestExplanation {
    let about = Subject::Guest { name: name.into() };
    let mut answer = explain(snapshot, policy, &Options::default(), &about).unwrap();
    assert_eq!(answer.guests.len(), 1);
    answer.guests.remove(0)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// The numbers of a step are the plan's, and its parts add up.
fn step_agrees(explained: &MoveExplanation, found: &Plan) {
    let step = &explained.step;
    assert_eq!(step, &found.steps[explained.number - 1]);
    let saved = (explained.loss_before() - explained.loss_after()) * 3600.0;
    assert!(
        close(saved, step.saves_guest_seconds_per_hour),
        "{explained:?}"
    );
    let cost = explained.cost;
    assert!(
        close(
            cost.total,
            step.costs_guest_seconds + step.price_guest_seconds
        ),
        "{explained:?}"
    );
    assert!(close(
        cost.total,
        cost.pause + cost.brown_out + cost.copy_cpu + cost.price
    ));
    match explained.payback_seconds {
        Some(time) => assert!(close(
            time * step.saves_guest_seconds_per_hour / 3600.0,
            cost.total
        )),
        None => assert!(step.saves_guest_seconds_per_hour <= 0.0),
    }
}

fn effect_adds_up(effect: &Effect, policy: &Policy) {
    let factor = evenkeel_planner::constants::payback(policy.aggressiveness).factor;
    assert!(
        close(effect.needed_guest_seconds, factor * effect.cost.total),
        "{effect:?}"
    );
    assert!(close(
        effect.score_guest_seconds,
        effect.gain_guest_seconds - effect.needed_guest_seconds
    ));
    let saved = (effect.loss_before - effect.loss_after) * 3600.0;
    assert!(close(saved, effect.saves_guest_seconds_per_hour));
}

/// What speaks against a guest's other targets and its own agrees with where the plan brings it.
fn guest_agrees(explained: &GuestExplanation, found: &Plan, policy: &Policy) {
    let steps: Vec<_> = found
        .steps
        .iter()
        .filter(|s| s.guest == explained.guest)
        .collect();
    let told: Vec<_> = explained.moves.iter().map(|m| &m.step).collect();
    assert_eq!(told, steps);
    explained.moves.iter().for_each(|m| step_agrees(m, found));
    let goes_to = steps
        .last()
        .map(|s| s.to.as_str())
        .filter(|to| *to != explained.host);
    for candidate in &explained.candidates {
        let judged = &candidate.judgement;
        if let Some(effect) = &judged.effect {
            effect_adds_up(effect, policy);
        }
        let planned = goes_to == Some(candidate.host.as_str());
        assert_eq!(judged.verdict == Verdict::Planned, planned, "{candidate:?}");
        assert_eq!(
            judged.rejected.is_none(),
            matches!(judged.verdict, Verdict::Planned | Verdict::Pays)
        );
        assert_eq!(
            judged.effect.is_none() && !planned,
            judged.verdict == Verdict::Impossible
        );
    }
    let rejected: usize = explained.rejected.iter().map(|count| count.hosts).sum();
    let refused = explained
        .candidates
        .iter()
        .filter(|c| c.judgement.rejected.is_some());
    assert_eq!((rejected, explained.hosts_left_out), (refused.count(), 0));
    if let (Some(to), [only]) = (goes_to, steps.as_slice()) {
        let chosen = &explained.candidates[0];
        assert_eq!(chosen.host, to);
        let effect = chosen.judgement.effect.as_ref().unwrap();
        // Alone in a plan it pays by itself, or something forces it.
        let for_gain = matches!(only.reason, StepReason::RelieveCpu | StepReason::Spread);
        if found.steps.len() == 1 && for_gain {
            assert!(
                effect.score_guest_seconds > 0.0 && explained.held.is_none(),
                "{explained:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn every_guest_is_explained_as_the_plan_has_it(seed in any::<u64>(), hosts in 1..7_usize, guests in 1..30_usize) {
        let (snapshot, policy) = (crowded(seed, hosts, guests), policy(seed));
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        for guest in &snapshot.guests {
            let explained = about_guest(&snapshot, &policy, &guest.name);
            guest_agrees(&explained, &found, &policy);
        }
    }

    #[test]
    fn every_host_is_explained_as_the_plan_has_it(seed in any::<u64>(), hosts in 1..7_usize, guests in 1..30_usize) {
        let (snapshot, policy) = (crowded(seed, hosts, guests), policy(seed));
        let (found, _) = plan(&snapshot, &policy, &Options::default());
        for host in &snapshot.hosts {
            let about = Subject::Host { name: host.name.clone() };
            let answer = explain(&snapshot, &policy, &Options::default(), &about).unwrap();
            let told = answer.host.unwrap();
            told.moves.iter().for_each(|m| step_agrees(m, &found));
            let touching = found.steps.iter().filter(|s| s.from == host.name || s.to == host.name);
            prop_assert_eq!(told.moves.len(), touching.count());
            if let Some(change) = found.hosts.iter().find(|change| change.host == host.name) {
                prop_assert!(close(told.before.cpu_loss + told.before.memory_loss, change.loss_before));
                prop_assert!(close(told.after.cpu_loss + told.after.memory_loss, change.loss_after));
            }
            prop_assert_eq!(answer.guests.len(), snapshot.guests.iter().filter(|g| g.host == host.name).count());
            prop_assert!(answer.guests.iter().all(|g| g.candidates.len() <= 3));
        }
    }
}

fn three_hosts() -> Snapshot {
    let hosts = vec![
        host("h1", 4.0, 8192),
        host("h2", 4.0, 8192),
        host("h3", 4.0, 8192),
    ];
    let guests = (0..4)
        .map(|n| guest(&format!("g{n}"), "h1", 1.5, 1024))
        .collect();
    fleet(hosts, guests)
}

#[test]
fn a_move_has_its_numbers_and_a_runner_up() {
    let (snapshot, policy) = (three_hosts(), Policy::default());
    let (found, _) = plan(&snapshot, &policy, &Options::default());
    let step = &found.steps[0];
    let explained = about_guest(&snapshot, &policy, &step.guest);
    let told = &explained.moves[0];
    assert!(told.source.cpu_loss_before > told.source.cpu_loss_after);
    assert!(told.cost.pause > 0.0 && told.cost.brown_out > 0.0 && told.cost.price > 59.0);
    let runner_up = told.runner_up.as_ref().unwrap();
    assert!(["h2", "h3"].contains(&runner_up.host.as_str()) && runner_up.host != step.to);
    let about = |target: Option<&str>| Subject::Move {
        guest: step.guest.clone(),
        target: target.map(Into::into),
    };
    let ask = |about| explain(&snapshot, &policy, &Options::default(), &about);
    let planned = ask(about(None)).unwrap();
    assert_eq!(planned.guests[0].candidates[0].host, step.to);
    let other = ask(about(Some(&runner_up.host))).unwrap();
    assert_eq!(other.guests[0].candidates.len(), 1);
    assert_eq!(other.guests[0].candidates[0].host, runner_up.host);
    assert!(matches!(
        ask(about(Some("h9"))),
        Err(ExplainError::NoHost(_))
    ));
    let nobody = ask(Subject::Guest {
        name: "nobody".into(),
    });
    assert!(matches!(nobody, Err(ExplainError::NoGuest(_))));
}

#[test]
fn what_reads_differently_before_the_plan_is_told() {
    let (snapshot, policy) = (three_hosts(), Policy::default());
    let (found, _) = plan(&snapshot, &policy, &Options::default());
    let stays = snapshot
        .guests
        .iter()
        .find(|g| found.steps.iter().all(|s| s.guest != g.name))
        .unwrap();
    let explained = about_guest(&snapshot, &policy, &stays.name);
    let now = explained.candidates[0].before_plan.as_ref().unwrap();
    // As the fleet is it would pay; the others' moves do it already.
    assert_eq!(
        (now.verdict, explained.candidates[0].judgement.verdict),
        (Verdict::Pays, Verdict::DoesNotPay)
    );
}

#[test]
fn a_held_guest_says_what_holds_it_and_each_target_what_it_lacks() {
    let mut snapshot = three_hosts();
    snapshot.guests[0] = Guest {
        movable: false,
        unmovable_reason: Some("host device 3b:00.0".into()),
        networks: vec!["br9".into()],
        ..snapshot.guests[0].clone()
    };
    snapshot.hosts[1].networks = vec!["br0".into()];
    snapshot.hosts[2].state = HostState::Cordoned;
    let explained = about_guest(&snapshot, &Policy::default(), "g0");
    let held = explained.held.as_ref().unwrap();
    assert_eq!(
        (held.reason, held.detail.as_str()),
        (BlockReason::Unmovable, "host device 3b:00.0")
    );
    let why = |at: usize| explained.candidates[at].judgement.rejected.clone().unwrap();
    assert_eq!(
        (why(0).reason, why(0).detail.as_str()),
        (BlockReason::MissingNetwork, "h2 lacks br9")
    );
    assert_eq!(
        (why(1).reason, why(1).detail.as_str()),
        (BlockReason::HostClosed, "h3 is cordoned")
    );
    assert_eq!(explained.rejected.len(), 2);
}

#[test]
fn guests_that_move_as_one_are_named() {
    let policy =
        Policy::parse("[affinity.pair]\nguests=[\"g0\",\"g1\"]\nstrength=\"must\"").unwrap();
    let explained = about_guest(&three_hosts(), &policy, "g1");
    assert_eq!(explained.moves_with, ["g0"]);
    let effect = explained.candidates[0].judgement.effect.as_ref().unwrap();
    assert!(effect.cost.price > 119.0, "{effect:?}");
}

#[test]
fn the_document_reads_back_as_it_was_written() {
    let about = Subject::Host { name: "h1".into() };
    let answer = explain(
        &three_hosts(),
        &Policy::default(),
        &Options::default(),
        &about,
    )
    .unwrap();
    let text = serde_json::to_string(&answer).unwrap();
    assert!(
        text.starts_with("{\"schema\":\"evenkeel.explain/1\",\"cluster\":\"test\""),
        "{text}"
    );
    assert!(
        text.contains("\"about\":{\"kind\":\"host\",\"name\":\"h1\"}"),
        "{text}"
    );
    let again: Explanation = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (again.schema, again.about, again.guests.len()),
        (answer.schema, answer.about, answer.guests.len())
    );
}
