//! The source agent dies in the middle of a migration; its journal and libvirt know the rest.

use evenkeel_proto::v1::{Migration, MigrationPhase};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until};

use crate::{END, SOON, assert_done_once, begin_slow_migration, is_copying};

#[test]
fn a_restarted_source_agent_adopts_its_running_job() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    lab.fault(&["agent", "h1", "kill"]);
    lab.fault(&["agent", "h1", "start"]);
    until("the agent to be back", SOON, || {
        lab.text("h1/agent.log").matches("agent is ready").count() == 2
    });
    assert!(
        is_copying(&lab, "h1", "g"),
        "the migration was over too soon to be adopted"
    );
    lab.full_speed("h1");
    let migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "g");
}

#[test]
fn a_migration_that_ended_without_its_agent_is_settled_when_that_is_back() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    lab.fault(&["agent", "h1", "kill"]);
    lab.full_speed("h1");
    until("libvirt to hand the guest over", END, || {
        lab.running_on("g") == ["h2"]
    });
    // Nobody but the source agent closes the journal.
    let journal = lab.journal("h1", &lab.uuid("g")).expect("the journal");
    assert_eq!(journal.ended_at_ms, 0);
    lab.fault(&["agent", "h1", "start"]);
    let migration: Migration = lab.wait_for_end(&order.id, END);
    assert_done_once(&lab, &migration, "g");
}

#[test]
fn a_guest_that_dies_while_it_moves_is_reported_lost_not_moved() {
    let lab = Lab::up(&LabOptions::default());
    let order = begin_slow_migration(&lab, "g", "h1", "h2");
    lab.fault(&["qemu", "h1/g", "kill"]);
    let migration = lab.wait_for_end(&order.id, END);
    assert_eq!(
        phase_of(&migration),
        MigrationPhase::Failed,
        "{migration:?}"
    );
    assert_eq!(lab.running_on("g"), [""; 0], "nobody starts it again");
    // The leader may not know yet that it is shut off; the agent does.
    let leader = lab.some_leader();
    if let Ok(again) = lab.migrate(Caller::Operator, &leader, "g", "h2") {
        let refused = lab.wait_for_end(&again.id, END);
        assert_eq!(phase_of(&refused), MigrationPhase::Refused, "{refused:?}");
    }
}
