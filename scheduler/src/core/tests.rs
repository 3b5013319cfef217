//! What the core decides over time, driven by hand.

use evenkeel_planner::{Mode, Options, Plan, Step, StepReason, plan};
use evenkeel_proto::v1;
use evenkeel_types::{FailureReason, MigrationState, Outcome, Whereabouts};

use super::choose::{Situation, choose};
use super::*;
use crate::observe::samples::order_entry;
use crate::observe::{GuestReading, HostFacts, JournalEntry, Past, Remembered};

/// A fleet under a clock of its own.
pub(super) struct Bench {
    pub(super) fleet: Fleet,
    pub(super) core: Core,
    pub(super) active: ActivePolicy,
    pub(super) now_ms: i64,
}

pub(super) fn id(n: u32) -> GuestId {
    format!("00000000-0000-0000-0000-{n:012}").parse().unwrap()
}

pub(super) fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

pub(crate) fn facts(name: &str) -> HostFacts {
    HostFacts {
        name: host(name),
        agent_address: format!("{name}:7441"),
        agent_version: "0.1.0".into(),
        cpu_cores: 4.0,
        memory_mib: 16_384,
        cpu_class: "x".into(),
        labels: BTreeMap::new(),
        networks: vec!["br0".into()],
        storage: vec![],
        migration_bandwidth_mib_s: Some(1000.0),
        disk_locks: Default::default(),
    }
}

pub(super) fn reading(n: u32, used: f64, delay: f64) -> GuestReading {
    GuestReading {
        id: id(n),
        name: format!("g{n}"),
        state: RunState::Running,
        vcpus: 1,
        cpu_used_cores: used,
        cpu_delay_cores: delay,
        cpu_limit_cores: 1.0,
        memory_mib: 1024,
        memory_rss_mib: 900,
        memory_used_mib: None,
        dirty_rate_mib_s: None,
        dirty_curve: vec![],
        hindrances: vec![],
        networks: vec!["br0".into()],
        storage: vec![],
        written_disks: vec![],
        migrating_out: false,
        local_disk_mib: 0,
        during_migration: false,
        group: None,
        labels: BTreeMap::new(),
        priority: 0,
    }
}

pub(super) fn report(guests: Vec<GuestReading>) -> HostReport {
    HostReport {
        revision: 0,
        sequence: 1,
        measured_at_ms: 0,
        libvirt_up: true,
        guests_cpu_cores: guests.iter().map(|g| g.cpu_used_cores).sum(),
        host_cpu_cores: guests.iter().map(|g| g.cpu_used_cores).sum(),
        pressure: v1::Pressure::default(),
        guests,
        migrations_running: 0,
        troubles: vec![],
    }
}

impl Bench {
    /// h1 with eight busy guests on four cores, h2 and h3 empty; mode automatic.
    pub(super) fn hot() -> Self {
        let text =
            "schema = 1\nmode = \"automatic\"\n[control]\nhold = \"30s\"\nwindow = \"20s\"\n";
        let record = v1::PolicyRecord {
            text: text.into(),
            revision: 1,
            ..Default::default()
        };
        let active = ActivePolicy::default().follow(Some(&(record, 1)));
        assert_eq!(active.fault(), None);
        let mut fleet = Fleet {
            complete: true,
            ..Fleet::default()
        };
        for name in ["h1", "h2", "h3"] {
            fleet.hosts.insert(host(name), facts(name));
            fleet.reports.insert(host(name), report(vec![]));
        }
        let busy = (1..=8).map(|n| reading(n, 0.5, 0.6)).collect();
        fleet.reports.insert(host("h1"), report(busy));
        let core = Core::new(active.policy());
        Self {
            fleet,
            core,
            active,
            now_ms: 0,
        }
    }

    /// Time passes; every host reports.
    pub(super) fn pass(&mut self, seconds: i64) -> Assessment {
        for _ in 0..seconds {
            self.now_ms += 1000;
            for (host, report) in &mut self.fleet.reports {
                report.sequence += 1;
                self.core.note(host, report, self.now_ms);
            }
            self.core.assess(&self.fleet, &self.active, self.now_ms);
        }
        self.core.assess(&self.fleet, &self.active, self.now_ms)
    }

    fn choose(&mut self) -> (Plan, Choice) {
        let assessment = self.core.assess(&self.fleet, &self.active, self.now_ms);
        let policy = self.active.policy();
        let (plan, _) = plan(&assessment.snapshot, policy, &Options::default());
        let choice = self.choose_from(&plan);
        (plan, choice)
    }

    fn choose_from(&mut self, plan: &Plan) -> Choice {
        let assessment = self.core.assess(&self.fleet, &self.active, self.now_ms);
        let situation = Situation {
            purpose: evenkeel_planner::Purpose::Balance,
            fleet: &self.fleet,
            assessment: &assessment,
            policy: self.active.policy(),
        };
        choose(situation, plan)
    }

    /// Another policy: the bench's own and these lines.
    pub(super) fn rule(&mut self, lines: &str) {
        let revision = self.active.revision() + 1;
        let record = v1::PolicyRecord {
            text: format!("{}{lines}", self.active.text()),
            revision,
            ..Default::default()
        };
        let written = i64::try_from(revision).unwrap();
        self.active = self.active.follow(Some(&(record, written)));
        assert_eq!(self.active.fault(), None);
    }

    pub(super) fn remember(&mut self, n: u32, state: MigrationState, ended_ms: i64) {
        let past = Past {
            longest_pause: Duration::ZERO,
            post_copy: false,
            source: "h1".into(),
            target: "h2".into(),
            ended_ms,
            trigger: "balance".into(),
            state: Some(state),
        };
        let remembered = Remembered {
            cooldown_until_ms: 0,
            moves: vec![past],
            message: v1::GuestRecord::default(),
            mod_revision: 1,
        };
        self.fleet.remembered.insert(id(n), remembered);
    }
}

#[test]
fn a_hot_spot_moves_nothing_until_it_has_lasted_for_the_hold_time() {
    let mut bench = Bench::hot();
    bench.pass(25);
    let (plan, choice) = bench.choose();
    assert!(!plan.steps.is_empty());
    assert!(choice.start.is_empty(), "{:?}", choice.start);
    bench.pass(10);
    let (_, choice) = bench.choose();
    assert!(!choice.start.is_empty(), "{:?}", choice.postponed);
    assert!(choice.start.iter().all(|step| step.from == "h1"));
}

#[test]
fn a_wanted_hosts_hold_time_ends_with_its_plan_and_with_its_reports() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let (plan, _) = bench.choose();
    bench.core.want(&plan);
    let calm = (1..=8).map(|n| reading(n, 0.1, 0.0)).collect();
    bench.fleet.reports.insert(host("h1"), report(calm));
    let wanted = bench.pass(60).hot_since;
    assert!(wanted.contains_key("h1"), "the plan wants it relieved");
    let report = bench.fleet.reports.remove(&host("h1")).unwrap();
    assert!(bench.pass(1).hot_since.is_empty(), "it is silent");
    bench.fleet.reports.insert(host("h1"), report);
    assert!(bench.pass(1).hot_since.contains_key("h1"));
    bench.core.want_nothing();
    assert!(bench.pass(1).hot_since.is_empty(), "no plan stands");
}

#[test]
fn a_spot_that_cools_down_starts_its_hold_time_anew() {
    let mut bench = Bench::hot();
    bench.pass(40);
    assert!(bench.core.hot_since.contains_key(&host("h1")));
    let calm = (1..=8).map(|n| reading(n, 0.1, 0.0)).collect();
    bench.fleet.reports.insert(host("h1"), report(calm));
    let assessment = bench.pass(60);
    assert!(assessment.hot_since.is_empty(), "{:?}", assessment.loss);
}

#[test]
fn only_the_automatic_mode_moves_by_itself() {
    let mut bench = Bench::hot();
    bench.pass(40);
    assert_eq!(bench.active.policy().mode, Mode::Automatic);
    for text in ["schema = 1\n", "schema = 1\nmode = \"off\"\n"] {
        let record = v1::PolicyRecord {
            text: text.into(),
            revision: 2,
            ..Default::default()
        };
        bench.active = bench
            .active
            .follow(Some(&(record, i64::try_from(text.len()).unwrap())));
        let (_, choice) = bench.choose();
        assert!(choice.start.is_empty());
        assert!(matches!(
            choice.postponed[0].1,
            Postponed::Held(Hold::Mode(_))
        ));
    }
}

#[test]
fn a_pause_stops_steps_until_it_runs_out() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let until_ms = bench.now_ms + 5_000;
    bench.fleet.pause = Some(v1::Pause {
        by: "operator/x".into(),
        until_ms,
        ..Default::default()
    });
    assert!(bench.choose().1.start.is_empty());
    bench.pass(6);
    assert!(!bench.choose().1.start.is_empty());
}

#[test]
fn limits_count_what_is_running_already() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let allowed = bench.choose().1.start.len();
    let limit = usize::try_from(bench.active.policy().limits.migrations_per_host).unwrap();
    assert!(allowed >= 1 && allowed <= limit, "{allowed} of {limit}");
}

#[test]
fn after_a_move_a_host_settles_for_one_window() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let ended_ms = bench.now_ms;
    bench.remember(1, MigrationState::Ended(Outcome::Done), ended_ms);
    let (_, choice) = bench.choose();
    assert!(choice.start.is_empty());
    let settling = |why: &Postponed| matches!(why, Postponed::Settling { .. });
    assert!(
        choice.postponed.iter().any(|(_, why)| settling(why)),
        "{:?}",
        choice.postponed
    );
    bench.pass(21);
    assert!(!bench.choose().1.start.is_empty());
}

#[test]
fn repeated_failures_hold_automatic_moves_for_a_while() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let reason = FailureReason::Libvirt;
    let failed = MigrationState::Ended(Outcome::Failed {
        reason,
        guest: Whereabouts::Source,
    });
    for n in 1..=3 {
        bench.remember(n, failed, bench.now_ms);
    }
    let (_, choice) = bench.choose();
    assert!(choice.start.is_empty());
    assert_eq!(choice.postponed[0].1.as_str(), "failures");
    bench.pass(601);
    assert!(!bench.choose().1.start.is_empty());
}

#[test]
fn many_silent_hosts_hold_everything() {
    let mut bench = Bench::hot();
    bench.pass(40);
    bench.fleet.reports.remove(&host("h2"));
    bench.fleet.reports.remove(&host("h3"));
    let (_, choice) = bench.choose();
    assert!(choice.start.is_empty());
}

#[test]
fn a_silent_or_stale_host_is_no_target_and_its_guests_stay() {
    let mut bench = Bench::hot();
    bench.pass(40);
    bench.fleet.reports.remove(&host("h2"));
    let (plan, _) = bench.choose();
    assert!(
        plan.steps.iter().all(|step| step.to == "h3"),
        "{:?}",
        plan.steps
    );
    // h1's report stands but is old: nothing is known well enough to be moved.
    let age = i64::try_from(bench.active.policy().control.max_report_age.as_millis()).unwrap();
    bench.now_ms += age + 1_000;
    let (plan, _) = bench.choose();
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
}

#[test]
fn a_host_without_libvirt_gives_and_takes_nothing() {
    let mut bench = Bench::hot();
    bench.pass(40);
    bench.fleet.reports.get_mut(&host("h1")).unwrap().libvirt_up = false;
    assert!(bench.choose().0.steps.is_empty());
}

#[test]
fn a_uuid_on_two_hosts_is_never_moved() {
    let mut bench = Bench::hot();
    bench
        .fleet
        .reports
        .insert(host("h2"), report(vec![reading(1, 0.1, 0.0)]));
    let assessment = bench.pass(40);
    let twice: Vec<_> = assessment
        .snapshot
        .guests
        .iter()
        .filter(|g| g.uuid.as_deref() == Some(id(1).as_str()))
        .collect();
    assert_eq!(twice.len(), 2);
    assert!(
        twice
            .iter()
            .all(|g| g.unmovable_reason.as_deref() == Some("duplicate_uuid"))
    );
    assert_eq!(twice[0].name, "h1/g1");
    let (plan, _) = bench.choose();
    assert!(plan.steps.iter().all(|step| !step.guest.ends_with("/g1")));
}

#[test]
fn the_incoming_half_of_a_migration_is_no_guest() {
    let mut bench = Bench::hot();
    let half = GuestReading {
        state: RunState::Incoming,
        ..reading(1, 0.0, 0.0)
    };
    bench.fleet.reports.insert(host("h2"), report(vec![half]));
    let assessment = bench.pass(5);
    assert_eq!(assessment.snapshot.guests.len(), 8);
    assert!(assessment.snapshot.guests.iter().all(|g| g.movable));
}

#[test]
fn the_same_inputs_give_the_same_decisions() {
    let run = || {
        let mut bench = Bench::hot();
        bench.pass(40);
        bench.choose().0.to_json()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_rule_about_a_name_holds_when_the_name_stands_on_two_hosts() {
    let mut bench = Bench::hot();
    bench.rule("[opt_out.keep]\nguests = [\"g*\"]\n");
    let namesake = |n: u32| GuestReading {
        id: id(n + 100),
        state: RunState::ShutOff,
        ..reading(n, 0.0, 0.0)
    };
    bench
        .fleet
        .reports
        .insert(host("h2"), report((1..=8).map(namesake).collect()));
    let assessment = bench.pass(40);
    assert!(assessment.snapshot.guest("h1/g1").is_some());
    assert!(bench.choose().0.steps.is_empty());
}

#[test]
fn after_a_gap_nothing_moves_on_what_was_before_it() {
    let mut bench = Bench::hot();
    bench.pass(40);
    bench.now_ms += 600_000;
    let calm = (1..=8).map(|n| reading(n, 0.1, 0.0)).collect();
    bench.fleet.reports.insert(host("h1"), report(calm));
    let assessment = bench.pass(35);
    assert!(assessment.loss.total < HOT_LOSS, "{:?}", assessment.loss);
    assert!(bench.choose().1.start.is_empty());
}

/// The cores and their deviation that the snapshot says a guest needs.
fn demand_of(assessment: &Assessment, name: &str) -> (f64, f64) {
    let guest = assessment.snapshot.guest(name).unwrap();
    (guest.cpu_demand_cores, guest.cpu_demand_stddev_cores)
}

#[test]
fn a_guest_that_was_off_does_not_go_on_with_what_it_used_last() {
    let mut bench = Bench::hot();
    bench.pass(40);
    let mut off = reading(1, 0.0, 0.0);
    off.state = RunState::ShutOff;
    bench.fleet.reports.insert(host("h1"), report(vec![off]));
    bench.pass(20);
    let calm = vec![reading(1, 0.05, 0.0)];
    bench.fleet.reports.insert(host("h1"), report(calm));
    bench.pass(1);
    let covered = bench.core.estimator.demand(id(1).as_str(), bench.now_ms);
    assert!(covered.unwrap().covered < Duration::from_secs(1));
    let (mean, _) = demand_of(&bench.pass(25), "g1");
    assert!((mean - 0.05).abs() < 0.01, "{mean}");
}

#[test]
fn the_snapshot_says_how_restless_a_guest_was_over_the_last_windows() {
    let mut bench = Bench::hot();
    let calm = demand_of(&bench.pass(240), "g1");
    assert!(calm.1 < 0.01, "{calm:?}");
    for minute in 0..12 {
        let used = if minute % 2 == 0 { 0.2 } else { 0.6 };
        let guests = vec![reading(1, used, 0.0)];
        bench.fleet.reports.insert(host("h1"), report(guests));
        bench.pass(20);
    }
    let (mean, stddev) = demand_of(&bench.pass(1), "g1");
    assert!((0.3..0.6).contains(&mean), "{mean}");
    assert!(stddev > 0.15, "{stddev}");
}

#[test]
fn the_same_report_listed_again_does_not_become_young() {
    let mut bench = Bench::hot();
    bench.pass(5);
    let report = bench.fleet.reports[&host("h1")].clone();
    bench.core.note(&host("h1"), &report, bench.now_ms + 90_000);
    let age = bench.core.report_age(&host("h1"), bench.now_ms + 90_000);
    assert_eq!(age, Some(Duration::from_secs(90)));
}

#[test]
fn a_fleet_of_stale_reports_holds_and_says_so() {
    let mut bench = Bench::hot();
    bench.pass(40);
    bench.now_ms += 600_000;
    let assessment = bench.core.assess(&bench.fleet, &bench.active, bench.now_ms);
    let names: Vec<&str> = assessment.holds.iter().map(Hold::as_str).collect();
    assert_eq!(names, ["hosts_missing"]);
}

#[test]
fn memory_above_its_limit_is_relieved_although_nothing_waits() {
    let mut bench = Bench::hot();
    let idle = |n| GuestReading {
        memory_mib: 4096,
        memory_used_mib: Some(256),
        ..reading(n, 0.05, 0.0)
    };
    bench
        .fleet
        .reports
        .insert(host("h1"), report((1..=5).map(idle).collect()));
    bench.pass(40);
    let (plan, choice) = bench.choose();
    assert!(!choice.start.is_empty(), "{plan:?} {:?}", choice.postponed);
}

/// How many of these steps move g1 or g2.
fn of_the_pair(steps: &[Step]) -> usize {
    let pair = |step: &&Step| step.guest == "g1" || step.guest == "g2";
    steps.iter().filter(pair).count()
}

#[test]
fn a_local_disk_holds_a_guest_only_where_the_policy_leaves_it_there() {
    let mut bench = Bench::hot();
    let with_disk = |hindrances: &[&str], local_disk_mib| GuestReading {
        hindrances: hindrances.iter().map(|&name| name.to_owned()).collect(),
        local_disk_mib,
        ..reading(1, 0.5, 0.5)
    };
    let guests = [
        with_disk(&["local_disk"], 100),
        GuestReading {
            id: reading(2, 0.0, 0.0).id,
            ..with_disk(&["local_disk"], 0)
        },
        GuestReading {
            id: reading(3, 0.0, 0.0).id,
            ..with_disk(&["local_disk", "snapshots"], 100)
        },
    ];
    bench
        .fleet
        .reports
        .insert(host("h1"), report(guests.into()));
    let why = |bench: &mut Bench| -> Vec<Option<String>> {
        let guests = bench.pass(1).snapshot.guests;
        guests
            .into_iter()
            .filter(|g| g.host == "h1")
            .map(|g| g.unmovable_reason)
            .collect()
    };
    let disk = || Some("local_disk".to_owned());
    assert_eq!(why(&mut bench), [disk(), disk(), disk()]);
    bench.rule("[migration]\nlocal_disks = \"copy\"\n");
    let snapshots = Some("snapshots".to_owned());
    // The size of the second's is not known: it has no price.
    assert_eq!(why(&mut bench), [None, disk(), snapshots]);
}

#[test]
fn a_must_affinity_group_starts_as_one_although_a_member_alone_does_not_pay() {
    let mut bench = Bench::hot();
    bench.rule("[affinity.pair]\nguests = [\"g1\", \"g2\"]\nstrength = \"must\"\n");
    // Nobody gains by moving g2 itself, as it does next to nothing, and the others cannot move.
    let busy = (3..=8).map(|n| GuestReading {
        hindrances: vec!["host_device".into()],
        ..reading(n, 0.6, 0.0)
    });
    let group = [reading(1, 0.5, 1.0), reading(2, 0.01, 0.0)];
    let guests = group.into_iter().chain(busy).collect();
    bench.fleet.reports.insert(host("h1"), report(guests));
    bench.pass(40);
    let (plan, choice) = bench.choose();
    assert_eq!(of_the_pair(&plan.steps), 2, "{}", plan.to_json());
    assert_eq!(of_the_pair(&choice.start), 2, "{:?}", choice.postponed);
}

#[test]
fn a_group_that_the_limits_leave_no_room_for_waits_as_one() {
    let mut bench = Bench::hot();
    bench.rule("[affinity.pair]\nguests = [\"g1\", \"g2\"]\nstrength = \"must\"\n");
    bench.pass(40);
    let (mut plan, _) = bench.choose();
    plan.steps
        .retain(|step| of_the_pair(std::slice::from_ref(step)) == 1);
    assert_eq!(plan.steps.len(), 2, "{}", plan.to_json());
    plan.steps.iter_mut().for_each(|step| step.wave = 1);
    bench.rule("[limits]\nmigrations_per_host = 1\n");
    let choice = bench.choose_from(&plan);
    assert_eq!(choice.start, []);
    let limited = |(_, why): &(Step, Postponed)| why.as_str() == "migration_limit";
    assert!(
        choice.postponed.iter().all(limited),
        "{:?}",
        choice.postponed
    );
}

#[test]
fn no_more_migrations_start_over_a_link_than_it_takes() {
    let mut bench = Bench::hot();
    for (name, facts) in &mut bench.fleet.hosts {
        facts.labels.insert("rack".to_owned(), name.to_string());
    }
    bench.pass(40);
    let (plan, choice) = bench.choose();
    assert!(choice.start.len() > 1, "{}", plan.to_json());
    bench.rule("[limits]\nmigrations_per_link = 1\n");
    let choice = bench.choose_from(&plan);
    assert_eq!(choice.start.len(), 1);
    let waits: Vec<String> = choice
        .postponed
        .iter()
        .map(|(_, why)| why.to_string())
        .collect();
    let link = "the link of rack h1 runs 1 migrations already";
    assert!(waits.iter().any(|why| why == link), "{waits:?}");
}

#[test]
fn a_plan_that_would_break_something_is_a_hold() {
    let mut bench = Bench::hot();
    let assessment = bench.pass(40);
    let (mut plan, _) = bench.choose();
    let fault = |plan: &Plan| holds::faulty_plan(&assessment.snapshot, bench.active.policy(), plan);
    assert_eq!(fault(&plan), None);
    plan.steps[0].to = "h9".into();
    let hold = fault(&plan).unwrap();
    assert_eq!(hold.as_str(), "faulty_plan");
    assert!(hold.to_string().contains("step 1: no host"), "{hold}");
}

#[test]
fn a_group_that_the_limits_cut_in_two_is_finished_at_once_while_its_hosts_settle() {
    let mut bench = Bench::hot();
    bench.rule("[affinity.three]\nguests = [\"g1\", \"g2\", \"g3\"]\nstrength = \"must\"\n");
    bench.pass(40);
    let begun = bench.choose().1.start;
    let names = |steps: &[Step]| -> Vec<String> { steps.iter().map(|s| s.guest.clone()).collect() };
    assert_eq!(names(&begun), ["g1", "g2"]);
    let target = host(&begun[0].to);
    for n in [1, 2] {
        bench.remember(n, MigrationState::Ended(Outcome::Done), bench.now_ms);
        let source = bench.fleet.reports.get_mut(&host("h1")).unwrap();
        source.guests.retain(|guest| guest.id != id(n));
        let arrived = bench.fleet.reports.get_mut(&target).unwrap();
        arrived.guests.push(reading(n, 0.8, 0.0));
    }
    bench.pass(1);
    let (plan, choice) = bench.choose();
    assert_eq!(
        names(&choice.start),
        ["g3"],
        "{} {:?}",
        plan.to_json(),
        choice.postponed
    );
    assert_eq!(choice.start[0].to, begun[0].to);
}

/// A plan of its own: g20 leaves h2 in wave 1 to make room for a busy guest of h1, which is hot as of now.
fn with_room_made(bench: &mut Bench, wave: u32) -> Plan {
    let idle = reading(20, 0.01, 0.0);
    bench.fleet.reports.insert(host("h2"), report(vec![idle]));
    bench.pass(40);
    let (mut plan, _) = bench.choose();
    bench.core.hot_since.insert(host("h1"), bench.now_ms);
    let mut relief = plan.steps[0].clone();
    relief.to = "h2".into();
    relief.wave = wave;
    let room = Step {
        wave: 1,
        guest: "g20".into(),
        uuid: Some(id(20).to_string()),
        from: "h2".into(),
        to: "h3".into(),
        reason: StepReason::MakeRoom,
        ..relief.clone()
    };
    plan.steps = vec![room, relief];
    plan
}

fn started(choice: &Choice) -> Vec<&str> {
    choice.start.iter().map(|s| s.guest.as_str()).collect()
}

#[test]
fn room_is_made_no_sooner_than_what_needs_it_may_start() {
    let mut bench = Bench::hot();
    let mut plan = with_room_made(&mut bench, 2);
    let choice = bench.choose_from(&plan);
    assert!(choice.start.is_empty());
    assert_eq!(choice.postponed[0].1.as_str(), "hold_time");
    bench.pass(40);
    assert_eq!(started(&bench.choose_from(&plan)), ["g20"]);
    bench.remember(8, MigrationState::Ended(Outcome::Done), bench.now_ms);
    let choice = bench.choose_from(&plan);
    assert_eq!(choice.postponed[0].1.as_str(), "settling");
    plan.steps[1].reason = StepReason::Drain;
    assert_eq!(started(&bench.choose_from(&plan)), ["g20"], "it is urgent");
}

#[test]
fn room_for_what_a_short_plan_leaves_out_is_made_at_once() {
    let mut bench = Bench::hot();
    let mut plan = with_room_made(&mut bench, 2);
    plan.steps.truncate(1);
    assert_eq!(started(&bench.choose_from(&plan)), ["g20"]);
}

#[test]
fn room_beside_a_step_is_made_only_if_that_one_starts() {
    let mut bench = Bench::hot();
    let mut plan = with_room_made(&mut bench, 1);
    assert!(bench.choose_from(&plan).start.is_empty());
    bench.pass(40);
    let choice = bench.choose_from(&plan);
    assert_eq!(started(&choice).len(), 2, "{:?}", choice.postponed);
    plan.steps[1].guest = "gone".into();
    plan.steps[1].uuid = None;
    let choice = bench.choose_from(&plan);
    assert!(choice.start.is_empty(), "{:?}", choice.start);
    assert!(
        choice
            .postponed
            .iter()
            .all(|(_, why)| why.as_str() == "not_now")
    );
}

#[test]
fn two_that_make_room_for_nobody_else_do_not_start_each_other() {
    let mut bench = Bench::hot();
    let mut plan = with_room_made(&mut bench, 1);
    bench.pass(40);
    plan.steps[1].reason = StepReason::MakeRoom;
    plan.steps[1].to = "h2".into();
    plan.steps[0].to = "h1".into();
    assert!(bench.choose_from(&plan).start.is_empty());
}

/// Where guest 1 does not return to, after it was moved away from h2 or somebody else moved it, so long ago.
fn stays_away(ago: Duration, outcome: Option<Outcome>) -> Vec<String> {
    let mut bench = Bench::hot();
    bench.pass(1);
    let left_ms = bench.now_ms - i64::try_from(ago.as_millis()).unwrap();
    if let Some(outcome) = outcome {
        bench.remember(1, MigrationState::Ended(outcome), left_ms);
        if let Some(record) = bench.fleet.remembered.get_mut(&id(1)) {
            record.moves[0].source = "h2".into();
            record.moves[0].target = "h1".into();
        }
    } else {
        bench.core.departures.note(&id(1), host("h2"), left_ms);
    }
    let snapshot = bench.pass(0).snapshot;
    let guest = snapshot.guests.iter().find(|g| g.name == "g1").unwrap();
    guest.left_lately.keys().cloned().collect()
}

#[test]
fn a_guest_stays_away_for_six_hours_from_where_it_left_whoever_moved_it() {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let failed = Outcome::Failed {
        reason: FailureReason::Deadline,
        guest: Whereabouts::Source,
    };
    for moved in [None, Some(Outcome::Done)] {
        assert_eq!(stays_away(hours(5), moved), ["h2"], "{moved:?}");
        assert_eq!(stays_away(hours(7), moved), [""; 0], "{moved:?}");
    }
    assert_eq!(stays_away(hours(5), Some(failed)), [""; 0]);
}

#[test]
fn a_measured_curve_stands_in_the_snapshot_and_a_copy_that_did_not_converge_takes_it_out() {
    let mut bench = Bench::hot();
    let curve = vec![(1.0, 20.0), (4.0, 50.0)];
    let mut measured = reading(1, 0.5, 0.6);
    measured.dirty_curve.clone_from(&curve);
    bench
        .fleet
        .reports
        .insert(host("h1"), report(vec![measured]));
    let in_snapshot = |bench: &mut Bench| bench.pass(1).snapshot.guests[0].dirty_curve.clone();
    assert_eq!(in_snapshot(&mut bench), curve);
    let reason = FailureReason::NotConverging;
    let given_up = MigrationState::Ended(Outcome::Failed {
        reason,
        guest: Whereabouts::Source,
    });
    bench.remember(1, given_up, 0);
    assert_eq!(in_snapshot(&mut bench), []);
}

#[test]
fn a_guest_that_has_moved_and_is_still_reported_from_where_it_was_is_left_alone() {
    let mut bench = Bench::hot();
    let order = order_entry(5, |order| order.guest_uuid = id(1).to_string()).order;
    let mut reasons = |state, mod_revision| {
        let journal = JournalEntry {
            state: MigrationState::Ended(state),
            message: v1::Journal {
                ended_at_ms: -5000, // long before the report, by the clock
                ..v1::Journal::default()
            },
            mod_revision,
            order: order.clone(),
        };
        let key = (order.source.clone(), order.guest.clone());
        bench.fleet.journals.insert(key, journal);
        let guests = bench.pass(1).snapshot.guests;
        let moved = guests
            .into_iter()
            .find(|g| g.uuid == Some(id(1).to_string()));
        moved.unwrap().unmovable_reason
    };
    let revision = i64::MAX; // the report is older
    assert_eq!(
        reasons(Outcome::Done, revision).as_deref(),
        Some("stale_data")
    );
    assert_eq!(reasons(Outcome::Cancelled, revision), None, "it never left");
    assert_eq!(reasons(Outcome::Done, -1), None, "it has come back since");
}
