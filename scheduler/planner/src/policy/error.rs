//! Faults of a policy text, each with its place and how it looks to people.

use std::fmt;

use super::Policy;

/// Everything that is wrong with a policy text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The faults, in the order of the text; never empty.
    pub faults: Vec<Fault>,
}

/// What a policy text turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyCheck {
    /// The policy; none when there are faults.
    pub policy: Option<Policy>,
    /// What makes it unusable, in the order of the text.
    pub faults: Vec<Fault>,
    /// What is allowed but hardly meant, in the order of the text; nothing where there are faults.
    pub warnings: Vec<Fault>,
}

impl PolicyCheck {
    /// The policy, or its faults.
    ///
    /// # Errors
    /// When there are faults.
    pub fn into_policy(self) -> Result<Policy, PolicyError> {
        let faults = self.faults;
        self.policy.ok_or(PolicyError { faults })
    }
}

/// One fault of a policy text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are at fault, at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
    /// The line at fault.
    pub source_line: String,
    /// Other places that the fault is about: the rules that are contradicted, the first of two definitions.
    pub related: Vec<Related>,
}

/// Another place that a fault is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters it has, at least 1.
    pub width: usize,
    /// What stands there.
    pub what: String,
    /// The line itself.
    pub source_line: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy:{}:{}: {}", self.line, self.column, self.message)?;
        let lines = self.related.iter().map(|r| r.line).chain([self.line]);
        let digits = lines.max().unwrap_or(1).to_string().len();
        let pad = " ".repeat(digits);
        write!(f, " {:digits$} | ", self.line)?;
        excerpt(f, &self.source_line, (self.column, self.width, '^'), digits)?;
        for other in &self.related {
            write!(f, "\n {:digits$} | ", other.line)?;
            let mark = (other.column, other.width, '-');
            excerpt(f, &other.source_line, mark, digits)?;
            write!(f, " {}", other.what)?;
        }
        write!(f, "\n {pad} = help: {}", self.hint)
    }
}

/// Characters of a message or hint that are told at most.
const LONGEST_WORDS: usize = 300;

/// Characters of a line that are shown at most.
const WIDEST: usize = 160;

/// A line and the mark below it: column, width and sign. Of a very long line the part around the mark.
fn excerpt(
    f: &mut fmt::Formatter<'_>,
    line: &str,
    (column, width, sign): (usize, usize, char),
    digits: usize,
) -> fmt::Result {
    let before = column.saturating_sub(1);
    let skip = if line.chars().count() > WIDEST {
        before.saturating_sub(WIDEST / 4)
    } else {
        0
    };
    // What steers a terminal is shown as a question mark.
    let tame = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
    let part: String = line.chars().skip(skip).take(WIDEST).map(tame).collect();
    // Tabs are kept, so that the mark stands below the fault whatever their width.
    let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
    let indent: String = line.chars().take(before).skip(skip).map(blank).collect();
    let mark = sign.to_string().repeat(width.min(WIDEST));
    let pad = " ".repeat(digits);
    write!(f, "{part}\n {pad} | {indent}{mark}")
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl Fault {
    /// A fault at a byte range of the text; its hint is still to be said.
    pub(super) fn at(text: &str, span: std::ops::Range<usize>, message: String) -> Self {
        let start = floor_boundary(text, span.start);
        // No editor shows a byte order mark, nor counts it.
        let first = if text.starts_with('\u{feff}') { 3 } else { 0 };
        let start = start.max(first);
        let line_start = text[..start].rfind('\n').map_or(first, |at| at + 1);
        let rest = &text[line_start..];
        let source_line = rest.lines().next().unwrap_or_default().to_owned();
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end.max(start));
        let on_line = source_line.chars().count().saturating_sub(column - 1);
        let width = text[start..end]
            .chars()
            .take_while(|&c| c != '\n' && c != '\r')
            .count();
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column,
            width: width.min(on_line).max(1),
            message,
            hint: String::new(),
            source_line,
            related: Vec::new(),
        }
    }

    /// Cuts off what nobody would read: a value that fills the file.
    pub(super) fn shorten(&mut self) {
        for words in [&mut self.message, &mut self.hint] {
            if let Some((at, _)) = words.char_indices().nth(LONGEST_WORDS) {
                words.truncate(at);
                words.push('…');
            }
        }
    }

    /// The same place as one that another fault is about.
    pub(super) fn into_related(self) -> Related {
        Related {
            line: self.line,
            column: self.column,
            width: self.width,
            what: self.message,
            source_line: self.source_line,
        }
    }
}

/// The nearest character boundary at or below a byte offset.
fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
