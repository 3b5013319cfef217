//! Where reads come from: the schedulers, or a snapshot file.

use std::path::Path;

use evenkeel_planner::{Policy, Snapshot};
use evenkeel_proto::v1;

use super::Session;
use super::policy::read_text;
use crate::args::Source;
use crate::client::{Client, QUICK, THOROUGH};
use crate::exit::Failure;
use crate::view::{Guest, Host, Migration, Status, offline};

/// A fleet that can be read.
#[derive(Debug)]
pub(super) enum Fleet {
    Live(Client),
    File(Box<Recorded>),
}

/// A fleet as it was recorded, and the policy to judge it by.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) file: String,
    pub(super) snapshot: Snapshot,
    pub(super) policy: Policy,
}

impl Fleet {
    pub(super) fn open(session: &Session<'_>, source: &Source) -> Result<Self, Failure> {
        let Some(file) = &source.snapshot else {
            return Ok(Self::Live(session.client()?));
        };
        let (name, snapshot) = read_snapshot(file)?;
        let policy = match &source.policy {
            None => Policy::default(),
            Some(file) => super::policy::parse(file)?,
        };
        Ok(Self::File(Box::new(Recorded {
            file: name,
            snapshot,
            policy,
        })))
    }

    /// The name of what is being read, for messages.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::Live(_) => "the fleet",
            Self::File(recorded) => &recorded.file,
        }
    }

    pub(super) async fn hosts(&self) -> Result<Vec<Host>, Failure> {
        match self {
            Self::File(recorded) => Ok(offline::hosts(&recorded.snapshot, &recorded.policy)),
            Self::Live(client) => {
                let ask = async |mut scheduler: crate::client::Scheduler| {
                    scheduler.list_hosts(v1::ListHostsRequest::default()).await
                };
                let reply = client.read(QUICK, ask).await?;
                Ok(reply.hosts.into_iter().map(Into::into).collect())
            }
        }
    }

    pub(super) async fn guests(&self) -> Result<Vec<Guest>, Failure> {
        match self {
            Self::File(recorded) => Ok(offline::guests(&recorded.snapshot)),
            Self::Live(client) => {
                let ask = async |mut scheduler: crate::client::Scheduler| {
                    scheduler.list_guests(v1::ListGuestsRequest {}).await
                };
                let reply = client.read(QUICK, ask).await?;
                Ok(reply.guests.into_iter().map(Into::into).collect())
            }
        }
    }

    pub(super) async fn migrations(&self, open_only: bool) -> Result<Vec<Migration>, Failure> {
        match self {
            Self::File(recorded) => Ok(offline::migrations(&recorded.snapshot)),
            Self::Live(client) => migrations(client, open_only).await,
        }
    }

    pub(super) async fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::File(recorded) => Ok(offline::status(&recorded.snapshot, &recorded.policy)),
            Self::Live(client) => {
                let status = status(client).await?;
                let open = migrations(client, true).await?;
                Ok(Status::new(status, open).with_hosts(&self.hosts().await?))
            }
        }
    }

    /// Labels stand in snapshots only.
    pub(super) async fn labels(&self) -> Result<Labels, Failure> {
        match self {
            Self::File(recorded) => Ok(Labels(recorded.snapshot.clone())),
            Self::Live(client) => Ok(Labels(live_snapshot(client).await?)),
        }
    }
}

/// The name of a snapshot file, and what is in it; `-` is standard input.
pub(super) fn read_snapshot(file: &Path) -> Result<(String, Snapshot), Failure> {
    let (name, text) = read_text(file)?;
    let snapshot = Snapshot::from_json(&text).map_err(|source| Failure::Snapshot {
        file: name.clone(),
        source,
    })?;
    Ok((name, snapshot))
}

/// The fleet as a scheduler knows it, as a snapshot.
pub(super) async fn live_snapshot(client: &Client) -> Result<Snapshot, Failure> {
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.get_snapshot(v1::GetSnapshotRequest {}).await
    };
    let document = client.read(THOROUGH, ask).await?;
    let text = String::from_utf8_lossy(&document.json);
    let file = "the scheduler's snapshot".to_owned();
    Snapshot::from_json(&text).map_err(|source| Failure::Snapshot { file, source })
}

/// What a fleet is planned by: as it is now, or as it was recorded.
pub(super) async fn snapshot_and_policy(fleet: Fleet) -> Result<(Snapshot, Policy), Failure> {
    match fleet {
        Fleet::File(recorded) => Ok((recorded.snapshot, recorded.policy)),
        Fleet::Live(client) => live_snapshot_and_policy(&client).await,
    }
}

/// What the fleet is planned by now.
pub(super) async fn live_snapshot_and_policy(
    client: &Client,
) -> Result<(Snapshot, Policy), Failure> {
    let reply = super::policy::in_force(client).await?;
    let policy = Policy::parse(&reply.text).map_err(|error| Failure::Policy {
        faults: error.to_string(),
    })?;
    Ok((live_snapshot(client).await?, policy))
}

/// What a scheduler says of itself and the fleet.
pub(super) async fn status(client: &Client) -> Result<v1::Status, Failure> {
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler.get_status(v1::GetStatusRequest {}).await
    };
    Ok(client.read(QUICK, ask).await?)
}

async fn migrations(client: &Client, open_only: bool) -> Result<Vec<Migration>, Failure> {
    let ask = async |mut scheduler: crate::client::Scheduler| {
        scheduler
            .list_migrations(v1::ListMigrationsRequest { open_only })
            .await
    };
    let reply = client.read(QUICK, ask).await?;
    Ok(reply.migrations.into_iter().map(Into::into).collect())
}

/// The labels of hosts and guests.
#[derive(Debug)]
pub(super) struct Labels(Snapshot);

impl Labels {
    /// Whether a host has all of them.
    pub(super) fn host_has(&self, host: &Host, wanted: &[(String, String)]) -> bool {
        let found = self.0.host(&host.name);
        let has = |key: &str| {
            found
                .and_then(|host| host.labels.get(key))
                .map(String::as_str)
        };
        wanted.iter().all(|(key, value)| has(key) == Some(value))
    }

    /// Whether a guest has all of them; its group counts as the label `group`.
    pub(super) fn guest_has(&self, guest: &Guest, wanted: &[(String, String)]) -> bool {
        let by_uuid = guest.uuid.as_deref().and_then(|uuid| self.0.guest(uuid));
        let found = by_uuid.or_else(|| self.0.guest(&guest.name));
        let has = |key: &str| found.and_then(|guest| guest.label(key));
        wanted.iter().all(|(key, value)| has(key) == Some(value))
    }
}
