//! `drain`: asks for it and follows it. Ctrl-C detaches; only `--cancel` and `uncordon` end a drain.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use evenkeel_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::Session;
use super::cordon::{clear, hosts, names, print, set};
use super::plan::parse;
use crate::args::{DrainArgs, Format};
use crate::client::{Client, ClientError, THOROUGH};
use crate::exit::{DrainTrouble, Exit, Failure};
use crate::output;
use crate::output::drain::{left_over, obstacle, progress};
use crate::view::{Blocked, DrainEnd, Host, Plan};

/// Time between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A change of leader takes up to 10 s; as long again for a slow one.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// That nobody left can go has to last: a plan is replaced by the next within a moment.
const STUCK_FOR: Duration = Duration::from_secs(5);
/// So does that there is no drain: a replica may not have seen yet what its leader has just written.
const GONE_FOR: Duration = Duration::from_secs(3);

pub(super) async fn drain(session: &mut Session<'_>, args: &DrainArgs) -> Result<Exit, Failure> {
    let client = session.client()?;
    let given = names(&client, &args.names.hosts).await?;
    let dry_run = args.names.dry_run.dry_run;
    if args.cancel {
        let request = v1::ClearIntentRequest {
            hosts: given,
            drain_only: true,
            reason: session.reason(),
            dry_run,
        };
        let change = clear(&client, &request).await?;
        return print(session, &change, "no longer drained");
    }
    let request = v1::SetIntentRequest {
        hosts: given.clone(),
        kind: v1::IntentKind::Drain.into(),
        reason: session.reason(),
        dry_run,
        deadline_seconds: args.deadline.map_or(0, |deadline| deadline.as_secs()),
        offline_too: args.offline_too,
    };
    if dry_run {
        // Whether it is permitted and sound is the leader's to say, too.
        set(&client, &request).await?;
        return foresee(session, &client, &given, args.offline_too).await;
    }
    // From here on Ctrl-C ends the waiting, not the process: what was asked for must be said.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let change = tokio::select! {
        change = set(&client, &request) => change?,
        _ = interrupt.recv() => {
            session.io.say("interrupted before an answer came; see `evenkeel hosts`");
            return Ok(Exit::Interrupted);
        }
    };
    if args.detach {
        return print(session, &change, "being drained");
    }
    let mut follower = Follower::new(&given);
    let ended = tokio::select! {
        ended = follower.follow(&client, session) => Some(ended),
        _ = interrupt.recv() => None,
    };
    let again = format!("evenkeel drain {}", given.join(" "));
    match ended {
        None => {
            session.io.say(&format!(
                "detached: the drain goes on; follow it again with `{again}`, end it with `{again} --cancel`"
            ));
            Ok(Exit::Interrupted)
        }
        Some(Err(source)) => Err(Failure::DrainOutOfSight {
            again,
            source: Box::new(source),
        }),
        Some(Ok(())) => conclude(session, follower),
    }
}

/// Shows what a drain would do, and fails when somebody could not go.
async fn foresee(
    session: &mut Session<'_>,
    client: &Client,
    hosts: &[String],
    offline_too: bool,
) -> Result<Exit, Failure> {
    let request = v1::GetPlanRequest {
        max_moves: 0,
        drain_hosts: hosts.to_vec(),
        offline_too,
    };
    let ask =
        async |mut scheduler: crate::client::Scheduler| scheduler.get_plan(request.clone()).await;
    let document = client.read(THOROUGH, ask).await?;
    let mut plan = parse("the answer", &document.json)?;
    let on_it: Vec<String> = super::cordon::guests_of(client, hosts).await?;
    plan.blocked
        .retain(|b| b.guest.as_ref().is_some_and(|guest| on_it.contains(guest)));
    let text = match session.format() {
        Format::Json => {
            session.print_document(&document.json)?;
            String::new()
        }
        Format::Table | Format::Wide => {
            let shown = output::plan::plan(&plan, None, session.look());
            format!("{shown}{}\n", duration_words(&plan))
        }
        Format::Name => super::session::lines(plan.steps.iter().map(|step| step.guest.clone())),
    };
    session.io.out.write_all(text.as_bytes())?;
    session.io.out.flush()?;
    let stays = |b: &&Blocked| offline_too || b.reason != "shut_off";
    let stuck: Vec<&str> = plan
        .blocked
        .iter()
        .filter(stays)
        .filter_map(|b| b.guest.as_deref())
        .collect();
    if stuck.is_empty() {
        return Ok(Exit::Ok);
    }
    Err(Failure::Drain {
        message: format!("cannot go: {}", stuck.join(", ")),
        trouble: DrainTrouble::Stuck,
    })
}

/// How long the copying takes: waves one after the other, steps of a wave side by side.
fn duration_words(plan: &Plan) -> String {
    let mut waves: BTreeMap<u32, f64> = BTreeMap::new();
    for step in &plan.steps {
        let longest = waves.entry(step.wave).or_default();
        *longest = longest.max(step.copy_seconds);
    }
    let seconds: f64 = waves.values().sum();
    let span = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(Duration::MAX);
    format!(
        "Copying takes about {} in {}; nothing was changed.",
        output::time::duration(span),
        output::text::count(u32::try_from(waves.len()).unwrap_or(u32::MAX), "wave")
    )
}

/// How the drain of one host has ended, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Drained,
    Trouble(DrainTrouble),
}

/// Looks at drains until each is over, or cannot be any more.
#[derive(Debug)]
pub(super) struct Follower {
    names: Vec<String>,
    /// Every host as it was seen last.
    seen: BTreeMap<String, Host>,
    /// Since when nobody left can go.
    stuck: BTreeMap<String, Instant>,
    /// Since when it is not being drained.
    gone: BTreeMap<String, Instant>,
    /// What was said of each.
    said: BTreeMap<String, String>,
}

impl Follower {
    pub(super) fn new(names: &[String]) -> Self {
        Self {
            names: names.to_vec(),
            seen: BTreeMap::new(),
            stuck: BTreeMap::new(),
            gone: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// Follows over restarts and changes of leader.
    async fn follow(
        &mut self,
        client: &Client,
        session: &mut Session<'_>,
    ) -> Result<(), ClientError> {
        let mut last = Instant::now();
        loop {
            match self.look(client, session).await {
                Ok(endings) if endings.values().all(Option::is_some) => return Ok(()),
                Ok(_) => last = Instant::now(),
                Err(error) if error.may_pass() && last.elapsed() < SILENCE => client.turn_away(),
                Err(error) => return Err(error),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// One look; says what is new. How each of the hosts has ended, if it has.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        session: &mut Session<'_>,
    ) -> Result<BTreeMap<String, Option<Ending>>, ClientError> {
        for host in hosts(client, &self.names).await? {
            self.tell(&host, session);
            let state = host.drain.as_ref().map(|drain| drain.state.as_str());
            note(&mut self.stuck, &host.name, state == Some("stuck"));
            note(&mut self.gone, &host.name, state.is_none());
            self.seen.insert(host.name.clone(), host);
        }
        let endings = self
            .names
            .iter()
            .map(|name| (name.clone(), self.ending(name)));
        Ok(endings.collect())
    }

    fn ending(&self, name: &str) -> Option<Ending> {
        let lasts = |since: &BTreeMap<String, Instant>, span| {
            since.get(name).is_some_and(|since| since.elapsed() >= span)
        };
        let Some(drain) = self.seen.get(name)?.drain.as_ref() else {
            let gone = lasts(&self.gone, GONE_FOR);
            return gone.then_some(Ending::Trouble(DrainTrouble::Cancelled));
        };
        let stuck = lasts(&self.stuck, STUCK_FOR);
        match drain.state.as_str() {
            "drained" => Some(Ending::Drained),
            _ if drain.overdue => Some(Ending::Trouble(DrainTrouble::Late)),
            _ => stuck.then_some(Ending::Trouble(DrainTrouble::Stuck)),
        }
    }

    fn tell(&mut self, host: &Host, session: &mut Session<'_>) {
        let Some(drain) = &host.drain else { return };
        let mut news = vec![("".to_owned(), progress(&host.name, drain))];
        news.extend(drain.obstacles.iter().map(|each| {
            (
                each.guest.clone(),
                format!("{}: {}", host.name, obstacle(each)),
            )
        }));
        for (about, line) in news {
            let key = format!("{}/{about}", host.name);
            if self.said.get(&key) != Some(&line) {
                session.io.say(&output::text::harmless(&line));
                self.said.insert(key, line);
            }
        }
    }

    /// A host as it was seen last, in words: who is left and why.
    pub(super) fn words(&self, name: &str) -> String {
        let drain = self.seen.get(name).and_then(|host| host.drain.as_ref());
        match drain {
            Some(drain) => left_over(name, drain),
            None => format!("{name} is not being drained any more"),
        }
    }
}

/// Remembers since when something has been so without a break.
fn note(since: &mut BTreeMap<String, Instant>, name: &str, is_so: bool) {
    if is_so {
        since.entry(name.to_owned()).or_insert_with(Instant::now);
    } else {
        since.remove(name);
    }
}

/// Prints how the drains ended, and fails unless all hosts are drained.
fn conclude(session: &mut Session<'_>, follower: Follower) -> Result<Exit, Failure> {
    let mut troubles = vec![];
    for name in &follower.names {
        match follower.ending(name) {
            Some(Ending::Trouble(trouble)) => troubles.push((name.clone(), trouble)),
            Some(Ending::Drained) | None => {}
        }
    }
    let said = troubles.iter().map(|(name, _)| follower.words(name));
    let message = said.collect::<Vec<_>>().join("; ");
    // Words of failure are talk; the document is data either way.
    if troubles.is_empty() || session.format() == Format::Json {
        let end = DrainEnd {
            schema: DrainEnd::SCHEMA,
            hosts: follower.seen.into_values().collect(),
        };
        let words = |end: &DrainEnd, _: output::Look| {
            super::session::lines(
                end.hosts
                    .iter()
                    .map(|host| format!("{} is drained", host.name)),
            )
        };
        let names = |end: &DrainEnd| {
            let names = end.hosts.iter().map(|host| host.name.clone());
            names.collect::<Vec<_>>().join("\n")
        };
        session.print(&end, words, names)?;
    }
    match troubles.into_iter().map(|(_, trouble)| trouble).max() {
        None => Ok(Exit::Ok),
        Some(trouble) => Err(Failure::Drain { message, trouble }),
    }
}
