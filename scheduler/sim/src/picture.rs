//! A report as a picture: loss over time for every strategy, and the moves below. Plain SVG, without scripts and fonts
//! of its own, readable on light and on dark pages.

use std::fmt::Write as _;

use crate::compare::Strategy;
use crate::num::count;
use crate::report::{Point, Report, Row};

/// Size of the picture, and where its two panels lie, px.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
const LOSS: (f64, f64) = (60.0, 330.0);
const MOVES: (f64, f64) = (370.0, 455.0);
/// Where the legend begins, and what an entry takes beside its words, of which a character takes so much.
const LEGEND: (f64, f64) = (LEFT, 37.0);
const KEY_WIDTH: f64 = 40.0;
const CHARACTER_WIDTH: f64 = 6.6;
/// Below this loss, guest-seconds per second, the logarithmic axis ends.
const LEAST: f64 = 0.01;

fn colour(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::DoNothing => "#c0392b",
        Strategy::Random => "#b8860b",
        Strategy::Evenkeel => "#1f6fb2",
        Strategy::Hindsight => "#8e6fb5",
        Strategy::Clairvoyant => "#2e8b57",
    }
}

impl Report {
    /// The report as an SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.draw(&mut out);
        out
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"
        )?;
        let title = format!(
            "{} hosts, {} guests: guest-seconds lost per second (logarithmic), and moves",
            self.hosts, self.guests
        );
        text(out, (LEFT, 20.0), "start", &title)?;
        let axes = Axes::of(self);
        axes.draw(out)?;
        let mut key = LEGEND;
        for row in &self.strategies {
            axes.curve(out, row)?;
            let words = format!("{}: {:.0}", row.strategy.as_str(), row.lost_guest_seconds);
            let width = KEY_WIDTH + CHARACTER_WIDTH * count(words.len());
            if key.0 + width > RIGHT {
                key = (LEGEND.0, key.1 + 15.0);
            }
            let ((x, y), hue) = (key, colour(row.strategy));
            writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"18\" height=\"4\" fill=\"{hue}\"/>",
                y - 6.0
            )?;
            text(out, (x + 24.0, y), "start", &words)?;
            key.0 += width;
        }
        if let Some(row) = self.row(Strategy::Evenkeel) {
            axes.bars(out, &row.history)?;
        }
        out.push_str("</svg>\n");
        Ok(())
    }
}

/// What the axes stand for.
struct Axes {
    seconds: f64,
    /// Powers of ten.
    decades: (f64, f64),
    moves: f64,
}

impl Axes {
    fn of(report: &Report) -> Self {
        let points = || report.strategies.iter().flat_map(|row| &row.history);
        let most = points().map(|point| point.loss).fold(1.0, f64::max);
        let moves = points()
            .map(|point| f64::from(point.moves))
            .fold(1.0, f64::max);
        Self {
            seconds: report.duration_seconds.max(1.0),
            decades: (LEAST.log10(), most.log10().ceil()),
            moves,
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (seconds / self.seconds).min(1.0)
    }

    fn y(&self, loss: f64) -> f64 {
        let (low, high) = self.decades;
        let share = (loss.max(LEAST).log10() - low) / (high - low).max(1.0);
        LOSS.1 - (LOSS.1 - LOSS.0) * share
    }

    fn draw(&self, out: &mut String) -> std::fmt::Result {
        let mut decade = self.decades.0;
        while decade <= self.decades.1 {
            let loss = 10_f64.powf(decade);
            let y = self.y(loss);
            line(out, (LEFT, y), (RIGHT, y))?;
            let words = if decade <= self.decades.0 {
                format!("≤ {loss}")
            } else {
                format!("{loss}")
            };
            text(out, (LEFT - 6.0, y + 4.0), "end", &words)?;
            decade += 1.0;
        }
        let (unit, name) = self.unit();
        let mut at = 0.0;
        while at <= self.seconds {
            let x = self.x(at);
            line(out, (x, LOSS.0), (x, MOVES.1))?;
            text(
                out,
                (x, MOVES.1 + 18.0),
                "middle",
                &format!("{:.0}", at / unit),
            )?;
            at += unit;
        }
        text(out, (RIGHT, MOVES.1 + 36.0), "end", name)?;
        line(out, (LEFT, MOVES.1), (RIGHT, MOVES.1))?;
        text(
            out,
            (LEFT - 6.0, MOVES.0 + 4.0),
            "end",
            &format!("{:.0}", self.moves),
        )?;
        text(out, (LEFT - 6.0, MOVES.1 + 4.0), "end", "0")?;
        text(
            out,
            (LEFT, MOVES.0 - 8.0),
            "start",
            "moves of evenkeel per half hour",
        )
    }

    /// Time between two marks, at most 24 of them.
    fn unit(&self) -> (f64, &'static str) {
        match self.seconds {
            s if s > 2.0 * 86_400.0 => (86_400.0_f64.max(s / 24.0), "days"),
            s if s > 7200.0 => ((s / 86_400.0).ceil() * 3600.0, "hours"),
            _ => (600.0, "10 minutes"),
        }
    }

    fn curve(&self, out: &mut String, row: &Row) -> std::fmt::Result {
        write!(
            out,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"",
            colour(row.strategy)
        )?;
        for point in &row.history {
            write!(
                out,
                "{:.1},{:.1} ",
                self.x(point.at_seconds),
                self.y(point.loss)
            )?;
        }
        writeln!(out, "\"/>")
    }

    fn bars(&self, out: &mut String, history: &[Point]) -> std::fmt::Result {
        let mut begins = 0.0;
        for point in history {
            let (x, end) = (self.x(begins), self.x(point.at_seconds));
            begins = point.at_seconds;
            if point.moves == 0 {
                continue;
            }
            let height = (MOVES.1 - MOVES.0) * f64::from(point.moves) / self.moves;
            let (y, width) = (MOVES.1 - height, (end - x - 0.3).max(0.5));
            let hue = colour(Strategy::Evenkeel);
            writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{hue}\"/>"
            )?;
        }
        Ok(())
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) -> std::fmt::Result {
    writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    )
}

/// Text without markup: ours has no name in it that somebody else gave.
fn text(out: &mut String, at: (f64, f64), anchor: &str, words: &str) -> std::fmt::Result {
    writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>",
        at.0, at.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::SCHEMA;

    fn row(strategy: Strategy, losses: &[f64], moves: u32) -> Row {
        let point = |(n, &loss): (u32, &f64)| Point {
            at_seconds: f64::from(n) * 1800.0,
            loss,
            moves,
        };
        Row {
            strategy,
            lost_guest_seconds: 12.0,
            migrations_lost_guest_seconds: 0.0,
            lost_share: 0.0,
            dead_guest_seconds: 0.0,
            moves: 0,
            moves_per_guest_day_first: 0.0,
            moves_per_guest_day_later: 0.0,
            returns: 0,
            ping_pongs: 0,
            failed: 0,
            refused: 0,
            faulty_plans: 0,
            prediction: None,
            history: (1..).zip(losses).map(point).collect(),
        }
    }

    fn report(strategies: Vec<Row>) -> Report {
        Report {
            schema: SCHEMA,
            seed: 1,
            duration_seconds: 7200.0,
            hosts: 2,
            guests: 3,
            mean_cpu_utilisation: 0.5,
            peak_cpu_utilisation: 0.5,
            notes: vec![],
            strategies,
        }
    }

    #[test]
    fn a_picture_has_a_curve_per_strategy_and_stays_within_its_frame() {
        let report = report(vec![
            row(Strategy::DoNothing, &[0.0, 5.0, 99.0, 1e-9], 0),
            row(Strategy::Evenkeel, &[0.0, 1.0, 0.0, 0.0], 2),
        ]);
        let svg = report.to_svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(
            svg.matches("fill=\"#1f6fb2\"/>").count(),
            1 + 4,
            "legend and bars"
        );
        assert!(svg.contains("do nothing: 12"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        for points in svg.split("points=\"").skip(1) {
            let points = points.split('"').next().unwrap();
            for point in points.split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                assert!((LEFT..=RIGHT).contains(&x.parse().unwrap()), "{point}");
                assert!((LOSS.0..=LOSS.1).contains(&y.parse().unwrap()), "{point}");
            }
        }
    }

    #[test]
    fn entries_of_the_legend_do_not_overlap_and_stay_inside() {
        let mut report = report(Strategy::ALL.map(|s| row(s, &[1.0], 0)).to_vec());
        for row in &mut report.strategies {
            row.lost_guest_seconds = 123_456_789.0;
        }
        let svg = report.to_svg();
        let number = |line: &str, name: &str| -> f64 {
            let after = line.split(&format!(" {name}=\"")).nth(1).unwrap();
            after.split('"').next().unwrap().parse().unwrap()
        };
        let entries = svg.lines().filter(|line| line.contains(": 123456789<"));
        let entries: Vec<(f64, f64, f64)> = entries
            .map(|line| {
                let words = line.split('>').nth(1).unwrap().split('<').next().unwrap();
                let x = number(line, "x");
                (
                    number(line, "y"),
                    x,
                    x + CHARACTER_WIDTH * count(words.len()),
                )
            })
            .collect();
        assert_eq!(entries.len(), report.strategies.len());
        for pair in entries.windows(2) {
            let ((row, _, end), (next_row, start, _)) = (pair[0], pair[1]);
            assert!(next_row > row || start > end, "{entries:?}");
        }
        assert!(
            entries.iter().all(|e| e.0 < LOSS.0 && e.2 <= RIGHT),
            "{entries:?}"
        );
    }
}
