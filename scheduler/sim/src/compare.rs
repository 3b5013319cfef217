//! One fleet, one load, several strategies.

use evenkeel_planner::{Mode, Policy, PolicyError};

use crate::clairvoyant::repack;
use crate::faults::Faults;
use crate::fleet::{Fleet, FleetError};
use crate::placement::Start;
use crate::run::Simulation;
use crate::score::{Outcome, Scorer};
use crate::world::World;

/// Time between clairvoyant repacks, ms.
const HOUR_MS: i64 = 3_600_000;

/// What is done with a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every guest stays where it is.
    DoNothing,
    /// Every guest is put anywhere that memory allows, once, by seed.
    Random,
    /// The scheduler works.
    Evenkeel,
    /// As the clairvoyant, but knowing only the hour that has passed: what free migrations are worth without the gift.
    Hindsight,
    /// [`crate::clairvoyant`], every hour.
    Clairvoyant,
}

impl Strategy {
    /// All, in the order of reports.
    pub const ALL: [Self; 5] = [
        Self::DoNothing,
        Self::Random,
        Self::Evenkeel,
        Self::Hindsight,
        Self::Clairvoyant,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DoNothing => "do nothing",
            Self::Random => "random placement",
            Self::Evenkeel => "evenkeel",
            Self::Hindsight => "hindsight, hourly",
            Self::Clairvoyant => "clairvoyant, hourly",
        }
    }
}

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The fleet at the start.
    pub fleet: Fleet,
    /// What goes wrong.
    pub faults: Faults,
    /// The policy's text; its mode is taken for automatic.
    pub policy: String,
    /// How long, s.
    pub seconds: u32,
    /// Length of a tick, ms: agents report once in each.
    pub tick_ms: i64,
    /// Seed of everything.
    pub seed: u64,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The fleet is no fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The policy cannot be read.
    #[error("the policy is broken")]
    Policy(#[from] PolicyError),
}

impl Scenario {
    /// What comes of a strategy.
    ///
    /// # Errors
    /// When the fleet or the policy is broken.
    pub fn run(&self, strategy: Strategy) -> Result<Outcome, SimError> {
        let text = Policy::with_mode(&self.policy, Mode::Automatic);
        let policy = Policy::parse(&text)?;
        match strategy {
            Strategy::DoNothing => Ok(self.watch(self.world(&self.fleet)?, |_| {})),
            Strategy::Random => {
                let mut fleet = self.fleet.clone();
                fleet.place(Start::Random, self.seed)?;
                Ok(self.watch(self.world(&fleet)?, |_| {}))
            }
            Strategy::Evenkeel => {
                let mut simulation = Simulation::new(self.world(&self.fleet)?, &text);
                Ok(simulation.run(self.seconds))
            }
            Strategy::Hindsight => self.repacked(&policy, |now_ms| (now_ms - HOUR_MS, now_ms)),
            Strategy::Clairvoyant => self.repacked(&policy, |now_ms| (now_ms, now_ms + HOUR_MS)),
        }
    }

    /// Repacked at each full hour by the load of the span that is known then.
    fn repacked(
        &self,
        policy: &Policy,
        known: impl Fn(i64) -> (i64, i64),
    ) -> Result<Outcome, SimError> {
        Ok(self.watch(self.world(&self.fleet)?, |world| {
            let (from_ms, until_ms) = known(world.now_ms() / HOUR_MS * HOUR_MS);
            if world.now_ms() % HOUR_MS < world.tick_ms() && from_ms >= 0 {
                repack(world, policy, (from_ms, until_ms));
            }
        }))
    }

    fn world(&self, fleet: &Fleet) -> Result<World, FleetError> {
        World::new(fleet.clone(), &self.faults, self.tick_ms, self.seed)
    }

    /// Runs a world in which `act` does what is done before each tick.
    fn watch(&self, mut world: World, mut act: impl FnMut(&mut World)) -> Outcome {
        let mut scorer = Scorer::new(&world);
        let end_ms = i64::from(self.seconds) * 1000;
        while world.now_ms() < end_ms {
            act(&mut world);
            let toll = world.tick();
            scorer.tick(&world, &toll);
        }
        scorer.outcome(&world)
    }
}
