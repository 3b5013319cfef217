//! What a guest's copy is priced by: the curve that its agent measured lately, else a rate, and never less than what a
//! copy that really ran has shown.

use super::lessons;
use crate::observe::{GuestReading, Remembered};

/// What is known of how a guest changes its memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Dirt {
    /// MiB/s; 0: nothing is known.
    pub(super) rate_mib_s: f64,
    /// Seconds and MiB changed within them; empty: the rate counts.
    pub(super) curve: Vec<(f64, f64)>,
}

impl Dirt {
    /// Weighs what is measured of a guest against what is remembered of its copies.
    ///
    /// The rate is the larger of both: a sample taken for anybody at any time does not make little of a copy. After a
    /// copy that did not converge it alone counts, for the copy has seen more than some quiet half-minute.
    /// Else the curve counts, raised to what copies saw: QEMU tells a copy's rate over a second or more, so that in a
    /// second no less than that much changes.
    pub(super) fn of(reading: &GuestReading, remembered: Option<&Remembered>) -> Self {
        let learned = remembered.map_or(0.0, |r| r.message.dirty_rate_mib_s.max(0.0));
        let rate_mib_s = reading.dirty_rate_mib_s.unwrap_or(0.0).max(learned);
        let raised = |&(seconds, mib): &(f64, f64)| (seconds, mib.max(learned * seconds.min(1.0)));
        let curve = if is_of_use(remembered) {
            reading.dirty_curve.iter().map(raised).collect()
        } else {
            vec![]
        };
        Self { rate_mib_s, curve }
    }
}

/// Whether a curve of this guest would count.
pub(super) fn is_of_use(remembered: Option<&Remembered>) -> bool {
    !remembered.is_some_and(|r| lessons::last_did_not_converge(&r.moves))
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::v1;
    use evenkeel_types::{FailureReason, MigrationState, Outcome, Refusal, Whereabouts};

    use super::*;
    use crate::core::tests::reading;
    use crate::observe::Past;

    const CURVE: [(f64, f64); 3] = [(0.5, 10.0), (1.0, 20.0), (4.0, 50.0)];

    fn measured(rate: Option<f64>, curve: &[(f64, f64)]) -> GuestReading {
        GuestReading {
            dirty_rate_mib_s: rate,
            dirty_curve: curve.to_vec(),
            ..reading(1, 0.5, 0.0)
        }
    }

    fn copied(learned: f64, ends: &[Outcome]) -> Remembered {
        let past = |end: &Outcome| Past {
            source: "h1".into(),
            target: "h2".into(),
            ended_ms: 0,
            trigger: "balance".into(),
            state: Some(MigrationState::Ended(*end)),
            longest_pause: std::time::Duration::ZERO,
            post_copy: false,
        };
        Remembered {
            cooldown_until_ms: 0,
            moves: ends.iter().map(past).collect(),
            message: v1::GuestRecord {
                dirty_rate_mib_s: learned,
                ..Default::default()
            },
            mod_revision: 1,
        }
    }

    fn dirt(rate_mib_s: f64, curve: &[(f64, f64)]) -> Dirt {
        Dirt {
            rate_mib_s,
            curve: curve.to_vec(),
        }
    }

    #[test]
    fn a_curve_counts_as_it_is_where_no_copy_is_known() {
        let known = Dirt::of(&measured(Some(12.0), &CURVE), None);
        assert_eq!(known, dirt(12.0, &CURVE));
        assert_eq!(Dirt::of(&measured(None, &[]), None), Dirt::default());
    }

    #[test]
    fn without_a_curve_the_larger_rate_counts() {
        let done = copied(30.0, &[Outcome::Done]);
        for (sampled, rate) in [(None, 30.0), (Some(12.0), 30.0), (Some(80.0), 80.0)] {
            let known = Dirt::of(&measured(sampled, &[]), Some(&done));
            assert_eq!(known, dirt(rate, &[]), "{sampled:?}");
        }
    }

    #[test]
    fn what_a_copy_saw_within_a_second_no_curve_undercuts() {
        let done = copied(30.0, &[Outcome::Done]);
        let known = Dirt::of(&measured(None, &CURVE), Some(&done));
        assert_eq!(known, dirt(30.0, &[(0.5, 15.0), (1.0, 30.0), (4.0, 50.0)]));
    }

    #[test]
    fn after_a_copy_that_did_not_converge_its_rate_counts_and_no_curve() {
        let failed = |reason| Outcome::Failed {
            reason,
            guest: Whereabouts::Source,
        };
        let given_up = failed(FailureReason::NotConverging);
        let refused = Outcome::Refused(Refusal::Busy);
        let rate_alone = dirt(90.0, &[]);
        for ends in [&[given_up][..], &[given_up, refused]] {
            let known = Dirt::of(&measured(Some(5.0), &CURVE), Some(&copied(90.0, ends)));
            assert_eq!(known, rate_alone, "{ends:?}");
        }
        let went_later = copied(10.0, &[given_up, Outcome::Done]);
        let known = Dirt::of(&measured(None, &CURVE), Some(&went_later));
        assert_eq!(known, dirt(10.0, &CURVE));
    }
}
