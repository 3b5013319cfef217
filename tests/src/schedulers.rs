//! Asking schedulers, as whoever one likes to be, and operating the fleet as an operator does.

use std::time::Duration;

use evenkeel_proto::v1;
use evenkeel_proto::v1::MigrationPhase;
use evenkeel_proto::v1::agent_service_client::AgentServiceClient;
use evenkeel_proto::v1::scheduler_service_client::SchedulerServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::network::Caller;
use crate::{Lab, wait_for};

/// An answer takes less than this or is none.
const ANSWER: Duration = Duration::from_secs(10);
/// Agents and leader have found one another within this time, also on a busy machine.
const PICTURE: Duration = Duration::from_secs(45);

/// Whether somebody leads is asked of all in turn; a frozen one must not take the others' time.
const GLANCE: Duration = Duration::from_secs(1);

/// A request with a deadline, for the other side to know.
#[must_use]
pub fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// The answer to a call, in time: a request's own deadline does not cover the handshake before it, in which a
/// frozen process keeps its callers waiting.
///
/// # Errors
/// What the other side said, or that it said nothing.
pub async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    within(ANSWER, call).await
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::unavailable("no answer in time")),
    }
}

impl Lab {
    /// The scheduler `name`'s service; only inside the lab's network.
    #[must_use]
    pub fn scheduler(&self, caller: Caller, name: &str) -> SchedulerServiceClient<Channel> {
        let number: u8 = name[1..].parse().expect("a scheduler: s1, s2 …");
        let address = format!("10.90.0.{}:7440", 1 + number);
        let channel = self.identity(caller).channel(&address, name);
        SchedulerServiceClient::new(channel.expect("a channel"))
    }

    /// The agent of `name`; only inside the lab's network.
    #[must_use]
    pub fn agent(&self, caller: Caller, name: &str) -> AgentServiceClient<Channel> {
        let number: u8 = name[1..].parse().expect("a host: h1, h2 …");
        let address = format!("10.90.0.{}:7441", 10 + number);
        let channel = self.identity(caller).channel(&address, name);
        AgentServiceClient::new(channel.expect("a channel"))
    }

    /// What a scheduler says of itself and the fleet; `None` if it does not answer.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<v1::Status> {
        self.inside(|| async {
            let mut client = self.scheduler(Caller::Operator, name);
            let call = client.get_status(ask(v1::GetStatusRequest {}));
            within(GLANCE, call).await.ok()
        })
    }

    /// What a scheduler says that lives, waited for.
    #[must_use]
    pub fn status_of(&self, name: &str) -> v1::Status {
        wait_for(&format!("{name} to answer"), PICTURE, || self.status(name))
    }

    /// The scheduler that leads, by its own word; a follower passes the question on to it.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        let mut said = ["s1", "s2", "s3"].iter().filter_map(|s| self.status(s));
        said.find(|status| status.is_leader).map(|s| s.replica)
    }

    /// A leader, waited for.
    #[must_use]
    pub fn some_leader(&self) -> String {
        wait_for("a leader", PICTURE, || self.leader())
    }

    /// A scheduler that does not lead.
    #[must_use]
    pub fn some_follower(&self) -> String {
        let leader = self.some_leader();
        let others = ["s1", "s2", "s3"].into_iter().find(|s| *s != leader);
        others.expect("three schedulers").to_owned()
    }

    /// Until the leader counts so many hosts as active.
    pub fn wait_for_picture(&self, hosts: u32) {
        wait_for("the leader to see every host", PICTURE, || {
            let leader = self.leader()?;
            let status = self.status(&leader)?;
            (status.hosts_active == hosts && status.hosts_libvirt_down == 0).then_some(())
        });
    }

    /// Until the leader knows the guest and can say where it is.
    pub fn wait_for_guest(&self, name: &str) -> v1::GuestView {
        wait_for(&format!("the leader to know {name}"), PICTURE, || {
            let leader = self.leader()?;
            let guests = self.guest_views(&leader);
            guests
                .into_iter()
                .find(|g| g.name == name && g.state == "running")
        })
    }

    /// The guests as a scheduler sees them.
    #[must_use]
    pub fn guest_views(&self, scheduler: &str) -> Vec<v1::GuestView> {
        self.inside(|| async {
            let mut client = self.scheduler(Caller::Operator, scheduler);
            let call = client.list_guests(ask(v1::ListGuestsRequest {}));
            answer(call).await.map_or_else(|_| vec![], |a| a.guests)
        })
    }

    /// Every migration that the leader knows of, newest last.
    #[must_use]
    pub fn migrations(&self) -> Vec<v1::Migration> {
        let leader = self.some_leader();
        self.inside(|| async {
            let mut client = self.scheduler(Caller::Operator, &leader);
            let all = v1::ListMigrationsRequest { open_only: false };
            let call = client.list_migrations(ask(all));
            answer(call).await.map_or_else(|_| vec![], |a| a.migrations)
        })
    }

    /// Sets the mode through `scheduler`.
    ///
    /// # Errors
    /// What the scheduler said.
    pub fn set_mode(&self, caller: Caller, scheduler: &str, mode: &str) -> Result<u64, Status> {
        self.inside(|| async {
            let request = v1::SetModeRequest {
                mode: mode.to_owned(),
                reason: "test".to_owned(),
                dry_run: false,
            };
            let mut client = self.scheduler(caller, scheduler);
            let call = client.set_mode(ask(request));
            answer(call).await.map(|a| a.policy_revision)
        })
    }

    /// Puts a policy into force, over the one with `expected_revision`.
    ///
    /// # Errors
    /// What the scheduler said.
    pub fn apply_policy(&self, text: &str, expected_revision: u64) -> Result<u64, Status> {
        let leader = self.some_leader();
        self.inside(|| async {
            let request = v1::ApplyPolicyRequest {
                text: text.to_owned(),
                reason: "test".to_owned(),
                dry_run: false,
                expected_revision,
            };
            let mut client = self.scheduler(Caller::Operator, &leader);
            let call = client.apply_policy(ask(request));
            answer(call).await.map(|a| a.policy_revision)
        })
    }

    /// Orders a migration by hand.
    ///
    /// # Errors
    /// What the scheduler said.
    pub fn migrate(
        &self,
        caller: Caller,
        scheduler: &str,
        guest: &str,
        target: &str,
    ) -> Result<v1::Order, Status> {
        self.inside(|| async {
            let request = v1::OperatorMigrateRequest {
                guest: guest.to_owned(),
                target: target.to_owned(),
                reason: "test".to_owned(),
                ..Default::default()
            };
            let mut client = self.scheduler(caller, scheduler);
            let call = client.migrate(ask(request));
            answer(call).await.map(|a| a.order.unwrap_or_default())
        })
    }

    /// Until the migration of that order has ended by the leader's word; returns it.
    #[must_use]
    pub fn wait_for_end(&self, order: &str, limit: Duration) -> v1::Migration {
        wait_for(&format!("the end of migration {order}"), limit, || {
            let all = self.migrations();
            all.into_iter().find(|m| id_of(m) == order && is_over(m))
        })
    }
}

/// The id of a migration's order.
#[must_use]
pub fn id_of(migration: &v1::Migration) -> &str {
    migration.order.as_ref().map_or("", |order| &order.id)
}

/// Where a migration stands.
#[must_use]
pub fn phase_of(migration: &v1::Migration) -> MigrationPhase {
    migration
        .state
        .as_ref()
        .map_or(MigrationPhase::Unspecified, v1::MigrationState::phase)
}

fn is_over(migration: &v1::Migration) -> bool {
    matches!(
        phase_of(migration),
        MigrationPhase::Done
            | MigrationPhase::Refused
            | MigrationPhase::Cancelled
            | MigrationPhase::Failed
    )
}
