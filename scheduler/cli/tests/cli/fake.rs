//! A scheduler that answers from a recorded fleet, and can be told to misbehave. Authorises as the real
//! one does: reads for viewers and operators, changes for operators.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel_proto::identity::{Role, TlsPem, of_request};
use evenkeel_proto::v1;
use evenkeel_proto::v1::scheduler_service_server::{SchedulerService, SchedulerServiceServer};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt, iter};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use crate::fleet;

type Answer<T> = Result<Response<T>, Status>;

/// What the scheduler knows and how it behaves.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) status: v1::Status,
    pub(crate) hosts: Vec<v1::HostView>,
    pub(crate) guests: Vec<v1::GuestView>,
    pub(crate) migrations: Vec<v1::Migration>,
    pub(crate) policy_fault: String,
    pub(crate) events: Vec<v1::Event>,
    /// What a follower is told, one stream after the other; then none is opened any more.
    pub(crate) followed: Vec<Vec<v1::Event>>,
    pub(crate) plan: String,
    pub(crate) snapshot: String,
    /// What a watcher of a migration sees, one stream after the other; then it stays open.
    pub(crate) watched: Vec<Vec<v1::Migration>>,
    /// Whether a stream stays open when it has told all.
    pub(crate) hold_open: bool,
    /// What later looks at the hosts see, one after the other; then the last one.
    pub(crate) next_hosts: std::collections::VecDeque<Vec<v1::HostView>>,
    /// Answer these calls with this.
    pub(crate) refuse: BTreeMap<&'static str, (Code, String)>,
    /// Answer these calls never.
    pub(crate) hang: Vec<&'static str>,
    /// What changed, in words.
    pub(crate) log: Vec<String>,
    /// How often each was called by somebody who may.
    pub(crate) calls: BTreeMap<&'static str, u32>,
}

/// A handle on a running scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn recorded() -> Self {
        let now_ms = jiff::Timestamp::now().as_millisecond();
        Self(Arc::new(Mutex::new(State {
            status: fleet::status(now_ms),
            hosts: fleet::hosts(),
            guests: fleet::guests(now_ms),
            migrations: fleet::migrations(now_ms),
            plan: fleet::PLAN.to_owned(),
            snapshot: fleet::SNAPSHOT.to_owned(),
            ..Default::default()
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn refuse(&self, call: &'static str, code: Code, message: &str) {
        self.state().refuse.insert(call, (code, message.to_owned()));
    }

    /// Listens on a free port of the loopback interface and returns it.
    pub(crate) fn serve(&self, runtime: &tokio::runtime::Runtime, pem: &TlsPem) -> u16 {
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = pem.server();
        let service = SchedulerServiceServer::new(self.clone());
        runtime.spawn(async move {
            let mut server = Server::builder().tls_config(tls).unwrap();
            let incoming = TcpListenerStream::new(listener);
            server
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        port
    }

    /// Checks the caller's role, and misbehaves where it was told to.
    async fn enter<T>(&self, call: &'static str, request: Request<T>) -> Result<T, Status> {
        let identity = of_request(&request)?;
        let is_read = call.starts_with("get")
            || call.starts_with("list")
            || call.starts_with("watch")
            || call.starts_with("follow");
        match identity.role {
            Role::Operator => {}
            Role::Viewer if is_read => {}
            Role::Viewer | Role::Agent | Role::Scheduler => {
                return Err(Status::permission_denied(format!(
                    "{identity} may not {call}"
                )));
            }
        }
        let (hangs, refusal) = {
            let mut state = self.state();
            *state.calls.entry(call).or_default() += 1;
            (state.hang.contains(&call), state.refuse.get(call).cloned())
        };
        if hangs {
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        match refusal {
            Some((code, message)) => Err(Status::new(code, message)),
            None => Ok(request.into_inner()),
        }
    }

    fn document(&self, schema: &str, json: &str) -> Answer<v1::Document> {
        let json = json.as_bytes().to_vec();
        Ok(Response::new(v1::Document {
            schema: schema.into(),
            json,
        }))
    }
}

#[tonic::async_trait]
impl SchedulerService for Fake {
    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::Status> {
        self.enter("get_status", request).await?;
        Ok(Response::new(self.state().status.clone()))
    }

    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Answer<v1::ListHostsReply> {
        let asked = self.enter("list_hosts", request).await?;
        let mut state = self.state();
        // Only those who follow ask by name.
        if !asked.names.is_empty()
            && let Some(next) = state.next_hosts.pop_front()
        {
            state.hosts = next;
        }
        let mut hosts = state.hosts.clone();
        hosts.retain(|host| asked.names.is_empty() || asked.names.contains(&host.name));
        Ok(Response::new(v1::ListHostsReply { hosts }))
    }

    async fn list_guests(
        &self,
        request: Request<v1::ListGuestsRequest>,
    ) -> Answer<v1::ListGuestsReply> {
        self.enter("list_guests", request).await?;
        Ok(Response::new(v1::ListGuestsReply {
            guests: self.state().guests.clone(),
        }))
    }

    async fn list_migrations(
        &self,
        request: Request<v1::ListMigrationsRequest>,
    ) -> Answer<v1::ListMigrationsReply> {
        let asked = self.enter("list_migrations", request).await?;
        let mut migrations = self.state().migrations.clone();
        migrations.retain(|m| !asked.open_only || m.ended_at_ms == 0);
        Ok(Response::new(v1::ListMigrationsReply { migrations }))
    }

    type WatchMigrationStream =
        Pin<Box<dyn Stream<Item = Result<v1::Migration, Status>> + Send + 'static>>;

    async fn watch_migration(
        &self,
        request: Request<v1::WatchMigrationRequest>,
    ) -> Answer<Self::WatchMigrationStream> {
        self.enter("watch_migration", request).await?;
        let mut state = self.state();
        let seen = if state.watched.is_empty() {
            vec![]
        } else {
            state.watched.remove(0)
        };
        let told = iter(seen.into_iter().map(Ok)).throttle(Duration::from_millis(60));
        if state.hold_open {
            return Ok(Response::new(Box::pin(told.chain(tokio_stream::pending()))));
        }
        Ok(Response::new(Box::pin(told)))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsReply> {
        let asked = self.enter("list_events", request).await?;
        let mut state = self.state();
        let filter = asked.filter.unwrap_or_default();
        state.log.push(format!(
            "events {:?} {} {} {}",
            filter.kinds, filter.guest, filter.host, asked.limit
        ));
        let last = state.events.last().cloned().unwrap_or_default();
        Ok(Response::new(v1::ListEventsReply {
            events: state.events.clone(),
            revision: last.revision,
            sequence: last.sequence,
        }))
    }

    type FollowEventsStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn follow_events(
        &self,
        request: Request<v1::FollowEventsRequest>,
    ) -> Answer<Self::FollowEventsStream> {
        let asked = self.enter("follow_events", request).await?;
        let mut state = self.state();
        state.log.push(format!(
            "follow after {}/{}",
            asked.after_revision, asked.after_sequence
        ));
        if state.followed.is_empty() {
            return Err(Status::permission_denied("no more streams"));
        }
        let told = iter(state.followed.remove(0).into_iter().map(Ok));
        Ok(Response::new(Box::pin(told)))
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Answer<v1::Document> {
        let asked = self.enter("get_plan", request).await?;
        let mut state = self.state();
        let mut log = format!("plan {}", asked.max_moves);
        if !asked.drain_hosts.is_empty() {
            log = format!("drain plan {:?} {}", asked.drain_hosts, asked.offline_too);
        }
        state.log.push(log);
        self.document("evenkeel.plan/1", &state.plan)
    }

    async fn get_snapshot(&self, request: Request<v1::GetSnapshotRequest>) -> Answer<v1::Document> {
        self.enter("get_snapshot", request).await?;
        self.document("evenkeel.snapshot/1", &self.state().snapshot)
    }

    async fn set_mode(&self, request: Request<v1::SetModeRequest>) -> Answer<v1::SetModeReply> {
        let asked = self.enter("set_mode", request).await?;
        let mut state = self.state();
        state.log.push(format!(
            "mode {} {:?} {}",
            asked.mode, asked.reason, asked.dry_run
        ));
        let previous = state.status.mode.clone();
        if !asked.dry_run {
            state.status.mode = asked.mode;
            state.status.policy_revision += 1;
        }
        let policy_revision = state.status.policy_revision;
        Ok(Response::new(v1::SetModeReply {
            previous,
            policy_revision,
        }))
    }

    async fn set_pause(&self, request: Request<v1::SetPauseRequest>) -> Answer<v1::SetPauseReply> {
        let by = of_request(&request)?.to_string();
        let asked = self.enter("set_pause", request).await?;
        let since_ms = jiff::Timestamp::now().as_millisecond();
        let until_ms = match i64::try_from(asked.for_seconds) {
            Ok(seconds) if seconds > 0 => since_ms + seconds * 1000,
            Ok(_) | Err(_) => 0,
        };
        let pause = v1::Pause {
            by,
            reason: asked.reason,
            since_ms,
            until_ms,
        };
        if !asked.dry_run {
            self.state().status.pause = Some(pause.clone());
        }
        Ok(Response::new(v1::SetPauseReply { pause: Some(pause) }))
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Answer<v1::ResumeReply> {
        let asked = self.enter("resume", request).await?;
        let mut state = self.state();
        let was_paused = state.status.pause.is_some();
        if !asked.dry_run {
            state.status.pause = None;
        }
        Ok(Response::new(v1::ResumeReply { was_paused }))
    }

    async fn migrate(
        &self,
        request: Request<v1::OperatorMigrateRequest>,
    ) -> Answer<v1::OperatorMigrateReply> {
        let by = of_request(&request)?.to_string();
        let asked = self.enter("migrate", request).await?;
        let id = if asked.dry_run { "" } else { fleet::RUNNING };
        let mut order = fleet::order(id, jiff::Timestamp::now().as_millisecond());
        order.by = by;
        if !asked.target.is_empty() {
            order.target.clone_from(&asked.target);
        }
        let mut said = format!(
            "migrate {} {:?} {:?} override={}",
            asked.guest, asked.target, asked.reason, asked.override_pause
        );
        if asked.offline {
            said.push_str(" offline");
        }
        if asked.disks() != v1::DiskCopy::None {
            said.push_str(&format!(" {:?}", asked.disks()));
        }
        self.state().log.push(said);
        Ok(Response::new(v1::OperatorMigrateReply {
            order: Some(order),
        }))
    }

    async fn cancel_migration(
        &self,
        request: Request<v1::CancelMigrationRequest>,
    ) -> Answer<v1::CancelMigrationReply> {
        let asked = self.enter("cancel_migration", request).await?;
        let mut state = self.state();
        state.log.push(format!("cancel {}", asked.id));
        let fits = |m: &&v1::Migration| m.order.as_ref().unwrap().id.starts_with(&asked.id);
        let migration = state.migrations.iter().find(fits).cloned();
        match migration {
            Some(_) => Ok(Response::new(v1::CancelMigrationReply { migration })),
            None => Err(Status::not_found(format!("no migration {}", asked.id))),
        }
    }

    async fn resolve_guest(
        &self,
        request: Request<v1::ResolveGuestRequest>,
    ) -> Answer<v1::ResolveGuestReply> {
        let asked = self.enter("resolve_guest", request).await?;
        let mut state = self.state();
        state.log.push(format!(
            "resolve {} {:?} gone={} discard={} {:?}",
            asked.guest, asked.host, asked.gone, asked.discard_source, asked.reason
        ));
        Ok(Response::new(v1::ResolveGuestReply {
            migration: state.migrations.last().cloned(),
            detail: "h1: paused_by_migration, h2: running".into(),
        }))
    }

    async fn set_intent(
        &self,
        request: Request<v1::SetIntentRequest>,
    ) -> Answer<v1::SetIntentReply> {
        let by = of_request(&request)?.to_string();
        let asked = self.enter("set_intent", request).await?;
        let mut state = self.state();
        let kind = asked.kind().as_str_name().to_lowercase();
        let kind = kind.trim_start_matches("intent_kind_").to_owned();
        state.log.push(format!(
            "{kind} {:?} {:?} deadline={} offline={} dry={}",
            asked.hosts, asked.reason, asked.deadline_seconds, asked.offline_too, asked.dry_run
        ));
        let mut reply = v1::SetIntentReply::default();
        for host in state
            .hosts
            .iter_mut()
            .filter(|h| asked.hosts.contains(&h.name))
        {
            let intent = v1::Intent {
                host: host.name.clone(),
                kind: asked.kind,
                by: by.clone(),
                reason: asked.reason.clone(),
                since_ms: fleet::NOW_MS,
                offline_too: asked.offline_too,
                cordon: host.intent.clone().map(Box::new),
                ..Default::default()
            };
            reply.previous.extend(host.intent.clone());
            reply.intents.push(intent.clone());
            if !asked.dry_run {
                host.intent = Some(intent);
            }
        }
        Ok(Response::new(reply))
    }

    async fn clear_intent(
        &self,
        request: Request<v1::ClearIntentRequest>,
    ) -> Answer<v1::ClearIntentReply> {
        let asked = self.enter("clear_intent", request).await?;
        let mut state = self.state();
        let verb = if asked.drain_only {
            "cancel"
        } else {
            "uncordon"
        };
        state
            .log
            .push(format!("{verb} {:?} dry={}", asked.hosts, asked.dry_run));
        let mut reply = v1::ClearIntentReply::default();
        for host in state
            .hosts
            .iter_mut()
            .filter(|h| asked.hosts.contains(&h.name))
        {
            let Some(intent) = host.intent.clone() else {
                continue;
            };
            let cordon = intent
                .cordon
                .as_deref()
                .cloned()
                .filter(|_| asked.drain_only);
            reply.ended.push(intent);
            reply.standing.extend(cordon.clone());
            if !asked.dry_run {
                host.intent = cordon;
                host.drain = None;
            }
        }
        Ok(Response::new(reply))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Answer<v1::GetPolicyReply> {
        self.enter("get_policy", request).await?;
        let state = self.state();
        Ok(Response::new(v1::GetPolicyReply {
            text: fleet::POLICY.into(),
            revision: state.status.policy_revision,
            fault: state.policy_fault.clone(),
        }))
    }

    async fn get_policy_history(
        &self,
        request: Request<v1::GetPolicyHistoryRequest>,
    ) -> Answer<v1::GetPolicyHistoryReply> {
        let asked = self.enter("get_policy_history", request).await?.revision;
        let mut records = fleet::policies();
        if asked == 0 {
            records.iter_mut().for_each(|record| record.text.clear());
        } else {
            records.retain(|record| record.revision == asked);
            if records.is_empty() {
                let message = format!("policy rev {asked} is not kept (any more)");
                return Err(Status::not_found(message));
            }
        }
        Ok(Response::new(v1::GetPolicyHistoryReply {
            records,
            active: self.state().status.policy_revision,
        }))
    }

    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Answer<v1::ApplyPolicyReply> {
        let asked = self.enter("apply_policy", request).await?;
        let mut state = self.state();
        let now = state.status.policy_revision;
        if asked.expected_revision != now {
            return Err(Status::aborted(format!("policy rev {now} is in force")));
        }
        state
            .log
            .push(format!("policy {:?} {:?}", asked.text, asked.reason));
        if !asked.dry_run {
            state.status.policy_revision += 1;
        }
        let policy_revision = state.status.policy_revision;
        Ok(Response::new(v1::ApplyPolicyReply { policy_revision }))
    }
}
