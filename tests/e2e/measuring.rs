//! What goes on being measured while something on the host does not answer.

use std::time::Duration;

use evenkeel_tests::{Lab, LabOptions, until};

use crate::SOON;

/// Longer than any of the agent's questions comes round: kinds, jobs and the rare statistics.
const EVERY_QUESTION: Duration = Duration::from_secs(40);

#[test]
fn a_qemu_that_hangs_hides_no_other_guest() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "stuck", &[]);
    lab.add_guest("h1", "g", &[]);
    lab.wait_for_guest("g");
    lab.fault(&["qemu", "h1/stuck", "stop"]);
    lab.run(&["guest", "set", "g", "c40"]);
    until("the load to be seen", SOON, || used(&lab, "g") > 0.2);
    std::thread::sleep(EVERY_QUESTION);
    lab.run(&["guest", "set", "g", "c0"]);
    until("its end to be seen", SOON, || used(&lab, "g") < 0.1);
    let report = lab.report("h1").expect("a report");
    assert!(report.libvirt_up, "the host answers");
    lab.fault(&["qemu", "h1/stuck", "cont"]);
    lab.assert_lives_on("stuck", "h1");
}

/// CPU that a guest on h1 uses by the newest report, cores.
fn used(lab: &Lab, guest: &str) -> f64 {
    let uuid = lab.uuid(guest);
    let report = lab.report("h1").expect("a report");
    let guest = report.guests.into_iter().find(|guest| guest.uuid == uuid);
    guest.map_or(0.0, |guest| guest.cpu_used_cores)
}
