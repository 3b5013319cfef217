//! The journal of a migration: what the source host knows of it, in etcd, where it outlives the agent.
//!
//! This module decides; [`etcd`] reads and writes. An order is admitted in one transaction: the leader's key is
//! still the one that gave it, this very order stands, and no journal of it exists. Everything that the guards
//! of that transaction rest on is read at one revision and judged by [`decide`], which also names the refusal.
//!
//! **Invariant:** neither a deposed leader's order nor a late duplicate starts anything (test
//! `an_order_is_admitted_once_and_only_under_its_leader`, on a real etcd).

pub mod etcd;

use evenkeel_daemon::StoreError;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{Epoch, GuestId, MigrationState, OrderId, Refusal};

/// A refusal with the words and numbers that decided.
pub type Refused = (Refusal, String);

/// A value with the revision of its last writing.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// The value.
    pub value: T,
    /// Its revision; 0: the key is not there.
    pub revision: i64,
}

/// The key that leads the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The oldest key below the election's name.
    pub key: String,
    /// Its create revision.
    pub epoch: Epoch,
}

/// What of an existing journal matters to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A journal of this order.
    Of(OrderId),
    /// Something that cannot be read: never written over.
    Unreadable,
    /// A journal of another order that is over.
    Closed,
    /// A journal of another order that is not over.
    Open(OrderId),
}

/// What stood in etcd, all at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Who leads.
    pub leader: Option<Leader>,
    /// The order that stands for the guest.
    pub order: Option<Stored<v1::Order>>,
    /// The guest's journal on this host, as the order sees it.
    pub journal: Option<Stored<Standing>>,
}

/// What the transaction's guards rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grounds {
    /// Revision of the order.
    pub order_revision: i64,
    /// Revision of the closed journal to be replaced; 0: there is none.
    pub journal_revision: i64,
}

/// Judges whether `order`, brought in the name of `leader_key`, may start.
///
/// # Errors
/// The first reason against it.
pub fn decide(seen: &Seen, order: &Order, leader_key: &str) -> Result<Grounds, Refused> {
    confirm_leader(seen.leader.as_ref(), leader_key, order.epoch)?;
    let standing = seen.order.as_ref().ok_or_else(|| {
        let detail = format!("no order stands for guest {}", order.guest);
        (Refusal::NoSuchOrder, detail)
    })?;
    if standing.value != order.message {
        let detail = format!("order {} stands, and differs", standing.value.id);
        return Err((Refusal::NoSuchOrder, detail));
    }
    let journal_revision = match &seen.journal {
        None => 0,
        Some(journal) => match &journal.value {
            Standing::Closed => journal.revision,
            Standing::Of(id) => {
                return Err((Refusal::Duplicate, format!("order {id} has a journal")));
            }
            Standing::Open(id) => {
                return Err((Refusal::Busy, format!("order {id} is not over")));
            }
            Standing::Unreadable => {
                let detail = "a journal stands that this version cannot read".to_owned();
                return Err((Refusal::Duplicate, detail));
            }
        },
    };
    Ok(Grounds {
        order_revision: standing.revision,
        journal_revision,
    })
}

/// Judges whether `leader_key` leads under `epoch`. A candidate's key has a create revision too: only the
/// oldest key of the election leads.
///
/// # Errors
/// `StaleEpoch`, with what was found.
pub fn confirm_leader(
    leader: Option<&Leader>,
    leader_key: &str,
    epoch: Epoch,
) -> Result<(), Refused> {
    let detail = match leader {
        Some(leader) if leader.key == leader_key && leader.epoch == epoch => return Ok(()),
        Some(leader) => format!("epoch {epoch} given, epoch {} leads", leader.epoch),
        None => format!("epoch {epoch} given, nobody leads"),
    };
    Err((Refusal::StaleEpoch, detail))
}

/// Sees a stored journal with the eyes of `order`.
#[must_use]
pub fn standing(journal: &v1::Journal, order: &OrderId) -> Standing {
    let id = journal.order.as_ref().and_then(|o| o.id.parse().ok());
    let Some(id) = id else {
        return Standing::Unreadable;
    };
    if id == *order {
        return Standing::Of(id);
    }
    match state_of(journal) {
        Some(MigrationState::Ended(_)) => Standing::Closed,
        Some(_) => Standing::Open(id),
        None => Standing::Unreadable,
    }
}

/// The state in a journal; `None` when it is missing or of a newer version.
#[must_use]
pub fn state_of(journal: &v1::Journal) -> Option<MigrationState> {
    journal.state.as_ref().and_then(|s| s.try_into().ok())
}

/// Whether a journal is closed.
#[must_use]
pub fn is_closed(journal: &v1::Journal) -> bool {
    state_of(journal).is_some_and(|state| state.outcome().is_some())
}

/// A journal as it begins.
#[must_use]
pub fn opened(order: &Order, now_ms: i64) -> v1::Journal {
    v1::Journal {
        order: Some(order.message.clone()),
        state: Some(MigrationState::Preparing.into()),
        started_at_ms: now_ms,
        updated_at_ms: now_ms,
        ..v1::Journal::default()
    }
}

/// Why a journal was not written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// etcd did not take it.
    #[error("etcd did not take the journal")]
    Store(#[from] StoreError),
    /// It changed under our hands again and again.
    #[error("the journal of guest {guest} is written by someone else too")]
    Contended {
        /// The guest.
        guest: GuestId,
    },
    /// It is closed: an open state over it would move a guest that is settled, and another end would be a word on
    /// where the guest is from before somebody has settled that.
    #[error("the journal of guest {guest} is closed")]
    Closed {
        /// The guest.
        guest: GuestId,
    },
    /// Another order's journal stands in its place: this one must never be written again.
    #[error("a journal of order {order} stands in its place")]
    Replaced {
        /// That order.
        order: String,
    },
}

/// Judges whether `journal` may be written over what stands in its place and was not expected there.
///
/// # Errors
/// `Replaced` or `Closed`.
pub fn may_follow(
    guest: &GuestId,
    stands: &v1::Journal,
    journal: &v1::Journal,
) -> Result<(), JournalError> {
    let id = |j: &v1::Journal| j.order.as_ref().map(|o| o.id.clone()).unwrap_or_default();
    if id(stands) != id(journal) {
        return Err(JournalError::Replaced { order: id(stands) });
    }
    if is_closed(stands) && state_of(stands) != state_of(journal) {
        return Err(JournalError::Closed {
            guest: guest.clone(),
        });
    }
    Ok(())
}

/// The facts in etcd that migrations rest on. [`etcd::EtcdRecords`] is the real one.
pub trait Records: Send + Sync + 'static {
    /// Admits `order` by writing `journal`; answers with the journal's revision.
    fn admit(
        &self,
        order: &Order,
        leader_key: &str,
        journal: &v1::Journal,
    ) -> impl Future<Output = Result<i64, Refused>> + Send;

    /// Confirms that `leader_key` leads under `epoch`, now.
    fn confirm(
        &self,
        leader_key: &str,
        epoch: Epoch,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Writes a journal that was at `revision`; answers with the new revision.
    fn write(
        &self,
        guest: &GuestId,
        journal: &v1::Journal,
        revision: i64,
    ) -> impl Future<Output = Result<i64, JournalError>> + Send;

    /// The order that stands for `guest`.
    fn order(
        &self,
        guest: &GuestId,
    ) -> impl Future<Output = Result<Option<v1::Order>, StoreError>> + Send;

    /// The guest's journal on this host.
    fn journal(
        &self,
        guest: &GuestId,
    ) -> impl Future<Output = Result<Option<Stored<v1::Journal>>, StoreError>> + Send;

    /// This host's journals; unreadable ones are logged and left out.
    fn journals(&self)
    -> impl Future<Output = Result<Vec<Stored<v1::Journal>>, StoreError>> + Send;

    /// Removes a journal unless it was written since `revision`.
    fn remove(
        &self,
        guest: &GuestId,
        revision: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

#[cfg(test)]
mod tests;
