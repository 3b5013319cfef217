//! What came of a scenario, for people and programs: the `evenkeel.simulation/1` document and its text.

use std::fmt::Write as _;

use serde::Serialize;

use crate::compare::{Scenario, SimError, Strategy};
use crate::num::{count, index, ratio};
use crate::score::{BIN_SECONDS, Bin, Move, Outcome};

/// The value of `schema`.
pub const SCHEMA: &str = "evenkeel.simulation/1";
/// A day, s.
const DAY: f64 = 86_400.0;
/// Time between points of a report's history, s.
const POINT_SECONDS: f64 = 1800.0;

/// Several strategies on one fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Seed of everything.
    pub seed: u64,
    /// Virtual time, s.
    pub duration_seconds: f64,
    /// Hosts.
    pub hosts: usize,
    /// Guests.
    pub guests: usize,
    /// What guests wanted on average, over the hosts' cores, 0–1.
    pub mean_cpu_utilisation: f64,
    /// The same in the busiest half hour.
    pub peak_cpu_utilisation: f64,
    /// What of the source was not simulated.
    pub notes: Vec<String>,
    /// One entry per strategy.
    pub strategies: Vec<Row>,
}

/// What came of one strategy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub strategy: Strategy,
    /// Guest-seconds lost, migrations' own cost included.
    pub lost_guest_seconds: f64,
    /// The part of it that migrations cost by themselves.
    pub migrations_lost_guest_seconds: f64,
    /// The part of what guests wanted that was lost.
    pub lost_share: f64,
    /// Guest-seconds of guests on hosts that were down; not part of the loss.
    pub dead_guest_seconds: f64,
    /// Moves that were carried out; 0 for strategies that move for free.
    pub moves: usize,
    /// Per guest and day, on the first day.
    pub moves_per_guest_day_first: f64,
    /// Per guest and day, after it.
    pub moves_per_guest_day_later: f64,
    /// Guests that were back within six hours.
    pub returns: usize,
    /// Those of them whose load had not changed.
    pub ping_pongs: usize,
    /// Migrations that failed.
    pub failed: usize,
    /// Orders that no agent took up.
    pub refused: usize,
    /// Plans that the referee objected to.
    pub faulty_plans: usize,
    /// How promises were kept; `None` without moves.
    pub prediction: Option<Prediction>,
    /// Lost in each half hour, guest-seconds per second, and moves.
    pub history: Vec<Point>,
}

/// Promised against measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prediction {
    /// Measured over promised time of a migration: the middle, and where nine of ten lie.
    pub copy_time_ratio: Quantiles,
    /// Measured less promised pause, s.
    pub downtime_error_seconds: Quantiles,
    /// What all moves together were to save, guest-seconds per hour.
    pub promised_savings_per_hour: f64,
    /// What they saved in the half hour that followed.
    pub measured_savings_per_hour: f64,
    /// Share of moves that saved something, 0–1.
    pub moves_that_saved: f64,
}

/// Where values lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// One in twenty is below.
    pub low: f64,
    /// Half are below.
    pub median: f64,
    /// One in twenty is above.
    pub high: f64,
}

/// One point of a history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// When it ends, s.
    pub at_seconds: f64,
    /// Guest-seconds lost per second.
    pub loss: f64,
    /// Moves that ended in it.
    pub moves: u32,
}

impl Report {
    /// Runs a scenario under each of these strategies.
    ///
    /// # Errors
    /// When the fleet or the policy is broken.
    pub fn of(scenario: &Scenario, strategies: &[Strategy]) -> Result<Self, SimError> {
        let cores: f64 = scenario.fleet.hosts.iter().map(|h| h.facts.cpu_cores).sum();
        let mut report = Self {
            schema: SCHEMA,
            seed: scenario.seed,
            duration_seconds: f64::from(scenario.seconds),
            hosts: scenario.fleet.hosts.len(),
            guests: scenario.fleet.guests.len(),
            mean_cpu_utilisation: 0.0,
            peak_cpu_utilisation: 0.0,
            notes: scenario.fleet.notes.clone(),
            strategies: vec![],
        };
        for &strategy in strategies {
            let outcome = scenario.run(strategy)?;
            let wanted = outcome.wanted / outcome.seconds.max(1.0);
            report.mean_cpu_utilisation = ratio(wanted, cores);
            let peak = points(&outcome).map(|bins| {
                bins.iter().map(|bin| bin.wanted).sum::<f64>() / (count(bins.len()) * BIN_SECONDS)
            });
            report.peak_cpu_utilisation = ratio(peak.fold(0.0, f64::max), cores);
            report.strategies.push(Row::of(strategy, &outcome));
        }
        Ok(report)
    }

    /// The row of a strategy.
    #[must_use]
    pub fn row(&self, strategy: Strategy) -> Option<&Row> {
        self.strategies.iter().find(|row| row.strategy == strategy)
    }

    /// What a strategy loses over what another one loses; `None` when either was not run or the other loses nothing.
    #[must_use]
    pub fn loss_ratio(&self, of: Strategy, to: Strategy) -> Option<f64> {
        let (of, to) = (
            self.row(of)?.lost_guest_seconds,
            self.row(to)?.lost_guest_seconds,
        );
        (to > 0.0).then(|| of / to)
    }

    /// The report as indented JSON, ending in a newline.
    ///
    /// # Errors
    /// When it cannot be written, which none of ours is.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// The report as lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} hosts, {} guests, {:.1} hours, seed {}; CPU wanted: {:.0} % on average, {:.0} % in the busiest half hour",
            self.hosts,
            self.guests,
            self.duration_seconds / 3600.0,
            self.seed,
            100.0 * self.mean_cpu_utilisation,
            100.0 * self.peak_cpu_utilisation
        )?;
        let head = [
            "STRATEGY",
            "LOST",
            "OF WANTED",
            "MIGRATIONS' OWN",
            "MOVES",
            "DAY ONE",
            "LATER",
            "PING-PONG",
        ];
        writeln!(
            out,
            "  {:<20} {:>12} {:>10} {:>16} {:>6} {:>8} {:>7} {:>10}",
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]
        )?;
        for row in &self.strategies {
            row.write_text(out)?;
        }
        writeln!(
            out,
            "LOST and MIGRATIONS' OWN in guest-seconds, DAY ONE and LATER in moves per guest and day"
        )?;
        for (to, words) in [
            (Strategy::DoNothing, "doing nothing"),
            (
                Strategy::Clairvoyant,
                "a clairvoyant hourly repack with free migrations",
            ),
        ] {
            if let Some(ratio) = self.loss_ratio(Strategy::Evenkeel, to) {
                writeln!(out, "evenkeel loses {ratio:.2} times what {words} loses")?;
            }
        }
        let prediction = self.row(Strategy::Evenkeel).and_then(|row| row.prediction);
        prediction.map_or(Ok(()), |prediction| prediction.write_text(out))
    }
}

impl Row {
    fn of(strategy: Strategy, outcome: &Outcome) -> Self {
        let point = |(number, bins): (usize, &[Bin])| Point {
            at_seconds: (count(number) * POINT_SECONDS + count(bins.len()) * BIN_SECONDS)
                .min(outcome.seconds),
            loss: bins.iter().map(|bin| bin.toll.lost()).sum::<f64>()
                / (count(bins.len()) * BIN_SECONDS),
            moves: bins.iter().map(|bin| bin.moves).sum(),
        };
        Self {
            strategy,
            lost_guest_seconds: outcome.lost(),
            migrations_lost_guest_seconds: outcome.toll.migrations,
            lost_share: ratio(outcome.lost(), outcome.wanted),
            dead_guest_seconds: outcome.toll.dead,
            moves: outcome.moves.len(),
            moves_per_guest_day_first: outcome.moves_per_guest_day(0.0, DAY),
            moves_per_guest_day_later: outcome.moves_per_guest_day(DAY, f64::MAX),
            returns: outcome.returns.len(),
            ping_pongs: outcome.ping_pongs(),
            failed: outcome.failed.values().sum(),
            refused: outcome.refusals,
            faulty_plans: outcome.faulty_plans,
            prediction: Prediction::of(&outcome.moves),
            history: points(outcome).enumerate().map(point).collect(),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "  {:<20} {:>12.0} {:>8.2} % {:>16.0} {:>6} {:>8.3} {:>7.3} {:>10}",
            self.strategy.as_str(),
            self.lost_guest_seconds,
            100.0 * self.lost_share,
            self.migrations_lost_guest_seconds,
            self.moves,
            self.moves_per_guest_day_first,
            self.moves_per_guest_day_later,
            self.ping_pongs
        )?;
        let troubles = [
            (
                self.returns - self.ping_pongs,
                "came back with another load",
            ),
            (self.failed, "migrations failed"),
            (self.refused, "orders refused"),
            (self.faulty_plans, "plans were faulty"),
        ];
        let said = troubles.iter().filter(|(n, _)| *n > 0);
        let said: Vec<String> = said.map(|(n, what)| format!("{n} {what}")).collect();
        if !said.is_empty() {
            writeln!(out, "    {}", said.join(", "))?;
        }
        Ok(())
    }
}

/// The history in pieces of [`POINT_SECONDS`].
fn points(outcome: &Outcome) -> std::slice::Chunks<'_, Bin> {
    outcome
        .history
        .chunks(index(POINT_SECONDS / BIN_SECONDS).max(1))
}

impl Prediction {
    fn of(moves: &[Move]) -> Option<Self> {
        let copy = moves
            .iter()
            .map(|m| ratio(m.taken.seconds, m.promise.copy_seconds));
        let pause = moves
            .iter()
            .map(|m| m.taken.downtime_seconds - m.promise.downtime_seconds);
        Some(Self {
            copy_time_ratio: Quantiles::of(copy.collect())?,
            downtime_error_seconds: Quantiles::of(pause.collect())?,
            promised_savings_per_hour: moves.iter().map(|m| m.promise.saves_per_hour).sum(),
            measured_savings_per_hour: moves.iter().map(|m| m.saved_per_hour).sum(),
            moves_that_saved: ratio(
                count(moves.iter().filter(|m| m.saved_per_hour > 0.0).count()),
                count(moves.len()),
            ),
        })
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (copy, pause) = (self.copy_time_ratio, self.downtime_error_seconds);
        writeln!(
            out,
            "migrations took {:.2} times the predicted time ({:.2} to {:.2} for nine of ten), paused {:+.3} s longer \
             than predicted ({:+.3} to {:+.3})",
            copy.median, copy.low, copy.high, pause.median, pause.low, pause.high
        )?;
        writeln!(
            out,
            "savings: promised {:.0} guest-seconds/h, measured {:.0}; {:.0} % of the moves saved something",
            self.promised_savings_per_hour,
            self.measured_savings_per_hour,
            100.0 * self.moves_that_saved
        )
    }
}

impl Quantiles {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = count(values.len().checked_sub(1)?);
        let at = |share: f64| {
            values
                .get(index((last * share).round()))
                .copied()
                .unwrap_or(0.0)
        };
        Some(Self {
            low: at(0.05),
            median: at(0.5),
            high: at(0.95),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Faults;
    use crate::fleet::{Fleet, SimGuest, SimHost};
    use crate::load::Pattern;

    fn report() -> Report {
        let mut fleet = Fleet::default();
        for name in ["h1", "h2"] {
            fleet
                .hosts
                .push(SimHost::new(name.parse().unwrap(), 4.0, 16_384, 1000.0));
        }
        for number in 0..6 {
            let pattern = Pattern::Stationary {
                mean_cores: 0.9,
                stddev_cores: 0.1,
            };
            let host = "h1".parse().unwrap();
            fleet
                .guests
                .push(SimGuest::new(number, &host, (2, 1024), pattern, 1).unwrap());
        }
        let scenario = Scenario {
            fleet,
            faults: Faults::NONE,
            policy: "schema = 1\n".into(),
            seconds: 5400,
            tick_ms: 10_000,
            seed: 1,
        };
        Report::of(&scenario, &Strategy::ALL).unwrap()
    }

    #[test]
    fn parts_of_a_report_add_up() {
        let report = report();
        for row in &report.strategies {
            let summed: f64 = row
                .history
                .iter()
                .map(|point| point.loss * POINT_SECONDS)
                .sum();
            assert!(
                (summed - row.lost_guest_seconds).abs() < 1e-6 * summed.max(1.0),
                "{row:?}"
            );
            let moves: u32 = row.history.iter().map(|point| point.moves).sum();
            assert_eq!(usize::try_from(moves), Ok(row.moves));
            assert!(row.migrations_lost_guest_seconds <= row.lost_guest_seconds);
            assert_eq!(
                row.history.last().map(|point| point.at_seconds),
                Some(5400.0)
            );
        }
        assert!(
            (0.6..0.75).contains(&report.mean_cpu_utilisation),
            "{report:?}"
        );
        assert!(report.peak_cpu_utilisation >= report.mean_cpu_utilisation);
        let ratio = report
            .loss_ratio(Strategy::Evenkeel, Strategy::DoNothing)
            .unwrap();
        assert!(ratio < 0.5, "{ratio}");
    }

    #[test]
    fn the_text_says_what_the_document_holds() {
        let report = report();
        let text = report.to_text();
        let row = report.row(Strategy::Evenkeel).unwrap();
        assert!(row.moves > 0);
        assert!(
            text.starts_with("2 hosts, 6 guests, 1.5 hours, seed 1; "),
            "{text}"
        );
        assert!(
            text.contains(&format!("{:.0}", row.lost_guest_seconds)),
            "{text}"
        );
        assert!(text.contains("times the predicted time"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["strategies"][2]["strategy"], "evenkeel");
        assert_eq!(json["strategies"][2]["moves"], row.moves);
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values = (0..=100).rev().map(f64::from).collect();
        let found = Quantiles::of(values).unwrap();
        assert_eq!((found.low, found.median, found.high), (5.0, 50.0, 95.0));
        assert_eq!(Quantiles::of(vec![]), None);
    }
}
