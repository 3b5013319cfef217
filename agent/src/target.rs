//! This host as a target: checks a guest that wants to come and holds memory for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_daemon::metrics::Registry;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, OrderId, Presence, Refusal, Whereabouts};
use prometheus::{IntGauge, Opts};
use tokio::sync::{mpsc, watch};

use crate::calls::Calls;
use crate::digest::Sum;
use crate::hypervisor::{Coming, GuestCounters, Hypervisor, RunState};
use crate::incoming::{Arrival, Incomings, Luggage};
use crate::journal::{Records, Refused};
use crate::ledger::Incoming;
use crate::reservation::{Request, Reservations, Room};

/// Checking a definition may make libvirt probe its QEMU, which takes seconds the first time.
const ADMIT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(15);
/// A definition larger than this is none: libvirt's own limit of a string is 4 MiB, real ones have 10 KiB.
const MAX_DEFINITION: usize = 1 << 20;

/// A guest that wants to come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arriving {
    /// Its definition.
    pub definition: String,
    /// What comes with it.
    pub luggage: Luggage,
    /// What its host is.
    pub from: v1::Inventory,
}

/// The receiving half of an agent.
#[derive(Debug)]
pub struct Target<H, R> {
    host: HostName,
    calls: Calls<H>,
    records: Arc<R>,
    /// What this host is; it offers no memory until the hypervisor has answered once.
    own: watch::Receiver<v1::Inventory>,
    /// Guests that may be on their way here at one time.
    most: u32,
    reservations: Mutex<Reservations>,
    incomings: Arc<Incomings<H>>,
    promised_bytes: IntGauge,
}

impl<H: Hypervisor, R: Records> Target<H, R> {
    /// A target that promises at most the memory that `own` offers.
    ///
    /// # Errors
    /// When its metric is registered already.
    pub fn new(
        host: HostName,
        calls: Calls<H>,
        records: Arc<R>,
        own: watch::Receiver<v1::Inventory>,
        (most, incomings): (u32, Arc<Incomings<H>>),
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let promised_bytes = promised_bytes(registry, &host)?;
        Ok(Self {
            host,
            calls,
            records,
            own,
            most,
            reservations: Mutex::default(),
            incomings,
            promised_bytes,
        })
    }

    /// Checks a guest that `source` wants to send, and holds memory for it.
    ///
    /// On success the memory is held until [`Target::release`] or until some time after the deadline.
    ///
    /// # Errors
    /// The refusal; nothing is then held.
    pub async fn prepare(
        &self,
        source: &HostName,
        order: &Order,
        arriving: Arriving,
    ) -> Result<(), Refused> {
        let outcome = self.try_prepare(source, order, arriving).await;
        let (id, guest) = (&order.id, &order.guest);
        let (coming, promised_mib) = self.promised();
        match &outcome {
            Ok(()) => tracing::info!(
                order = %id, %guest, %source, memory_mib = order.message.memory_mib, coming,
                promised_mib, "prepared for a guest"
            ),
            Err((reason, detail)) => tracing::warn!(
                order = %id, %guest, %source, %reason, detail, "guest not admitted"
            ),
        }
        outcome
    }

    async fn try_prepare(
        &self,
        source: &HostName,
        order: &Order,
        arriving: Arriving,
    ) -> Result<(), Refused> {
        self.check_order(source, order).await?;
        if self.lock().holds(&order.id, unix_ms()) {
            self.prolong(&order.guest, source);
            return Ok(());
        }
        let Arriving {
            definition,
            luggage,
            from,
        } = arriving;
        check_definition(order, &definition)?;
        if !order.options.allow_older_target {
            versions::not_older(&self.own.borrow(), &from)?;
        }
        let coming = Coming {
            shut_off: order.options.kind == v1::MoveKind::Offline,
            copied: luggage.disks.iter().map(|disk| disk.name.clone()).collect(),
        };
        let shut_off = coming.shut_off;
        let answer = self
            .calls
            .call_within(ADMIT_DEADLINE, move |h| {
                let admitted = h.admits(&definition, &coming)?;
                Ok((admitted, h.counters()?))
            })
            .await;
        let (admitted, counters) =
            answer.map_err(|error| (Refusal::NoLibvirt, error.to_string()))?;
        admitted?;
        let was_here = counters.iter().any(|c| c.id == order.guest);
        let room = Room {
            capacity_mib: self.own.borrow().memory_mib,
            held: held(counters)?,
        };
        let request = Request {
            order: order.id.clone(),
            guest: order.guest.clone(),
            source: source.clone(),
            // A guest that is shut off takes none.
            memory_mib: if shut_off {
                0
            } else {
                order.message.memory_mib
            },
            is_new: !shut_off && !was_here,
            deadline_ms: order.deadline_ms,
        };
        self.lock().reserve(&request, &room, self.most, unix_ms())?;
        self.forget_earlier(source, order).await;
        let made = self.incomings.make(source, order, &luggage).await;
        if made.is_err() {
            self.lock().release(&order.id, source);
        }
        made
    }

    /// What was made for an earlier order of the guest is in the way of this one, which could not stand if that
    /// were not over; and its source, by asking, says that the guest is still there.
    async fn forget_earlier(&self, source: &HostName, order: &Order) {
        let is_earlier = |incoming: &Incoming| {
            incoming.guest == order.guest
                && incoming.order != order.id
                && incoming.source == *source
        };
        for earlier in self.incomings.all().into_iter().filter(is_earlier) {
            let closed = self
                .incomings
                .close(&earlier.order, Whereabouts::Source)
                .await;
            tracing::info!(order = %earlier.order, guest = %earlier.guest, ?closed,
                "what was made for an earlier order is gone through");
        }
    }

    /// Writes a disk of a guest that comes shut off; answers with the sum of what is then read back.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn receive(
        &self,
        source: &HostName,
        order: &OrderId,
        path: &str,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Result<Sum, String> {
        self.incomings.receive(source, order, path, arrivals).await
    }

    /// The order must stand in etcd and name both: otherwise any agent could fill this host with promises.
    async fn check_order(&self, source: &HostName, order: &Order) -> Result<(), Refused> {
        if order.target != self.host || order.source != *source {
            let detail = format!(
                "{source} asks {}, the order is from {} to {}",
                self.host, order.source, order.target
            );
            return Err((Refusal::NoSuchOrder, detail));
        }
        if order.deadline_ms <= unix_ms() {
            return Err((Refusal::DeadlinePassed, "the deadline is over".to_owned()));
        }
        match self.records.order(&order.guest).await {
            Ok(Some(stands)) if stands == order.message => Ok(()),
            Ok(_) => {
                let detail = format!("order {} does not stand in etcd", order.id);
                Err((Refusal::NoSuchOrder, detail))
            }
            Err(error) => Err((Refusal::NoEtcd, error.to_string())),
        }
    }

    /// Gives up what is held for an order of `source`; where `place` says that the guest is decides about what
    /// was made for it. What cannot be decided now is left to [`crate::incoming::sweep`].
    pub async fn release(&self, order: &OrderId, source: &HostName, place: Option<Whereabouts>) {
        let newcomer = self.lock().newcomer(order, source);
        if let Some(guest) = newcomer.filter(|_| place == Some(Whereabouts::Source)) {
            self.forget_definition(order, guest).await;
        }
        let held = self.lock().release(order, source);
        self.promised();
        let noted = self.incomings.all().into_iter();
        let own = noted.filter(|incoming| incoming.order == *order && incoming.source == *source);
        let mut closed = None;
        for incoming in own {
            let place = place.unwrap_or(Whereabouts::Unanswered);
            closed = Some(self.incomings.close(&incoming.order, place).await);
        }
        tracing::debug!(%order, held, ?closed, "reservation released");
    }

    /// Removes the definition of a guest that has not come: libvirt writes it down just before the guest goes on here,
    /// and leaves it behind when that fails. It would be started beside the guest one day.
    async fn forget_definition(&self, order: &OrderId, guest: GuestId) {
        let id = guest.clone();
        let removed = self.calls.call(move |h| match h.presence(&id)?.0 {
            Presence::ShutOff => h.undefine(&id).map(|()| true),
            Presence::Absent
            | Presence::Running
            | Presence::Paused
            | Presence::PausedByMigration => Ok(false),
        });
        match removed.await {
            Ok(true) => {
                tracing::info!(%order, %guest, "definition of a guest that has not come removed")
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(
                %order, %guest, %error, "a definition of a guest that has not come may be left here"
            ),
        }
    }

    /// Keeps what is held for a guest: its source still asks about it.
    pub fn prolong(&self, guest: &GuestId, source: &HostName) {
        self.lock().prolong(guest, source, unix_ms());
    }

    /// Guests on their way here and the MiB promised to them.
    pub fn promised(&self) -> (usize, u64) {
        let (coming, mib) = self.lock().promised(unix_ms());
        let bytes = mib.saturating_mul(1 << 20);
        self.promised_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        (coming, mib)
    }

    fn lock(&self) -> MutexGuard<'_, Reservations> {
        self.reservations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each guest with a process here holds, MiB.
///
/// # Errors
/// `NoMemory` when a guest has never told: what is free is then not known, and nothing is promised of it.
fn held(counters: Vec<GuestCounters>) -> Result<Vec<(GuestId, u64)>, Refused> {
    let present = |guest: &GuestCounters| guest.state != RunState::ShutOff;
    let held = |guest: GuestCounters| {
        if guest.memory_mib > 0 {
            return Ok((guest.id, guest.memory_mib));
        }
        let detail = format!("nobody knows how much memory guest {} holds here", guest.id);
        Err((Refusal::NoMemory, detail))
    };
    counters.into_iter().filter(present).map(held).collect()
}

/// The metric of promised memory, registered.
///
/// # Errors
/// When it is registered already.
pub fn promised_bytes(registry: &Registry, host: &HostName) -> Result<IntGauge, prometheus::Error> {
    let opts = Opts::new(
        "evenkeel_agent_reserved_bytes",
        "Memory promised to guests that are on their way to this host.",
    );
    let gauge = IntGauge::with_opts(opts.const_label("host", host.as_str()))?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// The definition must be of the order's guest: what is checked is what will come.
fn check_definition(order: &Order, definition: &str) -> Result<(), Refused> {
    let unfit = |detail: String| (Refusal::Unsupported, detail);
    if definition.len() > MAX_DEFINITION {
        return Err(unfit(format!("definition of {} bytes", definition.len())));
    }
    let document = roxmltree::Document::parse(definition)
        .map_err(|e| unfit(format!("definition is no XML: {e}")))?;
    let uuid = document
        .root_element()
        .children()
        .find(|node| node.has_tag_name("uuid"))
        .and_then(|node| node.text());
    if uuid.and_then(|text| text.trim().parse().ok()) != Some(order.guest.clone()) {
        let detail = format!("definition of guest {uuid:?}, order for {}", order.guest);
        return Err(unfit(detail));
    }
    Ok(())
}

mod versions;

#[cfg(test)]
mod tests;
