//! Other hosts' agents, as a migration's source needs them.

use evenkeel_proto::order::Order;
use evenkeel_types::{GuestId, HostName, Presence, Whereabouts};
use tokio::sync::mpsc;

use crate::digest::Sum;
use crate::hypervisor::disks::Piece;
use crate::incoming::Luggage;
use crate::journal::Refused;

pub mod grpc;

/// A target that has said yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// URI of its libvirtd.
    pub peer_uri: String,
    /// Where the memory goes; `None`: libvirt decides.
    pub migration_uri: Option<String>,
}

/// What a host has of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it has.
    pub presence: Presence,
    /// Whether a definition stays there when it is shut off.
    pub persistent: bool,
}

/// Other agents. [`grpc::GrpcPeers`] is the real one.
pub trait Peers: Send + Sync + 'static {
    /// Asks the order's target to check and to reserve.
    fn prepare(
        &self,
        order: &Order,
        definition: String,
        luggage: &Luggage,
    ) -> impl Future<Output = Result<Prepared, Refused>> + Send;

    /// Tells the order's target that nothing needs to be held any more, and where the guest is, if both hosts
    /// have said so; says whether it has heard.
    fn release(
        &self,
        order: &Order,
        place: Option<Whereabouts>,
    ) -> impl Future<Output = bool> + Send;

    /// Sends a disk's bytes to the order's target; answers with the sum of what that reads back.
    ///
    /// # Errors
    /// Why it has not arrived, in words.
    fn copy_disk(
        &self,
        order: &Order,
        path: &str,
        pieces: mpsc::Receiver<Piece>,
    ) -> impl Future<Output = Result<Sum, String>> + Send;

    /// Asks a host what it has of a guest. A host that is too old to say whether the guest is persistent there says
    /// no.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    fn inspect(
        &self,
        host: &HostName,
        guest: &GuestId,
    ) -> impl Future<Output = Result<Found, String>> + Send;
}
