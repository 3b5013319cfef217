//! The wire: gRPC services, etcd messages, the etcd key schema, and conversions to `evenkeel_types`.
//!
//! Generated types ([`v1`]) stop at the edges; inside a program use the typed values of [`convert`].

pub mod convert;
pub mod identity;
pub mod keys;
pub mod order;

/// Generated from `proto/evenkeel/v1/*.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::as_conversions,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("evenkeel.v1");
}

/// Encoded descriptors of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// gRPC status codes, as etcd and our services answer them.
pub use tonic::Code;

/// Port of an agent's gRPC service.
pub const AGENT_PORT: u16 = 7441;
/// Port of a scheduler's gRPC service.
pub const SCHEDULER_PORT: u16 = 7440;
/// Metadata key under which a follower passes on the operator's verified identity.
pub const ON_BEHALF_OF: &str = "evenkeel-on-behalf-of";
