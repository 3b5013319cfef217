//! `policy check`, `policy show` and `policy apply`; [`history`] has the rest.

use std::io::Read;
use std::path::Path;

use evenkeel_planner::policy::{Fault, PolicyCheck, PolicyError};
use evenkeel_planner::{Blocked, Policy, rule_faults};
use evenkeel_proto::v1;

use super::Session;
use super::{fleet, history};
use crate::args::PolicyCommand;
use crate::client::{Client, QUICK};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::view::{self, PolicyApplied, PolicyFault, PolicyPlace, PolicyShown, UnfulfilledRule};

pub(super) async fn policy(
    session: &mut Session<'_>,
    args: &PolicyCommand,
) -> Result<Exit, Failure> {
    match args {
        PolicyCommand::Check { file, snapshot } => check(session, file, snapshot.as_deref()),
        PolicyCommand::Show { revision: None } => show(session).await,
        PolicyCommand::Show {
            revision: Some(revision),
        } => history::show(session, *revision).await,
        PolicyCommand::History => history::history(session).await,
        PolicyCommand::Diff {
            file,
            revision,
            detailed_exitcode,
        } => history::diff(session, file, *revision, *detailed_exitcode).await,
        PolicyCommand::Apply {
            file,
            if_revision,
            dry_run,
        } => apply(session, file, *if_revision, dry_run.dry_run).await,
        PolicyCommand::Rollback {
            revision,
            if_revision,
            dry_run,
        } => history::rollback(session, *revision, *if_revision, dry_run.dry_run).await,
    }
}

/// The name of a file for messages, and its bytes; `-` is standard input.
fn read_bytes(file: &Path) -> Result<(String, Vec<u8>), Failure> {
    let (name, bytes) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes).map(|_| bytes);
        ("<stdin>".to_owned(), read)
    } else {
        (file.display().to_string(), std::fs::read(file))
    };
    match bytes {
        Ok(bytes) => Ok((name, bytes)),
        Err(source) => Err(Failure::Unreadable { path: name, source }),
    }
}

/// The name of a file for messages, and its text; `-` is standard input.
pub(super) fn read_text(file: &Path) -> Result<(String, String), Failure> {
    let (name, bytes) = read_bytes(file)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(Failure::Unreadable {
            path: name,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        }),
    }
}

/// The name of a policy file, its text, and what it turned out to be.
fn read_policy(file: &Path) -> Result<(String, String, PolicyCheck), Failure> {
    let (name, bytes) = read_bytes(file)?;
    Ok(match Policy::text_of(&bytes) {
        Ok(text) => (name, text.to_owned(), Policy::check(text)),
        Err(PolicyError { faults }) => {
            let check = PolicyCheck {
                policy: None,
                faults,
                warnings: vec![],
            };
            (name, String::new(), check)
        }
    })
}

/// Reads and checks a policy file.
pub(super) fn parse(file: &Path) -> Result<Policy, Failure> {
    parse_text(file).map(|(policy, _)| policy)
}

/// Reads and checks a policy file, and keeps its text.
pub(super) fn parse_text(file: &Path) -> Result<(Policy, String), Failure> {
    let (name, text, check) = read_policy(file)?;
    match check.into_policy() {
        Ok(policy) => Ok((policy, text)),
        Err(error) => Err(Failure::Policy {
            faults: describe(&name, "", &error.faults),
        }),
    }
}

/// Faults with the file's name in their place, each ending in a newline but the last.
fn describe(file: &str, what: &str, faults: &[Fault]) -> String {
    let placed = |text: String| match text.strip_prefix("policy:") {
        Some(rest) => match rest.split_once(": ") {
            Some((place, rest)) => format!("{file}:{place}: {what}{rest}"),
            None => format!("{file}:{rest}"),
        },
        None => text,
    };
    let faults: Vec<String> = faults
        .iter()
        .map(|fault| placed(fault.to_string()))
        .collect();
    faults.join("\n")
}

fn check(session: &mut Session<'_>, file: &Path, snapshot: Option<&Path>) -> Result<Exit, Failure> {
    let (name, text, found) = read_policy(file)?;
    let fleet = match (&found.policy, snapshot) {
        (Some(policy), Some(file)) => {
            let snapshot = fleet::read_snapshot(file)?.1;
            unfulfilled(policy, &text, rule_faults(&snapshot, policy))
        }
        (None, _) | (_, None) => vec![],
    };
    let verdict = view::PolicyCheck {
        schema: view::PolicyCheck::SCHEMA,
        file: name,
        faults: found.faults.iter().map(fault_view).collect(),
        warnings: found.warnings.iter().map(fault_view).collect(),
        unfulfilled: fleet.clone(),
    };
    let words = |verdict: &view::PolicyCheck, _| {
        let file = &verdict.file;
        let mut text = String::new();
        for (what, faults) in [("", &found.faults), ("warning: ", &found.warnings)] {
            if !faults.is_empty() {
                text.push_str(&(describe(file, what, faults) + "\n"));
            }
        }
        for rule in &verdict.unfulfilled {
            let (line, name, detail) = (rule.line, &rule.rule, &rule.detail);
            let reason = output::text::words(&rule.reason);
            let shown = format!("{file}:{line}:1: {name}: {reason} on this fleet: {detail}\n");
            text.push_str(&output::text::harmless(&shown));
        }
        if found.faults.is_empty() && verdict.unfulfilled.is_empty() {
            text.push_str(&format!("{file}: sound\n"));
        }
        text
    };
    session.print(&verdict, words, |verdict| verdict.file.clone())?;
    Ok(match (found.policy, fleet.is_empty()) {
        (Some(_), true) => Exit::Ok,
        (Some(_), false) => Exit::Infeasible,
        (None, _) => Exit::BadConfig,
    })
}

/// What a fleet cannot fulfil, each rule with its line.
fn unfulfilled(policy: &Policy, text: &str, faults: Vec<Blocked>) -> Vec<UnfulfilledRule> {
    let line = |name: &str| {
        let rule = policy.rules.iter().find(|rule| rule.full_name() == name);
        rule.map_or(0, |rule| rule.line.min(text.lines().count()))
    };
    let named = |fault: Blocked| {
        let rule = fault.rule.unwrap_or_default();
        UnfulfilledRule {
            line: line(&rule),
            rule,
            reason: fault.reason.to_string(),
            detail: fault.detail,
        }
    };
    faults.into_iter().map(named).collect()
}

/// The policy in force as a scheduler has it.
pub(super) async fn in_force(client: &Client) -> Result<v1::GetPolicyReply, Failure> {
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.get_policy(v1::GetPolicyRequest {}).await
    };
    Ok(client.read(QUICK, ask).await?)
}

async fn show(session: &mut Session<'_>) -> Result<Exit, Failure> {
    let reply = in_force(&session.client()?).await?;
    if !reply.fault.is_empty() {
        let words = format!(
            "policy rev {} in etcd is broken; the one before it governs:\n{}",
            reply.revision, reply.fault
        );
        session.io.say(&output::text::harmless(&words));
    }
    print_policy(session, reply.revision, reply.text, reply.fault)
}

/// Prints a policy as it was written.
pub(super) fn print_policy(
    session: &mut Session<'_>,
    policy_revision: u64,
    text: String,
    fault: String,
) -> Result<Exit, Failure> {
    let shown = PolicyShown {
        schema: PolicyShown::SCHEMA,
        policy_revision,
        text,
        fault: (!fault.is_empty()).then_some(fault),
    };
    let words = |shown: &PolicyShown, _| match shown.text.ends_with('\n') {
        true => shown.text.clone(),
        false => shown.text.clone() + "\n",
    };
    session.print(&shown, words, |shown| shown.policy_revision.to_string())?;
    Ok(Exit::Ok)
}

fn fault_view(fault: &Fault) -> PolicyFault {
    let related = fault.related.iter().map(|other| PolicyPlace {
        line: other.line,
        column: other.column,
        what: other.what.clone(),
    });
    PolicyFault {
        line: fault.line,
        column: fault.column,
        message: fault.message.clone(),
        hint: Some(fault.hint.clone()),
        related: related.collect(),
    }
}

/// Reads a policy file that is to be sent; told here with line and column instead of by the leader after a round trip.
pub(super) fn read_sound(
    session: &mut Session<'_>,
    file: &Path,
) -> Result<(String, String), Failure> {
    let (name, text, check) = read_policy(file)?;
    sound(session, &name, check)?;
    Ok((name, text))
}

/// Tells warnings, and refuses a faulty policy.
pub(super) fn sound(
    session: &mut Session<'_>,
    name: &str,
    check: PolicyCheck,
) -> Result<Policy, Failure> {
    if !check.warnings.is_empty() {
        session
            .io
            .say(&describe(name, "warning: ", &check.warnings));
    }
    check.into_policy().map_err(|error| Failure::Policy {
        faults: describe(name, "", &error.faults),
    })
}

async fn apply(
    session: &mut Session<'_>,
    file: &Path,
    if_revision: Option<u64>,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let (name, text) = read_sound(session, file)?;
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
    send(session, &client, request, &name).await
}

/// Has the leader apply a policy that is sound, and tells what came of it.
pub(super) async fn send(
    session: &mut Session<'_>,
    client: &Client,
    request: v1::ApplyPolicyRequest,
    name: &str,
) -> Result<Exit, Failure> {
    let reply = client
        .write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.apply_policy(request).await }
        })
        .await?;
    let applied = PolicyApplied {
        schema: PolicyApplied::SCHEMA,
        previous_revision: request.expected_revision,
        policy_revision: reply.policy_revision,
        dry_run: request.dry_run,
    };
    let words = |applied: &PolicyApplied, _| {
        if applied.dry_run {
            let previous = applied.previous_revision;
            return format!("{name} would replace policy rev {previous}\n");
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
