//! What must hold in every world.

use evenkeel_types::Presence;
use stateright::Property;

use crate::drain;
use crate::stage::Stage;
use crate::world::{World, Wrong, at};

/// For every guest at most the order that stands is in effect.
pub const ONE_ORDER: &str = "one order in effect";
/// No order takes effect after its leader was deposed.
pub const NO_DEPOSED_ORDER: &str = "no order of a deposed leader takes effect";
/// A scheduler writes nothing once it is deposed.
pub const NO_DEPOSED_WRITE: &str = "no write of a deposed leader lands";
/// An order takes effect once.
pub const ONCE: &str = "an order takes effect once";
/// libvirt is called in the name of the order that stands, under an open journal, and never twice at a time.
pub const ONE_MIGRATION: &str = "one migration, and under its journal";
/// No guest runs twice, unless libvirt itself did it.
pub const NEVER_TWICE: &str = "never twice through us";
/// What both hosts are said to have said is true.
pub const TRUE_WORD: &str = "a journal closes on what is true";
/// Nothing that lives is destroyed.
pub const NOT_DESTROYED: &str = "nothing that ran is destroyed";
/// Once faults have stopped and an operator has answered where it takes one, all is closed.
pub const CLOSES: &str = "every journal closes";

/// The names of all, what is worse first.
pub const NAMES: [&str; 9] = [
    NEVER_TWICE,
    NOT_DESTROYED,
    ONE_ORDER,
    NO_DEPOSED_ORDER,
    NO_DEPOSED_WRITE,
    ONCE,
    ONE_MIGRATION,
    TRUE_WORD,
    CLOSES,
];

/// All of them.
#[must_use]
pub fn all() -> Vec<Property<Stage>> {
    vec![
        Property::always(ONE_ORDER, |_, world| has_one_order(world)),
        Property::always(NO_DEPOSED_ORDER, |_, world| {
            never(world, Wrong::DeposedOrder)
        }),
        Property::always(NO_DEPOSED_WRITE, |_, world| {
            never(world, Wrong::DeposedWrite)
        }),
        Property::always(ONCE, |_, world| never(world, Wrong::TwiceAdmitted)),
        Property::always(ONE_MIGRATION, |_, world| {
            never(world, Wrong::UnfoundedCall) && has_one_migration(world)
        }),
        Property::always(NEVER_TWICE, |_, world| runs_once(world)),
        Property::always(TRUE_WORD, |_, world| never(world, Wrong::FalseWord)),
        Property::always(NOT_DESTROYED, |_, world| never(world, Wrong::Destroyed)),
        Property::always(CLOSES, drain::closes),
    ]
}

fn never(world: &World, wrong: Wrong) -> bool {
    world.seen.wrong != Some(wrong)
}

/// Every open journal is of the order that stands: of two orders for a guest one at most is in effect.
fn has_one_order(world: &World) -> bool {
    world.journals.iter().all(|journals| {
        journals.iter().zip(&world.orders).all(|(journal, order)| {
            journal.is_none_or(|j| j.state.outcome().is_some() || *order == Some(j.order))
        })
    })
}

fn has_one_migration(world: &World) -> bool {
    (0..world.living.len()).all(|guest| {
        world
            .hosts
            .iter()
            .filter(|host| host.jobs[guest].is_some())
            .count()
            <= 1
    })
}

fn runs_once(world: &World) -> bool {
    (0..world.living.len()).all(|guest| {
        let running = world
            .hosts
            .iter()
            .filter(|h| h.up && h.guests[guest] == Presence::Running);
        running.count() <= 1 || world.seen.doubled & (1 << guest) != 0
    })
}

/// Whether nothing is under way any more.
#[must_use]
pub fn is_at_rest(world: &World) -> bool {
    let closed = world
        .journals
        .iter()
        .flatten()
        .flatten()
        .all(|j| j.state.outcome().is_some());
    let no_orders = world.orders.iter().all(Option::is_none);
    let free = world
        .agents
        .iter()
        .flat_map(|agent| &agent.slots)
        .all(|slot| *slot == crate::world::Slot::Free);
    let no_jobs = world
        .hosts
        .iter()
        .all(|host| host.jobs.iter().all(Option::is_none));
    let leads = world
        .leader
        .is_some_and(|no| world.schedulers[at(no)].is_some());
    closed && no_orders && free && no_jobs && (leads || world.led == 0)
}
