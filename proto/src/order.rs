//! The order in typed form: what both the leader who writes it and the agent who obeys it reason about.

use std::time::Duration;

use evenkeel_types::{Epoch, GuestId, HostName, OrderId};

use crate::convert::{BadField, bad_field};
use crate::v1;

/// An order whose ids and options were checked. The message it came from is kept whole, so that
/// fields added by a newer version survive a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Id of the order and of its migration.
    pub id: OrderId,
    /// The guest to be moved.
    pub guest: GuestId,
    /// Where it is.
    pub source: HostName,
    /// Where it goes.
    pub target: HostName,
    /// The leader's epoch when it was given.
    pub epoch: Epoch,
    /// End of its time, milliseconds since the Unix epoch.
    pub deadline_ms: i64,
    /// How it is to be done.
    pub options: Options,
    /// The message as it stands in etcd.
    pub message: v1::Order,
}

/// How a move is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Live, or of a guest that is shut off.
    pub kind: v1::MoveKind,
    /// What becomes of disks that only the source reaches.
    pub disks: v1::DiskCopy,
    /// Longest pause the copy may aim at.
    pub downtime_limit: Duration,
    /// Longer ones, allowed in turn when it does not converge.
    pub downtime_steps: Vec<Duration>,
    /// Time it has to converge, at first and after each step; `None`: until the deadline.
    pub patience: Option<Duration>,
    /// MiB/s; `None`: no limit.
    pub bandwidth_limit_mib_s: Option<u64>,
    /// Whether libvirt may slow the guest down to converge.
    pub auto_converge: bool,
    /// Whether the guest is handed over early when the copy still does not converge.
    pub post_copy: bool,
    /// Connections side by side, at least 1.
    pub connections: u32,
    /// How what is sent is made smaller.
    pub compression: Option<Compression>,
    /// Whether it is encrypted.
    pub tls: bool,
    /// Whether the target may have an older libvirt or QEMU than the source.
    pub allow_older_target: bool,
}

/// How a live copy makes smaller what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Only what has changed within a page, against a cache.
    Xbzrle,
    /// Whole pages, by several threads.
    Multithreaded,
}

impl Compression {
    /// Its name in orders.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xbzrle => "xbzrle",
            Self::Multithreaded => "mt",
        }
    }
}

/// Downtime steps that are taken of an order.
const MOST_STEPS: usize = 16;

impl TryFrom<&v1::MoveOptions> for Options {
    type Error = BadField;

    fn try_from(message: &v1::MoveOptions) -> Result<Self, BadField> {
        let bad =
            |field, given: &dyn std::fmt::Debug| bad_field("Order", field, &format!("{given:?}"));
        let kind = v1::MoveKind::try_from(message.kind)
            .ok()
            .filter(|kind| *kind != v1::MoveKind::Unspecified)
            .ok_or_else(|| bad("options.kind", &message.kind))?;
        let disks = v1::DiskCopy::try_from(message.disks)
            .map_err(|_| bad("options.disks", &message.disks))?;
        let compression = match message.compression.as_str() {
            "" => None,
            "xbzrle" => Some(Compression::Xbzrle),
            "mt" => Some(Compression::Multithreaded),
            other => return Err(bad("options.compression", &other)),
        };
        if message.downtime_steps_ms.len() > MOST_STEPS {
            return Err(bad("options.downtime_steps_ms", &message.downtime_steps_ms));
        }
        let ms = |ms: &u64| Duration::from_millis(*ms);
        let known = |value: u64| (value > 0).then_some(value);
        Ok(Self {
            kind,
            disks,
            downtime_limit: ms(&message.downtime_limit_ms),
            downtime_steps: message.downtime_steps_ms.iter().map(ms).collect(),
            patience: known(message.patience_ms).map(|patience| ms(&patience)),
            bandwidth_limit_mib_s: known(message.bandwidth_limit_mib_s),
            auto_converge: message.auto_converge,
            post_copy: message.post_copy,
            connections: message.connections.max(1),
            compression,
            tls: message.tls,
            allow_older_target: message.allow_older_target,
        })
    }
}

impl TryFrom<v1::Order> for Order {
    type Error = BadField;

    fn try_from(message: v1::Order) -> Result<Self, BadField> {
        let options = message.options.clone().unwrap_or_default();
        let parsed = Self {
            id: message
                .id
                .parse()
                .map_err(|_| bad_field("Order", "id", &message.id))?,
            guest: field("guest_uuid", &message.guest_uuid)?,
            source: field("source", &message.source)?,
            target: field("target", &message.target)?,
            epoch: Epoch(message.epoch),
            deadline_ms: message.deadline_ms,
            options: Options::try_from(&options)?,
            message,
        };
        if parsed.source == parsed.target {
            return Err(bad_field("Order", "target", parsed.target.as_str()));
        }
        Ok(parsed)
    }
}

fn field<T: std::str::FromStr>(name: &'static str, text: &str) -> Result<T, BadField> {
    text.parse().map_err(|_| bad_field("Order", name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> v1::Order {
        v1::Order {
            id: OrderId::from_random(1).to_string(),
            guest_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
            source: "h1".into(),
            target: "h2".into(),
            epoch: 7,
            options: Some(v1::MoveOptions {
                kind: v1::MoveKind::Live.into(),
                downtime_limit_ms: 300,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_sound_order_is_taken() {
        let order = Order::try_from(message()).unwrap();
        assert_eq!(order.epoch, Epoch(7));
        assert_eq!(order.options.kind, v1::MoveKind::Live);
        assert_eq!(order.options.bandwidth_limit_mib_s, None);
        assert_eq!(order.options.connections, 1);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused_by_field() {
        type Break = fn(&mut v1::Order);
        let broken: [(&str, Break); 8] = [
            ("id", |m| m.id = "x".into()),
            ("guest_uuid", |m| m.guest_uuid.clear()),
            ("source", |m| m.source = "a/b".into()),
            ("target", |m| m.target = "h1".into()),
            ("options.kind", |m| m.options = None),
            ("options.disks", |m| {
                m.options.get_or_insert_default().disks = 9;
            }),
            ("options.compression", |m| {
                m.options.get_or_insert_default().compression = "zip".into();
            }),
            ("options.downtime_steps_ms", |m| {
                m.options.get_or_insert_default().downtime_steps_ms = vec![1; 99];
            }),
        ];
        for (field, break_it) in broken {
            let mut m = message();
            break_it(&mut m);
            assert_eq!(Order::try_from(m).unwrap_err().field, field);
        }
    }
}
