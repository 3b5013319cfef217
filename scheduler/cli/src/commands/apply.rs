//! `apply`: carries a plan out as it stands, wave by wave, or not at all.
//!
//! The tool orders the moves, each as `migrate` does, so that the leader and both agents check each of them once more.
//! Before every wave what is left is judged on a fresh snapshot: a plan that does not fit the fleet any more is given up.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::time::Duration;

use evenkeel_planner::{Plan, Snapshot, Stale, still_good};
use evenkeel_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::Session;
use super::fleet::live_snapshot_and_policy;
use super::follow::{Ending, follow};
use super::plan::parse;
use super::policy::read_text;
use super::remembered::recall;
use crate::args::{ApplyArgs, Format};
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::output::progress::{Narrator, ending};
use crate::view::{AppliedPlan, AppliedStep, Migration, Phase};

/// Between two looks while a wave has to wait.
const LOOK: Duration = Duration::from_secs(2);
/// A wave waits so long for other migrations to end, or for hosts to report those of the wave before.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

pub(super) async fn apply(session: &mut Session<'_>, args: &ApplyArgs) -> Result<Exit, Failure> {
    session.only("apply", &[Format::Table, Format::Wide, Format::Json])?;
    let plan = read(session, &args.plan)?;
    let client = session.client()?;
    let mut run = Run {
        applied: AppliedPlan::new(&plan, args.dry_run.dry_run),
        override_pause: args.override_pause,
        plan,
        client,
    };
    // What is wrong with it is said before anybody is asked.
    match run.judge(0).await {
        Ok(()) | Err(Failure::Stale(Stale::Busy { .. })) => {}
        Err(failure) => return Err(failure),
    }
    if !args.dry_run.dry_run {
        if !args.yes && !confirmed(session, &run.plan)? {
            session.io.say("nothing was changed");
            return Ok(Exit::Failed);
        }
        // Migrations that were ordered go on when nobody follows them.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let carried = tokio::select! {
            carried = run.carry_out(session) => carried,
            _ = interrupt.recv() => {
                run.tell(session)?;
                session.io.say("detached: what was ordered goes on, the rest of the plan is not begun");
                return Ok(Exit::Interrupted);
            }
        };
        if let Err(failure) = carried {
            run.tell(session)?;
            return Err(failure);
        }
    }
    run.tell(session)?;
    Ok(Exit::Ok)
}

/// The plan in a file, or one that was shown lately.
fn read(session: &Session<'_>, name: &str) -> Result<Plan, Failure> {
    let path = Path::new(name);
    let (place, text) = match name == "-" || path.exists() {
        true => read_text(path)?,
        false => read_text(&recall(session, name)?)?,
    };
    // The tool's own reading says what is no plan; the planner's has all that is needed.
    drop(parse(&place, text.as_bytes())?);
    Plan::from_json(&text).map_err(|source| Failure::Document {
        place,
        expected: "evenkeel.plan/1",
        source,
    })
}

/// Shows the plan and asks.
fn confirmed(session: &mut Session<'_>, plan: &Plan) -> Result<bool, Failure> {
    if plan.steps.is_empty() {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        let message = "apply changes the fleet: --yes is needed when standard input is no terminal";
        return Err(Failure::Usage(message.to_owned()));
    }
    let shown = parse("the plan", plan.to_json().as_bytes())?;
    session
        .io
        .say(&output::plan::plan(&shown, None, session.look()));
    session.io.say("Carry this out? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

struct Run {
    client: Client,
    plan: Plan,
    override_pause: bool,
    applied: AppliedPlan,
}

impl Run {
    async fn carry_out(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        let mut next = 0;
        while let Some(first) = self.plan.steps.get(next) {
            let wave = first.wave;
            let steps = self.plan.steps[next..].iter();
            let end = next + steps.take_while(|step| step.wave == wave).count();
            self.wait_for_turn(session, next).await?;
            let mut failure = None;
            let mut ordered = vec![];
            for step in next..end {
                match self.order(session, step).await {
                    Ok(id) => ordered.push((step, id)),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            // Also those beside one that failed are seen to their end.
            for (step, id) in ordered {
                if let Err(error) = self.follow(session, step, &id).await {
                    failure.get_or_insert(error);
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            next = end;
        }
        Ok(())
    }

    /// Until the steps from `next` on can be carried out, or cannot at all.
    async fn wait_for_turn(&self, session: &mut Session<'_>, next: usize) -> Result<(), Failure> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let failure = match self.judge(next).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            let passes = matches!(failure, Failure::Stale(Stale::Busy { .. }))
                || matches!(&failure, Failure::Unreported { .. })
                || matches!(&failure, Failure::Client(error) if error.may_pass());
            if !passes || began.elapsed() > PATIENCE {
                return Err(failure);
            }
            if !std::mem::replace(&mut told, true) {
                session.io.say(&format!("waiting: {failure}"));
            }
            sleep(LOOK).await;
        }
    }

    /// Whether the steps from `next` on are still what should be done.
    async fn judge(&self, next: usize) -> Result<(), Failure> {
        let (snapshot, policy) = live_snapshot_and_policy(&self.client).await?;
        self.have_arrived(&snapshot, next)?;
        let mut left = self.plan.clone();
        left.steps.drain(..next);
        still_good(&snapshot, &policy, &left).map_err(|stale| Failure::Stale(from(stale, next)))
    }

    /// Whether the hosts have reported the guests that were moved.
    fn have_arrived(&self, snapshot: &Snapshot, next: usize) -> Result<(), Failure> {
        // A guest may move twice: its last step so far says where it is.
        let steps = self.plan.steps[..next].iter().enumerate();
        for (at, step) in steps {
            let again = self.plan.steps[at + 1..next].iter();
            if again.into_iter().any(|later| later.guest == step.guest) {
                continue;
            }
            let there = snapshot
                .guest(&step.guest)
                .is_some_and(|g| g.host == step.to);
            let flies = snapshot.in_flight.iter().any(|f| f.guest == step.guest);
            if !there || flies {
                return Err(Failure::Unreported {
                    guest: step.guest.clone(),
                    host: step.to.clone(),
                });
            }
        }
        Ok(())
    }

    /// Orders a step; returns the migration's id.
    async fn order(&mut self, session: &Session<'_>, at: usize) -> Result<String, Failure> {
        let step = &self.plan.steps[at];
        let mut reason = format!("plan {}, step {}", self.plan.id, at + 1);
        if let Some(why) = session.global.reason.as_deref() {
            reason = format!("{why} ({reason})");
        }
        let request = v1::OperatorMigrateRequest {
            guest: step.uuid.clone().unwrap_or_else(|| step.guest.clone()),
            target: step.to.clone(),
            reason,
            override_pause: self.override_pause,
            ..Default::default()
        };
        let reply = self.client.write(|mut scheduler| {
            let request = request.clone();
            async move { scheduler.migrate(request).await }
        });
        let migration: Migration = reply.await?.order.unwrap_or_default().into();
        let id = migration.id.clone().unwrap_or_default();
        self.applied.steps[at].migration = Some(migration);
        Ok(id)
    }

    /// Follows a migration to its end; fails unless it ends at its target.
    async fn follow(
        &mut self,
        session: &mut Session<'_>,
        at: usize,
        id: &str,
    ) -> Result<(), Failure> {
        let mut narrator = Narrator::default();
        let mut show = |seen: &Migration| {
            if let Some(line) = narrator.tell(seen) {
                session.io.say(&line);
            }
        };
        let ended = follow(&self.client, id, &mut show).await;
        let step: &mut AppliedStep = &mut self.applied.steps[at];
        let short = id.chars().take(8).collect();
        match ended {
            Ok(Ending::Over(migration)) => {
                let (phase, message) = (migration.phase, ending(&migration));
                session.io.say(&message);
                step.migration = Some(*migration);
                if phase == Some(Phase::Done) {
                    step.done = true;
                    return Ok(());
                }
                Err(Failure::Migration {
                    message,
                    refused: phase == Some(Phase::Refused),
                })
            }
            Ok(Ending::Unknown) => Err(Failure::OutcomeUnknown {
                guest: step.guest.clone(),
                id: short,
            }),
            Err(source) => Err(Failure::OutOfSight {
                guest: step.guest.clone(),
                id: short,
                source: Box::new(source),
            }),
        }
    }

    /// Says what was done.
    fn tell(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        session.print(
            &self.applied,
            |applied, _| output::plan::applied(applied),
            |applied| applied.plan.clone(),
        )
    }
}

/// Steps counted from the beginning of the whole plan.
fn from(stale: Stale, next: usize) -> Stale {
    match stale {
        Stale::Busy { step, detail } => Stale::Busy {
            step: step + next,
            detail,
        },
        Stale::Broken { step, detail } if step > 0 => Stale::Broken {
            step: step + next,
            detail,
        },
        Stale::Broken { .. } | Stale::NotWorthIt { .. } => stale,
    }
}
