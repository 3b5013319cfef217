//! The units: nothing in them that systemd does not know, and little that the daemons could do to a host.

use std::path::Path;
use std::process::Output;

use evenkeel_tests::lab::{binaries, repository};
use tempfile::TempDir;

use crate::{DAEMONS, deployed, run, said, text_of};

/// The exposure that a unit may have, in tenths.
const EXPOSURE: &str = "--threshold=20";

fn unit_of(daemon: &str) -> String {
    text_of(&format!("systemd/evenkeel-{daemon}.service"))
}

/// Writes a unit whose programs are those under test: systemd looks whether they are there.
fn placed(folder: &TempDir, unit: &str) -> String {
    let programs = format!("{}/", binaries().canonicalize().unwrap().display());
    let path = folder.path().join("evenkeel-tested.service");
    std::fs::write(&path, unit.replace("/usr/sbin/", &programs)).unwrap();
    path.display().to_string()
}

fn verify(unit: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    run(
        "systemd-analyze",
        &["verify", "--man=no", &placed(&folder, unit)],
    )
}

fn judge(unit: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let words = ["security", "--offline=true", "--no-pager", EXPOSURE];
    run(
        "systemd-analyze",
        &[&words[..], &[&placed(&folder, unit)]].concat(),
    )
}

#[test]
fn systemd_has_nothing_to_say_about_them() {
    for daemon in DAEMONS {
        let done = verify(&unit_of(daemon));
        assert!(done.status.success(), "{daemon}: {}", said(&done));
        assert_eq!(said(&done), "", "{daemon}");
        // A key that it does not know is a warning only.
        let wrong = unit_of(daemon).replace("LockPersonality", "LockPersonalty");
        assert!(said(&verify(&wrong)).contains("LockPersonalty"), "{daemon}");
    }
}

#[test]
fn their_exposure_is_low() {
    for daemon in DAEMONS {
        let done = judge(&unit_of(daemon));
        assert!(done.status.success(), "{daemon}: {}", said(&done));
        let open: Vec<String> = unit_of(daemon)
            .lines()
            .filter(|line| !line.starts_with("Protect"))
            .map(str::to_owned)
            .collect();
        let open = judge(&open.join("\n"));
        assert!(!open.status.success(), "{daemon}: {}", said(&open));
    }
}

/// The values of a key of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let of_key = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    unit.lines().filter_map(of_key).collect()
}

#[test]
fn keys_are_where_the_configuration_looks_for_them() {
    for daemon in DAEMONS {
        let unit = unit_of(daemon);
        let [credential] = values(&unit, "LoadCredential")[..] else {
            panic!("one credential: {unit}");
        };
        let (name, source) = credential.split_once(':').unwrap();
        assert_eq!(values(&unit, "ConditionPathExists"), [source]);
        let key = format!("key = \"/run/credentials/evenkeel-{daemon}.service/{name}\"");
        let configuration = text_of(&format!("config/{daemon}.toml"));
        assert!(configuration.contains(&key), "{key} in {configuration}");
    }
}

#[test]
fn the_unit_and_the_rules_name_the_user_that_is_made() {
    let unit = unit_of("agent");
    let [user] = values(&unit, "User")[..] else {
        panic!("one user: {unit}");
    };
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let file = deployed("systemd/evenkeel-agent.sysusers");
    let at = format!("--root={}", root.path().display());
    let done = run("systemd-sysusers", &[&at, &file.display().to_string()]);
    assert!(done.status.success(), "{}", said(&done));
    let made = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(made.starts_with(&format!("{user}:")), "{made}");
    let rules = text_of("polkit/60-evenkeel-agent.rules");
    assert!(rules.contains(&format!("subject.user !== \"{user}\"")));
}

/// The permissions that the rules give, without their common beginning.
fn permissions() -> Vec<String> {
    let rules = text_of("polkit/60-evenkeel-agent.rules");
    let (_, list) = rules.split_once("evenkeelMay = [").expect("the list");
    let (list, _) = list.split_once("];").expect("its end");
    let quoted = list.split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn libvirt_knows_every_permission_and_the_page_says_what_it_is_for() {
    let given = permissions();
    assert!(given.len() > 10, "{given:?}");
    let actions = Path::new("/usr/share/polkit-1/actions/org.libvirt.api.policy");
    let known = std::fs::read_to_string(actions).expect("libvirt's actions");
    let page = std::fs::read_to_string(repository().join("docs/packaging.md")).unwrap();
    for permission in given {
        let action = format!("<action id=\"org.libvirt.api.{permission}\">");
        assert!(known.contains(&action), "libvirt has no {permission}");
        assert!(
            page.contains(&format!("`{permission}`")),
            "{permission} in docs/packaging.md"
        );
    }
}
