//! Injecting a fault and taking it back.

use std::time::{Duration, Instant};

use evenkeel_tests::books::{Books, Entry};
use evenkeel_tests::lab::Primed;
use evenkeel_tests::processes::signal;
use evenkeel_tests::{Lab, until, wait_for};
use rustix::process::{Pid, Signal};

use crate::plan::{Case, Kind, Moment, Victim};

/// How long a stopped process stays stopped.
const STOPPED: Duration = Duration::from_secs(15);
/// How long what was killed stays dead.
const DEAD: Duration = Duration::from_secs(1);
/// How long a link stays cut or slow: longer than libvirt's shortened patience.
const CUT: Duration = Duration::from_secs(8);
/// How long a host stays without power.
const OFF: Duration = Duration::from_secs(6);
/// A moment comes within this time, or never.
const COMES: Duration = Duration::from_secs(10);
/// Between two looks at libvirt's books.
const GLANCE: Duration = Duration::from_micros(500);
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
    /// What libvirt's books said of the guest just before, at source and target.
    pub(crate) books: (Entry, Entry),
    hit: Hit,
    /// The words that take it back, where that is no signal.
    mend: Option<Vec<String>>,
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
        | Victim::LeaderNetwork
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
        (Victim::ManagementNetwork, Kind::Cut) => pair(&["link", source, "mgmt"], "down", "up"),
        (Victim::LeaderNetwork, _) => pair(&["link", leader, "mgmt"], "400kbit", "full"),
        (Victim::Source, _) => pair(&["host", source], "off", "on"),
        (Victim::Target, _) => pair(&["host", target], "off", "on"),
        _ => pair(&["link", source, "mgmt"], "400kbit", "full"),
    }
}

/// A fault that can be injected within milliseconds.
pub(crate) struct Ready<'a> {
    lab: &'a Lab,
    case: &'a Case,
    scene: &'a Scene,
    hit: Hit,
    /// What cuts, slows or switches off, and the words that take it back.
    primed: Option<(Primed, Vec<String>)>,
    /// libvirt's books about the guest at source and target.
    books: (Books, Books),
}

/// Makes the fault of a case ready.
pub(crate) fn make_ready<'a>(lab: &'a Lab, case: &'a Case, scene: &'a Scene) -> Ready<'a> {
    let by_signal = matches!(case.kind, Kind::Kill | Kind::Stop);
    let primed = (!by_signal).then(|| {
        let (down, up) = link(case, scene);
        let down: Vec<&str> = down.iter().map(String::as_str).collect();
        (lab.prime(&down), up)
    });
    Ready {
        lab,
        case,
        scene,
        hit: aim(lab, case, scene),
        primed,
        books: (
            lab.books(&scene.source, &scene.guest),
            lab.books(&scene.target, &scene.guest),
        ),
    }
}

impl Ready<'_> {
    /// Waits for the moment and the delay of the case, then strikes.
    pub(crate) fn strike(mut self) -> Injected {
        self.await_moment();
        std::thread::sleep(Duration::from_millis(self.case.delay_ms));
        if self.case.victim == Victim::TargetQemu {
            self.hit = arriving(self.lab, self.case, self.scene);
        }
        let at_ms = evenkeel_daemon::unix_ms();
        let books = (self.books.0.read(), self.books.1.read());
        let blow = match self.case.kind {
            Kind::Kill => Some((Signal::KILL, DEAD)),
            Kind::Stop => Some((Signal::STOP, STOPPED)),
            Kind::Cut | Kind::Slow | Kind::PowerOff => None,
        };
        let mut lasts = if self.case.kind == Kind::PowerOff {
            OFF
        } else {
            CUT
        };
        if let Some((blow, long)) = blow {
            signal(&self.hit.processes, blow);
            lasts = long;
        }
        let mend = self.primed.map(|(primed, mend)| {
            primed.go();
            mend
        });
        Injected {
            at_ms,
            books,
            hit: self.hit,
            mend,
            lasts,
        }
    }

    /// Until the moment has come, or the migration is over without it.
    fn await_moment(&self) {
        let (limit, mut begun) = (Instant::now() + COMES, false);
        while Instant::now() < limit {
            let (source, target) = (self.books.0.read(), self.books.1.read());
            let is_over = begun && source.phase.is_empty();
            begun |= !source.phase.is_empty();
            let has_come = match self.case.moment {
                Moment::Asked | Moment::Copied => true,
                Moment::Called => begun,
                Moment::Prepare => !target.phase.is_empty(),
                Moment::Stopped => begun && source.state == "paused",
                Moment::Finish => target.phase == "finish3" || source.phase == "confirm3",
                Moment::Confirm => source.phase == "confirm3",
            };
            if has_come || is_over {
                return;
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// The target's half, which comes a moment after the order; none when it never does.
fn arriving(lab: &Lab, case: &Case, scene: &Scene) -> Hit {
    let until = Instant::now() + THERE;
    loop {
        let hit = aim(lab, case, scene);
        if !hit.processes.is_empty() || Instant::now() >= until {
            return hit;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Injected {
    /// Whether there was anything to hit.
    pub(crate) fn has_hit(&self) -> bool {
        !self.hit.processes.is_empty() || self.mend.is_some()
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
                if let Some(mend) = &self.mend {
                    fault(lab, mend);
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
