//! What both daemons stand on: configuration, etcd, the metrics endpoint, logging and the service manager.
//!
//! Agent and scheduler never import each other, and neither the wire (`evenkeel-proto`) nor the pure crates
//! should know etcd clients or HTTP servers. What they share of the outer shell lives here.

pub mod config;
pub mod lease;
pub mod logging;
pub mod metrics;
pub mod mirror;
pub mod retry;
pub mod store;
pub mod supervision;

pub use lease::LeaseKeeper;
pub use mirror::Change;
pub use store::{Entry, Store, StoreError};

/// Installs the ring provider for rustls; call first in `main`. A second call changes nothing.
pub fn install_crypto() {
    // The only error is that a provider is there already, which is what we want.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Milliseconds since the Unix epoch by this machine's clock.
#[must_use]
pub fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
