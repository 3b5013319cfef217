//! Notes of guests whose order is over and whose source has not said how: both hosts are asked.
//!
//! Looks at the start, for an earlier life of this agent may have made files, and now and then, for a source
//! may have died before it could say that its guest stays.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_types::{Presence, Whereabouts};
use tokio_util::sync::CancellationToken;

use super::Incomings;
use crate::driver::Driver;
use crate::hypervisor::Hypervisor;
use crate::journal::Records;
use crate::ledger::Incoming;
use crate::peer::Peers;

/// Between two looks.
const PACE: Duration = Duration::from_secs(20);

/// Looks until `stop`.
pub async fn look_after<H: Hypervisor, R: Records, P: Peers>(
    driver: Arc<Driver<H, R, P>>,
    incomings: Arc<Incomings<H>>,
    stop: CancellationToken,
) {
    loop {
        sweep(&driver, &incomings).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

/// Goes through the notes once.
pub async fn sweep<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    incomings: &Incomings<H>,
) {
    for incoming in incomings.all() {
        let over = match driver.records.order(&incoming.guest).await {
            Ok(order) => order.is_none_or(|order| order.id != incoming.order.as_str()),
            // Without etcd nothing is known to be over.
            Err(_) => false,
        };
        if !over {
            continue;
        }
        let place = ask(driver, &incoming).await;
        match incomings.close(&incoming.order, place).await {
            Ok(true) => tracing::info!(
                order = %incoming.order, guest = %incoming.guest, %place,
                "an incoming guest's note is closed"
            ),
            Ok(false) => tracing::debug!(
                order = %incoming.order, guest = %incoming.guest, %place,
                "an incoming guest's note stays open"
            ),
            Err(error) => tracing::debug!(order = %incoming.order, %error, "note not closed"),
        }
    }
}

/// Where the guest is by its source's word and this host's own.
async fn ask<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    incoming: &Incoming,
) -> Whereabouts {
    let guest = incoming.guest.clone();
    let here = driver.calls.call(move |h| Ok(h.presence(&guest)?.0)).await;
    let there = driver.peers.inspect(&incoming.source, &incoming.guest);
    let there = there.await.ok().map(|found| found.presence);
    judge(incoming, there, here.ok())
}

/// What both answers mean for what was made. A guest that was to come running and is now shut off at its source
/// may have been here meanwhile: only one that lives there has its disks there for certain.
fn judge(incoming: &Incoming, there: Option<Presence>, here: Option<Presence>) -> Whereabouts {
    let came_and_stopped = (Some(Presence::Absent), Some(Presence::ShutOff)) == (there, here);
    if came_and_stopped && !incoming.defined_before {
        return Whereabouts::Target;
    }
    if incoming.shut_off && !incoming.defined_before {
        return Whereabouts::judge_shut_off(there, here);
    }
    Whereabouts::judge(there, here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Presence::{Absent, Running, ShutOff};

    #[test]
    fn only_a_guest_that_lives_at_its_source_has_stayed() {
        let incoming = |shut_off, defined_before| Incoming {
            order: evenkeel_types::OrderId::from_random(1),
            guest: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap(),
            source: "h1".parse().unwrap(),
            shut_off,
            defined_before,
            autostart: false,
            files: vec![],
        };
        let live = |there, here| judge(&incoming(false, false), Some(there), Some(here));
        assert_eq!(live(Running, Absent), Whereabouts::Source);
        assert_eq!(live(ShutOff, Absent), Whereabouts::Nowhere);
        assert_eq!(live(Absent, Running), Whereabouts::Target);
        assert_eq!(live(Absent, ShutOff), Whereabouts::Target);
        let off = |there, here| judge(&incoming(true, false), Some(there), Some(here));
        assert_eq!(off(ShutOff, Absent), Whereabouts::Source);
        assert_eq!(off(ShutOff, ShutOff), Whereabouts::Unsettled);
        assert_eq!(off(Absent, ShutOff), Whereabouts::Target);
        let silent = judge(&incoming(true, false), None, Some(Absent));
        assert_eq!(silent, Whereabouts::Unanswered);
        let before = judge(&incoming(false, true), Some(Absent), Some(ShutOff));
        assert_eq!(before, Whereabouts::Nowhere);
    }
}
