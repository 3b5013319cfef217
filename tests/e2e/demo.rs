//! The main claim: a hot host is relieved by real live migrations, every time.

use std::process::{Command, Stdio};
use std::time::Instant;

use evenkeel_tests::lab::{binaries, new_id, repository};
use evenkeel_tests::tell;
use evenkeel_tests::turn::{Share, Turn};

#[test]
fn the_demos_claim_holds_three_times_in_a_row() {
    let _turn = Turn::take(Share::Whole);
    for run in 1..=3 {
        let start = Instant::now();
        let done = Command::new(repository().join("deploy/lab/demo"))
            .args(["--id", &new_id(), "--bin"])
            .arg(binaries())
            .stdin(Stdio::null())
            .output()
            .expect("the demo");
        let printed = String::from_utf8_lossy(&done.stdout);
        let seconds = start.elapsed().as_secs();
        assert!(
            done.status.success(),
            "run {run}: {}\n{printed}{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        let verdict = printed.lines().last().unwrap_or_default();
        tell!("demo, run {run}, {seconds} s: {verdict}");
        assert!(seconds < 90, "run {run} took {seconds} s");
    }
}
