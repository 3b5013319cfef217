//! Plans that are carried out later than they were made.

mod fleet;

use evenkeel_planner::check::carried_out;
use evenkeel_planner::{
    HostState, InFlight, Options, Plan, Policy, Snapshot, Stale, StepReason, plan, still_good,
};
use fleet::{fleet, guest, host};

/// h1 needs more than it has, h2 and h3 are idle.
fn hot() -> Snapshot {
    fleet(
        vec![
            host("h1", 4.0, 65_536),
            host("h2", 4.0, 65_536),
            host("h3", 4.0, 65_536),
        ],
        vec![
            guest("a", "h1", 2.5, 4096),
            guest("b", "h1", 2.5, 4096),
            guest("c", "h1", 2.5, 4096),
        ],
    )
}

fn planned(snapshot: &Snapshot) -> Plan {
    let (found, _) = plan(snapshot, &Policy::default(), &Options::default());
    assert!(found.steps.len() > 1, "{}", found.to_json());
    found
}

fn judged(snapshot: &Snapshot, plan: &Plan) -> Result<(), Stale> {
    still_good(snapshot, &Policy::default(), plan)
}

#[test]
fn a_plan_holds_while_little_has_changed_and_so_does_what_is_left_of_it() {
    let mut now = hot();
    let made = planned(&now);
    assert_eq!(judged(&now, &made), Ok(()));
    // Other load, and another guest somewhere: the numbers are not the same, what is to be done is.
    now.guests[0].cpu_demand_cores = 2.6;
    now.guests.push(guest("new", "h3", 0.2, 1024));
    assert_eq!(judged(&now, &made), Ok(()));
    let (mut first, mut rest) = (made.clone(), made.clone());
    first.steps.truncate(1);
    let wave = first.steps[0].wave;
    rest.steps
        .retain(|step| step.wave > wave || step.guest != first.steps[0].guest);
    rest.steps.iter_mut().for_each(|step| step.wave += 1);
    assert_eq!(judged(&carried_out(&now, &first), &rest), Ok(()));
}

#[test]
fn what_has_moved_on_makes_it_stale_and_is_named() {
    let made = planned(&hot());
    let step = made.steps[0].clone();
    let at = |now: &Snapshot| {
        let found = now.guests.iter().position(|g| g.name == step.guest);
        found.unwrap()
    };
    let broken = |change: &dyn Fn(&mut Snapshot)| {
        let mut now = hot();
        change(&mut now);
        match judged(&now, &made) {
            Err(Stale::Broken { detail, .. }) => detail,
            other => panic!("{other:?}"),
        }
    };
    let detail = broken(&|now| {
        let at = at(now);
        step.to.clone_into(&mut now.guests[at].host);
    });
    assert!(detail.contains("is on"), "{detail}");
    let detail = broken(&|now| {
        now.guests.remove(at(now));
    });
    assert!(detail.contains("no guest"), "{detail}");
    let detail = broken(&|now| {
        let host = now.hosts.iter_mut().find(|h| h.name == step.to).unwrap();
        host.state = HostState::Cordoned;
    });
    assert!(detail.contains("is cordoned"), "{detail}");
    let detail = broken(&|now| {
        now.guests.push(guest("large", &step.to, 0.1, 63_000));
    });
    assert!(detail.contains("MiB"), "{detail}");
}

#[test]
fn a_plan_whose_trouble_has_passed_is_not_worth_it_but_a_forced_one_stands() {
    let mut made = planned(&hot());
    let mut now = hot();
    now.guests
        .iter_mut()
        .for_each(|guest| guest.cpu_demand_cores = 0.1);
    let stale = judged(&now, &made).unwrap_err();
    assert!(matches!(stale, Stale::NotWorthIt { .. }), "{stale}");
    assert!(
        stale.to_string().contains("guest-seconds within"),
        "{stale}"
    );
    made.steps
        .iter_mut()
        .for_each(|step| step.reason = StepReason::Drain);
    assert_eq!(judged(&now, &made), Ok(()));
}

#[test]
fn a_fleet_that_is_busy_migrating_makes_it_wait() {
    let made = planned(&hot());
    let mut now = hot();
    for n in 0..16 {
        let name = format!("other-{n}");
        now.guests.push(guest(&name, "h2", 0.01, 64));
        now.in_flight.push(InFlight {
            guest: name,
            from: "h2".into(),
            to: "h3".into(),
        });
    }
    let stale = judged(&now, &made).unwrap_err();
    assert!(matches!(stale, Stale::Busy { .. }), "{stale}");
}
