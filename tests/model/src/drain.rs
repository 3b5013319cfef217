//! Liveness: from every world, once nothing more goes wrong, everything closes.
//!
//! Not stateright's `eventually`, which does not see cycles: asking again and again is one. Instead the faults stop in
//! every world that is reached, power and agents come back, and the steps that are possible are then taken in a
//! fixed order, an operator's last. At its end nothing is open.

use std::sync::PoisonError;

use stateright::Model as _;

use crate::libvirt::Doing;
use crate::properties::is_at_rest;
use crate::stage::{Action, Stage};
use crate::world::World;

/// Steps after which a world that is not at rest is taken never to be; the longest way is a third of it.
const PATIENCE: usize = 300;

/// Whether everything closes from here.
pub fn closes(stage: &Stage, world: &World) -> bool {
    let mut world = *world;
    let mut way = vec![];
    for _ in 0..PATIENCE {
        let Err(hash) = stage.known_to_close(&world) else {
            return remember(stage, way);
        };
        way.push(hash);
        if is_at_rest(&world) {
            return remember(stage, way);
        }
        let Some((_, next)) = step(stage, &world, &way) else {
            return false;
        };
        world = next;
    }
    false
}

fn remember(stage: &Stage, way: Vec<u64>) -> bool {
    stage
        .closing
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(way);
    true
}

/// The first step by rank that leads where the `way` has not been: a question that is asked again and again lets
/// others have their turn.
fn step(stage: &Stage, world: &World, way: &[u64]) -> Option<(Action, World)> {
    let mut actions = vec![];
    stage.actions(world, &mut actions);
    let mut ranked: Vec<(u8, Action)> = actions
        .into_iter()
        .filter_map(|action| Some((rank(action)?, action)))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().find_map(|(_, action)| {
        let next = stage.next_state(world, action)?;
        (!way.contains(&stage.hash(&next))).then_some((action, next))
    })
}

/// When a step is taken after the faults have stopped; `None`: never.
fn rank(action: Action) -> Option<u8> {
    Some(match action {
        Action::HostReturns(_) | Action::AgentStarts(_) => 0,
        Action::Elected => 1,
        Action::Commits(_) => 2,
        Action::Admits(..) => 3,
        Action::Writes(..) => 4,
        Action::Finishes(..) => 5,
        Action::Hears(..) | Action::JobIsOver(..) => 6,
        Action::Calls(..) | Action::Prepares(_, _, false) => 7,
        Action::Aborts(..) => 8,
        Action::Libvirt(_, _, Doing::Begins | Doing::HandsOver) => 9,
        Action::Libvirt(_, _, Doing::Completes) => 10,
        Action::HalfGoes(..) => 11,
        Action::LooksAfter(..) => 12,
        // An open answer means giving up, for it will stay open.
        Action::Asks(_, _, _, false, true) => 13,
        Action::Asks(_, _, _, false, false) => 14,
        Action::CallTimesOut(..) => 15,
        Action::Looks(_, _, true) => 16,
        Action::Resolves(_, _, false) => 17,
        Action::DestroysByHand(..) => 18,
        Action::LeaseExpires
        | Action::Plans(..)
        | Action::Looks(_, _, false)
        | Action::CommitIsLost(_)
        | Action::LateCommit(_)
        | Action::Arrives(..)
        | Action::AdmissionIsLost(..)
        | Action::LateLands(..)
        | Action::Prepares(_, _, true)
        | Action::GivesUpOnCall(..)
        | Action::HearsSwitchover(..)
        | Action::Cancels(..)
        | Action::DeadlinePasses(..)
        | Action::Asks(_, _, _, true, _)
        | Action::Libvirt(..)
        | Action::AgentDies(_)
        | Action::HostDies(..)
        | Action::Resolves(_, _, true)
        | Action::ClosesForSilent(..) => return None,
    })
}
