//! How large the world is that is gone through, and which guard is left out of it.

use std::fmt;

/// Hosts that fit into a [`crate::world::World`].
pub const HOSTS: usize = 3;
/// Guests that fit.
pub const GUESTS: usize = 2;
/// Orders that fit.
pub const ORDERS: usize = 3;
/// Schedulers that fit, each with one epoch.
pub const LEADERS: usize = 3;

/// What protects a guest, and what a test leaves out to see that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// An agent compares the order's epoch with the leader's key, in the admitting transaction.
    Epoch,
    /// It compares the order with the one that stands.
    OrderStands,
    /// It writes its journal only where none of this order is, and none that is open.
    NoJournalYet,
    /// A leader writes only while its key leads.
    Mandate,
    /// A leader creates an order only if the guest has none.
    OnlyIfAbsent,
    /// A leader withdraws an order only while no agent has taken it up.
    Untaken,
    /// libvirt is called only once the journal says `Running` in etcd.
    JournalFirst,
    /// Both hosts are asked where the guest is, whatever libvirt's call returned.
    AskBothHosts,
    /// Nobody resumes a guest that a migration has left paused.
    NeverResume,
    /// An answer that was begun before libvirt's call was over does not settle what came of the call.
    AnswerAfterCall,
    /// An operator cannot have the half destroyed of which he says that it is the guest.
    DiscardOnlyRemnants,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 11] = [
        Self::Epoch,
        Self::OrderStands,
        Self::NoJournalYet,
        Self::Mandate,
        Self::OnlyIfAbsent,
        Self::Untaken,
        Self::JournalFirst,
        Self::AskBothHosts,
        Self::NeverResume,
        Self::AnswerAfterCall,
        Self::DiscardOnlyRemnants,
    ];

    /// Its name in tables and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::OrderStands => "order-stands",
            Self::NoJournalYet => "no-journal-yet",
            Self::Mandate => "mandate",
            Self::OnlyIfAbsent => "only-if-absent",
            Self::Untaken => "untaken",
            Self::JournalFirst => "journal-first",
            Self::AskBothHosts => "ask-both-hosts",
            Self::NeverResume => "never-resume",
            Self::AnswerAfterCall => "answer-after-call",
            Self::DiscardOnlyRemnants => "discard-only-remnants",
        }
    }
}

/// The bounds of one run: how much there is of everything that would otherwise go on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Name of the run, for tables.
    pub name: &'static str,
    /// Hosts, 2 to [`HOSTS`].
    pub hosts: usize,
    /// Guests, 1 to [`GUESTS`]; all begin on the first host.
    pub guests: usize,
    /// Orders that leaders make, to [`ORDERS`].
    pub orders: usize,
    /// Schedulers that lead one after the other, to [`LEADERS`]. Deposed ones go on until etcd tells them.
    pub leaders: usize,
    /// What may go wrong.
    pub faults: Faults,
    /// Whether source, target and libvirt's job are asked at different moments; else all at one.
    pub torn_answers: bool,
    /// Steps after which a way is not followed on; `None`: however many it takes.
    pub deepest: Option<usize>,
    /// The guard that is left out.
    pub without: Option<Guard>,
}

/// How often each thing may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// An agent is killed.
    pub agent: u8,
    /// A host loses power.
    pub host: u8,
    /// etcd does not answer in time; the transaction may be carried out later, or never.
    pub etcd: u8,
    /// libvirt's call breaks off while its job goes on.
    pub call: u8,
    /// The hand-over ends otherwise than it should: the error is false, or halves are left.
    pub hand_over: u8,
    /// libvirt itself lets a guest run twice.
    pub doubled: u8,
    /// Somebody cancels, or the deadline passes.
    pub abort: u8,
}

impl Bounds {
    /// The same without a guard.
    #[must_use]
    pub fn without(self, guard: Guard) -> Self {
        Self {
            without: Some(guard),
            ..self
        }
    }

    /// Whether a guard is in place.
    #[must_use]
    pub fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("agent", self.agent),
            ("host", self.host),
            ("etcd", self.etcd),
            ("call", self.call),
            ("hand-over", self.hand_over),
            ("doubled", self.doubled),
            ("abort", self.abort),
        ];
        let some: Vec<String> = all
            .into_iter()
            .filter(|(_, times)| *times > 0)
            .map(|(name, times)| format!("{times} {name}"))
            .collect();
        f.write_str(&some.join(", "))
    }
}
