//! An order as tests of several modules need it.

use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::OrderId;

use super::OrderEntry;

/// A live move of one and the same guest from h1 to h2, edited; `id` tells orders apart.
pub(crate) fn order_entry(id: u128, edit: impl FnOnce(&mut v1::Order)) -> OrderEntry {
    let mut message = v1::Order {
        id: OrderId::from_random(id).to_string(),
        guest_uuid: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into(),
        source: "h1".into(),
        target: "h2".into(),
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    edit(&mut message);
    OrderEntry {
        order: Order::try_from(message).unwrap(),
        mod_revision: 3,
    }
}
