//! `top` in a real terminal: tmux draws it, and what it has drawn is looked at.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::SNAPSHOT;

/// A screen is drawn long before.
const SOON: Duration = Duration::from_secs(60);

/// A tmux server of its own, gone with it.
struct Tmux(tempfile::TempDir);

impl Tmux {
    fn run(&self, args: &[&str]) -> String {
        let socket = self.0.path().join("tmux");
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(socket).args(["-f", "/dev/null"]);
        let done = tmux.args(args).output().expect("tmux");
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "tmux {args:?}: {why}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// The screen, once it has this on it.
    fn shows(&self, part: &str) -> String {
        let began = Instant::now();
        loop {
            let screen = self.run(&["capture-pane", "-p", "-t", "top"]);
            if screen.contains(part) {
                return screen;
            }
            assert!(began.elapsed() < SOON, "{part:?} is not on\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&self, key: &str) {
        self.run(&["send-keys", "-t", "top", key]);
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.0.path().join("tmux");
        let mut tmux = Command::new("tmux");
        // Nobody is there any more when the last window has closed.
        let _ = tmux.arg("-S").arg(socket).arg("kill-server").output();
    }
}

#[test]
fn top_draws_a_fleet_obeys_keys_and_leaves_the_terminal_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.json"), SNAPSHOT).unwrap();
    let tmux = Tmux(folder);
    let tool = assert_cmd::cargo::cargo_bin!("evenkeel");
    let shell = "PS1='> ' TERM=screen-256color exec sh";
    let place = tmux.0.path().to_str().unwrap().to_owned();
    tmux.run(&[
        "new-session",
        "-d",
        "-s",
        "top",
        "-x",
        "100",
        "-y",
        "28",
        "-c",
        &place,
        shell,
    ]);
    let start = format!(
        "echo before; {} top --snapshot s.json; echo \"left with $?\"",
        tool.display()
    );
    tmux.press(&start);
    tmux.press("Enter");
    let screen = tmux.shows("saves");
    let rows: Vec<&str> = screen.lines().collect();
    assert!(rows[0].starts_with("fleet lab   losing "), "{screen}");
    assert!(
        screen.contains("by loss") && screen.contains("not moved: "),
        "{screen}"
    );
    let kvm1 = rows.iter().find(|row| row.contains("kvm1 ")).unwrap();
    assert!(
        kvm1.contains("[||||") && kvm1.contains("9.6/4.0]"),
        "{screen}"
    );
    assert!(
        !screen.contains("before"),
        "it has a screen of its own: {screen}"
    );
    for order in ["by CPU", "by memory", "by name"] {
        tmux.press("s");
        tmux.shows(order);
    }
    tmux.press("q");
    let screen = tmux.shows("left with 0");
    assert!(
        screen.contains("before") && !screen.contains("Hosts"),
        "{screen}"
    );
}

#[test]
fn top_without_a_terminal_says_what_to_do_instead() {
    let run = crate::world::run_in(
        Path::new("/"),
        Some(Path::new("/nowhere")),
        &["top", "--snapshot", "s.json"],
    );
    run.fails(64, "`evenkeel status --watch`");
}
