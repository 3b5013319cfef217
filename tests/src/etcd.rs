//! What etcd holds, and held: the history of every key is the evidence of what was ordered and written.

use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchOptions};
use evenkeel_daemon::metrics::Registry;
use evenkeel_daemon::{Entry, Store};
use evenkeel_proto::keys::{Key, Keys};
use evenkeel_proto::v1;
use evenkeel_types::{GuestId, HostName};
use prost::Message;

use crate::Lab;
use crate::network::Caller;

/// Reading a lab's whole history takes less.
const HISTORY_DEADLINE: Duration = Duration::from_secs(20);

/// etcd has elected a leader again within this time, also on a busy machine.
const ELECTED: Duration = Duration::from_secs(20);
/// Between two questions to an etcd that has none.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at a key whose change must not be missed.
const GLANCE: Duration = Duration::from_millis(3);

/// One write of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The key.
    pub key: String,
    /// The value; `None`: the key was deleted.
    pub value: Option<Vec<u8>>,
    /// The revision it was written at.
    pub revision: i64,
    /// Whether the key was new.
    pub created: bool,
}

/// The keys of the lab's cluster.
#[must_use]
pub fn keys() -> Keys {
    Keys::new(&"lab".parse().expect("a cluster's name"))
}

impl Lab {
    /// A connection to etcd; only inside the lab's network.
    pub async fn store(&self, caller: Caller) -> Store {
        let ports = (0..self.etcd_members).map(|member| 2379 + 10 * member);
        let endpoints: Vec<String> = ports.map(|p| format!("https://10.90.0.1:{p}")).collect();
        Store::connect(&endpoints, &self.identity(caller), &Registry::new())
            .await
            .expect("a client of the lab's etcd")
    }

    /// Everything below `prefix` now; asked again while etcd has no leader.
    #[must_use]
    pub fn list(&self, prefix: &str) -> Vec<Entry> {
        let until = Instant::now() + ELECTED;
        self.inside(|| async {
            let store = self.store(Caller::Operator).await;
            loop {
                match store.list(prefix).await {
                    Ok(listing) => return listing.entries,
                    Err(error) if Instant::now() > until => panic!("etcd answers: {error}"),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        })
    }

    /// etcd's newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.inside(|| async {
            let listing = self.store(Caller::Operator).await.list("/nothing").await;
            listing.expect("etcd answers").revision
        })
    }

    /// Every write since revision `from`, in order.
    #[must_use]
    pub fn history(&self, from: i64) -> Vec<Written> {
        self.inside(|| async {
            let read = tokio::time::timeout(HISTORY_DEADLINE, self.read_history(from)).await;
            read.expect("etcd tells its history in time")
        })
    }

    async fn read_history(&self, from: i64) -> Vec<Written> {
        let store = self.store(Caller::Operator).await;
        let newest = store.list("/nothing").await.expect("etcd answers").revision;
        let mut past = vec![];
        if newest < from {
            return past;
        }
        let options = WatchOptions::new()
            .with_all_keys()
            .with_start_revision(from);
        let mut stream = store
            .client()
            .watch(vec![], Some(options))
            .await
            .expect("a watch");
        while let Some(response) = stream.message().await.expect("the watch goes on") {
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                past.push(Written {
                    key: String::from_utf8_lossy(kv.key()).into_owned(),
                    value: (event.event_type() == EventType::Put).then(|| kv.value().to_vec()),
                    revision: kv.mod_revision(),
                    created: kv.create_revision() == kv.mod_revision(),
                });
            }
            // Every revision is somebody's write, so the newest one comes, too.
            if past.last().is_some_and(|last| last.revision >= newest) {
                break;
            }
        }
        past.retain(|write| write.revision <= newest);
        past
    }

    /// Every order that was ever put up, in order.
    #[must_use]
    pub fn orders_ever(&self) -> Vec<v1::Order> {
        let puts = self.history(1).into_iter().filter(|write| write.created);
        puts.filter(|write| matches!(keys().parse(&write.key), Some(Key::Order(_))))
            .filter_map(|write| write.value)
            .map(|value| v1::Order::decode(value.as_slice()).expect("an order"))
            .collect()
    }

    /// The states that a guest's journal at `source` went through, in order.
    #[must_use]
    pub fn journal_ever(&self, source: &str, guest: &str) -> Vec<v1::Journal> {
        let key = keys().journal(&host(source), &guest_id(guest));
        let puts = self.history(1).into_iter().filter(|w| w.key == key);
        puts.filter_map(|write| write.value)
            .map(|value| v1::Journal::decode(value.as_slice()).expect("a journal"))
            .collect()
    }

    /// Orders that stand now.
    #[must_use]
    pub fn orders(&self) -> Vec<v1::Order> {
        let entries = self.list(&keys().orders());
        entries
            .iter()
            .map(|entry| entry.decode().expect("an order"))
            .collect()
    }

    /// The journal of the guest's migration away from `source`.
    #[must_use]
    pub fn journal(&self, source: &str, guest: &str) -> Option<v1::Journal> {
        let key = keys().journal(&host(source), &guest_id(guest));
        let entries = self.list(&key);
        entries
            .first()
            .map(|entry| entry.decode().expect("a journal"))
    }

    /// Until the guest's journal at `source` is as wanted, looked at as often as etcd answers; whether it came to be.
    #[must_use]
    pub fn await_journal(
        &self,
        (source, guest): (&str, &str),
        limit: Duration,
        wanted: impl Fn(&v1::Journal) -> bool + Send + Sync,
    ) -> bool {
        let key = keys().journal(&host(source), &guest_id(guest));
        self.inside(|| async {
            let store = self.store(Caller::Operator).await;
            let look = async {
                loop {
                    let found = store.get_message::<v1::Journal>(&key).await;
                    if found.is_ok_and(|journal| journal.is_some_and(|j| wanted(&j))) {
                        return;
                    }
                    tokio::time::sleep(GLANCE).await;
                }
            };
            tokio::time::timeout(limit, look).await.is_ok()
        })
    }

    /// The newest report of a host.
    #[must_use]
    pub fn report(&self, name: &str) -> Option<v1::Report> {
        let entries = self.list(&keys().report(&host(name)));
        entries
            .first()
            .map(|entry| entry.decode().expect("a report"))
    }

    /// The key that leads the election, and its create revision; `None`: nobody leads.
    #[must_use]
    pub fn leader_key(&self) -> Option<(String, i64, v1::LeaderInfo)> {
        let candidates = self.list(&format!("{}/", keys().election()));
        let first = candidates.into_iter().min_by_key(|c| c.create_revision)?;
        let info = first.decode().expect("a leader's value");
        Some((first.key, first.create_revision, info))
    }
}

/// A host's name.
#[must_use]
pub fn host(name: &str) -> HostName {
    name.parse().expect("a host's name")
}

/// A guest's UUID.
#[must_use]
pub fn guest_id(text: &str) -> GuestId {
    text.parse().expect("a guest's UUID")
}
