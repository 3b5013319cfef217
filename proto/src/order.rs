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
    /// Longest pause the copy may aim at.
    pub downtime_limit: Duration,
    /// MiB/s; `None`: no limit.
    pub bandwidth_limit_mib_s: Option<u64>,
    /// Whether libvirt may slow the guest down to converge.
    pub auto_converge: bool,
    /// The message as it stands in etcd.
    pub message: v1::Order,
}

impl TryFrom<v1::Order> for Order {
    type Error = BadField;

    fn try_from(message: v1::Order) -> Result<Self, BadField> {
        let options = message.options.unwrap_or_default();
        if options.kind() != v1::MoveKind::Live {
            return Err(bad_field(
                "Order",
                "options.kind",
                &options.kind.to_string(),
            ));
        }
        let limit = options.bandwidth_limit_mib_s;
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
            downtime_limit: Duration::from_millis(options.downtime_limit_ms),
            bandwidth_limit_mib_s: (limit > 0).then_some(limit),
            auto_converge: options.auto_converge,
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
        assert_eq!(order.bandwidth_limit_mib_s, None);
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused_by_field() {
        type Break = fn(&mut v1::Order);
        let broken: [(&str, Break); 5] = [
            ("id", |m| m.id = "x".into()),
            ("guest_uuid", |m| m.guest_uuid.clear()),
            ("source", |m| m.source = "a/b".into()),
            ("target", |m| m.target = "h1".into()),
            ("options.kind", |m| m.options = None),
        ];
        for (field, break_it) in broken {
            let mut m = message();
            break_it(&mut m);
            assert_eq!(Order::try_from(m).unwrap_err().field, field);
        }
    }
}
