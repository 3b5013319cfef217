//! How far the planner is from the optimum: what has been proven, and the goals that a table is held to.
//!
//! `bounds.json` holds per comparison what the exact solver and the plain searches found. The planner's own figures are
//! never kept: they are made anew each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::case::{Case, Key, Reached, fleet, ours};
use crate::family::Family;
use crate::instance::Instance;

/// The goals for [`Comparison::gap`] and [`Comparison::over_best`]: on average over the proven, anywhere, over
/// the best known.
pub const GOALS: (f64, f64, f64) = (0.02, 0.05, 0.10);
/// Proven comparisons that each family must have.
pub const LEAST_PROVEN: usize = 3;
/// Best known values below this are not divided by, guest-seconds per second.
pub const NOTABLE: f64 = 0.01;

/// What is known of a comparison. All values but the horizon are J, guest-seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The comparison's [`Key`].
    pub key: String,
    /// [`Instance::fingerprint`]: the bound belongs to this very problem.
    pub fingerprint: String,
    /// Where the comparison starts: see [`crate::search::start`].
    pub start: f64,
    /// Plain greedy.
    pub greedy: f64,
    /// No placement is better than this.
    pub bound: f64,
    /// The best placement known.
    pub best: f64,
    /// Whether the bound proves the best known to be the optimum, but for 0.1 %.
    pub proven: bool,
}

/// What `exact.py` writes.
#[derive(Debug, Deserialize)]
struct Exact {
    fingerprint: String,
    bound: f64,
    best: f64,
    proven: bool,
}

/// Reads what is known.
///
/// # Errors
/// When the file cannot be read.
pub fn read(file: &Path) -> anyhow::Result<Vec<Known>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

/// What is known of a comparison from its case and from what `exact.py` wrote beside it.
///
/// # Errors
/// When either is missing, or they are not of the same fleet.
pub fn known(dir: &Path, key: Key) -> anyhow::Result<Known> {
    let read = |name: String| {
        let file = dir.join(name);
        std::fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    let case: Case = serde_json::from_str(&read(format!("{key}.json"))?)?;
    let exact: Exact = serde_json::from_str(&read(format!("{key}.exact.json"))?)?;
    ensure!(
        case.fingerprint == exact.fingerprint,
        "{key}: exact.py has solved another fleet"
    );
    let reached = [&case.ours, &case.greedy, &case.annealed];
    let best = reached
        .iter()
        .fold(exact.best, |best, r| best.min(r.objective));
    Ok(Known {
        key: case.key,
        fingerprint: case.fingerprint,
        start: case.start.objective,
        greedy: case.greedy.objective,
        bound: exact.bound.min(best),
        best,
        proven: exact.proven,
    })
}

/// What is known as the text of a file: one comparison in a line.
///
/// # Errors
/// When a value is not finite.
pub fn text(known: &[Known]) -> anyhow::Result<String> {
    let lines: Vec<String> = known
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

/// The planner's plan beside what is known.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Which one.
    pub key: Key,
    /// What is known.
    pub known: Known,
    /// What the planner reaches.
    pub ours: f64,
    /// Steps of its plan.
    pub steps: usize,
    /// Standard deviation of the hosts' CPU utilisation, before and after the plan.
    pub imbalance: (f64, f64),
    /// Seconds that savings are counted over.
    pub horizon: f64,
}

impl Comparison {
    /// Plans the fleet and compares.
    ///
    /// # Errors
    /// When the fleet is not the one that is known.
    pub fn run(known: &Known) -> anyhow::Result<Self> {
        let key: Key = known.key.parse()?;
        let (snapshot, policy) = fleet(key)?;
        let instance = Instance::new(&snapshot, &policy)?;
        ensure!(
            instance.fingerprint() == known.fingerprint,
            "{key} is not the fleet whose bound is known: run `make quality`"
        );
        let (Reached { objective, .. }, plan) = ours(&instance, &snapshot, &policy)?;
        Ok(Self {
            key,
            known: known.clone(),
            ours: objective,
            steps: plan.steps.len(),
            imbalance: (plan.imbalance_before, plan.imbalance_after),
            horizon: instance.horizon,
        })
    }

    /// (reached − bound) / (start − bound); 0 where there is nothing to gain.
    #[must_use]
    pub fn gap_of(&self, reached: f64) -> f64 {
        let room = self.known.start - self.known.bound;
        let above = (reached - self.known.bound).max(0.0);
        if above > 0.0 { above / room } else { 0.0 }
    }

    /// The planner's gap.
    #[must_use]
    pub fn gap(&self) -> f64 {
        self.gap_of(self.ours)
    }

    /// (ours − best known) / best known; none where the best known is below [`NOTABLE`].
    #[must_use]
    pub fn over_best(&self) -> Option<f64> {
        let best = self.known.best;
        (best > NOTABLE * self.horizon).then(|| (self.ours - best) / best)
    }
}

/// What the goals demand and these comparisons miss, in words; empty when all are met.
#[must_use]
pub fn missed(comparisons: &[Comparison]) -> Vec<String> {
    let mut missed = Vec::new();
    let proven: Vec<f64> = comparisons
        .iter()
        .filter(|c| c.known.proven)
        .map(Comparison::gap)
        .collect();
    let average = mean(&proven);
    if average > GOALS.0 {
        missed.push(format!(
            "the average gap over the proven is {}",
            percent(average)
        ));
    }
    for comparison in comparisons {
        let (key, gap) = (comparison.key, comparison.gap());
        if gap > GOALS.1 {
            missed.push(format!("{key}: the gap is {}", percent(gap)));
        }
        if let Some(over) = comparison.over_best().filter(|&over| over > GOALS.2) {
            let (ours, best) = (comparison.ours, comparison.known.best);
            missed.push(format!(
                "{key}: {ours:.1} is {} above the best known, {best:.1}",
                percent(over)
            ));
        }
    }
    for family in Family::ALL {
        let of = |c: &&Comparison| c.key.family == family;
        let proven = comparisons
            .iter()
            .filter(of)
            .filter(|c| c.known.proven)
            .count();
        if proven < LEAST_PROVEN {
            missed.push(format!("{}: {proven} proven", family.name()));
        }
    }
    missed
}

/// The comparisons as a Markdown table, a row for each family, size and strategy.
#[must_use]
pub fn table(comparisons: &[Comparison]) -> String {
    let mut groups: BTreeMap<_, Vec<&Comparison>> = BTreeMap::new();
    for comparison in comparisons {
        let Key {
            family,
            hosts,
            strategy,
            ..
        } = comparison.key;
        let group = groups.entry((strategy, family, hosts));
        group.or_default().push(comparison);
    }
    let mut text = String::from(
        "| strategy | family | hosts | proven | start | bound | best known | greedy | ours | gap, mean | gap, worst \
         | greedy's gap, mean | over best, mean | over best, worst | moves | CPU deviation |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((strategy, family, hosts), group) in groups {
        let average = |of: &dyn Fn(&Comparison) -> f64| {
            mean(&group.iter().map(|c| of(c)).collect::<Vec<f64>>())
        };
        let worst =
            |of: &dyn Fn(&Comparison) -> f64| group.iter().map(|c| of(c)).fold(0.0, f64::max);
        let over = |c: &Comparison| c.over_best().unwrap_or(0.0);
        let _ = writeln!(
            text,
            "| {strategy} | {} | {hosts} | {} of {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {} \
             | {:.1} | {:.3} → {:.3} |",
            family.name(),
            group.iter().filter(|c| c.known.proven).count(),
            group.len(),
            average(&|c| c.known.start),
            average(&|c| c.known.bound),
            average(&|c| c.known.best),
            average(&|c| c.known.greedy),
            average(&|c| c.ours),
            percent(average(&Comparison::gap)),
            percent(worst(&Comparison::gap)),
            percent(average(&|c| c.gap_of(c.known.greedy))),
            percent(average(&over)),
            percent(worst(&over)),
            average(&|c| count(c.steps)),
            average(&|c| c.imbalance.0),
            average(&|c| c.imbalance.1),
        );
    }
    text
}

/// The goals beside what was reached, as a Markdown table.
#[must_use]
pub fn summary(comparisons: &[Comparison]) -> String {
    let gaps = |proven: bool| -> Vec<f64> {
        let these = comparisons.iter().filter(|c| c.known.proven || !proven);
        these.map(Comparison::gap).collect()
    };
    let over: Vec<f64> = comparisons
        .iter()
        .filter_map(Comparison::over_best)
        .collect();
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let fewest = Family::ALL.into_iter().map(|family| {
        let of = |c: &&Comparison| c.key.family == family && c.known.proven;
        comparisons.iter().filter(of).count()
    });
    format!(
        "| | goal | reached |\n|---|---|---|\n\
         | mean gap, {} proven | ≤ {} | {} |\n\
         | worst gap, all {} | ≤ {} | {} |\n\
         | worst over the best known | ≤ {} | {} |\n\
         | proven in each family | ≥ {LEAST_PROVEN} | {} |\n",
        gaps(true).len(),
        percent(GOALS.0),
        percent(mean(&gaps(true))),
        comparisons.len(),
        percent(GOALS.1),
        percent(worst(&gaps(false))),
        percent(GOALS.2),
        percent(worst(&over)),
        fewest.min().unwrap_or(0),
    )
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        0.0
    } else {
        values.iter().sum::<f64>() / count(values.len())
    }
}

#[expect(clippy::as_conversions, reason = "counts are far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(key: &str, bound: f64, best: f64, ours: f64) -> Comparison {
        Comparison {
            key: key.parse().unwrap(),
            known: Known {
                key: key.into(),
                fingerprint: String::new(),
                start: 1000.0,
                greedy: 500.0,
                bound,
                best,
                proven: best - bound < 0.001 * best,
            },
            ours,
            steps: 1,
            imbalance: (0.2, 0.1),
            horizon: 3600.0,
        }
    }

    /// Three proven ones of each family, all met, and then this one.
    fn with(last: Comparison) -> Vec<Comparison> {
        let seeds = Family::ALL
            .into_iter()
            .flat_map(|f| (1..4).map(move |seed| (f, seed)));
        let met = seeds.map(|(family, seed)| {
            let key = format!("{}-5-{seed}-spread", family.name());
            comparison(&key, 100.0, 100.0, 100.0)
        });
        met.chain([last]).collect()
    }

    #[test]
    fn goals_are_missed_by_the_gap_and_by_the_distance_from_the_best_known() {
        let key = "hot_spot-5-4-contention";
        assert_eq!(
            missed(&with(comparison(key, 100.0, 100.0, 109.0))),
            Vec::<String>::new()
        );
        // 5.5 % of the room between start and bound, and 10 % above the best known.
        assert_eq!(missed(&with(comparison(key, 100.0, 135.0, 148.0))).len(), 1);
        assert_eq!(missed(&with(comparison(key, 100.0, 134.0, 150.0))).len(), 2);
        assert_eq!(
            missed(&with(comparison(key, 10.0, 30.0, 40.0))).len(),
            0,
            "too small to divide by"
        );
        // The average over the proven: 22 of them.
        let far = missed(&with(comparison(key, 100.0, 100.0, 1000.0)));
        assert!(far[0].starts_with("the average gap"), "{far:?}");
        let few = missed(&[comparison(key, 100.0, 100.0, 100.0)]);
        assert_eq!(few.len(), Family::ALL.len(), "{few:?}");
    }

    #[test]
    fn there_is_no_gap_where_there_is_nothing_to_gain() {
        let none = comparison("hot_spot-5-4-contention", 1000.0, 1000.0, 1000.0);
        assert_eq!(none.gap().to_bits(), 0.0_f64.to_bits());
        let worse = comparison("hot_spot-5-4-contention", 1000.0, 1000.0, 1001.0);
        assert_eq!(worse.gap(), f64::INFINITY);
    }

    #[test]
    fn what_is_known_is_read_as_it_was_written() {
        let known: Vec<Known> = with(comparison("hot_spot-5-4-spread", 0.1, 0.3, 1.0 / 3.0))
            .into_iter()
            .map(|c| c.known)
            .collect();
        let read: Vec<Known> = serde_json::from_str(&text(&known).unwrap()).unwrap();
        assert_eq!(read, known);
    }
}
