//! `SchedulerService`: any replica answers reads, those of what operators set by asking the leader; writes go to the leader.
//!
//! A follower forwards a write with the operator's verified identity; the leader authorises that identity
//! again. A forwarded write is never forwarded once more.

pub mod auth;
mod events;
pub mod views;

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_planner::{HostState, Options, Purpose, Snapshot, plan};
use evenkeel_proto::ON_BEHALF_OF;
use evenkeel_proto::identity::{Identity, TlsPem};
use evenkeel_proto::v1;
use evenkeel_proto::v1::scheduler_service_client::SchedulerServiceClient;
use evenkeel_proto::v1::scheduler_service_server::SchedulerService;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::controller::{Controller, Handle, NoAnswer, Write, WriteError};
use crate::core::events::Filter;
use auth::authorise;

/// The leader answers what a follower forwards within this time: a write, or the wish for a plan.
const FORWARD_DEADLINE: Duration = Duration::from_secs(8);
/// A follower asks the leader for so long what that has at hand, before it answers by itself.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Plans that are made for callers at one time: planning is work for a whole core.
const PLANS: usize = 1;
/// Characters of a reason.
const MOST_REASON: usize = 512;
/// How often a watched migration is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// A migration that was just ordered may not have reached this replica's mirror yet: so many looks.
const WATCH_PATIENCE: u32 = 6;
/// Updates waiting for a slow watcher.
const WATCH_QUEUE: usize = 8;
/// A watcher is cut off after this long; it may call again.
const WATCH_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The API of one replica.
#[derive(Debug)]
pub struct Api {
    handle: Handle,
    tls: TlsPem,
    stop: CancellationToken,
    plans: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

/// Who carries out a write.
enum Route {
    Here,
    Leader(Box<SchedulerServiceClient<Channel>>),
}

impl Api {
    /// An API over the loop's handle; `tls` is what it forwards with.
    #[must_use]
    pub fn new(handle: Handle, tls: TlsPem, stop: CancellationToken) -> Self {
        Self {
            handle,
            tls,
            stop,
            plans: Arc::new(Semaphore::new(PLANS)),
            readers: Arc::new(Semaphore::new(events::READERS)),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Controller) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.handle
            .read(question)
            .await
            .map_err(|e: NoAnswer| Status::unavailable(e.to_string()))
    }

    /// Where a write goes: here if we lead, else to the leader unless it has been forwarded already.
    async fn route<T>(&self, request: &Request<T>) -> Result<Route, Status> {
        let forwarded = request.metadata().contains_key(ON_BEHALF_OF);
        let leader = self
            .read(|c| {
                (
                    c.mandate().is_some(),
                    c.fleet().leader().map(|(_, info)| info.clone()),
                )
            })
            .await?;
        match leader {
            (true, _) => Ok(Route::Here),
            (false, Some(info)) if !forwarded => {
                let channel = self
                    .tls
                    .channel(&info.address, &info.name)
                    .map_err(|e| Status::unavailable(format!("leader {}: {e}", info.name)))?;
                Ok(Route::Leader(Box::new(SchedulerServiceClient::new(
                    channel,
                ))))
            }
            (false, Some(_)) => Err(Status::unavailable("the leader is changing")),
            (false, None) => Err(Status::unavailable("there is no leader")),
        }
    }

    /// The leader's answer to a read of what operators set and of what it made of that: its own picture has every
    /// write that was answered, a follower's may not have it yet, and plan, holds and drains are the leader's
    /// alone. `None`: we lead, or it does not answer; then our own picture is the best there is.
    async fn ask_leader<M: Clone, T, F>(
        &self,
        request: &Request<M>,
        caller: &Identity,
        limit: Duration,
        call: impl FnOnce(SchedulerServiceClient<Channel>, Request<M>) -> F,
    ) -> Option<Response<T>>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Ok(Route::Leader(leader)) = self.route(request).await else {
            return None;
        };
        let mut asked = on_behalf(request.get_ref().clone(), caller).ok()?;
        asked.set_timeout(limit);
        in_time(limit, call(*leader, asked)).await.ok()
    }
}

/// The leader's answer, in time. A request's own deadline covers neither connecting nor the TLS handshake, in
/// which a frozen leader would keep its callers for as long as it is frozen.
async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::unavailable("the leader does not answer")))
}

/// The leader's answer to a forwarded write. Where none comes, it may have been carried out.
async fn forwarded<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    match tokio::time::timeout(limit, call).await {
        // Made on our side: no answer came over the wire.
        Ok(Err(status)) if status.source().is_some() && !never_sent(&status) => Err(
            Status::deadline_exceeded(format!("the leader: {}", status.message())),
        ),
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("the leader does not answer")),
    }
}

/// Whether a call failed before there was a connection to send it on.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The request as it goes to the leader, with the identity it is made for.
fn on_behalf<T>(message: T, caller: &Identity) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let identity = caller
        .to_string()
        .parse()
        .map_err(|_| Status::internal("the caller's identity does not fit a header"))?;
    request.metadata_mut().insert(ON_BEHALF_OF, identity);
    request.set_timeout(FORWARD_DEADLINE);
    Ok(request)
}

/// Does work for a whole core when it is its turn. The turn lasts as long as the work, which goes on when its
/// caller has left.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let turn = turns.clone().acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout(FORWARD_DEADLINE, turn).await else {
        return Err(Status::unavailable("other plans are being made; try again"));
    };
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await
        .map_err(|e| Status::internal(format!("planning failed: {e}")))
}

/// A snapshot in which these hosts are being drained, and no others; what is then to be planned.
fn suppose_drains(
    snapshot: &mut Snapshot,
    hosts: &[String],
    offline_too: bool,
) -> Result<Purpose, Status> {
    if hosts.is_empty() {
        return Ok(Purpose::Balance);
    }
    for host in &mut snapshot.hosts {
        if host.state == HostState::Draining && !hosts.contains(&host.name) {
            host.state = HostState::Cordoned;
        }
    }
    for name in hosts {
        let host = snapshot.hosts.iter_mut().find(|host| host.name == *name);
        let host = host.ok_or_else(|| Status::not_found(format!("there is no host {name}")))?;
        if host.state == HostState::Absent {
            let message = format!("{name} is silent, or its data cannot be used");
            return Err(Status::failed_precondition(message));
        }
        host.state = HostState::Draining;
        host.offline_too |= offline_too;
    }
    Ok(Purpose::Drain)
}

/// A reason is kept in etcd, for a sentence or two.
fn bounded(reason: &str) -> Result<(), Status> {
    let length = reason.chars().count();
    if length > MOST_REASON {
        return Err(Status::invalid_argument(format!(
            "the reason has {length} characters, at most {MOST_REASON} are taken"
        )));
    }
    Ok(())
}

/// `DeadlineExceeded` says what it always does: the change may or may not have been made.
fn status_of(error: WriteError) -> Status {
    let text = error.to_string();
    match error {
        WriteError::NotLeader
        | WriteError::NoAnswer(NoAnswer::NotHeard)
        | WriteError::Unreachable(_) => Status::unavailable(text),
        WriteError::NoAnswer(NoAnswer::Late) | WriteError::Unanswered(_) => {
            Status::deadline_exceeded(text)
        }
        WriteError::Invalid(_) => Status::invalid_argument(text),
        WriteError::NotFound(_) => Status::not_found(text),
        WriteError::Refused(_) => Status::failed_precondition(text),
        WriteError::Conflict(_) => Status::aborted(text),
        WriteError::Commit(_) => Status::deadline_exceeded(text),
    }
}

/// A write: authorised, then carried out here or by the leader.
macro_rules! write_method {
    ($self:ident, $request:ident, $name:literal, $method:ident, $variant:path) => {{
        let caller = authorise($name, &$request)?;
        bounded(&$request.get_ref().reason)?;
        match $self.route(&$request).await? {
            Route::Here => {
                let message = $request.into_inner();
                let by = caller.to_string();
                let written = $self
                    .handle
                    .write(|reply| $variant(message, by, reply))
                    .await;
                written.map(Response::new).map_err(status_of)
            }
            Route::Leader(mut leader) => {
                let asked = on_behalf($request.into_inner(), &caller)?;
                forwarded(FORWARD_DEADLINE, leader.$method(asked)).await
            }
        }
    }};
}

/// A read that the leader answers, if it can be had: authorised, and returned from here. Else it is left to us.
macro_rules! leaders_answer {
    ($self:ident, $request:ident, $name:literal, $limit:ident, $method:ident) => {
        let caller = authorise($name, &$request)?;
        let leader = $self.ask_leader(&$request, &caller, $limit, |mut leader, asked| async move {
            leader.$method(asked).await
        });
        if let Some(answer) = leader.await {
            return Ok(answer);
        }
    };
}

#[tonic::async_trait]
impl SchedulerService for Api {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        leaders_answer!(self, request, "GetStatus", STATUS_DEADLINE, get_status);
        self.read(views::status).await.map(Response::new)
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsReply>, Status> {
        leaders_answer!(self, request, "ListHosts", STATUS_DEADLINE, list_hosts);
        let names = request.into_inner().names;
        self.read(move |c| views::hosts(c, &names))
            .await
            .map(Response::new)
    }

    async fn list_guests(
        &self,
        request: Request<v1::ListGuestsRequest>,
    ) -> Result<Response<v1::ListGuestsReply>, Status> {
        authorise("ListGuests", &request)?;
        self.read(views::guests).await.map(Response::new)
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Result<Response<v1::ListMigrationsReply>, Status> {
        authorise("ListMigrations", &request)?;
        let open_only = request.into_inner().open_only;
        self.read(move |c| views::migrations(c, open_only))
            .await
            .map(Response::new)
    }

    type WatchMigrationStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::Migration, Status>> + Send + 'static>>;

    async fn watch_migration(
        &self,
        request: Request<v1::WatchMigrationRequest>,
    ) -> Result<Response<Self::WatchMigrationStream>, Status> {
        authorise("WatchMigration", &request)?;
        let id = request.into_inner().id;
        if id.is_empty() {
            return Err(Status::invalid_argument("which migration?"));
        }
        let (sink, updates) = mpsc::channel(WATCH_QUEUE);
        let watch = watch(self.handle.clone(), id, sink);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::time::timeout(WATCH_LONGEST, watch) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(updates))))
    }

    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::Document>, Status> {
        leaders_answer!(self, request, "GetPlan", FORWARD_DEADLINE, get_plan);
        let v1::GetPlanRequest {
            max_moves,
            drain_hosts,
            offline_too,
        } = request.into_inner();
        let (mut snapshot, policy) = self
            .read(|c| (c.assessment().snapshot.clone(), c.active().policy().clone()))
            .await?;
        let purpose = suppose_drains(&mut snapshot, &drain_hosts, offline_too)?;
        let options = Options {
            purpose,
            max_moves: usize::try_from(max_moves).ok().filter(|most| *most > 0),
            ..Options::default()
        };
        let work = move || plan(&snapshot, &policy, &options).0;
        let plan = in_turn(&self.plans, work).await?;
        let json = plan.to_json().into_bytes();
        Ok(Response::new(v1::Document {
            schema: plan.schema,
            json,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::Document>, Status> {
        authorise("GetSnapshot", &request)?;
        let snapshot = self.read(|c| c.assessment().snapshot.clone()).await?;
        let json = snapshot.to_json().into_bytes();
        Ok(Response::new(v1::Document {
            schema: snapshot.schema,
            json,
        }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyReply>, Status> {
        leaders_answer!(self, request, "GetPolicy", STATUS_DEADLINE, get_policy);
        let reply = self
            .read(|c| v1::GetPolicyReply {
                text: c.active().text().to_owned(),
                revision: c.active().revision(),
                fault: c.active().fault().unwrap_or_default().to_owned(),
            })
            .await?;
        Ok(Response::new(reply))
    }

    async fn get_policy_history(
        &self,
        request: Request<v1::GetPolicyHistoryRequest>,
    ) -> Result<Response<v1::GetPolicyHistoryReply>, Status> {
        leaders_answer!(
            self,
            request,
            "GetPolicyHistory",
            STATUS_DEADLINE,
            get_policy_history
        );
        let revision = request.into_inner().revision;
        let history = self.read(move |c| views::policy_history(c, revision));
        history.await?.map(Response::new)
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsReply>, Status> {
        leaders_answer!(self, request, "ListEvents", STATUS_DEADLINE, list_events);
        let v1::ListEventsRequest { filter, limit } = request.into_inner();
        let filter = Filter::from(filter.unwrap_or_default());
        self.read(move |c| events::list(c, &filter, limit))
            .await
            .map(Response::new)
    }

    type FollowEventsStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::Event, Status>> + Send + 'static>>;

    async fn follow_events(
        &self,
        request: Request<v1::FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        let caller = authorise("FollowEvents", &request)?;
        let Ok(seat) = self.readers.clone().try_acquire_owned() else {
            return Err(Status::unavailable("too many follow events here"));
        };
        let request = request.into_inner();
        let follower = events::Follower {
            name: caller.to_string(),
            filter: Filter::from(request.filter.unwrap_or_default()),
            place: (request.after_revision, request.after_sequence),
            seat,
        };
        let updates = events::serve(self.handle.clone(), follower, self.stop.clone());
        Ok(Response::new(Box::pin(updates)))
    }

    async fn set_mode(
        &self,
        request: Request<v1::SetModeRequest>,
    ) -> Result<Response<v1::SetModeReply>, Status> {
        write_method!(self, request, "SetMode", set_mode, Write::SetMode)
    }

    async fn set_pause(
        &self,
        request: Request<v1::SetPauseRequest>,
    ) -> Result<Response<v1::SetPauseReply>, Status> {
        write_method!(self, request, "SetPause", set_pause, Write::SetPause)
    }

    async fn resume(
        &self,
        request: Request<v1::ResumeRequest>,
    ) -> Result<Response<v1::ResumeReply>, Status> {
        write_method!(self, request, "Resume", resume, Write::Resume)
    }

    async fn migrate(
        &self,
        request: Request<v1::OperatorMigrateRequest>,
    ) -> Result<Response<v1::OperatorMigrateReply>, Status> {
        write_method!(self, request, "Migrate", migrate, Write::Migrate)
    }

    async fn cancel_migration(
        &self,
        request: Request<v1::CancelMigrationRequest>,
    ) -> Result<Response<v1::CancelMigrationReply>, Status> {
        write_method!(
            self,
            request,
            "CancelMigration",
            cancel_migration,
            Write::Cancel
        )
    }

    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyReply>, Status> {
        write_method!(
            self,
            request,
            "ApplyPolicy",
            apply_policy,
            Write::ApplyPolicy
        )
    }

    async fn resolve_guest(
        &self,
        request: Request<v1::ResolveGuestRequest>,
    ) -> Result<Response<v1::ResolveGuestReply>, Status> {
        write_method!(self, request, "ResolveGuest", resolve_guest, Write::Resolve)
    }

    async fn set_intent(
        &self,
        request: Request<v1::SetIntentRequest>,
    ) -> Result<Response<v1::SetIntentReply>, Status> {
        write_method!(self, request, "SetIntent", set_intent, Write::SetIntent)
    }

    async fn clear_intent(
        &self,
        request: Request<v1::ClearIntentRequest>,
    ) -> Result<Response<v1::ClearIntentReply>, Status> {
        write_method!(
            self,
            request,
            "ClearIntent",
            clear_intent,
            Write::ClearIntent
        )
    }
}

/// A migration as this replica sees it; without etcd it would see it stand still for ever.
fn watched(c: &Controller, prefix: &str) -> Result<v1::Migration, Status> {
    if !c.etcd_reachable() {
        return Err(Status::unavailable(format!(
            "{} does not reach etcd",
            c.name()
        )));
    }
    views::migration_by_prefix(c, prefix)
}

/// Sends a migration whenever it has changed, until it is over or nobody listens.
async fn watch(handle: Handle, id: String, sink: mpsc::Sender<Result<v1::Migration, Status>>) {
    let mut last: Option<v1::Migration> = None;
    let mut patience = WATCH_PATIENCE;
    let mut tick = tokio::time::interval(WATCH_EVERY);
    loop {
        tick.tick().await;
        let prefix = id.clone();
        let found = match handle.read(move |c| watched(c, &prefix)).await {
            Ok(found) => found,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        let now = match found {
            Ok(migration) => migration,
            Err(status) if status.code() == Code::NotFound && last.is_none() && patience > 0 => {
                patience -= 1;
                continue;
            }
            Err(status) => {
                drop(sink.send(Err(status)).await);
                return;
            }
        };
        let over = now.ended_at_ms > 0;
        let changed = last.as_ref() != Some(&now);
        if changed && sink.send(Ok(now.clone())).await.is_err() {
            return;
        }
        if over || sink.is_closed() {
            return;
        }
        last = Some(now);
    }
}

#[cfg(test)]
mod tests;
