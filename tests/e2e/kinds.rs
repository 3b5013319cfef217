//! Every kind of move: with local disks, of guests that are shut off, over encrypted and over many connections.
//!
//! What a disk holds is read from its file on either host, past Evenkeel and libvirt.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_proto::v1::{self, DiskCopy, MigrationPhase, MoveKind};
use evenkeel_tests::etcd::{guest_id, keys};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::{ask, phase_of};
use evenkeel_tests::{Lab, LabOptions, until, wait_for};
use tempfile::TempDir;
use tonic::Status;

use crate::prometheus::metric;
use crate::{END, SOON};

/// What stays of a failed copy is gone within this time: the target looks every twenty seconds.
const SWEPT: Duration = Duration::from_secs(90);
/// Metadata that has to arrive with its guest.
const MARK: &str =
    "<evenkeel:guest xmlns:evenkeel='https://evenkeel.dev/xmlns/guest/1' group='web'/>";

/// The file of a guest's local disk, as the machine sees it.
fn disk(lab: &Lab, host: &str, name: &str) -> PathBuf {
    lab.path(Path::new(&format!("{host}/local/{name}.qcow2")))
}

fn run(program: &str, words: &[&str]) -> String {
    let done = Command::new(program).args(words).output().expect(program);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        done.status.success(),
        "{program} {words:?}: {}",
        text(&done.stderr)
    );
    text(&done.stdout)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Writes three runs of patterns, with room between them, into a disk that no guest has open.
fn fill(disk: &Path, mib: u32) {
    let run_of = |at: u32, pattern: u8| format!("write -P {pattern} {at}M {mib}M");
    let commands = [
        run_of(1, 0x5a),
        run_of(mib + 5, 0xa5),
        run_of(2 * mib + 9, 0x3c),
    ];
    for command in &commands {
        run("qemu-io", &["-f", "qcow2", "-c", command, text(disk)]);
    }
}

/// What the guest would read: the whole disk, backing images and all.
fn contents(disk: &Path) -> Vec<u8> {
    let folder = TempDir::new().expect("a folder");
    let plain = folder.path().join("plain");
    let words = [
        "convert",
        "-U",
        "-f",
        "qcow2",
        "-O",
        "raw",
        text(disk),
        text(&plain),
    ];
    run("qemu-img", &words);
    std::fs::read(&plain).expect("the plain disk")
}

/// A guest on h1 with a local disk that holds something.
fn add_with_disk(lab: &Lab, name: &str, mib: u32, more: &[&str]) {
    let options = [&["--disk", "local", "--no-start"], more].concat();
    lab.run(&[&["guest", "add", "h1", name], &options[..]].concat());
    fill(&disk(lab, "h1", name), mib);
}

fn start(lab: &Lab, name: &str) {
    lab.run(&["virsh", "h1", "start", name]);
    until(&format!("{name} to boot"), SOON, || {
        !lab.heart(name).beats.is_empty()
    });
    lab.wait_for_guest(name);
}

/// Until the leader knows a guest, whatever state it is in.
fn wait_until_known(lab: &Lab, name: &str) {
    until(&format!("the leader to know {name}"), SOON, || {
        let guests = lab.guest_views(&lab.some_leader());
        guests.iter().any(|guest| guest.name == name)
    });
}

fn ask_for(
    lab: &Lab,
    guest: &str,
    to: &str,
    offline: bool,
    disks: DiskCopy,
) -> Result<v1::Order, Status> {
    let leader = lab.some_leader();
    lab.inside(|| async {
        let request = v1::OperatorMigrateRequest {
            guest: guest.to_owned(),
            target: to.to_owned(),
            reason: "test".to_owned(),
            offline,
            disks: disks.into(),
            ..Default::default()
        };
        let mut client = lab.scheduler(Caller::Operator, &leader);
        let reply = client.migrate(ask(request)).await;
        reply.map(|reply| reply.into_inner().order.unwrap_or_default())
    })
}

fn order(lab: &Lab, guest: &str, to: &str, offline: bool, disks: DiskCopy) -> v1::Order {
    ask_for(lab, guest, to, offline, disks).expect("the leader orders it")
}

/// Moves a guest and waits for the end; its detail and how it ended.
fn moved(lab: &Lab, guest: &str, to: &str, offline: bool, disks: DiskCopy) -> v1::Migration {
    let order = order(lab, guest, to, offline, disks);
    let migration = lab.wait_for_end(&order.id, END);
    until("the order to be removed", SOON, || lab.orders().is_empty());
    migration
}

fn assert_moved(lab: &Lab, guest: &str, to: &str, offline: bool, disks: DiskCopy) {
    let migration = moved(lab, guest, to, offline, disks);
    assert_eq!(phase_of(&migration), MigrationPhase::Done, "{migration:?}");
}

fn dominfo(lab: &Lab, host: &str, guest: &str) -> String {
    lab.run(&["virsh", host, "dominfo", guest])
}

fn is_so(info: &str, what: &str, value: &str) -> bool {
    let line = info.lines().find(|line| line.starts_with(what));
    line.is_some_and(|line| line.ends_with(value))
}

/// Whether libvirt knows the guest on that host.
fn is_defined(lab: &Lab, host: &str, guest: &str) -> bool {
    lab.attempt(&["virsh", host, "domstate", guest])
        .status
        .success()
}

/// Puts an order into etcd by hand, past what the scheduler would say; how its journal ended.
pub(crate) fn order_by_hand(
    lab: &Lab,
    n: u128,
    guest: &str,
    options: v1::MoveOptions,
) -> v1::MigrationState {
    let (_, epoch, _) = lab.leader_key().expect("a leader");
    let now = evenkeel_daemon::unix_ms();
    let order = v1::Order {
        id: evenkeel_types::OrderId::from_random(n).to_string(),
        guest_uuid: lab.uuid(guest),
        guest_name: guest.to_owned(),
        source: "h1".to_owned(),
        target: "h2".to_owned(),
        options: Some(options),
        created_at_ms: now,
        deadline_ms: now + 60_000,
        epoch,
        trigger: "manual".to_owned(),
        memory_mib: 32,
        ..Default::default()
    };
    lab.inside(|| async {
        let key = keys().order(&guest_id(&order.guest_uuid));
        let store = lab.store(Caller::Operator).await;
        store.put(&key, &order, None).await.expect("etcd takes it");
    });
    wait_for("the order to be over", SOON, || {
        let journals = lab.journal_ever("h1", &order.guest_uuid);
        let mut own = journals
            .into_iter()
            .filter(|j| j.order.as_ref() == Some(&order));
        own.rfind(|j| j.ended_at_ms > 0)?.state
    })
}

#[test]
fn local_disks_go_along_with_a_running_guest_and_back() {
    let lab = Lab::up(&LabOptions::default());
    add_with_disk(&lab, "g", 4, &["--metadata", MARK]);
    lab.run(&["virsh", "h1", "autostart", "g"]);
    start(&lab, "g");
    let refused = ask_for(&lab, "g", "h2", false, DiskCopy::None).expect_err("it has a local disk");
    assert!(refused.message().contains("local_disk"), "{refused}");
    let (here, there) = (disk(&lab, "h1", "g"), disk(&lab, "h2", "g"));
    let before = contents(&here);
    assert!(
        before.contains(&0x5a) && before.contains(&0),
        "the disk is filled in part"
    );
    assert_moved(&lab, "g", "h2", false, DiskCopy::Whole);
    lab.assert_lives_on("g", "h2");
    assert!(contents(&there) == before, "the disk arrived otherwise");
    let info = dominfo(&lab, "h2", "g");
    assert!(is_so(&info, "Persistent", "yes"), "{info}");
    until("it to be started with its host", SOON, || {
        is_so(&dominfo(&lab, "h2", "g"), "Autostart", "enable")
    });
    let xml = lab.run(&["virsh", "h2", "dumpxml", "g", "--inactive"]);
    assert!(
        xml.contains("group='web'") || xml.contains("group=\"web\""),
        "{xml}"
    );
    // What it left is not in its way, and is not believed.
    assert!(here.exists(), "what was there before is kept");
    fill_a_little(&here);
    let in_the_way = moved(&lab, "g", "h1", false, DiskCopy::Whole);
    let reason = in_the_way.state.clone().unwrap_or_default().reason;
    assert_eq!(reason, "disk_in_use", "{in_the_way:?}");
    lab.assert_lives_on("g", "h2");
    std::fs::remove_file(&here).expect("its file");
    assert_moved(&lab, "g", "h1", false, DiskCopy::Whole);
    lab.assert_lives_on("g", "h1");
    assert!(contents(&here) == before, "it came back otherwise");
    assert_moved(&lab, "g", "h2", false, DiskCopy::Whole);
    lab.assert_lives_on("g", "h2");
    assert!(
        contents(&there) == before,
        "what it had left gave way to something else"
    );
}

/// Writes to a file that a guest has left behind.
fn fill_a_little(disk: &Path) {
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 1 60M 1M", text(disk)],
    );
}

#[test]
fn an_overlay_goes_where_its_base_is() {
    let lab = Lab::up(&LabOptions::default());
    let base = |host: &str| lab.path(Path::new(&format!("{host}/local/base.qcow2")));
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", text(&base("h1")), "64M"],
    );
    fill(&base("h1"), 6);
    let (here, there) = (disk(&lab, "h1", "g"), disk(&lab, "h2", "g"));
    // By the path that it has inside the host.
    let backing = [
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "/srv/local/base.qcow2",
    ];
    run("qemu-img", &[&backing[..], &[text(&here), "64M"]].concat());
    lab.run(&["guest", "add", "h1", "g", "--disk", "local", "--no-start"]);
    start(&lab, "g");
    let refused = moved(&lab, "g", "h2", false, DiskCopy::Incremental);
    let reason = refused.state.clone().unwrap_or_default().reason;
    assert_eq!(reason, "missing_storage", "{refused:?}");
    assert!(
        refused.detail.contains("/srv/local/base.qcow2"),
        "{}",
        refused.detail
    );
    std::fs::copy(base("h1"), base("h2")).expect("the base");
    assert_moved(&lab, "g", "h2", false, DiskCopy::Incremental);
    lab.assert_lives_on("g", "h2");
    let info = run("qemu-img", &["info", "-U", text(&there)]);
    assert!(
        info.contains("backing file: /srv/local/base.qcow2"),
        "{info}"
    );
    let small = std::fs::metadata(&there).expect("the overlay").blocks() * 512;
    assert!(small < 2 << 20, "{small} bytes: the base came along");
    // And whole, from there: all in one file.
    std::fs::remove_file(&here).expect("its file");
    assert_moved(&lab, "g", "h1", false, DiskCopy::Whole);
    lab.assert_lives_on("g", "h1");
    let info = run("qemu-img", &["info", "-U", text(&here)]);
    assert!(!info.contains("backing file"), "{info}");
    assert!(
        contents(&here) == contents(&base("h2")),
        "not the same as its base"
    );
}

#[test]
fn a_copy_that_fails_leaves_no_stray_file() {
    let lab = Lab::up(&LabOptions::default());
    add_with_disk(&lab, "g", 12, &[]);
    start(&lab, "g");
    let (here, there) = (disk(&lab, "h1", "g"), disk(&lab, "h2", "g"));
    let before = contents(&here);
    lab.fault(&["link", "h1", "migration", "4mbit"]);
    let ordered = in_mid_copy(&lab, "g");
    let progress = wait_for("the disk's progress", SOON, || {
        let journal = lab.journal("h1", &lab.uuid("g"))?;
        journal.progress.filter(|p| p.disk_transferred_bytes > 0)
    });
    assert!(
        progress.disk_total_bytes >= progress.disk_transferred_bytes,
        "{progress:?}"
    );
    assert!(there.exists(), "its file is made before the copy");
    cancel(&lab, &ordered.id);
    let cancelled = lab.wait_for_end(&ordered.id, END);
    assert_eq!(
        phase_of(&cancelled),
        MigrationPhase::Cancelled,
        "{cancelled:?}"
    );
    until("the file to be gone", SWEPT, || !there.exists());
    lab.assert_lives_on("g", "h1");
    // The same while nobody at the target hears of it.
    let ordered = in_mid_copy(&lab, "g");
    assert!(there.exists());
    lab.fault(&["agent", "h2", "kill"]);
    cancel(&lab, &ordered.id);
    until("the copy to be over", SOON, || {
        !lab.text("h1/agent.log").is_empty() && has_no_job(&lab, "g")
    });
    assert!(there.exists(), "nobody was there to remove it");
    lab.fault(&["agent", "h2", "start"]);
    until("the file to be gone", SWEPT, || !there.exists());
    lab.assert_lives_on("g", "h1");
    assert!(contents(&here) == before, "the source's disk has changed");
}

/// Orders a copy of the guest's disk to h2 and waits until it is under way.
fn in_mid_copy(lab: &Lab, guest: &str) -> v1::Order {
    let ordered = order(lab, guest, "h2", false, DiskCopy::Whole);
    until("the disk to be copied", SOON, || {
        let journal = lab.journal("h1", &lab.uuid(guest));
        let progress = journal.filter(|j| j.order.as_ref().is_some_and(|o| o.id == ordered.id));
        progress
            .and_then(|j| j.progress)
            .is_some_and(|p| p.disk_total_bytes > 0)
    });
    ordered
}

fn has_no_job(lab: &Lab, guest: &str) -> bool {
    let info = lab.run(&["virsh", "h1", "domjobinfo", guest]);
    info.contains("None")
}

fn cancel(lab: &Lab, id: &str) {
    let leader = lab.some_leader();
    let request = v1::CancelMigrationRequest {
        id: id.to_owned(),
        reason: "test".to_owned(),
        dry_run: false,
    };
    let cancelled = lab.inside(|| async {
        let mut client = lab.scheduler(Caller::Operator, &leader);
        client.cancel_migration(ask(request)).await
    });
    cancelled.expect("the leader takes the cancel");
}

#[test]
fn a_guest_that_is_shut_off_moves_with_and_without_local_disks() {
    let lab = Lab::up(&LabOptions::default());
    add_with_disk(&lab, "g", 4, &["--metadata", MARK]);
    lab.run(&[
        "guest",
        "add",
        "h1",
        "shared",
        "--disk",
        "nbd",
        "--no-start",
    ]);
    for guest in ["g", "shared"] {
        lab.run(&["virsh", "h1", "autostart", guest]);
        wait_until_known(&lab, guest);
    }
    let (here, there) = (disk(&lab, "h1", "g"), disk(&lab, "h2", "g"));
    let before = contents(&here);
    let refused = ask_for(&lab, "shared", "h2", false, DiskCopy::None).expect_err("it is shut off");
    assert!(refused.message().contains("--offline"), "{refused}");
    assert_moved(&lab, "shared", "h2", true, DiskCopy::None);
    assert_moved(&lab, "g", "h2", true, DiskCopy::Whole);
    for guest in ["g", "shared"] {
        assert!(
            !is_defined(&lab, "h1", guest),
            "{guest} is still defined at its source"
        );
        until("it to be started with its host", SOON, || {
            is_so(&dominfo(&lab, "h2", guest), "Autostart", "enable")
        });
        let info = dominfo(&lab, "h2", guest);
        assert!(is_so(&info, "State", "shut off"), "{info}");
    }
    assert!(contents(&there) == before, "the disk arrived otherwise");
    let bytes = |path: &Path| std::fs::metadata(path).expect("a disk").blocks() * 512;
    assert!(
        bytes(&there) < bytes(&here) + (1 << 20),
        "it is no longer sparse"
    );
    let xml = lab.run(&["virsh", "h2", "dumpxml", "g"]);
    assert!(
        xml.contains("group='web'") || xml.contains("group=\"web\""),
        "{xml}"
    );
    // It is whole: it starts.
    lab.run(&["virsh", "h2", "start", "g"]);
    until("it to boot at its new host", SOON, || {
        !lab.heart("g").beats.is_empty()
    });
    lab.assert_lives_on("g", "h2");
}

#[test]
fn a_source_agent_that_dies_while_it_copies_leaves_the_guest_where_it_was() {
    let lab = Lab::up(&LabOptions::default());
    add_with_disk(&lab, "g", 16, &[]);
    wait_until_known(&lab, "g");
    let (here, there) = (disk(&lab, "h1", "g"), disk(&lab, "h2", "g"));
    let before = contents(&here);
    let slow = "schema = 1\n[migration]\nbandwidth_limit_mib_s = 1\n";
    lab.apply_policy(slow, 0).expect("a policy");
    let ordered = order(&lab, "g", "h2", true, DiskCopy::Whole);
    until("the disk to be copied", SOON, || {
        let journal = lab.journal("h1", &lab.uuid("g"));
        let progress = journal.and_then(|journal| journal.progress);
        progress.is_some_and(|p| p.disk_transferred_bytes > 0)
    });
    assert!(there.exists(), "its file is made before the copy");
    lab.fault(&["agent", "h1", "restart"]);
    let failed = lab.wait_for_end(&ordered.id, END);
    assert_eq!(phase_of(&failed), MigrationPhase::Failed, "{failed:?}");
    assert_eq!(
        failed.state.clone().unwrap_or_default().whereabouts,
        "source"
    );
    until("the file to be gone", SWEPT, || !there.exists());
    assert!(is_defined(&lab, "h1", "g") && !is_defined(&lab, "h2", "g"));
    assert!(contents(&here) == before, "the source's disk has changed");
    until("the order to be removed", SOON, || lab.orders().is_empty());
    // A person starts it while it is copied: what was copied is not it.
    let ordered = order(&lab, "g", "h2", true, DiskCopy::Whole);
    until("the disk to be copied again", SOON, || there.exists());
    lab.run(&["virsh", "h1", "start", "g"]);
    let failed = lab.wait_for_end(&ordered.id, END);
    assert_eq!(phase_of(&failed), MigrationPhase::Failed, "{failed:?}");
    let info = dominfo(&lab, "h1", "g");
    assert!(
        is_so(&info, "Persistent", "yes"),
        "it has lost its definition: {info}"
    );
    assert!(!is_defined(&lab, "h2", "g"));
    until("the file to be gone", SWEPT, || !there.exists());
    lab.assert_lives_on("g", "h1");
}

#[test]
fn what_cannot_be_moved_so_is_refused_by_name() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "runs", &[]);
    add_with_disk(&lab, "kept", 1, &[]);
    lab.run(&["virsh", "h1", "snapshot-create-as", "kept", "once"]);
    lab.run(&["guest", "add", "h1", "passing", "--transient"]);
    for guest in ["runs", "kept", "passing"] {
        wait_until_known(&lab, guest);
    }
    let offline = |disks: DiskCopy| v1::MoveOptions {
        kind: MoveKind::Offline.into(),
        disks: disks.into(),
        downtime_limit_ms: 300,
        ..Default::default()
    };
    let ended = order_by_hand(&lab, 21, "runs", offline(DiskCopy::None));
    assert_eq!(ended.reason, "guest_running", "{ended:?}");
    let info = dominfo(&lab, "h1", "runs");
    assert!(
        is_so(&info, "Persistent", "yes"),
        "it has lost its definition: {info}"
    );
    assert!(!is_defined(&lab, "h2", "runs"));
    lab.assert_lives_on("runs", "h1");
    let ended = order_by_hand(&lab, 22, "kept", offline(DiskCopy::Whole));
    assert_eq!(ended.reason, "has_snapshots", "{ended:?}");
    assert!(!disk(&lab, "h2", "kept").exists());
    for reason in ["guest_running", "has_snapshots"] {
        let series =
            format!(r#"evenkeel_migration_failures_total{{phase="prepare",reason="{reason}"}}"#);
        until("the refusal to be counted", SOON, || {
            metric(&lab, &series) == "1"
        });
    }
    // A guest without a definition of its own gets none on the way.
    assert_moved(&lab, "passing", "h2", false, DiskCopy::None);
    let info = dominfo(&lab, "h2", "passing");
    assert!(is_so(&info, "Persistent", "no"), "{info}");
    lab.assert_lives_on("passing", "h2");
}

#[test]
fn a_copy_is_encrypted_spread_and_compressed_as_the_policy_says() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_slow_guest("h1", "g");
    lab.wait_for_guest("g");
    let ways = [
        (
            "tls = true",
            "info migrate_parameters",
            "tls-creds: 'objlibvirt_migrate_tls0'",
        ),
        (
            "connections = 3",
            "info migrate_parameters",
            "multifd-channels: 3",
        ),
        (
            "compression = \"xbzrle\"",
            "info migrate_capabilities",
            "xbzrle: on",
        ),
    ];
    for (revision, (key, question, answer)) in (0..).zip(ways) {
        lab.apply_policy(&format!("schema = 1\n[migration]\n{key}\n"), revision)
            .expect("a policy");
        let ordered = lab.migrate(Caller::Operator, &lab.some_leader(), "g", "h2");
        let ordered = ordered.expect("the leader orders it");
        until(&format!("{key} in QEMU"), SOON, || {
            let said = lab.attempt(&[
                "virsh",
                "h1",
                "qemu-monitor-command",
                "g",
                "--hmp",
                question,
            ]);
            String::from_utf8_lossy(&said.stdout).contains(answer)
        });
        cancel(&lab, &ordered.id);
        let ended = lab.wait_for_end(&ordered.id, END);
        assert_eq!(phase_of(&ended), MigrationPhase::Cancelled, "{ended:?}");
        until("the order to be removed", SOON, || lab.orders().is_empty());
    }
    lab.full_speed("h1");
    for (revision, key) in (3..).zip(["tls = true", "connections = 3"]) {
        lab.apply_policy(&format!("schema = 1\n[migration]\n{key}\n"), revision)
            .expect("a policy");
        let (from, to) = if revision % 2 == 1 {
            ("h1", "h2")
        } else {
            ("h2", "h1")
        };
        assert_moved(&lab, "g", to, false, DiskCopy::None);
        lab.assert_lives_on("g", to);
        assert!(!is_defined(&lab, from, "g"));
    }
    a_strangers_certificate_gets_nothing(&lab);
}

/// With a certificate of somebody else's authority at the target nothing is sent.
fn a_strangers_certificate_gets_nothing(lab: &Lab) {
    lab.apply_policy("schema = 1\n[migration]\ntls = true\n", 5)
        .expect("a policy");
    let certificates = lab.path(Path::new("h2/qemu-tls"));
    let stranger = lab.path(Path::new("strangers"));
    let make = evenkeel_tests::lab::repository().join("deploy/certs/make-certs");
    run(text(&make), &[text(&stranger), "agent/h2=10.90.1.12"]);
    for (from, to) in [
        ("ca.pem", "ca-cert.pem"),
        ("agent-h2.pem", "server-cert.pem"),
        ("agent-h2.key", "server-key.pem"),
    ] {
        std::fs::copy(stranger.join(from), certificates.join(to)).expect("a certificate");
    }
    let failed = moved(lab, "g", "h2", false, DiskCopy::None);
    assert_eq!(phase_of(&failed), MigrationPhase::Failed, "{failed:?}");
    assert!(
        failed.detail.to_lowercase().contains("certificate"),
        "{}",
        failed.detail
    );
    lab.assert_lives_on("g", "h1");
}
