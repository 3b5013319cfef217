//! A state: what etcd holds, what each scheduler and agent knows, what each libvirt does, and what was seen to go
//! wrong. Everything is small and copied; nothing here decides.
//!
//! etcd's revisions are only ever compared for equality, so who holds one holds whether the key is unchanged
//! since ([`Base`]). An order is never written twice: its number stands for its revision.

use evenkeel_types::{CallResult, MigrationState, Place, Presence, Refusal, Whereabouts};

use crate::bounds::{Bounds, Faults, GUESTS, HOSTS, LEADERS, ORDERS};

/// Number of a host, guest, order or scheduler.
pub type No = u8;

/// As an index.
#[must_use]
pub fn at(no: No) -> usize {
    usize::from(no)
}

/// A state of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// The scheduler whose key leads.
    pub leader: Option<No>,
    /// Schedulers that have led.
    pub led: No,
    /// What each order says that was ever made.
    pub given: [Option<Given>; ORDERS],
    /// The order that stands in etcd for each guest.
    pub orders: [Option<No>; GUESTS],
    /// The journals in etcd, by source host and guest.
    pub journals: [[Option<Journal>; GUESTS]; HOSTS],
    /// For each order, which schedulers have sent it out: it may arrive at any time, and any number of times.
    pub sent: [u8; ORDERS],
    /// Schedulers that lead or believe that they do.
    pub schedulers: [Option<Scheduler>; LEADERS],
    /// The agents.
    pub agents: [Agent; HOSTS],
    /// Hosts and their libvirt.
    pub hosts: [Host; HOSTS],
    /// On which host each guest truly is; `None`: it is dead.
    pub living: [Option<No>; GUESTS],
    /// What may still go wrong.
    pub left: Faults,
    /// What has happened, as far as what must never be depends on it.
    pub seen: Seen,
}

/// What an order says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Given {
    /// The guest.
    pub guest: No,
    /// Where it is.
    pub source: No,
    /// Where it goes.
    pub target: No,
    /// The scheduler that gave it; its epoch is one more.
    pub by: No,
}

/// A journal in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Journal {
    /// Its order.
    pub order: No,
    /// Its state.
    pub state: MigrationState,
}

/// What a transaction that writes a journal rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// There was no journal.
    Absent,
    /// There was one, and nobody has written it since.
    Unchanged,
    /// There was one, and it was written since: a guard on its revision does not hold.
    Changed,
}

/// A scheduler that leads, or that nobody has told yet that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scheduler {
    /// What it remembers of its deliveries.
    pub told: [Told; ORDERS],
    /// What it has decided to write.
    pub intent: Option<Intent>,
    /// A transaction that etcd has not answered.
    pub late: Option<Intent>,
}

/// What a scheduler remembers of the delivery of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// A call is under way.
    UnderWay,
    /// The agent refused.
    Refused(Refusal),
}

/// A write that a scheduler has decided upon, in the picture it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Create an order.
    Create(No),
    /// Remember the end and remove the order.
    Settle(No),
    /// Remove an order that nobody took up.
    Withdraw(No, Base),
    /// Close the journal of a silent source on an operator's word.
    Resolve(No, Place, Base),
}

/// An agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Whether it runs.
    pub up: bool,
    /// What it does with each guest.
    pub slots: [Slot; GUESTS],
    /// A transaction of an earlier life that etcd has not carried out.
    pub late: [Option<Late>; GUESTS],
}

/// A transaction that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Late {
    /// An admission.
    Admission(Admission),
    /// A journal.
    Write(Journal, Base),
}

/// A guest's place in an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Nothing is under way.
    Free,
    /// etcd has been looked at; the admitting transaction comes next.
    Admitting(Admission),
    /// A migration is driven.
    Driven(Task),
}

/// An admission that was found lawful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Admission {
    /// The order.
    pub order: No,
    /// The scheduler that brought it.
    pub by: No,
    /// What the journal's guard rests on.
    pub base: Base,
}

/// A migration's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Task {
    /// Its order.
    pub order: No,
    /// The machine.
    pub state: MigrationState,
    /// What its next journal write rests on.
    pub base: Base,
    /// Whether etcd has the state.
    pub written: bool,
    /// The journal can never be written again: another stands in its place, or it was closed.
    pub silenced: bool,
    /// The target is being asked to prepare.
    pub preparing: bool,
    /// libvirt's call.
    pub call: Call,
    /// A job without its call is watched.
    pub following: bool,
    /// The job is aborted until it is over.
    pub aborting: bool,
    /// Both hosts are being asked.
    pub asking: Option<Asking>,
}

/// How far libvirt's call is, as the task sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// None is to be made.
    None,
    /// It waits for the journal.
    Waiting,
    /// It was made.
    Out,
    /// It has come back; the task has not heard it.
    Back(CallResult),
}

/// A question to both hosts that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Asking {
    /// How libvirt's call had come back when it was begun.
    pub call: Option<CallResult>,
    /// The first answer, when it must be given twice.
    pub first: Option<Whereabouts>,
    /// What the source has said; outer `None`: not yet.
    pub source: Option<Option<Presence>>,
    /// What the target has said.
    pub target: Option<Option<Presence>>,
    /// In whose name libvirt has said that it has a job.
    pub job: Option<Option<No>>,
}

/// A host, its libvirt and its QEMUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host {
    /// Whether it has power.
    pub up: bool,
    /// What it has of each guest.
    pub guests: [Presence; GUESTS],
    /// The migration that takes each guest away.
    pub jobs: [Option<Job>; GUESTS],
}

/// A migration inside libvirt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Job {
    /// The order in whose name it was called for.
    pub order: No,
    /// Where it goes.
    pub target: No,
    /// How far it is.
    pub phase: Phase,
    /// Whether the call waits for it.
    pub attached: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// libvirt has the call and has not begun: no question shows it.
    Pending,
    /// Memory is copied, the guest runs at the source.
    Copying,
    /// The source is paused.
    HandingOver,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// What must never be.
    pub wrong: Option<Wrong>,
    /// Orders that took effect, by bit.
    pub admitted: u8,
    /// Halves that came in, by host and guest: libvirt removes what is left of them.
    pub halves: u8,
    /// Guests that libvirt itself lets run twice.
    pub doubled: u8,
}

/// What must never be, as far as one step shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// An order took effect whose leader did not lead any more.
    DeposedOrder,
    /// A scheduler wrote after it was deposed.
    DeposedWrite,
    /// An order took effect twice.
    TwiceAdmitted,
    /// A journal was closed on a word of both hosts that is not true.
    FalseWord,
    /// What ran was destroyed.
    Destroyed,
    /// libvirt was called without an open journal of the order that stands.
    UnfoundedCall,
}

impl World {
    /// All guests run on the first host; nobody leads.
    #[must_use]
    pub fn new(bounds: &Bounds) -> Self {
        let agent = Agent {
            up: true,
            slots: [Slot::Free; GUESTS],
            late: [None; GUESTS],
        };
        let host = Host {
            up: true,
            guests: [Presence::Absent; GUESTS],
            jobs: [None; GUESTS],
        };
        let mut world = Self {
            leader: None,
            led: 0,
            given: [None; ORDERS],
            orders: [None; GUESTS],
            journals: [[None; GUESTS]; HOSTS],
            sent: [0; ORDERS],
            schedulers: [None; LEADERS],
            agents: [agent; HOSTS],
            hosts: [host; HOSTS],
            living: [None; GUESTS],
            left: bounds.faults,
            seen: Seen::default(),
        };
        for guest in 0..bounds.guests {
            world.hosts[0].guests[guest] = Presence::Running;
            world.living[guest] = Some(0);
        }
        world
    }

    /// What an order says.
    ///
    /// # Panics
    /// When no such order was made.
    #[must_use]
    pub fn order(&self, order: No) -> Given {
        self.given[at(order)].unwrap_or_else(|| unreachable!("order {order} was never made"))
    }

    /// The task of a guest at a host.
    #[must_use]
    pub fn task(&self, host: No, guest: No) -> Option<&Task> {
        match &self.agents[at(host)].slots[at(guest)] {
            Slot::Driven(task) => Some(task),
            Slot::Free | Slot::Admitting(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn task_mut(&mut self, host: No, guest: No) -> Option<&mut Task> {
        match &mut self.agents[at(host)].slots[at(guest)] {
            Slot::Driven(task) => Some(task),
            Slot::Free | Slot::Admitting(_) => None,
        }
    }

    /// Notes the first thing that must never be.
    pub fn wrong(&mut self, wrong: Wrong) {
        self.seen.wrong.get_or_insert(wrong);
    }

    /// Writes a journal: whatever rests on what stood there has changed ground.
    pub fn put_journal(&mut self, host: No, guest: No, journal: Option<Journal>) {
        self.journals[at(host)][at(guest)] = journal;
        let given = self.given;
        let here =
            |order: No| given[at(order)].is_some_and(|g| g.source == host && g.guest == guest);
        let changed = |base: &mut Base| {
            if *base == Base::Unchanged {
                *base = Base::Changed;
            }
        };
        let agent = &mut self.agents[at(host)];
        match &mut agent.slots[at(guest)] {
            Slot::Free => {}
            Slot::Admitting(admission) => changed(&mut admission.base),
            Slot::Driven(task) => changed(&mut task.base),
        }
        match &mut agent.late[at(guest)] {
            None => {}
            Some(Late::Admission(admission)) => changed(&mut admission.base),
            Some(Late::Write(_, base)) => changed(base),
        }
        for scheduler in self.schedulers.iter_mut().flatten() {
            for intent in [&mut scheduler.intent, &mut scheduler.late] {
                match intent {
                    Some(Intent::Withdraw(order, base) | Intent::Resolve(order, _, base))
                        if here(*order) =>
                    {
                        changed(base);
                    }
                    Some(
                        Intent::Create(_)
                        | Intent::Settle(_)
                        | Intent::Withdraw(..)
                        | Intent::Resolve(..),
                    )
                    | None => {}
                }
            }
        }
    }

    /// Whether a guard on a journal's revision holds.
    #[must_use]
    pub fn holds(&self, host: No, guest: No, base: Base) -> bool {
        match base {
            Base::Absent => self.journals[at(host)][at(guest)].is_none(),
            Base::Unchanged => true,
            Base::Changed => false,
        }
    }

    /// What a guard on a journal that is looked at now rests on.
    #[must_use]
    pub fn base(&self, host: No, guest: No) -> Base {
        if self.journals[at(host)][at(guest)].is_some() {
            Base::Unchanged
        } else {
            Base::Absent
        }
    }
}
