//! Dirty rates are measured on request: the leader has guests measured that its plan wants to move, the curve reaches
//! the report, the snapshot and the price of a copy, and no guest feels it.

use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_tests::network::Caller;
use evenkeel_tests::{Lab, LabOptions, until, wait_for};
use tonic::{Code, Request, Status};

use crate::{QUICK_POLICY, SOON};

/// Writes the same 32 MiB all over again, each page some twice a second.
const HOT: &str = "r0 s8192 d16000";
/// Writes 20 MiB/s, and 192 MiB before it comes to the first again.
const LARGE: &str = "r0 s49152 d5000";
/// Room for both beside their writing.
const LAB: LabOptions = LabOptions {
    hosts: 2,
    cpu_percent: 90,
    memory_mib: 2048,
    share: evenkeel_tests::turn::Share::Third,
    etcd_members: 1,
    keepalive: (5, 5),
    prometheus: false,
    shipped_agents: false,
    daemons: true,
    locks: false,
};
/// A copy over this link does not keep up with LARGE, and with what HOT writes only because it is always the same.
const LINK: &str =
    "\n[migration]\nbandwidth_limit_mib_s = 10\ndowntime_limit = \"6s\"\nauto_converge = false\n";
/// A measurement takes 21 s, and some more on a busy machine.
const MEASURE: Duration = Duration::from_secs(70);

#[test]
fn candidates_are_measured_and_their_copies_priced_by_the_curve() {
    let lab = Lab::up(&LAB);
    lab.apply_policy(&format!("{QUICK_POLICY}{LINK}"), 0)
        .expect("the policy is taken");
    for name in ["hot", "large"] {
        lab.add_guest("h1", name, &["--mem", "256"]);
        lab.run(&["guest", "set", name, "c50"]);
    }
    let planned = wait_for("a candidate to be measured", 3 * SOON, || {
        let report = lab.report("h1")?;
        let guest = report.guests.into_iter().find(|g| g.dirty_curve.is_some());
        guest.map(|guest| guest.name)
    });
    assert_eq!(lab.orders_ever(), [], "in mode observe");
    let plans = lab.text("s1/scheduler.log") + &lab.text("s2/scheduler.log");
    let plans = plans + &lab.text("s3/scheduler.log");
    assert!(plans.contains("planned"), "{planned} was a candidate");

    for (name, dials) in [("hot", HOT), ("large", LARGE)] {
        let dials = format!("guest set {name} c0 {dials}");
        lab.run(&dials.split(' ').collect::<Vec<_>>());
    }
    until("both to have written all they write", SOON, || {
        let pages = |name| lab.heart(name).beats.last().map_or(0, |beat| beat.pages);
        pages("hot") > 8192 && pages("large") > 8192
    });
    let hot = measured_anew(&lab, "hot");
    let large = measured_anew(&lab, "large");
    // Of 128 pages that are looked at 16 are in the hot set: a third more or less is chance.
    assert!(
        hot.iter().all(|(_, mib)| (12.0..64.0).contains(mib)),
        "{hot:?}"
    );
    assert!(hot[2].1 < 2.0 * hot[0].1, "flat: {hot:?}");
    assert!(large[2].1 > 2.0 * large[0].1, "steep: {large:?}");

    for (name, curve) in [("hot", &hot), ("large", &large)] {
        until(
            &format!("the snapshot to have the curve of {name}"),
            SOON,
            || curve_in_snapshot(&lab, name) == *curve,
        );
    }
    let priced = |name: &str| lab.run(&["evenkeel", "explain", "move", name, "h2"]);
    let (hot_price, large_price) = (priced("hot"), priced("large"));
    assert!(
        !hot_price.contains("MiB in 4 s"),
        "it converges: {hot_price}"
    );
    assert!(large_price.contains("MiB in 4 s"), "{large_price}");
    let shown = lab.run(&["evenkeel", "guest", "show", "hot"]);
    assert!(shown.contains("(measured)"), "{shown}");
    for name in ["hot", "large"] {
        lab.assert_lives_on(name, "h1");
    }
}

/// Has a guest measured, once nobody else is being; its curve is the one that the report shows then.
fn measured_anew(lab: &Lab, name: &str) -> Vec<(f64, f64)> {
    let uuid = lab.uuid(name);
    let curve = wait_for(
        &format!("{name} to be measured"),
        2 * MEASURE,
        || match measure(lab, &uuid) {
            Ok(curve) => Some(curve),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                None
            }
        },
    );
    let seconds: Vec<f64> = curve.points.iter().map(|point| point.seconds).collect();
    assert_eq!(seconds, [1.0, 2.0, 4.0]);
    until(&format!("the report to have {name}'s curve"), SOON, || {
        let report = lab.report("h1").expect("a report");
        let guest = report.guests.into_iter().find(|guest| guest.uuid == uuid);
        guest.and_then(|guest| guest.dirty_curve) == Some(curve.clone())
    });
    points(&curve)
}

fn measure(lab: &Lab, uuid: &str) -> Result<v1::DirtyCurve, Status> {
    lab.inside(|| async {
        let mut agent = lab.agent(Caller::Scheduler("s1"), "h1");
        let mut request = Request::new(v1::MeasureDirtyRateRequest {
            guest_uuid: uuid.to_owned(),
        });
        request.set_timeout(MEASURE);
        let reply = agent.measure_dirty_rate(request).await?;
        Ok(reply.into_inner().curve.expect("a curve"))
    })
}

fn points(curve: &v1::DirtyCurve) -> Vec<(f64, f64)> {
    let points = curve.points.iter();
    points.map(|point| (point.seconds, point.mib)).collect()
}

fn curve_in_snapshot(lab: &Lab, name: &str) -> Vec<(f64, f64)> {
    let snapshot = lab.json(&["evenkeel", "snapshot"]);
    let guests = snapshot["guests"].as_array().cloned().unwrap_or_default();
    let guest = guests.into_iter().find(|guest| guest["name"] == name);
    let curve = guest.map(|guest| guest["dirty_curve"].clone());
    let curve = curve.and_then(|curve| serde_json::from_value(curve).ok());
    curve.unwrap_or_default()
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    let lab = Lab::up(&LabOptions::default());
    lab.add_guest("h1", "g", &[]);
    let uuid = lab.uuid("g");
    let refused = |uuid: &str| measure(&lab, uuid).map_err(|status| status.code());
    assert_eq!(refused("nonsense"), Err(Code::InvalidArgument));
    let stranger = "00000000-0000-0000-0000-000000000001";
    assert_eq!(refused(stranger), Err(Code::NotFound));
    lab.run(&["virsh", "h1", "suspend", "g"]);
    assert_eq!(refused(&uuid), Err(Code::FailedPrecondition));
    lab.run(&["virsh", "h1", "resume", "g"]);
    // A sample of somebody else's is respected, and is over some time.
    lab.run(&["virsh", "h1", "domdirtyrate-calc", "g", "--seconds", "5"]);
    assert_eq!(refused(&uuid), Err(Code::Unavailable));
    // A QEMU that hangs keeps the place until it answers, and nothing else.
    lab.fault(&["qemu", "h1/g", "stop"]);
    assert_eq!(refused(&uuid), Err(Code::Unavailable));
    assert_eq!(refused(&uuid), Err(Code::ResourceExhausted));
    lab.fault(&["qemu", "h1/g", "cont"]);
    until("the guest to be measured after all", 2 * MEASURE, || {
        measure(&lab, &uuid).is_ok()
    });
    // An agent that is told to end does not see a measurement through, and the next one begins anew.
    let before = agent(&lab);
    std::thread::scope(|scope| {
        let cut_short = scope.spawn(|| refused(&uuid));
        until("the guest to be watched", SOON, || {
            lab.run(&["virsh", "h1", "domstats", "--dirtyrate", "g"])
                .contains("calc_status=1")
        });
        lab.fault(&["agent", "h1", "term"]);
        let code = cut_short.join().expect("its answer");
        assert_eq!(code.map(|_| ()), Err(Code::Unavailable));
    });
    until("another agent", SOON, || {
        lab.fault(&["agent", "h1", "start"]);
        agent(&lab).is_some_and(|pid| Some(pid) != before)
    });
    until(
        "the guest to be measured by another agent",
        2 * MEASURE,
        || measure(&lab, &uuid).is_ok(),
    );
    assert_eq!(lab.running_on("g"), ["h1"]);
}

/// The process of h1's agent.
fn agent(lab: &Lab) -> Option<u64> {
    let mut daemons = lab.daemons().into_iter();
    daemons.find_map(|(name, pid)| (name == "h1").then_some(pid)?)
}
