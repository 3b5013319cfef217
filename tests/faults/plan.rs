//! Which faults are injected when, and what may come of each: the one table.

use std::fmt;

use evenkeel_fleets::dice::Dice;

/// When a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The move is being ordered, checked and reserved for.
    Preparation,
    /// Memory is being copied.
    Copying,
    /// The copy is about to end and the guest to change its host.
    HandOver,
}

/// What a fault waits for, in the order in which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The order is asked for.
    Asked,
    /// The target's libvirt has begun to make room for the guest.
    Prepare,
    /// The source's libvirt has been called.
    Called,
    /// The first bytes have gone over.
    Copied,
    /// The source has stopped the guest, for the last bytes to be sent.
    Stopped,
    /// All is sent, and the target is to take the guest up.
    Finish,
    /// The target has taken it up, and the source is to let it go.
    Confirm,
}

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    SourceAgent,
    TargetAgent,
    Leader,
    SourceLibvirtd,
    TargetLibvirtd,
    SourceQemu,
    TargetQemu,
    EtcdMember,
    Etcd,
    /// The two hosts no longer reach each other.
    BetweenHosts,
    /// The source no longer reaches etcd.
    SourceToEtcd,
    /// The leader no longer reaches etcd.
    LeaderToEtcd,
    /// The migration network of the source.
    MigrationNetwork,
    /// The management network of the source: agents, etcd and libvirt's control connection.
    ManagementNetwork,
    /// The leader's network: etcd and all agents.
    LeaderNetwork,
    Source,
    Target,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `SIGKILL`; started again a moment later.
    Kill,
    /// `SIGSTOP` for 15 s.
    Stop,
    /// Cut for a while.
    Cut,
    /// Slowed down for a while.
    Slow,
    /// Without power for a while.
    PowerOff,
}

/// A fault in a phase, and all that chance decides of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    pub(crate) victim: Victim,
    pub(crate) phase: Phase,
    /// From when on the delay counts.
    pub(crate) moment: Moment,
    /// How long after that moment it hits, ms.
    pub(crate) delay_ms: u64,
    /// Which member of etcd is hit, from 1.
    pub(crate) member: usize,
}

/// Where the guest may be afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Source,
    Target,
    /// Its QEMU or its host is dead, and so is it.
    Dead,
}

/// Every fault that is injected, in each phase.
pub(crate) const FAULTS: [(Kind, Victim); 28] = [
    (Kind::Kill, Victim::SourceAgent),
    (Kind::Kill, Victim::TargetAgent),
    (Kind::Kill, Victim::Leader),
    (Kind::Kill, Victim::SourceLibvirtd),
    (Kind::Kill, Victim::TargetLibvirtd),
    (Kind::Kill, Victim::SourceQemu),
    (Kind::Kill, Victim::TargetQemu),
    (Kind::Kill, Victim::EtcdMember),
    (Kind::Kill, Victim::Etcd),
    (Kind::Stop, Victim::SourceAgent),
    (Kind::Stop, Victim::TargetAgent),
    (Kind::Stop, Victim::Leader),
    (Kind::Stop, Victim::SourceLibvirtd),
    (Kind::Stop, Victim::TargetLibvirtd),
    (Kind::Stop, Victim::SourceQemu),
    (Kind::Stop, Victim::TargetQemu),
    (Kind::Stop, Victim::EtcdMember),
    (Kind::Stop, Victim::Etcd),
    (Kind::Cut, Victim::BetweenHosts),
    (Kind::Cut, Victim::SourceToEtcd),
    (Kind::Cut, Victim::LeaderToEtcd),
    (Kind::Cut, Victim::ManagementNetwork),
    (Kind::Cut, Victim::MigrationNetwork),
    (Kind::Slow, Victim::LeaderNetwork),
    (Kind::Slow, Victim::MigrationNetwork),
    (Kind::Slow, Victim::ManagementNetwork),
    (Kind::PowerOff, Victim::Source),
    (Kind::PowerOff, Victim::Target),
];
pub(crate) const PHASES: [Phase; 3] = [Phase::Preparation, Phase::Copying, Phase::HandOver];

/// Where the guest may be after a fault, the move having been ordered from source to target.
///
/// A fault of what only watches or carries words costs no guest. A killed QEMU and a host without power take the
/// guest with them that they run; which of the two does is open only at the hand-over.
#[must_use]
pub(crate) fn allowed(kind: Kind, victim: Victim, phase: Phase) -> &'static [Place] {
    use Place::{Dead, Source, Target};
    let lethal = matches!(
        (kind, victim),
        (Kind::Kill, Victim::SourceQemu | Victim::TargetQemu) | (Kind::PowerOff, _)
    );
    if !lethal {
        return &[Source, Target];
    }
    let at_source = matches!(victim, Victim::SourceQemu | Victim::Source);
    match (at_source, phase) {
        (true, Phase::Copying) => &[Dead],
        // Preparing takes a moment only: it may have moved by then.
        (true, Phase::Preparation | Phase::HandOver) => &[Dead, Target],
        (false, Phase::Copying) => &[Source],
        (false, Phase::Preparation | Phase::HandOver) => &[Source, Target, Dead],
    }
}

/// Whether libvirt itself may leave the guest running twice, or its old half paused: the control connection or
/// one of its ends is lost while it hands over.
#[must_use]
pub(crate) fn may_be_left_double(victim: Victim, phase: Phase) -> bool {
    let control = matches!(
        victim,
        Victim::SourceLibvirtd
            | Victim::TargetLibvirtd
            | Victim::BetweenHosts
            | Victim::ManagementNetwork
            | Victim::MigrationNetwork
            | Victim::Source
            | Victim::Target
    );
    control && phase != Phase::Copying
}

/// The first `count` cases of a seed: all faults in all phases in a random order, again and again, each with its own
/// chance. The rounds after the first are of hand-overs above all, for there chance decides most.
#[must_use]
pub(crate) fn cases(seed: u64, count: usize) -> Vec<Case> {
    let mut dice = Dice::new(seed);
    let mut cases: Vec<Case> = vec![];
    while cases.len() < count {
        let phases = if cases.is_empty() {
            &PHASES[..]
        } else {
            &PHASES[2..]
        };
        let mut round: Vec<(Kind, Victim, Phase)> = phases
            .iter()
            .flat_map(|phase| FAULTS.map(|(kind, victim)| (kind, victim, *phase)))
            .collect();
        dice.shuffle(&mut round);
        for (kind, victim, phase) in round {
            let (moment, delay_ms) = aim(&mut dice, phase);
            cases.push(Case {
                seed,
                number: cases.len() + 1,
                kind,
                victim,
                phase,
                moment,
                delay_ms,
                member: 1 + dice.below(3),
            });
        }
    }
    cases.truncate(count);
    cases
}

/// When a fault is to hit, ms after what. The spreads are as long as it takes in the lab until the next moment:
/// Evenkeel prepares within some 30 ms; an idle guest stands still for some 50 ms, is taken up within 15, and let go
/// of within 200.
fn aim(dice: &mut Dice, phase: Phase) -> (Moment, u64) {
    let moments: &[(Moment, usize, usize)] = match phase {
        Phase::Preparation => &[
            (Moment::Asked, 0, 60),
            (Moment::Asked, 0, 60),
            (Moment::Prepare, 0, 300),
        ],
        Phase::Copying => &[(Moment::Copied, 0, 2_000)],
        Phase::HandOver => &[
            (Moment::Called, 60, 450),
            (Moment::Stopped, 0, 50),
            (Moment::Finish, 0, 15),
            (Moment::Confirm, 0, 150),
        ],
    };
    let (moment, least, spread) = moments[dice.below(moments.len())];
    let delay = least + dice.below(spread);
    (moment, u64::try_from(delay).unwrap_or(0))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.victim, self.phase)
    }
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal,)+ }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $name,)+ })
            }
        }
    };
}

names!(Phase {
    Preparation = "preparation",
    Copying = "copying",
    HandOver = "hand-over",
});
names!(Moment {
    Asked = "asked",
    Prepare = "prepare",
    Called = "called",
    Copied = "copied",
    Stopped = "stopped",
    Finish = "finish",
    Confirm = "confirm",
});
names!(Kind {
    Kill = "kill",
    Stop = "stop",
    Cut = "cut",
    Slow = "slow",
    PowerOff = "power-off",
});
names!(Place {
    Source = "source",
    Target = "target",
    Dead = "dead",
});
names!(Victim {
    SourceAgent = "source-agent",
    TargetAgent = "target-agent",
    Leader = "leader",
    SourceLibvirtd = "source-libvirtd",
    TargetLibvirtd = "target-libvirtd",
    SourceQemu = "source-qemu",
    TargetQemu = "target-qemu",
    EtcdMember = "etcd-member",
    Etcd = "etcd",
    BetweenHosts = "between-hosts",
    SourceToEtcd = "source-to-etcd",
    LeaderToEtcd = "leader-to-etcd",
    MigrationNetwork = "migration-network",
    ManagementNetwork = "management-network",
    LeaderNetwork = "leader-network",
    Source = "source",
    Target = "target",
});
