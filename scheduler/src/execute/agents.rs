//! Calls to agents: one channel per host, a deadline on each call.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::v1;
use evenkeel_proto::v1::agent_service_client::AgentServiceClient;
use evenkeel_types::{GuestId, HostName, Refusal};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// An agent acknowledges an order (its journal written) within this time or is taken for unreachable.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);

/// A cancel is answered within this time, which leaves the API time to answer its own caller.
const CANCEL: Duration = Duration::from_secs(4);

/// It asks the target before it closes anything, which may be silent.
const RESOLVE: Duration = Duration::from_secs(12);

/// A guest is measured within this time; the agent gives up before.
const MEASURE: Duration = Duration::from_secs(75);

/// What came of handing an order to its source agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It has taken it up; the journal tells the rest.
    TakenUp,
    /// It will not do it.
    Refused(Refusal, String),
    /// It could not be reached, or did not answer in time.
    Unreachable(String),
}

/// Channels to agents, made when first used and made anew when an address changes.
#[derive(Debug)]
pub struct Agents {
    tls: TlsPem,
    channels: BTreeMap<HostName, (String, Channel)>,
}

impl Agents {
    /// No channels yet.
    #[must_use]
    pub fn new(tls: TlsPem) -> Self {
        Self {
            tls,
            channels: BTreeMap::new(),
        }
    }

    /// A client of `host`'s agent at `address`; only a certificate for that host is accepted.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn client(
        &mut self,
        host: &HostName,
        address: &str,
    ) -> Result<AgentServiceClient<Channel>, tonic::transport::Error> {
        if let Some((known, channel)) = self.channels.get(host)
            && known == address
        {
            return Ok(AgentServiceClient::new(channel.clone()));
        }
        let channel = self.tls.channel(address, host.as_str())?;
        self.channels
            .insert(host.clone(), (address.to_owned(), channel.clone()));
        Ok(AgentServiceClient::new(channel))
    }
}

/// Hands an order to its source agent and waits for the first word.
pub async fn deliver(
    mut client: AgentServiceClient<Channel>,
    order: v1::Order,
    leader_key: String,
) -> Delivery {
    let request = v1::MigrateRequest {
        order: Some(order),
        leader_key,
    };
    let first_word = async {
        let mut updates = client.migrate(request).await?.into_inner();
        updates.message().await
    };
    match tokio::time::timeout(ACKNOWLEDGE, first_word).await {
        Err(_) => Delivery::Unreachable(format!("no answer in {ACKNOWLEDGE:?}")),
        Ok(Err(status)) => Delivery::Unreachable(status.message().to_owned()),
        Ok(Ok(None)) => Delivery::Unreachable("the agent said nothing".to_owned()),
        Ok(Ok(Some(update))) => understand(update),
    }
}

fn understand(update: v1::MigrationUpdate) -> Delivery {
    let state = update.state.unwrap_or_default();
    if state.phase() != v1::MigrationPhase::Refused {
        return Delivery::TakenUp;
    }
    match state.reason.parse() {
        // An earlier delivery got through: its journal tells the rest.
        Ok(Refusal::Duplicate) => Delivery::TakenUp,
        Ok(reason) => Delivery::Refused(reason, update.detail),
        Err(_) => Delivery::Refused(
            Refusal::Unsupported,
            format!("{}: {}", state.reason, update.detail),
        ),
    }
}

/// Tells the source agent where an operator says that a guest is.
///
/// # Errors
/// When it cannot be reached or refuses.
pub async fn resolve(
    mut client: AgentServiceClient<Channel>,
    request: v1::ResolveRequest,
) -> Result<v1::ResolveReply, Status> {
    within(RESOLVE, client.resolve(request)).await
}

/// Asks an agent how much of its memory a guest changes within a time.
///
/// # Errors
/// When it cannot be reached, refuses or cannot measure.
pub async fn measure(
    mut client: AgentServiceClient<Channel>,
    guest: &GuestId,
) -> Result<v1::DirtyCurve, tonic::Status> {
    let request = v1::MeasureDirtyRateRequest {
        guest_uuid: guest.to_string(),
    };
    match tokio::time::timeout(MEASURE, client.measure_dirty_rate(request)).await {
        Ok(reply) => Ok(reply?.into_inner().curve.unwrap_or_default()),
        Err(_) => Err(tonic::Status::deadline_exceeded(format!(
            "no answer in {MEASURE:?}"
        ))),
    }
}

/// Asks the source agent to abort a migration.
///
/// # Errors
/// When it cannot be reached or refuses.
pub async fn cancel(
    mut client: AgentServiceClient<Channel>,
    request: v1::CancelRequest,
) -> Result<v1::CancelReply, Status> {
    within(CANCEL, client.cancel(request)).await
}

/// An agent's answer, or that none came in time.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(reply) => reply.map(Response::into_inner),
        Err(_) => Err(Status::unavailable(format!("no answer in {limit:?}"))),
    }
}
