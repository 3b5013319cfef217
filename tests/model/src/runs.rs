//! The bounds that are gone through, and how.

use std::time::{Duration, Instant};

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::bounds::{Bounds, Faults, Guard};
use crate::properties;
use crate::stage::{Action, Mark, Stage};
use crate::world::World;

/// What came of a run.
#[derive(Debug)]
pub struct Found {
    /// Worlds that differ.
    pub worlds: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// Longest of the shortest ways to a world.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What does not hold, with the steps to it.
    pub broken: Option<Broken>,
    /// What was reached.
    pub reached: Vec<Mark>,
}

/// A counterexample.
#[derive(Debug)]
pub struct Broken {
    /// What does not hold.
    pub property: &'static str,
    /// The steps to the world in which it does not.
    pub way: Vec<Action>,
}

/// Goes through everything within bounds, breadth first: a counterexample is one of the shortest.
///
/// # Errors
/// When the bounds do not fit into a world.
pub fn run(bounds: Bounds) -> anyhow::Result<Found> {
    let began = Instant::now();
    // One thread: with more the order, and with it the counterexample, would differ from run to run.
    let mut checker = Stage::new(bounds)?
        .checker()
        .finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = bounds.deepest {
        checker = checker.target_max_depth(depth);
    }
    let checker = checker.spawn_bfs().join();
    let took = began.elapsed();
    let stage = checker.model();
    let ways = checker.discoveries();
    let broken = properties::NAMES
        .into_iter()
        .filter_map(|property| Some((property, ways.get(property)?)))
        .map(|(property, way)| shorten(stage, property, way.clone().into_actions()))
        .min_by_key(|broken| broken.way.len());
    Ok(Found {
        worlds: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took,
        broken,
        reached: Mark::ALL
            .into_iter()
            .filter(|mark| stage.reached(*mark))
            .collect(),
    })
}

/// Leaves out the steps without which the property does not hold either.
fn shorten(stage: &Stage, property: &'static str, mut way: Vec<Action>) -> Broken {
    let mut no = 0;
    while no < way.len() {
        let mut fewer = way.clone();
        fewer.remove(no);
        match breaks_at(stage, property, &fewer) {
            Some(steps) => {
                fewer.truncate(steps);
                (way, no) = (fewer, 0);
            }
            None => no += 1,
        }
    }
    Broken { property, way }
}

/// After how many steps of a way the property does not hold; `None`: it does, or the way cannot be gone.
fn breaks_at(stage: &Stage, property: &str, way: &[Action]) -> Option<usize> {
    let property = stage
        .properties()
        .into_iter()
        .find(|p| p.name == property)?;
    let mut world = World::new(&stage.bounds);
    for (steps, action) in (1..).zip(way) {
        let mut possible = vec![];
        stage.actions(&world, &mut possible);
        if !possible.contains(action) {
            return None;
        }
        world = stage.next_state(&world, *action)?;
        if !(property.condition)(stage, &world) {
            return Some(steps);
        }
    }
    None
}

const NONE: Faults = Faults {
    agent: 0,
    host: 0,
    etcd: 0,
    call: 0,
    hand_over: 0,
    doubled: 0,
    abort: 0,
};

/// One guest, one order, one leader: every other run differs from it in what its name says.
const PLAIN: Bounds = Bounds {
    name: "plain",
    hosts: 2,
    guests: 1,
    orders: 1,
    leaders: 1,
    faults: NONE,
    torn_answers: false,
    deepest: None,
    without: None,
};

/// What every `cargo test` goes through.
pub const SMALL: [Bounds; 6] = [
    Bounds {
        name: "deposed",
        leaders: 2,
        faults: Faults {
            hand_over: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "late-writes",
        faults: Faults {
            agent: 1,
            etcd: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "hosts-die",
        faults: Faults {
            host: 1,
            hand_over: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "aborts",
        faults: Faults {
            call: 1,
            abort: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "libvirt-doubles",
        faults: Faults {
            agent: 1,
            doubled: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "torn-answers",
        torn_answers: true,
        ..PLAIN
    },
];

/// The same, by itself for it takes longest: one order after the other.
pub const AGAIN: Bounds = Bounds {
    name: "again",
    orders: 2,
    ..PLAIN
};

/// What `make model` goes through besides.
pub const LARGE: [Bounds; 8] = [
    Bounds {
        name: "three-leaders",
        leaders: 3,
        ..PLAIN
    },
    Bounds {
        name: "deposed-faults",
        leaders: 2,
        faults: Faults {
            agent: 1,
            hand_over: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "deposed-late",
        leaders: 2,
        faults: Faults {
            agent: 1,
            etcd: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "hosts-and-agents",
        faults: Faults {
            agent: 1,
            host: 1,
            hand_over: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "aborts-and-agents",
        faults: Faults {
            agent: 1,
            call: 1,
            abort: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "torn-faults",
        torn_answers: true,
        faults: Faults {
            agent: 1,
            call: 1,
            ..NONE
        },
        ..PLAIN
    },
    Bounds {
        name: "three-hosts",
        hosts: 3,
        orders: 2,
        ..PLAIN
    },
    Bounds {
        name: "two-guests",
        guests: 2,
        orders: 2,
        deepest: Some(36),
        ..PLAIN
    },
];

/// A guard that is left out, the bounds that show it, and what then does not hold.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// The bounds, with the guard left out.
    pub bounds: Bounds,
    /// The property that breaks.
    pub breaks: &'static str,
}

/// Every guard, left out.
#[must_use]
pub fn mutations() -> Vec<Mutation> {
    let leaders = Bounds {
        leaders: 2,
        ..PLAIN
    };
    let again = Bounds { orders: 2, ..PLAIN };
    let late = Bounds {
        orders: 2,
        faults: Faults { etcd: 1, ..NONE },
        ..PLAIN
    };
    let hand_over = Bounds {
        faults: Faults {
            hand_over: 1,
            ..NONE
        },
        ..PLAIN
    };
    let torn = Bounds {
        torn_answers: true,
        ..PLAIN
    };
    let agent = Bounds {
        faults: Faults { agent: 1, ..NONE },
        ..PLAIN
    };
    Guard::ALL
        .into_iter()
        .map(|guard| {
            let (bounds, breaks) = match guard {
                Guard::Epoch => (leaders, properties::NO_DEPOSED_ORDER),
                Guard::OrderStands => (again, properties::ONCE),
                Guard::NoJournalYet => (agent, properties::ONCE),
                Guard::Mandate => (leaders, properties::NO_DEPOSED_WRITE),
                Guard::OnlyIfAbsent => (late, properties::ONE_ORDER),
                Guard::Untaken => (again, properties::ONE_ORDER),
                Guard::JournalFirst => (agent, properties::ONE_MIGRATION),
                Guard::AskBothHosts => (hand_over, properties::TRUE_WORD),
                Guard::NeverResume => (hand_over, properties::NEVER_TWICE),
                Guard::AnswerAfterCall => (torn, properties::TRUE_WORD),
                Guard::DiscardOnlyRemnants => (hand_over, properties::NOT_DESTROYED),
            };
            Mutation {
                bounds: bounds.without(guard),
                breaks,
            }
        })
        .collect()
}
