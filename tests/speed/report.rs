//! What was measured, for people.

use crate::run::{Block, Timed, Way};

/// The goal: so much longer at most, or so many milliseconds.
const GOAL_SHARE: f64 = 0.10;
const GOAL_MS: f64 = 150.0;

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Virsh => "virsh migrate",
            Self::Evenkeel => "Evenkeel",
        }
    }
}

/// The middle one; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn middle(timed: &[&Timed], figure: impl Fn(&Timed) -> f64) -> f64 {
    median(timed.iter().map(|one| figure(one)).collect())
}

fn per_minute(block: &Block) -> f64 {
    let count = f64::from(u32::try_from(block.timed.len()).unwrap_or(u32::MAX));
    60.0 * count / block.took.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// A block in a line.
pub(crate) fn line(block: &Block) -> String {
    let all: Vec<&Timed> = block.timed.iter().collect();
    format!(
        "{}: {} migrations in {:.1} s, median {:.0} ms (job {:.0} ms, pause {:.0} ms)",
        block.way.as_str(),
        all.len(),
        block.took.as_secs_f64(),
        middle(&all, |one| one.whole),
        middle(&all, |one| one.job),
        middle(&all, |one| one.pause),
    )
}

/// The table, and whether the goal holds.
pub(crate) fn summary(blocks: &[Block], at_a_time: usize) -> String {
    let mut text = format!(
        "{at_a_time} at a time; medians over all migrations, milliseconds.\n\n\
         | | migrations | ask to end | until taken up | libvirt's job | around the job | pause | a minute |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    let mut whole = vec![];
    for way in [Way::Virsh, Way::Evenkeel] {
        let of_way: Vec<&Block> = blocks.iter().filter(|block| block.way == way).collect();
        let timed: Vec<&Timed> = of_way.iter().flat_map(|block| &block.timed).collect();
        let ordered = match way {
            Way::Virsh => "–".to_owned(),
            Way::Evenkeel => format!("{:.0}", middle(&timed, |one| one.ordered)),
        };
        text.push_str(&format!(
            "| {} | {} | {:.0} | {ordered} | {:.0} | {:.0} | {:.0} | {:.1} |\n",
            way.as_str(),
            timed.len(),
            middle(&timed, |one| one.whole),
            middle(&timed, |one| one.job),
            middle(&timed, |one| one.whole - one.job),
            middle(&timed, |one| one.pause),
            median(of_way.iter().map(|block| per_minute(block)).collect()),
        ));
        whole.push(middle(&timed, |one| one.whole));
    }
    let [virsh, evenkeel] = whole[..] else {
        return text;
    };
    let more = evenkeel - virsh;
    // Blocks come in pairs, whichever way is first.
    let pairs = blocks.chunks_exact(2).map(|pair| {
        let of = |way: Way| pair.iter().filter(move |block| block.way == way);
        let median = |way| {
            middle(&of(way).flat_map(|b| &b.timed).collect::<Vec<_>>(), |one| {
                one.whole
            })
        };
        format!("{:+.0}", median(Way::Evenkeel) - median(Way::Virsh))
    });
    let pairs: Vec<String> = pairs.collect();
    let share = more / virsh.max(f64::MIN_POSITIVE);
    let holds = more <= GOAL_MS || share <= GOAL_SHARE;
    text.push_str(&format!(
        "\nA migration takes {more:+.0} ms longer ({:.0} %); pair of blocks by pair: {} ms. The goal, {:.0} % or {GOAL_MS:.0} ms more at most, is {}.\n",
        100.0 * share,
        pairs.join(", "),
        100.0 * GOAL_SHARE,
        if holds { "met" } else { "missed" },
    ));
    text
}
