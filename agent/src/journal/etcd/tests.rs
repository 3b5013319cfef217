//! On a real etcd: Debian's, on the loopback interface, in a directory that goes with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use evenkeel_daemon::metrics::Registry;
use evenkeel_proto::identity::TlsPem;
use evenkeel_types::{MigrationState, Outcome};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::*;
use crate::driver::bench::{guest, order_with};
use crate::journal::opened;

/// A certificate authority and one identity that serves as server and client.
fn certificates(dir: &Path) -> TlsPem {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    params.subject_alt_names.push(SanType::IpAddress(loopback));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let pem = TlsPem {
        ca: ca.pem().into_bytes(),
        certificate: certificate.pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    };
    for (file, text) in [
        ("ca.pem", &pem.ca),
        ("crt.pem", &pem.certificate),
        ("key.pem", &pem.key),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    pem
}

/// A running etcd; it ends with the value.
struct Etcd {
    process: Child,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _status = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Etcd {
    /// `None`, with the reason on standard error, where there is no etcd; `make test` sees to it that there is.
    async fn start() -> Option<Self> {
        if let Err(error) = Command::new("etcd").arg("--version").output() {
            let must = std::env::var_os("TESTS_NEED_ETCD").is_some();
            assert!(!must, "no etcd to test against: {error}");
            eprintln!("skipped: no etcd to test against (apt install etcd-server): {error}");
            return None;
        }
        evenkeel_daemon::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let tls = certificates(dir.path());
        let file = |name: &str| dir.path().join(name).display().to_string();
        let client = format!("https://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let flags = [
            ("name", "t".to_owned()),
            ("data-dir", file("data")),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client.clone()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("t={peer}")),
            ("trusted-ca-file", file("ca.pem")),
            ("cert-file", file("crt.pem")),
            ("key-file", file("key.pem")),
            ("client-cert-auth", "true".to_owned()),
            ("log-level", "error".to_owned()),
        ];
        // With this process it ends, too, however that ends.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(flags.map(|(name, value)| format!("--{name}={value}")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv, a part of util-linux");
        let store = Store::connect(&[client], &tls, &Registry::new())
            .await
            .unwrap();
        let etcd = Self {
            process,
            store,
            _dir: dir,
        };
        let begun = Instant::now();
        while etcd.store.get("/ready").await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "etcd is not up");
        }
        Some(etcd)
    }

    /// Writes a key without conditions; answers with its revision.
    async fn put(&self, key: &str, value: &impl prost::Message) -> i64 {
        self.store.put(key, value, None).await.unwrap();
        self.store.get(key).await.unwrap().unwrap().mod_revision
    }
}

/// A cluster in etcd whose election and orders the test writes itself.
struct Cluster {
    etcd: Etcd,
    keys: Keys,
    records: EtcdRecords,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let etcd = Etcd::start().await?;
        let keys = Keys::new(&"test".parse().unwrap());
        let records = EtcdRecords::new(etcd.store.clone(), keys.clone(), "h1".parse().unwrap());
        Some(Self {
            etcd,
            keys,
            records,
        })
    }

    /// Stands for election; the oldest candidate leads.
    async fn candidate(&self, name: &str) -> (String, i64) {
        let key = format!("{}/{name}", self.keys.election());
        let info = v1::LeaderInfo::default();
        self.etcd.put(&key, &info).await;
        let stands = self.etcd.store.get(&key).await.unwrap().unwrap();
        (key, stands.create_revision)
    }

    /// Order `n` for the guest under `epoch`, standing in etcd.
    async fn order(&self, n: u32, epoch: i64) -> Order {
        let order = order_with(n, |o| o.epoch = epoch);
        let key = self.keys.order(&order.guest);
        self.etcd.put(&key, &order.message).await;
        order
    }

    async fn admit(&self, order: &Order, leader_key: &str) -> Result<i64, Refusal> {
        let journal = opened(order, 1);
        let outcome = self.records.admit(order, leader_key, &journal).await;
        outcome.map_err(|(reason, _)| reason)
    }

    async fn journal(&self) -> Option<v1::Journal> {
        let key = self.keys.journal(&"h1".parse().unwrap(), &guest());
        self.etcd.store.get_message(&key).await.unwrap()
    }
}

#[tokio::test]
async fn an_order_is_admitted_once_and_only_under_its_leader() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (first, epoch) = cluster.candidate("a").await;
    let order = cluster.order(1, epoch).await;

    // A candidate that waits has a create revision too, and brings an order under it.
    let (waiting, later) = cluster.candidate("b").await;
    let usurped = order_with(1, |o| o.epoch = later);
    let admit = async |order: &Order, key: &str| cluster.admit(order, key).await;
    assert_eq!(admit(&usurped, &waiting).await, Err(Refusal::StaleEpoch));
    // Any other key, with whatever revision.
    let other_key = cluster.keys.order(&order.guest);
    assert_eq!(admit(&order, &other_key).await, Err(Refusal::StaleEpoch));
    // An order that does not stand, or stands differently.
    let unknown = order_with(2, |o| o.epoch = epoch);
    assert_eq!(admit(&unknown, &first).await, Err(Refusal::NoSuchOrder));
    assert_eq!(cluster.journal().await, None, "no refusal writes anything");

    assert!(admit(&order, &first).await.is_ok());
    assert_eq!(admit(&order, &first).await, Err(Refusal::Duplicate));

    // The leader is deposed: its key goes, and the waiting candidate leads.
    cluster.etcd.store.delete(&first).await.unwrap();
    let late = cluster.order(3, epoch).await;
    assert_eq!(admit(&late, &first).await, Err(Refusal::StaleEpoch));
    let confirm = async |key: &str, epoch| cluster.records.confirm(key, Epoch(epoch)).await;
    assert_eq!(
        confirm(&first, epoch).await.unwrap_err().0,
        Refusal::StaleEpoch
    );
    assert_eq!(confirm(&waiting, later).await, Ok(()));
}

#[tokio::test]
async fn a_leader_that_comes_back_under_its_old_name_is_another() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (key, epoch) = cluster.candidate("a").await;
    let order = cluster.order(1, epoch).await;
    cluster.etcd.store.delete(&key).await.unwrap();
    assert_eq!(cluster.admit(&order, &key).await, Err(Refusal::StaleEpoch));
    let (key, _) = cluster.candidate("a").await;
    assert_eq!(cluster.admit(&order, &key).await, Err(Refusal::StaleEpoch));
}

#[tokio::test]
async fn a_closed_journal_is_replaced_and_an_open_one_never() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (leader, epoch) = cluster.candidate("a").await;
    let first = cluster.order(1, epoch).await;
    let revision = cluster.admit(&first, &leader).await.unwrap();
    let second = cluster.order(2, epoch).await;
    assert_eq!(cluster.admit(&second, &leader).await, Err(Refusal::Busy));

    let mut closed = opened(&first, 1);
    closed.state = Some(MigrationState::Ended(Outcome::Cancelled).into());
    let guest = guest();
    let written = cluster.records.write(&guest, &closed, revision).await;
    let written = written.unwrap();
    assert!(cluster.admit(&second, &leader).await.is_ok());

    // What the first migration still had on its way cannot undo that.
    let stale = cluster.records.write(&guest, &closed, written).await;
    assert!(
        matches!(stale, Err(JournalError::Replaced { .. })),
        "{stale:?}"
    );
    cluster.records.remove(&guest, written).await.unwrap();
    let stands = cluster.journal().await.unwrap();
    assert_eq!(stands.order.unwrap().id, second.id.to_string());
}

#[tokio::test]
async fn a_closed_journal_is_never_opened_again() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (leader, epoch) = cluster.candidate("a").await;
    let order = cluster.order(1, epoch).await;
    let revision = cluster.admit(&order, &leader).await.unwrap();
    let open = opened(&order, 2);
    let mut closed = open.clone();
    closed.state = Some(MigrationState::Ended(Outcome::Done).into());
    let guest = guest();
    let written = cluster.records.write(&guest, &closed, revision).await;
    let stale = cluster.records.write(&guest, &open, revision).await;
    assert!(
        matches!(stale, Err(JournalError::Closed { .. })),
        "{stale:?}"
    );
    let stands = cluster.records.journal(&guest).await.unwrap().unwrap();
    assert_eq!(stands.revision, written.unwrap());
    assert_eq!(stands.value, closed);
}

#[tokio::test]
async fn a_write_that_was_given_up_and_landed_is_recognised() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (leader, epoch) = cluster.candidate("a").await;
    let order = cluster.order(1, epoch).await;
    let revision = cluster.admit(&order, &leader).await.unwrap();
    let mut running = opened(&order, 1);
    running.updated_at_ms = 2;
    let guest = guest();
    let first = cluster.records.write(&guest, &running, revision).await;
    // The answer was lost: the writer still believes in the old revision.
    let again = cluster.records.write(&guest, &running, revision).await;
    assert_eq!(first.unwrap(), again.unwrap());
    running.updated_at_ms = 3;
    let newer = cluster.records.write(&guest, &running, revision).await;
    assert!(newer.is_ok());
    assert_eq!(cluster.journal().await.unwrap().updated_at_ms, 3);
}

#[tokio::test]
async fn a_listing_may_be_larger_than_the_clients_usual_response() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let large = v1::Order {
        why: "x".repeat(1 << 20),
        ..v1::Order::default()
    };
    for n in 0..6 {
        etcd.put(&format!("/large/{n}"), &large).await;
    }
    let listing = etcd.store.list("/large/").await.unwrap();
    assert_eq!(listing.entries.len(), 6);
}

#[tokio::test]
async fn a_member_that_freezes_for_a_moment_is_asked_again() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (leader, epoch) = cluster.candidate("a").await;
    let signal = |name: &str| {
        let pid = cluster.etcd.process.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    let thawing = async {
        tokio::time::sleep(Duration::from_millis(1800)).await;
        signal("-CONT");
    };
    let confirming = cluster.records.confirm(&leader, Epoch(epoch));
    let (confirmed, ()) = tokio::join!(confirming, thawing);
    assert_eq!(confirmed, Ok(()));
}

#[tokio::test]
async fn without_etcd_nothing_is_admitted() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let (leader, epoch) = cluster.candidate("a").await;
    let order = cluster.order(1, epoch).await;
    cluster.etcd.process.kill().unwrap();
    cluster.etcd.process.wait().unwrap();
    assert_eq!(cluster.admit(&order, &leader).await, Err(Refusal::NoEtcd));
}
