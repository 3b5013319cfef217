//! The list of policies that were applied.

use super::{Cell, Side, Table};
use crate::output::paint::Tone;
use crate::output::{Look, time};
use crate::view::PolicyRevision;

/// The policies as a table; `*` marks the active one.
#[must_use]
pub fn policies(policies: &[PolicyRevision], look: Look) -> String {
    let mut table = Table::new(vec![
        ("REV", Side::Right),
        ("", Side::Left),
        ("APPLIED", Side::Left),
        ("AGE", Side::Right),
        ("BY", Side::Left),
        ("REASON", Side::Left),
    ]);
    for policy in policies {
        let age = policy.applied_at.map(|at| time::between(at, look.now));
        table.row(vec![
            policy.policy_revision.to_string().into(),
            Cell::toned(if policy.active { "*" } else { "" }, Tone::Good),
            Cell::or_dash(policy.applied_at.map(time::stamp)),
            Cell::or_dash(age.map(time::age)),
            Cell::or_dash(policy.by.clone()),
            Cell::or_dash(policy.reason.clone()),
        ]);
    }
    table.render(0, look.colour)
}
