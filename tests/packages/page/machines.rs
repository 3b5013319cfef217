//! A lab's machines with a root of their own each, on which packages can be installed.

use std::path::Path;

use evenkeel_tests::lab::repository;
use evenkeel_tests::{Lab, LabOptions};

use crate::debian::Packages;
use crate::said;

/// Names on the page, and the lab's.
const MACHINES: [(&str, &str); 4] = [("etcd1", "s1"), ("h1", "h1"), ("h2", "h2"), ("h3", "h3")];

/// Makes the machine's root in its own mount namespace: the system below, what is written above, and what the lab
/// has given this machine.
const ROOT: &str = r#"set -e
mount -t tmpfs none /mnt
mkdir /mnt/above /mnt/work /mnt/root
mount -t overlay none -o lowerdir=/,upperdir=/mnt/above,workdir=/mnt/work /mnt/root
for place in /proc /sys /dev /srv /etc/hosts /etc/libvirt /var/lib/libvirt /tmp; do mount --rbind $place /mnt/root$place; done
if [ "$KIND" = host ]; then mount --rbind /run /mnt/root/run; else mount -t tmpfs none /mnt/root/run; fi
mkdir -p /mnt/root/mail
mount --bind "$SHARED" /mnt/root/mail
mkdir -p /mnt/root/root
cp "$SHARED"/*.deb /mnt/root/root/
install "$SHARED/systemctl" "$SHARED/scp" /mnt/root/usr/local/bin/"#;

/// Runs a line of shell in the root. libvirtd lives outside of it and is to know the same users.
const ENTER: &str = r#"set -e
user() { grep -q ^evenkeel: "$1"; }
if user /mnt/root/etc/passwd && ! user /etc/passwd; then
  for file in /etc/passwd /etc/group; do mount --bind /mnt/root$file $file; done
fi
exec chroot /mnt/root env -i HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
  PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euo pipefail -c "$1""#;

/// The machines of the page.
pub(crate) struct Machines {
    lab: Lab,
}

impl Machines {
    pub(crate) fn up() -> Self {
        let machines = Self {
            lab: Lab::up(&LabOptions {
                hosts: 3,
                cpu_percent: 55,
                daemons: false,
                ..LabOptions::default()
            }),
        };
        machines.name_etcd();
        let shared = machines.lab.path(Path::new("mail"));
        std::fs::create_dir(&shared).unwrap();
        for file in Packages::first().debs() {
            std::fs::copy(&file, shared.join(file.file_name().unwrap())).unwrap();
        }
        for stand_in in ["systemctl", "scp"] {
            let from = repository().join("tests/packages/page").join(stand_in);
            std::fs::copy(from, shared.join(stand_in)).unwrap();
        }
        for (name, node) in MACHINES {
            let kind = if name == node { "host" } else { "scheduler" };
            let line = format!("KIND={kind} SHARED={}\n{ROOT}", shared.display());
            machines.lab.run(&["exec", node, "bash", "-c", &line]);
            if kind == "host" {
                machines.open_libvirt(name);
                machines.describe_host(name);
            }
        }
        machines.lab.run(&["fleet", "demo"]);
        machines
    }

    /// In the file that is every machine's `/etc/hosts`.
    fn name_etcd(&self) {
        let file = self.lab.path(Path::new("hosts"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}10.90.0.2 etcd1\n")).unwrap();
    }

    /// The lab's libvirt is root's alone; on a real host the group `libvirt` reaches it.
    fn open_libvirt(&self, host: &str) {
        let file = self.lab.path(&Path::new(host).join("etc/libvirtd.conf"));
        let text = std::fs::read_to_string(&file).unwrap();
        let group = "unix_sock_group = \"libvirt\"\nunix_sock_rw_perms = \"0770\"\n";
        std::fs::write(&file, format!("{text}{group}")).unwrap();
        self.lab.fault(&["libvirtd", host, "restart"]);
    }

    /// What makes a part of this machine look like a host: the lab's own words for its agents.
    fn describe_host(&self, host: &str) {
        let own = self.lab.text(&format!("{host}/agent.toml"));
        let sections = ["[libvirt]", "[capacity]", "[sources]"];
        let kept: Vec<&str> = own
            .split("\n\n")
            .filter(|block| sections.iter().any(|section| block.starts_with(section)))
            .collect();
        assert_eq!(kept.len(), sections.len(), "{own}");
        let shared = self.lab.path(Path::new("mail"));
        let place = shared.join(host).join("etc/evenkeel/agent.toml.d");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("lab.toml"), kept.join("\n\n")).unwrap();
    }

    /// Guests that run on a host, by its libvirt.
    pub(crate) fn guests_on(&self, host: &str) -> usize {
        let names = self.lab.run(&["virsh", host, "list", "--name"]);
        names.split_whitespace().count()
    }

    /// Runs commands on a machine as root; whether they succeeded, and what they said.
    pub(crate) fn run(&self, machine: &str, commands: &str) -> (bool, String) {
        let node = MACHINES.iter().find(|(name, _)| *name == machine);
        let (_, node) = node.unwrap_or_else(|| panic!("the page names {machine}"));
        let mail = format!(
            "if [ -d /mail/{machine} ]; then cp -r /mail/{machine}/. / && rm -r /mail/{machine}; fi"
        );
        let line = format!("{mail}\n{commands}");
        let done = self
            .lab
            .attempt(&["exec", node, "bash", "-c", ENTER, "bash", &line]);
        (done.status.success(), said(&done))
    }
}
