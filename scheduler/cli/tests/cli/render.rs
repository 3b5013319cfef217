//! The recorded fleet as people see it, to the letter.

use evenkeel::output::progress::{Narrator, beside_bar, ending};
use evenkeel::output::{Look, plan, show, status, table, top};
use evenkeel::view::{
    Guest, GuestDetail, Host, HostDetail, Migration, MigrationDetail, Plan, Status,
};
use evenkeel_proto::v1::{MigrationPhase, Pause};
use jiff::Timestamp;

use crate::fleet::{self, NOW_MS, RUNNING};

fn look(wide: bool) -> Look {
    Look {
        colour: false,
        wide,
        now: Timestamp::from_millisecond(NOW_MS).unwrap(),
    }
}

fn hosts() -> Vec<Host> {
    fleet::hosts().into_iter().map(Into::into).collect()
}

fn guests() -> Vec<Guest> {
    fleet::guests(NOW_MS).into_iter().map(Into::into).collect()
}

fn migrations() -> Vec<Migration> {
    let mut all = fleet::migrations(NOW_MS);
    let ended = |phase, reason, place| fleet::ended(RUNNING, phase, reason, place, NOW_MS);
    all.push(ended(MigrationPhase::Refused, "no_memory", ""));
    all.push(ended(MigrationPhase::Failed, "guest_died", "nowhere"));
    all.into_iter().map(Into::into).collect()
}

#[test]
fn status_of_a_fleet_at_work() {
    let open = vec![fleet::running(RUNNING, 62, NOW_MS).into()];
    let seen = Status::new(fleet::status(NOW_MS), open);
    insta::assert_snapshot!(status::status(&seen, look(false)));
}

#[test]
fn status_of_a_fleet_in_trouble() {
    let mut message = fleet::status(NOW_MS);
    message.leader.clear();
    message.etcd_reachable = false;
    message.migrations_unknown = 2;
    message.hosts_libvirt_down = 1;
    message.plan_moves = 0;
    message.policy_revision = 0;
    message.holds = vec![
        "paused by operator/alice: switch swap".into(),
        "2 of 3 hosts are silent".into(),
    ];
    message.pause = Some(Pause {
        by: "operator/alice".into(),
        reason: "switch swap".into(),
        since_ms: NOW_MS - 1000,
        until_ms: NOW_MS + 7_200_000,
    });
    let seen = Status::new(message, vec![]);
    insta::assert_snapshot!(status::status(&seen, look(false)));
}

#[test]
fn lists() {
    insta::assert_snapshot!("hosts", table::hosts(&hosts(), look(false)));
    insta::assert_snapshot!("hosts_wide", table::hosts(&hosts(), look(true)));
    insta::assert_snapshot!("guests", table::guests(&guests(), look(false)));
    insta::assert_snapshot!("guests_wide", table::guests(&guests(), look(true)));
    insta::assert_snapshot!("migrations", table::migrations(&migrations(), look(false)));
    insta::assert_snapshot!(
        "migrations_wide",
        table::migrations(&migrations(), look(true))
    );
}

#[test]
fn an_empty_list_is_its_head() {
    insta::assert_snapshot!(table::migrations(&[], look(false)), @"ID  GUEST  FROM -> TO  PHASE  COPIED  TOOK  AGE  WHY");
}

#[test]
fn details() {
    let hot = hosts().swap_remove(0);
    insta::assert_snapshot!(
        "host_show",
        show::host(&HostDetail::new(hot, guests()), look(false))
    );
    let resting = guests().swap_remove(2);
    let detail = GuestDetail::new(resting, migrations());
    insta::assert_snapshot!("guest_show", show::guest(&detail, look(false)));
    let dirties = |edit: fn(&mut Guest)| {
        let mut guest = guests().swap_remove(1);
        edit(&mut guest);
        let shown = show::guest(&GuestDetail::new(guest, vec![]), look(false));
        let line = shown.lines().find(|line| line.starts_with("dirties"));
        line.unwrap_or_default().to_owned()
    };
    let measured = dirties(|guest| guest.dirty_curve = vec![(1.0, 31.6), (4.0, 40.0)]);
    insta::assert_snapshot!(measured, @"dirties     32 MiB in 1 s, 40 MiB in 4 s (measured)");
    let unknown = dirties(|guest| guest.dirty_rate_mib_s = None);
    insta::assert_snapshot!(unknown, @"dirties     not known: its copy is priced as if it wrote nothing");
    let off = dirties(|guest| guest.state = "shutoff".to_owned());
    insta::assert_snapshot!(off, @"");
    let detail = MigrationDetail::new(fleet::running(RUNNING, 62, NOW_MS).into());
    insta::assert_snapshot!("migration_show", show::migration(&detail, look(false)));
}

#[test]
fn a_plan() {
    let seen: Plan = serde_json::from_str(fleet::PLAN).unwrap();
    insta::assert_snapshot!("plan", plan::plan(&seen, Some(41), look(false)));
    insta::assert_snapshot!("plan_wide", plan::plan(&seen, None, look(true)));
}

#[test]
fn a_plan_with_many_reasons_lists_the_first() {
    let mut seen: Plan = serde_json::from_str(fleet::PLAN).unwrap();
    let one = seen.blocked[0].clone();
    seen.blocked = vec![one; 20];
    assert!(plan::plan(&seen, None, look(false)).contains("and 12 more (-o wide shows all)"));
    assert!(!plan::plan(&seen, None, look(true)).contains("more"));
}

#[test]
fn what_stands_beside_the_bar() {
    let at = |percent| Migration::from(fleet::running(RUNNING, percent, NOW_MS));
    assert_eq!(beside_bar(&at(62)), "1.5 GiB left, 320.0 MiB/s, ~5 s");
    let mut stuck = at(90);
    if let Some(progress) = &mut stuck.progress {
        progress.dirty_bytes_per_second = progress.bandwidth_bytes_per_second;
        progress.iteration = 9;
    }
    assert_eq!(
        beside_bar(&stuck),
        "409.6 MiB left, 320.0 MiB/s, dirtied as fast as copied, round 9"
    );
}

#[test]
fn only_news_is_told() {
    let at = |percent| Migration::from(fleet::running(RUNNING, percent, NOW_MS));
    let mut narrator = Narrator::default();
    assert!(narrator.tell(&at(1)).is_some());
    assert_eq!(narrator.tell(&at(24)), None);
    assert!(narrator.tell(&at(26)).is_some());
    assert_eq!(narrator.tell(&at(27)), None);
}

#[test]
fn words_of_a_scheduler_cannot_steer_the_terminal() {
    let mut evil = guests();
    evil[0].name = "db\u{1b}[2J1".into();
    evil[0].unmovable_reason = Some("a\nb".into());
    evil[0].migrating_to = None;
    let seen = table::guests(&evil, look(false));
    assert!(
        !seen.contains('\u{1b}') && seen.contains("unmovable: a b"),
        "{seen}"
    );
}

#[test]
fn a_migration_that_is_not_over_has_no_ending() {
    let running = Migration::from(fleet::running(RUNNING, 62, NOW_MS));
    assert!(ending(&running).ends_with("is not over"));
}

/// The live view as a terminal of this size shows it.
fn screen(picture: &top::Picture, stance: top::Stance, size: (u16, u16)) -> String {
    let backend = ratatui::backend::TestBackend::new(size.0, size.1);
    let mut terminal = ratatui::Terminal::new(backend).unwrap();
    terminal
        .draw(|frame| {
            top::draw(frame, picture, stance);
        })
        .unwrap();
    terminal.backend().to_string()
}

fn picture() -> top::Picture {
    let open = vec![fleet::running(RUNNING, 62, NOW_MS).into()];
    top::Picture {
        status: Status::new(fleet::status(NOW_MS), open),
        hosts: hosts(),
        plan: Some(serde_json::from_str(fleet::PLAN).unwrap()),
        seen_at: Timestamp::from_millisecond(NOW_MS).unwrap(),
        trouble: None,
    }
}

#[test]
fn top_shows_hosts_migrations_the_plan_and_what_is_not_moved() {
    insta::assert_snapshot!(screen(&picture(), top::Stance::default(), (110, 26)));
}

#[test]
fn top_of_a_fleet_in_trouble_says_so_first_and_fits_a_small_terminal() {
    let mut picture = picture();
    picture.trouble = Some("no scheduler answers".into());
    picture.status.leader = None;
    picture.status.holds = (1..=4).map(|n| format!("hold {n}")).collect();
    picture.plan = None;
    let stance = top::Stance {
        order: top::Order::Name,
        first: 7,
        colour: true,
    };
    insta::assert_snapshot!(screen(&picture, stance, (80, 24)));
    // Smaller than anything fits in: nothing is seen, nothing breaks.
    for size in [(1, 1), (20, 3), (300, 2)] {
        screen(&picture, stance, size);
    }
}
