//! Injecting a fault and taking it back.

use std::time::Duration;

use evenkeel_tests::processes::signal;
use evenkeel_tests::{Lab, until, wait_for};
use rustix::process::{Pid, Signal};

use crate::plan::{Case, Kind, Victim};

/// How long a stopped process stays stopped.
const STOPPED: Duration = Duration::from_secs(15);
/// How long a link stays cut or slow: longer than libvirt's shortened patience.
const CUT: Duration = Duration::from_secs(8);
/// How long a host stays without power.
const OFF: Duration = Duration::from_secs(6);
/// A QEMU that is to be hit is there within this time, or never.
const THERE: Duration = Duration::from_millis(1500);
/// What was killed has died, and starts again, within this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Who is who in a case.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) guest: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) leader: String,
}

/// Processes that a fault hits, each with the words of `lab fault` that start it again.
struct Hit {
    processes: Vec<Pid>,
    restart: Vec<Vec<String>>,
}

/// A fault that stands.
pub(crate) struct Injected {
    /// When, milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    hit: Hit,
    links: Vec<Vec<String>>,
    lasts: Duration,
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn fault(lab: &Lab, words: &[String]) {
    lab.fault(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

/// What a process fault would hit; found beforehand, so that the blow takes no time.
fn aim(lab: &Lab, case: &Case, scene: &Scene) -> Hit {
    let (source, target) = (scene.source.as_str(), scene.target.as_str());
    let one = |machine: &str, words: &[&str], restart: Vec<Vec<String>>| Hit {
        processes: lab.processes(machine, words),
        restart,
    };
    let qemu = |machine: &str| {
        let guest = format!("guest={},", scene.guest);
        lab.processes(machine, &["qemu-system-x86_64", &guest])
    };
    let member = |n: usize| lab.processes("router", &["etcd", &format!("--name=etcd-{n}\0")]);
    let start = |kind: &str, name: &str| vec![words(&[kind, name, "start"])];
    match case.victim {
        Victim::SourceAgent => one(source, &["evenkeel-agent"], start("agent", source)),
        Victim::TargetAgent => one(target, &["evenkeel-agent"], start("agent", target)),
        Victim::Leader => one(
            &scene.leader,
            &["evenkeel-scheduler"],
            start("scheduler", &scene.leader),
        ),
        Victim::SourceLibvirtd => one(source, &["libvirtd"], start("libvirtd", source)),
        Victim::TargetLibvirtd => one(target, &["libvirtd"], start("libvirtd", target)),
        Victim::SourceQemu => Hit {
            processes: qemu(source),
            restart: vec![],
        },
        Victim::TargetQemu => Hit {
            processes: qemu(target),
            restart: vec![],
        },
        Victim::EtcdMember => Hit {
            processes: member(case.member),
            restart: start("etcd", &case.member.to_string()),
        },
        Victim::Etcd => Hit {
            processes: (1..=3).flat_map(member).collect(),
            restart: (1..=3)
                .flat_map(|n| start("etcd", &n.to_string()))
                .collect(),
        },
        Victim::BetweenHosts
        | Victim::SourceToEtcd
        | Victim::LeaderToEtcd
        | Victim::MigrationNetwork
        | Victim::ManagementNetwork
        | Victim::Source
        | Victim::Target => Hit {
            processes: vec![],
            restart: vec![],
        },
    }
}

/// The words that cut or slow, and those that take it back.
fn link(case: &Case, scene: &Scene) -> (Vec<String>, Vec<String>) {
    let (source, target) = (scene.source.as_str(), scene.target.as_str());
    let leader = scene.leader.as_str();
    let pair = |mine: &[&str], down: &str, up: &str| {
        (
            words(&[mine, &[down]].concat()),
            words(&[mine, &[up]].concat()),
        )
    };
    match (case.victim, case.kind) {
        (Victim::BetweenHosts, _) => pair(&["part", source, target], "down", "up"),
        (Victim::SourceToEtcd, _) => pair(&["link", source, "etcd"], "down", "up"),
        (Victim::LeaderToEtcd, _) => pair(&["link", leader, "etcd"], "down", "up"),
        (Victim::MigrationNetwork, Kind::Slow) => {
            pair(&["link", source, "migration"], "400kbit", "full")
        }
        (Victim::MigrationNetwork, _) => pair(&["link", source, "migration"], "down", "up"),
        (Victim::Source, _) => pair(&["host", source], "off", "on"),
        (Victim::Target, _) => pair(&["host", target], "off", "on"),
        _ => pair(&["link", source, "mgmt"], "400kbit", "full"),
    }
}

/// Injects the fault of a case, `delay` after now.
pub(crate) fn inject(lab: &Lab, case: &Case, scene: &Scene) -> Injected {
    let delay = Duration::from_millis(case.delay_ms);
    match case.kind {
        Kind::Kill | Kind::Stop => {
            let mut hit = aim(lab, case, scene);
            std::thread::sleep(delay);
            if case.victim == Victim::TargetQemu {
                hit = arriving(lab, case, scene);
            }
            let blow = if case.kind == Kind::Kill {
                Signal::KILL
            } else {
                Signal::STOP
            };
            let at_ms = evenkeel_daemon::unix_ms();
            signal(&hit.processes, blow);
            Injected {
                at_ms,
                hit,
                links: vec![],
                lasts: if case.kind == Kind::Stop {
                    STOPPED
                } else {
                    Duration::from_secs(1)
                },
            }
        }
        Kind::Cut | Kind::Slow | Kind::PowerOff => {
            let (down, up) = link(case, scene);
            std::thread::sleep(delay);
            let at_ms = evenkeel_daemon::unix_ms();
            fault(lab, &down);
            Injected {
                at_ms,
                hit: Hit {
                    processes: vec![],
                    restart: vec![],
                },
                links: vec![up],
                lasts: if case.kind == Kind::PowerOff {
                    OFF
                } else {
                    CUT
                },
            }
        }
    }
}

/// The target's half, which comes a moment after the order; none when it never does.
fn arriving(lab: &Lab, case: &Case, scene: &Scene) -> Hit {
    let until = std::time::Instant::now() + THERE;
    loop {
        let hit = aim(lab, case, scene);
        if !hit.processes.is_empty() || std::time::Instant::now() >= until {
            return hit;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Injected {
    /// Whether there was anything to hit.
    pub(crate) fn has_hit(&self) -> bool {
        !self.hit.processes.is_empty() || !self.links.is_empty()
    }

    /// Waits as long as the fault lasts, then takes it back: lets go on, starts again, mends.
    pub(crate) fn heal(self, lab: &Lab, kind: Kind) {
        std::thread::sleep(self.lasts);
        match kind {
            Kind::Stop => signal(&self.hit.processes, Signal::CONT),
            Kind::Kill => {
                let gone = |pid: &Pid| !std::path::Path::new(&format!("/proc/{pid}")).exists();
                until("what was killed to die", AGAIN, || {
                    self.hit.processes.iter().all(gone)
                });
                for restart in &self.hit.restart {
                    start_again(lab, restart);
                }
            }
            Kind::Cut | Kind::Slow | Kind::PowerOff => {
                for up in &self.links {
                    fault(lab, up);
                }
            }
        }
    }
}

/// A daemon whose predecessor's socket is still there may take a second try.
fn start_again(lab: &Lab, restart: &[String]) {
    let words: Vec<&str> = ["fault"]
        .into_iter()
        .chain(restart.iter().map(String::as_str))
        .collect();
    wait_for(
        &format!("{} to start again", restart.join(" ")),
        AGAIN,
        || lab.attempt(&words).status.success().then_some(()),
    );
}
