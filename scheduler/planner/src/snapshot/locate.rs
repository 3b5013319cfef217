//! Where something stands in a JSON text that is known to be well-formed.
//!
//! Values are checked after the text was read, when their places are forgotten; who mends a file wants to know
//! the line all the same.

/// Line and column, both from 1, of what a path of keys and indices leads to; where the path ends early, of the last
/// thing on it.
pub(super) fn locate(text: &str, path: &[Step<'_>]) -> (usize, usize) {
    let mut cursor = Cursor {
        bytes: text.as_bytes(),
        at: 0,
    };
    cursor.blanks();
    let mut found = cursor.at;
    for step in path {
        let there = match *step {
            Step::Key(key) => cursor.member(key),
            Step::Index(index) => cursor.item(index),
        };
        if !there {
            break;
        }
        found = cursor.at;
    }
    let before = text.get(..found).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    (line, column)
}

/// One step into a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'k> {
    /// Into an object.
    Key(&'k str),
    /// Into a list, from 0.
    Index(usize),
}

struct Cursor<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Passes a sign, with the blanks around it.
    fn pass(&mut self, sign: u8) -> bool {
        self.blanks();
        let there = self.peek() == Some(sign);
        self.at += usize::from(there);
        self.blanks();
        there
    }

    /// Passes a text and returns where it stands, without its quotes.
    fn text(&mut self) -> Option<std::ops::Range<usize>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let start = self.at + 1;
        self.at = start;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let end = self.at.min(self.bytes.len());
        self.at += 1;
        Some(start..end)
    }

    /// Passes one value, whatever it holds.
    fn value(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.text();
                    if depth == 0 {
                        return;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return;
                    }
                }
                b',' if depth == 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// To the value of a key of the object that begins here.
    fn member(&mut self, key: &str) -> bool {
        if !self.pass(b'{') {
            return false;
        }
        while let Some(name) = self.text() {
            self.pass(b':');
            if self.bytes.get(name) == Some(key.as_bytes()) {
                return true;
            }
            self.value();
            if !self.pass(b',') {
                return false;
            }
        }
        false
    }

    /// To an item of the list that begins here.
    fn item(&mut self, index: usize) -> bool {
        if !self.pass(b'[') {
            return false;
        }
        for _ in 0..index {
            self.value();
            if !self.pass(b',') {
                return false;
            }
        }
        self.peek().is_some_and(|b| b != b']')
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, locate};

    #[test]
    fn paths_lead_to_their_values_and_end_where_they_have_to() {
        let text =
            "{\n  \"a\\\"b\": [1, {\"x\": \"]}\"}],\n  \"é\": {\"k\": [[], [2]]}, \"c\": 3\n}";
        let at = |path: &[Step<'_>]| locate(text, path);
        assert_eq!(at(&[]), (1, 1));
        assert_eq!(at(&[Step::Key("c")]), (3, 31));
        assert_eq!(
            at(&[
                Step::Key("é"),
                Step::Key("k"),
                Step::Index(1),
                Step::Index(0)
            ]),
            (3, 20)
        );
        assert_eq!(
            at(&[Step::Key("é"), Step::Key("k"), Step::Index(2)]),
            (3, 14)
        );
        assert_eq!(at(&[Step::Key("é"), Step::Key("none")]), (3, 8));
        assert_eq!(at(&[Step::Key("none")]), (1, 1));
        assert_eq!(locate("", &[Step::Key("a")]), (1, 1));
        assert_eq!(
            locate("{\"a\": \"", &[Step::Key("b"), Step::Index(1)]),
            (1, 1)
        );
    }
}
