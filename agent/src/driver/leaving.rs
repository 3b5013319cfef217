//! Whether a guest may leave, and what it takes along. Looks only; nothing is done to the guest.

use evenkeel_proto::order::{Options, Order};
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, Presence, Refusal};

use crate::calls::Calls;
use crate::hypervisor::{GuestTraits, Hypervisor, HypervisorError};
use crate::incoming::Luggage;
use crate::journal::Refused;
use crate::measure::OPTED_OUT;

/// The hindrance that an order to copy disks overcomes.
const LOCAL_DISK: &str = "local_disk";
/// The hindrance that has a refusal of its own.
const SNAPSHOTS: &str = "snapshots";
/// Storage pools may have to be looked through.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(15);

/// A guest that may leave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Leaving {
    /// Its definition.
    pub(super) definition: String,
    /// What goes along.
    pub(super) luggage: Luggage,
}

/// Looks whether the guest may leave as the order says.
pub(super) async fn check_here<H: Hypervisor>(
    calls: &Calls<H>,
    order: &Order,
) -> Result<Leaving, Refused> {
    let (guest, options) = (order.guest.clone(), order.options.clone());
    let look = calls.call_within(DEADLINE, move |h| look(h, &guest, &options));
    match look.await {
        Ok(outcome) => outcome,
        Err(error @ HypervisorError::NoSuchGuest { .. }) => {
            Err((Refusal::GuestNotHere, error.to_string()))
        }
        Err(error) => Err((Refusal::NoLibvirt, error.to_string())),
    }
}

fn look<H: Hypervisor>(
    h: &H,
    guest: &GuestId,
    options: &Options,
) -> Result<Result<Leaving, Refused>, HypervisorError> {
    let shut_off = options.kind == v1::MoveKind::Offline;
    let presence = h.presence(guest)?.0;
    if let Some(refused) = wrong_state(shut_off, presence) {
        return Ok(Err(refused));
    }
    if h.is_busy(guest)? {
        let detail = "another job holds the guest".to_owned();
        return Ok(Err((Refusal::Busy, detail)));
    }
    let copied = options.disks != v1::DiskCopy::None;
    if let Some(refused) = hindered(&h.traits(guest)?, shut_off, copied) {
        return Ok(Err(refused));
    }
    let disks = if copied {
        h.local_disks(guest)?
    } else {
        Ok(vec![])
    };
    let disks = match disks {
        Ok(disks) => disks,
        Err(refused) => return Ok(Err(refused)),
    };
    let layered = disks.iter().find(|disk| !disk.backing.is_empty());
    if let Some(disk) = layered.filter(|_| shut_off && options.disks == v1::DiskCopy::Whole) {
        let detail = format!(
            "disk {} has a backing image, which only a running guest's copy can take in; \
             where the target has that image, order an incremental copy",
            disk.name
        );
        return Ok(Err((Refusal::Unsupported, detail)));
    }
    let autostart = h.autostart(guest)?;
    let luggage = Luggage { disks, autostart };
    Ok(Ok(Leaving {
        definition: h.definition(guest)?,
        luggage,
    }))
}

fn wrong_state(shut_off: bool, presence: Presence) -> Option<Refused> {
    let reason = match (presence, shut_off) {
        (Presence::Running, false) | (Presence::ShutOff, true) => return None,
        (Presence::Absent, _) => Refusal::GuestNotHere,
        (Presence::PausedByMigration, _) => Refusal::Busy,
        (Presence::Running | Presence::Paused, true) => Refusal::GuestRunning,
        (Presence::ShutOff | Presence::Paused, false) => Refusal::WrongState,
    };
    Some((reason, format!("the guest is {presence} here")))
}

fn hindered(traits: &GuestTraits, shut_off: bool, copied: bool) -> Option<Refused> {
    let mut names: Vec<&str> = traits.hindrances.iter().map(String::as_str).collect();
    if shut_off {
        names.extend(traits.offline_hindrances.iter().map(String::as_str));
    }
    names.extend(traits.opted_out.then_some(OPTED_OUT));
    names.retain(|name| !(copied && *name == LOCAL_DISK));
    if names.is_empty() {
        return None;
    }
    let reason = if names.contains(&SNAPSHOTS) {
        Refusal::HasSnapshots
    } else {
        Refusal::Unmovable
    };
    Some((reason, names.join(", ")))
}
