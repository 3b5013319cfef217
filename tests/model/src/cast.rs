//! The small numbers of a [`World`] as the real code knows them: orders, journals, leaders' keys.
//!
//! An order's number is its place in time and tells orders apart; its message is made once and looked up.

use std::collections::HashMap;

use anyhow::Context as _;
use evenkeel_agent::journal::{Leader, Seen, Standing, Stored};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_scheduler::observe::{JournalEntry, OrderEntry};
use evenkeel_types::{Epoch, GuestId, MigrationState, OrderId};

use crate::bounds::{Bounds, GUESTS, HOSTS, LEADERS, ORDERS};
use crate::world::{Base, Given, Journal, No, World, at};

/// When every order was made, milliseconds since the Unix epoch.
pub const MADE_MS: i64 = 1_000_000;

/// All orders that can be given.
#[derive(Debug)]
pub struct Cast {
    orders: HashMap<(No, Given), OrderEntry>,
    guest: GuestId,
}

/// The key under which a scheduler campaigns.
#[must_use]
pub fn key(scheduler: No) -> String {
    format!("/evenkeel/v1/lab/scheduler/leader/{scheduler}")
}

/// Its epoch, once that key leads.
#[must_use]
pub fn epoch(scheduler: No) -> Epoch {
    Epoch(i64::from(scheduler) + 1)
}

fn message(no: No, given: Given) -> v1::Order {
    v1::Order {
        id: OrderId::from_random(u128::from(no) + 1).to_string(),
        guest_uuid: format!("00000000-0000-0000-0000-00000000000{}", given.guest),
        guest_name: format!("g{}", given.guest),
        source: format!("h{}", given.source),
        target: format!("h{}", given.target),
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            ..v1::MoveOptions::default()
        }),
        created_at_ms: MADE_MS,
        deadline_ms: MADE_MS + 3_600_000,
        epoch: epoch(given.by).0,
        ..v1::Order::default()
    }
}

fn numbers(count: usize) -> impl Iterator<Item = No> {
    (0..count).filter_map(|n| No::try_from(n).ok())
}

impl Cast {
    /// Every order that fits into the bounds.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub fn new(bounds: &Bounds) -> anyhow::Result<Self> {
        let mut orders = HashMap::new();
        for no in numbers(ORDERS) {
            for guest in numbers(GUESTS) {
                for source in numbers(HOSTS) {
                    for target in numbers(HOSTS).filter(|target| *target != source) {
                        for by in numbers(LEADERS) {
                            let given = Given {
                                guest,
                                source,
                                target,
                                by,
                            };
                            let order = Order::try_from(message(no, given))
                                .context("an order of the model")?;
                            let entry = OrderEntry {
                                order,
                                mod_revision: i64::from(no) + 1,
                            };
                            orders.insert((no, given), entry);
                        }
                    }
                }
            }
        }
        anyhow::ensure!(
            bounds.hosts <= HOSTS
                && bounds.guests <= GUESTS
                && bounds.orders <= ORDERS
                && bounds.leaders <= LEADERS,
            "the bounds {bounds:?} do not fit into a world"
        );
        let guest = message(
            0,
            Given {
                guest: 0,
                source: 0,
                target: 1,
                by: 0,
            },
        )
        .guest_uuid;
        Ok(Self {
            orders,
            guest: guest.parse()?,
        })
    }

    /// Some guest, where only a message needs one.
    #[must_use]
    pub fn any_guest(&self) -> &GuestId {
        &self.guest
    }

    /// An order as a scheduler sees it.
    #[must_use]
    pub fn entry(&self, world: &World, no: No) -> &OrderEntry {
        &self.orders[&(no, world.order(no))]
    }

    /// An order as an agent sees it.
    #[must_use]
    pub fn order(&self, world: &World, no: No) -> &Order {
        &self.entry(world, no).order
    }

    /// A journal as a scheduler sees it.
    #[must_use]
    pub fn journal_entry(&self, world: &World, journal: Journal) -> JournalEntry {
        JournalEntry {
            order: self.order(world, journal.order).clone(),
            state: journal.state,
            message: v1::Journal::default(),
            mod_revision: 1,
        }
    }

    /// A journal as it stands in etcd.
    #[must_use]
    pub fn journal(&self, world: &World, journal: Journal) -> v1::Journal {
        v1::Journal {
            order: Some(self.order(world, journal.order).message.clone()),
            state: Some(journal.state.into()),
            ..v1::Journal::default()
        }
    }

    /// What an agent sees in etcd when it looks at an order that it was brought.
    #[must_use]
    pub fn seen(&self, world: &World, no: No) -> Seen {
        let given = world.order(no);
        let stored = |order: &OrderEntry| Stored {
            value: order.order.message.clone(),
            revision: order.mod_revision,
        };
        let journal = world.journals[at(given.source)][at(given.guest)];
        Seen {
            leader: world.leader.map(|no| Leader {
                key: key(no),
                epoch: epoch(no),
            }),
            order: world.orders[at(given.guest)].map(|no| stored(self.entry(world, no))),
            journal: journal.map(|journal| Stored {
                value: self.standing(world, journal, no),
                revision: 1,
            }),
        }
    }

    fn standing(&self, world: &World, journal: Journal, order: No) -> Standing {
        let id = &self.order(world, order).id;
        evenkeel_agent::journal::standing(&self.journal(world, journal), id)
    }
}

/// The revision in an agent's grounds as what it rests on.
#[must_use]
pub fn base_of(journal_revision: i64) -> Base {
    if journal_revision == 0 {
        Base::Absent
    } else {
        Base::Unchanged
    }
}

/// The state of a migration as it is opened.
pub const OPENED: MigrationState = MigrationState::Preparing;
