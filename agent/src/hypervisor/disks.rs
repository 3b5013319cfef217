//! Disks that only one host reaches: what an agent must know of them and do with them so that they can move.
//!
//! A disk's file belongs to a storage pool of the hypervisor's, which makes, reads, writes and removes it: the
//! agent itself touches no image, and needs no right to.

use evenkeel_types::{GuestId, Refusal};
use serde::{Deserialize, Serialize};

use super::HypervisorError;

/// One file of a storage pool that holds a disk or a layer of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// Its path, the same on every host that has it.
    pub path: String,
    /// `raw`, `qcow2`
    pub format: String,
    /// Bytes that the guest sees.
    pub capacity_bytes: u64,
}

/// A disk that only the guest's host reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisk {
    /// Its name in the guest, `vda`.
    pub name: String,
    /// The file that is written to.
    pub image: DiskImage,
    /// Bytes that the file takes.
    pub allocation_bytes: u64,
    /// The images that it is an overlay of, the nearest first.
    pub backing: Vec<DiskImage>,
}

/// A file of a storage pool, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What it holds.
    pub image: DiskImage,
    /// Bytes that it takes.
    pub allocation_bytes: u64,
    /// The image that it is an overlay of.
    pub backing: Option<String>,
    /// When it was last written to, in the hypervisor's own words: only good for comparing.
    pub modified: String,
}

/// What stands at a path, and around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Name of the active pool whose directory it is in.
    pub pool: String,
    /// Bytes that the pool's file system has, and that are free.
    pub pool_bytes: (u64, u64),
    /// The file, if there is one.
    pub volume: Option<Volume>,
}

/// A run of a disk's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As they are.
    Data(Vec<u8>),
    /// So many zeroes that take no room.
    Hole(u64),
}

/// What the agent asks of its hypervisor about local disks.
pub trait Disks {
    /// The local disks of a guest, for a copy.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer. `Ok(Err(…))`: one that cannot be copied.
    fn local_disks(
        &self,
        guest: &GuestId,
    ) -> Result<Result<Vec<LocalDisk>, (Refusal, String)>, HypervisorError>;

    /// What stands at a path; `None`: no active pool has its directory.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    fn spot(&self, path: &str) -> Result<Option<Spot>, HypervisorError>;

    /// Names of the guests here, running or not, that have this path among their disks; `but` is passed over.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    fn users(&self, path: &str, but: &GuestId) -> Result<Vec<String>, HypervisorError>;

    /// Makes an empty file; `backing` is what it is to be an overlay of.
    ///
    /// # Errors
    /// What the hypervisor said, also when there is one already.
    fn make_volume(
        &self,
        image: &DiskImage,
        backing: Option<&DiskImage>,
    ) -> Result<(), HypervisorError>;

    /// Removes a file. One that is gone already is no error.
    ///
    /// # Errors
    /// What the hypervisor said.
    fn remove_volume(&self, path: &str) -> Result<(), HypervisorError>;

    /// Reads a file from its beginning; ends early when `take` answers `false`.
    ///
    /// # Errors
    /// What the hypervisor said; nothing of what was taken is then to be relied on.
    fn read_volume(
        &self,
        path: &str,
        take: &mut dyn FnMut(Piece) -> bool,
    ) -> Result<(), HypervisorError>;

    /// Writes a file from its beginning until `give` has no more.
    ///
    /// # Errors
    /// What the hypervisor or `give` said; the file's contents are then anything.
    fn write_volume(
        &self,
        path: &str,
        give: &mut dyn FnMut() -> Result<Option<Piece>, HypervisorError>,
    ) -> Result<(), HypervisorError>;

    /// Whether the guest is started with its host.
    ///
    /// # Errors
    /// When the guest is not here or the hypervisor does not answer.
    fn autostart(&self, guest: &GuestId) -> Result<bool, HypervisorError>;

    /// Has the guest started with its host from now on.
    ///
    /// # Errors
    /// When the guest has no definition here or the hypervisor does not answer.
    fn set_autostart(&self, guest: &GuestId) -> Result<(), HypervisorError>;

    /// Hands the definition of a guest that is shut off to another host, if `gate` lets it; returns when the
    /// call does. The result is evidence, not proof.
    ///
    /// # Errors
    /// Whatever the hypervisor said, that the call was given up, or that the guest was started.
    fn move_definition(
        &self,
        guest: &GuestId,
        peer_uri: &str,
        gate: &super::CallGate,
    ) -> Result<(), HypervisorError>;
}
