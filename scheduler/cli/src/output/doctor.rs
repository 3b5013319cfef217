//! Checks as a table: one a line, so that `grep -v ' ok '` leaves what is to be mended.

use super::Look;
use super::paint::Tone;
use super::table::{Cell, Side, Table};
use crate::view::{CheckResult, Doctor};

/// The checks as a table.
#[must_use]
pub fn doctor(doctor: &Doctor, look: Look) -> String {
    let mut table = Table::new(vec![
        ("CHECK", Side::Left),
        ("RESULT", Side::Left),
        ("FOUND", Side::Left),
    ]);
    for check in &doctor.checks {
        let tone = match check.result {
            CheckResult::Ok => Tone::Plain,
            CheckResult::Warning => Tone::Strong,
            CheckResult::Failed => Tone::Bad,
        };
        let found = match &check.mend {
            Some(mend) => format!("{}. To mend it: {mend}", check.found),
            None => check.found.clone(),
        };
        table.row(vec![
            check.check.into(),
            Cell::toned(check.result.as_str(), tone),
            found.into(),
        ]);
    }
    table.render(0, look.colour)
}
