//! Draws docs/guest-seconds.svg: what a host's guests lose over what they want, by the planner's own model, and
//! what a move has to save. Plain SVG, readable on light and on dark pages.

use std::fmt::Write as _;

use evenkeel_planner::constants::payback;
use evenkeel_planner::{Options, Policy, Snapshot, fleet_loss, plan};
use serde_json::json;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 80.0;
const BOTTOM: f64 = 370.0;
/// Where the entries of the legend stand.
const LEGEND: [(f64, f64); 4] = [(LEFT, 42.0), (LEFT, 60.0), (400.0, 42.0), (400.0, 60.0)];
/// The host, and the demand shown, cores.
const CORES: f64 = 16.0;
const DEMAND: (f64, f64) = (6.0, 22.0);
/// The logarithmic axis, guest-seconds per second.
const LOSS: (f64, f64) = (0.01, 10.0);
/// Guests on it, and vCPUs of each.
const GUESTS: u32 = 8;
const VCPUS: u32 = 4;
/// Deviation of each guest's demand, as a share of it.
const CALM: f64 = 0.1;
const BURSTY: f64 = 1.0;

fn x(demand: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (demand - DEMAND.0) / (DEMAND.1 - DEMAND.0)
}

fn y(loss: f64) -> f64 {
    let share = (loss.clamp(LOSS.0, LOSS.1) / LOSS.0).log10() / (LOSS.1 / LOSS.0).log10();
    BOTTOM - (BOTTOM - TOP) * share
}

/// What equal guests lose on the host when they want that many cores together.
fn loss(demand: f64, restlessness: f64) -> f64 {
    let each = demand / f64::from(GUESTS);
    let guests: Vec<_> = (0..GUESTS)
        .map(|number| {
            json!({
                "name": format!("g{number}"), "host": "h", "vcpus": VCPUS, "memory_mib": 1024,
                "cpu_demand_cores": each, "cpu_demand_stddev_cores": each * restlessness,
            })
        })
        .collect();
    let document = json!({
        "schema": "evenkeel.snapshot/1", "cluster": "picture", "taken_at": "2026-01-01T00:00:00Z",
        "hosts": [{"name": "h", "cpu_cores": CORES, "memory_mib": 65536}], "guests": guests,
    });
    let snapshot = Snapshot::from_json(&document.to_string()).unwrap();
    fleet_loss(&snapshot, &Policy::default()).total
}

/// What the first step of the example's plan costs, guest-seconds, and what loss it has to save.
fn price(fleet: &str, policy: &str) -> (f64, f64) {
    let snapshot = Snapshot::from_json(fleet).unwrap();
    let policy = Policy::parse(policy).unwrap();
    let (plan, _) = plan(&snapshot, &policy, &Options::default());
    let step = plan.steps.first().unwrap();
    let costs = step.costs_guest_seconds + step.price_guest_seconds;
    let payback = payback(policy.aggressiveness);
    (costs, costs * payback.factor / payback.horizon_seconds)
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    )
    .unwrap();
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    )
    .unwrap();
}

fn axes(out: &mut String) {
    const GRID: &str = "stroke=\"#ddd\"";
    for loss in [0.01, 0.1, 1.0, 10.0] {
        line(out, (LEFT, y(loss)), (RIGHT, y(loss)), GRID);
        text(out, (LEFT - 6.0, y(loss) + 4.0), "end", &loss.to_string());
    }
    for cores in (6..=22).step_by(2) {
        let at = x(f64::from(cores));
        line(out, (at, TOP), (at, BOTTOM), GRID);
        text(out, (at, BOTTOM + 18.0), "middle", &cores.to_string());
    }
    let words = format!("cores that the guests want; the host has {CORES}");
    text(out, (RIGHT, BOTTOM + 38.0), "end", &words);
}

fn curve(out: &mut String, colour: &str, dashes: &str, loss: impl Fn(f64) -> f64) {
    write!(
        out,
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" {dashes} points=\""
    )
    .unwrap();
    for step in 0..=160 {
        let demand = DEMAND.0 + (DEMAND.1 - DEMAND.0) * f64::from(step) / 160.0;
        let value = loss(demand);
        if value >= LOSS.0 {
            write!(out, "{:.1},{:.1} ", x(demand), y(value)).unwrap();
        }
    }
    writeln!(out, "\"/>").unwrap();
}

/// The picture, with the price of the move that the example's plan begins with.
pub(crate) fn drawn(fleet: &str, policy: &str) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    let title = format!(
        "Guest-seconds lost per second (logarithmic) by {GUESTS} guests of {VCPUS} vCPUs on one host"
    );
    text(&mut out, (LEFT, 20.0), "start", &title);
    axes(&mut out);
    let (costs, needed) = price(fleet, policy);
    let entries = [
        (
            "#c0392b",
            format!("bursty: deviation {:.0} %", 100.0 * BURSTY),
        ),
        ("#1f6fb2", format!("calm: deviation {:.0} %", 100.0 * CALM)),
        ("#999", "what would wait if demand stood still".to_owned()),
        (
            "#2e8b57",
            format!("a move that costs {costs:.0} guest-seconds has to save {needed:.2}"),
        ),
    ];
    for ((colour, words), (x, y)) in entries.into_iter().zip(LEGEND) {
        let style = format!("stroke=\"{colour}\" stroke-width=\"3\"");
        line(&mut out, (x, y), (x + 18.0, y), &style);
        text(&mut out, (x + 24.0, y + 4.0), "start", &words);
    }
    line(
        &mut out,
        (LEFT, y(needed)),
        (RIGHT, y(needed)),
        "stroke=\"#2e8b57\" stroke-width=\"1.5\"",
    );
    curve(&mut out, "#999", "stroke-dasharray=\"5 4\"", |demand| {
        demand - CORES
    });
    curve(&mut out, "#1f6fb2", "", |demand| loss(demand, CALM));
    curve(&mut out, "#c0392b", "", |demand| loss(demand, BURSTY));
    out.push_str("</svg>\n");
    out
}
