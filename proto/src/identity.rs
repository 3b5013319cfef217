//! Who is at the other end: mTLS and the role that a certificate's SAN names.
//!
//! A certificate carries one URI SAN `evenkeel://<role>/<name>`, for example `evenkeel://agent/kvm1`. Servers
//! also carry their host's name as DNS SAN, which is what a client verifies when it dials them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity, ServerTlsConfig,
};
use tonic::{Request, Status};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::ON_BEHALF_OF;

/// Scheme of the URI SAN that names a role.
const SCHEME: &str = "evenkeel://";
/// Opening a connection takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that answers no ping for this long is gone: without it a healed partition leaves dead channels.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a silent connection is pinged.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A host's agent.
    Agent,
    /// A scheduler replica.
    Scheduler,
    /// A person or program that may change things.
    Operator,
    /// A person or program that may look.
    Viewer,
}

impl Role {
    /// The role's name in certificates and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Scheduler => "scheduler",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// A verified peer: `operator/alice`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// Who it is; for an agent the host's name.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role.as_str(), self.name)
    }
}

/// A text that names no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no identity: expected <role>/<name> with role agent, scheduler, operator or viewer"
)]
pub struct InvalidIdentity(pub String);

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity(text.chars().take(64).collect());
        let (role, name) = text.split_once('/').ok_or_else(invalid)?;
        let role = [Role::Agent, Role::Scheduler, Role::Operator, Role::Viewer]
            .into_iter()
            .find(|r| r.as_str() == role)
            .ok_or_else(invalid)?;
        let name_is_plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@'));
        if name.is_empty() || name.len() > 253 || !name_is_plain {
            return Err(invalid());
        }
        Ok(Self {
            role,
            name: name.to_owned(),
        })
    }
}

/// Reads the identity out of a DER certificate that the TLS layer has verified.
///
/// Returns `None` unless exactly one URI SAN of ours is there: a certificate with two roles has none.
#[must_use]
pub fn of_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut roles = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else {
            return None;
        };
        uri.strip_prefix(SCHEME)
    });
    match (roles.next(), roles.next()) {
        (Some(role), None) => role.parse().ok(),
        _ => None,
    }
}

/// The verified identity of a request's peer.
///
/// # Errors
/// `Unauthenticated` when the peer showed no certificate or one that names no role.
pub fn of_peer<T>(request: &Request<T>) -> Result<Identity, Status> {
    let certificates = request
        .peer_certs()
        .ok_or_else(|| Status::unauthenticated("no client certificate was presented"))?;
    certificates
        .first()
        .and_then(|der| of_certificate(der))
        .ok_or_else(|| {
            Status::unauthenticated(
                "the client certificate names no role (URI SAN evenkeel://role/name)",
            )
        })
}

/// The identity that a request is to be judged by: the peer's, or the one that a scheduler passes on.
///
/// # Errors
/// `Unauthenticated` as [`of_peer`]; `PermissionDenied` when anyone but a scheduler speaks for another.
pub fn of_request<T>(request: &Request<T>) -> Result<Identity, Status> {
    let peer = of_peer(request)?;
    let Some(behind) = request.metadata().get(ON_BEHALF_OF) else {
        return Ok(peer);
    };
    if peer.role != Role::Scheduler {
        return Err(Status::permission_denied(format!(
            "{peer} may not speak for others"
        )));
    }
    let text = behind
        .to_str()
        .map_err(|_| Status::permission_denied("unreadable identity"))?;
    text.parse()
        .map_err(|e: InvalidIdentity| Status::permission_denied(e.to_string()))
}

/// The three files that make a TLS identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM of the authority that signs every peer.
    pub ca: PathBuf,
    /// PEM of our certificate (chain).
    pub certificate: PathBuf,
    /// PEM of our key.
    pub key: PathBuf,
}

/// A TLS file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read TLS file {path}")]
pub struct TlsFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// The contents of [`TlsFiles`].
#[derive(Clone)]
pub struct TlsPem {
    /// The authority's certificate.
    pub ca: Vec<u8>,
    /// Our certificate.
    pub certificate: Vec<u8>,
    /// Our key.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsPem(..)") // never the key
    }
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(&self) -> Result<TlsPem, TlsFileError> {
        Ok(TlsPem {
            ca: read(&self.ca)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    std::fs::read(path).map_err(|source| TlsFileError {
        path: path.to_owned(),
        source,
    })
}

impl TlsPem {
    /// The second (of the Unix epoch) in which our certificate ends; `None` when it is no certificate.
    #[must_use]
    pub fn ends_at_unix_seconds(&self) -> Option<i64> {
        let (_, pem) = parse_x509_pem(&self.certificate).ok()?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    /// For a server: our identity, and only clients signed by the authority.
    #[must_use]
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// For a client of the server called `name`.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(TlsIdentity::from_pem(&self.certificate, &self.key))
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(name)
    }

    /// A channel to `address` (`host:port`) that connects when first used, pings when silent, and
    /// accepts only a server whose certificate is for `name`.
    ///
    /// # Errors
    /// When the address is malformed or the certificates are unusable.
    pub fn channel(&self, address: &str, name: &str) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(self.client(name))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_lazy())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["h1".to_owned()]).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn the_uri_san_names_the_role() {
        let identity = of_certificate(&certificate(&["evenkeel://agent/h1"])).unwrap();
        assert_eq!((identity.role, identity.name.as_str()), (Role::Agent, "h1"));
    }

    #[test]
    fn a_certificate_without_exactly_one_role_has_none() {
        for uris in [
            &[][..],
            &["https://example.org"][..],
            &["evenkeel://admin/x"][..],
            &["evenkeel://agent/h1", "evenkeel://operator/x"][..],
            &["evenkeel://agent/"][..],
            &["evenkeel://agent/a/b"][..],
        ] {
            assert_eq!(of_certificate(&certificate(uris)), None, "{uris:?}");
        }
        assert_eq!(of_certificate(b"not a certificate"), None);
    }

    #[test]
    fn a_certificate_tells_its_end() {
        let mut params = CertificateParams::new(vec!["h1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let pem = |certificate: &str| TlsPem {
            ca: vec![],
            certificate: certificate.into(),
            key: vec![],
        };
        let ends = pem(&signed.pem()).ends_at_unix_seconds();
        assert_eq!(ends, Some(1_927_843_200));
        assert_eq!(pem("no certificate").ends_at_unix_seconds(), None);
    }

    #[test]
    fn identities_print_and_parse() {
        for text in [
            "agent/h1",
            "scheduler/s1",
            "operator/alice@example.org",
            "viewer/x",
        ] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        assert!("operator/".parse::<Identity>().is_err());
    }

    #[test]
    fn a_request_without_a_certificate_is_nobody() {
        let status = of_request(&Request::new(())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }
}
