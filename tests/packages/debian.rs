//! The Debian packages: made of the programs under test, clean by lintian, installed, upgraded, removed and purged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use evenkeel_tests::lab::binaries;

use crate::scratch::Scratch;
use crate::{DAEMONS, deployed, run, said};

/// A file that only stands where the packages do: programs, units, completions.
const INSTALLED: [&str; 10] = [
    "/usr/bin/evenkeel",
    "/usr/sbin/evenkeel-agent",
    "/usr/sbin/evenkeel-scheduler",
    "/lib/systemd/system/evenkeel-agent.service",
    "/lib/systemd/system/evenkeel-scheduler.service",
    "/usr/share/polkit-1/rules.d/60-evenkeel-agent.rules",
    "/usr/share/evenkeel/make-certs",
    "/usr/share/bash-completion/completions/evenkeel",
    "/usr/share/zsh/vendor-completions/_evenkeel",
    "/usr/share/fish/vendor_completions.d/evenkeel.fish",
];

/// Packages of one revision.
pub(crate) struct Packages {
    folder: PathBuf,
}

impl Packages {
    fn build(revision: &str) -> Self {
        let folder = binaries().join("packages").join(revision);
        let done = Command::new(deployed("debian/build"))
            .arg(binaries())
            .arg(&folder)
            .arg(revision)
            // Not to be kept: neither debug symbols nor much compression.
            .env("DEB_BUILD_OPTIONS", "noautodbgsym")
            .env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
            .env("DPKG_DEB_COMPRESSOR_LEVEL", "1")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", said(&done));
        Self { folder }
    }

    /// Those that every test may use.
    pub(crate) fn first() -> &'static Self {
        static FIRST: OnceLock<Packages> = OnceLock::new();
        FIRST.get_or_init(|| Self::build("1"))
    }

    fn files(&self, end: &str) -> Vec<PathBuf> {
        let listing = std::fs::read_dir(&self.folder).unwrap();
        let mut files: Vec<PathBuf> = listing
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().ends_with(end))
            .collect();
        files.sort();
        files
    }

    /// The packages' files.
    pub(crate) fn debs(&self) -> Vec<PathBuf> {
        let debs = self.files(".deb");
        assert_eq!(debs.len(), 3, "{debs:?}");
        debs
    }
}

fn names(files: &[PathBuf]) -> String {
    let name = |path: &PathBuf| format!("/tmp/{}", path.file_name().unwrap().to_str().unwrap());
    files.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn lintian_has_nothing_to_say() {
    let changes = Packages::first().files(".changes");
    let [changes] = &changes[..] else {
        panic!("{changes:?}");
    };
    let words = ["--no-cfg", "--allow-root", "--fail-on", "error,warning"];
    let file = changes.display().to_string();
    let done = run("lintian", &[&words[..], &[&file]].concat());
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(said(&done), "");
}

#[test]
fn the_manual_page_of_a_daemon_has_its_options() {
    for daemon in DAEMONS {
        let page = std::fs::read_to_string(deployed(&format!("debian/evenkeel-{daemon}.8")));
        let page = page.unwrap().replace("\\-", "-");
        let program = binaries().join(format!("evenkeel-{daemon}"));
        let help = said(&run(&program.display().to_string(), &["--help"]));
        let flags = help.split_whitespace().filter(|w| w.starts_with("--"));
        let flags: Vec<&str> = flags
            .map(|flag| flag.trim_end_matches([',', '.']))
            .collect();
        assert!(flags.contains(&"--check-config"), "{help}");
        for flag in flags.iter().filter(|flag| flag.len() > 2) {
            assert!(page.contains(flag), "{daemon}: {flag}");
        }
    }
}

/// Without a root of its own nothing here would be the packages'.
fn nothing_is_installed(root: &Scratch) {
    for file in INSTALLED {
        assert!(!root.has(file), "{file} is there already");
    }
}

#[test]
fn what_an_operator_changed_outlives_an_upgrade_and_a_purge_leaves_only_what_is_his() {
    let (first, second) = (Packages::first().debs(), Packages::build("2").debs());
    let root = Scratch::new();
    nothing_is_installed(&root);
    root.bring(&[first.clone(), second.clone()].concat());

    root.run(&format!("dpkg --install {}", names(&first)));
    for file in INSTALLED {
        assert!(root.has(file), "{file} is missing");
    }
    root.run("getent passwd evenkeel && getent group libvirt");
    for daemon in DAEMONS {
        let version = root.run(&format!("evenkeel-{daemon} --version"));
        assert_eq!(
            version,
            format!("evenkeel-{daemon} {}\n", env!("CARGO_PKG_VERSION"))
        );
        let file = format!("/etc/evenkeel/{daemon}.toml");
        root.run(&format!("evenkeel-{daemon} --config {file} --check-config"));
        let enabled =
            format!("/etc/systemd/system/multi-user.target.wants/evenkeel-{daemon}.service");
        root.run(&format!("test -L {enabled}"));
    }
    root.run("evenkeel --version && bash -n /usr/share/bash-completion/completions/evenkeel");

    root.run("sed -i 's/^cluster = .*/cluster = \"mine\"/' /etc/evenkeel/agent.toml");
    root.run("mkdir /etc/evenkeel/agent.toml.d && echo host = \\\"kvm1\\\" >/etc/evenkeel/agent.toml.d/site.toml");
    root.run("touch /etc/evenkeel/tls/agent.key");
    root.run("mkdir -p /var/lib/evenkeel && touch /var/lib/evenkeel/epoch");
    // An operator who has taken a service out does not find it back.
    root.run("systemctl disable evenkeel-scheduler");
    root.run(&format!("dpkg --install {}", names(&second)));
    let version =
        root.run("dpkg-query -W -f '${Version}\\n' evenkeel evenkeel-agent evenkeel-scheduler");
    assert_eq!(
        version.lines().filter(|v| v.ends_with("-2")).count(),
        3,
        "{version}"
    );
    let printed = root.run("evenkeel-agent --config /etc/evenkeel/agent.toml --print-config");
    assert!(
        printed.contains("mine") && printed.contains("kvm1"),
        "{printed}"
    );
    let wants = "/etc/systemd/system/multi-user.target.wants";
    root.run(&format!("test -L {wants}/evenkeel-agent.service"));
    root.run(&format!("test ! -L {wants}/evenkeel-scheduler.service"));

    root.run("dpkg --remove evenkeel evenkeel-agent evenkeel-scheduler");
    nothing_is_installed(&root);
    assert!(root.run("cat /etc/evenkeel/agent.toml").contains("mine"));
    assert!(root.has("/var/lib/evenkeel/epoch"));

    root.run("dpkg --purge evenkeel evenkeel-agent evenkeel-scheduler");
    let left = root.run(
        "find / -xdev -name '*evenkeel*' -not -path '/tmp/*' -not -path '/proc/*'; find /etc/evenkeel",
    );
    let mut left: Vec<&str> = left.lines().filter(|path| is_ours(path)).collect();
    left.sort_unstable();
    left.dedup();
    let expected = [
        "/etc/evenkeel",
        "/etc/evenkeel/agent.toml.d",
        "/etc/evenkeel/agent.toml.d/site.toml",
        "/etc/evenkeel/tls",
        "/etc/evenkeel/tls/agent.key",
    ];
    assert_eq!(left, expected);
}

/// The machine below may hold a repository and logs of its own.
fn is_ours(path: &str) -> bool {
    ["/etc", "/usr", "/lib", "/var/lib", "/run"]
        .iter()
        .any(|place| Path::new(path).starts_with(place))
}
