//! Why did a scheduler close the connection? In TLS 1.3 a server judges our certificate when the client has
//! already sent its request, and the answer is lost below HTTP/2. So it is asked again, by hand.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_proto::identity::TlsPem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::config::Replica;

/// For each step: a server that lives speaks at once, yes or no; a loaded machine gets time to.
const LIMIT: Duration = Duration::from_secs(3);
/// A server that accepts us sends a few records first; a refusal is the first.
const RECORDS: usize = 4;

/// The server's words when it does not accept our certificate; blocks for a few seconds at most.
pub(super) fn refusal(pem: &TlsPem, replica: &Replica) -> Option<String> {
    let config = Arc::new(config(pem)?);
    let name = ServerName::try_from(replica.server_name.clone()).ok()?;
    let mut connection = ClientConnection::new(config, name).ok()?;
    let address = replica.address.to_string().to_socket_addrs().ok()?.next()?;
    let mut socket = TcpStream::connect_timeout(&address, LIMIT).ok()?;
    socket.set_read_timeout(Some(LIMIT)).ok()?;
    socket.set_write_timeout(Some(LIMIT)).ok()?;
    for _ in 0..RECORDS {
        match connection.complete_io(&mut socket) {
            Ok((0, 0)) => return None,
            Ok(_) => {}
            Err(error) => return alert(&error),
        }
    }
    None
}

fn config(pem: &TlsPem) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem.ca) {
        roots.add(certificate.ok()?).ok()?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem.certificate).collect();
    let key = PrivateKeyDer::from_pem_slice(&pem.key).ok()?;
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(chain.ok()?, key).ok()?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Some(config)
}

fn alert(error: &io::Error) -> Option<String> {
    let refused: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let rustls::Error::AlertReceived(alert) = refused else {
        return None;
    };
    Some(format!("TLS alert {alert:?}"))
}
