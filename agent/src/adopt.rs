//! Journals that nobody drives: open ones of an earlier life are taken up, settled ones are tidied away.
//!
//! Looks at the start, whenever etcd comes back, and now and then, for an admission whose answer was lost may
//! leave a journal that no task knows. A closed journal stays until the leader has removed its order: it is
//! how the leader learns of the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_daemon::StoreError;
use evenkeel_daemon::retry::Backoff;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, MigrationState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::driver::{Closed, Driver};
use crate::hypervisor::Hypervisor;
use crate::journal::{Records, Stored, state_of};
use crate::peer::Peers;

/// Between two looks while closed journals wait for the leader, or migrations run.
const SOON: Duration = Duration::from_secs(5);
/// Between two looks when there is nothing to tidy.
const SELDOM: Duration = Duration::from_secs(60);

/// Journals that this version does not understand, by order and revision: each is logged once.
pub type Strange = BTreeSet<(String, i64)>;

/// Looks until `stop`. `healthy` tells whether etcd answers.
pub async fn look_after<H: Hypervisor, R: Records, P: Peers>(
    driver: Arc<Driver<H, R, P>>,
    mut healthy: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    let mut strange = Strange::default();
    loop {
        let wait = match look(&driver, &mut strange).await {
            Ok(waiting) => {
                backoff.reset();
                let busy = waiting > 0 || driver.running.count() > 0;
                if busy { SOON } else { SELDOM }
            }
            Err(error) => {
                tracing::debug!(%error, "own journals not read");
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = back_again(&mut healthy) => {}
        }
    }
}

/// Waits until etcd answers again after a time in which it did not.
async fn back_again(healthy: &mut watch::Receiver<bool>) {
    let away = healthy.wait_for(|up| !up).await.is_ok();
    if !(away && healthy.wait_for(|up| *up).await.is_ok()) {
        std::future::pending::<()>().await;
    }
}

/// Goes through this host's journals once; answers how many closed ones wait for the leader.
///
/// # Errors
/// When etcd does not answer.
pub async fn look<H: Hypervisor, R: Records, P: Peers>(
    driver: &Arc<Driver<H, R, P>>,
    strange: &mut Strange,
) -> Result<usize, StoreError> {
    let (mut waiting, mut not_understood) = (0, Strange::default());
    for stored in driver.records.journals().await? {
        match understood(&stored.value) {
            Ok((guest, _)) if driver.running.has(&guest) => {
                if let Some(closed) = Closed::of(&stored.value) {
                    driver.closed_elsewhere(&guest, &closed).await;
                }
            }
            Ok((_, Some((order, state)))) => {
                let driver = Arc::clone(driver);
                // Waits for the hypervisor: not here.
                tokio::spawn(async move { driver.adopt(order, state, stored).await });
            }
            Ok((guest, None)) if tidy(driver, &guest, &stored).await? => {}
            Ok((_, None)) => waiting += 1,
            Err(why) => {
                let id = stored.value.order.unwrap_or_default().id;
                if !strange.contains(&(id.clone(), stored.revision)) {
                    tracing::error!(
                        order = id,
                        why,
                        "a journal is not understood and left alone"
                    );
                }
                not_understood.insert((id, stored.revision));
            }
        }
    }
    *strange = not_understood;
    Ok(waiting)
}

/// The guest of a journal and, if it is open, what it takes to go on with it.
type Understood = (GuestId, Option<(Order, MigrationState)>);

/// # Errors
/// Why the journal is not understood, in words.
fn understood(journal: &v1::Journal) -> Result<Understood, String> {
    let state = state_of(journal).ok_or("its state is of a newer version")?;
    let message = journal.order.clone().unwrap_or_default();
    if state.outcome().is_some() {
        let guest: Result<GuestId, _> = message.guest_uuid.parse();
        return Ok((guest.map_err(|error| error.to_string())?, None));
    }
    let order = Order::try_from(message).map_err(|error| error.to_string())?;
    Ok((order.guest.clone(), Some((order, state))))
}

/// Removes a closed journal whose order is settled; `false`: its order still stands.
async fn tidy<H: Hypervisor, R: Records, P: Peers>(
    driver: &Driver<H, R, P>,
    guest: &GuestId,
    stored: &Stored<v1::Journal>,
) -> Result<bool, StoreError> {
    let id = |order: &v1::Order| order.id.clone();
    let stands = driver.records.order(guest).await?;
    if stands.as_ref().map(id) == stored.value.order.as_ref().map(id) {
        return Ok(false);
    }
    driver.records.remove(guest, stored.revision).await?;
    tracing::debug!(%guest, "closed journal removed");
    Ok(true)
}
