//! `AgentService` over mTLS: who may call what, and nothing else; the work is done by [`crate::driver`],
//! [`crate::target`] and [`crate::dirtying`].

use std::pin::Pin;
use std::sync::Arc;

use evenkeel_proto::convert;
use evenkeel_proto::identity::{self, Identity, Role};
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_service_server::AgentService;
use evenkeel_types::{Epoch, GuestId, HostName, OrderId, Presence, Whereabouts};
use tokio::sync::mpsc;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::config::Libvirt;
use crate::dirtying::Meter;
use crate::driver::{Driver, Updates, Word, refused_update, state_of_update};
use crate::hypervisor::Hypervisor;
use crate::incoming::Luggage;
use crate::journal::Records;
use crate::peer::Peers;
use crate::target::{Arriving, Target};

mod disks;
mod measuring;
pub mod serve;

/// Pieces of a disk that may wait for libvirt.
const PIECES: usize = 8;

/// The service's methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// To a target: check and reserve.
    Prepare,
    /// To a target: no longer needed.
    Release,
    /// To a target: the bytes of a disk.
    CopyDisk,
    /// To a source: carry out an order.
    Migrate,
    /// To a source: stop.
    Cancel,
    /// To a source: close an unknown migration on an operator's word.
    Resolve,
    /// What this host has of a guest.
    Inspect,
    /// How much of its memory a guest changes within a time.
    MeasureDirtyRate,
}

impl Method {
    /// The one table of who may call what.
    #[must_use]
    pub fn roles(self) -> &'static [Role] {
        match self {
            Self::Prepare | Self::Release | Self::CopyDisk => &[Role::Agent],
            Self::Migrate | Self::Cancel | Self::Resolve | Self::MeasureDirtyRate => {
                &[Role::Scheduler]
            }
            Self::Inspect => &[Role::Scheduler, Role::Agent, Role::Operator],
        }
    }

    /// Says whether `caller` may call this method.
    ///
    /// # Errors
    /// `PermissionDenied`, naming caller and method.
    pub fn permit(self, caller: &Identity) -> Result<(), Status> {
        if self.roles().contains(&caller.role) {
            return Ok(());
        }
        tracing::warn!(%caller, method = ?self, "call refused: not this role's");
        Err(Status::permission_denied(format!(
            "{caller} may not call {self:?}"
        )))
    }
}

/// Who does the work.
#[derive(Debug)]
pub struct Hands<H, R, P> {
    /// Migrates guests away.
    pub driver: Arc<Driver<H, R, P>>,
    /// Takes guests in.
    pub target: Arc<Target<H, R>>,
    /// Measures guests.
    pub meter: Arc<Meter<H>>,
}

impl<H, R, P> Clone for Hands<H, R, P> {
    fn clone(&self) -> Self {
        Self {
            driver: Arc::clone(&self.driver),
            target: Arc::clone(&self.target),
            meter: Arc::clone(&self.meter),
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Api<H, R, P> {
    host: HostName,
    hands: Hands<H, R, P>,
    libvirt: Libvirt,
    /// Set when the daemon ends: no new orders, and streams end.
    stopping: CancellationToken,
}

impl<H: Hypervisor, R: Records, P: Peers> Api<H, R, P> {
    /// The service of `host`.
    #[must_use]
    pub fn new(
        host: HostName,
        hands: Hands<H, R, P>,
        libvirt: Libvirt,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            host,
            hands,
            libvirt,
            stopping,
        }
    }

    fn until_end(&self, updates: Updates) -> Updating {
        let stopping = self.stopping.clone();
        let mut over = false;
        let updates = WatchStream::new(updates)
            // Before the first change there is nothing to tell.
            .filter(|update| update.state.is_some())
            .take_while(move |update| {
                let go_on = !over;
                over = state_of_update(update).is_some_and(|s| s.outcome().is_some());
                go_on
            })
            .map(Ok);
        Box::pin(Until {
            inner: Box::pin(updates),
            stop: Box::pin(stopping.cancelled_owned()),
        })
    }
}

/// Updates of one migration.
type Updating = Pin<Box<dyn Stream<Item = Result<v1::MigrationUpdate, Status>> + Send>>;

/// A stream that ends when the daemon does, so that a graceful shutdown need not wait for migrations.
struct Until {
    inner: Updating,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for Until {
    type Item = Result<v1::MigrationUpdate, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        if self.stop.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(None);
        }
        self.inner.as_mut().poll_next(context)
    }
}

/// The caller, if it may call `method`.
fn permitted<T>(method: Method, request: &Request<T>) -> Result<Identity, Status> {
    let caller = identity::of_peer(request)?;
    method.permit(&caller)?;
    Ok(caller)
}

fn malformed(error: &impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn order_of(message: Option<v1::Order>) -> Result<Order, Status> {
    let message = message.ok_or_else(|| Status::invalid_argument("order is missing"))?;
    Order::try_from(message).map_err(|e| malformed(&e))
}

fn agent_host(caller: &Identity) -> Result<HostName, Status> {
    caller.name.parse().map_err(|e| malformed(&e))
}

#[tonic::async_trait]
impl<H: Hypervisor, R: Records, P: Peers> AgentService for Api<H, R, P> {
    type MigrateStream = Updating;

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let source = agent_host(&permitted(Method::Prepare, &request)?)?;
        let message = request.into_inner();
        let order = order_of(message.order)?;
        let arriving = Arriving {
            definition: message.domain_xml,
            luggage: Luggage {
                disks: disks::disks(&message.disks).map_err(|e| malformed(&e))?,
                autostart: message.autostart,
            },
            from: message.source.unwrap_or_default(),
        };
        let outcome = self.hands.target.prepare(&source, &order, arriving).await;
        Ok(Response::new(match outcome {
            Ok(()) => v1::PrepareReply {
                accepted: true,
                libvirt_peer_uri: self.libvirt.peer_uri.clone(),
                migration_uri: self.libvirt.migration_uri.clone(),
                ..v1::PrepareReply::default()
            },
            Err((reason, detail)) => v1::PrepareReply {
                accepted: false,
                refusal: reason.to_string(),
                detail,
                ..v1::PrepareReply::default()
            },
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseReply>, Status> {
        let source = agent_host(&permitted(Method::Release, &request)?)?;
        let message = request.into_inner();
        let order: OrderId = message.order_id.parse().map_err(|e| malformed(&e))?;
        // A word of a newer version is none: the guest's place is then asked for.
        let places = [Whereabouts::Source, Whereabouts::Target];
        let place = places
            .into_iter()
            .find(|p| p.as_str() == message.whereabouts);
        self.hands.target.release(&order, &source, place).await;
        Ok(Response::new(v1::ReleaseReply {}))
    }

    async fn copy_disk(
        &self,
        request: Request<Streaming<v1::DiskPiece>>,
    ) -> Result<Response<v1::CopyDiskReply>, Status> {
        let source = agent_host(&permitted(Method::CopyDisk, &request)?)?;
        let mut stream = request.into_inner();
        let (order, path) = disks::opening(&mut stream).await?;
        let (arrivals, arriving) = mpsc::channel(PIECES);
        let pieces = tokio::spawn(disks::forward(stream, arrivals));
        let received = self
            .hands
            .target
            .receive(&source, &order, &path, arriving)
            .await;
        pieces.abort();
        match received {
            Ok(sum) => Ok(Response::new(v1::CopyDiskReply {
                length_bytes: sum.length,
                sha256: sum.sha256,
            })),
            Err(why) => {
                tracing::warn!(%order, %source, path, why, "a disk was not taken");
                Err(Status::aborted(why))
            }
        }
    }

    async fn migrate(
        &self,
        request: Request<v1::MigrateRequest>,
    ) -> Result<Response<Updating>, Status> {
        permitted(Method::Migrate, &request)?;
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("this agent is stopping"));
        }
        let message = request.into_inner();
        let order = order_of(message.order)?;
        let id = order.id.clone();
        let stream: Updating = match self.hands.driver.start(order, message.leader_key).await {
            Ok(updates) => self.until_end(updates),
            Err(refused) => Box::pin(tokio_stream::once(Ok(refused_update(&id, refused)))),
        };
        Ok(Response::new(stream))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelReply>, Status> {
        let caller = permitted(Method::Cancel, &request)?;
        let message = request.into_inner();
        let guest: GuestId = message.guest_uuid.parse().map_err(|e| malformed(&e))?;
        let order: OrderId = message.order_id.parse().map_err(|e| malformed(&e))?;
        let by = if message.by.is_empty() {
            caller.to_string()
        } else {
            message.by
        };
        let leader = (message.leader_key.as_str(), Epoch(message.epoch));
        let outcome = self.hands.driver.cancel(&guest, &order, leader, &by).await;
        let (accepted, detail) = match outcome {
            Ok(()) => (true, String::new()),
            Err(detail) => (false, detail),
        };
        tracing::info!(%caller, %order, %guest, by, accepted, detail, "cancel asked for");
        Ok(Response::new(v1::CancelReply { accepted, detail }))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveReply>, Status> {
        let caller = permitted(Method::Resolve, &request)?;
        let message = request.into_inner();
        let guest: GuestId = message.guest_uuid.parse().map_err(|e| malformed(&e))?;
        let order: OrderId = message.order_id.parse().map_err(|e| malformed(&e))?;
        let word = Word {
            place: convert::place(&message.place).map_err(|e| malformed(&e))?,
            discard_source: message.discard_source,
            by: message.by,
        };
        let leader = (message.leader_key.as_str(), Epoch(message.epoch));
        let outcome = self
            .hands
            .driver
            .resolve(&guest, &order, leader, &word)
            .await;
        tracing::warn!(%caller, %order, %guest, ?word, ?outcome, "an operator resolves");
        let (accepted, detail) = match outcome {
            Ok(said) => (true, said),
            Err(detail) => (false, detail),
        };
        Ok(Response::new(v1::ResolveReply { accepted, detail }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectReply>, Status> {
        let caller = permitted(Method::Inspect, &request)?;
        let text = request.into_inner().guest_uuid;
        let guest: GuestId = text.parse().map_err(|e| malformed(&e))?;
        if caller.role == Role::Agent {
            self.hands.target.prolong(&guest, &agent_host(&caller)?);
        }
        let look = self.hands.driver.calls.call(move |h| {
            let (presence, name) = h.presence(&guest)?;
            // It may go between the two looks: what is not there is not persistent.
            let persistent =
                presence != Presence::Absent && h.is_persistent(&guest).unwrap_or(false);
            Ok((presence, name, persistent))
        });
        let answer = look.await;
        let (presence, name, persistent) =
            answer.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(v1::InspectReply {
            host: self.host.to_string(),
            presence: presence.to_string(),
            name: name.unwrap_or_default(),
            persistent,
        }))
    }

    async fn measure_dirty_rate(
        &self,
        request: Request<v1::MeasureDirtyRateRequest>,
    ) -> Result<Response<v1::MeasureDirtyRateReply>, Status> {
        permitted(Method::MeasureDirtyRate, &request)?;
        let text = request.into_inner().guest_uuid;
        let guest: GuestId = text.parse().map_err(|e| malformed(&e))?;
        let measured = self.measure_guest(&guest).await;
        tracing::debug!(%guest, ?measured, "asked to measure a guest");
        let curve = Some(measured?);
        Ok(Response::new(v1::MeasureDirtyRateReply { curve }))
    }
}

#[cfg(test)]
mod tests;
