//! `explain guest`, `explain host` and `explain move`
//!
//! The same code answers for a snapshot file and for the live fleet, whose snapshot and policy are fetched first.

use evenkeel_planner::{ExplainError, Options, Snapshot, Subject};

use super::Session;
use super::fleet::{Fleet, snapshot_and_policy};
use crate::args::{ExplainCommand, Format};
use crate::exit::{Exit, Failure};
use crate::output;

pub(super) async fn explain(
    session: &mut Session<'_>,
    args: &ExplainCommand,
) -> Result<Exit, Failure> {
    session.only("explain", &[Format::Table, Format::Wide, Format::Json])?;
    let (about, source) = match args {
        ExplainCommand::Guest { name, source } => (Subject::Guest { name: name.clone() }, source),
        ExplainCommand::Host { name, source } => (Subject::Host { name: name.clone() }, source),
        ExplainCommand::Move {
            guest,
            target,
            source,
        } => {
            let (guest, target) = (guest.clone(), target.clone());
            (Subject::Move { guest, target }, source)
        }
    };
    let fleet = Fleet::open(session, source)?;
    let place = fleet.place().to_owned();
    let (snapshot, policy) = snapshot_and_policy(fleet).await?;
    let about = one_guest(about, &snapshot)?;
    let answer = evenkeel_planner::explain(&snapshot, &policy, &Options::default(), &about);
    let answer = answer.map_err(|error| not_there(error, &place))?;
    session.print(&answer, output::explain::explanation, |_| String::new())?;
    Ok(Exit::Ok)
}

/// A guest's name may stand on two hosts, each written `host/name` then.
fn one_guest(about: Subject, snapshot: &Snapshot) -> Result<Subject, Failure> {
    let (Subject::Guest { name } | Subject::Move { guest: name, .. }) = &about else {
        return Ok(about);
    };
    if snapshot.guest(name).is_some() {
        return Ok(about);
    }
    let long = |full: &&str| {
        full.rsplit_once('/')
            .is_some_and(|(_, short)| short == name)
    };
    let found: Vec<&str> = snapshot
        .guests
        .iter()
        .map(|guest| guest.name.as_str())
        .filter(long)
        .collect();
    match (found.as_slice(), &about) {
        ([], _) | (_, Subject::Host { .. }) => Ok(about),
        ([only], Subject::Guest { .. }) => Ok(Subject::Guest {
            name: (*only).to_owned(),
        }),
        ([only], Subject::Move { target, .. }) => Ok(Subject::Move {
            guest: (*only).to_owned(),
            target: target.clone(),
        }),
        (several, _) => Err(Failure::Ambiguous {
            kind: "guest",
            name: name.clone(),
            found: several.join(", "),
        }),
    }
}

fn not_there(error: ExplainError, place: &str) -> Failure {
    let (kind, name) = match error {
        ExplainError::NoGuest(name) => ("guest", name),
        ExplainError::NoHost(name) => ("host", name),
        ExplainError::Snapshot(source) => {
            return Failure::Snapshot {
                file: place.to_owned(),
                source,
            };
        }
    };
    Failure::NotThere {
        kind,
        name,
        place: place.to_owned(),
    }
}
