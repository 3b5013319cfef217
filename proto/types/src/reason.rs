//! Closed sets of reasons: why a migration was refused and why one failed.
//!
//! Both reach operators as labels of metrics and words in `evenkeel migrations`, so a name is never changed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every reason, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The reason's fixed name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownReason;

            fn from_str(text: &str) -> Result<Self, UnknownReason> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownReason(text.chars().take(64).collect())),
                }
            }
        }
    };
}

pub(crate) use reasons;

/// A reason's name that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownReason(pub String);

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown reason {:?}", self.0)
    }
}

impl std::error::Error for UnknownReason {}

reasons! {
    /// Why an agent (source or target) would not start a migration. Nothing has happened to the guest.
    Refusal {
        /// The order carries an epoch older than the leader's, or the leader's key is gone.
        StaleEpoch = "stale_epoch",
        /// The order is not (or no longer) in etcd, or another one stands there.
        NoSuchOrder = "no_such_order",
        /// A journal of this order exists already.
        Duplicate = "duplicate",
        /// etcd does not answer, and without it nothing starts.
        NoEtcd = "no_etcd",
        /// libvirt does not answer on this host.
        NoLibvirt = "no_libvirt",
        /// The guest is not on the source host.
        GuestNotHere = "guest_not_here",
        /// The guest is not in a state that this kind of move takes.
        WrongState = "wrong_state",
        /// The order is for a guest that is shut off, and it is not.
        GuestRunning = "guest_running",
        /// The guest has snapshots, which no migration takes along.
        HasSnapshots = "has_snapshots",
        /// The guest has a property that forbids live migration (host device, local disk …).
        Unmovable = "unmovable",
        /// Another job (a migration that is not ours, a snapshot, a backup) holds the guest.
        Busy = "busy",
        /// The source agent does not answer the leader.
        SourceUnreachable = "source_unreachable",
        /// The target agent does not answer.
        TargetUnreachable = "target_unreachable",
        /// The target has too little memory that is neither used nor reserved.
        NoMemory = "no_memory",
        /// The target's CPU cannot run the guest's CPU definition.
        IncompatibleCpu = "incompatible_cpu",
        /// The target's QEMU does not know the guest's machine type.
        UnknownMachineType = "unknown_machine_type",
        /// A network or bridge of the guest is missing or inactive at the target.
        MissingNetwork = "missing_network",
        /// A disk's source is not reachable at the target.
        MissingStorage = "missing_storage",
        /// The target has too little room for the disks that are to be copied.
        NoDiskSpace = "no_disk_space",
        /// A disk that the guest writes to is written to by another guest at the target, or stands there already.
        DiskInUse = "disk_in_use",
        /// The target's QEMU or libvirt is older than the source's.
        OlderVersion = "older_version",
        /// A guest of that name or UUID is at the target already.
        NameClash = "name_clash",
        /// The host takes no more migrations now.
        TooManyMigrations = "too_many_migrations",
        /// The order names a kind of move that this agent cannot do.
        Unsupported = "unsupported",
        /// The deadline had passed before anything started.
        DeadlinePassed = "deadline_passed",
    }
}

reasons! {
    /// Why a migration that had started did not end at its target.
    FailureReason {
        /// libvirt reported an error; its text is in the journal.
        Libvirt = "libvirt",
        /// The deadline passed and the copy was aborted.
        Deadline = "deadline",
        /// The copy would not converge, the longest pause allowed, and was aborted.
        NotConverging = "not_converging",
        /// An operator said where the guest is, for its hosts did not.
        Resolved = "resolved",
        /// The agent was gone before the copy began; nothing had happened.
        Interrupted = "interrupted",
        /// The guest runs on neither host: its QEMU or its host died.
        GuestDied = "guest_died",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_parses_from_its_own_name_and_matches_serde() {
        for &reason in Refusal::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for &reason in FailureReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("nonsense".parse::<Refusal>().is_err());
    }
}
