//! Bringing labs up and down, and the verbs of `deploy/lab/lab`.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::tell;
use crate::turn::{Share, Turn};

/// Labs brought up by this process.
static LABS: AtomicU32 = AtomicU32::new(0);
/// Lines of each log that are shown when a test fails.
const LOG_TAIL: usize = 25;

/// How a lab is made.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Hosts `h1` … `hN`.
    pub hosts: u32,
    /// Quota of a host, percent of a core.
    pub cpu_percent: u32,
    /// Memory a host says it has.
    pub memory_mib: u32,
    /// How much of the machine it wants.
    pub share: Share,
    /// Members of etcd, 1 or 3.
    pub etcd_members: u32,
    /// When libvirt gives up a silent peer: seconds and count.
    pub keepalive: (u32, u32),
    /// Whether Prometheus runs.
    pub prometheus: bool,
    /// Whether the hosts' libvirt takes locks on disks.
    pub locks: bool,
    /// Whether agents are the build that is shipped: for measuring what they cost.
    pub shipped_agents: bool,
    /// Whether Evenkeel runs; without it there is one machine for a scheduler.
    pub daemons: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            hosts: 2,
            cpu_percent: 60,
            memory_mib: 1024,
            share: Share::Third,
            etcd_members: 1,
            keepalive: (5, 5),
            prometheus: false,
            locks: false,
            shipped_agents: false,
            daemons: true,
        }
    }
}

/// A lab with Evenkeel running in it; taken down when dropped, and when this process dies.
#[derive(Debug)]
pub struct Lab {
    id: String,
    program: PathBuf,
    directory: PathBuf,
    pub(crate) etcd_members: u32,
    /// Links to programs of several builds; goes with the lab.
    _mixed: Option<TempDir>,
    _turn: Turn,
}

impl Lab {
    /// Brings a lab up; with daemons, waits until a leader has seen every host.
    #[must_use]
    pub fn up(options: &LabOptions) -> Self {
        evenkeel_daemon::install_crypto();
        let turn = Turn::take(options.share);
        let id = new_id();
        let mixed = options.shipped_agents.then(with_shipped_agent);
        let programs = mixed.as_ref().map_or_else(binaries, |d| d.path().into());
        let lab = Self {
            directory: run_root().join(&id),
            program: repository().join("deploy/lab/lab"),
            id,
            etcd_members: options.etcd_members,
            _mixed: mixed,
            _turn: turn,
        };
        let mut words: Vec<String> = vec!["up".to_owned()];
        if options.daemons {
            words.extend(["--daemons".to_owned(), "--bin".to_owned()]);
            words.push(programs.display().to_string());
        } else {
            words.extend(["--no-daemons", "--schedulers", "1"].map(str::to_owned));
        }
        words.extend(["--watchdog".to_owned(), std::process::id().to_string()]);
        words.extend(["--cpu".to_owned(), options.cpu_percent.to_string()]);
        words.extend(["--mem".to_owned(), options.memory_mib.to_string()]);
        words.extend(["--etcd".to_owned(), options.etcd_members.to_string()]);
        let (seconds, count) = options.keepalive;
        words.extend(["--keepalive".to_owned(), format!("{seconds}x{count}")]);
        if !options.prometheus {
            words.push("--no-prometheus".to_owned());
        }
        if options.locks {
            words.push("--locks".to_owned());
        }
        words.push(options.hosts.to_string());
        lab.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        if options.daemons {
            lab.wait_for_picture(options.hosts);
        }
        lab
    }

    /// Its id, at most six letters and digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A file or folder of its run directory.
    #[must_use]
    pub fn path(&self, below: &Path) -> PathBuf {
        self.directory.join(below)
    }

    /// The end of a file of the run directory.
    #[must_use]
    pub fn text(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(Path::new(below))).unwrap_or_default()
    }

    /// `lab WORDS`, to be started.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--id", &self.id]).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `lab WORDS`, whatever comes of it.
    #[must_use]
    pub fn attempt(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the lab's command")
    }

    /// Runs `lab WORDS`, which must succeed; returns what it printed.
    pub fn run(&self, words: &[&str]) -> String {
        let done = self.attempt(words);
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "lab {}: {}\n{printed}{}",
            words.join(" "),
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        printed
    }

    /// Runs `lab WORDS` and reads its JSON.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Value {
        let printed = self.run(words);
        serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("lab {}: {error}: {printed}", words.join(" ")))
    }

    /// `lab fault WORDS`.
    pub fn fault(&self, words: &[&str]) {
        self.run(&[&["fault"], words].concat());
    }

    /// `lab fault WORDS`, all but done: [`Primed::go`] does it within milliseconds.
    #[must_use]
    pub fn prime(&self, words: &[&str]) -> Primed {
        let mut command = self.command(&[&["fault", "--on-line"], words].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the lab's command");
        let mut said = String::new();
        let output = child.stdout.take().expect("its output");
        let read = BufReader::new(output).read_line(&mut said);
        assert!(
            read.is_ok() && said.trim() == "ready",
            "lab fault {}: {said}",
            words.join(" ")
        );
        Primed { child }
    }

    /// Names and process ids of all daemons; a crash shows as a missing or another one.
    #[must_use]
    pub fn daemons(&self) -> Vec<(String, Option<u64>)> {
        let described = self.json(&["json"]);
        let of = |kind: &str| described[kind].as_array().cloned().unwrap_or_default();
        let every = of("hosts").into_iter().chain(of("schedulers"));
        every
            .map(|node| {
                let name = node["name"].as_str().unwrap_or_default().to_owned();
                (name, node["pid"].as_u64())
            })
            .collect()
    }

    /// Keeps the daemons' logs and shows their ends.
    pub fn keep_logs(&self) {
        let kept = binaries().join("lab-logs").join(&self.id);
        tell!("lab {} failed; its logs are in {}", self.id, kept.display());
        for node in ["s1", "s2", "s3", "h1", "h2", "h3", "router"] {
            for name in ["scheduler.log", "agent.log", "etcd-1.log"] {
                let text = self.text(&format!("{node}/{name}"));
                if text.is_empty() {
                    continue;
                }
                // Keeping is best effort: the test has failed already.
                drop(std::fs::create_dir_all(kept.join(node)));
                drop(std::fs::write(kept.join(node).join(name), &text));
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
                tell!("---- {node}/{name}\n{}", tail.join("\n"));
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
        let down = self.attempt(&["down"]);
        if !down.status.success() && !std::thread::panicking() {
            panic!("lab down: {}", String::from_utf8_lossy(&down.stderr));
        }
    }
}

/// A fault that waits for the word. Dropped without it, the fault is injected, too: its input ends.
#[derive(Debug)]
pub struct Primed {
    child: Child,
}

impl Primed {
    /// Injects it; returns when it stands.
    pub fn go(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("the lab's command ends");
        assert!(status.success(), "a fault was not injected: {status}");
    }
}

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Where the programs under test are: `LAB_BIN`, else the build that this test is a part of.
#[must_use]
pub fn binaries() -> PathBuf {
    if let Some(given) = std::env::var_os("LAB_BIN").filter(|given| !given.is_empty()) {
        return given.into();
    }
    let own = std::env::current_exe().expect("this test's own path");
    own.ancestors()
        .nth(2)
        .expect("target/debug above deps")
        .to_owned()
}

/// A folder of links to the programs under test, with the agent as it is shipped.
fn with_shipped_agent() -> TempDir {
    let ours = binaries().canonicalize().expect("the programs under test");
    let shipped = ours.with_file_name("release").join("evenkeel-agent");
    assert!(
        shipped.exists(),
        "{} is missing: cargo build --release -p evenkeel-agent",
        shipped.display()
    );
    let folder = tempfile::tempdir_in(&ours).expect("a folder for links");
    let link = |program: PathBuf| {
        let name = program.file_name().expect("a program's name");
        symlink(&program, folder.path().join(name)).expect("a link");
    };
    link(shipped);
    link(ours.join("evenkeel-scheduler"));
    link(ours.join("evenkeel"));
    folder
}

fn run_root() -> PathBuf {
    std::env::var_os("LAB_RUN").map_or_else(|| "/tmp/evenkeel-lab".into(), PathBuf::from)
}

/// A letter that counts this process' labs, and its process id in base 36.
#[must_use]
pub fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rest = std::process::id();
    let mut digits = vec![];
    while rest > 0 {
        digits.push(char::from(DIGITS[usize::try_from(rest % 36).unwrap_or(0)]));
        rest /= 36;
    }
    let count = LABS.fetch_add(1, Ordering::Relaxed);
    let letter = DIGITS[10 + usize::try_from(count % 26).unwrap_or(0)];
    std::iter::once(char::from(letter))
        .chain(digits.into_iter().rev())
        .collect()
}
