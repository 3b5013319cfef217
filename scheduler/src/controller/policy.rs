//! The policy and its mode: changed by compare-and-swap, earlier ones kept with who changed them and why.

use etcd_client::Compare;
use evenkeel_daemon::store::guard;
use evenkeel_daemon::unix_ms;
use evenkeel_planner::{Mode, Policy};
use evenkeel_proto::v1;
use evenkeel_types::EventKind;

use super::Controller;
use super::write::WriteError;
use crate::core::events;
use crate::lease::Mandate;

/// Policy revisions that are kept: half a year of weekly changes and a bad week.
const POLICY_HISTORY: usize = 50;
/// Old revisions removed by one change: etcd bounds a transaction, and an older version kept them all.
const MOST_REMOVED: usize = 32;
/// Bytes of a policy: a fleet of thousands of rules has less, and etcd takes 1.5 MiB in one write.
const MOST_POLICY_BYTES: usize = 256 * 1024;

impl Controller {
    pub(super) async fn set_mode(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::SetModeRequest,
        by: &str,
    ) -> Result<v1::SetModeReply, WriteError> {
        let mandate = mandate?;
        let mode: Mode = request.mode.parse().map_err(|_| {
            WriteError::Invalid(format!(
                "{:?}: expected off, observe or automatic",
                request.mode
            ))
        })?;
        if let Some(fault) = self.active.fault() {
            return Err(WriteError::Refused(format!(
                "mend the policy first: {fault}"
            )));
        }
        let previous = self.active.policy().mode.as_str().to_owned();
        if mode == self.active.policy().mode {
            return Ok(v1::SetModeReply {
                previous,
                policy_revision: self.active.revision(),
            });
        }
        let text = Policy::with_mode(self.active.text(), mode);
        let record = self.next_policy(text, request.reason, by);
        if !request.dry_run {
            self.put_policy(&mandate, &record, EventKind::ModeChanged)
                .await?;
            tracing::info!(
                by,
                mode = mode.as_str(),
                previous,
                reason = record.reason,
                "mode set"
            );
        }
        Ok(v1::SetModeReply {
            previous,
            policy_revision: record.revision,
        })
    }

    pub(super) async fn apply_policy(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::ApplyPolicyRequest,
        by: &str,
    ) -> Result<v1::ApplyPolicyReply, WriteError> {
        let mandate = mandate?;
        if request.text.len() > MOST_POLICY_BYTES {
            return Err(WriteError::Invalid(format!(
                "the policy has {} bytes, at most {MOST_POLICY_BYTES} are taken",
                request.text.len()
            )));
        }
        Policy::parse(&request.text).map_err(|error| WriteError::Invalid(error.to_string()))?;
        let standing = self.standing_revision();
        if request.expected_revision != standing {
            return Err(WriteError::Conflict(format!(
                "made from revision {}, but {standing} is active",
                request.expected_revision
            )));
        }
        let record = self.next_policy(request.text, request.reason, by);
        if !request.dry_run {
            self.put_policy(&mandate, &record, EventKind::PolicyChanged)
                .await?;
            tracing::info!(
                by,
                revision = record.revision,
                reason = record.reason,
                "policy applied"
            );
        }
        Ok(v1::ApplyPolicyReply {
            policy_revision: record.revision,
        })
    }

    /// Revision of the record in etcd, sound or not.
    fn standing_revision(&self) -> u64 {
        let standing = self.fleet.policy.as_ref();
        standing.map_or(0, |(record, _)| record.revision)
    }

    fn next_policy(&self, text: String, reason: String, by: &str) -> v1::PolicyRecord {
        let kept = self.fleet.policy_history.keys().next_back();
        let kept = kept.copied().unwrap_or(0);
        let standing = kept.max(self.standing_revision());
        v1::PolicyRecord {
            text,
            author: by.to_owned(),
            reason,
            applied_at_ms: unix_ms(),
            revision: standing + 1,
        }
    }

    async fn put_policy(
        &mut self,
        mandate: &Mandate,
        record: &v1::PolicyRecord,
        kind: EventKind,
    ) -> Result<(), WriteError> {
        let active = self.keys.policy_active();
        let guards: Vec<Compare> = match &self.fleet.policy {
            Some((_, mod_revision)) => vec![guard::unchanged(&active, *mod_revision)],
            None => vec![guard::absent(&active)],
        };
        let history = self.keys.policy_history(record.revision);
        let mut writes = vec![guard::put(&active, record), guard::put(&history, record)];
        let surplus = surplus(self.fleet.policy_history.keys().copied(), record.revision);
        writes.extend(
            surplus
                .iter()
                .map(|n| guard::delete(&self.keys.policy_history(*n))),
        );
        let mode = Policy::parse(&record.text).map(|policy| policy.mode);
        let told = v1::Event {
            policy_revision: record.revision,
            mode: mode.map_or("", Mode::as_str).to_owned(),
            ..events::event(kind, &record.author, &record.reason)
        };
        let revision = self
            .commit_with(mandate, "policy", (guards, writes), vec![told])
            .await?;
        // Our picture follows our own writes at once; the mirror brings the same again.
        self.fleet.policy = Some((record.clone(), revision));
        let history = &mut self.fleet.policy_history;
        history.insert(record.revision, record.clone());
        for n in surplus {
            history.remove(&n);
        }
        Ok(())
    }
}

/// Revisions that fall out of the history when `next` joins it, the oldest first.
fn surplus(kept: impl Iterator<Item = u64>, next: u64) -> Vec<u64> {
    let mut before: Vec<u64> = kept.filter(|n| *n != next).collect();
    let too_many = (before.len() + 1).saturating_sub(POLICY_HISTORY);
    before.truncate(too_many.min(MOST_REMOVED));
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_policies_fall_out_of_the_history() {
        let check = |kept, next, expected: &[u64]| {
            assert_eq!(surplus(kept, next), expected);
        };
        check(1..=49, 50, &[]);
        check(1..=50, 51, &[1]);
        check(2..=51, 51, &[]); // written again
        assert_eq!(surplus(1..=200, 201).len(), MOST_REMOVED);
    }
}
