//! The keys of each table of a policy, and the rules.

use std::time::Duration;

use toml::de::DeTable;

use super::quantity::written;
use super::reader::{Key, Reader, Value};
use super::{
    Control, Limits, LocalDisks, Migration, Price, Rule, RuleKind, Selector, StreamCompression,
    Strength,
};

const LIMITS: &[&str] = &[
    "migrations_per_host",
    "migrations_per_cluster",
    "migrations_per_link",
    "link_label",
    "memory_overcommit",
    "memory_headroom",
    "max_guests_per_host",
    "reserve_host_failures",
];
const CONTROL: &[&str] = &["cycle", "hold", "cooldown", "max_report_age", "window"];
const MIGRATION: &[&str] = &[
    "downtime_limit",
    "bandwidth_limit_mib_s",
    "auto_converge",
    "downtime_steps",
    "patience",
    "post_copy",
    "local_disks",
    "connections",
    "compression",
    "tls",
    "allow_older_target",
];
/// Pauses that a copy may be allowed beyond the first.
const MOST_DOWNTIME_STEPS: usize = 8;
const PRICE: &[&str] = &[
    "migration_guest_seconds",
    "balance",
    "powered_host",
    "should_rule",
];

/// The table whose key this is.
pub(super) fn home_of(key: &Key<'_>) -> Option<&'static str> {
    let name: &str = key.get_ref();
    let tables = [
        ("limits", LIMITS),
        ("control", CONTROL),
        ("migration", MIGRATION),
        ("price", PRICE),
    ];
    tables
        .into_iter()
        .find(|(_, keys)| keys.contains(&name))
        .map(|(table, _)| table)
}

const SECOND: Duration = Duration::from_secs(1);
/// No copy can aim at less.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn limits(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Limits) {
    let Some(table) = r.table(
        value,
        "a table: [limits]",
        "write [limits] on a line of its own, and its keys below",
    ) else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "migrations_per_host" => r.count(value, 1..=1_000, &mut into.migrations_per_host),
            "migrations_per_cluster" => {
                r.count(value, 1..=100_000, &mut into.migrations_per_cluster)
            }
            "migrations_per_link" => r.count(value, 0..=10_000, &mut into.migrations_per_link),
            "link_label" => link_label(r, value, &mut into.link_label),
            "memory_overcommit" => r.number(value, 0.1..=10.0, &mut into.memory_overcommit),
            "memory_headroom" => r.number(value, 0.0..=0.9, &mut into.memory_headroom),
            "max_guests_per_host" => r.count(value, 0..=100_000, &mut into.max_guests_per_host),
            "reserve_host_failures" => r.count(value, 0..=1_000, &mut into.reserve_host_failures),
            _ => r.unknown(key, "limits", LIMITS, home_of(key)),
        }
    }
    if into.migrations_per_host > into.migrations_per_cluster
        && let Some((key, _)) = table.get_key_value("migrations_per_host")
    {
        let message = format!(
            "migrations_per_host ({}) is never reached: migrations_per_cluster is {}",
            into.migrations_per_host, into.migrations_per_cluster
        );
        let hint = "lower it, or raise migrations_per_cluster";
        r.warn(key.span(), message, hint);
    }
}

fn link_label(r: &mut Reader<'_>, value: &Value<'_>, into: &mut String) {
    let hint = "name the host label whose values share a link: \"rack\"";
    let Some(label) = r.string(value, "a host label", hint) else {
        return;
    };
    if label.trim().is_empty() {
        return r.fault(value.span(), "link_label is empty".to_owned(), hint);
    }
    *into = label;
}

pub(super) fn control(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Control) {
    let Some(table) = r.table(
        value,
        "a table: [control]",
        "write [control] on a line of its own, and its keys below",
    ) else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "cycle" => r.duration(value, SECOND, &mut into.cycle),
            "hold" => r.duration(value, Duration::ZERO, &mut into.hold),
            "cooldown" => r.duration(value, Duration::ZERO, &mut into.cooldown),
            "max_report_age" => r.duration(value, SECOND, &mut into.max_report_age),
            "window" => r.duration(value, SECOND, &mut into.window),
            _ => r.unknown(key, "control", CONTROL, home_of(key)),
        }
    }
}

pub(super) fn migration(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Migration) {
    let Some(table) = r.table(
        value,
        "a table: [migration]",
        "write [migration] on a line of its own, and its keys below",
    ) else {
        return;
    };
    for (key, value) in table.iter() {
        match key.get_ref().as_ref() {
            "downtime_limit" => {
                r.duration(value, LEAST_PAUSE, &mut into.downtime_limit);
            }
            "bandwidth_limit_mib_s" => {
                r.number(value, 0.0..=1_000_000.0, &mut into.bandwidth_limit_mib_s);
            }
            "auto_converge" => r.boolean(value, &mut into.auto_converge),
            "downtime_steps" => r.durations(value, LEAST_PAUSE, &mut into.downtime_steps),
            "patience" => r.duration(value, SECOND, &mut into.patience),
            "post_copy" => r.boolean(value, &mut into.post_copy),
            "local_disks" => {
                r.choice(value, LocalDisks::NAMES, &mut into.local_disks);
            }
            "connections" => r.count(value, 1..=64, &mut into.connections),
            "compression" => {
                r.choice(value, StreamCompression::NAMES, &mut into.compression);
            }
            "tls" => r.boolean(value, &mut into.tls),
            "allow_older_target" => r.boolean(value, &mut into.allow_older_target),
            _ => r.unknown(key, "migration", MIGRATION, home_of(key)),
        }
    }
    excluded(r, table, into);
    if let Some((key, _)) = table.get_key_value("downtime_steps") {
        rising_steps(r, key, into);
    }
}

/// What QEMU does not do together.
fn excluded(r: &mut Reader<'_>, table: &DeTable<'_>, into: &Migration) {
    let (several, compresses) = (
        into.connections > 1,
        into.compression != StreamCompression::None,
    );
    let pairs = [
        (several && compresses, "compression", "connections above 1"),
        (into.post_copy && several, "connections", "post_copy"),
        (into.post_copy && compresses, "compression", "post_copy"),
    ];
    for (both, one, other) in pairs {
        if both && let Some((key, _)) = table.get_key_value(one) {
            let message = format!("QEMU does not take {one} together with {other}");
            r.fault(key.span(), message, "leave one of the two out");
        }
    }
}

/// Each step must allow more than the one before it, or it would be none.
fn rising_steps(r: &mut Reader<'_>, key: &Key<'_>, into: &Migration) {
    let steps = &into.downtime_steps;
    let hint = "list longer and longer pauses: [\"600ms\", \"1s\"]";
    if steps.len() > MOST_DOWNTIME_STEPS {
        let message = format!(
            "downtime_steps has {} pauses, at most {MOST_DOWNTIME_STEPS} are taken",
            steps.len()
        );
        return r.fault(key.span(), message, hint);
    }
    let before = std::iter::once(&into.downtime_limit).chain(steps);
    if let Some((less, step)) = before.zip(steps).find(|(less, step)| less >= step) {
        let message = format!(
            "downtime_steps does not rise: {} does not allow more than {}",
            written(*step),
            written(*less)
        );
        r.fault(key.span(), message, hint);
    }
}

pub(super) fn price(r: &mut Reader<'_>, value: &Value<'_>, into: &mut Price) {
    let Some(table) = r.table(
        value,
        "a table: [price]",
        "write [price] on a line of its own, and its keys below",
    ) else {
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
            _ => r.unknown(key, "price", PRICE, home_of(key)),
        }
    }
}

/// Reads all rules of one kind: `[kind.NAME]` tables.
pub(super) fn rules(r: &mut Reader<'_>, kind: &str, value: &Value<'_>, into: &mut Vec<Rule>) {
    let named = format!("give each rule a name: [{kind}.NAME]");
    let Some(table) = r.table(value, "a table per rule", &named) else {
        return;
    };
    for (name, value) in table.iter() {
        if !value.get_ref().is_table() {
            let message = format!("{:?} is not a rule's table", name.get_ref());
            r.fault(name.span(), message, named.as_str());
        } else if name.get_ref().is_empty() {
            r.fault(
                name.span(),
                "a rule's name is empty".to_owned(),
                named.as_str(),
            );
        } else {
            into.extend(rule(r, kind, name, value));
        }
    }
}

fn known_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "pin" => &[
            "guests",
            "guest_labels",
            "hosts",
            "host_labels",
            "not_hosts",
            "not_host_labels",
            "strength",
        ],
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
            _ if !known.contains(&key_name) => r.unknown(key, &place, known, home_of(key)),
            "guests" => r.patterns(value, &mut guests.patterns),
            "guest_labels" => r.labels(value, &mut guests.labels),
            "hosts" => r.patterns(value, &mut hosts.patterns),
            "host_labels" => r.labels(value, &mut hosts.labels),
            "not_hosts" => forbidden(&mut hosts, |h| r.patterns(value, &mut h.patterns)),
            "not_host_labels" => forbidden(&mut hosts, |h| r.labels(value, &mut h.labels)),
            "over" => over = label_name(r, value),
            _ => {
                let mut given = Strength::Must;
                r.choice(value, Strength::NAMES, &mut given);
                strength = Some(given);
            }
        }
    }
    one_choice(r, table, "guests", "guest_labels");
    one_choice_of_hosts(r, table);
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

/// Reads the hosts that a pin forbids.
fn forbidden(hosts: &mut Selector, read: impl FnOnce(&mut Selector)) {
    hosts.inverted = true;
    read(hosts);
}

/// The name of a host label.
fn label_name(r: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let hint =
        "write one label's name, such as over = \"rack\"; leave it out to keep apart by host";
    let name = r.string(value, "a host label such as \"rack\"", hint)?;
    if name.is_empty() {
        r.fault(value.span(), "the label's name is empty".to_owned(), hint);
    }
    Some(name)
}

/// A rule says by names or by labels what it is about: both together could mean "or" as well as "and".
fn one_choice(r: &mut Reader<'_>, table: &DeTable<'_>, names: &str, labels: &str) {
    if let (Some(_), Some((second, _))) = (table.get_key_value(names), table.get_key_value(labels))
    {
        let message = format!("{names} and {labels} stand in one rule");
        let hint = format!("keep one of them: {names} = [...] or {labels} = {{ ... }}");
        r.fault(second.span(), message, hint);
    }
}

/// A pin says in one of four ways which hosts it is about.
fn one_choice_of_hosts(r: &mut Reader<'_>, table: &DeTable<'_>) {
    let ways = ["hosts", "host_labels", "not_hosts", "not_host_labels"];
    let said: Vec<&str> = ways
        .into_iter()
        .filter(|key| table.contains_key(*key))
        .collect();
    if let [first, second, ..] = said.as_slice() {
        one_choice(r, table, first, second);
    }
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
        r.fault(name.span(), format!("{place} does not say {what}"), hint);
    };
    if *guests == Selector::default() {
        missing(
            "which guests it is about",
            "add guests = [\"name-*\"] or guest_labels = { app = \"db\" }",
        );
    }
    if kind == "pin" && hosts.patterns.is_empty() && hosts.labels.is_empty() {
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
