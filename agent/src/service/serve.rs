//! The gRPC server: TLS, keep-alive, health and reflection around the one service.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_proto::DESCRIPTORS;
use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// A silent connection is pinged this often, and closed when no answer comes in time: a peer behind a
/// partition must not hold streams for ever.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Streams of one connection: a scheduler follows a few migrations, an agent asks a few questions.
const STREAMS: u32 = 128;
/// Largest request: an order and a definition.
const LARGEST: usize = 2 << 20;
/// How long open calls may go on after the stop.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why the service cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The reflection service does not take our descriptors.
    #[error("descriptors of the services are unusable")]
    Descriptors(#[from] tonic_reflection::server::Error),
    /// The certificates are unusable, or the server failed.
    #[error("gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Listens on `address`.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })
}

/// Serves `api` until `stop`; then waits a little for open calls.
///
/// # Errors
/// When certificates or descriptors are unusable, or the server fails.
pub async fn serve<A: AgentService>(
    listener: TcpListener,
    tls: &TlsPem,
    api: A,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AgentServiceServer<A>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()?;
    let service = AgentServiceServer::new(api).max_decoding_message_size(LARGEST);
    let ended = stop.clone();
    let server = Server::builder()
        .tls_config(tls.server())?
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(Some(STREAMS))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
    let farewell = async {
        ended.cancelled().await;
        health.set_not_serving::<AgentServiceServer<A>>().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = farewell => {
            tracing::debug!("open calls are cut off");
            Ok(())
        }
    }
}
