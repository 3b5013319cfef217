//! Transactions: guards are compared with what stands, then all is written or nothing.

use evenkeel_types::MigrationState;

use crate::bounds::Guard;
use crate::cast::OPENED;
use crate::stage::{Mark, Stage};
use crate::world::{Admission, Base, Given, Intent, Journal, No, World, Wrong, at};

/// How a transaction came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// All is written.
    Written,
    /// The key of the scheduler does not lead.
    Deposed,
    /// Another guard did not hold.
    Conflict,
}

impl Stage {
    /// Carries out what a scheduler has decided, as `scheduler/src/execute/orders.rs` guards it.
    pub fn commit(&self, world: &mut World, by: No, intent: Intent) -> Landed {
        let deposed = world.leader != Some(by);
        if deposed && self.has(Guard::Mandate) {
            self.mark(Mark::DeposedWriteRefused);
            return Landed::Deposed;
        }
        let landed = self.commit_unfenced(world, intent);
        if deposed && landed == Landed::Written {
            world.wrong(Wrong::DeposedWrite);
        }
        landed
    }

    fn commit_unfenced(&self, world: &mut World, intent: Intent) -> Landed {
        let order = intent.order();
        let Given { guest, source, .. } = world.order(order);
        let stands = world.orders[at(guest)];
        if let Intent::Create(_) = intent {
            if stands.is_some() && self.has(Guard::OnlyIfAbsent) {
                return Landed::Conflict;
            }
            world.orders[at(guest)] = Some(order);
            return Landed::Written;
        }
        if stands != Some(order) {
            return Landed::Conflict;
        }
        match intent {
            Intent::Create(_) | Intent::Settle(_) => {}
            Intent::Withdraw(_, base) => {
                if !world.holds(source, guest, base) && self.has(Guard::Untaken) {
                    self.mark(Mark::WithdrawalRefused);
                    return Landed::Conflict;
                }
                self.mark(Mark::Withdrawn);
            }
            Intent::Resolve(_, place, base) => {
                if !world.holds(source, guest, base) {
                    return Landed::Conflict;
                }
                let state = MigrationState::Ended(place.outcome());
                world.put_journal(source, guest, Some(Journal { order, state }));
                self.mark(Mark::ResolvedByLeader);
            }
        }
        world.orders[at(guest)] = None;
        Landed::Written
    }

    /// Carries out an admitting transaction, as `agent/src/journal/etcd.rs` guards it.
    pub fn admit(&self, world: &mut World, admission: Admission) -> Landed {
        let Admission { order, by, base } = admission;
        let Given {
            guest,
            source,
            by: gave,
            ..
        } = world.order(order);
        if world.leader != Some(by) && self.has(Guard::Epoch) {
            return Landed::Deposed;
        }
        let order_stands = world.orders[at(guest)] == Some(order);
        if !order_stands && self.has(Guard::OrderStands) {
            return Landed::Conflict;
        }
        if !world.holds(source, guest, base) && self.has(Guard::NoJournalYet) {
            return Landed::Conflict;
        }
        if world.leader != Some(gave) {
            world.wrong(Wrong::DeposedOrder);
        }
        let bit = 1 << order;
        if world.seen.admitted & bit != 0 {
            world.wrong(Wrong::TwiceAdmitted);
        }
        world.seen.admitted |= bit;
        world.put_journal(
            source,
            guest,
            Some(Journal {
                order,
                state: OPENED,
            }),
        );
        Landed::Written
    }

    /// Writes a journal if what it rests on still stands.
    pub fn write(&self, world: &mut World, journal: Journal, base: Base) -> Landed {
        let Given { guest, source, .. } = world.order(journal.order);
        if !world.holds(source, guest, base) {
            return Landed::Conflict;
        }
        let stands = world.journals[at(source)][at(guest)];
        let settled = stands.filter(|j| j.state.outcome().is_some());
        if settled.is_some_and(|stands| stands != journal) {
            world.wrong(Wrong::FalseWord);
        }
        world.put_journal(source, guest, Some(journal));
        Landed::Written
    }
}

impl Intent {
    /// The order that it is about.
    #[must_use]
    pub fn order(self) -> No {
        match self {
            Self::Create(no) | Self::Settle(no) | Self::Withdraw(no, _) | Self::Resolve(no, ..) => {
                no
            }
        }
    }
}
