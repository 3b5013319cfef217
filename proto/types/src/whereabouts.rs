//! Where a guest is, judged from what both hosts say: the only evidence that closes a migration.
//!
//! libvirt's call may fail although the guest has moved, and leaves paused halves behind. So each host says
//! what it has ([`Presence`]) and [`Whereabouts::judge`] says what that means. Pure; asks nobody itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lifecycle::Outcome;
use crate::reason::FailureReason;

/// What one host says of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// No such guest here, not even a definition.
    Absent,
    /// A definition without a process; also what stays of a guest that has moved away.
    ShutOff,
    /// A process that executes the guest.
    Running,
    /// A process that was paused by an operator or by an error, not by a migration.
    Paused,
    /// A process paused by a migration: a target's half while copying, or a source after switch-over.
    PausedByMigration,
}

impl Presence {
    /// The fixed name used on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::ShutOff => "shut_off",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::PausedByMigration => "paused_by_migration",
        }
    }

    /// Whether the guest's memory is held by a process here that could be (or is) the living one.
    fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What both hosts' answers mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// Alive at the source, and the target has nothing of it.
    Source,
    /// Alive at the target, and the source has at most a definition.
    Target,
    /// Alive on both: the one thing that must never be. Nothing is done to it automatically.
    Both,
    /// No living process on either host: it died.
    Nowhere,
    /// The answers do not decide yet: half-states that libvirt is about to tidy, or that need an operator.
    Unsettled,
    /// At least one host has not answered.
    Unanswered,
}

impl Whereabouts {
    /// Judges from the answers of source and target; `None` stands for a host that did not answer.
    ///
    /// **Invariant:** `Source` and `Target` are only said when the other host has no process of the guest
    /// (test `a_process_on_the_other_host_never_settles`).
    #[must_use]
    pub fn judge(source: Option<Presence>, target: Option<Presence>) -> Self {
        let (Some(source), Some(target)) = (source, target) else {
            return Self::Unanswered;
        };
        let empty = |p| matches!(p, Presence::Absent | Presence::ShutOff);
        match (source, target) {
            (s, t) if s.is_alive() && t.is_alive() => Self::Both,
            (s, t) if s.is_alive() && empty(t) => Self::Source,
            (s, t) if empty(s) && t.is_alive() => Self::Target,
            (s, t) if empty(s) && empty(t) => Self::Nowhere,
            _ => Self::Unsettled,
        }
    }

    /// Judges where a guest is that was moved while it was shut off: its definition is then what lives.
    ///
    /// Two definitions settle nothing: see [`Whereabouts::definition_is_left_behind`].
    #[must_use]
    pub fn judge_shut_off(source: Option<Presence>, target: Option<Presence>) -> Self {
        let (Some(source), Some(target)) = (source, target) else {
            return Self::Unanswered;
        };
        match (source, target) {
            (Presence::ShutOff, Presence::Absent) => Self::Source,
            (Presence::Absent, Presence::ShutOff) => Self::Target,
            (Presence::ShutOff, Presence::ShutOff) => Self::Unsettled,
            (s, t) => Self::judge(Some(s), Some(t)),
        }
    }

    /// Whether what the source has of a guest that was moved while it was shut off is a mere remnant: the
    /// target, where nothing was before, has it. libvirt defines there first, and only then undefines here.
    #[must_use]
    pub fn definition_is_left_behind(source: Presence, target: Presence) -> bool {
        let there = matches!(
            target,
            Presence::ShutOff | Presence::Running | Presence::Paused
        );
        source == Presence::ShutOff && there
    }

    /// The fixed name used on the wire and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Both => "both",
            Self::Nowhere => "nowhere",
            Self::Unsettled => "unsettled",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Where an operator says that a guest is whose hosts do not settle it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At the source.
    Source,
    /// At the target.
    Target,
    /// On neither: it is dead.
    Nowhere,
}

/// What an operator says and a host denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// Whether the source denies it; else the target does.
    pub by_source: bool,
    /// What that host has of the guest.
    pub has: Presence,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 3] = [Self::Source, Self::Target, Self::Nowhere];

    /// The same as an answer of both hosts.
    #[must_use]
    pub fn whereabouts(self) -> Whereabouts {
        match self {
            Self::Source => Whereabouts::Source,
            Self::Target => Whereabouts::Target,
            Self::Nowhere => Whereabouts::Nowhere,
        }
    }

    /// How a migration ends that is closed on this word.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        Outcome::Failed {
            reason: FailureReason::Resolved,
            guest: self.whereabouts(),
        }
    }

    /// Holds the word against the answers of source and target; `None` stands for a host that did not answer and
    /// denies nothing.
    ///
    /// A host denies that it has the guest when it has no process of it, and denies that another has it when the
    /// guest is alive here. A half that a migration left paused denies neither: which of two is the guest is what
    /// the operator decides.
    ///
    /// # Errors
    /// The first host that denies it.
    pub fn check(
        self,
        source: Option<Presence>,
        target: Option<Presence>,
    ) -> Result<(), Contradiction> {
        let is_there = |p: Presence| !matches!(p, Presence::Absent | Presence::ShutOff);
        let fits = |here: bool, has: Presence| match (self, here) {
            (Self::Nowhere, _) => !is_there(has),
            (Self::Source | Self::Target, true) => is_there(has),
            (Self::Source | Self::Target, false) => !has.is_alive(),
        };
        let deny = |by_source: bool, here: bool, has: Option<Presence>| {
            has.filter(|has| !fits(here, *has))
                .map_or(Ok(()), |has| Err(Contradiction { by_source, has }))
        };
        deny(true, self == Self::Source, source)?;
        deny(false, self == Self::Target, target)
    }
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Presence::{Absent, Paused, PausedByMigration, Running, ShutOff};

    const ALL: [Presence; 5] = [Absent, ShutOff, Running, Paused, PausedByMigration];

    #[test]
    fn a_guest_that_is_shut_off_is_where_its_only_definition_is() {
        let judge = |s, t| Whereabouts::judge_shut_off(Some(s), Some(t));
        assert_eq!(judge(ShutOff, Absent), Whereabouts::Source);
        assert_eq!(judge(Absent, ShutOff), Whereabouts::Target);
        assert_eq!(judge(ShutOff, ShutOff), Whereabouts::Unsettled);
        assert_eq!(judge(Running, ShutOff), Whereabouts::Source);
        assert_eq!(judge(ShutOff, Running), Whereabouts::Target);
        assert_eq!(judge(Running, Running), Whereabouts::Both);
        assert_eq!(judge(Absent, Absent), Whereabouts::Nowhere);
        for p in ALL {
            let one = Whereabouts::judge_shut_off(Some(p), None);
            assert_eq!(one, Whereabouts::Unanswered);
            assert!(!Whereabouts::definition_is_left_behind(p, Absent));
            assert!(!Whereabouts::definition_is_left_behind(Running, p));
        }
        assert!(Whereabouts::definition_is_left_behind(ShutOff, ShutOff));
    }

    #[test]
    fn a_silent_host_leaves_the_question_open() {
        for p in ALL {
            assert_eq!(Whereabouts::judge(Some(p), None), Whereabouts::Unanswered);
            assert_eq!(Whereabouts::judge(None, Some(p)), Whereabouts::Unanswered);
        }
    }

    #[test]
    fn a_process_on_the_other_host_never_settles() {
        for source in ALL {
            for target in ALL {
                let said = Whereabouts::judge(Some(source), Some(target));
                if matches!(target, Running | Paused | PausedByMigration) {
                    assert_ne!(said, Whereabouts::Source, "{source} {target}");
                }
                if matches!(source, Running | Paused | PausedByMigration) {
                    assert_ne!(said, Whereabouts::Target, "{source} {target}");
                }
            }
        }
    }

    #[test]
    fn an_operators_word_stands_unless_a_host_denies_it() {
        let silent = None;
        for place in Place::ALL {
            assert_eq!(place.check(silent, silent), Ok(()));
        }
        // The classic of the hand-over: the source is left paused, the target runs.
        let (paused, running) = (Some(PausedByMigration), Some(Running));
        assert_eq!(Place::Target.check(paused, running), Ok(()));
        for (place, source, target, by_source, has) in [
            (Place::Source, paused, running, false, Running),
            (Place::Nowhere, paused, running, true, PausedByMigration),
            (Place::Source, silent, running, false, Running),
            (Place::Nowhere, silent, running, false, Running),
            (Place::Target, silent, Some(ShutOff), false, ShutOff),
            (Place::Source, Some(Absent), silent, true, Absent),
            (Place::Target, Some(Running), Some(Running), true, Running),
            (Place::Source, Some(Running), Some(Paused), false, Paused),
        ] {
            let denied = Contradiction { by_source, has };
            assert_eq!(place.check(source, target), Err(denied), "{place:?}");
        }
        assert_eq!(Place::Nowhere.check(Some(ShutOff), silent), Ok(()));
    }

    #[test]
    fn the_cases_seen_in_the_lab_are_told_apart() {
        let judge = |s, t| Whereabouts::judge(Some(s), Some(t));
        // Moved, source definition left behind because its libvirtd was killed at switch-over.
        assert_eq!(judge(ShutOff, Running), Whereabouts::Target);
        // Source left paused after switch-over: never resumed by us, needs an operator or libvirt.
        assert_eq!(judge(PausedByMigration, Running), Whereabouts::Unsettled);
        // The target's half while copying.
        assert_eq!(judge(Running, PausedByMigration), Whereabouts::Unsettled);
        assert_eq!(judge(Running, Running), Whereabouts::Both);
        assert_eq!(judge(ShutOff, Absent), Whereabouts::Nowhere);
    }
}
