//! Tables: aligned columns, two spaces apart, no frames, so that `awk` and people can read them.

use super::paint::{Tone, paint};
use super::text::harmless;

mod events;
mod guests;
mod hosts;
mod migrations;
mod policies;

pub use events::{event_line, events};
pub use guests::guests;
pub use hosts::hosts;
pub use migrations::migrations;
pub use policies::policies;

/// Which side a column is flush with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell that stands out.
    #[must_use]
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    /// A value, or a dash where there is none.
    #[must_use]
    pub fn or_dash(text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => Self {
                text: text.into(),
                tone: Tone::Plain,
            },
            None => Self::toned("-", Tone::Faint),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
        }
    }
}

/// A table that is being filled.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(columns: Vec<(&'static str, Side)>) -> Self {
        Self {
            columns,
            rows: vec![],
        }
    }

    /// Adds a row: a cell per column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as lines, each ending in a newline and none in a space.
    #[must_use]
    pub fn render(&self, indent: usize, colour: bool) -> String {
        let rows: Vec<Vec<Cell>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(tame).collect())
            .collect();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (title, _))| {
                let cells = rows.iter().filter_map(|row| row.get(at));
                cells
                    .map(|cell| width(&cell.text))
                    .max()
                    .unwrap_or(0)
                    .max(width(title))
            })
            .collect();
        let head: Vec<Cell> = self
            .columns
            .iter()
            .map(|(title, _)| Cell::toned(*title, Tone::Strong))
            .collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&rows) {
            out.push_str(&self.line(row, &widths, indent, colour));
        }
        out
    }

    fn line(&self, row: &[Cell], widths: &[usize], indent: usize, colour: bool) -> String {
        let mut line = " ".repeat(indent);
        // Blanks are owed until more text follows, so that no line ends in them.
        let mut owed = 0;
        for ((cell, wide), (_, side)) in row.iter().zip(widths).zip(&self.columns) {
            let free = wide.saturating_sub(width(&cell.text));
            let (before, behind) = match side {
                Side::Left => (0, free),
                Side::Right => (free, 0),
            };
            if !cell.text.is_empty() {
                line.push_str(&" ".repeat(owed + before));
                line.push_str(&paint(&cell.text, cell.tone, colour));
                owed = behind + 2;
            } else {
                owed += wide + 2;
            }
        }
        line.push('\n');
        line
    }
}

fn tame(cell: &Cell) -> Cell {
    Cell {
        text: harmless(&cell.text).replace('\n', " "),
        tone: cell.tone,
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            ("NAME", Side::Left),
            ("N", Side::Right),
            ("X", Side::Left),
        ]);
        table.row(vec!["a".into(), "7".into(), "".into()]);
        table.row(vec![
            "longer".into(),
            "123".into(),
            Cell::toned("é", Tone::Bad),
        ]);
        table.row(vec!["b\u{1b}\nc".into(), "".into(), "z".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_a_space() {
        insta::assert_snapshot!(table().render(0, false), @r"
        NAME      N  X
        a         7
        longer  123  é
        b? c         z
        ");
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let coloured = table().render(2, true);
        assert!(coloured.contains("\u{1b}[1;31mé\u{1b}[0m"));
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, behind)) = rest.split_once('\u{1b}') {
            plain.push_str(before);
            rest = behind.split_once('m').map_or("", |(_, behind)| behind);
        }
        plain.push_str(rest);
        assert_eq!(plain, table().render(2, false));
    }
}
