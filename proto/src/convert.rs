//! Between generated messages and typed values. A message from the wire is foreign data: every
//! conversion from it can fail, and says which field is wrong.

use evenkeel_types::lifecycle::{AbortCause, CallResult, CopyFacts};
use evenkeel_types::{
    FailureReason, MigrationState, Outcome, Place, Presence, Refusal, Whereabouts,
};

use crate::v1;

/// A field of a message that does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} of {message} holds {given:?}")]
pub struct BadField {
    /// The message's name.
    pub message: &'static str,
    /// The field's name.
    pub field: &'static str,
    /// What it held, shortened.
    pub given: String,
}

/// Names a bad field.
#[must_use]
pub fn bad_field(message: &'static str, field: &'static str, given: &str) -> BadField {
    BadField {
        message,
        field,
        given: given.chars().take(64).collect(),
    }
}

/// Every presence by its fixed name.
const PRESENCES: [Presence; 5] = [
    Presence::Absent,
    Presence::ShutOff,
    Presence::Running,
    Presence::Paused,
    Presence::PausedByMigration,
];

/// Every whereabouts by its fixed name.
const WHEREABOUTS: [Whereabouts; 6] = [
    Whereabouts::Source,
    Whereabouts::Target,
    Whereabouts::Both,
    Whereabouts::Nowhere,
    Whereabouts::Unsettled,
    Whereabouts::Unanswered,
];

/// Reads a presence by its fixed name.
///
/// # Errors
/// When the name is unknown.
pub fn presence(text: &str) -> Result<Presence, BadField> {
    PRESENCES
        .into_iter()
        .find(|p| p.as_str() == text)
        .ok_or_else(|| bad_field("InspectReply", "presence", text))
}

fn whereabouts(text: &str) -> Result<Whereabouts, BadField> {
    WHEREABOUTS
        .into_iter()
        .find(|w| w.as_str() == text)
        .ok_or_else(|| bad_field("MigrationState", "whereabouts", text))
}

/// Reads a place by its fixed name.
///
/// # Errors
/// When the name is unknown.
pub fn place(text: &str) -> Result<Place, BadField> {
    Place::ALL
        .into_iter()
        .find(|place| place.whereabouts().as_str() == text)
        .ok_or_else(|| bad_field("ResolveRequest", "place", text))
}

fn facts_from(state: &v1::MigrationState) -> Result<CopyFacts, BadField> {
    let abort = match state.abort.as_str() {
        "" => None,
        "cancelled" => Some(AbortCause::Cancelled),
        "deadline" => Some(AbortCause::Deadline),
        "not_converging" => Some(AbortCause::NotConverging),
        other => return Err(bad_field("MigrationState", "abort", other)),
    };
    let call = match state.call.as_str() {
        "" => None,
        "ok" => Some(CallResult::Ok),
        "error" => Some(CallResult::Error),
        "unseen" => Some(CallResult::Unseen),
        other => return Err(bad_field("MigrationState", "call", other)),
    };
    Ok(CopyFacts { abort, call })
}

fn with_facts(state: &mut v1::MigrationState, facts: CopyFacts) {
    state.abort = match facts.abort {
        None => "",
        Some(AbortCause::Cancelled) => "cancelled",
        Some(AbortCause::Deadline) => "deadline",
        Some(AbortCause::NotConverging) => "not_converging",
    }
    .to_owned();
    state.call = match facts.call {
        None => "",
        Some(CallResult::Ok) => "ok",
        Some(CallResult::Error) => "error",
        Some(CallResult::Unseen) => "unseen",
    }
    .to_owned();
}

impl TryFrom<&v1::MigrationState> for MigrationState {
    type Error = BadField;

    fn try_from(state: &v1::MigrationState) -> Result<Self, BadField> {
        use v1::MigrationPhase as Phase;
        let refusal = || {
            let unknown = |_| bad_field("MigrationState", "reason", &state.reason);
            state.reason.parse::<Refusal>().map_err(unknown)
        };
        let failure = || {
            let unknown = |_| bad_field("MigrationState", "reason", &state.reason);
            state.reason.parse::<FailureReason>().map_err(unknown)
        };
        Ok(match state.phase() {
            Phase::Unspecified => {
                return Err(bad_field(
                    "MigrationState",
                    "phase",
                    &state.phase.to_string(),
                ));
            }
            Phase::Ordered => Self::Ordered,
            Phase::Preparing => Self::Preparing,
            Phase::Running => Self::Running(facts_from(state)?),
            Phase::Switching => Self::Switching(facts_from(state)?),
            Phase::Unknown => Self::Unknown {
                facts: facts_from(state)?,
                last: whereabouts(&state.whereabouts)?,
            },
            Phase::Done => Self::Ended(Outcome::Done),
            Phase::Refused => Self::Ended(Outcome::Refused(refusal()?)),
            Phase::Cancelled => Self::Ended(Outcome::Cancelled),
            Phase::Failed => Self::Ended(Outcome::Failed {
                reason: failure()?,
                guest: whereabouts(&state.whereabouts)?,
            }),
        })
    }
}

impl From<MigrationState> for v1::MigrationState {
    fn from(state: MigrationState) -> Self {
        use v1::MigrationPhase as Phase;
        let mut message = Self::default();
        let phase = match state {
            MigrationState::Ordered => Phase::Ordered,
            MigrationState::Preparing => Phase::Preparing,
            MigrationState::Running(facts) => {
                with_facts(&mut message, facts);
                Phase::Running
            }
            MigrationState::Switching(facts) => {
                with_facts(&mut message, facts);
                Phase::Switching
            }
            MigrationState::Unknown { facts, last } => {
                with_facts(&mut message, facts);
                last.as_str().clone_into(&mut message.whereabouts);
                Phase::Unknown
            }
            MigrationState::Ended(Outcome::Done) => Phase::Done,
            MigrationState::Ended(Outcome::Cancelled) => Phase::Cancelled,
            MigrationState::Ended(Outcome::Refused(reason)) => {
                reason.as_str().clone_into(&mut message.reason);
                Phase::Refused
            }
            MigrationState::Ended(Outcome::Failed { reason, guest }) => {
                reason.as_str().clone_into(&mut message.reason);
                guest.as_str().clone_into(&mut message.whereabouts);
                Phase::Failed
            }
        };
        message.set_phase(phase);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_state() -> Vec<MigrationState> {
        let mut facts = vec![];
        for abort in [
            None,
            Some(AbortCause::Cancelled),
            Some(AbortCause::Deadline),
            Some(AbortCause::NotConverging),
        ] {
            for call in [
                None,
                Some(CallResult::Ok),
                Some(CallResult::Error),
                Some(CallResult::Unseen),
            ] {
                facts.push(CopyFacts { abort, call });
            }
        }
        let mut states = vec![MigrationState::Ordered, MigrationState::Preparing];
        states.extend(facts.iter().map(|&f| MigrationState::Running(f)));
        states.extend(facts.iter().map(|&f| MigrationState::Switching(f)));
        for last in WHEREABOUTS {
            states.extend(
                facts
                    .iter()
                    .map(|&facts| MigrationState::Unknown { facts, last }),
            );
        }
        let ended = |o| MigrationState::Ended(o);
        states.extend([ended(Outcome::Done), ended(Outcome::Cancelled)]);
        states.extend(Refusal::ALL.iter().map(|&r| ended(Outcome::Refused(r))));
        for &reason in FailureReason::ALL {
            states.extend(WHEREABOUTS.map(|guest| ended(Outcome::Failed { reason, guest })));
        }
        states
    }

    #[test]
    fn every_state_survives_the_wire() {
        for state in every_state() {
            let message = v1::MigrationState::from(state);
            assert_eq!(MigrationState::try_from(&message), Ok(state), "{message:?}");
        }
    }

    #[test]
    fn a_phase_or_reason_of_a_newer_version_is_an_error_not_a_guess() {
        let unknown_phase = v1::MigrationState {
            phase: 77,
            ..Default::default()
        };
        assert!(MigrationState::try_from(&unknown_phase).is_err());
        let mut unknown_reason = v1::MigrationState {
            reason: "moon_phase".into(),
            ..Default::default()
        };
        unknown_reason.set_phase(v1::MigrationPhase::Refused);
        assert_eq!(
            MigrationState::try_from(&unknown_reason).unwrap_err().field,
            "reason"
        );
    }

    #[test]
    fn presences_parse_from_their_names() {
        for p in PRESENCES {
            assert_eq!(presence(p.as_str()), Ok(p));
        }
        assert!(presence("elsewhere").is_err());
    }
}
