//! Faults of a policy text, each with its place and how it looks to people.

use std::fmt;

/// Everything that is wrong with a policy text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The faults, in the order of the text; never empty.
    pub faults: Vec<Fault>,
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
    /// What to write instead, when that can be guessed.
    pub hint: Option<String>,
    /// The line at fault.
    pub source_line: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy:{}:{}: {}", self.line, self.column, self.message)?;
        let number = self.line.to_string();
        let pad = " ".repeat(number.len());
        // Tabs are kept, so that the caret stands below the fault whatever their width.
        let before: String = self
            .source_line
            .chars()
            .take(self.column.saturating_sub(1))
            .collect();
        let indent: String = before
            .chars()
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, " {number} | {}", self.source_line)?;
        write!(f, " {pad} | {indent}{}", "^".repeat(self.width))?;
        if let Some(hint) = &self.hint {
            write!(f, "\n {pad} = help: {hint}")?;
        }
        Ok(())
    }
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
    /// A fault at a byte range of the text.
    pub(super) fn at(text: &str, span: std::ops::Range<usize>, message: String) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
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
            hint: None,
            source_line,
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
