//! The policy in force, and what is left of it when the one in etcd is broken.

use evenkeel_planner::Policy;
use evenkeel_proto::v1;

/// What governs this cycle.
#[derive(Debug, Clone)]
pub struct ActivePolicy {
    policy: Policy,
    text: String,
    revision: u64,
    mod_revision: i64,
    fault: Option<String>,
}

impl Default for ActivePolicy {
    /// Nothing was ever applied: observe, with the built-in values.
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            text: "schema = 1\n".to_owned(),
            revision: 0,
            mod_revision: 0,
            fault: None,
        }
    }
}

impl ActivePolicy {
    /// The policy that follows from what stands in etcd. A broken one (written around the tools) leaves the
    /// last good one in force for everything but automatic moves, which are held.
    #[must_use]
    pub fn follow(&self, record: Option<&(v1::PolicyRecord, i64)>) -> Self {
        let Some((record, mod_revision)) = record else {
            return Self::default();
        };
        if *mod_revision == self.mod_revision {
            return self.clone();
        }
        match Policy::parse(&record.text) {
            Ok(policy) => Self {
                policy,
                text: record.text.clone(),
                revision: record.revision,
                mod_revision: *mod_revision,
                fault: None,
            },
            Err(error) => Self {
                policy: self.policy.clone(),
                text: self.text.clone(),
                revision: self.revision,
                mod_revision: *mod_revision,
                fault: Some(error.to_string()),
            },
        }
    }

    /// The values in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The text they came from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its revision; 0: nothing was ever applied.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Revision of etcd's key; 0: no such key.
    #[must_use]
    pub fn mod_revision(&self) -> i64 {
        self.mod_revision
    }

    /// What is wrong with the policy in etcd, if it is broken.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_planner::Mode;

    use super::*;

    fn record(text: &str, revision: u64) -> (v1::PolicyRecord, i64) {
        let message = v1::PolicyRecord {
            text: text.into(),
            revision,
            ..Default::default()
        };
        (message, i64::try_from(revision).unwrap() + 100)
    }

    #[test]
    fn a_broken_policy_leaves_the_last_good_one_and_says_so() {
        let good = record("schema = 1\nmode = \"automatic\"\n", 1);
        let active = ActivePolicy::default().follow(Some(&good));
        assert_eq!(
            (active.policy().mode, active.revision()),
            (Mode::Automatic, 1)
        );
        let broken = active.follow(Some(&record("schema = 1\nmode = \"fast\"\n", 2)));
        assert_eq!(
            (broken.policy().mode, broken.revision()),
            (Mode::Automatic, 1)
        );
        assert!(broken.fault().is_some());
        let mended = broken.follow(Some(&record("schema = 1\n", 3)));
        assert_eq!(
            (mended.policy().mode, mended.fault()),
            (Mode::Observe, None)
        );
    }

    #[test]
    fn without_a_policy_the_fleet_is_only_observed() {
        assert_eq!(
            ActivePolicy::default().follow(None).policy().mode,
            Mode::Observe
        );
    }
}
