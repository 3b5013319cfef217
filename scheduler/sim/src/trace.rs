//! Recorded load: what real guests used, sample by sample.
//!
//! One CSV file per trace: a header line, then a line per guest, its name first and one sample per cell after it,
//! in per cent of the guest's own capacity; an empty cell is a missing sample. The simulator plays traces, the
//! estimator is judged on them. Nothing here resamples or fills gaps: that is the caller's to decide.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The interval at which the traces in the source tree were recorded.
pub const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Recorded load of some guests, all sampled at the same moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Names, in the order of the file.
    pub guests: Vec<String>,
    /// Of each guest, CPU used as a fraction of its capacity (may pass 1), oldest first; `None`: missing. As many
    /// for each guest.
    pub samples: Vec<Vec<Option<f64>>>,
    /// Time between two samples.
    pub interval: Duration,
}

/// What a recorded guest was given.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestSpec {
    /// Name, as in the trace.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// CPU provisioned, MHz over all vCPUs.
    pub cpu_capacity_mhz: f64,
    /// Memory provisioned, MiB.
    pub memory_mib: u64,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no header line.
    #[error("{file}: empty")]
    Empty {
        /// The file.
        file: String,
    },
    /// A line has more or fewer cells than the header.
    #[error("{file}:{line}: {found} cells where the header has {expected}")]
    Cells {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// Cells in it.
        found: usize,
        /// Cells in the header.
        expected: usize,
    },
    /// A cell is not what its column holds.
    #[error("{file}:{line}: {cell:?} in column {column} is not {wanted}")]
    Value {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The cell as it stands there.
        cell: String,
        /// What should stand there.
        wanted: &'static str,
    },
    /// A column that is needed is not in the header.
    #[error("{file}:1: no column {name:?}")]
    Column {
        /// The file.
        file: String,
        /// The column.
        name: &'static str,
    },
    /// A guest stands in two lines.
    #[error("{file}:{line}: guest {guest:?} stands in an earlier line too")]
    Twice {
        /// The file.
        file: String,
        /// The later line, from 1.
        line: usize,
        /// The guest.
        guest: String,
    },
}

/// The folder of the traces in the project's source tree, for tests, benchmarks and tools that are run from there.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces")
}

impl Trace {
    /// Reads a trace from a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is no trace.
    pub fn read(path: &Path, interval: Duration) -> Result<Self, TraceError> {
        Self::parse(&path.display().to_string(), &text_of(path)?, interval)
    }

    /// A trace from its text; `file` names it in errors.
    ///
    /// # Errors
    ///
    /// The text is no trace; the error says where.
    pub fn parse(file: &str, text: &str, interval: Duration) -> Result<Self, TraceError> {
        let table = Table::new(file, text)?;
        let mut trace = Self {
            guests: vec![],
            samples: vec![],
            interval,
        };
        for row in table.rows() {
            let row = row?;
            trace.guests.push(row.text(0)?);
            let samples = (1..table.columns.len()).map(|column| row.share(column));
            trace.samples.push(samples.collect::<Result<_, _>>()?);
        }
        Ok(trace)
    }

    /// Samples per guest, missing ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.first().map_or(0, Vec::len)
    }

    /// Whether there is no sample at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl GuestSpec {
    /// Reads what each guest of a trace was given from a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is no such table.
    pub fn read(path: &Path) -> Result<Vec<Self>, TraceError> {
        Self::parse(&path.display().to_string(), &text_of(path)?)
    }

    /// What each guest was given, from a table with the columns `guest`, `vcpus`, `cpu_capacity_mhz` and
    /// `mem_mib`, others ignored; `file` names it in errors.
    ///
    /// # Errors
    ///
    /// The text is no such table; the error says where.
    pub fn parse(file: &str, text: &str) -> Result<Vec<Self>, TraceError> {
        let table = Table::new(file, text)?;
        let name = table.column("guest")?;
        let vcpus = table.column("vcpus")?;
        let capacity = table.column("cpu_capacity_mhz")?;
        let memory = table.column("mem_mib")?;
        let spec = |row: Row<'_>| {
            Ok(Self {
                name: row.text(name)?,
                vcpus: row.whole(vcpus)?,
                cpu_capacity_mhz: row.number(capacity, "a number from 0 up")?,
                memory_mib: row.whole(memory)?,
            })
        };
        table.rows().map(|row| row.and_then(spec)).collect()
    }
}

fn text_of(path: &Path) -> Result<String, TraceError> {
    std::fs::read_to_string(path).map_err(|source| TraceError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// A CSV text without quotes: a header and lines of as many cells.
struct Table<'a> {
    file: &'a str,
    columns: Vec<&'a str>,
    body: std::str::Lines<'a>,
}

impl<'a> Table<'a> {
    fn new(file: &'a str, text: &'a str) -> Result<Self, TraceError> {
        let mut body = text.lines();
        let header = body.next().filter(|line| !line.is_empty());
        let header = header.ok_or_else(|| TraceError::Empty {
            file: file.to_owned(),
        })?;
        Ok(Self {
            file,
            columns: header.split(',').collect(),
            body,
        })
    }

    fn column(&self, name: &'static str) -> Result<usize, TraceError> {
        let found = self.columns.iter().position(|column| *column == name);
        found.ok_or_else(|| TraceError::Column {
            file: self.file.to_owned(),
            name,
        })
    }

    /// The lines after the header, blank ones left out; a guest stands in one of them only.
    fn rows(&self) -> impl Iterator<Item = Result<Row<'a>, TraceError>> {
        let mut seen = std::collections::BTreeSet::new();
        let lines = (2..).zip(self.body.clone());
        lines
            .filter(|(_, text)| !text.is_empty())
            .map(move |(line, text)| {
                let row = Row {
                    file: self.file,
                    line,
                    cells: text.split(',').collect(),
                };
                if row.cells.len() != self.columns.len() {
                    return Err(row.wrong_length(self.columns.len()));
                }
                if !seen.insert(row.cells[0]) {
                    return Err(row.twice());
                }
                Ok(row)
            })
    }
}

struct Row<'a> {
    file: &'a str,
    line: usize,
    cells: Vec<&'a str>,
}

impl Row<'_> {
    fn text(&self, column: usize) -> Result<String, TraceError> {
        let cell = self.cells[column];
        if cell.is_empty() {
            return Err(self.not(column, "a name"));
        }
        Ok(cell.to_owned())
    }

    fn whole<T: std::str::FromStr>(&self, column: usize) -> Result<T, TraceError> {
        let parsed = self.cells[column].parse();
        parsed.map_err(|_| self.not(column, "a whole number"))
    }

    fn number(&self, column: usize, wanted: &'static str) -> Result<f64, TraceError> {
        let parsed: Option<f64> = self.cells[column].parse().ok();
        parsed
            .filter(|value| value.is_finite() && *value >= 0.0)
            .ok_or_else(|| self.not(column, wanted))
    }

    /// A fraction from a cell in per cent; none from an empty one.
    fn share(&self, column: usize) -> Result<Option<f64>, TraceError> {
        if self.cells[column].is_empty() {
            return Ok(None);
        }
        let per_cent = self.number(column, "a share in per cent")?;
        Ok(Some(per_cent / 100.0))
    }

    fn not(&self, column: usize, wanted: &'static str) -> TraceError {
        TraceError::Value {
            file: self.file.to_owned(),
            line: self.line,
            column: column + 1,
            cell: self.cells[column].to_owned(),
            wanted,
        }
    }

    fn wrong_length(&self, expected: usize) -> TraceError {
        TraceError::Cells {
            file: self.file.to_owned(),
            line: self.line,
            found: self.cells.len(),
            expected,
        }
    }

    fn twice(&self) -> TraceError {
        TraceError::Twice {
            file: self.file.to_owned(),
            line: self.line,
            guest: self.cells[0].to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str) -> Result<Trace, String> {
        Trace::parse("t.csv", text, FIVE_MINUTES).map_err(|e| e.to_string())
    }

    #[test]
    fn cells_are_per_cent_and_empty_ones_are_missing() {
        let trace = trace("guest,t0,t1,t2\na,50,,104\nb,0,1,2.5\n").unwrap();
        assert_eq!(trace.guests, ["a", "b"]);
        assert_eq!(trace.samples[0], [Some(0.5), None, Some(1.04)]);
        assert_eq!(trace.samples[1], [Some(0.0), Some(0.01), Some(0.025)]);
        assert_eq!(trace.len(), 3);
    }

    #[test]
    fn faults_are_named_with_file_and_line() {
        for (text, fault) in [
            ("", "t.csv: empty"),
            (
                "guest,t0\na,1\nb,1,2\n",
                "t.csv:3: 3 cells where the header has 2",
            ),
            (
                "guest,t0,t1\na,1,x\n",
                "t.csv:2: \"x\" in column 3 is not a share in per cent",
            ),
            (
                "guest,t0\na,-1\n",
                "t.csv:2: \"-1\" in column 2 is not a share in per cent",
            ),
            (
                "guest,t0\na,NaN\n",
                "t.csv:2: \"NaN\" in column 2 is not a share in per cent",
            ),
            ("guest,t0\n,1\n", "t.csv:2: \"\" in column 1 is not a name"),
            (
                "guest,t0\na,1\na,2\n",
                "t.csv:3: guest \"a\" stands in an earlier line too",
            ),
        ] {
            assert_eq!(trace(text).unwrap_err(), fault, "{text:?}");
        }
        let missing = Trace::read(Path::new("/nowhere/t.csv"), FIVE_MINUTES).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /nowhere/t.csv");
    }

    #[test]
    fn specs_are_found_by_the_names_of_their_columns() {
        let specs = GuestSpec::parse(
            "g.csv",
            "mem_mib,guest,x,cpu_capacity_mhz,vcpus\n2048,a,,5852.5,2\n",
        );
        let expected = GuestSpec {
            name: "a".into(),
            vcpus: 2,
            cpu_capacity_mhz: 5852.5,
            memory_mib: 2048,
        };
        assert_eq!(specs.unwrap(), [expected]);
        let fault = |text| GuestSpec::parse("g.csv", text).unwrap_err().to_string();
        assert_eq!(
            fault("guest,vcpus\n"),
            "g.csv:1: no column \"cpu_capacity_mhz\""
        );
        assert_eq!(
            fault("guest,vcpus,cpu_capacity_mhz,mem_mib\na,2.5,1,1\n"),
            "g.csv:2: \"2.5\" in column 2 is not a whole number"
        );
    }

    #[test]
    fn the_recorded_traces_are_whole() {
        for (file, guests, samples) in [
            ("planetlab-20110303.csv", 1052, 288),
            ("bitbrains-rnd-cpu-7d.csv", 500, 2016),
        ] {
            let trace = Trace::read(&folder().join(file), FIVE_MINUTES).unwrap();
            assert_eq!(
                (trace.guests.len(), trace.len()),
                (guests, samples),
                "{file}"
            );
            let missing = trace
                .samples
                .iter()
                .flatten()
                .filter(|s| s.is_none())
                .count();
            assert!(
                missing * 100 < guests * samples,
                "{file}: {missing} missing"
            );
        }
        let specs = GuestSpec::read(&folder().join("bitbrains-rnd-guests.csv")).unwrap();
        let trace = Trace::read(&folder().join("bitbrains-rnd-cpu-7d.csv"), FIVE_MINUTES).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        assert_eq!(names, trace.guests);
        assert!(
            specs
                .iter()
                .all(|spec| spec.vcpus > 0 && spec.memory_mib > 0)
        );
    }
}
