//! An operator's word on a guest whose hosts cannot settle where it is, and the tidying after a move.

use std::time::Duration;

use evenkeel_daemon::retry::Backoff;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::order::Order;
use evenkeel_types::{
    CallResult, Contradiction, Epoch, Event, GuestId, OrderId, Outcome, Place, Presence,
};
use tokio::sync::oneshot;

use super::task::{Signal, Task};
use super::verdict::{self, Unresolvable};
use super::{Driver, settle};
use crate::hypervisor::Hypervisor;
use crate::journal::{self, Records};
use crate::peer::Peers;

/// A task that is busy answers within this time.
const PATIENCE: Duration = Duration::from_secs(3);
/// Attempts to remove a definition that has been left behind.
const TIDYINGS: usize = 3;

/// What an operator says of an unknown migration.
#[derive(Debug, Clone)]
pub struct Word {
    /// Where the guest is.
    pub place: Place,
    /// Whether the half that is left paused here is to be destroyed.
    pub discard_source: bool,
    /// Who says so.
    pub by: String,
}

impl<H: Hypervisor, R: Records, P: Peers> Driver<H, R, P> {
    /// Closes an unknown migration on an operator's word, in the name of the leader, unless a host that answers
    /// denies it. Says what the hosts said and what was done.
    ///
    /// # Errors
    /// Why it was not closed, in words; nothing has then happened.
    pub async fn resolve(
        &self,
        guest: &GuestId,
        order: &OrderId,
        (leader_key, epoch): (&str, Epoch),
        word: &Word,
    ) -> Result<String, String> {
        let confirmed = self.records.confirm(leader_key, epoch).await;
        confirmed.map_err(|(reason, detail)| format!("{reason}: {detail}"))?;
        let nothing = || format!("order {order} is not under way on {}", self.host);
        let signals = self.running.signals(guest, order).ok_or_else(nothing)?;
        let stored = self.records.journal(guest).await;
        let stored = stored.map_err(|error| error.to_string())?;
        let message = stored.and_then(|s| s.value.order).ok_or_else(nothing)?;
        let standing = Order::try_from(message).map_err(|error| error.to_string())?;
        let answer = settle::ask_once(self, &standing).await;
        let (source, target) = answer.said;
        word.place
            .check(source, target)
            .map_err(|denied| denial(&standing, word.place, denied))?;
        if answer.has_job {
            return Err(format!("libvirt on {} has a job for it still", self.host));
        }
        if word.discard_source {
            verdict::may_discard(word.place, source)
                .map_err(|why| format!("nothing is destroyed on {}: {why}", self.host))?;
        }
        let (reply, closed) = oneshot::channel();
        let said = format!("resolved by {}; {}", word.by, answer.words);
        let signal = Signal::Resolve(word.place, said, reply);
        signals.send(signal).await.map_err(|_| nothing())?;
        match tokio::time::timeout(PATIENCE, closed).await {
            Ok(Ok(closed)) => closed?,
            Ok(Err(_)) | Err(_) => return Err(nothing()),
        }
        let mut said = answer.words;
        if word.discard_source {
            said.push_str("; ");
            said.push_str(&self.discard(&standing).await);
        }
        Ok(said)
    }

    /// Destroys the half that is left paused here, and the definition that stays of it; says what was done.
    async fn discard(&self, order: &Order) -> String {
        let (guest, id) = (&order.guest, order.guest.clone());
        if let Err(error) = self.calls.call(move |h| h.discard_half(&id)).await {
            tracing::error!(%guest, %error, "the paused half could not be destroyed");
            return format!("the paused half could not be destroyed: {error}");
        }
        tracing::warn!(%guest, "paused half destroyed on an operator's order");
        let destroyed = format!("the paused half on {} was destroyed", self.host);
        // The task tidies at its end, when the half may still have been there.
        match self.try_tidy(order).await {
            Ok(()) => destroyed,
            Err(why) => format!("{destroyed}, its definition was not: {why}"),
        }
    }

    /// Ends the task of a migration whose journal the leader has closed: an operator has spoken while this agent
    /// had no etcd.
    pub(crate) async fn closed_elsewhere(&self, guest: &GuestId, closed: &Closed) {
        let Some(signals) = self.running.signals(guest, &closed.order) else {
            return;
        };
        let words = "closed by the leader on an operator's word".to_owned();
        let signal = Signal::Happened(Event::Resolved(closed.place), words);
        // A task that has just ended by itself needs no word.
        drop(signals.try_send(signal));
    }

    /// Removes the definition that libvirt has left here of a guest that both hosts say has moved: it would be
    /// started beside the guest one day. The target must have one of its own.
    async fn tidy(&self, order: &Order) {
        let mut backoff = Backoff::default();
        for _ in 0..TIDYINGS {
            match self.try_tidy(order).await {
                Ok(()) => return,
                Err(why) => tracing::warn!(
                    order = %order.id, guest = %order.guest, why,
                    "a definition of a guest that has moved is left here"
                ),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn try_tidy(&self, order: &Order) -> Result<(), String> {
        let id = order.guest.clone();
        let here = self.calls.call(move |h| h.presence(&id)).await;
        if here.map_err(|error| error.to_string())?.0 != Presence::ShutOff {
            return Ok(());
        }
        let there = self.peers.inspect(&order.target, &order.guest).await?;
        if !(there.persistent && matches!(there.presence, Presence::Running | Presence::Paused)) {
            return Err(format!("{} has no definition of it", order.target));
        }
        let id = order.guest.clone();
        let removed = self.calls.call(move |h| h.undefine(&id)).await;
        removed.map_err(|error| error.to_string())?;
        tracing::info!(order = %order.id, guest = %order.guest, "definition left behind removed");
        Ok(())
    }
}

/// Who denies an operator's word, for people.
fn denial(order: &Order, place: Place, denied: Contradiction) -> String {
    let host = if denied.by_source {
        &order.source
    } else {
        &order.target
    };
    let said = match place {
        Place::Source => format!("on {}", order.source),
        Place::Target => format!("on {}", order.target),
        Place::Nowhere => "gone".to_owned(),
    };
    format!("{host} has it {}: it is not {said}", denied.has)
}

/// How the leader has closed a journal.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    order: OrderId,
    place: Place,
}

impl Closed {
    /// What a closed journal says; `None`: it was not closed on an operator's word.
    pub(crate) fn of(journal: &evenkeel_proto::v1::Journal) -> Option<Self> {
        let order = journal.order.as_ref()?.id.parse().ok()?;
        let Outcome::Failed { reason, guest } = journal::state_of(journal)?.outcome()? else {
            return None;
        };
        let place = Place::ALL.into_iter().find(|p| p.whereabouts() == guest)?;
        (reason == evenkeel_types::FailureReason::Resolved).then_some(Self { order, place })
    }
}

impl<H: Hypervisor, R: Records, P: Peers> Task<H, R, P> {
    /// Whether an operator's word may close this migration.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn may_resolve(&self, place: Place) -> Result<(), String> {
        verdict::may_resolve(&self.state, place).map_err(|why| match why {
            Unresolvable::NotUnknown { .. } => why.to_string(),
            Unresolvable::CallIsOut => {
                let host = &self.driver.host;
                format!("{why}: restart libvirtd and the agent of {host} first")
            }
        })
    }

    /// Tidies up after the end.
    pub(super) async fn tidy_up(&self) {
        if self.state.outcome().is_some_and(Outcome::has_moved) {
            self.driver.tidy(&self.order).await;
        }
    }

    /// Notes when libvirt's call was over.
    pub(super) fn note_return(&mut self) {
        self.over.cancel();
        self.over_ms.get_or_insert_with(unix_ms);
        self.aborting = false;
    }

    /// How libvirt's call came back, if it did.
    pub(super) fn call(&self) -> Option<CallResult> {
        verdict::call_of(&self.state)
    }
}

#[cfg(test)]
mod tests;
