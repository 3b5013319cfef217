//! libvirt's access driver with the rules that are shipped: a real libvirtd asks a real polkitd.

use std::path::Path;

use evenkeel_tests::{Lab, LabOptions, until};

use crate::{said, text_of};

/// Starts a bus and polkit on a host of the lab, with the rules and the user of the agent.
const POLKIT: &str = r#"set -e
mount -t tmpfs none /mnt
mkdir /mnt/rules /run/dbus
cp /usr/share/polkit-1/rules.d/* "$1" /mnt/rules/
mount --bind /mnt/rules /usr/share/polkit-1/rules.d
for file in passwd group; do cp /etc/$file /mnt/; mount --bind /mnt/$file /etc/$file; done
echo 'evenkeel:x:995:995::/mnt:/usr/sbin/nologin' >>/etc/passwd
echo 'evenkeel:x:995:' >>/etc/group
dbus-daemon --system --fork
setsid -f /usr/lib/polkit-1/polkitd --no-debug >/dev/null 2>&1 </dev/null"#;

const LIBVIRTD: &str = "unix_sock_rw_perms = \"0777\"\naccess_drivers = [ \"polkit\" ]\n";

fn virsh(lab: &Lab, words: &str) -> (bool, String) {
    let line = format!(
        "exec setpriv --reuid=995 --regid=995 --clear-groups timeout 20 virsh -c qemu:///system {words}"
    );
    let done = lab.attempt(&["exec", "h1", "bash", "-c", &line]);
    (done.status.success(), said(&done))
}

#[test]
fn the_agents_user_may_what_agents_do_and_no_more() {
    let lab = Lab::up(&LabOptions {
        hosts: 1,
        daemons: false,
        ..LabOptions::default()
    });
    lab.run(&["guest", "add", "h1", "web1"]);
    let rules = lab.path(Path::new("60-evenkeel-agent.rules"));
    std::fs::write(&rules, text_of("polkit/60-evenkeel-agent.rules")).unwrap();
    let rules = rules.display().to_string();
    lab.run(&["exec", "h1", "bash", "-c", POLKIT, "bash", &rules]);
    let file = lab.path(Path::new("h1/etc/libvirtd.conf"));
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("auth_unix_rw = \"none\"", "auth_unix_rw = \"polkit\"");
    std::fs::write(&file, text + LIBVIRTD).unwrap();
    lab.fault(&["libvirtd", "h1", "kill"]);
    let start = "exec libvirtd -d --listen -f /etc/libvirt/libvirtd.conf";
    lab.run(&["exec", "h1", "bash", "-c", start]);
    until("libvirtd to let the agent's user in", crate::SOON, || {
        virsh(&lab, "uri").0
    });
    for may in [
        "domstats web1",
        "dumpxml web1 --migratable",
        "capabilities",
        "nodeinfo",
        "domjobinfo web1",
        "domdirtyrate-calc web1 --seconds 1",
        "migrate-setmaxdowntime web1 300",
        "autostart web1",
        "net-list",
        "pool-refresh local",
        "vol-create-as local a.raw 1M",
        "vol-dumpxml --pool local a.raw",
        "vol-delete --pool local a.raw",
    ] {
        let (is_well, output) = virsh(&lab, may);
        assert!(is_well, "virsh {may}: {output}");
    }
    for may_not in [
        "suspend web1",
        "shutdown web1",
        "reset web1",
        "pool-destroy local",
    ] {
        let (is_well, output) = virsh(&lab, may_not);
        assert!(
            !is_well && output.contains("access denied"),
            "virsh {may_not}: {output}"
        );
    }
    // libvirt cannot tell who calls over the network: what docs/packaging.md says of migrations then.
    let over_tcp = lab.attempt(&["virsh", "h1", "list"]);
    assert!(
        said(&over_tcp).contains("access denied"),
        "{}",
        said(&over_tcp)
    );
}
