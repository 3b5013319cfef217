//! The end: both hosts are asked where the guest is, until what they say settles it.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::retry::Backoff;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{
    CallResult, Event, FailureReason, MigrationState, Outcome, Presence, Whereabouts,
};
use tokio::time::Instant;

use super::task::{Signal, Task};
use super::verdict::{self, Brought, Heard};
use super::{Driver, Timings, copy, disks};
use crate::hypervisor::{Hypervisor, JobProgress};
use crate::journal::Records;
use crate::peer::Peers;

/// Attempts to tell a target that it need not hold memory any more; after that its reservation expires.
const RELEASES: usize = 4;

/// When to ask next, and when to stop expecting an answer soon.
#[derive(Debug)]
pub(super) struct Asker {
    /// One asking is under way.
    pending: bool,
    /// How libvirt's call had come back when it was begun.
    asked_under: Option<CallResult>,
    first: Option<Instant>,
    /// The last answer that was logged.
    told: Option<Whereabouts>,
    /// Since when both hosts have answered without settling it, and libvirt has had no job for it.
    half_since: Option<Instant>,
    give_up: Duration,
    left_behind: Duration,
    soon: Backoff,
    seldom: Backoff,
}

impl Asker {
    pub(super) fn new(timings: &Timings) -> Self {
        Self {
            pending: false,
            asked_under: None,
            first: None,
            told: None,
            half_since: None,
            give_up: timings.give_up,
            left_behind: timings.left_behind,
            soon: Backoff::new(timings.ask.0, timings.ask.1),
            seldom: Backoff::new(timings.ask.1.min(timings.unknown), timings.unknown),
        }
    }

    /// How long to wait before asking; `None`: it is being asked already.
    fn begin(&mut self, state: &MigrationState) -> Option<Duration> {
        if std::mem::replace(&mut self.pending, true) {
            return None;
        }
        self.asked_under = verdict::call_of(state);
        if self.first.is_none() {
            self.first = Some(Instant::now());
            return Some(Duration::ZERO);
        }
        Some(match state {
            MigrationState::Unknown { .. } => self.seldom.next_wait(),
            MigrationState::Ordered
            | MigrationState::Preparing
            | MigrationState::Running(_)
            | MigrationState::Switching(_)
            | MigrationState::Ended(_) => self.soon.next_wait(),
        })
    }

    /// What an answer means to the machine: after a while without a settling one, that we gave up. A half that libvirt
    /// has left behind takes less of a while than a host that does not answer, or a job that is not over.
    pub(super) fn answer(
        &mut self,
        state: &MigrationState,
        place: Whereabouts,
        has_job: bool,
    ) -> Event {
        self.pending = false;
        let brought = Brought {
            begun: self.asked_under,
            place,
        };
        let is_half = brought.counts(state) && place == Whereabouts::Unsettled && !has_job;
        self.half_since = is_half.then(|| self.half_since.unwrap_or_else(Instant::now));
        let over = |since: Option<Instant>, limit| since.is_some_and(|t| t.elapsed() >= limit);
        let long = over(self.first, self.give_up) || over(self.half_since, self.left_behind);
        brought.event(state, long)
    }

    /// Logs an answer that differs from the last one.
    pub(super) fn log(&mut self, order: &Order, place: Whereabouts, words: &str) {
        if self.told.replace(place) != Some(place) {
            log_answer(order, place, words);
        }
    }

    /// A job was seen instead of an answer.
    pub(super) fn job_seen(&mut self) {
        self.pending = false;
    }

    /// A job is followed: when it is over, the asking begins anew.
    pub(super) fn begin_anew(&mut self) {
        self.first = None;
        self.half_since = None;
        self.soon.reset();
        self.seldom.reset();
    }
}

impl<H: Hypervisor, R: Records, P: Peers> Task<H, R, P> {
    /// Asks after the wait that is due, unless it is being asked already.
    pub(super) fn ask_both_hosts(&mut self) {
        self.mark_two_hosts();
        let Some(wait) = self.asker.begin(&self.state) else {
            return;
        };
        let (driver, order, call) = (self.driver.clone(), self.order.clone(), self.call());
        let (signals, over_ms) = (self.signals.clone(), self.over_ms);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let answer = ask(&driver, &order, call).await;
            // After a call that succeeded a job is a remnant or somebody else's.
            let outlives =
                |job: &JobProgress| call != Some(CallResult::Ok) && copy::is_ours(job, over_ms);
            let signal = if answer.copies.as_ref().is_some_and(outlives) {
                Signal::Happened(Event::JobSeen, answer.words)
            } else {
                Signal::Answered(answer)
            };
            drop(signals.send(signal).await);
        });
    }
}

/// What an asking brought.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) place: Whereabouts,
    /// What source and target said; `None`: no answer.
    pub(super) said: (Option<Presence>, Option<Presence>),
    /// Whether libvirt has a migration job for it here, or did not say.
    pub(super) has_job: bool,
    /// The job under which the guest still runs here, with nothing alive at the target.
    copies: Option<JobProgress>,
    /// Whether all that the source has is a definition that the target has, too.
    remnant: bool,
    /// For people.
    pub(super) words: String,
}

/// Asks both hosts; an answer that would close a migration whose call did not succeed must be given twice,
/// for libvirtd may be tidying up behind it.
async fn ask<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    order: &Order,
    call: Option<CallResult>,
) -> Answer {
    let mut first = ask_once(driver, order).await;
    if first.remnant && call.is_some() {
        tokio::time::sleep(driver.timings.confirm).await;
        if ask_once(driver, order).await.remnant {
            drop_remnant(driver, order).await;
        }
        first = ask_once(driver, order).await;
    }
    if !verdict::must_be_confirmed(call, first.place) {
        return first;
    }
    tokio::time::sleep(driver.timings.confirm).await;
    let mut again = ask_once(driver, order).await;
    again.place = verdict::confirmed(first.place, again.place);
    again
}

/// Ends what libvirt was kept from ending: the definition is at the target, whole, with all disks, and of the
/// source's nothing is needed.
async fn drop_remnant<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    order: &Order,
) {
    let guest = order.guest.clone();
    let outcome = driver.calls.call(move |h| h.undefine(&guest)).await;
    tracing::warn!(order = %order.id, guest = %order.guest, to = %order.target, ?outcome,
        "the definition was on both hosts; the one that was left behind here is removed");
}

/// Asks both hosts once. While libvirt still has a job for the guest nothing is settled.
pub(super) async fn ask_once<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    order: &Order,
) -> Answer {
    let guest = order.guest.clone();
    let here = driver.calls.call(move |h| h.presence(&guest));
    let there = async {
        let found = driver.peers.inspect(&order.target, &order.guest).await;
        found.map(|found| found.presence)
    };
    let job = copy::job(&driver.calls, &order.guest);
    let (here, there, job) = tokio::join!(here, there, job);
    let here = here.map(|(presence, _)| presence);
    let answers = (here.as_ref().ok().copied(), there.as_ref().ok().copied());
    let heard = Heard {
        said: answers,
        has_job: !matches!(job, Ok(None)),
        shut_off: order.options.kind == v1::MoveKind::Offline,
    };
    let trouble = |e: Option<String>| e.map(|e| format!(" ({e})")).unwrap_or_default();
    let words = format!(
        "{}: {}{}, {}: {}{}",
        order.source,
        said(answers.0),
        trouble(here.err().map(|e| e.to_string())),
        order.target,
        said(answers.1),
        trouble(there.err())
    );
    Answer {
        place: heard.place(),
        said: answers,
        has_job: heard.has_job,
        remnant: heard.is_remnant(),
        copies: job.ok().flatten().filter(|_| heard.is_only_at_source()),
        words,
    }
}

fn said(presence: Option<Presence>) -> &'static str {
    presence.map_or("no answer", Presence::as_str)
}

fn log_answer(order: &Order, place: Whereabouts, words: &str) {
    let (id, guest) = (&order.id, &order.guest);
    match place {
        Whereabouts::Both => {
            tracing::error!(order = %id, %guest, words, "GUEST RUNS ON TWO HOSTS");
        }
        Whereabouts::Nowhere => tracing::error!(order = %id, %guest, words, "guest runs nowhere"),
        Whereabouts::Source | Whereabouts::Target => {
            tracing::info!(order = %id, %guest, %place, words, "both hosts answered");
        }
        Whereabouts::Unsettled | Whereabouts::Unanswered => {
            tracing::debug!(order = %id, %guest, %place, words, "not settled yet");
        }
    }
}

/// Where a guest is by both hosts' word when its migration has ended like this; an operator's word decides about
/// no file.
fn place_of(outcome: Outcome) -> Option<Whereabouts> {
    match outcome {
        Outcome::Done => Some(Whereabouts::Target),
        // It was never started, or both hosts have said so.
        Outcome::Refused(_) | Outcome::Cancelled => Some(Whereabouts::Source),
        Outcome::Failed { reason, guest } => (reason != FailureReason::Resolved).then_some(guest),
    }
}

/// Tells the target that it need not hold memory any more.
pub(super) fn release<H: Hypervisor, R: Records, P: Peers>(
    driver: &Arc<Driver<H, R, P>>,
    order: &Arc<Order>,
    outcome: Option<Outcome>,
) {
    driver.figures.on_two_hosts(&order.guest, false);
    let (driver, order) = (Arc::clone(driver), Arc::clone(order));
    let place = outcome.and_then(place_of);
    tokio::spawn(async move {
        disks::note_left(&driver, &order, place == Some(Whereabouts::Target)).await;
        let mut backoff = Backoff::default();
        for _ in 0..RELEASES {
            if driver.peers.release(&order, place).await {
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
        tracing::debug!(order = %order.id, to = %order.target, "release not heard; it expires");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_types::CopyFacts;

    fn asker() -> Asker {
        Asker::new(&Timings::default())
    }

    /// Seconds of the same answer until it gives up.
    async fn patience(place: Whereabouts, has_job: bool) -> u64 {
        let (mut asker, state) = (asker(), MigrationState::Switching(CopyFacts::default()));
        let began = Instant::now();
        loop {
            let wait = asker.begin(&state).unwrap();
            tokio::time::sleep(wait).await;
            if asker.answer(&state, place, has_job) == Event::GaveUp {
                return began.elapsed().as_secs();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_that_is_left_behind_is_told_sooner_than_silence() {
        assert!((15..30).contains(&patience(Whereabouts::Unsettled, false).await));
        assert!((60..75).contains(&patience(Whereabouts::Unsettled, true).await));
        assert!((60..75).contains(&patience(Whereabouts::Unanswered, true).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_must_have_been_left_all_the_time() {
        let (mut asker, state) = (asker(), MigrationState::Switching(CopyFacts::default()));
        for has_job in [false, true, false] {
            let event = asker.answer(&state, Whereabouts::Unsettled, has_job);
            assert_eq!(event, Event::Asked(Whereabouts::Unsettled));
            tokio::time::sleep(Duration::from_secs(14)).await;
        }
    }

    #[test]
    fn an_asking_that_was_begun_before_the_call_was_over_settles_nothing() {
        let unknown = |call| MigrationState::Unknown {
            facts: CopyFacts { abort: None, call },
            last: Whereabouts::Unanswered,
        };
        let (out, over) = (unknown(None), unknown(Some(CallResult::Ok)));
        let mut asker = Asker::new(&Timings::default());
        assert!(asker.begin(&out).is_some());
        // The call comes back while it is under way: no other asking is begun for that.
        assert!(asker.begin(&over).is_none());
        let late = asker.answer(&over, Whereabouts::Source, false);
        assert_eq!(late, Event::Asked(Whereabouts::Unsettled));
        assert!(asker.begin(&over).is_some());
        let fresh = asker.answer(&over, Whereabouts::Target, false);
        assert_eq!(fresh, Event::Asked(Whereabouts::Target));
    }
}
