//! `plan` and `plan show`

use std::io::Write;
use std::path::Path;

use evenkeel_planner::Options;
use evenkeel_proto::v1;

use super::Session;
use super::fleet::{Fleet, Recorded, status};
use super::policy::read_text;
use super::remembered::remember;
use crate::args::{Format, PlanArgs, ShowPlan};
use crate::client::{Client, THOROUGH};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::view::Plan;

/// What this version can show.
const SCHEMA: &str = "evenkeel.plan/1";

pub(super) async fn plan(session: &mut Session<'_>, args: &PlanArgs) -> Result<Exit, Failure> {
    if let Some(ShowPlan::Show { file }) = &args.command {
        let (name, text) = read_text(file)?;
        let plan = parse(&name, text.as_bytes())?;
        print(session, text.as_bytes(), &plan, None)?;
        return Ok(Exit::Ok);
    }
    let (document, revision) = match Fleet::open(session, &args.source)? {
        Fleet::Live(client) => {
            let document = live(&client, args.max_moves).await?;
            let revision = match session.format() {
                Format::Table | Format::Wide => Some(status(&client).await?.policy_revision),
                Format::Json | Format::Name => None,
            };
            (document, revision)
        }
        Fleet::File(recorded) => (offline(&recorded, args.max_moves), None),
    };
    let plan = parse("the answer", &document)?;
    if let Some(file) = &args.out {
        write_file(file, &document)?;
    }
    print(session, &document, &plan, revision)?;
    // What a snapshot gave is no plan for the fleet.
    if args.source.snapshot.is_none()
        && !plan.steps.is_empty()
        && remember(session, &plan.id, &document)
        && revision.is_some()
    {
        let hint = format!("To run exactly this: evenkeel apply {}\n", plan.id);
        session.io.out.write_all(hint.as_bytes())?;
    }
    Ok(match args.detailed_exitcode && !plan.steps.is_empty() {
        true => Exit::ChangesPending,
        false => Exit::Ok,
    })
}

/// The leader's plan as its document; `max_moves`: at most so many.
pub(super) async fn live(client: &Client, max_moves: Option<u32>) -> Result<Vec<u8>, Failure> {
    let max_moves = max_moves.unwrap_or(0);
    let document = client
        .read(THOROUGH, async |mut scheduler| {
            let request = v1::GetPlanRequest {
                max_moves,
                ..Default::default()
            };
            scheduler.get_plan(request).await
        })
        .await?;
    Ok(document.json)
}

/// The plan for a recorded fleet, as the same document.
pub(super) fn offline(recorded: &Recorded, max_moves: Option<u32>) -> Vec<u8> {
    let options = Options {
        max_moves: max_moves.and_then(|most| usize::try_from(most).ok()),
        ..Options::default()
    };
    let (plan, _) = evenkeel_planner::plan(&recorded.snapshot, &recorded.policy, &options);
    plan.to_json().into_bytes()
}

pub(super) fn parse(place: &str, document: &[u8]) -> Result<Plan, Failure> {
    let failed = |source| Failure::Document {
        place: place.to_owned(),
        expected: SCHEMA,
        source,
    };
    let plan: Plan = serde_json::from_slice(document).map_err(failed)?;
    if plan.schema != SCHEMA {
        let found = format!("its schema is {:?}", plan.schema);
        return Err(failed(serde::de::Error::custom(found)));
    }
    Ok(plan)
}

fn print(
    session: &mut Session<'_>,
    document: &[u8],
    plan: &Plan,
    revision: Option<u64>,
) -> Result<(), Failure> {
    let text = match session.format() {
        Format::Json => return session.print_document(document),
        Format::Table | Format::Wide => output::plan::plan(plan, revision, session.look()),
        Format::Name => format!("{}\n", plan.id),
    };
    session.io.out.write_all(text.as_bytes())?;
    session.io.out.flush()?;
    Ok(())
}

/// Writes beside the file and renames, so that no half document is ever read.
pub(super) fn write_file(file: &Path, document: &[u8]) -> Result<(), Failure> {
    let path = file.display().to_string();
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = Path::new(&name);
    let written = std::fs::write(beside, document).and_then(|()| std::fs::rename(beside, file));
    written.map_err(|source| {
        let _ = std::fs::remove_file(beside);
        Failure::Unwritable { path, source }
    })
}
