//! A fleet at rest: it writes little, sees a jump at once, moves nothing, and its agents cost little.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_proto::keys::Key;
use evenkeel_tests::etcd::keys;
use evenkeel_tests::network::Caller;
use evenkeel_tests::turn::Share;
use evenkeel_tests::{Lab, LabOptions, tell, until};

use crate::{QUICK_POLICY, SOON};

/// Guests of the fleet: h1 has eight, the others what it takes to be as busy as h1.
const BUSY: [(&str, &str); 6] = [
    ("h1", "a1"),
    ("h1", "a2"),
    ("h2", "b1"),
    ("h2", "b2"),
    ("h3", "c1"),
    ("h3", "c2"),
];
const IDLE: [&str; 6] = ["i1", "i2", "i3", "i4", "i5", "i6"];
/// What a busy guest uses, percent of a core: two fit a host well.
const DUTY: &str = "c12";
/// Over this time an idle fleet's writes are counted.
const QUIET: Duration = Duration::from_secs(60);
/// So many writes a second, by all hosts and schedulers.
const MOST_WRITES: f64 = 1.0;
/// A guest that jumps from idle to busy is in etcd within this time.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// For so long a balanced fleet is watched.
const BALANCED: Duration = Duration::from_secs(120);
/// CPU time of an agent, percent of a core, and its resident memory, MiB: the goals.
const CPU_GOAL_PERCENT: f64 = 1.0;
const MEMORY_GOAL_MIB: u64 = 30;
/// What of the program's own file counts as resident depends on the page cache, too.
const MEMORY_LUCK_MIB: u64 = 2;

#[test]
fn a_fleet_at_rest_is_quiet_quick_cheap_and_left_alone() {
    let lab = Lab::up(&LabOptions {
        hosts: 3,
        cpu_percent: 55,
        share: Share::Whole,
        shipped_agents: true,
        ..LabOptions::default()
    });
    for (host, guest) in BUSY {
        lab.add_guest(host, guest, &[]);
    }
    for guest in IDLE {
        lab.add_guest("h1", guest, &[]);
    }
    lab.wait_for_guest("i6");
    // Boots are load; a report covers five seconds.
    std::thread::sleep(Duration::from_secs(10));
    an_idle_fleet_writes_less_than_once_a_second(&lab);
    a_jump_is_in_etcd_within_seconds(&lab);
    a_balanced_fleet_rests(&lab);
    what_libvirtd_does_without_an_agent(&lab);
}

/// The quietest of up to three minutes counts: where others load the machine, idle hosts do feel pressure.
fn an_idle_fleet_writes_less_than_once_a_second(lab: &Lab) {
    let mut rates = vec![];
    while rates.len() < 3 && rates.iter().all(|rate| *rate >= MOST_WRITES) {
        rates.push(writes_per_second(lab));
    }
    assert!(rates.iter().any(|rate| *rate < MOST_WRITES), "{rates:?}");
}

fn writes_per_second(lab: &Lab) -> f64 {
    let (before, start) = (lab.revision(), Instant::now());
    std::thread::sleep(QUIET);
    let writes = lab.history(before + 1);
    let mut by_kind: BTreeMap<String, u32> = BTreeMap::new();
    for write in &writes {
        let kind = match keys().parse(&write.key) {
            Some(Key::Report(host)) => format!("report of {host}"),
            Some(Key::Inventory(host)) => format!("inventory of {host}"),
            _ => write.key.clone(),
        };
        *by_kind.entry(kind).or_default() += 1;
    }
    let count = f64::from(u32::try_from(writes.len()).unwrap_or(u32::MAX));
    let rate = count / start.elapsed().as_secs_f64();
    tell!("idle lab, 3 hosts, 12 guests: {rate:.2} puts/s over 60 s {by_kind:?}");
    let reports = by_kind.keys().filter(|k| k.starts_with("report")).count();
    assert_eq!(reports, 3, "every host is heard of");
    rate
}

/// Three times; the middle one counts, so that one hiccup of a shared machine does not.
fn a_jump_is_in_etcd_within_seconds(lab: &Lab) {
    let mut took = [("h2", "b1"), ("h3", "c1"), ("h2", "b2")].map(|(h, g)| jump(lab, h, g));
    tell!("a guest that jumps from idle to busy is in etcd after {took:.1?}");
    took.sort();
    assert!(took[1] < SEEN_WITHIN, "{took:?}");
}

/// Until etcd's report of the host shows the guest busy.
fn jump(lab: &Lab, host: &str, guest: &str) -> Duration {
    let uuid = lab.uuid(guest);
    let used = || {
        let report = lab.report(host).expect("a report");
        let guest = report.guests.into_iter().find(|guest| guest.uuid == uuid);
        guest.map_or(0.0, |guest| guest.cpu_used_cores + guest.cpu_delay_cores)
    };
    let idle = used();
    lab.run(&["guest", "set", guest, "c80"]);
    let took = until("the jump to be in etcd", SOON, || used() > idle + 0.1);
    lab.run(&["guest", "set", guest, "c0"]);
    took
}

fn a_balanced_fleet_rests(lab: &Lab) {
    for (_, guest) in BUSY {
        lab.run(&["guest", "set", guest, DUTY]);
    }
    // What the jump left behind is out of every window.
    std::thread::sleep(Duration::from_secs(15));
    lab.apply_policy(QUICK_POLICY, 0).unwrap();
    let leader = lab.some_leader();
    lab.set_mode(Caller::Operator, &leader, "automatic")
        .unwrap();
    let before = Cost::of(lab, "h1");
    let start = Instant::now();
    let mut planned = 0;
    while start.elapsed() < BALANCED {
        std::thread::sleep(Duration::from_secs(5));
        let status = lab.status_of(&leader);
        assert_eq!(status.mode, "automatic");
        planned += status.plan_moves;
    }
    let spent = Cost::of(lab, "h1").since(&before);
    tell!("h1, 8 guests looked at once a second: {spent}");
    assert!(spent.agent > Duration::ZERO, "nothing was measured");
    assert!(spent.percent(spent.agent) <= CPU_GOAL_PERCENT, "{spent}");
    let most = MEMORY_GOAL_MIB + MEMORY_LUCK_MIB;
    assert!((1..=most).contains(&spent.agent_rss_mib), "{spent}");
    assert_eq!(lab.orders_ever(), [], "a balanced fleet was moved");
    assert_eq!(planned, 0, "moves were planned");
    until("nothing to hold it back", SOON, || {
        lab.status_of(&leader).holds.is_empty()
    });
    tell!(
        "a balanced fleet, mode automatic, {} s: no move planned, none made",
        BALANCED.as_secs()
    );
}

/// The same guests, the agent gone: what is left is not the agent's doing.
fn what_libvirtd_does_without_an_agent(lab: &Lab) {
    let before = Cost::of(lab, "h1");
    lab.fault(&["agent", "h1", "kill"]);
    std::thread::sleep(Duration::from_secs(20));
    let libvirtd = Cost::of(lab, "h1").since(&before).libvirtd_percent();
    tell!("h1 without its agent: libvirtd {libvirtd:.2} % of a core");
}

/// CPU time and memory of a host's agent and libvirtd, as the kernel counts them.
struct Cost {
    at: Instant,
    agent: Duration,
    libvirtd: Duration,
    agent_rss_mib: u64,
}

impl Cost {
    fn of(lab: &Lab, host: &str) -> Self {
        let described = lab.json(&["json"]);
        let hosts = described["hosts"].as_array().expect("hosts");
        let host = hosts.iter().find(|h| h["name"] == host).expect("the host");
        let pid = |field: &str| host[field].as_u64();
        Self {
            at: Instant::now(),
            agent: pid("pid").map_or(Duration::ZERO, cpu_time),
            libvirtd: pid("libvirtd_pid").map_or(Duration::ZERO, cpu_time),
            agent_rss_mib: pid("pid").map_or(0, resident_mib),
        }
    }

    fn since(&self, before: &Self) -> Spent {
        Spent {
            elapsed: self.at - before.at,
            agent: self.agent.saturating_sub(before.agent),
            libvirtd: self.libvirtd.saturating_sub(before.libvirtd),
            agent_rss_mib: self.agent_rss_mib,
        }
    }
}

struct Spent {
    elapsed: Duration,
    agent: Duration,
    libvirtd: Duration,
    agent_rss_mib: u64,
}

impl Spent {
    fn percent(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    fn libvirtd_percent(&self) -> f64 {
        self.percent(self.libvirtd)
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let a_minute = self.agent.as_secs_f64() * 60.0 / self.elapsed.as_secs_f64();
        write!(
            f,
            "the agent took {a_minute:.2} s of CPU a minute ({:.2} % of a core; goal {CPU_GOAL_PERCENT} %) and holds {} MiB \
             (goal {MEMORY_GOAL_MIB}); libvirtd {:.2} % of a core",
            self.percent(self.agent),
            self.agent_rss_mib,
            self.libvirtd_percent()
        )
    }
}

/// User and system time of a process.
fn cpu_time(pid: u64) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis(ticks * 1000 / per_second)
}

fn resident_mib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
