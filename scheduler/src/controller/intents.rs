//! Cordons and drains: asked for, ended, and found to be done. Only under a mandate.

use evenkeel_daemon::store::guard;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1;
use evenkeel_types::HostName;

use super::record::verb_of;
use super::write::WriteError;
use super::{Controller, Planned};
use crate::core::drains::{self, Drain, Evidence, Newest};
use crate::core::events;
use crate::lease::Mandate;
use crate::observe::{IntentEntry, IntentKind};

/// Hosts of one request: each takes a guard and two writes of one transaction, of which etcd takes 128.
const MOST_HOSTS: usize = 60;
/// The latest deadline: a year is surely a mistake of units.
const LONGEST_DEADLINE_S: u64 = 365 * 86_400;

/// An intent that is to stand, or none.
type Change = (HostName, Option<v1::Intent>);

impl Controller {
    pub(super) async fn set_intent(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::SetIntentRequest,
        by: &str,
    ) -> Result<v1::SetIntentReply, WriteError> {
        let mandate = mandate?;
        let hosts = names(&request.hosts)?;
        if let Some(unknown) = hosts.iter().find(|h| !self.fleet.hosts.contains_key(*h)) {
            return Err(WriteError::NotFound(format!("there is no host {unknown}")));
        }
        let now_ms = unix_ms();
        let mut reply = v1::SetIntentReply::default();
        let mut changes = vec![];
        for host in hosts {
            let before = self.fleet.intents.get(&host).map(|entry| &entry.message);
            let intent = wanted(&request, before, by, (&host, now_ms))?;
            if before != Some(&intent) {
                changes.push((host, Some(intent.clone())));
            }
            reply.previous.extend(before.cloned());
            reply.intents.push(intent);
        }
        if !request.dry_run {
            let verb = verb_of(request.kind());
            self.put_intents(&mandate, changes, verb, (by, &request.reason))
                .await?;
        }
        Ok(reply)
    }

    pub(super) async fn clear_intent(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::ClearIntentRequest,
        by: &str,
    ) -> Result<v1::ClearIntentReply, WriteError> {
        let mandate = mandate?;
        let mut reply = v1::ClearIntentReply::default();
        let mut changes = vec![];
        for host in names(&request.hosts)? {
            let Some(entry) = self.fleet.intents.get(&host) else {
                if self.fleet.hosts.contains_key(&host) {
                    continue; // nothing to end
                }
                return Err(WriteError::NotFound(format!("there is no host {host}")));
            };
            if request.drain_only && entry.kind != IntentKind::Drain {
                continue;
            }
            let cordon = entry.message.cordon.as_deref().cloned();
            let standing = cordon.filter(|_| request.drain_only);
            reply.ended.push(entry.message.clone());
            reply.standing.extend(standing.clone());
            changes.push((host, standing));
        }
        if !request.dry_run {
            let verb = if request.drain_only {
                "cancel drain"
            } else {
                "uncordon"
            };
            self.put_intents(&mandate, changes, verb, (by, &request.reason))
                .await?;
        }
        Ok(reply)
    }

    /// Writes all of these or none, each over what we know to stand there.
    async fn put_intents(
        &mut self,
        mandate: &Mandate,
        changes: Vec<Change>,
        verb: &str,
        (by, reason): (&str, &str),
    ) -> Result<(), WriteError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (mut guards, mut writes, mut told) = (vec![], vec![], vec![]);
        for (host, intent) in &changes {
            let key = self.keys.intent(host);
            guards.push(match self.fleet.intents.get(host) {
                Some(before) => guard::unchanged(&key, before.mod_revision),
                None => guard::absent(&key),
            });
            writes.push(match intent {
                Some(intent) => guard::put(&key, intent),
                None => guard::delete(&key),
            });
            let before = self.fleet.intents.get(host).map(|entry| &entry.message);
            let states = (before, intent.as_ref());
            told.push(events::intent_changed(host.as_str(), states, (by, reason)));
        }
        let revision = self
            .commit_with(mandate, verb, (guards, writes), told)
            .await?;
        for (host, intent) in changes {
            tracing::info!(%host, by, reason, "{verb}");
            // In our picture at once: what is judged next must know it.
            match intent {
                Some(message) => {
                    let entry = IntentEntry::new(message, revision);
                    self.fleet.intents.insert(host, entry)
                }
                None => self.fleet.intents.remove(&host),
            };
        }
        self.pace.hasten(unix_ms());
        Ok(())
    }

    /// Writes down which drains libvirt says to be done, and which are not any more.
    pub(super) async fn look_after_drains(&mut self, mandate: &Mandate, now_ms: i64) {
        let drains: Vec<HostName> = self.fleet.drains().map(|(host, _)| host.clone()).collect();
        for host in drains {
            let Some(entry) = self.fleet.drain_of(&host) else {
                continue;
            };
            let was_drained = entry.message.drained_at_ms > 0;
            let snapshot = &self.assessment.snapshot;
            let drained_at_ms = match drains::evidence(&self.fleet, snapshot, &host) {
                Evidence::Nothing if !was_drained => now_ms,
                Evidence::Something if was_drained => 0,
                Evidence::Nothing | Evidence::Something | Evidence::Unheard => continue,
            };
            let intent = v1::Intent {
                drained_at_ms,
                ..entry.message.clone()
            };
            let verb = if drained_at_ms > 0 {
                "drained"
            } else {
                "no longer drained"
            };
            let by = format!("scheduler/{}", self.parts.name);
            let change = vec![(host, Some(intent))];
            // A write that failed was logged, and the next look tries again.
            if self
                .put_intents(mandate, change, verb, (&by, "by libvirt's word"))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// How the drain of a host stands; `None`: it is not being drained.
    #[must_use]
    pub fn drain_of(&self, host: &HostName) -> Option<Drain> {
        let newest = self.planned.as_ref().filter(|p| p.knows_drain(host));
        let newest = newest.map(|planned| Newest {
            plan: &planned.plan,
            choice: &planned.choice,
        });
        drains::stand(&self.fleet, &self.assessment, host, newest)
    }

    /// Every drain, by host.
    #[must_use]
    pub fn drains(&self) -> Vec<(&HostName, &IntentEntry, Drain)> {
        let intents = self.fleet.intents.iter();
        intents
            .filter_map(|(host, entry)| Some((host, entry, self.drain_of(host)?)))
            .collect()
    }
}

impl Planned {
    /// Whether the plan was made with this host draining: only then does it say anything about that.
    fn knows_drain(&self, host: &HostName) -> bool {
        self.draining.contains(host.as_str())
    }
}

/// The hosts of a request, each once.
fn names(hosts: &[String]) -> Result<Vec<HostName>, WriteError> {
    if hosts.is_empty() || hosts.len() > MOST_HOSTS {
        let count = hosts.len();
        return Err(WriteError::Invalid(format!(
            "{count} hosts, expected 1 to {MOST_HOSTS}"
        )));
    }
    let mut names = vec![];
    for host in hosts {
        let name = host.parse();
        let name: HostName =
            name.map_err(|_| WriteError::NotFound(format!("there is no host {host:?}")))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The intent that stands for a host when the request has been carried out over `before`.
///
/// Asked for again, a drain stays what it is but for what is said anew, so that following it again disturbs nothing.
fn wanted(
    request: &v1::SetIntentRequest,
    before: Option<&v1::Intent>,
    by: &str,
    (host, now_ms): (&HostName, i64),
) -> Result<v1::Intent, WriteError> {
    let fresh = v1::Intent {
        host: host.to_string(),
        kind: request.kind,
        by: by.to_owned(),
        reason: request.reason.clone(),
        since_ms: now_ms,
        ..v1::Intent::default()
    };
    let drains = before.filter(|before| before.kind() == v1::IntentKind::Drain);
    match request.kind() {
        v1::IntentKind::Unspecified => Err(WriteError::Invalid(
            "expected a cordon or a drain".to_owned(),
        )),
        v1::IntentKind::Cordon => Ok(match (before, drains) {
            // It takes no guests already; this says that it shall not after the drain either.
            (_, Some(drain)) if drain.cordon.is_none() => v1::Intent {
                cordon: Some(Box::new(fresh)),
                ..drain.clone()
            },
            (Some(before), _) => before.clone(),
            (None, _) => fresh,
        }),
        v1::IntentKind::Drain => {
            let cordon = || before.cloned().map(Box::new);
            let intent = drains.cloned().unwrap_or_else(|| v1::Intent {
                cordon: cordon(),
                ..fresh.clone()
            });
            extended(intent, request, now_ms)
        }
    }
}

/// A drain with what a request says anew of it.
fn extended(
    mut drain: v1::Intent,
    request: &v1::SetIntentRequest,
    now_ms: i64,
) -> Result<v1::Intent, WriteError> {
    if request.deadline_seconds > LONGEST_DEADLINE_S {
        return Err(WriteError::Invalid("the deadline is too far".to_owned()));
    }
    if let (true, Ok(seconds)) = (
        request.deadline_seconds > 0,
        i64::try_from(request.deadline_seconds),
    ) {
        drain.deadline_ms = now_ms.saturating_add(seconds.saturating_mul(1000));
    }
    if request.offline_too && !drain.offline_too {
        drain.offline_too = true;
        drain.drained_at_ms = 0; // more has to go than was looked for
    }
    if !request.reason.is_empty() {
        drain.reason.clone_from(&request.reason);
    }
    Ok(drain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        kind: v1::IntentKind,
        edit: impl FnOnce(&mut v1::SetIntentRequest),
    ) -> v1::SetIntentRequest {
        let mut request = v1::SetIntentRequest {
            hosts: vec!["h1".to_owned()],
            kind: kind.into(),
            ..Default::default()
        };
        edit(&mut request);
        request
    }

    fn after(
        request: &v1::SetIntentRequest,
        before: Option<&v1::Intent>,
        by: &str,
        now_ms: i64,
    ) -> v1::Intent {
        wanted(request, before, by, (&"h1".parse().unwrap(), now_ms)).unwrap()
    }

    #[test]
    fn a_drain_asked_for_again_stays_what_it_is_but_for_what_is_said_anew() {
        let drain = asked(v1::IntentKind::Drain, |r| r.deadline_seconds = 60);
        let first = after(&drain, None, "alice", 1000);
        assert_eq!((first.since_ms, first.deadline_ms), (1000, 61_000));
        let drained = v1::Intent {
            drained_at_ms: 9000,
            ..first.clone()
        };
        let followed = asked(v1::IntentKind::Drain, |_| {});
        assert_eq!(after(&followed, Some(&drained), "bob", 5000), drained);
        let longer = asked(v1::IntentKind::Drain, |r| {
            r.deadline_seconds = 600;
            r.offline_too = true;
        });
        let extended = after(&longer, Some(&drained), "bob", 10_000);
        let facts = (
            extended.since_ms,
            extended.deadline_ms,
            extended.drained_at_ms,
        );
        assert_eq!(facts, (1000, 610_000, 0), "shut-off guests are left now");
        assert_eq!(extended.by, "alice");
    }

    #[test]
    fn a_cordon_from_before_or_during_a_drain_is_kept_in_it() {
        let cordon = asked(v1::IntentKind::Cordon, |r| r.reason = "fan".to_owned());
        let drain = asked(v1::IntentKind::Drain, |_| {});
        let cordoned = after(&cordon, None, "alice", 1);
        assert_eq!(after(&cordon, Some(&cordoned), "bob", 2), cordoned);
        let drained = after(&drain, Some(&cordoned), "bob", 3);
        assert_eq!(drained.cordon.as_deref(), Some(&cordoned));
        let alone = after(&drain, None, "bob", 3);
        let both = after(&cordon, Some(&alone), "alice", 4);
        assert_eq!(both.kind(), v1::IntentKind::Drain);
        let kept = both.cordon.unwrap();
        assert_eq!((kept.by.as_str(), kept.since_ms), ("alice", 4));
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let none = asked(v1::IntentKind::Unspecified, |_| {});
        let host = "h1".parse().unwrap();
        let refused = wanted(&none, None, "alice", (&host, 1));
        assert!(matches!(refused, Err(WriteError::Invalid(_))));
        let ages = asked(v1::IntentKind::Drain, |r| r.deadline_seconds = u64::MAX);
        let refused = wanted(&ages, None, "alice", (&host, 1));
        assert!(matches!(refused, Err(WriteError::Invalid(_))));
        assert!(matches!(names(&[]), Err(WriteError::Invalid(_))));
        let many = vec!["h1".to_owned(); 101];
        assert!(matches!(names(&many), Err(WriteError::Invalid(_))));
        assert!(matches!(
            names(&["a b".to_owned()]),
            Err(WriteError::NotFound(_))
        ));
        assert_eq!(names(&["h1".to_owned(), "h1".to_owned()]).unwrap().len(), 1);
    }
}
