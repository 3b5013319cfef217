//! What schedulers do: plan, look after orders with the real [`reconcile`], write, lead and be deposed.

use evenkeel_scheduler::execute::reconcile::{Delivered, OrderAction, reconcile};
use evenkeel_types::{MigrationState, Place, Presence};

use crate::cast::{MADE_MS, epoch};
use crate::etcd::Landed;
use crate::stage::Stage;
use crate::world::{Given, Intent, No, Scheduler, Told, World, at};

/// Long enough for an order that nobody took up to be given up, milliseconds; all other times are shorter.
const LONG_MS: i64 = 31_000;
const SOON_MS: i64 = 1_000;

impl Stage {
    /// The lease of the leader's key runs out; the scheduler does not know it yet.
    pub fn lease_expires(world: &mut World) {
        world.leader = None;
    }

    /// The next candidate's key is the oldest.
    pub fn elected(world: &mut World) {
        world.leader = Some(world.led);
        world.schedulers[at(world.led)] = Some(Scheduler::default());
        world.led += 1;
    }

    /// Decides to move a guest from where its picture shows it.
    pub fn plans(world: &mut World, by: No, guest: No, target: No) {
        let (Some(source), Some(no)) = (runs_at(world, guest), next_order(world)) else {
            return;
        };
        world.given[at(no)] = Some(Given {
            guest,
            source,
            target,
            by,
        });
        if let Some(scheduler) = &mut world.schedulers[at(by)] {
            scheduler.intent = Some(Intent::Create(no));
        }
    }

    /// Looks at the order that stands for a guest, and does or decides what the real code says.
    pub fn looks(&self, world: &mut World, by: No, guest: No, long: bool) {
        let (Some(no), Some(scheduler)) = (world.orders[at(guest)], world.schedulers[at(by)])
        else {
            return;
        };
        let source = world.order(no).source;
        let entry = self.cast.entry(world, no);
        let stands = world.journals[at(source)][at(guest)];
        let journal = stands
            .filter(|journal| journal.order == no)
            .map(|journal| self.cast.journal_entry(world, journal));
        let told = scheduler.told[at(no)];
        let delivered = Delivered {
            under_way: told == Told::UnderWay,
            last_ms: None,
            refused: match told {
                Told::Refused(refusal) => Some(refusal),
                Told::Nothing | Told::UnderWay => None,
            },
            detail: String::new(),
        };
        let now_ms = MADE_MS + if long { LONG_MS } else { SOON_MS };
        let action = reconcile(entry, journal.as_ref(), epoch(by), &delivered, now_ms);
        let base = world.base(source, guest);
        let Some(scheduler) = &mut world.schedulers[at(by)] else {
            return;
        };
        match action {
            OrderAction::Wait => {}
            OrderAction::Deliver => {
                scheduler.told[at(no)] = Told::UnderWay;
                world.sent[at(no)] |= 1 << by;
            }
            OrderAction::Settle => scheduler.intent = Some(Intent::Settle(no)),
            OrderAction::Withdraw(_) => scheduler.intent = Some(Intent::Withdraw(no, base)),
        }
    }

    /// Sends the transaction that it has decided upon, and hears the answer.
    pub fn commits(&self, world: &mut World, by: No) {
        let Some(scheduler) = &mut world.schedulers[at(by)] else {
            return;
        };
        let Some(intent) = scheduler.intent.take() else {
            return;
        };
        match self.commit(world, by, intent) {
            Landed::Written => forget(world, by, intent),
            Landed::Conflict => {}
            Landed::Deposed => world.schedulers[at(by)] = None,
        }
    }

    /// etcd does not answer it: the transaction may be carried out later.
    pub fn commit_is_lost(world: &mut World, by: No) {
        if let Some(scheduler) = &mut world.schedulers[at(by)] {
            scheduler.late = scheduler.intent.take();
            world.left.etcd -= 1;
        }
    }

    /// Such a transaction is carried out.
    pub fn late_commit(&self, world: &mut World, by: No) {
        let late = world.schedulers[at(by)]
            .as_mut()
            .and_then(|s| s.late.take());
        if let Some(intent) = late {
            self.commit(world, by, intent);
        }
    }

    /// The call that delivers an order ends without an answer.
    pub fn call_times_out(world: &mut World, by: No, order: No) {
        if let Some(scheduler) = &mut world.schedulers[at(by)] {
            scheduler.told[at(order)] = Told::Nothing;
        }
    }

    /// Decides to close the journal of a silent source on an operator's word.
    pub fn closes_for_silent(&self, world: &mut World, by: No, guest: No) {
        let Some(no) = world.orders[at(guest)] else {
            return;
        };
        let source = world.order(no).source;
        let Some(place) = word(world, no).filter(|place| {
            // The leader knows what the reports of hosts that are not silent say.
            place.check(None, self.reported(world, no)).is_ok()
        }) else {
            return;
        };
        let base = world.base(source, guest);
        if let Some(scheduler) = &mut world.schedulers[at(by)] {
            scheduler.intent = Some(Intent::Resolve(no, place, base));
        }
    }

    fn reported(&self, world: &World, order: No) -> Option<Presence> {
        let Given { guest, target, .. } = world.order(order);
        let up = world.agents[at(target)].up;
        up.then(|| world.hosts[at(target)].guests[at(guest)])
    }

    /// Whether an operator can have the leader close a migration: its source is silent, and either its agent has
    /// said that it is unknown or its deadline is well over.
    #[must_use]
    pub fn is_silent_and_unknown(world: &World, order: No) -> bool {
        let Given { guest, source, .. } = world.order(order);
        let journal = world.journals[at(source)][at(guest)].filter(|j| j.order == order);
        let open = journal.is_some_and(|j| j.state.outcome().is_none());
        let unknown = journal.is_some_and(|j| matches!(j.state, MigrationState::Unknown { .. }));
        // An agent that lives without etcd is as silent as a dead one. Only a dead one lets a deadline pass.
        let dead = !world.agents[at(source)].up;
        open && (dead || unknown)
    }
}

/// The number of the next order, while there is one.
#[must_use]
pub fn next_order(world: &World) -> Option<No> {
    let free = world.given.iter().position(Option::is_none)?;
    No::try_from(free).ok()
}

/// The only host on which a guest is seen to run.
#[must_use]
pub fn runs_at(world: &World, guest: No) -> Option<No> {
    let mut running = (0..).zip(&world.hosts).filter(|(no, host)| {
        let reported = host.up && world.agents[at(*no)].up;
        reported && host.guests[at(guest)] == Presence::Running
    });
    match (running.next(), running.next()) {
        (Some((no, _)), None) => Some(no),
        (None, _) | (Some(_), Some(_)) => None,
    }
}

/// What a truthful operator says of an order's guest; `None`: it is on neither of its hosts.
#[must_use]
pub fn word(world: &World, order: No) -> Option<Place> {
    let Given {
        guest,
        source,
        target,
        ..
    } = world.order(order);
    match world.living[at(guest)] {
        None => Some(Place::Nowhere),
        Some(host) if host == source => Some(Place::Source),
        Some(host) if host == target => Some(Place::Target),
        Some(_) => None,
    }
}

fn forget(world: &mut World, by: No, intent: Intent) {
    if let (Some(scheduler), false) = (
        &mut world.schedulers[at(by)],
        matches!(intent, Intent::Create(_)),
    ) {
        scheduler.told[at(intent.order())] = Told::Nothing;
    }
}

/// Notes for an agent's refusal that has reached the scheduler.
pub fn note_refused(world: &mut World, by: No, order: No, refusal: evenkeel_types::Refusal) {
    if let Some(scheduler) = &mut world.schedulers[at(by)] {
        let told = &mut scheduler.told[at(order)];
        if *told == Told::UnderWay {
            // `understand` of execute/agents.rs: its journal tells the rest.
            let duplicate = refusal == evenkeel_types::Refusal::Duplicate;
            *told = if duplicate {
                Told::Nothing
            } else {
                Told::Refused(refusal)
            };
        }
    }
}

/// An order taken up: the call has its first word.
pub fn note_taken_up(world: &mut World, by: No, order: No) {
    Stage::call_times_out(world, by, order);
}
