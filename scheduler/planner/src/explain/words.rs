//! Every named reason in words that also a tired operator understands.

use crate::plan::BlockReason;

impl BlockReason {
    /// What the reason means, as the end of "it is not moved (there): ...".
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Unmovable => "something ties the guest to its host: it cannot be migrated at all",
            Self::Pinned => "a pin in the policy allows other hosts only",
            Self::OptedOut => "its owner or the policy says never to move it",
            Self::RuleImpossible => "no placement on this fleet fulfils the rule",
            Self::RuleConflict => "two rules of the policy contradict each other about it",
            Self::RuleForbids => "a must-rule of the policy would be broken",
            Self::NoCapacity => "there is no room: memory or the number of guests is at its limit",
            Self::IncompatibleCpu => "the CPU there is not one that the guest can run on",
            Self::MissingNetwork => "a network that the guest uses is not there",
            Self::MissingStorage => "storage that the guest uses cannot be reached from there",
            Self::Refused => "that host's agent refused it lately, and would again",
            Self::CoolDown => "it was moved a short time ago and rests",
            Self::LeftLately => "it left that host a short time ago and stays away for its balance",
            Self::NotConverging => "it changes its memory faster than the link copies it",
            Self::StaleData => "what is known of it is too old or cannot be true",
            Self::DuplicateUuid => "its UUID stands on two guests: one of them may be a copy",
            Self::HostAbsent => "the host is silent: nobody knows what runs there",
            Self::HostClosed => "the host takes no guests: it is cordoned or being drained",
            Self::DoesNotPay => "it would save less than the migration has to bring",
            Self::InFlight => "it is being migrated at this moment",
            Self::ShutOff => "it is shut off, and moving such guests was not asked for",
            Self::NotThere => "the guest or host is not known, or the guest is elsewhere by now",
            Self::AlreadyThere => "it is there already",
            Self::MigrationLimit => "as many migrations run as the policy allows",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unmovable => "detach the device or disk named, or restart the guest elsewhere",
            Self::Pinned => "widen the pin's hosts, or make it strength = \"should\"",
            Self::OptedOut => "ask its owner, or take it out of the opt_out rule",
            Self::RuleImpossible => "add hosts (or label values), or relax the rule",
            Self::RuleConflict => "change one of the two rules; evenkeel policy check names them",
            Self::RuleForbids => "look at the rule named and at where its other guests are",
            Self::NoCapacity => "free memory there, or raise the limit in the policy",
            Self::IncompatibleCpu => "give the guest a CPU model that all hosts have",
            Self::MissingNetwork => "define the network on that host",
            Self::MissingStorage => "make the storage available on that host",
            Self::Refused => "mend what was refused; evenkeel migrate --to tries at once",
            Self::CoolDown => "wait, or move it by hand: evenkeel migrate",
            Self::LeftLately => "wait, or move it by hand: evenkeel migrate",
            Self::NotConverging => {
                "allow it more in the policy: downtime_steps, auto_converge or post_copy"
            }
            Self::StaleData => "look after the agent of its host: evenkeel hosts",
            Self::DuplicateUuid => "find the real one, and give the other a UUID of its own",
            Self::HostAbsent => "look after the host and its agent",
            Self::HostClosed => "open the host again when its work is done: evenkeel uncordon",
            Self::DoesNotPay => "nothing; to move it all the same: evenkeel migrate",
            Self::InFlight => "wait until it is over: evenkeel migrations",
            Self::ShutOff => {
                "start it elsewhere, or ask for shut-off guests to be moved, too: evenkeel drain --offline-too"
            }
            Self::NotThere => "check the name: evenkeel guests, evenkeel hosts",
            Self::AlreadyThere => "nothing",
            Self::MigrationLimit => "wait, or raise [limits] in the policy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BlockReason;

    #[test]
    fn every_reason_has_words_of_its_own_and_a_remedy() {
        let reasons: Vec<BlockReason> = BlockReason::NAMES
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let mut meanings: Vec<&str> = reasons.iter().map(|r| r.meaning()).collect();
        meanings.sort_unstable();
        meanings.dedup();
        assert_eq!(meanings.len(), BlockReason::NAMES.len());
        assert!(reasons.iter().all(|r| !r.remedy().is_empty()));
    }
}
