//! Facts about the transition function; every path is walked by random events, too.

use proptest::prelude::*;

use super::*;

const COPYING: MigrationState = MigrationState::Running(CopyFacts {
    abort: None,
    call: None,
});

/// Feeds events one after the other; returns the last state and all commands.
fn run(start: MigrationState, events: &[Event]) -> (MigrationState, Vec<Command>) {
    events
        .iter()
        .fold((start, vec![]), |(state, mut commands), &event| {
            let (next, more) = state.step(event);
            commands.extend(more);
            (next, commands)
        })
}

fn check(events: &[Event], expected: MigrationState) {
    let (state, _) = run(MigrationState::Ordered, events);
    assert_eq!(state, expected, "{events:?}");
}

#[test]
fn the_plain_path_ends_at_the_target() {
    use Event::*;
    let events = [
        Admitted,
        Prepared,
        SwitchoverSeen,
        CallReturned(CallResult::Ok),
        Asked(Whereabouts::Target),
    ];
    let (state, commands) = run(MigrationState::Ordered, &events);
    assert_eq!(state, MigrationState::Ended(Outcome::Done));
    assert_eq!(
        commands,
        [
            Command::PrepareTarget,
            Command::StartCopy,
            Command::AskBothHosts,
            Command::ReleaseTarget
        ]
    );
}

#[test]
fn an_error_of_the_call_is_no_proof_of_failure() {
    use Event::*;
    check(
        &[
            Admitted,
            Prepared,
            CallReturned(CallResult::Error),
            Asked(Whereabouts::Target),
        ],
        MigrationState::Ended(Outcome::Done),
    );
}

#[test]
fn success_of_the_call_is_no_proof_of_success() {
    use Event::*;
    check(
        &[
            Admitted,
            Prepared,
            CallReturned(CallResult::Ok),
            Asked(Whereabouts::Source),
        ],
        MigrationState::Ended(Outcome::Failed {
            reason: FailureReason::Libvirt,
            guest: Whereabouts::Source,
        }),
    );
}

#[test]
fn a_cancelled_copy_that_finished_anyway_is_done() {
    use Event::*;
    check(
        &[
            Admitted,
            Prepared,
            CancelRequested,
            CallReturned(CallResult::Ok),
            Asked(Whereabouts::Target),
        ],
        MigrationState::Ended(Outcome::Done),
    );
}

#[test]
fn a_cancelled_copy_ends_at_the_source() {
    use Event::*;
    check(
        &[
            Admitted,
            Prepared,
            CancelRequested,
            CallReturned(CallResult::Error),
            Asked(Whereabouts::Unsettled),
            Asked(Whereabouts::Source),
        ],
        MigrationState::Ended(Outcome::Cancelled),
    );
}

#[test]
fn an_adopted_preparation_has_touched_nothing() {
    let (state, commands) = run(
        MigrationState::Preparing,
        &[Event::Adopted { job_running: false }],
    );
    assert_eq!(
        state.outcome(),
        Some(Outcome::Failed {
            reason: FailureReason::Interrupted,
            guest: Whereabouts::Source
        })
    );
    assert_eq!(commands, [Command::ReleaseTarget]);
}

#[test]
fn an_adopted_copy_is_followed_or_settled_but_never_started_again() {
    let (state, commands) = COPYING.step(Event::Adopted { job_running: true });
    assert_eq!((state, commands), (COPYING, vec![Command::FollowJob]));
    let (state, commands) = COPYING.step(Event::Adopted { job_running: false });
    assert_eq!(state.as_str(), "switching");
    assert_eq!(commands, [Command::AskBothHosts]);
}

#[test]
fn a_guest_on_both_hosts_is_unknown_at_once_and_stays_open() {
    use Event::*;
    check(
        &[
            Admitted,
            Prepared,
            CallReturned(CallResult::Error),
            Asked(Whereabouts::Both),
        ],
        MigrationState::Unknown {
            facts: CopyFacts {
                abort: None,
                call: Some(CallResult::Error),
            },
            last: Whereabouts::Both,
        },
    );
}

#[test]
fn two_living_halves_are_known_until_an_answer_disproves_them() {
    use Event::*;
    let (both, _) = run(
        COPYING,
        &[CallReturned(CallResult::Error), Asked(Whereabouts::Both)],
    );
    for event in [
        Asked(Whereabouts::Unanswered),
        Asked(Whereabouts::Unsettled),
        JobSeen,
    ] {
        assert_eq!(both.step(event).0, both, "{event:?}");
    }
    assert!(both.step(Asked(Whereabouts::Target)).0.outcome().is_some());
}

#[test]
fn silent_hosts_park_the_migration_until_they_answer() {
    use Event::*;
    let silent = [
        Admitted,
        Prepared,
        CallReturned(CallResult::Error),
        Asked(Whereabouts::Unanswered),
        GaveUp,
        Asked(Whereabouts::Unanswered),
    ];
    let (parked, _) = run(MigrationState::Ordered, &silent);
    assert_eq!(parked.as_str(), "unknown");
    let (state, _) = parked.step(Asked(Whereabouts::Target));
    assert_eq!(state, MigrationState::Ended(Outcome::Done));
}

#[test]
fn what_nobody_can_settle_an_operator_may() {
    let facts = CopyFacts {
        abort: None,
        call: Some(CallResult::Error),
    };
    for last in [Whereabouts::Unanswered, Whereabouts::Both] {
        for place in Place::ALL {
            let unknown = MigrationState::Unknown { facts, last };
            let (state, commands) = unknown.step(Event::Resolved(place));
            let guest = place.whereabouts();
            let reason = FailureReason::Resolved;
            let expected = Outcome::Failed { reason, guest };
            assert_eq!(state, MigrationState::Ended(expected));
            assert_eq!(commands, [Command::ReleaseTarget]);
        }
    }
    for open in [COPYING, MigrationState::Switching(facts)] {
        let (state, commands) = open.step(Event::Resolved(Place::Source));
        assert_eq!(
            (state, commands),
            (open, vec![]),
            "its hosts are being asked"
        );
    }
}

/// States after a call that came back in a way that proves nothing about libvirt's job.
fn after_a_broken_call() -> Vec<MigrationState> {
    let facts = |call| CopyFacts { abort: None, call };
    let mut states = vec![MigrationState::Switching(facts(None))];
    for call in [CallResult::Error, CallResult::Unseen] {
        let facts = facts(Some(call));
        let last = Whereabouts::Unanswered;
        states.push(MigrationState::Switching(facts));
        states.push(MigrationState::Unknown { facts, last });
    }
    states
}

#[test]
fn an_abort_reaches_a_call_that_is_out_and_is_kept_for_a_job_that_outlived_it() {
    for state in after_a_broken_call() {
        for event in [Event::CancelRequested, Event::DeadlinePassed] {
            let (next, commands) = state.step(event);
            let out = state == MigrationState::Switching(CopyFacts::default());
            assert_eq!(commands == [Command::AbortJob], out, "{state:?} {event:?}");
            assert_ne!(next, state, "it is remembered");
            assert_eq!(next.as_str(), state.as_str());
        }
    }
    let done = MigrationState::Switching(CopyFacts {
        abort: None,
        call: Some(CallResult::Ok),
    });
    assert_eq!(done.step(Event::CancelRequested), (done, vec![]));
}

#[test]
fn a_job_that_is_seen_after_its_call_is_followed_as_a_copy_and_its_abort_goes_on() {
    use Event::*;
    for state in after_a_broken_call() {
        let (adopted, commands) = state.step(Adopted { job_running: true });
        assert_eq!(commands, [Command::FollowJob], "{adopted:?}");
    }
    for state in &after_a_broken_call()[1..] {
        let (copying, commands) = state.step(JobSeen);
        assert_eq!(copying.as_str(), "running");
        assert_eq!(commands, [Command::FollowJob]);
        assert_eq!(copying.step(DeadlinePassed).1, [Command::AbortJob]);
        let (handing_over, commands) = copying.step(SwitchoverSeen);
        assert_eq!(commands, [Command::AskBothHosts], "it may go on copying");
        assert_eq!(handing_over.step(JobSeen).0, copying);
        let (state, _) = run(*state, &[CancelRequested]);
        let (aborting, commands) = state.step(JobSeen);
        assert_eq!(commands, [Command::FollowJob, Command::AbortJob]);
        let (state, _) = run(
            aborting,
            &[CallReturned(CallResult::Unseen), Asked(Whereabouts::Source)],
        );
        assert_eq!(state, MigrationState::Ended(Outcome::Cancelled));
    }
}

#[test]
fn a_call_that_may_act_later_closes_nothing_but_a_guest_that_has_moved() {
    use Event::*;
    let (lost, commands) = COPYING.step(GaveUp);
    assert_eq!(lost.as_str(), "unknown");
    assert_eq!(commands, [Command::AskBothHosts]);
    for place in [Whereabouts::Source, Whereabouts::Nowhere, Whereabouts::Both] {
        let (open, commands) = lost.step(Asked(place));
        assert_eq!(open.outcome(), None, "{place}");
        assert_eq!(commands, [Command::AskBothHosts]);
        let (settled, _) = run(open, &[CallReturned(CallResult::Error), Asked(place)]);
        assert_eq!(settled.outcome().is_some(), place != Whereabouts::Both);
    }
    let (moved, _) = lost.step(Asked(Whereabouts::Target));
    assert_eq!(moved, MigrationState::Ended(Outcome::Done));
    for place in [Place::Source, Place::Nowhere] {
        assert_eq!(lost.step(Resolved(place)).0, lost, "nor does an operator");
    }
    assert!(lost.step(Resolved(Place::Target)).0.outcome().is_some());
    // The agent that made the call is gone, and its connection with it.
    let (state, _) = run(
        lost,
        &[Adopted { job_running: false }, Asked(Whereabouts::Source)],
    );
    assert!(state.outcome().is_some());
}

fn any_event() -> impl Strategy<Value = Event> {
    let place = prop_oneof![
        Just(Whereabouts::Source),
        Just(Whereabouts::Target),
        Just(Whereabouts::Both),
        Just(Whereabouts::Nowhere),
        Just(Whereabouts::Unsettled),
        Just(Whereabouts::Unanswered),
    ];
    let call = prop_oneof![
        Just(CallResult::Ok),
        Just(CallResult::Error),
        Just(CallResult::Unseen)
    ];
    prop_oneof![
        Just(Event::Admitted),
        Just(Event::Refused(Refusal::NoMemory)),
        Just(Event::Prepared),
        Just(Event::CancelRequested),
        Just(Event::DeadlinePassed),
        Just(Event::WillNotConverge),
        Just(Event::SwitchoverSeen),
        call.prop_map(Event::CallReturned),
        any::<bool>().prop_map(|job_running| Event::Adopted { job_running }),
        place.prop_map(Event::Asked),
        Just(Event::JobSeen),
        Just(Event::GaveUp),
        prop::sample::select(&Place::ALL[..]).prop_map(Event::Resolved),
    ]
}

proptest! {
    #[test]
    fn a_started_migration_ends_only_on_both_hosts_word(
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut state = MigrationState::Ordered;
        let mut started = false;
        for event in events {
            let (next, commands) = state.step(event);
            if let (true, None, Some(outcome)) = (started, state.outcome(), next.outcome()) {
                if let Event::Asked(place) = event {
                    prop_assert_eq!(outcome == Outcome::Done, place == Whereabouts::Target);
                } else if let Event::Resolved(place) = event {
                    // An operator's word is asked for only where the hosts' was not to be had.
                    prop_assert_eq!(outcome, place.outcome());
                    let unknown = matches!(state, MigrationState::Unknown { .. });
                    prop_assert!(unknown, "resolved in {:?}", state);
                } else {
                    return Err(TestCaseError::fail(format!("ended on {event:?}")));
                }
            }
            prop_assert!(!(started && commands.contains(&Command::StartCopy)), "started twice");
            started |= commands.contains(&Command::StartCopy);
            if state.outcome().is_some() {
                prop_assert_eq!(next, state);
                prop_assert!(commands.is_empty());
            }
            state = next;
        }
    }

    #[test]
    fn states_survive_serde(events in prop::collection::vec(any_event(), 0..12)) {
        let (state, _) = run(MigrationState::Ordered, &events);
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<MigrationState>(&text).unwrap(), state);
    }
}
