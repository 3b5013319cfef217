//! The main claim: a hot host is relieved by real live migrations, every time.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_tests::lab::{binaries, new_id, repository};
use evenkeel_tests::tell;
use evenkeel_tests::turn::{Share, Turn};

/// A run takes less, the build left out: the one in the middle, so that one hiccup of the machine does not count.
const USUAL: Duration = Duration::from_secs(90);

#[test]
fn the_demos_claim_holds_three_times_in_a_row() {
    let _turn = Turn::take(Share::Whole);
    let mut took = [1, 2, 3].map(|run| {
        let start = Instant::now();
        let done = Command::new(repository().join("deploy/lab/demo"))
            .args(["--id", &new_id(), "--bin"])
            .arg(binaries())
            .stdin(Stdio::null())
            .output()
            .expect("the demo");
        let printed = String::from_utf8_lossy(&done.stdout);
        let took = start.elapsed();
        assert!(
            done.status.success(),
            "run {run}: {}\n{printed}{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        let verdict = printed.lines().last().unwrap_or_default();
        tell!("demo, run {run}, {} s: {verdict}", took.as_secs());
        took
    });
    took.sort_unstable();
    assert!(took[1] < USUAL, "the runs took {took:?}");
}
