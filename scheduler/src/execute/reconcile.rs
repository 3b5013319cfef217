//! What to do about an order that stands, judged from etcd alone.

use std::time::Duration;

use evenkeel_types::{Epoch, Refusal};

use crate::observe::{JournalEntry, OrderEntry};

/// An order that no agent has taken up after this long is withdrawn: its guest has waited enough, and the
/// picture it was made of is old.
const UNTAKEN: Duration = Duration::from_secs(30);
/// An accepted order whose journal does not show is delivered again; the agent refuses a duplicate.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// Characters of an agent's words that are remembered.
const MOST_DETAIL: usize = 500;

/// What this leader remembers of its deliveries of one order; nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    /// A call is under way.
    pub under_way: bool,
    /// When the last call ended, milliseconds since the Unix epoch.
    pub last_ms: Option<i64>,
    /// What the agent refused it for, if it did.
    pub refused: Option<Refusal>,
    /// What the agent said to its refusal, or why it could not be asked.
    pub detail: String,
}

/// The next step for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderAction {
    /// Nothing now.
    Wait,
    /// Call the source agent.
    Deliver,
    /// Its journal is closed: remember the outcome, remove the order.
    Settle,
    /// No agent has taken it up and none will: remove it. Without the order no agent can start.
    Withdraw(Refusal),
}

/// Decides from the order, its journal, our epoch and our memory of deliveries.
///
/// **Invariant:** an order with a journal is never delivered, withdrawn or replaced; only its end removes it
/// (test `a_journal_is_never_ordered_over`).
#[must_use]
pub fn reconcile(
    entry: &OrderEntry,
    journal: Option<&JournalEntry>,
    epoch: Epoch,
    delivered: &Delivered,
    now_ms: i64,
) -> OrderAction {
    if let Some(journal) = journal {
        let over = journal.state.outcome().is_some();
        return if over {
            OrderAction::Settle
        } else {
            OrderAction::Wait
        };
    }
    if delivered.under_way {
        return OrderAction::Wait;
    }
    if entry.order.epoch != epoch {
        return OrderAction::Withdraw(Refusal::StaleEpoch);
    }
    if let Some(refusal) = delivered.refused {
        return OrderAction::Withdraw(refusal);
    }
    // A time that lies ahead was noted before the clock was set back: how long ago is not known, and waiting
    // for the clock to catch up could take for ever.
    let since = |then: i64| Duration::from_millis(now_ms.abs_diff(then));
    if since(entry.order.message.created_at_ms) >= UNTAKEN {
        return OrderAction::Withdraw(Refusal::SourceUnreachable);
    }
    if delivered
        .last_ms
        .is_some_and(|last| since(last) < REPEAT_AFTER)
    {
        return OrderAction::Wait;
    }
    OrderAction::Deliver
}

/// Why an order is withdrawn, for people.
#[must_use]
pub fn explain(entry: &OrderEntry, refusal: Refusal, delivered: &Delivered) -> String {
    let source = &entry.order.source;
    let detail: String = delivered.detail.chars().take(MOST_DETAIL).collect();
    if delivered.refused == Some(refusal) {
        return if detail.is_empty() {
            format!("the agent of {source} refused it")
        } else {
            detail
        };
    }
    if refusal == Refusal::StaleEpoch {
        return "an earlier leader ordered it, and no agent had taken it up".to_owned();
    }
    if detail.is_empty() {
        return format!("the agent of {source} did not take it up in time");
    }
    format!("the agent of {source} did not take it up: {detail}")
}

#[cfg(test)]
mod tests {
    use evenkeel_proto::v1;
    use evenkeel_types::lifecycle::CopyFacts;
    use evenkeel_types::{MigrationState, Outcome};

    use super::*;
    use crate::observe::samples::order_entry;

    const OURS: Epoch = Epoch(10);

    fn entry(epoch: i64) -> OrderEntry {
        order_entry(5, |o| {
            o.epoch = epoch;
            o.created_at_ms = 1_000;
        })
    }

    fn journal(state: MigrationState) -> JournalEntry {
        JournalEntry {
            order: entry(10).order,
            state,
            message: v1::Journal::default(),
            mod_revision: 4,
        }
    }

    fn check(entry: &OrderEntry, delivered: &Delivered, now_ms: i64, expected: OrderAction) {
        assert_eq!(reconcile(entry, None, OURS, delivered, now_ms), expected);
    }

    #[test]
    fn a_fresh_order_is_delivered_and_given_time() {
        check(
            &entry(10),
            &Delivered::default(),
            1_000,
            OrderAction::Deliver,
        );
        let called = Delivered {
            last_ms: Some(1_500),
            ..Delivered::default()
        };
        check(&entry(10), &called, 2_000, OrderAction::Wait);
        check(&entry(10), &called, 7_000, OrderAction::Deliver);
        let calling = Delivered {
            under_way: true,
            ..Delivered::default()
        };
        check(&entry(10), &calling, 90_000, OrderAction::Wait);
    }

    #[test]
    fn an_order_that_nobody_takes_up_is_withdrawn_with_the_reason() {
        let withdrawn = OrderAction::Withdraw(Refusal::SourceUnreachable);
        check(&entry(10), &Delivered::default(), 31_000, withdrawn);
        let refused = Delivered {
            refused: Some(Refusal::NoMemory),
            ..Delivered::default()
        };
        check(
            &entry(10),
            &refused,
            2_000,
            OrderAction::Withdraw(Refusal::NoMemory),
        );
    }

    #[test]
    fn an_order_from_before_the_clock_was_set_back_is_not_waited_for() {
        let withdrawn = OrderAction::Withdraw(Refusal::SourceUnreachable);
        check(&entry(10), &Delivered::default(), -3_600_000, withdrawn);
        check(&entry(10), &Delivered::default(), 900, OrderAction::Deliver);
        let called = Delivered {
            last_ms: Some(3_600_000),
            ..Delivered::default()
        };
        check(&entry(10), &called, 2_000, OrderAction::Deliver);
    }

    #[test]
    fn what_an_agent_said_is_the_reason_of_the_withdrawal() {
        let said = |refused, detail: &str| Delivered {
            refused,
            detail: detail.to_owned(),
            ..Delivered::default()
        };
        let reason = |refusal, delivered| explain(&entry(10), refusal, &delivered);
        let refused = said(Some(Refusal::NoMemory), "needs 64 MiB, 12 MiB are free");
        assert_eq!(
            reason(Refusal::NoMemory, refused),
            "needs 64 MiB, 12 MiB are free"
        );
        assert_eq!(
            reason(Refusal::StaleEpoch, Delivered::default()),
            "an earlier leader ordered it, and no agent had taken it up"
        );
        assert_eq!(
            reason(Refusal::SourceUnreachable, said(None, "no answer in 10s")),
            "the agent of h1 did not take it up: no answer in 10s"
        );
    }

    #[test]
    fn a_predecessors_order_without_a_journal_is_withdrawn_never_repeated() {
        let withdrawn = OrderAction::Withdraw(Refusal::StaleEpoch);
        check(&entry(9), &Delivered::default(), 1_000, withdrawn);
    }

    #[test]
    fn a_journal_is_never_ordered_over() {
        let open = [
            MigrationState::Preparing,
            MigrationState::Running(CopyFacts::default()),
            MigrationState::Switching(CopyFacts::default()),
        ];
        for epoch in [9, 10] {
            for state in open {
                let action = reconcile(
                    &entry(epoch),
                    Some(&journal(state)),
                    OURS,
                    &Delivered {
                        refused: Some(Refusal::Duplicate),
                        ..Delivered::default()
                    },
                    1_000_000,
                );
                assert_eq!(action, OrderAction::Wait);
            }
            let done = journal(MigrationState::Ended(Outcome::Done));
            let action = reconcile(
                &entry(epoch),
                Some(&done),
                OURS,
                &Delivered::default(),
                1_000_000,
            );
            assert_eq!(action, OrderAction::Settle);
        }
    }
}
