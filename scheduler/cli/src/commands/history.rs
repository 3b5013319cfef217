//! `policy history`, `policy diff`, `policy rollback`, and an earlier policy shown.

use std::path::Path;

use evenkeel_planner::Policy;
use evenkeel_proto::v1;
use similar::TextDiff;

use super::Session;
use super::policy::{in_force, print_policy, read_sound, send, sound};
use super::session::lines;
use crate::client::{Client, QUICK};
use crate::exit::{Exit, Failure};
use crate::output::paint::{Tone, paint};
use crate::output::table::policies;
use crate::output::text::harmless;
use crate::view::{PolicyDiff, PolicyHistory};

/// Lines that are shown around a difference.
const CONTEXT: usize = 3;

/// What the schedulers keep of `revision`, or of all where it is 0.
async fn kept(client: &Client, revision: u64) -> Result<v1::GetPolicyHistoryReply, Failure> {
    let ask = async |mut scheduler: crate::client::Scheduler| {
        let request = v1::GetPolicyHistoryRequest { revision };
        scheduler.get_policy_history(request).await
    };
    Ok(client.read(QUICK, ask).await?)
}

/// The text of an earlier policy, and the revision that is active now.
async fn kept_text(client: &Client, revision: u64) -> Result<(String, u64), Failure> {
    let reply = kept(client, revision).await?;
    let record = reply.records.into_iter().next().unwrap_or_default();
    Ok((record.text, reply.active))
}

pub(super) async fn show(session: &mut Session<'_>, revision: u64) -> Result<Exit, Failure> {
    let (text, _) = kept_text(&session.client()?, revision).await?;
    print_policy(session, revision, text, String::new())
}

pub(super) async fn history(session: &mut Session<'_>) -> Result<Exit, Failure> {
    let history: PolicyHistory = kept(&session.client()?, 0).await?.into();
    if history.policies.is_empty() {
        let words = "no policy was ever applied: the built-in one is in force";
        session.io.say(words);
    }
    session.print(
        &history,
        |history, look| policies(&history.policies, look),
        |history| {
            let revisions = history.policies.iter();
            let revisions: Vec<String> = revisions.map(|p| p.policy_revision.to_string()).collect();
            revisions.join("\n")
        },
    )?;
    Ok(Exit::Ok)
}

pub(super) async fn diff(
    session: &mut Session<'_>,
    file: &Path,
    revision: Option<u64>,
    detailed_exitcode: bool,
) -> Result<Exit, Failure> {
    let (name, new) = read_sound(session, file)?;
    let client = session.client()?;
    let (old, policy_revision) = match revision {
        Some(revision) => (kept_text(&client, revision).await?.0, revision),
        None => {
            let reply = in_force(&client).await?;
            (reply.text, reply.revision)
        }
    };
    let diff = TextDiff::from_lines(&old, &new)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&format!("policy rev {policy_revision}"), &name)
        .to_string();
    let found = PolicyDiff {
        schema: PolicyDiff::SCHEMA,
        policy_revision,
        file: name,
        differs: !diff.is_empty(),
        diff,
    };
    if !found.differs {
        let (file, revision) = (&found.file, found.policy_revision);
        session
            .io
            .say(&format!("{file} is what policy rev {revision} is"));
    }
    session.print(
        &found,
        |found, look| coloured(&found.diff, look.colour),
        |found| found.file.clone(),
    )?;
    Ok(match found.differs && detailed_exitcode {
        true => Exit::ChangesPending,
        false => Exit::Ok,
    })
}

/// A difference as terminals show it.
fn coloured(diff: &str, colour: bool) -> String {
    let tone = |line: &str| match line.as_bytes() {
        [b'+', b'+', b'+', b' ', ..] | [b'-', b'-', b'-', b' ', ..] => Tone::Strong,
        [b'+', ..] => Tone::Good,
        [b'-', ..] => Tone::Bad,
        [b'@', ..] => Tone::Faint,
        _ => Tone::Plain,
    };
    let harmless = harmless(diff);
    lines(harmless.lines().map(|line| paint(line, tone(line), colour)))
}

pub(super) async fn rollback(
    session: &mut Session<'_>,
    revision: u64,
    if_revision: Option<u64>,
    dry_run: bool,
) -> Result<Exit, Failure> {
    let client = session.client()?;
    let (text, active) = kept_text(&client, revision).await?;
    let name = format!("policy rev {revision}");
    // A newer version may have written it.
    let policy = sound(session, &name, Policy::check(&text))?;
    let now = in_force(&client).await?;
    if let Ok(before) = Policy::parse(&now.text)
        && before.mode != policy.mode
    {
        let (from, to) = (before.mode.as_str(), policy.mode.as_str());
        let would = if dry_run { "would change" } else { "changes" };
        session
            .io
            .say(&format!("the mode {would} with it, from {from} to {to}"));
    }
    let reason = session.reason();
    let request = v1::ApplyPolicyRequest {
        text,
        reason: match reason.is_empty() {
            true => format!("rollback to rev {revision}"),
            false => format!("rollback to rev {revision}: {reason}"),
        },
        dry_run,
        expected_revision: if_revision.unwrap_or(active),
    };
    send(session, &client, request, &name).await
}
