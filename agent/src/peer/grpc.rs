//! [`Peers`] over gRPC. Where a host's agent listens stands in its inventory; the last known address goes on
//! serving while etcd is away, because a migration must be settled then too.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use evenkeel_daemon::Store;
use evenkeel_proto::convert;
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::keys::Keys;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_service_client::AgentServiceClient;
use evenkeel_types::{GuestId, HostName, Refusal, Whereabouts};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Found, Peers, Prepared};
use crate::digest::Sum;
use crate::hypervisor::disks::{DiskImage, LocalDisk, Piece};
use crate::incoming::Luggage;
use crate::journal::Refused;

/// `Prepare` may make the target probe its QEMU's capabilities, which takes seconds the first time.
const PREPARE_DEADLINE: Duration = Duration::from_secs(20);
/// The other calls only look or note something.
const DEADLINE: Duration = Duration::from_secs(6);

/// Agents of the cluster's other hosts.
#[derive(Debug)]
pub struct GrpcPeers {
    store: Store,
    keys: Keys,
    tls: TlsPem,
    /// What this host is, told to targets for comparison.
    own: watch::Receiver<v1::Inventory>,
    known: Mutex<HashMap<HostName, (String, Channel)>>,
}

impl GrpcPeers {
    /// Dials with the identity in `tls`; nothing is connected yet.
    #[must_use]
    pub fn new(
        (store, keys): (Store, Keys),
        tls: TlsPem,
        own: watch::Receiver<v1::Inventory>,
    ) -> Self {
        Self {
            store,
            keys,
            tls,
            own,
            known: Mutex::default(),
        }
    }

    /// A client of `host`'s agent, whose certificate must be for that host.
    async fn client(&self, host: &HostName) -> Result<AgentServiceClient<Channel>, String> {
        let found = self
            .store
            .get_message::<v1::Inventory>(&self.keys.inventory(host))
            .await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let address = match (found, known.get(host)) {
            (Ok(Some(inventory)), _) => inventory.agent_address,
            (_, Some((address, _))) => address.clone(),
            (Ok(None), None) => return Err(format!("host {host} has no inventory in etcd")),
            (Err(error), None) => return Err(error.to_string()),
        };
        if let Some((at, channel)) = known.get(host)
            && *at == address
        {
            return Ok(AgentServiceClient::new(channel.clone()));
        }
        let channel = self
            .tls
            .channel(&address, host.as_str())
            .map_err(|e| format!("address {address:?} of host {host}: {e}"))?;
        known.insert(host.clone(), (address, channel.clone()));
        Ok(AgentServiceClient::new(channel))
    }
}

/// Bounds a call on our side too: a server that never answers must not hold us.
async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {deadline:?}")),
    }
}

fn unreachable(host: &HostName, why: &str) -> Refused {
    (Refusal::TargetUnreachable, format!("{host}: {why}"))
}

fn image_message(image: &DiskImage) -> v1::DiskImage {
    v1::DiskImage {
        path: image.path.clone(),
        format: image.format.clone(),
        capacity_bytes: image.capacity_bytes,
    }
}

fn disk_message(disk: &LocalDisk) -> v1::LocalDisk {
    v1::LocalDisk {
        name: disk.name.clone(),
        image: Some(image_message(&disk.image)),
        allocation_bytes: disk.allocation_bytes,
        backing: disk.backing.iter().map(image_message).collect(),
    }
}

fn piece_message(piece: Piece) -> v1::DiskPiece {
    let content = match piece {
        Piece::Data(data) => v1::disk_piece::Content::Data(data),
        Piece::Hole(bytes) => v1::disk_piece::Content::HoleBytes(bytes),
    };
    v1::DiskPiece {
        content: Some(content),
        ..v1::DiskPiece::default()
    }
}

impl Peers for GrpcPeers {
    async fn prepare(
        &self,
        order: &Order,
        definition: String,
        luggage: &Luggage,
    ) -> Result<Prepared, Refused> {
        let target = &order.target;
        let mut client = self
            .client(target)
            .await
            .map_err(|why| unreachable(target, &why))?;
        let request = v1::PrepareRequest {
            order: Some(order.message.clone()),
            domain_xml: definition,
            source: Some(self.own.borrow().clone()),
            disks: luggage.disks.iter().map(disk_message).collect(),
            autostart: luggage.autostart,
        };
        let reply = within(PREPARE_DEADLINE, client.prepare(Request::new(request)))
            .await
            .map_err(|why| unreachable(target, &why))?;
        if !reply.accepted {
            // A reason of a newer version is still a no.
            let reason = reply.refusal.parse().unwrap_or(Refusal::Unsupported);
            return Err((reason, format!("{target}: {}", reply.detail)));
        }
        Ok(Prepared {
            peer_uri: reply.libvirt_peer_uri,
            migration_uri: Some(reply.migration_uri).filter(|uri| !uri.is_empty()),
        })
    }

    async fn release(&self, order: &Order, place: Option<Whereabouts>) -> bool {
        let Ok(mut client) = self.client(&order.target).await else {
            return false;
        };
        let request = v1::ReleaseRequest {
            order_id: order.id.to_string(),
            guest_uuid: order.guest.to_string(),
            whereabouts: place.map(|place| place.to_string()).unwrap_or_default(),
        };
        within(DEADLINE, client.release(Request::new(request)))
            .await
            .is_ok()
    }

    async fn copy_disk(
        &self,
        order: &Order,
        path: &str,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<Sum, String> {
        let mut client = self.client(&order.target).await?;
        let first = v1::DiskPiece {
            order_id: order.id.to_string(),
            path: path.to_owned(),
            content: None,
        };
        let rest = ReceiverStream::new(pieces).map(piece_message);
        let stream = tokio_stream::once(first).chain(rest);
        // No deadline of its own: the order has one, and keep-alive finds out that the target is gone.
        let reply = client.copy_disk(Request::new(stream)).await;
        let reply = reply.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
        let reply = reply.into_inner();
        Ok(Sum {
            length: reply.length_bytes,
            sha256: reply.sha256,
        })
    }

    async fn inspect(&self, host: &HostName, guest: &GuestId) -> Result<Found, String> {
        let mut client = self.client(host).await?;
        let request = v1::InspectRequest {
            guest_uuid: guest.to_string(),
        };
        let reply = within(DEADLINE, client.inspect(Request::new(request))).await?;
        if reply.host != host.as_str() {
            return Err(format!("{} answered for {host}", reply.host));
        }
        Ok(Found {
            presence: convert::presence(&reply.presence).map_err(|e| e.to_string())?,
            persistent: reply.persistent,
        })
    }
}
