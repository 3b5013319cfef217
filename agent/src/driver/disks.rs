//! The disks of a guest that is shut off, copied to the target before its definition goes there.
//!
//! ```text
//!  libvirt ─stream─▶ digest ─▶ pace ─▶ channel ─gRPC─▶ target ─stream─▶ libvirt, read back ─▶ digest
//! ```
//!
//! The copy counts only if both digests are equal, and if the guest is still shut off and its file unchanged:
//! nothing keeps a person from starting it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_proto::order::Order;
use evenkeel_types::Presence;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Driver;
use super::task::Signal;
use crate::digest::{Digest, Sum};
use crate::hypervisor::disks::{LocalDisk, Piece};
use crate::hypervisor::{DiskProgress, Hypervisor, HypervisorError, JobProgress};
use crate::journal::Records;
use crate::ledger::{Left, LeftFile};
use crate::peer::Peers;

/// Pieces on their way between libvirt and the network.
const ON_THE_WAY: usize = 8;
const MIB: u64 = 1 << 20;

/// Copies of one order's disks.
pub(super) struct Copying<H, R, P> {
    pub(super) driver: Arc<Driver<H, R, P>>,
    pub(super) order: Arc<Order>,
    pub(super) disks: Vec<LocalDisk>,
    pub(super) signals: mpsc::Sender<Signal>,
    pub(super) aborted: CancellationToken,
}

impl<H: Hypervisor, R: Records, P: Peers> Copying<H, R, P> {
    /// Copies all disks, one after the other. On success the target has what stands here.
    ///
    /// # Errors
    /// Why not, in words; also when it was aborted.
    pub(super) async fn run(self) -> Result<(), String> {
        let sent = Arc::new(AtomicU64::new(0));
        let copies = async {
            for disk in &self.disks {
                let what = |why| format!("disk {} was not copied: {why}", disk.name);
                self.copy(disk, &sent).await.map_err(what)?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            () = self.aborted.cancelled() => Err("the copy of its disks was aborted".into()),
            outcome = copies => outcome,
            never = self.tell(&sent) => match never {},
        }
    }

    /// Tells the task how far it is.
    async fn tell(&self, sent: &AtomicU64) -> std::convert::Infallible {
        let began = Instant::now();
        let of = |disk: &LocalDisk| disk.allocation_bytes;
        let planned = self.disks.iter().map(of).fold(0, u64::saturating_add);
        loop {
            tokio::time::sleep(self.driver.timings.poll).await;
            let done = sent.load(Ordering::Relaxed);
            let disks = DiskProgress {
                total_bytes: planned.max(done),
                transferred_bytes: done,
                remaining_bytes: planned.saturating_sub(done),
            };
            let elapsed = began.elapsed();
            let per_second = u128::from(done) * 1000 / elapsed.as_millis().max(1);
            let progress = JobProgress {
                total_bytes: disks.total_bytes,
                transferred_bytes: disks.transferred_bytes,
                remaining_bytes: disks.remaining_bytes,
                bandwidth_bytes_per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
                elapsed,
                disks,
                ..JobProgress::default()
            };
            // Dropped when the task is busy: the next one comes soon.
            drop(self.signals.try_send(Signal::Progress(progress)));
        }
    }

    async fn copy(&self, disk: &LocalDisk, sent: &Arc<AtomicU64>) -> Result<(), String> {
        let path = &disk.image.path;
        let before = self.modified(path).await?;
        let (pieces, arriving) = mpsc::channel(ON_THE_WAY);
        let reader = self.read(path, pieces, sent);
        let sender = self.driver.peers.copy_disk(&self.order, path, arriving);
        let (read, arrived) = tokio::join!(reader, sender);
        // When both failed, the target's words say more: reading ends because nobody takes it.
        let (arrived, read) = (arrived?, read?);
        if arrived != read {
            return Err(format!(
                "its checksum is another at {}: {} bytes were read and {} arrived",
                self.order.target, read.length, arrived.length
            ));
        }
        let guest = self.order.guest.clone();
        let presence = self.driver.calls.call(move |h| Ok(h.presence(&guest)?.0));
        let presence = presence.await.map_err(|error| error.to_string())?;
        if presence != Presence::ShutOff || self.modified(path).await? != before {
            return Err(format!(
                "it was written to meanwhile, and the guest is {presence}"
            ));
        }
        tracing::info!(order = %self.order.id, guest = %self.order.guest, disk = disk.name, path,
            bytes = read.length, "a disk was copied; checksums are equal");
        Ok(())
    }

    /// When a file was last written to.
    async fn modified(&self, path: &str) -> Result<String, String> {
        modified(&self.driver, path)
            .await
            .ok_or_else(|| format!("{path} cannot be looked at"))
    }

    async fn read(
        &self,
        path: &str,
        pieces: mpsc::Sender<Piece>,
        sent: &Arc<AtomicU64>,
    ) -> Result<Sum, String> {
        let (hypervisor, path) = (self.driver.calls.hypervisor().clone(), path.to_owned());
        let (sent, pace) = (
            Arc::clone(sent),
            Pace::new(self.order.options.bandwidth_limit_mib_s),
        );
        let work = tokio::task::spawn_blocking(move || {
            let mut digest = Digest::default();
            let mut whole = true;
            hypervisor.read_volume(&path, &mut |piece| {
                digest.take(&piece);
                if let Piece::Data(data) = &piece {
                    let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    pace.wait(sent.fetch_add(bytes, Ordering::Relaxed));
                }
                whole = pieces.blocking_send(piece).is_ok();
                whole
            })?;
            Ok::<_, HypervisorError>(whole.then(|| digest.finish()))
        });
        let read = work.await.map_err(|error| error.to_string())?;
        let read = read.map_err(|error| error.to_string())?;
        read.ok_or_else(|| "nobody takes it".to_owned())
    }
}

/// Holds a copy to its bandwidth.
struct Pace {
    began: Instant,
    bytes_per_second: Option<u64>,
}

impl Pace {
    fn new(limit_mib_s: Option<u64>) -> Self {
        Self {
            began: Instant::now(),
            bytes_per_second: limit_mib_s.map(|limit| limit.saturating_mul(MIB).max(1)),
        }
    }

    /// Waits until so many bytes may have been sent. Blocks.
    fn wait(&self, sent: u64) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let due_ms = u128::from(sent) * 1000 / u128::from(rate);
        let due = Duration::from_millis(u64::try_from(due_ms).unwrap_or(u64::MAX));
        if let Some(early) = due.checked_sub(self.began.elapsed()) {
            std::thread::sleep(early);
        }
    }
}

/// When a file was last written to; `None`: it cannot be looked at.
async fn modified<H: Hypervisor, R, P>(driver: &Driver<H, R, P>, path: &str) -> Option<String> {
    let path = path.to_owned();
    let spot = driver.calls.call(move |h| h.spot(&path)).await;
    Some(spot.ok()??.volume?.modified)
}

/// Notes that these files stay here when the guest leaves.
pub(super) fn note_leaving<H, R, P>(driver: &Driver<H, R, P>, order: &Order, disks: &[LocalDisk]) {
    if disks.is_empty() {
        return;
    }
    let file = |disk: &LocalDisk| LeftFile {
        path: disk.image.path.clone(),
        modified: None,
    };
    leave(driver, order, disks.iter().map(file).collect());
}

/// The guest has left, or has not: its files here are from now on remnants, or they are not.
pub(super) async fn note_left<H: Hypervisor, R, P>(
    driver: &Driver<H, R, P>,
    order: &Order,
    gone: bool,
) {
    let Some(left) = driver.ledger.left(&order.guest) else {
        return;
    };
    if !gone {
        return driver.ledger.is_back(&order.guest);
    }
    let mut files = left.files;
    for file in &mut files {
        file.modified = modified(driver, &file.path).await;
    }
    leave(driver, order, files);
}

fn leave<H, R, P>(driver: &Driver<H, R, P>, order: &Order, files: Vec<LeftFile>) {
    let left = Left {
        guest: order.guest.clone(),
        files,
    };
    if let Err(error) = driver.ledger.leave(&left) {
        tracing::warn!(order = %order.id, %error,
            "it is not noted which files stay behind; they will be in the guest's way when it comes back");
    }
}
