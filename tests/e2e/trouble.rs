//! What others do to guests behind Evenkeel's back: it is told within a control cycle, and the guests are left alone.

use std::time::Duration;

use evenkeel_tests::network::Caller;
use evenkeel_tests::{Lab, LabOptions, until};

use crate::SOON;
use crate::prometheus::{becomes, metric};

/// A control cycle and a report.
const CYCLE: Duration = Duration::from_secs(45);

/// Until the leader says something that has all of `words`.
fn until_told(lab: &Lab, words: &[&str]) {
    until(&format!("{words:?} to be told"), CYCLE, || {
        let status = lab.leader().and_then(|leader| lab.status(&leader));
        let told = status.map_or_else(Vec::new, |status| status.troubles);
        told.iter()
            .any(|said| words.iter().all(|word| said.contains(word)))
    });
}

/// Starts a copy of a guest's definition on h2, edited.
pub(crate) fn start_copy(lab: &Lab, guest: &str, name: &str, edit: impl FnOnce(String) -> String) {
    let xml = lab.text(&format!("guest/{guest}.xml"));
    let path = lab.path(std::path::Path::new(&format!("guest/{name}-copy.xml")));
    std::fs::write(&path, edit(xml)).expect("a definition");
    lab.run(&["virsh", "h2", "create", &path.display().to_string()]);
}

#[test]
fn a_guest_that_runs_twice_and_a_disk_with_two_writers_are_told() {
    let lab = Lab::up(&LabOptions {
        prometheus: true,
        ..LabOptions::default()
    });
    lab.add_guest("h1", "twin", &[]);
    lab.add_guest("h1", "disk", &["--disk", "nbd"]);
    lab.wait_for_guest("disk");
    start_copy(&lab, "twin", "twin", |xml| xml);
    until_told(&lab, &["twin runs on h1 and h2"]);
    let uuid = lab.uuid("disk");
    start_copy(&lab, "disk", "other", |xml| {
        let xml = xml.replace("<name>disk<", "<name>other<");
        xml.replace(&uuid, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")
            .replace("disk.sock", "other.sock")
            .replace("disk.serial", "other.serial")
    });
    until_told(
        &lab,
        &["h1/disk and h2/other write to the same disk", "nbd://"],
    );
    assert_eq!(metric(&lab, "evenkeel_guests_on_two_hosts"), "2");
    let alert =
        r#"ALERTS{alertname="EvenkeelGuestOnTwoHosts",alertstate="firing",severity="critical"}"#;
    becomes(&lab, &format!("count({alert})"), 1.0);
    let leader = lab.some_leader();
    for guest in ["h1/twin", "disk"] {
        let refused = lab.migrate(Caller::Operator, &leader, guest, "h2");
        let refused = refused.expect_err("it is left alone").message().to_owned();
        let named = refused.contains("duplicate") || refused.contains("shared_disk");
        assert!(named, "{refused}");
    }
    let said = lab.run(&["evenkeel", "status"]);
    assert!(said.contains("!! twin runs on h1 and h2"), "{said}");
    lab.run(&["virsh", "h2", "destroy", "twin"]);
    lab.run(&["virsh", "h2", "destroy", "other"]);
    until("all to be well again", CYCLE, || {
        metric(&lab, "evenkeel_guests_on_two_hosts") == "0"
    });
    becomes(&lab, &format!("count({alert}) or vector(0)"), 0.0);
}

#[test]
fn a_migration_by_hand_is_seen_and_respected() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_slow_guest("h1", "g");
    lab.wait_for_guest("g");
    std::thread::scope(|scope| {
        let by_hand = scope.spawn(|| lab.attempt(&["migrate", "g", "h2"]));
        until_told(&lab, &["g is migrated from h1 by somebody else"]);
        assert_eq!(metric(&lab, "evenkeel_foreign_migrations"), "1");
        let leader = lab.some_leader();
        let refused = lab.migrate(Caller::Operator, &leader, "g", "h2");
        let refused = refused.expect_err("it is left alone").message().to_owned();
        assert!(refused.contains("foreign_migration"), "{refused}");
        lab.full_speed("h1");
        assert!(by_hand.join().expect("a migration").status.success());
    });
    until("nobody to move it any more", SOON, || {
        metric(&lab, "evenkeel_foreign_migrations") == "0"
    });
    lab.assert_lives_on("g", "h2");
}
