//! `apply`: exactly that plan, or not at all.

use evenkeel_planner::{Options, Plan, Policy, Snapshot, plan};
use evenkeel_proto::v1::{Migration, MigrationPhase};
use serde_json::json;

use crate::fleet::{POLICY, RUNNING, SNAPSHOT, ended, running};
use crate::world::World;

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn over(phase: MigrationPhase, reason: &str) -> Vec<Migration> {
    let ended = ended(RUNNING, phase, reason, "", now_ms());
    vec![running(RUNNING, 12, now_ms()), ended]
}

/// What the planner makes of the recorded fleet and policy: web3 goes from kvm1 to kvm2.
fn made() -> Plan {
    let snapshot = Snapshot::from_json(SNAPSHOT).unwrap();
    let (made, _) = plan(
        &snapshot,
        &Policy::parse(POLICY).unwrap(),
        &Options::default(),
    );
    assert_eq!(
        (made.steps.len(), made.steps[0].guest.as_str()),
        (1, "web3")
    );
    made
}

/// The same, and back again in a wave of its own: only to have a second one, which nothing but a drain would make.
fn there_and_back() -> Plan {
    let mut two = made();
    let mut back = two.steps[0].clone();
    (back.wave, back.from, back.to) = (2, "kvm2".into(), "kvm1".into());
    two.steps.push(back);
    two.steps
        .iter_mut()
        .for_each(|step| step.reason = evenkeel_planner::StepReason::Drain);
    two
}

/// A scheduler that gives out that plan, as somebody has seen it; and its id.
fn seen() -> (World, String) {
    let (world, made) = (World::new(), made());
    world.fake.state().plan = made.to_json();
    let shown = world.run(&["plan"]).ok();
    let hint = format!("To run exactly this: evenkeel apply {}\n", made.id);
    assert!(shown.ends_with(&hint), "{shown}");
    (world, made.id)
}

/// The recorded fleet with web3 on this host.
fn on(host: &str) -> String {
    let here = "\"name\": \"web3\", \"host\": \"kvm1\"";
    assert!(SNAPSHOT.contains(here));
    SNAPSHOT.replace(here, &here.replace("kvm1", host))
}

fn orders(world: &World) -> Vec<String> {
    let log = world.fake.state().log.clone();
    log.into_iter()
        .filter(|said| said.starts_with("migrate"))
        .collect()
}

#[test]
fn a_plan_that_was_shown_is_carried_out_by_its_id() {
    let (world, id) = seen();
    world.fake.state().watched = vec![over(MigrationPhase::Done, "")];
    world
        .run(&["apply", &id])
        .fails(64, "--yes is needed when standard input is no terminal");
    assert_eq!(orders(&world), [""; 0], "nothing happens unasked");
    let run = world.run(&["apply", &id[..4], "--yes", "--reason", "try it"]);
    assert_eq!(
        (run.code, run.out.as_str()),
        (0, format!("plan {id}: 1 of 1 move done\n").as_str()),
        "{run:?}"
    );
    assert!(run.err.contains("runs on kvm2"), "{run:?}");
    let reason = format!("try it (plan {id}, step 1)");
    assert_eq!(
        orders(&world),
        [format!("migrate web3 \"kvm2\" {reason:?} override=false")]
    );
}

#[test]
fn a_dry_run_judges_and_orders_nothing() {
    let (world, id) = seen();
    let said = world.run(&["apply", &id, "--dry-run"]).ok();
    assert_eq!(said, format!("plan {id} can be carried out: 1 move\n"));
    let json = world.run(&["apply", &id, "--dry-run", "-o", "json"]);
    let json = json.json("evenkeel.applied/1");
    assert_eq!(
        (&json["dry_run"], &json["steps"][0]["migration"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(orders(&world), [""; 0]);
}

#[test]
fn a_fleet_that_has_moved_on_makes_it_stale() {
    let elsewhere = on("kvm3");
    let calm = SNAPSHOT
        .replace("\"cpu_demand_cores\": 3.", "\"cpu_demand_cores\": 0.")
        .replace("\"cpu_demand_cores\": 2.", "\"cpu_demand_cores\": 0.");
    for (snapshot, why) in [
        (elsewhere, "step 1: web3 is on kvm3"),
        (calm, "it would save "),
    ] {
        let (world, id) = seen();
        world.fake.state().snapshot = snapshot;
        let run = world.run(&["apply", &id, "--yes"]);
        run.fails(3, &format!("stale plan: {why}"));
        assert_eq!(orders(&world), [""; 0], "{why}");
    }
}

#[test]
fn a_step_that_fails_ends_it_and_what_was_not_begun_is_told() {
    let world = World::new();
    world.file("two.json", &there_and_back().to_json());
    world.fake.state().watched = vec![over(MigrationPhase::Failed, "no_convergence")];
    let run = world.run(&["apply", "two.json", "--yes", "-o", "json"]);
    assert_eq!(run.code, 1, "{run:?}");
    let json = run.json("evenkeel.applied/1");
    let step = |at: usize| {
        (
            json["steps"][at]["done"].clone(),
            json["steps"][at]["migration"]["phase"].clone(),
        )
    };
    assert_eq!(step(0), (json!(false), json!("failed")));
    assert_eq!(step(1), (json!(false), json!(null)));
    assert_eq!(orders(&world).len(), 1);
}

#[test]
fn the_next_wave_waits_until_the_last_one_is_reported() {
    let world = World::new();
    world.file("two.json", &there_and_back().to_json());
    world.fake.state().watched = vec![
        over(MigrationPhase::Done, ""),
        over(MigrationPhase::Done, ""),
    ];
    let file = world.path("two.json");
    let child = world.spawn(&["apply", file.to_str().unwrap(), "--yes"]);
    let began = std::time::Instant::now();
    let patience = std::time::Duration::from_secs(50);
    let waited = || {
        world
            .fake
            .state()
            .calls
            .get("get_snapshot")
            .copied()
            .unwrap_or(0)
            > 3
    };
    while !waited() && began.elapsed() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(orders(&world).len(), 1, "the second wave waits");
    world.fake.state().snapshot = on("kvm2");
    let done = child.wait_with_output().unwrap();
    let (said, talk) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    );
    assert!(said.contains("2 of 2 moves done"), "{said}{talk}");
    assert!(
        talk.contains("waiting: kvm2 has not reported web3 yet"),
        "{talk}"
    );
}

#[test]
fn plans_that_are_none_and_ids_that_nobody_knows_are_named() {
    let world = World::new();
    world
        .run(&["apply", "abcd", "--yes"])
        .fails(1, "no plan \"abcd\" in the plans shown lately");
    world
        .run(&["apply", "../../etc/passwd.nowhere", "--yes"])
        .fails(1, "no plan");
    world.file("p.json", "{}");
    world
        .run(&["apply", "p.json", "--yes"])
        .fails(1, "p.json is no evenkeel.plan/1 document");
    let mut empty = made();
    empty.steps.clear();
    world.file("p.json", &empty.to_json());
    let said = world.run(&["apply", "p.json", "--yes"]).ok();
    assert!(said.ends_with("nothing to move\n"), "{said}");
}
