//! What is well and what is not, from what schedulers and the client itself know. Pure.
//!
//! Nothing is concluded from sentences: those are passed on to people as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::output::text::count;
use crate::output::time;
use crate::view::{Check, Host, Status};

/// A certificate that ends sooner wants to be renewed: somebody has to find the time.
const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
/// Names that are listed; the others are counted.
const MOST_NAMES: usize = 5;

/// What there is to judge.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Of each scheduler that answers; at least one.
    pub(super) answers: Vec<Status>,
    /// Each scheduler that does not, and why.
    pub(super) silent: Vec<String>,
    pub(super) hosts: Vec<Host>,
    /// 0: none was ever applied.
    pub(super) policy_revision: u64,
    /// Empty: it is sound.
    pub(super) policy_fault: String,
    /// When the client's own certificate ends; `None`: that cannot be read.
    pub(super) certificate_ends: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// Every check, in a fixed order.
pub(super) fn all(seen: &Seen) -> Vec<Check> {
    vec![
        certificate(seen),
        schedulers(seen),
        leader(seen),
        etcd(seen),
        policy(seen),
        versions(seen),
        reports(&seen.hosts),
        libvirt(&seen.hosts),
        measuring(&seen.hosts),
        migrations(seen),
        doubles(seen),
        foreign(seen),
        disk_locks(&seen.hosts),
    ]
}

/// `2 of 3 hosts: kvm1, kvm2`
fn of_hosts(some: &[String], all: usize) -> String {
    format!("{} of {}: {}", some.len(), hosts(all), names(some))
}

fn hosts(number: usize) -> String {
    count(u32::try_from(number).unwrap_or(u32::MAX), "host")
}

fn names(all: &[String]) -> String {
    let (listed, more) = all.split_at(all.len().min(MOST_NAMES));
    let listed = listed.join(", ");
    match more.len() {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

fn named(hosts: &[Host], which: impl Fn(&Host) -> bool) -> Vec<String> {
    let hosts = hosts.iter().filter(|host| which(host));
    hosts.map(|host| host.name.clone()).collect()
}

fn certificate(seen: &Seen) -> Check {
    const NAME: &str = "certificate";
    const MEND: &str = "have a new one signed";
    let Some(ends) = seen.certificate_ends else {
        return Check::warning(NAME, "the end of yours cannot be read", MEND);
    };
    let left = time::between(seen.now, ends);
    let stamp = time::stamp(ends);
    if left.is_zero() {
        Check::failed(NAME, format!("yours ended {stamp}"), MEND)
    } else {
        let found = format!("yours ends {stamp}, {} left", time::duration(left));
        if left < CERTIFICATE_WARNING {
            Check::warning(NAME, found, MEND)
        } else {
            Check::ok(NAME, found)
        }
    }
}

fn schedulers(seen: &Seen) -> Check {
    const NAME: &str = "schedulers";
    let (answer, silent) = (seen.answers.len(), seen.silent.len());
    let found = format!("{answer} of {} answer", answer + silent);
    if silent == 0 {
        return Check::ok(NAME, found);
    }
    let mend =
        "start those that are down; take those that are gone out of the client's configuration";
    Check::warning(NAME, format!("{found}; {}", seen.silent.join("; ")), mend)
}

fn leader(seen: &Seen) -> Check {
    const NAME: &str = "leader";
    let leaders: BTreeMap<&str, i64> = seen
        .answers
        .iter()
        .filter_map(|status| Some((status.leader.as_deref()?, status.epoch.unwrap_or(0))))
        .collect();
    let told: Vec<String> = leaders
        .iter()
        .map(|(leader, epoch)| format!("{leader} (epoch {epoch})"))
        .collect();
    let without = seen.answers.iter().filter(|s| s.leader.is_none()).count();
    let all = seen.answers.len();
    match leaders.len() {
        0 => Check::failed(
            NAME,
            "none: nothing is moved",
            "see the schedulers' logs: they need a quorum of etcd to elect one",
        ),
        1 if without == 0 => Check::ok(NAME, told.join(", ")),
        1 => Check::warning(
            NAME,
            format!("{}; {without} of {all} know of none", told.join(", ")),
            "see whether those reach etcd",
        ),
        _ => Check::warning(
            NAME,
            format!("schedulers name different ones: {}", told.join(", ")),
            "look again in a few seconds; if it stays, see whether all of them reach the same etcd",
        ),
    }
}

/// What schedulers say of themselves, each once: a follower passes on the word of a leader that answers it.
fn voices(seen: &Seen) -> Vec<&Status> {
    let voices: BTreeMap<_, _> = seen.answers.iter().map(|s| (&s.replica, s)).collect();
    voices.into_values().collect()
}

fn etcd(seen: &Seen) -> Check {
    const NAME: &str = "etcd";
    const MEND: &str = "see etcd's health and the network between it and the schedulers";
    let voices = voices(seen);
    let reach = |status: &&&Status| status.etcd_reachable == Some(true);
    let (reached, all) = (voices.iter().filter(reach).count(), voices.len());
    let found = format!("reached by {reached} of {all} schedulers heard themselves");
    match reached {
        0 => Check::failed(NAME, found, MEND),
        _ if reached < all => Check::warning(NAME, found, MEND),
        _ => Check::ok(NAME, found),
    }
}

fn policy(seen: &Seen) -> Check {
    const NAME: &str = "policy";
    if !seen.policy_fault.is_empty() {
        let found = format!("what stands in etcd cannot be used: {}", seen.policy_fault);
        return Check::failed(
            NAME,
            found,
            "evenkeel policy check, then evenkeel policy apply",
        );
    }
    match seen.policy_revision {
        0 => Check::ok(NAME, "the built-in one: none was ever applied"),
        revision => Check::ok(NAME, format!("revision {revision}")),
    }
}

fn versions(seen: &Seen) -> Check {
    const NAME: &str = "versions";
    let mut holders: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for status in voices(seen) {
        let name = status.replica.clone().unwrap_or_default();
        let version = status.version.as_deref().unwrap_or("unknown");
        holders.entry(version).or_default().push(name);
    }
    // What an agent that is silent was when it was heard last says nothing.
    for host in seen.hosts.iter().filter(|host| host.state != "absent") {
        let version = host.agent_version.as_deref().unwrap_or("unknown");
        holders.entry(version).or_default().push(host.name.clone());
    }
    let told: Vec<String> = holders
        .iter()
        .map(|(version, who)| format!("{version} on {}", names(who)))
        .collect();
    if holders.len() < 2 {
        return Check::ok(NAME, told.join("; "));
    }
    let mend = "upgrade the older ones: neighbouring versions work together, others need not";
    Check::warning(NAME, told.join("; "), mend)
}

/// A host that was drained may be away.
fn is_missed(host: &Host) -> bool {
    host.drain
        .as_ref()
        .is_none_or(|drain| drain.state != "drained")
}

fn reports(all: &[Host]) -> Check {
    const NAME: &str = "reports";
    if all.is_empty() {
        let mend = "start evenkeel-agent on the hosts, with this cluster's name and etcd";
        return Check::warning(NAME, "no host has ever reported", mend);
    }
    let silent = named(all, |host| host.state == "absent" && is_missed(host));
    let unusable = named(all, |host| host.state == "unusable");
    if !silent.is_empty() {
        let found = format!("silent: {}", of_hosts(&silent, all.len()));
        let mend = "see whether the host, its agent and its way to etcd are up, or evenkeel drain it before it goes away";
        return Check::failed(NAME, found, mend);
    }
    if !unusable.is_empty() {
        let found = format!("too old or absurd: {}", of_hosts(&unusable, all.len()));
        let mend = "see the scheduler's log for why, and the host's clock and load";
        return Check::failed(NAME, found, mend);
    }
    let ages = all.iter().filter_map(|host| host.report_age_ms);
    let oldest = time::duration(time::milliseconds(ages.max().unwrap_or(0)));
    Check::ok(
        NAME,
        format!("{} report, the oldest is of {oldest} ago", hosts(all.len())),
    )
}

fn libvirt(all: &[Host]) -> Check {
    const NAME: &str = "libvirt";
    let down = named(all, |host| host.libvirt_up == Some(false));
    if down.is_empty() {
        let up = named(all, |host| host.libvirt_up == Some(true));
        return Check::ok(NAME, format!("up on {}", hosts(up.len())));
    }
    let found = format!("does not answer on {}", of_hosts(&down, all.len()));
    Check::failed(
        NAME,
        found,
        "start libvirtd there; its guests go on, but none is moved",
    )
}

fn measuring(all: &[Host]) -> Check {
    const NAME: &str = "measuring";
    let troubled: Vec<String> = all
        .iter()
        .filter(|host| !host.troubles.is_empty())
        .map(|host| format!("{} ({})", host.name, host.troubles.join(", ")))
        .collect();
    if troubled.is_empty() {
        return Check::ok(NAME, "no host lacks anything");
    }
    let found = format!("incomplete on {}", of_hosts(&troubled, all.len()));
    let mend = "see the agent's log there; no_pressure wants a kernel with PSI (psi=1)";
    Check::warning(NAME, found, mend)
}

/// The word of the scheduler that knows best: the leader's, else that of one that reaches etcd.
fn best(seen: &Seen) -> Option<&Status> {
    let mut answers: Vec<&Status> = seen.answers.iter().collect();
    answers.sort_by_key(|s| (!s.is_the_leaders(), s.etcd_reachable != Some(true)));
    answers.first().copied()
}

fn migrations(seen: &Seen) -> Check {
    const NAME: &str = "migrations";
    let (running, unknown) =
        best(seen).map_or((0, 0), |s| (s.migrations_running, s.migrations_unknown));
    if unknown == 0 {
        return Check::ok(NAME, format!("{running} running, none of unknown outcome"));
    }
    let mend = "bring their hosts back, or say where the guests are: evenkeel guest resolve";
    Check::failed(NAME, format!("{unknown} of unknown outcome"), mend)
}

fn doubles(seen: &Seen) -> Check {
    const NAME: &str = "doubles";
    let troubles = best(seen).map_or(&[][..], |status| &status.troubles[..]);
    let foreign = best(seen).map_or(&[][..], |status| &status.foreign_migrations[..]);
    let double: Vec<String> = troubles
        .iter()
        .filter(|said| !foreign.contains(said))
        .cloned()
        .collect();
    if double.is_empty() {
        return Check::ok(NAME, "no guest runs twice, no disk has two writers");
    }
    let found = format!("{}: {}", double.len(), double.join("; "));
    Check::failed(
        NAME,
        found,
        "find out which is the right one and stop the other, now",
    )
}

fn foreign(seen: &Seen) -> Check {
    const NAME: &str = "foreign";
    let foreign = best(seen).map_or(&[][..], |status| &status.foreign_migrations[..]);
    if foreign.is_empty() {
        return Check::ok(NAME, "no migration by anybody else");
    }
    let found = format!("{}: {}", foreign.len(), foreign.join("; "));
    let mend = "if it is another balancer, let only one of the two move guests";
    Check::warning(NAME, found, mend)
}

fn disk_locks(all: &[Host]) -> Check {
    const NAME: &str = "disk locks";
    let by = |what: &str| named(all, |host| host.disk_locks.as_deref() == Some(what));
    let (off, lockd, sanlock) = (by("off"), by("lockd"), by("sanlock"));
    let unknown = named(all, |host| {
        !matches!(
            host.disk_locks.as_deref(),
            Some("off" | "lockd" | "sanlock")
        )
    });
    let groups = [
        ("lockd", &lockd),
        ("sanlock", &sanlock),
        ("off", &off),
        ("unknown", &unknown),
    ];
    let there: Vec<String> = groups
        .iter()
        .filter(|(_, who)| !who.is_empty())
        .map(|(what, who)| format!("{what} on {}", of_hosts(who, all.len())))
        .collect();
    let found = there.join("; ");
    if !off.is_empty() {
        let mend = "set lock_manager = \"lockd\" in qemu.conf of every host; until then nothing but QEMU's own locks keeps \
                    a second copy of a guest from its disk (docs/disk-locks.md)";
        return Check::warning(NAME, found, mend);
    }
    if !unknown.is_empty() {
        let mend = "let the agent read qemu.conf, [libvirt] qemu_conf of agent.toml, and upgrade agents that do not say \
                    (docs/disk-locks.md)";
        return Check::warning(NAME, found, mend);
    }
    if !lockd.is_empty() && !sanlock.is_empty() {
        let mend = "use one of them on all hosts: they do not see each other's locks";
        return Check::warning(NAME, found, mend);
    }
    match (lockd.len(), sanlock.len()) {
        (0, 0) => Check::ok(NAME, "no host"),
        (0, _) => Check::ok(NAME, format!("sanlock on {}", hosts(all.len()))),
        _ => Check::ok(NAME, format!("lockd on {}", hosts(all.len()))),
    }
}

#[cfg(test)]
mod tests;
