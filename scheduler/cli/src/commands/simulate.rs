//! `simulate`: hours or days of a recorded fleet, offline.

use std::path::Path;

use evenkeel_planner::Snapshot;
use evenkeel_sim::trace::FIVE_MINUTES;
use evenkeel_sim::{Faults, Fleet, Report, Scenario, SimError, Strategy, Trace};

use super::Session;
use super::plan::write_file;
use super::policy::{parse_text, read_text};
use crate::args::{Format, SimulateArgs};
use crate::exit::{Exit, Failure};

/// Agents report, and the world goes on, in steps of this length. Shorter ones change little and take longer.
const TICK_MS: i64 = 15_000;
/// What is compared. A random placement is no choice that the operator of a fleet has.
const STRATEGIES: [Strategy; 3] = [
    Strategy::DoNothing,
    Strategy::Evenkeel,
    Strategy::Clairvoyant,
];

pub(super) fn simulate(session: &mut Session<'_>, args: &SimulateArgs) -> Result<Exit, Failure> {
    session.only("simulate", &[Format::Table, Format::Json])?;
    let (file, text) = read_text(&args.snapshot)?;
    let policy = match &args.policy {
        None => "schema = 1\n".to_owned(),
        Some(policy) => parse_text(policy)?.1,
    };
    let snapshot = Snapshot::from_json(&text).map_err(|source| Failure::Snapshot {
        file: file.clone(),
        source,
    })?;
    let failed = |source: SimError| Failure::Simulation {
        file: file.clone(),
        source,
    };
    let trace = args.trace.as_deref().map(read_trace).transpose()?;
    let fleet = Fleet::of_snapshot(&snapshot, trace.as_ref(), args.seed)
        .map_err(|source| failed(source.into()))?;
    for note in &fleet.notes {
        session.io.say(note);
    }
    let scenario = Scenario {
        fleet,
        faults: if args.faults {
            Faults::BAD_WEEK
        } else {
            Faults::NONE
        },
        policy,
        seconds: u32::try_from(args.duration.as_secs()).unwrap_or(u32::MAX),
        tick_ms: TICK_MS,
        seed: args.seed,
    };
    let report = Report::of(&scenario, &STRATEGIES).map_err(failed)?;
    if let Some(picture) = &args.svg {
        write_file(picture, report.to_svg().as_bytes())?;
    }
    session.print(&report, |report, _| report.to_text(), |_| String::new())?;
    Ok(Exit::Ok)
}

fn read_trace(file: &Path) -> Result<Trace, Failure> {
    let (name, text) = read_text(file)?;
    Ok(Trace::parse(&name, &text, FIVE_MINUTES)?)
}
