//! What operators want: the policy file, resolved.
//!
//! [`Policy::parse`] reads the TOML text strictly and reports every fault with its place. The values here
//! are final: where the file says nothing, the default stands. What the numbers mean for decisions is in
//! [`crate::constants`] and in the modules that use them.

mod conflict;
mod error;
mod overlap;
mod parse;
mod patterns;
mod quantity;
mod reader;
mod syntax;
mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::{Fault, PolicyCheck, PolicyError, Related};

/// The newest policy schema that this version understands.
pub const SCHEMA: i64 = 1;

/// Defines an enum whose values have one fixed name each in files and on the command line.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value's name.
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            /// The name in files.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownName { given: text.to_owned(), known: Self::NAMES }),
                }
            }
        }
    };
}
pub(crate) use named;

/// A text that is none of the names of an enum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {}", known.join(", "))]
pub struct UnknownName {
    /// The text that was given.
    pub given: String,
    /// The names that would do.
    pub known: &'static [&'static str],
}

named! {
    /// What the scheduler does by itself.
    Mode {
        /// Recommends only.
        Observe = "observe",
        /// Carries out what pays.
        Automatic = "automatic",
        /// Neither recommends nor moves, except for drains and manual moves.
        Off = "off",
    }
}

named! {
    /// What "better" means, beside what contention costs.
    Strategy {
        /// Contention only.
        Contention = "contention",
        /// Contention, and even utilisation of CPU and memory.
        Spread = "spread",
        /// Contention, and few powered hosts.
        Consolidate = "consolidate",
    }
}

named! {
    /// Whether a rule may be broken at a price.
    Strength {
        /// Never broken by a move.
        Must = "must",
        /// Broken when the price is worth it.
        Should = "should",
    }
}

named! {
    /// What becomes of guests with disks that only their host reaches.
    LocalDisks {
        /// They stay where they are.
        Stay = "stay",
        /// Their disks are copied along.
        Copy = "copy",
    }
}

named! {
    /// How a live copy makes smaller what it sends.
    StreamCompression {
        /// Not at all.
        None = "none",
        /// Only what has changed within a page, against a cache.
        Xbzrle = "xbzrle",
        /// Whole pages, by several threads.
        Mt = "mt",
    }
}

/// A policy with every value resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What the scheduler does by itself. The planner plans the same in all modes.
    pub mode: Mode,
    /// What is minimised.
    pub strategy: Strategy,
    /// 1 (only must-rules and drains) to 5 (any gain that pays); see [`crate::constants::PAYBACK`].
    pub aggressiveness: u8,
    /// `[limits]`.
    pub limits: Limits,
    /// `[control]`.
    pub control: Control,
    /// `[migration]`.
    pub migration: Migration,
    /// `[price]`.
    pub price: Price,
    /// All rules, in the order of kind and name.
    pub rules: Vec<Rule>,
}

/// Hard limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Migrations that one host takes part in at a time, as source or target.
    pub migrations_per_host: u32,
    /// Migrations in the cluster at a time.
    pub migrations_per_cluster: u32,
    /// Migrations over one link at a time; 0 means no limit. A link is what joins the hosts with one value of
    /// `link_label` to all others, such as the uplink of a rack: a migration between two racks takes both uplinks.
    pub migrations_per_link: u32,
    /// The host label whose values share a link. Hosts without it take none.
    pub link_label: String,
    /// Allocated over physical memory of a host that is never exceeded.
    pub memory_overcommit: f64,
    /// Fraction of a host's memory that working sets should leave free; memory loss starts above it.
    pub memory_headroom: f64,
    /// Guests on one host, shut-off ones included; 0 means no limit.
    pub max_guests_per_host: u32,
    /// Memory is kept free for the guests of that many hosts, so that they can be restarted.
    pub reserve_host_failures: u32,
}

impl Limits {
    /// The limited links that a migration takes, by the labels of its hosts: those of both places, unless it stays
    /// within one.
    pub fn links<'a>(
        &self,
        from: &'a BTreeMap<String, String>,
        to: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a str> {
        let place = |labels: &'a BTreeMap<String, String>| {
            let limited = self.migrations_per_link > 0;
            labels.get(&self.link_label).filter(|_| limited)
        };
        let (from, to) = (place(from), place(to));
        let leaves = from != to;
        let both = [from, to].into_iter().flatten();
        both.filter(move |_| leaves).map(String::as_str)
    }
}

/// Times of the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Time between planning rounds.
    pub cycle: Duration,
    /// How long a hot spot must last before anything moves because of it.
    pub hold: Duration,
    /// How long a guest rests after a move; doubles with repeats.
    pub cooldown: Duration,
    /// Older reports are not used.
    pub max_report_age: Duration,
    /// Time over which demand is estimated.
    pub window: Duration,
}

/// How migrations run.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Pause at switch-over that a guest may suffer.
    pub downtime_limit: Duration,
    /// Cap on a migration's bandwidth, MiB/s; 0 means none.
    pub bandwidth_limit_mib_s: f64,
    /// Whether a guest that dirties memory too fast is throttled until it converges.
    pub auto_converge: bool,
    /// Longer pauses that a copy is allowed in turn when it makes no headway, rising.
    pub downtime_steps: Vec<Duration>,
    /// Time without headway after which a copy is allowed the next pause, and after the last is given up.
    pub patience: Duration,
    /// Whether a guest whose copy still makes no headway is handed over before it is complete. A link that
    /// breaks then loses the guest.
    pub post_copy: bool,
    /// What becomes of guests with disks that only their host reaches.
    pub local_disks: LocalDisks,
    /// Connections that a live copy uses side by side.
    pub connections: u32,
    /// How a live copy makes smaller what it sends.
    pub compression: StreamCompression,
    /// Whether a live copy is encrypted.
    pub tls: bool,
    /// Whether a target may have an older libvirt or QEMU than the source.
    pub allow_older_target: bool,
}

impl Migration {
    /// The longest pause that a copy may come to be allowed.
    #[must_use]
    pub fn longest_pause(&self) -> Duration {
        let steps = self.downtime_steps.iter().copied();
        steps.fold(self.downtime_limit, Duration::max)
    }
}

/// Exchange rates between guest-seconds and what else people care about.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// What each migration costs beside its measurable loss: risk and attention. Guest-seconds.
    pub migration_guest_seconds: f64,
    /// `spread`: price of one core of squared imbalance, guest-seconds per second.
    pub balance: f64,
    /// `consolidate`: price of one powered host, guest-seconds per second.
    pub powered_host: f64,
    /// Price of one broken `should` rule per guest concerned, guest-seconds per second.
    pub should_rule: f64,
}

/// A named rule about where guests may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its table's name, unique within its kind.
    pub name: String,
    /// What it demands.
    pub kind: RuleKind,
    /// The guests it is about.
    pub guests: Selector,
    /// Whether it may be broken at a price.
    pub strength: Strength,
    /// Line of its table in the policy text, from 1; 0 when it was not read from a text.
    pub line: usize,
}

/// What a rule demands of its guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleKind {
    /// All on one host.
    Affinity,
    /// No two in one place: a host, or the hosts that share a label's value.
    AntiAffinity {
        /// The label, such as `rack`; none means by host.
        over: Option<String>,
    },
    /// Only on these hosts.
    Pin {
        /// The hosts allowed.
        hosts: Selector,
    },
    /// Never moved by the planner.
    OptOut,
}

impl RuleKind {
    /// The table that holds rules of this kind.
    #[must_use]
    pub fn table(&self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity { .. } => "anti_affinity",
            Self::Pin { .. } => "pin",
            Self::OptOut => "opt_out",
        }
    }
}

impl Rule {
    /// How the rule is named to people: `anti_affinity.db`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.kind.table(), self.name)
    }
}

/// A choice of guests or hosts: by name patterns, or by labels that must all match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Names; `*` and `?` as in a shell.
    pub patterns: Vec<String>,
    /// Labels and the values they must have; patterns too.
    pub labels: Vec<(String, String)>,
    /// Everything else is meant: the hosts of a pin's `not_hosts` are those that it forbids.
    pub inverted: bool,
}

impl Selector {
    /// Whether something of this name and these labels is chosen.
    pub(crate) fn selects<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        // A name that stands on two hosts is written `host/name`: rules about the name go on to hold.
        let short = name.rsplit_once('/').map_or(name, |(_, short)| short);
        let fits = |pattern: &str, name| crate::glob::matches(pattern, name);
        let is_long = short.len() < name.len();
        let by_name = self
            .patterns
            .iter()
            .any(|p| fits(p, name) || (is_long && fits(p, short)));
        let has = |(key, value): &(String, String)| {
            label(key).is_some_and(|found| crate::glob::matches(value, found))
        };
        let named = by_name || (!self.labels.is_empty() && self.labels.iter().all(has));
        named != self.inverted
    }
}

impl Default for Policy {
    /// What holds when nothing is said: observe, contention, aggressiveness 3, no rules.
    fn default() -> Self {
        Self {
            mode: Mode::Observe,
            strategy: Strategy::Contention,
            aggressiveness: 3,
            limits: Limits {
                migrations_per_host: 2,
                migrations_per_cluster: 8,
                migrations_per_link: 0,
                link_label: "rack".to_owned(),
                memory_overcommit: 1.0,
                memory_headroom: 0.05,
                max_guests_per_host: 0,
                reserve_host_failures: 0,
            },
            control: Control {
                cycle: Duration::from_secs(30),
                hold: Duration::from_secs(60),
                cooldown: Duration::from_secs(600),
                max_report_age: Duration::from_secs(60),
                window: Duration::from_secs(300),
            },
            migration: Migration {
                downtime_limit: Duration::from_millis(300),
                bandwidth_limit_mib_s: 0.0,
                auto_converge: true,
                downtime_steps: Vec::new(),
                patience: Duration::from_secs(60),
                post_copy: false,
                local_disks: LocalDisks::Stay,
                connections: 1,
                compression: StreamCompression::None,
                tls: false,
                allow_older_target: false,
            },
            price: Price {
                migration_guest_seconds: 60.0,
                balance: 1.0,
                powered_host: 0.5,
                should_rule: 0.1,
            },
            rules: Vec::new(),
        }
    }
}

impl Policy {
    /// Reads a policy text.
    ///
    /// # Errors
    /// Every fault found, each with line, column, cause and what would be right.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::check(text).into_policy()
    }

    /// Reads a policy text and tells also what is allowed but hardly meant.
    #[must_use]
    pub fn check(text: &str) -> PolicyCheck {
        parse::check(text)
    }

    /// The bytes of a file as a policy text.
    ///
    /// # Errors
    /// The place of the first byte that is no UTF-8.
    pub fn text_of(bytes: &[u8]) -> Result<&str, PolicyError> {
        syntax::text_of(bytes)
    }

    /// The text with its `mode` changed, comments and everything else kept.
    ///
    /// Where the text has no `mode`, a line is added above everything but comments. A text that is no
    /// TOML gets the line too: reading it fails as it did before.
    #[must_use]
    pub fn with_mode(text: &str, mode: Mode) -> String {
        parse::with_mode(text, mode)
    }
}
