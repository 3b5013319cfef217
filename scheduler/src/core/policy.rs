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
    /// Whether the values in force were once applied, or are the built-in ones because nothing was.
    sound: bool,
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
            sound: true,
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
        let parsed = if record.text.is_empty() {
            Err("there is no policy in its record".to_owned())
        } else {
            Policy::parse(&record.text).map_err(|error| error.to_string())
        };
        match parsed {
            Ok(policy) => Self {
                policy,
                text: record.text.clone(),
                revision: record.revision,
                mod_revision: *mod_revision,
                fault: None,
                sound: true,
            },
            Err(fault) => Self {
                policy: self.policy.clone(),
                text: self.text.clone(),
                revision: record.revision,
                mod_revision: *mod_revision,
                fault: Some(fault),
                sound: self.sound && self.mod_revision > 0,
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

    /// Revision of the record in etcd, also of a broken one: what replaces it is made from that. 0: nothing
    /// was ever applied.
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

    /// What is wrong with it, if no sound one is known from before: then nobody knows the fleet's rules.
    #[must_use]
    pub fn hidden_by(&self) -> Option<&str> {
        self.fault().filter(|_| !self.sound)
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
            (Mode::Automatic, 2),
            "the good one's values, the broken one's revision"
        );
        assert!(broken.fault().is_some());
        assert_eq!(broken.hidden_by(), None, "the good one's rules are known");
        let mended = broken.follow(Some(&record("schema = 1\n", 3)));
        assert_eq!(
            (mended.policy().mode, mended.fault()),
            (Mode::Observe, None)
        );
    }

    #[test]
    fn a_policy_that_was_never_seen_sound_leaves_no_rules_to_go_by() {
        for text in ["schema = 1\nmode = \"fast\"\n", ""] {
            let broken = ActivePolicy::default().follow(Some(&record(text, 2)));
            assert!(broken.hidden_by().is_some());
            let again = broken.follow(Some(&record("schema = 7\n", 3)));
            assert!(again.hidden_by().is_some());
            let mended = again.follow(Some(&record("schema = 1\n", 4)));
            assert_eq!((mended.hidden_by(), mended.revision()), (None, 4));
        }
    }

    #[test]
    fn without_a_policy_the_fleet_is_only_observed() {
        assert_eq!(
            ActivePolicy::default().follow(None).policy().mode,
            Mode::Observe
        );
    }
}
