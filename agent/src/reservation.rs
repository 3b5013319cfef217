//! Memory promised to guests that are on their way here. Pure: time is an argument, nobody is asked.
//!
//! A reservation is made by `Prepare`, lives until its order's deadline and a grace, is prolonged as long as
//! the source still asks about the guest, and goes with `Release`. It is kept in memory only: once a copy runs,
//! the incoming half's own memory is seen by the hypervisor, also after a restart of this agent.

use std::collections::BTreeMap;

use evenkeel_types::{GuestId, HostName, OrderId, Refusal};

/// Time beyond the deadline for which memory is still held: the abort and the settling need some.
const GRACE_MS: i64 = 60_000;

/// Memory of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reservation {
    guest: GuestId,
    source: HostName,
    memory_mib: u64,
    is_new: bool,
    expires_ms: i64,
}

/// What a source wants held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The order that wants it.
    pub order: OrderId,
    /// Its guest.
    pub guest: GuestId,
    /// The host that sends it: nobody else can release or prolong what is held.
    pub source: HostName,
    /// MiB.
    pub memory_mib: u64,
    /// Whether it comes alive, and the host had nothing of it before, not even a definition.
    pub is_new: bool,
    /// The order's deadline, milliseconds since the Unix epoch.
    pub deadline_ms: i64,
}

/// What the host has and what its guests hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Room {
    /// MiB offered to guests.
    pub capacity_mib: u64,
    /// MiB of each guest with a process here, incoming halves included.
    pub held: Vec<(GuestId, u64)>,
}

/// All reservations of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservations {
    by_order: BTreeMap<OrderId, Reservation>,
}

impl Reservations {
    /// Reserves, or prolongs what this order has already.
    ///
    /// # Errors
    /// `NoMemory` or `TooManyMigrations`, with the numbers that decided. Nothing is then reserved.
    pub fn reserve(
        &mut self,
        request: &Request,
        room: &Room,
        most: u32,
        now_ms: i64,
    ) -> Result<(), (Refusal, String)> {
        self.expire(now_ms);
        let expires_ms = request.deadline_ms.max(now_ms).saturating_add(GRACE_MS);
        if let Some(held) = self.by_order.get_mut(&request.order) {
            held.expires_ms = held.expires_ms.max(expires_ms);
            return Ok(());
        }
        let coming = self.by_order.len();
        if u32::try_from(coming).unwrap_or(u32::MAX) >= most {
            let detail = format!("{coming} guests are coming already, at most {most} may");
            return Err((Refusal::TooManyMigrations, detail));
        }
        let others = self.held_mib(room, &request.guest);
        let (free, of) = (room.capacity_mib.saturating_sub(others), room.capacity_mib);
        let half = room.held.iter().filter(|(id, _)| *id == request.guest);
        let need = half.fold(request.memory_mib, |most, (_, mib)| most.max(*mib));
        if need > free {
            let detail =
                format!("{need} MiB needed, {free} MiB free of {of} MiB ({others} MiB held)");
            return Err((Refusal::NoMemory, detail));
        }
        let reservation = Reservation {
            guest: request.guest.clone(),
            source: request.source.clone(),
            memory_mib: request.memory_mib,
            is_new: request.is_new,
            expires_ms,
        };
        self.by_order.insert(request.order.clone(), reservation);
        Ok(())
    }

    /// MiB that are taken by all but `guest`. A guest with a reservation counts once, with the
    /// larger of what is promised and what its half holds already.
    fn held_mib(&self, room: &Room, guest: &GuestId) -> u64 {
        let mut by_guest: BTreeMap<&GuestId, u64> = BTreeMap::new();
        let running = room.held.iter().map(|(id, mib)| (id, *mib));
        let promised = self.by_order.values().map(|r| (&r.guest, r.memory_mib));
        for (id, mib) in running.chain(promised).filter(|(id, _)| *id != guest) {
            let held = by_guest.entry(id).or_default();
            *held = mib.max(*held);
        }
        by_guest
            .values()
            .fold(0, |sum, mib| u64::saturating_add(sum, *mib))
    }

    /// Whether `order` has a reservation that stands at `now_ms`.
    #[must_use]
    pub fn holds(&self, order: &OrderId, now_ms: i64) -> bool {
        let held = self.by_order.get(order);
        held.is_some_and(|r| r.expires_ms > now_ms)
    }

    /// Keeps what is held for `guest` for another while: its source still asks about it.
    pub fn prolong(&mut self, guest: &GuestId, source: &HostName, now_ms: i64) {
        let until = now_ms.saturating_add(GRACE_MS);
        for held in self.by_order.values_mut() {
            if held.guest == *guest && held.source == *source {
                held.expires_ms = held.expires_ms.max(until);
            }
        }
    }

    /// The guest of `order` of `source` if all that this host has of it came with that order.
    #[must_use]
    pub fn newcomer(&self, order: &OrderId, source: &HostName) -> Option<GuestId> {
        let held = self.by_order.get(order)?;
        (held.is_new && held.source == *source).then(|| held.guest.clone())
    }

    /// Gives up what `order` of `source` holds; says whether it held anything.
    pub fn release(&mut self, order: &OrderId, source: &HostName) -> bool {
        let owns = self
            .by_order
            .get(order)
            .is_some_and(|r| r.source == *source);
        owns && self.by_order.remove(order).is_some()
    }

    /// How many guests are on their way here, and the MiB promised to them.
    pub fn promised(&mut self, now_ms: i64) -> (usize, u64) {
        self.expire(now_ms);
        let sum = |sum, r: &Reservation| u64::saturating_add(sum, r.memory_mib);
        (self.by_order.len(), self.by_order.values().fold(0, sum))
    }

    fn expire(&mut self, now_ms: i64) {
        self.by_order.retain(|order, reservation| {
            let stands = reservation.expires_ms > now_ms;
            if !stands {
                let (guest, memory_mib) = (&reservation.guest, reservation.memory_mib);
                tracing::warn!(%order, %guest, memory_mib, "reservation expired");
            }
            stands
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guest(n: u32) -> GuestId {
        format!("00000000-0000-0000-0000-{n:012}").parse().unwrap()
    }

    fn source() -> HostName {
        "h1".parse().unwrap()
    }

    fn request(n: u32, memory_mib: u64) -> Request {
        Request {
            order: OrderId::from_random(n.into()),
            guest: guest(n),
            source: source(),
            memory_mib,
            is_new: true,
            deadline_ms: 1_000,
        }
    }

    fn room(capacity_mib: u64, held: &[(u32, u64)]) -> Room {
        Room {
            capacity_mib,
            held: held.iter().map(|(n, mib)| (guest(*n), *mib)).collect(),
        }
    }

    fn refusal(answer: Result<(), (Refusal, String)>) -> Refusal {
        answer.unwrap_err().0
    }

    #[test]
    fn what_runs_and_what_is_promised_is_not_promised_again() {
        let mut all = Reservations::default();
        let room = room(100, &[(9, 40)]);
        assert_eq!(all.reserve(&request(1, 50), &room, 4, 0), Ok(()));
        let second = all.reserve(&request(2, 20), &room, 4, 0);
        assert_eq!(refusal(second), Refusal::NoMemory);
        assert_eq!(all.reserve(&request(3, 10), &room, 4, 0), Ok(()));
    }

    #[test]
    fn a_half_that_has_arrived_is_not_counted_beside_its_reservation() {
        let mut all = Reservations::default();
        all.reserve(&request(1, 50), &room(100, &[]), 4, 0).unwrap();
        let half_is_here = room(100, &[(1, 50)]);
        assert_eq!(all.reserve(&request(2, 50), &half_is_here, 4, 0), Ok(()));
    }

    #[test]
    fn the_same_order_may_ask_again_and_holds_once() {
        let mut all = Reservations::default();
        let room = room(60, &[]);
        for _ in 0..3 {
            assert_eq!(all.reserve(&request(1, 50), &room, 1, 0), Ok(()));
        }
        assert_eq!(all.promised(0), (1, 50));
    }

    #[test]
    fn no_more_guests_come_at_once_than_may() {
        let mut all = Reservations::default();
        let room = room(1_000, &[]);
        assert_eq!(all.reserve(&request(1, 1), &room, 1, 0), Ok(()));
        let second = all.reserve(&request(2, 1), &room, 1, 0);
        assert_eq!(refusal(second), Refusal::TooManyMigrations);
    }

    #[test]
    fn a_reservation_goes_after_deadline_and_grace_unless_the_source_still_asks() {
        let mut all = Reservations::default();
        let order = request(1, 50);
        all.reserve(&order, &room(100, &[]), 4, 0).unwrap();
        let end = 1_000 + GRACE_MS;
        assert!(all.holds(&order.order, end - 1));
        assert!(!all.holds(&order.order, end));
        all.prolong(&order.guest, &"h9".parse().unwrap(), end + 99);
        assert!(!all.holds(&order.order, end));
        all.prolong(&order.guest, &source(), end - 1);
        assert_eq!(all.promised(end), (1, 50));
        assert_eq!(all.promised(end - 1 + GRACE_MS), (0, 0));
    }

    #[test]
    fn what_is_released_is_free_at_once() {
        let mut all = Reservations::default();
        let room = room(50, &[]);
        all.reserve(&request(1, 50), &room, 4, 0).unwrap();
        assert!(!all.release(&OrderId::from_random(1), &"h9".parse().unwrap()));
        assert!(all.release(&OrderId::from_random(1), &source()));
        assert!(!all.release(&OrderId::from_random(1), &source()));
        assert_eq!(all.reserve(&request(2, 50), &room, 4, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn promises_and_guests_never_exceed_the_capacity(
            capacity in 0_u64..500,
            asks in prop::collection::vec((0_u32..12, 0_u64..300, any::<bool>()), 0..40),
            held in prop::collection::vec((0_u32..12, 0_u64..100), 0..4),
        ) {
            let room = room(capacity, &held);
            let running: u64 = held.iter().map(|(_, mib)| mib).sum();
            prop_assume!(running <= capacity);
            let mut all = Reservations::default();
            for (n, mib, give_back) in asks {
                if give_back {
                    all.release(&OrderId::from_random(n.into()), &source());
                } else {
                    let _outcome = all.reserve(&request(n, mib), &room, 8, 0);
                }
                prop_assert!(all.held_mib(&room, &guest(99)) <= capacity);
            }
        }
    }
}
