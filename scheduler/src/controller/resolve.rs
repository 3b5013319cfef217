//! An operator says where a guest is whose migration's outcome nobody knows.
//!
//! The source's agent closes the journal, after asking both hosts once more. Of a source that is silent the
//! leader closes it itself: its agent cannot, and the guest would be untouchable for ever.

use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1;
use evenkeel_types::{Contradiction, EventKind, HostName, MigrationState, Place, Presence};

use super::Controller;
use super::record::conclude;
use super::write::{Reply, Tell, WriteError, answer};
use crate::api::views::migration_of;
use crate::core::events;
use crate::core::unknown::is_unknown;
use crate::execute::agents::resolve;
use crate::execute::orders::Look;
use crate::lease::Mandate;
use crate::observe::{Fleet, JournalEntry, OrderEntry, RunState};

/// What is to be closed, and how.
struct Case {
    entry: OrderEntry,
    journal: JournalEntry,
    place: Place,
}

impl Controller {
    pub(super) async fn resolve(
        &mut self,
        mandate: Result<Mandate, WriteError>,
        request: &v1::ResolveGuestRequest,
        by: String,
        (attempt, reply): (Option<v1::Event>, Reply<v1::ResolveGuestReply>),
    ) {
        let notary = self.recorder.notary.clone();
        self.look_again(unix_ms());
        let found = mandate.and_then(|mandate| Ok((mandate, self.case(request)?)));
        let (mandate, case) = match found {
            Ok(found) => found,
            Err(error) => return conclude((notary, attempt), reply, Err(error)),
        };
        let order = &case.entry.order;
        tracing::warn!(
            by, order = %order.id, guest = order.message.guest_name, place = ?case.place,
            discard_source = request.discard_source, dry_run = request.dry_run,
            reason = request.reason, "an operator says where a guest is"
        );
        let source_is_silent = !self.fleet.reports.contains_key(&order.source);
        let accepted = resolved(&case, request, &by);
        let tell = Tell {
            notary,
            attempt,
            accepted,
        };
        if !source_is_silent && !request.dry_run {
            return self.tell_agent(&mandate, case, (request, by), (tell, reply));
        }
        let answered = self
            .close_for_silent(&mandate, &case, (request, &by), source_is_silent)
            .await;
        if request.dry_run {
            return answer(reply, answered);
        }
        tell.answer(reply, answered);
    }

    /// The unknown migration that is meant, and the place.
    fn case(&self, request: &v1::ResolveGuestRequest) -> Result<Case, WriteError> {
        let entry = self.open_migration_of(&request.guest)?;
        let journal = self.fleet.journal_of(&entry).cloned();
        let (snapshot, now_ms) = (&self.assessment.snapshot, self.assessment.at_ms);
        let journal = journal.filter(|journal| is_unknown(journal, snapshot, now_ms));
        let Some(journal) = journal else {
            let state = migration_of(self, &entry).state.unwrap_or_default();
            let phase = MigrationState::try_from(&state);
            let phase = phase.map_or("open", |state| state.as_str());
            return Err(WriteError::Refused(format!(
                "the migration of {} is {phase}: only one whose outcome is unknown is resolved by hand",
                entry.order.message.guest_name
            )));
        };
        let place = place_of(request, &entry)?;
        Ok(Case {
            entry,
            journal,
            place,
        })
    }

    /// The open migration of a guest by its name, host/name or UUID, or by the beginning of its own id.
    fn open_migration_of(&self, guest: &str) -> Result<OrderEntry, WriteError> {
        let uuid = self.assessment.guests.get(guest);
        let is_meant = |entry: &&OrderEntry| {
            let order = &entry.order;
            let by_name = order.message.guest_name == guest
                || guest.ends_with(&format!("/{}", order.message.guest_name));
            uuid.map_or(by_name, |uuid| *uuid == order.guest)
                || order.guest.as_str() == guest.to_lowercase()
                || (guest.len() >= 4 && order.id.as_str().starts_with(guest))
        };
        let mut found = self.fleet.orders.values().filter(is_meant);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry.clone()),
            (Some(_), Some(_)) => Err(WriteError::Invalid(format!(
                "{guest:?} fits several migrations: give the UUID"
            ))),
            (None, _) => Err(WriteError::NotFound(format!(
                "no migration of {guest:?} is open"
            ))),
        }
    }

    /// Has the source's agent close it, from a task of its own.
    fn tell_agent(
        &mut self,
        mandate: &Mandate,
        case: Case,
        (request, by): (&v1::ResolveGuestRequest, String),
        (tell, reply): (Tell, Reply<v1::ResolveGuestReply>),
    ) {
        let migration = migration_of(self, &case.entry);
        let order = &case.entry.order;
        let client = match self.client_of(&order.source) {
            Ok(client) => client,
            Err(detail) => return answer(reply, Err(WriteError::Unreachable(detail))),
        };
        let call = v1::ResolveRequest {
            guest_uuid: order.guest.to_string(),
            order_id: order.id.to_string(),
            epoch: mandate.epoch.0,
            leader_key: mandate.key.clone(),
            by,
            place: case.place.whereabouts().to_string(),
            discard_source: request.discard_source,
        };
        let source = order.source.clone();
        tokio::spawn(async move {
            let result = match resolve(client, call).await {
                Ok(answer) if answer.accepted => Ok(v1::ResolveGuestReply {
                    migration: Some(migration),
                    detail: answer.detail,
                }),
                Ok(answer) => Err(WriteError::Refused(answer.detail)),
                Err(status) => Err(WriteError::Unanswered(format!(
                    "agent of {source}: {}",
                    status.message()
                ))),
            };
            tell.answer(reply, result);
        });
    }

    /// Closes it here, or says what would be done.
    async fn close_for_silent(
        &mut self,
        mandate: &Mandate,
        case: &Case,
        (request, by): (&v1::ResolveGuestRequest, &str),
        source_is_silent: bool,
    ) -> Result<v1::ResolveGuestReply, WriteError> {
        let order = &case.entry.order;
        let seen = |host| seen(&self.fleet, host, &order.guest);
        let (source, target) = (seen(&order.source), seen(&order.target));
        let denied = case.place.check(source, target);
        denied.map_err(|denied| WriteError::Refused(denial(case, denied)))?;
        if request.discard_source && source_is_silent {
            return Err(WriteError::Refused(format!(
                "{} is silent: nothing can be destroyed there",
                order.source
            )));
        }
        let said = |presence: Option<Presence>| presence.map_or("silent", Presence::as_str);
        let detail = format!(
            "{}: {}, {}: {}",
            order.source,
            said(source),
            order.target,
            said(target)
        );
        let mut done = v1::ResolveGuestReply {
            migration: Some(migration_of(self, &case.entry)),
            detail,
        };
        if request.dry_run {
            return Ok(done);
        }
        let now_ms = unix_ms();
        let mut ended = case.journal.message.clone();
        ended.state = Some(MigrationState::Ended(case.place.outcome()).into());
        ended.ended_at_ms = now_ms;
        ended.updated_at_ms = now_ms;
        ended.detail = format!("resolved by {by}; {}", done.detail);
        let stamp = self.stamp(mandate);
        let look = Look {
            stamp,
            fleet: &self.fleet,
            entry: &case.entry,
            policy: self.active.policy(),
            now_ms,
        };
        let closed = self
            .orders
            .resolve(mandate, look, &case.journal, ended)
            .await;
        let ended =
            closed.inspect_err(|error| self.note_failed_write("resolve", mandate, error))?;
        done.migration = Some(v1::Migration {
            state: ended.state.clone(),
            ended_at_ms: now_ms,
            ..done.migration.unwrap_or_default()
        });
        self.note_settled(mandate, &case.entry, (Ok(ended), stamp));
        Ok(done)
    }
}

/// An operator's word, as an event.
fn resolved(case: &Case, request: &v1::ResolveGuestRequest, by: &str) -> v1::Event {
    let place = case.place.whereabouts();
    let said = format!("the guest is said to be at: {place}; {}", request.reason);
    v1::Event {
        kind: EventKind::GuestResolved.as_str().to_owned(),
        by: by.to_owned(),
        why: said,
        ..events::ordered(&case.entry.order.message)
    }
}

/// What a host's report says of a guest; `None`: it is silent, or its libvirt is.
fn seen(fleet: &Fleet, host: &HostName, guest: &evenkeel_types::GuestId) -> Option<Presence> {
    let report = fleet.reports.get(host).filter(|report| report.libvirt_up)?;
    let reading = report.guests.iter().find(|reading| reading.id == *guest);
    Some(match reading.map(|reading| reading.state) {
        None => Presence::Absent,
        Some(RunState::ShutOff) => Presence::ShutOff,
        Some(RunState::Running) => Presence::Running,
        Some(RunState::Paused) => Presence::Paused,
        Some(RunState::Incoming) => Presence::PausedByMigration,
    })
}

/// Where an operator says that the guest of an order is.
///
/// # Errors
/// When that is on neither host, or when the half to be destroyed would be the guest.
fn place_of(request: &v1::ResolveGuestRequest, entry: &OrderEntry) -> Result<Place, WriteError> {
    let (source, target) = (&entry.order.source, &entry.order.target);
    let place = match (request.gone, request.host.as_str()) {
        (true, "") => Place::Nowhere,
        (false, host) if host == source.as_str() => Place::Source,
        (false, host) if host == target.as_str() => Place::Target,
        _ => {
            return Err(WriteError::Invalid(format!(
                "it was on its way from {source} to {target}: say on which of them it is, or that it is gone"
            )));
        }
    };
    if request.discard_source && place == Place::Source {
        return Err(WriteError::Invalid(format!(
            "what {source} has cannot be both the guest and left over: it is destroyed only where the guest is on {target}"
        )));
    }
    Ok(place)
}

/// Who denies an operator's word, for people.
fn denial(case: &Case, denied: Contradiction) -> String {
    let order = &case.entry.order;
    let host = if denied.by_source {
        &order.source
    } else {
        &order.target
    };
    format!("{host} denies it: the guest is {} there", denied.has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::samples::order_entry;

    fn place(host: &str, gone: bool, discard_source: bool) -> Result<Place, WriteError> {
        let request = v1::ResolveGuestRequest {
            host: host.to_owned(),
            gone,
            discard_source,
            ..v1::ResolveGuestRequest::default()
        };
        place_of(&request, &order_entry(5, |_| {}))
    }

    #[test]
    fn a_guest_is_said_to_be_on_one_of_its_hosts_or_gone() {
        assert!(matches!(place("h1", false, false), Ok(Place::Source)));
        assert!(matches!(place("h2", false, false), Ok(Place::Target)));
        assert!(matches!(place("", true, false), Ok(Place::Nowhere)));
        for (host, gone) in [("h3", false), ("", false), ("h1", true)] {
            let said = place(host, gone, false);
            assert!(matches!(said, Err(WriteError::Invalid(_))), "{host} {gone}");
        }
    }

    #[test]
    fn the_half_that_is_the_guest_is_not_left_over() {
        assert!(matches!(place("h2", false, true), Ok(Place::Target)));
        assert!(matches!(
            place("h1", false, true),
            Err(WriteError::Invalid(_))
        ));
    }
}
