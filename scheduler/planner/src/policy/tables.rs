//! The keys of each table of a policy, and the rules.

use std::time::Duration;

use super::reader::{Key, Reader, Value};
use super::{Control, Limits, Migration, Price, Rule, RuleKind, Selector, Strength};

const LIMITS: &[&str] = &[
    "migrations_per_host",
    "migrations_per_cluster",
    "memory_overcommit",
    "memory_headroom",
    "max_guests_per_host",
    "reserve_host_failures",
];
const CONTROL: &[&str] = &["cycle", "hold", "cooldown", "max_report_age", "window"];
const MIGRATION: &[&str] = &["downtime_limit", "bandwidth_limit_mib_s", "auto_converge"];
const PRICE: &[&str] = &[
    "migration_guest_seconds",
    "balance",
    "powered_host",
    "should_rule",
];

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn limits(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Limits) {
    let Some(table) = r.table(value, "a table: [limits]") else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "migrations_per_host" => r.count(value, 1..=1_000, &mut into.migrations_per_host),
            "migrations_per_cluster" => {
                r.count(value, 1..=100_000, &mut into.migrations_per_cluster)
            }
            "memory_overcommit" => r.number(value, 0.1..=10.0, &mut into.memory_overcommit),
            "memory_headroom" => r.number(value, 0.0..=0.9, &mut into.memory_headroom),
            "max_guests_per_host" => r.count(value, 0..=100_000, &mut into.max_guests_per_host),
            "reserve_host_failures" => r.count(value, 0..=1_000, &mut into.reserve_host_failures),
            _ => r.unknown(key, "limits", LIMITS),
        }
    }
}

pub(super) fn control(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Control) {
    let Some(table) = r.table(value, "a table: [control]") else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "cycle" => r.duration(value, SECOND, &mut into.cycle),
            "hold" => r.duration(value, Duration::ZERO, &mut into.hold),
            "cooldown" => r.duration(value, Duration::ZERO, &mut into.cooldown),
            "max_report_age" => r.duration(value, SECOND, &mut into.max_report_age),
            "window" => r.duration(value, SECOND, &mut into.window),
            _ => r.unknown(key, "control", CONTROL),
        }
    }
}

pub(super) fn migration(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Migration) {
    let Some(table) = r.table(value, "a table: [migration]") else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "downtime_limit" => {
                r.duration(value, Duration::from_millis(10), &mut into.downtime_limit);
            }
            "bandwidth_limit_mib_s" => {
                r.number(value, 0.0..=1_000_000.0, &mut into.bandwidth_limit_mib_s);
            }
            "auto_converge" => r.boolean(value, &mut into.auto_converge),
            _ => r.unknown(key, "migration", MIGRATION),
        }
    }
}

pub(super) fn price(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Price) {
    let Some(table) = r.table(value, "a table: [price]") else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            // Never zero: a free move is a reason to move for nothing.
            "migration_guest_seconds" => {
                r.number(
                    value,
                    0.001..=1_000_000.0,
                    &mut into.migration_guest_seconds,
                );
            }
            "balance" => r.number(value, 0.0..=1_000.0, &mut into.balance),
            "powered_host" => r.number(value, 0.0..=1_000.0, &mut into.powered_host),
            "should_rule" => r.number(value, 0.0..=1_000.0, &mut into.should_rule),
            _ => r.unknown(key, "price", PRICE),
        }
    }
}

/// Reads all rules of one kind: `[kind.NAME]` tables.
pub(super) fn rules(r: &mut Reader<'_>, kind: &str, value: &Value<'_>, into: &mut Vec<Rule>) {
    let example = format!("a table per rule, such as [{kind}.NAME]");
    let Some(table) = r.table(value, &example) else {
        return;
    };
    for (name, value) in table.iter() {
        if value.get_ref().is_table() {
            into.extend(rule(r, kind, name, value));
        } else {
            let hint = Some(format!("give the rule a name: [{kind}.NAME]"));
            let message = format!("{:?} is not a rule's table", name.get_ref());
            r.fault(name.span(), message, hint);
        }
    }
}

fn known_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "pin" => &["guests", "guest_labels", "hosts", "host_labels", "strength"],
        "anti_affinity" => &["guests", "guest_labels", "over", "strength"],
        "opt_out" => &["guests", "guest_labels"],
        _ => &["guests", "guest_labels", "strength"],
    }
}

fn rule(r: &mut Reader<'_>, kind: &str, name: &Key<'_>, value: &Value<'_>) -> Option<Rule> {
    let table = value.get_ref().as_table()?;
    let known = known_keys(kind);
    let (mut guests, mut hosts) = (Selector::default(), Selector::default());
    let mut over = None;
    let mut strength = None;
    let place = format!("{kind}.{}", name.get_ref());
    let faults_before = r.faults.len();
    for (key, value) in table.iter() {
        let key_name: &str = key.get_ref();
        match key_name {
            _ if !known.contains(&key_name) => r.unknown(key, &place, known),
            "guests" => r.strings(value, &mut guests.patterns),
            "guest_labels" => r.labels(value, &mut guests.labels),
            "hosts" => r.strings(value, &mut hosts.patterns),
            "host_labels" => r.labels(value, &mut hosts.labels),
            "over" => over = r.string(value, "a host label such as \"rack\""),
            _ => {
                let mut given = Strength::Must;
                r.choice(value, Strength::NAMES, &mut given);
                strength = Some(given);
            }
        }
    }
    let strength = strength.or(if kind == "opt_out" {
        Some(Strength::Must)
    } else {
        None
    });
    if r.faults.len() == faults_before {
        require(r, name, kind, &guests, &hosts, strength);
    }
    let kind = match kind {
        "pin" => RuleKind::Pin { hosts },
        "anti_affinity" => RuleKind::AntiAffinity { over },
        "opt_out" => RuleKind::OptOut,
        _ => RuleKind::Affinity,
    };
    let line = r.text[..name.span().start.min(r.text.len())]
        .matches('\n')
        .count()
        + 1;
    Some(Rule {
        name: name.get_ref().to_string(),
        kind,
        guests,
        strength: strength?,
        line,
    })
}

/// What every rule must say: whom it is about, where a pin points, and how strong it is.
fn require(
    r: &mut Reader<'_>,
    name: &Key<'_>,
    kind: &str,
    guests: &Selector,
    hosts: &Selector,
    strength: Option<Strength>,
) {
    let place = format!("[{kind}.{}]", name.get_ref());
    let mut missing = |what: &str, hint: &str| {
        r.fault(
            name.span(),
            format!("{place} does not say {what}"),
            Some(hint.to_owned()),
        );
    };
    if *guests == Selector::default() {
        missing(
            "which guests it is about",
            "add guests = [\"name-*\"] or guest_labels = { app = \"db\" }",
        );
    }
    if kind == "pin" && *hosts == Selector::default() {
        missing(
            "which hosts are allowed",
            "add hosts = [\"h1\"] or host_labels = { rack = \"r1\" }",
        );
    }
    if strength.is_none() {
        missing(
            "how strong it is",
            "add strength = \"must\" or strength = \"should\"",
        );
    }
}
