//! `roll`: maintenance of many hosts, a few at a time. The tool drives it: what it has not begun when it ends is not
//! begun, and what it has is said.
//!
//! ```text
//! Waiting ─▶ Draining ─▶ Working ─▶ Healing ─▶ Done
//!              ╲            ╲          ╲──────▶ Failed
//! ```
//!
//! At the first failure nothing more is begun. Drains that have not come to the command are cancelled: nothing was done
//! to those hosts. Commands that run are left to end, and their hosts are put back: to kill a firmware update would be
//! worse. A host that failed stays closed, for somebody to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use evenkeel_proto::v1;
use rustix::process::{Pid, Signal as Kill, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::Session;
use super::cordon::{clear, hosts, names, set};
use super::drain::{Ending, Follower, LOOK_EVERY, SILENCE};
use super::session::lines;
use crate::args::{Format, RollArgs};
use crate::client::{Client, ClientError};
use crate::exit::{Exit, Failure};
use crate::output::Look;
use crate::view::{Host, RollEnd, RollFailure};

/// Where a host is on its way.
#[derive(Debug)]
enum Stage {
    Waiting,
    Draining(Box<Follower>),
    Working {
        child: Child,
        until: Instant,
    },
    Healing {
        since: Instant,
    },
    Done,
    /// Its drain was cancelled before anything was done to it.
    PutBack,
    Failed(String),
}

/// A roll under way.
struct Roll<'r> {
    args: &'r RollArgs,
    client: Client,
    reason: String,
    stages: BTreeMap<String, Stage>,
    order: Vec<String>,
    /// Hosts that were being drained before: they are left so.
    drained_before: BTreeSet<String>,
    /// Since when no scheduler answers.
    silent: Option<Instant>,
}

pub(super) async fn roll(session: &mut Session<'_>, args: &RollArgs) -> Result<Exit, Failure> {
    let client = session.client()?;
    let order = names(&client, &args.hosts).await?;
    let known = hosts(&client, &order).await?;
    if args.dry_run.dry_run {
        return print(session, end_of(&[], vec![], &order, true));
    }
    let is_drained = |host: &&Host| host.drain.is_some();
    let drained_before = known.iter().filter(is_drained).map(|h| h.name.clone());
    let reason = match session.reason() {
        reason if reason.is_empty() => "roll".to_owned(),
        reason => reason,
    };
    let mut roll = Roll {
        args,
        reason,
        stages: order
            .iter()
            .map(|name| (name.clone(), Stage::Waiting))
            .collect(),
        drained_before: drained_before.collect(),
        silent: None,
        order,
        client,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let interrupted = roll.run(session, &mut interrupt).await;
    let end = roll.end();
    let message = outcome(&end, args);
    if interrupted {
        session
            .io
            .say(&format!("interrupted: {}", roll.left_by_interrupt()));
        return Ok(Exit::Interrupted);
    }
    if end.failed.is_empty() {
        return print(session, end);
    }
    if session.format() == Format::Json {
        print(session, end)?;
    }
    Err(Failure::Roll { message })
}

fn print(session: &mut Session<'_>, end: RollEnd) -> Result<Exit, Failure> {
    let words = |end: &RollEnd, _: Look| {
        if end.dry_run {
            lines(
                end.remaining
                    .iter()
                    .map(|host| format!("{host}: would be rolled")),
            )
        } else {
            lines(end.done.iter().map(|host| format!("{host}: done")))
        }
    };
    let names = |end: &RollEnd| {
        [end.done.as_slice(), end.remaining.as_slice()]
            .concat()
            .join("\n")
    };
    session.print(&end, words, names)?;
    Ok(Exit::Ok)
}

fn end_of(
    done: &[String],
    failed: Vec<RollFailure>,
    remaining: &[String],
    dry_run: bool,
) -> RollEnd {
    RollEnd {
        schema: RollEnd::SCHEMA,
        done: done.to_vec(),
        failed,
        remaining: remaining.to_vec(),
        dry_run,
    }
}

/// What a roll that stopped has to say: which hosts are done, where it stopped, and how to go on.
fn outcome(end: &RollEnd, args: &RollArgs) -> String {
    let list = |hosts: &[String]| match hosts {
        [] => "none".to_owned(),
        hosts => hosts.join(", "),
    };
    let failed = end
        .failed
        .iter()
        .map(|f| format!("{}: {}; {}", f.host, f.message, f.left));
    let failed = failed.collect::<Vec<_>>().join("; ");
    let mut message = format!(
        "{failed}; done: {}; not done: {}",
        list(&end.done),
        list(&end.remaining)
    );
    if !end.remaining.is_empty() {
        let hosts = end.remaining.join(",");
        let exec = args.exec.replace('\'', "'\\''");
        message.push_str(&format!(
            "; go on with: evenkeel roll --hosts {hosts} --max {} --exec '{exec}'",
            args.max
        ));
    }
    message
}

impl Roll<'_> {
    /// Goes on until nothing is under way; says whether it was interrupted.
    async fn run(&mut self, session: &mut Session<'_>, interrupt: &mut Signal) -> bool {
        loop {
            // Not to be left half-way: what it has begun must be known to be said.
            if self.step(session).await {
                return false;
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                _ = interrupt.recv() => return true,
            }
        }
    }

    /// One look at every host that is under way, and the next are begun. Whether all is over.
    async fn step(&mut self, session: &mut Session<'_>) -> bool {
        for name in self.order.clone() {
            let Some(stage) = self.stages.remove(&name) else {
                continue;
            };
            let next = match stage {
                Stage::Waiting if self.may_begin() => self.begin(&name, session).await,
                Stage::Draining(follower) => self.follow(&name, follower, session).await,
                Stage::Working { child, until } => self.work(&name, child, until, session),
                Stage::Healing { since } => self.heal(&name, since, session).await,
                stage @ (Stage::Waiting | Stage::Done | Stage::PutBack | Stage::Failed(_)) => stage,
            };
            if let Stage::Failed(why) = &next {
                session
                    .io
                    .say(&format!("{name}: failed: {why}; nothing more is begun"));
            }
            self.stages.insert(name, next);
        }
        let failed = self.has_failed();
        let rests = |stage: &Stage| match stage {
            Stage::Waiting => failed,
            Stage::Done | Stage::PutBack | Stage::Failed(_) => true,
            Stage::Draining(_) | Stage::Working { .. } | Stage::Healing { .. } => false,
        };
        self.stages.values().all(rests)
    }

    fn has_failed(&self) -> bool {
        self.stages
            .values()
            .any(|stage| matches!(stage, Stage::Failed(_)))
    }

    fn may_begin(&self) -> bool {
        let under_way = |stage: &&Stage| {
            matches!(
                stage,
                Stage::Draining(_) | Stage::Working { .. } | Stage::Healing { .. }
            )
        };
        let out = self.stages.values().filter(under_way).count();
        !self.has_failed() && out < usize::from(self.args.max)
    }

    async fn begin(&mut self, name: &str, session: &mut Session<'_>) -> Stage {
        let request = v1::SetIntentRequest {
            hosts: vec![name.to_owned()],
            kind: v1::IntentKind::Drain.into(),
            reason: self.reason.clone(),
            dry_run: false,
            deadline_seconds: self.args.deadline.map_or(0, |deadline| deadline.as_secs()),
            offline_too: self.args.offline_too,
        };
        session.io.say(&format!("{name}: being drained"));
        match set(&self.client, &request).await {
            Ok(_) => Stage::Draining(Box::new(Follower::new(&[name.to_owned()]))),
            Err(error) => Stage::Failed(words(&error)),
        }
    }

    /// The drain goes on without the tool: that no scheduler answers for a moment is waited out.
    async fn follow(
        &mut self,
        name: &str,
        mut follower: Box<Follower>,
        session: &mut Session<'_>,
    ) -> Stage {
        if self.has_failed() {
            return self.put_back(name, session).await;
        }
        let ending = match follower.look(&self.client, session).await {
            Ok(endings) => {
                self.silent = None;
                endings.into_values().next().flatten()
            }
            Err(error) => match self.bear(&error) {
                true => None,
                false => return Stage::Failed(words(&error)),
            },
        };
        match ending {
            None => Stage::Draining(follower),
            Some(Ending::Trouble(_)) => Stage::Failed(follower.words(name)),
            Some(Ending::Drained) => self.start_work(name, session),
        }
    }

    /// Whether a failed look may be followed by another.
    fn bear(&mut self, error: &ClientError) -> bool {
        let since = *self.silent.get_or_insert_with(Instant::now);
        self.client.turn_away();
        let bears = error.may_pass() && since.elapsed() < SILENCE;
        if !bears {
            self.silent = None;
        }
        bears
    }

    async fn put_back(&mut self, name: &str, session: &mut Session<'_>) -> Stage {
        match self.reopen(name).await {
            Ok(()) => {
                session.io.say(&format!("{name}: its drain is cancelled"));
                Stage::PutBack
            }
            Err(error) => Stage::Failed(format!(
                "its drain could not be cancelled: {}",
                words(&error)
            )),
        }
    }

    /// The host is what it was before: open, cordoned, or being drained by somebody else.
    async fn reopen(&self, name: &str) -> Result<(), ClientError> {
        if self.drained_before.contains(name) {
            return Ok(());
        }
        let request = v1::ClearIntentRequest {
            hosts: vec![name.to_owned()],
            drain_only: true,
            reason: self.reason.clone(),
            dry_run: false,
        };
        clear(&self.client, &request).await.map(drop)
    }

    /// Starts the command in a process group of its own: Ctrl-C ends the roll, not the work on a host.
    fn start_work(&self, name: &str, session: &mut Session<'_>) -> Stage {
        session
            .io
            .say(&format!("{name}: drained, running the command"));
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.args.exec);
        command.env("EVENKEEL_HOST", name).process_group(0);
        // Data goes to standard output, and what the command says is none of ours.
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        match command.spawn() {
            Ok(child) => Stage::Working {
                child,
                until: Instant::now() + self.args.timeout,
            },
            Err(error) => Stage::Failed(format!("sh cannot be started: {error}")),
        }
    }

    fn work(
        &self,
        name: &str,
        mut child: Child,
        until: Instant,
        session: &mut Session<'_>,
    ) -> Stage {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                session.io.say(&format!(
                    "{name}: the command is done, waiting for the host"
                ));
                Stage::Healing {
                    since: Instant::now(),
                }
            }
            Ok(Some(status)) => Stage::Failed(format!("the command ended with {status}")),
            Ok(None) if Instant::now() < until => Stage::Working { child, until },
            Ok(None) => {
                kill_all(&child);
                Stage::Failed(format!(
                    "the command took longer than {}",
                    span(self.args.timeout)
                ))
            }
            Err(error) => Stage::Failed(format!("the command cannot be waited for: {error}")),
        }
    }

    async fn heal(&mut self, name: &str, since: Instant, session: &mut Session<'_>) -> Stage {
        let healthy = match hosts(&self.client, &[name.to_owned()]).await {
            Ok(found) => {
                self.silent = None;
                found
                    .first()
                    .is_some_and(|host| is_healthy(host, since.elapsed()))
            }
            Err(error) if self.bear(&error) => false,
            Err(error) => return Stage::Failed(words(&error)),
        };
        if !healthy && since.elapsed() < self.args.timeout {
            return Stage::Healing { since };
        }
        if !healthy {
            let limit = span(self.args.timeout);
            return Stage::Failed(format!(
                "it was not healthy within {limit} after the command"
            ));
        }
        match self.reopen(name).await {
            Ok(()) => {
                session.io.say(&format!("{name}: done"));
                Stage::Done
            }
            Err(error) => Stage::Failed(format!("it could not be put back: {}", words(&error))),
        }
    }

    /// What has come of all hosts.
    fn end(&self) -> RollEnd {
        let of = |fits: fn(&Stage) -> bool| -> Vec<String> {
            let hosts = self.order.iter();
            hosts
                .filter(|name| self.stages.get(*name).is_some_and(fits))
                .cloned()
                .collect()
        };
        let failed = self
            .order
            .iter()
            .filter_map(|host| match self.stages.get(host) {
                Some(Stage::Failed(message)) => Some(RollFailure {
                    host: host.clone(),
                    message: message.clone(),
                    left: format!("{host} is left closed: `evenkeel uncordon {host}` puts it back"),
                }),
                Some(_) | None => None,
            });
        let remaining = of(|stage| matches!(stage, Stage::Waiting | Stage::PutBack));
        let done = of(|stage| matches!(stage, Stage::Done));
        end_of(&done, failed.collect(), &remaining, false)
    }

    /// How each host that was begun is left when the tool goes away.
    fn left_by_interrupt(&self) -> String {
        let words = self.order.iter().filter_map(|host| match self.stages.get(host)? {
            Stage::Waiting | Stage::PutBack => None,
            Stage::Done => Some(format!("{host} is done")),
            Stage::Draining(_) => Some(format!(
                "{host} goes on being drained (end that with `evenkeel drain {host} --cancel`)"
            )),
            Stage::Working { child, .. } => Some(format!(
                "the command for {host} goes on as process {}, and the host stays closed (then `evenkeel uncordon {host}`)",
                child.id().map_or_else(|| "?".to_owned(), |id| id.to_string())
            )),
            Stage::Healing { .. } => Some(format!(
                "{host} stays closed after its command (then `evenkeel uncordon {host}`)"
            )),
            Stage::Failed(why) => Some(format!("{host} failed: {why}")),
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() {
            "nothing was begun".to_owned()
        } else {
            words.join("; ")
        }
    }
}

/// Whether a host has reported since, with its libvirt up and nothing against its data.
fn is_healthy(host: &Host, since: Duration) -> bool {
    let usable = !matches!(host.state.as_str(), "absent" | "unusable");
    let age = host.report_age_ms.map(crate::output::time::milliseconds);
    usable && host.libvirt_up == Some(true) && age.is_some_and(|age| age < since)
}

/// Ends a command and what it has started. One that is over already needs no ending.
fn kill_all(child: &Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = id.and_then(Pid::from_raw) {
        // It may have ended this very moment, which is as good.
        let _ = kill_process_group(group, Kill::KILL);
    }
}

fn span(duration: Duration) -> String {
    crate::output::time::duration(duration)
}

/// An error with its causes.
fn words(error: &ClientError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words.push_str(&format!(": {error}"));
        cause = error.source();
    }
    words
}
