//! One case: a guest is moved, the fault hits, and what became of the guest is held against the table.

use std::time::{Duration, Instant};

use evenkeel_proto::v1::{self, MigrationPhase};
use evenkeel_tests::books::Entry;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::{answer, ask, phase_of};
use evenkeel_tests::{Lab, until, wait_for};

use crate::inject::{Scene, make_ready};
use crate::plan::{Case, Phase, Place, allowed, may_be_left_double};

/// The migration's link while memory is to be copied.
const SLOW_LINK: &str = "8mbit";
/// 16 MiB of noise: some 17 s over the slow link, a quarter of a second over the fast one.
const NOISE: &str = "r1 s4096 d4000";
const PAGES: u64 = 4096;
/// Something that is bound to come has come by then.
const SOON: Duration = Duration::from_secs(60);
/// A migration is settled by then: after a fault both hosts are asked for a minute, and a lost order waits for half of
/// one; the rest is the machine's.
const SETTLED: Duration = Duration::from_secs(240);
/// What is wrong is told within one control cycle and a report.
const TOLD: Duration = Duration::from_secs(45);
/// What libvirt has left defined is tidied up within this time of the end.
const TIDIED: Duration = Duration::from_secs(10);
/// Who was going to start a dead guest would have done so: several control cycles.
const STAYS: Duration = Duration::from_secs(5);
/// Between two looks at a migration that is not settled.
const LOOK: Duration = Duration::from_millis(500);

/// What libvirt may leave at worst.
const TWICE: &str = "ran twice";

/// When a fault came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit {
    /// Before the migration was over.
    Before,
    /// When it had just ended.
    After,
    /// So early that nothing was ordered.
    NotOrdered,
    /// There was nothing to hit.
    Nothing,
}

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) place: Place,
    pub(crate) hit: Hit,
    /// Whether the guest had been stopped at the source, and was not let go of yet.
    pub(crate) is_in_hand_over: bool,
    /// How the migration ended by Evenkeel's word, and when it was hit.
    pub(crate) said: String,
    /// What libvirt left behind, told by Evenkeel and decided by an operator.
    pub(crate) left: Option<String>,
    pub(crate) took: Duration,
}

/// A move and the fault that hit it.
struct Struck {
    /// The order's id; `None`: the fault came before it.
    id: Option<String>,
    /// Whether there was anything to hit.
    has_hit: bool,
    /// When, milliseconds since the Unix epoch.
    at_ms: i64,
    /// What libvirt's books said of the guest just before, at source and target.
    books: (Entry, Entry),
}

impl Struck {
    /// Whether the guest had been stopped at the source, and was not let go of yet.
    fn is_in_hand_over(&self) -> bool {
        self.has_hit && self.books.0.state == "paused"
    }
}

/// The guest that cases move about, one at a time.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    guests: usize,
    guest: String,
    /// Where the guest is; `None`: there is none.
    at: Option<&'static str>,
}

impl Stage {
    pub(crate) fn new(lab: Lab) -> Self {
        Self {
            lab,
            guests: 0,
            guest: String::new(),
            at: None,
        }
    }

    /// A guest that lives, and where.
    fn guest(&mut self) -> &'static str {
        if let Some(at) = self.at {
            return at;
        }
        self.guests += 1;
        self.guest = format!("g{}", self.guests);
        let lab = &self.lab;
        lab.add_guest("h1", &self.guest, &["--mem", "48"]);
        let dials = format!("guest set {} {NOISE}", self.guest);
        lab.run(&dials.split(' ').collect::<Vec<_>>());
        until("the guest to fill its memory", SOON, || {
            let heart = lab.heart(&self.guest);
            heart.beats.last().is_some_and(|beat| beat.pages >= PAGES)
        });
        lab.run(&["guest", "set", &self.guest, "d0"]);
        self.at = Some("h1");
        "h1"
    }

    /// Carries out one case.
    ///
    /// # Errors
    /// What must never be, in words.
    pub(crate) fn play(&mut self, case: &Case) -> Result<Verdict, String> {
        let source = self.guest();
        let target = if source == "h1" { "h2" } else { "h1" };
        self.lab.wait_for_picture(2);
        self.lab.wait_for_guest(&self.guest);
        let began = Instant::now();
        let scene = Scene {
            guest: self.guest.clone(),
            source: source.to_owned(),
            target: target.to_owned(),
            leader: self.lab.some_leader(),
        };
        self.wait_until_it_may_move(&scene);
        let struck = self.strike(case, &scene);
        let settled = self.settle(case, &scene)?;
        let place = self.judge(case, &scene, settled.as_deref())?;
        self.must_hold_nothing()?;
        let (hit, said) = self.told(&struck, &scene, place)?;
        self.go_on(&scene, place)?;
        if settled.is_some() {
            // Its heart's record has two hosts in it: the next case needs a clean one.
            self.lab.run(&["guest", "rm", &scene.guest]);
            self.at = None;
        }
        Ok(Verdict {
            place,
            hit,
            is_in_hand_over: struck.is_in_hand_over(),
            said,
            left: settled,
            took: began.elapsed(),
        })
    }

    /// Orders the move and lets the fault hit it.
    fn strike(&self, case: &Case, scene: &Scene) -> Struck {
        let lab = &self.lab;
        let slow = case.phase == Phase::Copying;
        if slow {
            lab.fault(&["link", &scene.source, "migration", SLOW_LINK]);
        }
        let order = || {
            let asked = lab.migrate(Caller::Operator, &scene.leader, &scene.guest, &scene.target);
            asked.ok().map(|order| order.id)
        };
        let ready = make_ready(lab, case, scene);
        let (id, injected) = match case.phase {
            Phase::Preparation => std::thread::scope(|scope| {
                let ordering = scope.spawn(order);
                let injected = ready.strike();
                (ordering.join().unwrap_or_default(), injected)
            }),
            Phase::Copying => {
                let id = wait_for("the move to be ordered", SOON, order);
                let uuid = lab.uuid(&scene.guest);
                let begun = lab.await_journal((&scene.source, &uuid), SOON, |journal| {
                    let copied = journal.progress.is_some_and(|p| p.transferred_bytes > 0);
                    let state = journal.state.clone().unwrap_or_default();
                    journal.order.as_ref().is_some_and(|order| order.id == id)
                        && state.phase() == MigrationPhase::Running
                        && copied
                });
                assert!(begun, "the copy of order {id} did not begin");
                (Some(id), ready.strike())
            }
            Phase::HandOver => {
                let id = wait_for("the move to be ordered", SOON, order);
                (Some(id), ready.strike())
            }
        };
        let (has_hit, at_ms) = (injected.has_hit(), injected.at_ms);
        let books = injected.books.clone();
        injected.heal(lab, case.kind);
        if slow {
            lab.full_speed(&scene.source);
        }
        Struck {
            id,
            has_hit,
            at_ms,
            books,
        }
    }

    /// Waits until nothing of the migration is open; decides as an operator would what libvirt cannot.
    fn settle(&self, case: &Case, scene: &Scene) -> Result<Option<String>, String> {
        let lab = &self.lab;
        let uuid = lab.uuid(&scene.guest);
        let (began, mut left, mut wrong) = (Instant::now(), None, None::<Instant>);
        let books = [&scene.source, &scene.target].map(|host| lab.books(host, &scene.guest));
        loop {
            let open = lab.orders().iter().any(|order| order.guest_uuid == uuid);
            let journal = lab.journal(&scene.source, &uuid);
            let closed = journal.as_ref().is_none_or(|j| j.ended_at_ms > 0);
            let on = lab.running_on(&scene.guest);
            if !open && closed && on.len() < 2 {
                return Ok(left);
            }
            let told = journal.is_some_and(|j| {
                j.state
                    .is_some_and(|s| s.phase() == MigrationPhase::Unknown)
            });
            let [here, there] = books.each_ref().map(|books| books.read().state);
            let is_wrong = on.len() == 2 || (here == "paused" && there == "running");
            wrong = is_wrong.then(|| wrong.unwrap_or_else(Instant::now));
            if !told && wrong.is_some_and(|since| since.elapsed() > TOLD) {
                return Err(format!(
                    "it runs on {on:?}, its halves are {here}, {there}, and nobody says so"
                ));
            }
            if told && left.is_none() {
                left = self.decide(case, scene, &on)?;
            }
            if began.elapsed() > SETTLED {
                let open = lab.migrations().into_iter().find(|m| m.ended_at_ms == 0);
                return Err(format!(
                    "not settled in {SETTLED:?}: {open:?}, runs on {on:?}"
                ));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What an operator does whom an unknown migration is told of; `None`: wait, it may settle by itself.
    fn decide(&self, case: &Case, scene: &Scene, on: &[String]) -> Result<Option<String>, String> {
        let lab = &self.lab;
        let state = |host: &str| {
            let asked = lab.attempt(&["virsh", host, "domstate", &scene.guest, "--reason"]);
            String::from_utf8_lossy(&asked.stdout).trim().to_owned()
        };
        let (here, there) = (state(&scene.source), state(&scene.target));
        let may = may_be_left_double(case.victim, case.phase);
        if on.len() == 2 {
            if !may {
                return Err(format!("it runs twice: {here}, {there}"));
            }
            let named = format!("{} runs on", scene.guest);
            self.must_be_shown(|status| status.troubles.iter().any(|t| t.starts_with(&named)))?;
            lab.run(&["virsh", &scene.source, "destroy", &scene.guest]);
            return Ok(Some(TWICE.to_owned()));
        }
        let paused = here.starts_with("paused") && there.starts_with("running");
        if !paused {
            return Ok(None);
        }
        if !may {
            return Err(format!("the source was left paused: {here}, {there}"));
        }
        self.must_be_shown(|status| status.migrations_unknown > 0)?;
        lab.run(&[
            "evenkeel",
            "guest",
            "resolve",
            &scene.guest,
            "--host",
            &scene.target,
            "--discard-source",
            "--reason",
            "fault suite",
        ]);
        Ok(Some("source left paused".to_owned()))
    }

    /// What is wrong stands in the leader's status.
    fn must_be_shown(&self, is_shown: impl Fn(&v1::Status) -> bool) -> Result<(), String> {
        let limit = Instant::now() + TOLD;
        loop {
            let status = self.lab.status_of(&self.lab.some_leader());
            if is_shown(&status) {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(format!(
                    "the journal is unknown, and the status says: {status:?}"
                ));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Where the guest is now, which must be one of the places allowed, by libvirt and by its heart.
    fn judge(&self, case: &Case, scene: &Scene, settled: Option<&str>) -> Result<Place, String> {
        let lab = &self.lab;
        let on = lab.running_on(&scene.guest);
        let place = match on.as_slice() {
            [] => Place::Dead,
            [host] if *host == scene.source => Place::Source,
            [host] if *host == scene.target => Place::Target,
            more => return Err(format!("it runs on {more:?}")),
        };
        let places = allowed(case.kind, case.victim, case.phase);
        if !places.contains(&place) {
            return Err(format!("it is at {place}, allowed: {places:?}"));
        }
        let heart = lab.heart(&scene.guest);
        let was_told = settled.is_some_and(|left| left == TWICE);
        if !heart.counted_twice.is_empty() && !was_told {
            return Err(format!("its heart beat twice: {:?}", heart.counted_twice));
        }
        if heart.beats.windows(2).any(|pair| pair[1].n < pair[0].n) && !was_told {
            return Err("its heart's count went back: it was started again".to_owned());
        }
        if place == Place::Dead {
            self.must_be_told_dead(scene)?;
        } else {
            let goes_on = Instant::now() + SOON;
            while lab.heart(&scene.guest).count() < heart.count() + 2 {
                if Instant::now() > goes_on {
                    return Err(format!(
                        "libvirt has it running at {place}, its heart stands still"
                    ));
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(place)
    }

    /// A dead guest is shown as not running within a cycle, and nobody starts it.
    fn must_be_told_dead(&self, scene: &Scene) -> Result<(), String> {
        let limit = Instant::now() + TOLD;
        loop {
            let leader = self.lab.some_leader();
            let views = self.lab.guest_views(&leader);
            let shown = views.iter().find(|view| view.name == scene.guest);
            if shown.is_none_or(|view| view.state == "shutoff") {
                return self.must_stay_dead(scene);
            }
            if Instant::now() > limit {
                return Err(format!("it is dead, and shown as {shown:?}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Nobody has started it again once some control cycles have gone by.
    fn must_stay_dead(&self, scene: &Scene) -> Result<(), String> {
        let count = self.lab.heart(&scene.guest).beats.len();
        std::thread::sleep(STAYS);
        let on = self.lab.running_on(&scene.guest);
        if on.is_empty() && self.lab.heart(&scene.guest).beats.len() == count {
            Ok(())
        } else {
            Err(format!("it was dead, and was started again on {on:?}"))
        }
    }

    /// Neither host keeps memory back for the migration that is over.
    fn must_hold_nothing(&self) -> Result<(), String> {
        let limit = Instant::now() + TOLD;
        loop {
            let held = ["10.90.0.11:9641", "10.90.0.12:9641"].map(|agent| {
                let metrics = self.lab.http_get(agent, "/metrics");
                let mut lines = metrics.lines();
                let line = lines.find(|line| line.starts_with("evenkeel_agent_reserved_bytes{"));
                let bytes = line.and_then(|line| line.split(' ').next_back());
                bytes.unwrap_or("unknown").to_owned()
            });
            if held.iter().all(|bytes| bytes == "0") {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(format!("memory is still reserved, bytes: {held:?}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What happened before is settled: an order would be taken.
    fn wait_until_it_may_move(&self, scene: &Scene) {
        let lab = &self.lab;
        until("an order to be possible", SOON, || {
            let request = v1::OperatorMigrateRequest {
                guest: scene.guest.clone(),
                target: scene.target.clone(),
                dry_run: true,
                ..Default::default()
            };
            let asked = lab.inside(|| async {
                let mut client = lab.scheduler(Caller::Operator, &scene.leader);
                answer(client.migrate(ask(request))).await
            });
            asked.is_ok()
        });
    }

    /// How the migration ended, and whether the fault came in time.
    fn told(&self, struck: &Struck, scene: &Scene, place: Place) -> Result<(Hit, String), String> {
        let Some(id) = &struck.id else {
            return Ok((Hit::NotOrdered, "not ordered".to_owned()));
        };
        let uuid = self.lab.uuid(&scene.guest);
        let journals = self.lab.journal_ever(&scene.source, &uuid);
        let is_ours = |j: &&v1::Journal| j.order.as_ref().is_some_and(|o| o.id == *id);
        let end = journals.iter().rfind(is_ours);
        let end = end.map_or(0, |journal| journal.ended_at_ms);
        let before = end - struck.at_ms;
        let (hit, when) = match (struck.has_hit, end) {
            (false, _) => (Hit::Nothing, "nothing there to hit".to_owned()),
            (true, 0) => (Hit::Before, "never taken up".to_owned()),
            (true, _) if before < 0 => (Hit::After, format!("hit {} ms after its end", -before)),
            (true, _) => (Hit::Before, format!("hit {before} ms before its end")),
        };
        let (here, there) = &struck.books;
        let said = format!("{}, {when}: {here} / {there}", self.ended(id, place)?);
        Ok((hit, said))
    }

    /// How the migration ended, by the leader's word, which must agree with where the guest is.
    fn ended(&self, id: &str, place: Place) -> Result<String, String> {
        let all = self.lab.migrations();
        let is_it = |m: &&v1::Migration| m.order.as_ref().is_some_and(|o| o.id == id);
        let Some(migration) = all.iter().find(is_it) else {
            return Ok("forgotten".to_owned());
        };
        let state = migration.state.clone().unwrap_or_default();
        if !agrees(&state, place) {
            return Err(format!("it is at {place}, and this is said: {state:?}"));
        }
        let name = phase_of(migration).as_str_name().to_lowercase();
        let name = name.trim_start_matches("migration_phase_").to_owned();
        Ok(if state.reason.is_empty() {
            name
        } else {
            format!("{name} ({})", state.reason)
        })
    }

    /// The fleet must be whole again: a guest that lives moves, and nothing of it is left behind.
    fn go_on(&mut self, scene: &Scene, place: Place) -> Result<(), String> {
        let lab = &self.lab;
        let (now, next) = match place {
            Place::Source => (&scene.source, &scene.target),
            Place::Target => (&scene.target, &scene.source),
            Place::Dead => {
                self.at = None;
                lab.run(&["guest", "rm", &scene.guest]);
                return Ok(());
            }
        };
        let tidied = Instant::now() + TIDIED;
        loop {
            let defined = lab.attempt(&["virsh", next, "domstate", &scene.guest]);
            if !defined.status.success() {
                break;
            }
            if Instant::now() > tidied {
                let state = String::from_utf8_lossy(&defined.stdout).trim().to_owned();
                return Err(format!(
                    "{next} still has it, {state}, while it runs on {now}"
                ));
            }
            std::thread::sleep(LOOK);
        }
        lab.wait_for_picture(2);
        lab.wait_for_guest(&scene.guest);
        let limit = Instant::now() + 2 * SOON;
        let order = wait_for("the next move to be ordered", SOON, || {
            let leader = lab.leader()?;
            lab.migrate(Caller::Operator, &leader, &scene.guest, next)
                .ok()
        });
        let migration =
            lab.wait_for_end(&order.id, limit.saturating_duration_since(Instant::now()));
        if phase_of(&migration) != MigrationPhase::Done {
            return Err(format!("afterwards it does not move: {migration:?}"));
        }
        self.at = Some(if next == "h1" { "h1" } else { "h2" });
        Ok(())
    }
}

/// Whether a guest may be there after a migration that is said to have ended so. One that has just moved, or has just
/// not, may have died since.
fn agrees(state: &v1::MigrationState, place: Place) -> bool {
    match (state.phase(), state.whereabouts.as_str()) {
        (MigrationPhase::Done, _) | (MigrationPhase::Failed, "target") => place != Place::Source,
        (MigrationPhase::Failed, "nowhere") => place == Place::Dead,
        (MigrationPhase::Refused | MigrationPhase::Cancelled, _)
        | (MigrationPhase::Failed, "source") => place != Place::Target,
        _ => false,
    }
}
