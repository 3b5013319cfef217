//! What operators change: mode, pause, policy, manual moves, cancels. Only under a mandate.

use etcd_client::Compare;
use evenkeel_daemon::store::guard;
use evenkeel_daemon::unix_ms;
use evenkeel_planner::{Guest, GuestState, Rejection, Snapshot, place_one};
use evenkeel_proto::v1;
use evenkeel_types::{EventKind, Outcome};
use tokio::sync::oneshot;

use super::record::{Notary, attempt, conclude};
use super::{Controller, NoAnswer};
use crate::core::choose::Running;
use crate::core::events;
use crate::core::holds::pause_in_force;
use crate::core::snapshot::LOCAL_DISK;
use crate::execute::agents::cancel;
use crate::execute::orders::{Cause, Look, Moved, order_for};
use crate::lease::{CommitError, Mandate, commit};
use crate::observe::OrderEntry;

/// Where the answer to a write goes.
pub type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// A change that an authorised operator asks for; `by` is the verified identity.
#[derive(Debug)]
pub enum Write {
    /// Another mode.
    SetMode(v1::SetModeRequest, String, Reply<v1::SetModeReply>),
    /// Pause.
    SetPause(v1::SetPauseRequest, String, Reply<v1::SetPauseReply>),
    /// Resume.
    Resume(v1::ResumeRequest, String, Reply<v1::ResumeReply>),
    /// A move by hand.
    Migrate(
        v1::OperatorMigrateRequest,
        String,
        Reply<v1::OperatorMigrateReply>,
    ),
    /// Abort a migration.
    Cancel(
        v1::CancelMigrationRequest,
        String,
        Reply<v1::CancelMigrationReply>,
    ),
    /// A cordon or a drain.
    SetIntent(v1::SetIntentRequest, String, Reply<v1::SetIntentReply>),
    /// The end of a cordon or a drain.
    ClearIntent(v1::ClearIntentRequest, String, Reply<v1::ClearIntentReply>),
    /// A new policy.
    ApplyPolicy(v1::ApplyPolicyRequest, String, Reply<v1::ApplyPolicyReply>),
    /// A word on a guest whose migration's outcome is unknown.
    Resolve(
        v1::ResolveGuestRequest,
        String,
        Reply<v1::ResolveGuestReply>,
    ),
}

impl Write {
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::SetMode(_, _, reply) => reply.is_closed(),
            Self::SetPause(_, _, reply) => reply.is_closed(),
            Self::Resume(_, _, reply) => reply.is_closed(),
            Self::Migrate(_, _, reply) => reply.is_closed(),
            Self::Cancel(_, _, reply) => reply.is_closed(),
            Self::SetIntent(_, _, reply) => reply.is_closed(),
            Self::ClearIntent(_, _, reply) => reply.is_closed(),
            Self::ApplyPolicy(_, _, reply) => reply.is_closed(),
            Self::Resolve(_, _, reply) => reply.is_closed(),
        }
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// This replica does not lead.
    #[error("this replica does not lead")]
    NotLeader,
    /// The control loop is gone or too busy.
    #[error("{0}")]
    NoAnswer(NoAnswer),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Rules, limits or a pause forbid it.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed it in the meantime.
    #[error("{0}")]
    Conflict(String),
    /// etcd did not say whether it was written.
    #[error("etcd did not answer")]
    Commit(#[source] CommitError),
    /// The agent concerned cannot be called.
    #[error("{0}")]
    Unreachable(String),
    /// The agent concerned was called and did not answer.
    #[error("{0}")]
    Unanswered(String),
}

impl From<CommitError> for WriteError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => {
                Self::Conflict("it was changed by somebody else in the meantime".to_owned())
            }
            CommitError::RunOut(_) | CommitError::Deposed(_) => Self::NotLeader,
            CommitError::Store(_) => Self::Commit(error),
        }
    }
}

/// Answers; a caller that has gone away needs none.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, WriteError>) {
    drop(reply.send(result));
}

/// What is told of a request that an agent answers.
pub(super) struct Tell {
    pub(super) notary: Notary,
    /// What is refused, if it is.
    pub(super) attempt: Option<v1::Event>,
    /// What has happened, if it is not.
    pub(super) accepted: v1::Event,
}

impl Tell {
    /// Answers, and tells what came of it.
    pub(super) fn answer<T>(self, reply: Reply<T>, result: Result<T, WriteError>) {
        if result.is_ok() {
            self.notary.note(self.accepted);
        }
        conclude((self.notary, self.attempt), reply, result);
    }
}

/// A guest that runs is moved live, one that is shut off is moved offline: who asks must mean the right one.
fn fits_the_state(guest: &Guest, offline: bool) -> Result<(), WriteError> {
    let shut_off = guest.state == GuestState::Shutoff;
    let why = match (shut_off, offline) {
        (true, true) | (false, false) => return Ok(()),
        (true, false) => "is shut off; --offline moves it",
        (false, true) => "is not shut off, and --offline moves only guests that are",
    };
    Err(WriteError::Refused(format!("{} {why}", guest.name)))
}

/// The fleet as it is for somebody who has disks copied: they hold no guest where it is.
fn disks_copied(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for guest in &mut snapshot.guests {
        if guest.unmovable_reason.as_deref() == Some(LOCAL_DISK) {
            (guest.movable, guest.unmovable_reason) = (true, None);
        }
    }
    snapshot
}

impl Controller {
    pub(super) async fn write(&mut self, write: Write) {
        let mandate = self
            .parts
            .standing
            .mandate()
            .filter(|_| self.fleet.complete);
        let mandate = mandate.ok_or(WriteError::NotLeader);
        let leads = mandate.is_ok();
        // A policy applied since the last tick must not be undone by one made from its predecessor.
        self.active = self.active.follow(self.fleet.policy.as_ref());
        let told = (self.recorder.notary.clone(), attempt(&write));
        match write {
            // Its caller was told that there is no answer: it must not happen behind his back.
            write if write.is_abandoned() => {}
            Write::SetMode(request, by, reply) => {
                conclude(told, reply, self.set_mode(mandate, request, &by).await);
            }
            Write::SetPause(request, by, reply) => {
                conclude(told, reply, self.set_pause(mandate, request, by).await);
            }
            Write::Resume(request, by, reply) => {
                conclude(told, reply, self.resume(mandate, &request, &by).await);
            }
            Write::Migrate(request, by, reply) => {
                conclude(told, reply, self.migrate(mandate, request, by).await);
            }
            Write::Cancel(request, by, reply) => {
                self.cancel(mandate, request, by, (told.1, reply)).await;
            }
            Write::SetIntent(request, by, reply) => {
                conclude(told, reply, self.set_intent(mandate, request, &by).await);
            }
            Write::ClearIntent(request, by, reply) => {
                conclude(told, reply, self.clear_intent(mandate, request, &by).await);
            }
            Write::ApplyPolicy(request, by, reply) => {
                conclude(told, reply, self.apply_policy(mandate, request, &by).await);
            }
            Write::Resolve(request, by, reply) => {
                self.resolve(mandate, &request, by, (told.1, reply)).await;
            }
        }
        // Who has the answer and asks next is to see what he wrote.
        if leads {
            self.look_again(unix_ms());
            self.is_due |= self.recorder.has_queued();
        }
    }

    pub(super) async fn commit(
        &mut self,
        mandate: &Mandate,
        what: &str,
        guards: Vec<Compare>,
        writes: Vec<etcd_client::TxnOp>,
    ) -> Result<i64, WriteError> {
        let committed = commit(&self.parts.store, mandate, guards, writes).await;
        let revision = committed.map_err(|error| {
            self.note_failed_write(what, mandate, &error);
            WriteError::from(error)
        })?;
        self.fleet.note_written(revision);
        Ok(revision)
    }

    async fn set_pause(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::SetPauseRequest,
        by: String,
    ) -> Result<v1::SetPauseReply, WriteError> {
        let mandate = mandate?;
        let since_ms = unix_ms();
        let for_ms = i64::try_from(request.for_seconds)
            .ok()
            .and_then(|s| s.checked_mul(1000));
        let until_ms = match for_ms {
            Some(0) => 0,
            Some(ms) => since_ms.saturating_add(ms),
            None => return Err(WriteError::Invalid("the pause is too long".to_owned())),
        };
        let pause = v1::Pause {
            by,
            reason: request.reason,
            since_ms,
            until_ms,
        };
        if !request.dry_run {
            let write = guard::put(&self.keys.pause(), &pause);
            let told = events::event(EventKind::Paused, &pause.by, &pause.reason);
            self.commit_with(&mandate, "pause", (vec![], vec![write]), vec![told])
                .await?;
            tracing::info!(by = pause.by, reason = pause.reason, until_ms, "paused");
            self.fleet.pause = Some(pause.clone()); // in force before the next tick
        }
        Ok(v1::SetPauseReply { pause: Some(pause) })
    }

    async fn resume(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: &v1::ResumeRequest,
        by: &str,
    ) -> Result<v1::ResumeReply, WriteError> {
        let mandate = mandate?;
        let was_paused = pause_in_force(&self.fleet, unix_ms()).is_some();
        if !request.dry_run {
            let write = guard::delete(&self.keys.pause());
            let told = events::event(EventKind::Resumed, by, &request.reason);
            let told = was_paused.then_some(told).into_iter().collect();
            self.commit_with(&mandate, "resume", (vec![], vec![write]), told)
                .await?;
            self.fleet.pause = None;
            tracing::info!(by, reason = request.reason, "resumed");
        }
        Ok(v1::ResumeReply { was_paused })
    }

    pub(super) async fn migrate(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::OperatorMigrateRequest,
        by: String,
    ) -> Result<v1::OperatorMigrateReply, WriteError> {
        let mandate = mandate?;
        self.look_again(unix_ms());
        if let (Some(pause), false) = (
            pause_in_force(&self.fleet, unix_ms()),
            request.override_pause,
        ) {
            return Err(WriteError::Refused(format!(
                "{pause}; --override-pause moves it anyway"
            )));
        }
        if let Some(fault) = self.active.hidden_by() {
            return Err(WriteError::Refused(format!(
                "the rules are not known, the policy in etcd is broken: {fault}; `evenkeel policy apply` mends it"
            )));
        }
        let snapshot = &self.assessment.snapshot;
        let guest = snapshot
            .guest(&request.guest)
            .or_else(|| snapshot.guest(&request.guest.to_lowercase()))
            .ok_or_else(|| WriteError::NotFound(self.no_such_guest(&request.guest)))?;
        let target = (!request.target.is_empty()).then_some(request.target.as_str());
        if let Some(target) = target.filter(|t| snapshot.host(t).is_none()) {
            return Err(WriteError::NotFound(format!("there is no host {target:?}")));
        }
        let disks = v1::DiskCopy::try_from(request.disks)
            .map_err(|_| WriteError::Invalid("an unknown way to copy disks".to_owned()))?;
        fits_the_state(guest, request.offline)?;
        let freed = (disks != v1::DiskCopy::None).then(|| disks_copied(snapshot));
        let snapshot = freed.as_ref().unwrap_or(snapshot);
        let step = place_one(snapshot, self.active.policy(), &guest.name, target)
            .map_err(|rejections| WriteError::Refused(explain(&guest.name, &rejections)))?;
        Running::of(&self.fleet, &self.active.policy().limits)
            .admits(self.active.policy(), &step.from, &step.to)
            .map_err(|limit| WriteError::Refused(limit.to_string()))?;
        let cause = Cause {
            trigger: "manual",
            by,
            reason: request.reason,
            disks,
        };
        if request.dry_run {
            let id = self.assessment.guests.get(&step.guest);
            let id = id.ok_or_else(|| WriteError::NotFound(self.no_such_guest(&step.guest)))?;
            let policy = self.active.policy();
            let moved = Moved::of(id.clone(), guest, policy, cause.disks);
            let mut order = order_for(&step, &moved, policy, &cause, unix_ms());
            order.id = String::new();
            return Ok(v1::OperatorMigrateReply { order: Some(order) });
        }
        let order = self.order(&mandate, &step, &cause).await.map_err(|error| {
            self.note_failed_write("order", &mandate, &error);
            if matches!(error, CommitError::Conflict) {
                return WriteError::Conflict("an order stands for this guest already".to_owned());
            }
            error.into()
        })?;
        Ok(v1::OperatorMigrateReply { order: Some(order) })
    }

    /// Names guests whose name is not unique, which is the likely mistake.
    fn no_such_guest(&self, name: &str) -> String {
        let ending = format!("/{name}");
        let alike: Vec<&str> = self
            .assessment
            .guests
            .keys()
            .filter(|known| known.ends_with(&ending))
            .map(String::as_str)
            .collect();
        if alike.is_empty() {
            format!("there is no guest {name:?}")
        } else {
            format!(
                "{name:?} stands on several hosts: say {}",
                alike.join(" or ")
            )
        }
    }

    async fn cancel(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: v1::CancelMigrationRequest,
        by: String,
        (attempt, reply): (Option<v1::Event>, Reply<v1::CancelMigrationReply>),
    ) {
        let notary = self.recorder.notary.clone();
        let found = mandate.and_then(|m| self.order_by_prefix(&request.id).map(|e| (m, e)));
        let (mandate, entry) = match found {
            Ok(found) => found,
            Err(error) => return conclude((notary, attempt), reply, Err(error)),
        };
        let migration = crate::api::views::migration_of(self, &entry);
        let done = v1::CancelMigrationReply {
            migration: Some(migration),
        };
        if request.dry_run {
            return answer(reply, Ok(done));
        }
        tracing::info!(by, order = %entry.order.id, reason = request.reason, "cancel asked for");
        if self.fleet.journal_of(&entry).is_none() {
            let stamp = self.stamp(&mandate);
            let look = Look {
                fleet: &self.fleet,
                entry: &entry,
                policy: self.active.policy(),
                now_ms: unix_ms(),
                stamp,
            };
            let detail = format!("cancelled by {by}");
            match self
                .orders
                .withdraw(&mandate, look, Outcome::Cancelled, &detail)
                .await
            {
                // An agent was quicker: there is something to abort now.
                Err(CommitError::Conflict) => {}
                Err(error) => {
                    self.note_failed_write("cancel", &mandate, &error);
                    return answer(reply, Err(error.into()));
                }
                Ok(journal) => {
                    self.note_settled(&mandate, &entry, (Ok(journal), stamp));
                    return answer(reply, Ok(done));
                }
            }
        }
        let asked = v1::Event {
            kind: EventKind::CancelAsked.as_str().to_owned(),
            by: by.clone(),
            why: request.reason,
            ..events::ordered(&entry.order.message)
        };
        let tell = Tell {
            notary,
            attempt,
            accepted: asked,
        };
        self.ask_to_abort(&mandate, &entry, (by, tell), (reply, done));
    }

    /// Calls the source agent from a task of its own: a slow agent must not hold up the loop.
    fn ask_to_abort(
        &mut self,
        mandate: &Mandate,
        entry: &OrderEntry,
        (by, tell): (String, Tell),
        (reply, done): (Reply<v1::CancelMigrationReply>, v1::CancelMigrationReply),
    ) {
        let source = &entry.order.source;
        let client = match self.client_of(source) {
            Ok(client) => client,
            Err(detail) => return answer(reply, Err(WriteError::Unreachable(detail))),
        };
        let call = v1::CancelRequest {
            guest_uuid: entry.order.guest.to_string(),
            order_id: entry.order.id.to_string(),
            epoch: mandate.epoch.0,
            leader_key: mandate.key.clone(),
            by,
        };
        let source = source.clone();
        tokio::spawn(async move {
            let result = match cancel(client, call).await {
                Ok(answer) if answer.accepted => Ok(done),
                Ok(answer) => Err(WriteError::Refused(answer.detail)),
                Err(status) => Err(WriteError::Unanswered(format!(
                    "agent of {source}: {}",
                    status.message()
                ))),
            };
            tell.answer(reply, result);
        });
    }

    fn order_by_prefix(&self, prefix: &str) -> Result<OrderEntry, WriteError> {
        if prefix.is_empty() {
            return Err(WriteError::Invalid("which migration?".to_owned()));
        }
        let mut found = self
            .fleet
            .orders
            .values()
            .filter(|e| e.order.id.as_str().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.clone()),
            (Some(_), Some(_)) => Err(WriteError::Invalid(format!("{prefix:?} is ambiguous"))),
            (None, _) => Err(WriteError::NotFound(format!(
                "no migration {prefix:?} is open"
            ))),
        }
    }
}

/// Every candidate with the rule that decided, for people.
fn explain(guest: &str, rejections: &[Rejection]) -> String {
    let reasons: Vec<String> = rejections
        .iter()
        .map(|r| format!("{}: {} ({})", r.host, r.reason, r.detail))
        .collect();
    format!("{guest} cannot be moved: {}", reasons.join("; "))
}
