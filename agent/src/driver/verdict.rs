//! What the answers of both hosts mean for a migration. Pure: the tasks ask and wait, and judge with this; so does
//! the model of tests/model, which goes through every order in which the answers can come.

use evenkeel_types::{CallResult, Event, MigrationState, Place, Presence, Whereabouts};

/// What was heard when both hosts were asked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heard {
    /// What source and target have; `None`: no answer.
    pub said: (Option<Presence>, Option<Presence>),
    /// Whether libvirt has a migration job for the guest at the source, or did not say.
    pub has_job: bool,
    /// Whether the guest is moved while it is shut off.
    pub shut_off: bool,
}

impl Heard {
    /// Where the guest is. While libvirt still has a job for it nothing is settled.
    #[must_use]
    pub fn place(self) -> Whereabouts {
        let (source, target) = self.said;
        let judged = if self.shut_off {
            Whereabouts::judge_shut_off(source, target)
        } else {
            Whereabouts::judge(source, target)
        };
        if judged != Whereabouts::Unanswered && self.has_job {
            Whereabouts::Unsettled
        } else {
            judged
        }
    }

    /// Whether the guest lives at the source and nothing of it at the target: a job that is there is then its
    /// copy.
    #[must_use]
    pub fn is_only_at_source(self) -> bool {
        let alive = |said| matches!(said, Some(Presence::Running | Presence::Paused));
        alive(self.said.0) && !alive(self.said.1)
    }

    /// Whether all that the source has is a definition that the target has, too, and no job is at it.
    #[must_use]
    pub fn is_remnant(self) -> bool {
        let both = self.said.0.zip(self.said.1);
        self.shut_off
            && !self.has_job
            && both.is_some_and(|(s, t)| Whereabouts::definition_is_left_behind(s, t))
    }
}

/// Whether an answer must be given twice before it counts: one that would close a migration whose `call` did not
/// succeed, for libvirtd may be tidying up behind it.
#[must_use]
pub fn must_be_confirmed(call: Option<CallResult>, place: Whereabouts) -> bool {
    let sure = call == Some(CallResult::Ok) && place == Whereabouts::Target;
    !sure && !is_open(place)
}

/// What two answers say together.
#[must_use]
pub fn confirmed(first: Whereabouts, again: Whereabouts) -> Whereabouts {
    if first == again {
        again
    } else {
        Whereabouts::Unsettled
    }
}

/// An answer of both hosts that an asking has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Brought {
    /// How libvirt's call had come back when the asking began.
    pub begun: Option<CallResult>,
    /// What the hosts said.
    pub place: Whereabouts,
}

impl Brought {
    /// Whether it says anything. The hosts are asked side by side, and one may have answered before a call acted whose
    /// end is known by now: such answers together settle nothing.
    #[must_use]
    pub fn counts(self, state: &MigrationState) -> bool {
        self.begun == call_of(state)
    }

    /// What it means to the machine: after a `long` while without a settling one, that we gave up.
    #[must_use]
    pub fn event(self, state: &MigrationState, long: bool) -> Event {
        let place = if self.counts(state) {
            self.place
        } else {
            Whereabouts::Unsettled
        };
        if is_open(place) && long && matches!(state, MigrationState::Switching(_)) {
            Event::GaveUp
        } else {
            Event::Asked(place)
        }
    }
}

fn is_open(place: Whereabouts) -> bool {
    matches!(place, Whereabouts::Unsettled | Whereabouts::Unanswered)
}

/// How libvirt's call came back, if it did.
#[must_use]
pub fn call_of(state: &MigrationState) -> Option<CallResult> {
    match state {
        MigrationState::Running(facts)
        | MigrationState::Switching(facts)
        | MigrationState::Unknown { facts, .. } => facts.call,
        MigrationState::Ordered | MigrationState::Preparing | MigrationState::Ended(_) => None,
    }
}

/// Why an operator's word does not close a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// It is not unknown.
    #[error("the migration is {phase}, not unknown")]
    NotUnknown {
        /// Where it stands.
        phase: &'static str,
    },
    /// libvirt's call is out: only a guest that has moved is out of its reach.
    #[error("libvirt has the call and may act yet")]
    CallIsOut,
}

/// Judges whether an operator's word may close a migration.
///
/// # Errors
/// Why not.
pub fn may_resolve(state: &MigrationState, place: Place) -> Result<(), Unresolvable> {
    let MigrationState::Unknown { facts, .. } = state else {
        let phase = state.as_str();
        return Err(Unresolvable::NotUnknown { phase });
    };
    if facts.call.is_none() && place != Place::Target {
        return Err(Unresolvable::CallIsOut);
    }
    Ok(())
}

/// Why the half that a migration has left paused at the source is not destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Indiscardable {
    /// The operator says that it is the guest.
    #[error("the guest is said to be there: what is paused is not left over, it is the guest")]
    IsTheGuest,
    /// There is none.
    #[error("no half of it is paused")]
    NoHalf,
}

/// Judges whether an operator who says that the guest is at `place` may have the half at the source destroyed.
///
/// # Errors
/// Why not.
pub fn may_discard(place: Place, source: Option<Presence>) -> Result<(), Indiscardable> {
    match place {
        _ if source != Some(Presence::PausedByMigration) => Err(Indiscardable::NoHalf),
        Place::Source => Err(Indiscardable::IsTheGuest),
        Place::Target | Place::Nowhere => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_the_guest_is_discarded() {
        let paused = Some(Presence::PausedByMigration);
        assert_eq!(may_discard(Place::Target, paused), Ok(()));
        let denied = may_discard(Place::Source, paused);
        assert_eq!(denied, Err(Indiscardable::IsTheGuest));
        for source in [None, Some(Presence::Running), Some(Presence::Paused)] {
            let denied = may_discard(Place::Target, source);
            assert_eq!(denied, Err(Indiscardable::NoHalf));
        }
    }
}
