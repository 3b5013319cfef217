use evenkeel_proto::v1;
use evenkeel_types::{Epoch, MigrationState, Outcome, Refusal};

use super::*;
use crate::driver::bench::{EPOCH, LEADER, order};

fn seen() -> Seen {
    Seen {
        leader: Some(Leader {
            key: LEADER.into(),
            epoch: EPOCH,
        }),
        order: Some(Stored {
            value: order_one().message,
            revision: 11,
        }),
        journal: None,
    }
}

/// One order, the same at every call: its deadline is not made of the clock.
fn order_one() -> Order {
    crate::driver::bench::order_with(1, |o| o.deadline_ms = i64::MAX)
}

#[test]
fn an_order_that_stands_under_its_leader_is_admitted() {
    let grounds = decide(&seen(), &order_one(), LEADER).unwrap();
    assert_eq!((grounds.order_revision, grounds.journal_revision), (11, 0));
}

#[test]
fn every_reason_against_an_order_is_named() {
    type Break = fn(&mut Seen);
    let journal = |value| Some(Stored { value, revision: 5 });
    let cases: [(Refusal, Break); 6] = [
        (Refusal::StaleEpoch, |s| s.leader = None),
        (Refusal::StaleEpoch, |s| {
            s.leader.as_mut().unwrap().epoch = Epoch(8);
        }),
        // A candidate's own key has a create revision too, but does not lead.
        (Refusal::StaleEpoch, |s| {
            s.leader.as_mut().unwrap().key = "/other".into();
        }),
        (Refusal::NoSuchOrder, |s| s.order = None),
        (Refusal::NoSuchOrder, |s| {
            s.order.as_mut().unwrap().value.id = order(2).id.to_string();
        }),
        (Refusal::NoSuchOrder, |s| {
            s.order.as_mut().unwrap().value.target = "h9".into();
        }),
    ];
    for (reason, break_it) in cases {
        let mut seen = seen();
        break_it(&mut seen);
        assert_eq!(decide(&seen, &order_one(), LEADER).unwrap_err().0, reason);
    }
    let standing = [
        (Standing::Of(order(1).id), Refusal::Duplicate),
        (Standing::Unreadable, Refusal::Duplicate),
        (Standing::Open(order(2).id), Refusal::Busy),
    ];
    for (value, reason) in standing {
        let seen = Seen {
            journal: journal(value),
            ..seen()
        };
        assert_eq!(decide(&seen, &order_one(), LEADER).unwrap_err().0, reason);
    }
}

#[test]
fn a_closed_journal_of_another_order_gives_way() {
    let seen = Seen {
        journal: Some(Stored {
            value: Standing::Closed,
            revision: 5,
        }),
        ..seen()
    };
    let grounds = decide(&seen, &order_one(), LEADER).unwrap();
    assert_eq!(grounds.journal_revision, 5);
}

#[test]
fn a_journal_is_seen_with_the_orders_eyes() {
    let mut journal = opened(&order_one(), 1);
    let other = order(2).id;
    assert_eq!(standing(&journal, &order(1).id), Standing::Of(order(1).id));
    assert_eq!(standing(&journal, &other), Standing::Open(order(1).id));
    journal.state = Some(MigrationState::Ended(Outcome::Done).into());
    assert_eq!(standing(&journal, &other), Standing::Closed);
    journal.state = Some(v1::MigrationState {
        phase: 99,
        ..v1::MigrationState::default()
    });
    assert_eq!(standing(&journal, &other), Standing::Unreadable);
    let empty = v1::Journal::default();
    assert_eq!(standing(&empty, &other), Standing::Unreadable);
}

#[test]
fn a_closed_journal_is_never_given_another_end() {
    use evenkeel_types::{FailureReason, Place, Whereabouts};
    let order = order_one();
    let with = |state: MigrationState| v1::Journal {
        state: Some(state.into()),
        ..opened(&order, 1)
    };
    let ended = |outcome| with(MigrationState::Ended(outcome));
    let resolved = ended(Place::Target.outcome());
    // What a source comes to that was cut off, once the guest has gone on from the target.
    let died = ended(Outcome::Failed {
        reason: FailureReason::GuestDied,
        guest: Whereabouts::Nowhere,
    });
    let guest = &order.guest;
    for late in [
        &died,
        &ended(Outcome::Done),
        &with(MigrationState::Preparing),
    ] {
        let refused = may_follow(guest, &resolved, late);
        assert!(matches!(refused, Err(JournalError::Closed { .. })));
    }
    assert!(may_follow(guest, &resolved, &resolved).is_ok());
    assert!(may_follow(guest, &opened(&order, 1), &died).is_ok());
}
