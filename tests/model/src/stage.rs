//! The model: which steps are possible in a world, and what each does.

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use evenkeel_types::{Event, MigrationState, Presence};
use stateright::{Model, Property};

use crate::agent::{Question, begun_job};
use crate::bounds::{Bounds, Guard};
use crate::cast::Cast;
use crate::leader::{next_order, runs_at};
use crate::libvirt::Doing;
use crate::properties;
use crate::world::{Call, No, Phase, Slot, Told, World, at};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The leader's lease runs out.
    LeaseExpires,
    /// The next candidate leads.
    Elected,
    /// A scheduler decides to move a guest to a host.
    Plans(No, No, No),
    /// It looks at a guest's order; `true`: long after it was made.
    Looks(No, No, bool),
    /// It carries out what it has decided.
    Commits(No),
    /// etcd does not answer that.
    CommitIsLost(No),
    /// etcd carries it out after all.
    LateCommit(No),
    /// The delivery of an order is not answered.
    CallTimesOut(No, No),
    /// An order reaches its source's agent, sent by a scheduler.
    Arrives(No, No),
    /// The agent of a host admits an order for a guest.
    Admits(No, No),
    /// etcd does not answer that.
    AdmissionIsLost(No, No),
    /// etcd carries out what an agent's earlier life has sent.
    LateLands(No, No),
    /// The agent goes through its journals.
    LooksAfter(No, No),
    /// Source and target are checked; `true`: the target is not reached.
    Prepares(No, No, bool),
    /// The journal is written.
    Writes(No, No),
    /// libvirt is called.
    Calls(No, No),
    /// libvirt shows no sign of the call.
    GivesUpOnCall(No, No),
    /// The task hears that the call is over.
    Hears(No, No),
    /// It hears that the source was paused for the hand-over.
    HearsSwitchover(No, No),
    /// The job that it follows is over.
    JobIsOver(No, No),
    /// Somebody cancels.
    Cancels(No, No),
    /// The deadline passes.
    DeadlinePasses(No, No),
    /// libvirt's job is aborted.
    Aborts(No, No),
    /// Both hosts are asked; the target's answer is lost; it has been asked for long.
    Asks(No, No, Question, bool, bool),
    /// The task gives the guest's place back.
    Finishes(No, No),
    /// libvirt goes on.
    Libvirt(No, No, Doing),
    /// libvirt removes a half that is left.
    HalfGoes(No, No),
    /// An agent is killed.
    AgentDies(No),
    /// It is started.
    AgentStarts(No),
    /// A host loses power; `true`: a hand-over still reaches its target.
    HostDies(No, bool),
    /// It has power again.
    HostReturns(No),
    /// An operator tells the agent where a guest is; `true`: and has the paused half destroyed.
    Resolves(No, No, bool),
    /// An operator has the leader close the migration of a silent source.
    ClosesForSilent(No, No),
    /// An operator destroys by hand what is not the guest.
    DestroysByHand(No, No),
}

/// What is to be shown to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// A migration is unknown.
    Unknown,
    /// An order that came again was refused.
    DuplicateRefused,
    /// An order of a deposed leader was refused by its agent.
    DeposedRefused,
    /// A write of a deposed leader was refused by etcd.
    DeposedWriteRefused,
    /// A restarted agent went on with a running job.
    AdoptedJob,
    /// An order that nobody took up was withdrawn.
    Withdrawn,
    /// A withdrawal met an agent that was quicker.
    WithdrawalRefused,
    /// A guest moved although the call reported an error.
    MovedWithError,
    /// A source was left paused while the target runs.
    SourceLeftPaused,
    /// An agent closed a migration on an operator's word.
    ResolvedByAgent,
    /// The leader did, of a silent source.
    ResolvedByLeader,
    /// etcd carried out what an agent's earlier life had sent.
    LateWrite,
    /// A migration ended cancelled.
    Cancelled,
    /// A migration was done.
    Done,
    /// A job was found that had outlived its call.
    JobSeen,
    /// An agent found its journal closed by the leader.
    FoundClosed,
}

impl Mark {
    /// Every mark.
    pub const ALL: [Self; 16] = [
        Self::Unknown,
        Self::DuplicateRefused,
        Self::DeposedRefused,
        Self::DeposedWriteRefused,
        Self::AdoptedJob,
        Self::Withdrawn,
        Self::WithdrawalRefused,
        Self::MovedWithError,
        Self::SourceLeftPaused,
        Self::ResolvedByAgent,
        Self::ResolvedByLeader,
        Self::LateWrite,
        Self::Cancelled,
        Self::Done,
        Self::JobSeen,
        Self::FoundClosed,
    ];

    fn bit(self) -> u32 {
        let place = Self::ALL.iter().position(|mark| *mark == self).unwrap_or(0);
        1 << place
    }
}

/// Within which bounds the world is gone through, and what was reached in it.
pub struct Stage {
    /// The bounds.
    pub bounds: Bounds,
    /// The orders as the real code knows them.
    pub cast: Cast,
    marks: AtomicU32,
    /// Worlds of which is known that all journals close in them, by hash.
    pub(crate) closing: Mutex<HashSet<u64>>,
    hasher: std::hash::RandomState,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

fn numbers(count: usize) -> impl Iterator<Item = No> + Clone {
    (0..No::MAX).take(count)
}

impl Stage {
    /// A world of these bounds.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn new(bounds: Bounds) -> anyhow::Result<Self> {
        Ok(Self {
            bounds,
            cast: Cast::new(&bounds)?,
            marks: AtomicU32::new(0),
            closing: Mutex::default(),
            hasher: std::hash::RandomState::new(),
        })
    }

    /// Whether a guard is in place.
    #[must_use]
    pub fn has(&self, guard: Guard) -> bool {
        self.bounds.has(guard)
    }

    /// Notes that something was reached.
    pub fn mark(&self, mark: Mark) {
        self.marks.fetch_or(mark.bit(), Ordering::Relaxed);
    }

    /// Whether something was reached.
    #[must_use]
    pub fn reached(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Relaxed) & mark.bit() != 0
    }

    pub(crate) fn hash(&self, world: &World) -> u64 {
        self.hasher.hash_one(world)
    }

    pub(crate) fn known_to_close(&self, world: &World) -> Result<(), u64> {
        let hash = self.hash(world);
        let known = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&hash) {
            Ok(())
        } else {
            Err(hash)
        }
    }

    fn leader_actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.leader.is_some() && usize::from(world.led) < self.bounds.leaders {
            actions.push(Action::LeaseExpires);
        }
        if world.leader.is_none() && usize::from(world.led) < self.bounds.leaders {
            actions.push(Action::Elected);
        }
        for by in numbers(self.bounds.leaders) {
            let Some(scheduler) = world.schedulers[at(by)] else {
                continue;
            };
            if scheduler.late.is_some() {
                actions.push(Action::LateCommit(by));
            }
            for order in numbers(self.bounds.orders) {
                if scheduler.told[at(order)] == Told::UnderWay {
                    actions.push(Action::CallTimesOut(by, order));
                }
            }
            if scheduler.intent.is_some() {
                actions.push(Action::Commits(by));
                if world.left.etcd > 0 && scheduler.late.is_none() {
                    actions.push(Action::CommitIsLost(by));
                }
                continue;
            }
            for guest in numbers(self.bounds.guests) {
                self.decisions(world, by, guest, actions);
            }
        }
    }

    fn decisions(&self, world: &World, by: No, guest: No, actions: &mut Vec<Action>) {
        if let Some(order) = world.orders[at(guest)] {
            actions.push(Action::Looks(by, guest, false));
            actions.push(Action::Looks(by, guest, true));
            if world.leader == Some(by) && Self::is_silent_and_unknown(world, order) {
                actions.push(Action::ClosesForSilent(by, guest));
            }
            return;
        }
        let next = next_order(world).filter(|no| at(*no) < self.bounds.orders);
        let (Some(_), Some(source)) = (next, runs_at(world, guest)) else {
            return;
        };
        // Guests and hosts that nothing has touched are alike: the first of them stands for all.
        let given = || world.given.iter().flatten();
        let touched = |host: No| host == 0 || given().any(|g| g.target == host);
        let fresh_guest = numbers(self.bounds.guests).find(|g| !given().any(|o| o.guest == *g));
        let fresh_host = numbers(self.bounds.hosts).find(|h| !touched(*h));
        if given().any(|o| o.guest == guest) || fresh_guest == Some(guest) {
            for target in numbers(self.bounds.hosts) {
                if target != source && (touched(target) || fresh_host == Some(target)) {
                    actions.push(Action::Plans(by, guest, target));
                }
            }
        }
    }

    fn host_actions(&self, world: &World, host: No, actions: &mut Vec<Action>) {
        let (agent, machine, left) = (&world.agents[at(host)], &world.hosts[at(host)], world.left);
        if !machine.up {
            actions.push(Action::HostReturns(host));
            return;
        }
        if left.host > 0 {
            actions.push(Action::HostDies(host, false));
            if machine
                .jobs
                .iter()
                .flatten()
                .any(|job| job.phase == Phase::HandingOver)
            {
                actions.push(Action::HostDies(host, true));
            }
        }
        match agent.up {
            true if left.agent > 0 => actions.push(Action::AgentDies(host)),
            true => {}
            false => actions.push(Action::AgentStarts(host)),
        }
    }

    fn guest_actions(&self, world: &World, host: No, guest: No, actions: &mut Vec<Action>) {
        let (agent, machine) = (&world.agents[at(host)], &world.hosts[at(host)]);
        if agent.late[at(guest)].is_some() {
            actions.push(Action::LateLands(host, guest));
        }
        if !machine.up {
            return;
        }
        if let Some(job) = machine.jobs[at(guest)] {
            let can = Doing::ALL.into_iter().filter(|doing| doing.can(world, job));
            actions.extend(can.map(|doing| Action::Libvirt(host, guest, doing)));
        }
        if Self::has_half(world, host, guest) {
            actions.push(Action::HalfGoes(host, guest));
        }
        if is_left_over(world, host, guest) {
            actions.push(Action::DestroysByHand(host, guest));
        }
        if !agent.up {
            return;
        }
        match agent.slots[at(guest)] {
            Slot::Free => {}
            Slot::Admitting(_) => {
                actions.push(Action::Admits(host, guest));
                if world.left.etcd > 0 && agent.late[at(guest)].is_none() {
                    actions.push(Action::AdmissionIsLost(host, guest));
                }
            }
            Slot::Driven(_) => self.task_actions(world, host, guest, actions),
        }
        if world.journals[at(host)][at(guest)].is_some() {
            actions.push(Action::LooksAfter(host, guest));
        }
    }

    fn task_actions(&self, world: &World, host: No, guest: No, actions: &mut Vec<Action>) {
        let Some(task) = world.task(host, guest) else {
            return;
        };
        let job = begun_job(world, host, guest);
        if !task.written && !task.silenced {
            actions.push(Action::Writes(host, guest));
        }
        if task.state.outcome().is_some() {
            if task.written || task.silenced {
                actions.push(Action::Finishes(host, guest));
            }
            return;
        }
        if task.preparing {
            actions.push(Action::Prepares(host, guest, false));
            actions.push(Action::Prepares(host, guest, true));
        }
        let may_call =
            task.written || task.silenced || task.aborting || !self.has(Guard::JournalFirst);
        match task.call {
            Call::Waiting if may_call => actions.push(Action::Calls(host, guest)),
            Call::Out if job.is_none() && !matches!(task.state, MigrationState::Unknown { .. }) => {
                actions.push(Action::GivesUpOnCall(host, guest));
            }
            Call::Back(_) => actions.push(Action::Hears(host, guest)),
            Call::None | Call::Waiting | Call::Out => {}
        }
        let handing_over = world.hosts[at(host)].jobs[at(guest)]
            .is_some_and(|job| job.phase == Phase::HandingOver);
        if handing_over && matches!(task.state, MigrationState::Running(_)) {
            actions.push(Action::HearsSwitchover(host, guest));
        }
        if task.following && job.is_none() {
            actions.push(Action::JobIsOver(host, guest));
        }
        if world.left.abort > 0 {
            actions.push(Action::Cancels(host, guest));
            actions.push(Action::DeadlinePasses(host, guest));
        }
        let copying =
            world.hosts[at(host)].jobs[at(guest)].is_some_and(|j| j.phase == Phase::Copying);
        if task.aborting && copying {
            actions.push(Action::Aborts(host, guest));
        }
        self.questions(world, host, guest, actions);
        if matches!(task.state, MigrationState::Unknown { .. }) && world.leader.is_some() {
            actions.push(Action::Resolves(host, guest, false));
            actions.push(Action::Resolves(host, guest, true));
        }
    }

    fn questions(&self, world: &World, host: No, guest: No, actions: &mut Vec<Action>) {
        let Some((task, asking)) = world.task(host, guest).and_then(|t| Some((t, t.asking?)))
        else {
            return;
        };
        // Only there does it matter for how long it was asked.
        let switching = matches!(task.state, MigrationState::Switching(_));
        let mut ask = |question, may_be_lost, may_be_long| {
            for (lost, long) in [(false, false), (true, false), (false, true), (true, true)] {
                if (may_be_lost || !lost) && ((switching && may_be_long) || !long) {
                    actions.push(Action::Asks(host, guest, question, lost, long));
                }
            }
        };
        if !self.bounds.torn_answers {
            return ask(Question::All, true, true);
        }
        if asking.source.is_none() {
            ask(Question::Source, false, false);
        }
        if asking.target.is_none() {
            ask(Question::Target, true, false);
        }
        if asking.job.is_none() {
            ask(Question::Job, false, false);
        }
        if asking.source.and(asking.target).is_some() && asking.job.is_some() {
            ask(Question::Brought, false, true);
        }
    }

    /// Does one step.
    pub fn act(&self, world: &mut World, action: Action) {
        match action {
            Action::LeaseExpires => Self::lease_expires(world),
            Action::Elected => Self::elected(world),
            Action::Plans(by, guest, target) => Self::plans(world, by, guest, target),
            Action::Looks(by, guest, long) => self.looks(world, by, guest, long),
            Action::Commits(by) => self.commits(world, by),
            Action::CommitIsLost(by) => Self::commit_is_lost(world, by),
            Action::LateCommit(by) => self.late_commit(world, by),
            Action::CallTimesOut(by, order) => Self::call_times_out(world, by, order),
            Action::Arrives(order, by) => self.arrives(world, order, by),
            Action::Admits(host, guest) => self.admits(world, host, guest),
            Action::AdmissionIsLost(host, guest) => self.admission_is_lost(world, host, guest),
            Action::LateLands(host, guest) => self.late_lands(world, host, guest),
            Action::LooksAfter(host, guest) => self.looks_after(world, host, guest),
            Action::Prepares(host, guest, lost) => self.prepares(world, host, guest, lost),
            Action::Writes(host, guest) => self.writes(world, host, guest),
            Action::Calls(host, guest) => self.calls(world, host, guest),
            Action::Hears(host, guest) => self.hears(world, host, guest),
            Action::GivesUpOnCall(host, guest) => self.feed(world, host, guest, Event::GaveUp),
            Action::HearsSwitchover(host, guest) => {
                self.feed(world, host, guest, Event::SwitchoverSeen);
            }
            Action::JobIsOver(host, guest) => self.job_is_over(world, host, guest),
            Action::Cancels(host, guest) => {
                world.left.abort -= 1;
                self.feed(world, host, guest, Event::CancelRequested);
            }
            Action::DeadlinePasses(host, guest) => {
                world.left.abort -= 1;
                self.feed(world, host, guest, Event::DeadlinePassed);
            }
            Action::Aborts(host, guest) => self.libvirt(world, host, guest, Doing::CopyFails),
            Action::Asks(host, guest, question, lost, long) => {
                self.asks(world, host, guest, (question, lost, long));
            }
            Action::Finishes(host, guest) => self.finishes(world, host, guest),
            Action::Libvirt(host, guest, doing) => self.libvirt(world, host, guest, doing),
            Action::HalfGoes(host, guest) => Self::half_goes(world, host, guest),
            Action::AgentDies(host) => {
                world.left.agent -= 1;
                Self::agent_dies(world, host);
            }
            Action::AgentStarts(host) => Self::agent_starts(world, host),
            Action::HostDies(host, over) => {
                world.left.host -= 1;
                Self::host_dies(world, host, over);
            }
            Action::HostReturns(host) => Self::host_returns(world, host),
            Action::Resolves(host, guest, discard) => self.resolves(world, host, guest, discard),
            Action::ClosesForSilent(by, guest) => self.closes_for_silent(world, by, guest),
            Action::DestroysByHand(host, guest) => Self::destroys_by_hand(world, host, guest),
        }
    }
}

/// Whether a host has what is not the guest any more, and no operator would want: a half that was left paused, or
/// the second of two that libvirt lets run.
fn is_left_over(world: &World, host: No, guest: No) -> bool {
    let here = world.hosts[at(host)].guests[at(guest)];
    let doubled = world.seen.doubled & (1 << guest) != 0;
    let no_job = world.hosts.iter().all(|h| h.jobs[at(guest)].is_none());
    let left_paused =
        here == Presence::PausedByMigration && world.seen.halves & (1 << (host * 2 + guest)) == 0;
    no_job
        && world.living[at(guest)] != Some(host)
        && (left_paused || (here == Presence::Running && doubled))
}

impl Model for Stage {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.leader_actions(world, actions);
        for order in numbers(self.bounds.orders) {
            let Some(given) = world.given[at(order)] else {
                continue;
            };
            for by in numbers(self.bounds.leaders) {
                if world.sent[at(order)] & (1 << by) != 0 && world.agents[at(given.source)].up {
                    actions.push(Action::Arrives(order, by));
                }
            }
        }
        for host in numbers(self.bounds.hosts) {
            self.host_actions(world, host, actions);
            for guest in numbers(self.bounds.guests) {
                self.guest_actions(world, host, guest, actions);
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = *world;
        self.act(&mut next, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
