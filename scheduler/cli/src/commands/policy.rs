//! `policy check` and `policy apply`

use std::io::Read;
use std::path::Path;

use evenkeel_planner::Policy;
use evenkeel_planner::policy::PolicyError;
use evenkeel_proto::v1;

use super::Session;
use super::fleet;
use crate::args::PolicyCommand;
use crate::exit::{Exit, Failure};
use crate::view::{PolicyApplied, PolicyCheck, PolicyFault};

pub(super) async fn policy(
    session: &mut Session<'_>,
    args: &PolicyCommand,
) -> Result<Exit, Failure> {
    match args {
        PolicyCommand::Check { file } => check(session, file),
        PolicyCommand::Apply {
            file,
            if_revision,
            dry_run,
        } => apply(session, file, *if_revision, dry_run.dry_run).await,
    }
}

/// The name of a file for messages, and its text; `-` is standard input.
pub(super) fn read_text(file: &Path) -> Result<(String, String), Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text).map(|_| text);
        ("<stdin>".to_owned(), read)
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(Failure::Unreadable { path: name, source }),
    }
}

/// Reads and checks a policy file.
pub(super) fn parse(file: &Path) -> Result<Policy, Failure> {
    let (name, text) = read_text(file)?;
    Policy::parse(&text).map_err(|source| Failure::Policy {
        faults: describe(&name, &source),
    })
}

/// The faults with the file's name in their place.
fn describe(file: &str, error: &PolicyError) -> String {
    let placed = |text: String| match text.strip_prefix("policy:") {
        Some(rest) => format!("{file}:{rest}"),
        None => text,
    };
    let faults: Vec<String> = error
        .faults
        .iter()
        .map(|fault| placed(fault.to_string()))
        .collect();
    faults.join("\n")
}

fn check(session: &mut Session<'_>, file: &Path) -> Result<Exit, Failure> {
    let (name, text) = read_text(file)?;
    let error = Policy::parse(&text).err();
    let faults = error
        .as_ref()
        .map(|error| error.faults.as_slice())
        .unwrap_or_default();
    let faults = faults.iter().map(|fault| PolicyFault {
        line: fault.line,
        column: fault.column,
        message: fault.message.clone(),
        hint: fault.hint.clone(),
    });
    let faults = faults.collect();
    let verdict = PolicyCheck {
        schema: PolicyCheck::SCHEMA,
        file: name.clone(),
        faults,
    };
    let words = |verdict: &PolicyCheck, _| match &error {
        Some(error) => describe(&verdict.file, error) + "\n",
        None => format!("{}: sound\n", verdict.file),
    };
    session.print(&verdict, words, |verdict| verdict.file.clone())?;
    Ok(if error.is_some() {
        Exit::BadConfig
    } else {
        Exit::Ok
    })
}

async fn apply(
    session: &mut Session<'_>,
    file: &Path,
    if_revision: Option<u64>,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let (name, text) = read_text(file)?;
    // Told here with line and column instead of by the leader after a round trip.
    Policy::parse(&text).map_err(|source| Failure::Policy {
        faults: describe(&name, &source),
    })?;
    let client = session.client()?;
    let expected_revision = match if_revision {
        Some(revision) => revision,
        None => fleet::status(&client).await?.policy_revision,
    };
    let request = v1::ApplyPolicyRequest {
        text,
        reason: session.reason(),
        dry_run,
        expected_revision,
    };
    let reply = client
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.apply_policy(request).await }
        })
        .await?;
    let applied = PolicyApplied {
        schema: PolicyApplied::SCHEMA,
        previous_revision: expected_revision,
        policy_revision: reply.policy_revision,
        dry_run,
    };
    let words = |applied: &PolicyApplied, _| {
        if applied.dry_run {
            return format!("{name} would replace policy rev {expected_revision}\n");
        }
        format!(
            "policy rev {} is in force, from {name}\n",
            applied.policy_revision
        )
    };
    session.print(&applied, words, |applied| {
        applied.policy_revision.to_string()
    })?;
    Ok(Exit::Ok)
}
