//! libvirt's locks on disks (lockd): a second copy of a guest cannot start, on whatever host, with whatever name.
//!
//! QEMU locks image files itself, and where all hosts share one kernel that would refuse the copy first. On block
//! devices and on some file systems its locks do not reach other hosts: copies run with a QEMU that takes none.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use evenkeel_proto::v1::MigrationPhase;
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::phase_of;
use evenkeel_tests::{Lab, LabOptions, until};
use serde_json::Value;

use crate::{END, SOON};

/// Another definition's.
const OTHER_UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
/// QEMU without locks of its own on files.
const BLIND_QEMU: &str = r#"#!/bin/bash
exec /usr/bin/qemu-system-x86_64 "${@//\"driver\":\"file\",/\"driver\":\"file\",\"locking\":\"off\",}"
"#;

fn lab(locks: bool) -> Lab {
    Lab::up(&LabOptions {
        locks,
        ..LabOptions::default()
    })
}

/// What a copy is called.
#[derive(Debug, Clone, Copy)]
enum Called {
    /// The same name and UUID, as restored from a backup of the definition.
    TheSame,
    /// `NAME-copy`, with a UUID of its own, as made anew by some tool.
    Otherwise,
}

/// The definition of a guest's copy: with the same disk, on a QEMU without locks. Returns its file.
fn copy_of(lab: &Lab, guest: &str, called: Called) -> String {
    let qemu = lab.path(Path::new("guest/blind-qemu"));
    std::fs::write(&qemu, BLIND_QEMU).expect("a program");
    std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).expect("its mode");
    let xml = lab.text(&format!("guest/{guest}.xml"));
    let xml = xml.replace("/usr/bin/qemu-system-x86_64", &qemu.display().to_string());
    let xml = match called {
        Called::TheSame => xml,
        Called::Otherwise => xml
            .replace(&lab.uuid(guest), OTHER_UUID)
            .replace(&format!("<name>{guest}<"), &format!("<name>{guest}-copy<"))
            .replace(&format!("{guest}.sock"), &format!("{guest}-copy.sock"))
            .replace(&format!("{guest}.serial"), &format!("{guest}-copy.serial")),
    };
    let path = lab.path(Path::new(&format!("guest/{guest}-copy.xml")));
    std::fs::write(&path, xml).expect("a definition");
    path.display().to_string()
}

/// Defines a copy on a host and starts it; libvirt's words when it refuses. The definition goes again.
fn refusal(lab: &Lab, host: &str, guest: &str, called: Called) -> Option<String> {
    let path = copy_of(lab, guest, called);
    let name = match called {
        Called::TheSame => guest.to_owned(),
        Called::Otherwise => format!("{guest}-copy"),
    };
    lab.run(&["virsh", host, "define", &path]);
    let started = lab.attempt(&["virsh", host, "start", &name]);
    if started.status.success() {
        return None;
    }
    lab.run(&["virsh", host, "undefine", &name]);
    Some(String::from_utf8_lossy(&started.stderr).into_owned())
}

fn assert_locked(lab: &Lab, host: &str, guest: &str, called: Called) {
    let words = refusal(lab, host, guest, called);
    let words = words.unwrap_or_else(|| panic!("{guest} {called:?} started on {host}"));
    let by_lockd =
        words.contains("resource busy: Lockspace resource") && words.contains("is locked");
    assert!(by_lockd, "{guest} {called:?} on {host}: {words}");
}

/// A check of `evenkeel doctor`: result and what was found; with the exit code of all of them.
fn doctor(lab: &Lab, check: &str) -> (String, String, Option<i32>) {
    let ended = lab.attempt(&["evenkeel", "doctor", "-o", "json"]);
    let told: Value = serde_json::from_slice(&ended.stdout).expect("a document");
    let checks = told["checks"].as_array().cloned().unwrap_or_default();
    let found = checks.iter().find(|found| found["check"] == check);
    let text = |field: &str| {
        let text = found.and_then(|found| found[field].as_str());
        text.unwrap_or_default().to_owned()
    };
    (text("result"), text("found"), ended.status.code())
}

fn until_doctor_says(lab: &Lab, check: &str, result: &str, found: &str, code: i32) {
    until(&format!("doctor to say {check}: {found}"), SOON, || {
        let (said, what, ended) = doctor(lab, check);
        said == result && what.contains(found) && ended == Some(code)
    });
}

#[test]
fn where_disks_are_locked_a_second_copy_does_not_start() {
    let lab = lab(true);
    lab.add_guest("h1", "file", &["--disk", "shared"]);
    lab.add_guest("h1", "net", &["--disk", "nbd", "--lease"]);
    lab.wait_for_guest("net");
    for guest in ["file", "net"] {
        assert_locked(&lab, "h2", guest, Called::TheSame);
        assert_locked(&lab, "h2", guest, Called::Otherwise);
        assert_locked(&lab, "h1", guest, Called::Otherwise);
        lab.assert_lives_on(guest, "h1");
    }
    until_doctor_says(&lab, "disk locks", "ok", "lockd on 2 hosts", 0);
    until("the copies to be forgotten", SOON, || {
        let guests = lab.guest_views(&lab.some_leader());
        let mut names: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
        names.sort_unstable();
        names == ["file", "net"]
    });

    // The lock goes along with the guest.
    let leader = lab.some_leader();
    let order = lab.migrate(Caller::Operator, &leader, "net", "h2");
    let ended = lab.wait_for_end(&order.expect("the leader orders it").id, END);
    assert_eq!(phase_of(&ended), MigrationPhase::Done, "{ended:?}");
    lab.assert_lives_on("net", "h2");
    assert_locked(&lab, "h1", "net", Called::TheSame);
    assert_locked(&lab, "h1", "net", Called::Otherwise);
    assert_locked(&lab, "h2", "net", Called::Otherwise);
    lab.assert_lives_on("net", "h2");
}

#[test]
fn a_lock_is_held_by_its_daemon_and_only_on_what_it_knows() {
    let lab = lab(true);
    // lockd leaves disks alone that QEMU opens over the network, unless a lease stands for them.
    lab.add_guest("h1", "bare", &["--disk", "nbd"]);
    assert_eq!(refusal(&lab, "h2", "bare", Called::Otherwise), None);
    lab.run(&["virsh", "h2", "destroy", "bare-copy"]);
    lab.run(&["virsh", "h2", "undefine", "bare-copy"]);

    lab.add_guest("h1", "file", &["--disk", "shared"]);
    assert_locked(&lab, "h2", "file", Called::Otherwise);
    // libvirtd may go and come again; the daemon that holds the lock may not.
    lab.fault(&["libvirtd", "h1", "restart"]);
    assert_locked(&lab, "h2", "file", Called::Otherwise);
    lab.fault(&["virtlockd", "h1", "kill"]);
    lab.assert_lives_on("file", "h1");
    assert_eq!(refusal(&lab, "h2", "file", Called::Otherwise), None);
}

#[test]
fn where_they_are_not_locked_both_copies_run_and_doctor_warns() {
    let lab = lab(false);
    lab.add_guest("h1", "file", &["--disk", "shared"]);
    assert_eq!(refusal(&lab, "h2", "file", Called::Otherwise), None);
    until("both hearts to beat", SOON, || {
        !lab.heart("file-copy").beats.is_empty()
    });
    assert_eq!(lab.running_on("file"), ["h1"]);
    assert_eq!(lab.running_on("file-copy"), ["h2"]);

    let locks = "disk locks";
    until_doctor_says(&lab, locks, "warning", "off on 2 of 2 hosts: h1, h2", 0);
    let conf = lab.path(Path::new("h1/etc/qemu.conf"));
    std::fs::remove_file(&conf).expect("it was there");
    lab.fault(&["agent", "h1", "restart"]);
    until_doctor_says(&lab, locks, "warning", "unknown on 1 of 2 hosts: h1", 0);
    std::fs::write(&conf, "lock_manager = \"lockd\"\n").expect("a file");
    lab.fault(&["agent", "h1", "restart"]);
    until_doctor_says(&lab, locks, "warning", "lockd on 1 of 2 hosts: h1; off", 0);
    lab.fault(&["libvirtd", "h2", "kill"]);
    until_doctor_says(&lab, "libvirt", "failed", "1 of 2 hosts: h2", 1);
    lab.fault(&["libvirtd", "h2", "start"]);
    until_doctor_says(&lab, "libvirt", "ok", "up on 2 hosts", 0);
}
