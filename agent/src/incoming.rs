//! Disks of guests that are on their way here: made before they come, taken away when they do not.
//!
//! ```text
//!  Prepare ──make──▶ ledger: intended ─▶ volume ─▶ ledger: made        (refused: all of it taken back)
//!  CopyDisk ─receive─▶ bytes into a volume of the ledger, and what is read back of it
//!  Release, sweep ──close──▶ arrived: autostart · stayed: volumes removed · neither: asked again later
//! ```
//!
//! **Invariant:** only files that stand in the ledger are ever removed, and only when both hosts were asked and
//! the guest lives at its source (tests `what_others_made_is_never_removed`, `nothing_is_removed_while_…`).

use std::sync::Arc;

use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName, OrderId, Presence, Refusal, Whereabouts};
use tokio::sync::{Mutex, mpsc};

use crate::calls::Calls;
use crate::digest::{Digest, Sum};
use crate::hypervisor::disks::{DiskImage, LocalDisk, Piece, Spot};
use crate::hypervisor::{Hypervisor, HypervisorError};
use crate::journal::Refused;
use crate::ledger::{Incoming, Ledger, Left, Made, Stage};

/// A pool may need to be looked through before it answers.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(15);
/// An empty file of any format takes less.
const EMPTY_BYTES: u64 = 1 << 20;
/// Of what a disk takes at its source, a tenth more is to be free: it grows while it is copied.
const GROWTH: u64 = 10;
/// A twentieth of a pool is left alone: a file system that is full stops every guest on it.
const SPARED: u64 = 20;

/// What a guest that comes needs beside memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Luggage {
    /// Disks that are copied along.
    pub disks: Vec<LocalDisk>,
    /// Whether it is to be started with its host.
    pub autostart: bool,
}

/// A run of a disk's bytes on its way to a volume.
#[derive(Debug)]
pub enum Arrival {
    /// The next bytes.
    Piece(Piece),
    /// There are no more. Without it, whoever sends has gone.
    End,
}

/// This host's incoming disks.
#[derive(Debug)]
pub struct Incomings<H> {
    calls: Calls<H>,
    ledger: Arc<Ledger>,
    /// One decision at a time: what one has counted as free, another must not.
    turn: Mutex<()>,
}

impl<H: Hypervisor> Incomings<H> {
    /// Those that `ledger` knows.
    #[must_use]
    pub fn new(calls: Calls<H>, ledger: Arc<Ledger>) -> Self {
        Self {
            calls,
            ledger,
            turn: Mutex::default(),
        }
    }

    /// Every incoming guest of which something is remembered.
    #[must_use]
    pub fn all(&self) -> Vec<Incoming> {
        self.ledger.incoming()
    }

    /// Makes what the guest of `order` needs here and remembers it.
    ///
    /// # Errors
    /// The refusal, by name; nothing that was made is then left.
    pub async fn make(
        &self,
        source: &HostName,
        order: &Order,
        luggage: &Luggage,
    ) -> Result<(), Refused> {
        let shut_off = order.options.kind == v1::MoveKind::Offline;
        if luggage.disks.is_empty() && !luggage.autostart && !shut_off {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let wish = Wish {
            guest: order.guest.clone(),
            disks: luggage.disks.clone(),
            shut_off,
            incremental: order.options.disks == v1::DiskCopy::Incremental,
            open: self.ledger.incoming(),
            left: self.ledger.left(&order.guest),
        };
        let planned = self.calls.call_within(DEADLINE, move |h| wish.plan(h));
        let (presence, files) = planned.await.map_err(no_libvirt)??;
        let mut incoming = Incoming {
            order: order.id.clone(),
            guest: order.guest.clone(),
            source: source.clone(),
            shut_off,
            defined_before: presence != Presence::Absent,
            autostart: luggage.autostart,
            files,
        };
        self.note(&incoming)?;
        for at in 0..incoming.files.len() {
            if let Err(refused) = self.make_one(&mut incoming, at).await {
                self.take_back(&incoming).await;
                return Err(refused);
            }
        }
        Ok(())
    }

    fn note(&self, incoming: &Incoming) -> Result<(), Refused> {
        self.ledger.note(incoming).map_err(|error| {
            let detail = format!("the state directory does not take a note: {error}");
            (Refusal::NoDiskSpace, detail)
        })
    }

    /// Makes one file; what the guest itself left at its path gives way.
    async fn make_one(&self, incoming: &mut Incoming, at: usize) -> Result<(), Refused> {
        let Some(made) = incoming.files.get(at).cloned() else {
            return Ok(());
        };
        let path = made.image.path.clone();
        let outcome = self
            .calls
            .call_within(DEADLINE, move |h| make_file(h, &made));
        if let Err(error) = outcome.await {
            // It said no: neither this file nor those after it are ours. Without an answer it may yet be.
            if matches!(error, HypervisorError::Failed { .. }) {
                incoming.files.truncate(at);
            }
            let detail = format!("{path} could not be made: {error}");
            return Err((Refusal::MissingStorage, detail));
        }
        if let Some(made) = incoming.files.get_mut(at) {
            made.stage = Stage::Made;
        }
        self.note(incoming)
    }

    async fn take_back(&self, incoming: &Incoming) {
        if let Err(error) = self.remove_files(incoming).await {
            tracing::warn!(order = %incoming.order, %error, "what was made stays for now");
            return;
        }
        self.ledger.forget(&incoming.order);
    }

    /// Closes an order's note by where both hosts say that its guest is; `false`: not yet.
    ///
    /// # Errors
    /// When the hypervisor does not answer; the note stands.
    pub async fn close(
        &self,
        order: &OrderId,
        place: Whereabouts,
    ) -> Result<bool, HypervisorError> {
        let _turn = self.turn.lock().await;
        let Some(incoming) = self.ledger.of(order) else {
            return Ok(true);
        };
        let guest = incoming.guest.clone();
        let here = self.calls.call(move |h| Ok(h.presence(&guest)?.0)).await?;
        let closed = match (place, here) {
            (Whereabouts::Target, Presence::Absent | Presence::PausedByMigration) => false,
            (Whereabouts::Target, _) => self.arrived(&incoming).await?,
            (Whereabouts::Source, _) => self.stayed(&incoming, here).await?,
            (
                Whereabouts::Both
                | Whereabouts::Nowhere
                | Whereabouts::Unsettled
                | Whereabouts::Unanswered,
                _,
            ) => false,
        };
        if closed {
            self.ledger.forget(order);
        }
        Ok(closed)
    }

    /// The guest is here, with its disks.
    async fn arrived(&self, incoming: &Incoming) -> Result<bool, HypervisorError> {
        let guest = incoming.guest.clone();
        if incoming.autostart {
            self.calls.call(move |h| h.set_autostart(&guest)).await?;
        }
        self.ledger.is_back(&incoming.guest);
        Ok(true)
    }

    /// The guest lives at its source: what was made for it here goes.
    async fn stayed(&self, incoming: &Incoming, here: Presence) -> Result<bool, HypervisorError> {
        let nothing_before = !incoming.defined_before;
        match here {
            Presence::Running | Presence::Paused | Presence::PausedByMigration => return Ok(false),
            // Its definition came with this order, and not the guest.
            Presence::ShutOff if nothing_before && incoming.shut_off => {
                let guest = incoming.guest.clone();
                self.calls.call(move |h| h.undefine(&guest)).await?;
            }
            Presence::ShutOff if nothing_before => return Ok(false),
            Presence::ShutOff | Presence::Absent => {}
        }
        self.remove_files(incoming).await
    }

    /// Removes what stands in the note. A file that a guest uses stays.
    async fn remove_files(&self, incoming: &Incoming) -> Result<bool, HypervisorError> {
        let mut all = true;
        for made in &incoming.files {
            let (guest, made) = (incoming.guest.clone(), made.clone());
            let path = made.image.path.clone();
            let removal = self
                .calls
                .call_within(DEADLINE, move |h| remove_file(h, &guest, &made));
            let removal = removal.await?;
            tracing::info!(order = %incoming.order, guest = %incoming.guest, path, ?removal,
                "a file for a guest that did not come");
            all &= removal != Removal::InUse;
        }
        Ok(all)
    }

    /// Writes a disk of a guest that comes shut off, and sums up what is then read back.
    ///
    /// # Errors
    /// Why not, in words; the file is then to be taken away with the others.
    pub async fn receive(
        &self,
        source: &HostName,
        order: &OrderId,
        path: &str,
        mut arrivals: mpsc::Receiver<Arrival>,
    ) -> Result<Sum, String> {
        let incoming = self.ledger.of(order).filter(|i| i.source == *source);
        let incoming = incoming.ok_or_else(|| format!("order {order} is not expected"))?;
        let is_it = |made: &&Made| made.image.path == path && made.stage == Stage::Made;
        if !incoming.shut_off || incoming.files.iter().find(is_it).is_none() {
            return Err(format!("{path} was not made for order {order}"));
        }
        let (hypervisor, path) = (self.calls.hypervisor().clone(), path.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            if hypervisor.presence(&incoming.guest)?.0 != Presence::Absent {
                return Err(broken("the guest is here already"));
            }
            hypervisor.write_volume(&path, &mut || match arrivals.blocking_recv() {
                Some(Arrival::Piece(piece)) => Ok(Some(piece)),
                Some(Arrival::End) => Ok(None),
                None => Err(broken("the sender is gone")),
            })?;
            summed(&*hypervisor, &path)
        });
        let outcome = work.await.map_err(|error| error.to_string())?;
        outcome.map_err(|error| error.to_string())
    }
}

fn broken(why: &str) -> HypervisorError {
    HypervisorError::Unreachable {
        detail: why.to_owned(),
    }
}

/// What a file holds.
///
/// # Errors
/// When it cannot be read to its end.
pub fn summed<H: Hypervisor>(hypervisor: &H, path: &str) -> Result<Sum, HypervisorError> {
    let mut digest = Digest::default();
    hypervisor.read_volume(path, &mut |piece| {
        digest.take(&piece);
        true
    })?;
    Ok(digest.finish())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn no_libvirt(error: HypervisorError) -> Refused {
    (Refusal::NoLibvirt, error.to_string())
}

/// Makes a file. What the guest left at its path gives way, if it is still what was looked at.
fn make_file<H: Hypervisor>(hypervisor: &H, made: &Made) -> Result<(), HypervisorError> {
    let path = &made.image.path;
    if let Some(modified) = &made.replaces {
        let stands = hypervisor.spot(path)?.and_then(|spot| spot.volume);
        if stands.is_some_and(|volume| volume.modified == *modified) {
            hypervisor.remove_volume(path)?;
        }
    }
    hypervisor.make_volume(&made.image, made.backing.as_ref())
}

/// What became of a file that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    Removed,
    /// It was never made.
    NotThere,
    /// Somebody else has put something at its path before it was made.
    NotOurs,
    /// A guest has it among its disks.
    InUse,
}

fn remove_file<H: Hypervisor>(
    hypervisor: &H,
    guest: &GuestId,
    made: &Made,
) -> Result<Removal, HypervisorError> {
    let path = &made.image.path;
    let Some(volume) = hypervisor.spot(path)?.and_then(|spot| spot.volume) else {
        return Ok(Removal::NotThere);
    };
    if made.stage == Stage::Intended && volume.allocation_bytes > EMPTY_BYTES {
        return Ok(Removal::NotOurs);
    }
    if !hypervisor.users(path, guest)?.is_empty() {
        return Ok(Removal::InUse);
    }
    hypervisor.remove_volume(path)?;
    Ok(Removal::Removed)
}

/// What is to be made, and what is known beside the hypervisor's word.
struct Wish {
    guest: GuestId,
    disks: Vec<LocalDisk>,
    shut_off: bool,
    incremental: bool,
    open: Vec<Incoming>,
    left: Option<Left>,
}

/// What the host has of the guest, and the files that are to be made.
type Planned = Result<(Presence, Vec<Made>), Refused>;

impl Wish {
    /// Looks whether everything can be made. Makes nothing.
    fn plan<H: Hypervisor>(&self, hypervisor: &H) -> Result<Planned, HypervisorError> {
        let presence = hypervisor.presence(&self.guest)?.0;
        let mut files: Vec<Made> = vec![];
        for disk in &self.disks {
            let planned = self.plan_one(hypervisor, disk, &files)?;
            match planned {
                Ok(made) => files.push(made),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok((presence, files)))
    }

    fn plan_one<H: Hypervisor>(
        &self,
        hypervisor: &H,
        disk: &LocalDisk,
        before: &[Made],
    ) -> Result<Result<Made, Refused>, HypervisorError> {
        let path = &disk.image.path;
        let Some(spot) = hypervisor.spot(path)? else {
            let detail = format!("no active storage pool here has the directory of {path}");
            return Ok(Err((Refusal::MissingStorage, detail)));
        };
        if let Some(refused) = self.stands_in_the_way(path, &spot) {
            return Ok(Err(refused));
        }
        if let Some(user) = hypervisor.users(path, &self.guest)?.first() {
            let detail = format!("{path} is a disk of guest {user:?} here");
            return Ok(Err((Refusal::DiskInUse, detail)));
        }
        if self.incremental
            && let Some(refused) = lacks_a_layer(hypervisor, disk)?
        {
            return Ok(Err(refused));
        }
        let need_bytes = disk
            .allocation_bytes
            .saturating_add(disk.allocation_bytes / GROWTH);
        let promised = self.promised(hypervisor, &spot.pool)?;
        let before = before.iter().filter(|made| made.pool == spot.pool);
        let promised = before.fold(promised, |sum, made| sum.saturating_add(made.need_bytes));
        let (all, free) = spot.pool_bytes;
        let free_for_us = free.saturating_sub(promised).saturating_sub(all / SPARED);
        if need_bytes > free_for_us {
            let detail = format!(
                "{path} needs {need_bytes} bytes; pool {:?} has {free} free of {all}, {promised} of them promised",
                spot.pool
            );
            return Ok(Err((Refusal::NoDiskSpace, detail)));
        }
        Ok(Ok(self.file_for(disk, spot, need_bytes)))
    }

    /// A file that is there already, unless the guest itself has left it and nobody has written to it since.
    fn stands_in_the_way(&self, path: &str, spot: &Spot) -> Option<Refused> {
        let volume = spot.volume.as_ref()?;
        let left = self.left.as_ref().map_or(&[][..], |left| &left.files);
        let own = left.iter().find(|file| file.path == path);
        let untouched = own.is_some_and(|file| file.modified.as_ref() == Some(&volume.modified));
        let detail = match own {
            _ if untouched => return None,
            Some(_) => format!("{path} was left here by this guest, and written to since"),
            None => format!("{path} is here already"),
        };
        Some((Refusal::DiskInUse, detail))
    }

    /// Bytes of a pool that other incoming guests will still take.
    fn promised<H: Hypervisor>(&self, hypervisor: &H, pool: &str) -> Result<u64, HypervisorError> {
        let mut promised = 0_u64;
        let files = self.open.iter().flat_map(|incoming| &incoming.files);
        for made in files.filter(|made| made.pool == pool) {
            let volume = hypervisor.spot(&made.image.path)?.and_then(|s| s.volume);
            let taken = volume.map_or(0, |volume| volume.allocation_bytes);
            promised = promised.saturating_add(made.need_bytes.saturating_sub(taken));
        }
        Ok(promised)
    }

    fn file_for(&self, disk: &LocalDisk, spot: Spot, need_bytes: u64) -> Made {
        let image = &disk.image;
        // Of a guest that is shut off the very bytes of the file come, whatever they mean.
        let plain = DiskImage {
            path: image.path.clone(),
            format: "raw".into(),
            capacity_bytes: if image.format == "raw" {
                image.capacity_bytes
            } else {
                0
            },
        };
        let backing = disk.backing.first().filter(|_| self.incremental).cloned();
        Made {
            image: if self.shut_off { plain } else { image.clone() },
            backing: backing.filter(|_| !self.shut_off),
            need_bytes,
            pool: spot.pool,
            replaces: spot.volume.map(|volume| volume.modified),
            stage: Stage::Intended,
        }
    }
}

/// An image below the disk that is not here, or not the same.
fn lacks_a_layer<H: Hypervisor>(
    hypervisor: &H,
    disk: &LocalDisk,
) -> Result<Option<Refused>, HypervisorError> {
    for layer in &disk.backing {
        let here = hypervisor.spot(&layer.path)?.and_then(|spot| spot.volume);
        let size = here.map(|volume| volume.image.capacity_bytes);
        let detail = match size {
            Some(size) if size == layer.capacity_bytes => continue,
            Some(size) => format!(
                "{}, below disk {}, has {size} bytes here and {} at the source",
                layer.path, disk.name, layer.capacity_bytes
            ),
            None => format!("{}, below disk {}, is not here", layer.path, disk.name),
        };
        return Ok(Some((Refusal::MissingStorage, detail)));
    }
    Ok(None)
}

pub mod sweep;

#[cfg(test)]
mod tests;
