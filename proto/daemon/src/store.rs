//! etcd with a deadline on every operation.
//!
//! The client balances over its endpoints without retrying, and a frozen member hangs a request: so each
//! operation here has a deadline, and those that may be repeated are, on whatever endpoint comes next.
//! Transactions that write are never repeated: whoever guards a write must look again before deciding.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, KeyValue, PutOptions,
    SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnResponse,
};
use evenkeel_proto::Code;
use evenkeel_proto::identity::TlsPem;
use prometheus::{HistogramOpts, HistogramVec};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Registry;
use crate::retry::Backoff;

/// No single request to etcd may take longer.
const OPERATION_DEADLINE: Duration = Duration::from_millis(1500);
/// Attempts of an operation that may be repeated.
const ATTEMPTS: usize = 3;
/// Keys per page of a listing.
const PAGE: i64 = 200;
/// Largest page that is taken, in bytes. The client's own 4 MiB are passed by 200 reports of 70 guests; etcd's
/// limit of a value is 1.5 MiB, so only values that are none of ours could pass this.
const PAGE_BYTES: usize = 320 << 20;
/// Opening a connection takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What went wrong with etcd.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer in time; the operation may or may not have happened.
    #[error("etcd did not answer {operation} in {OPERATION_DEADLINE:?}")]
    Timeout {
        /// `get`, `put` …
        operation: &'static str,
    },
    /// etcd or the connection to it answered with an error.
    #[error("etcd failed {operation}")]
    Etcd {
        /// `get`, `put` …
        operation: &'static str,
        /// Its words.
        #[source]
        source: etcd_client::Error,
    },
    /// A value is not the message it should be.
    #[error("value of {key} is malformed")]
    Malformed {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: prost::DecodeError,
    },
}

impl StoreError {
    /// Whether etcd answered that the lease is gone.
    #[must_use]
    pub fn is_lease_gone(&self) -> bool {
        let Self::Etcd { source, .. } = self else {
            return false;
        };
        if let etcd_client::Error::GRpcStatus(status) = source {
            return status.code() == Code::NotFound;
        }
        matches!(source, etcd_client::Error::LeaseKeepAliveError(_))
    }
}

impl StoreError {
    /// Whether etcd gave no answer of its own, as opposed to refusing.
    fn is_silence(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Malformed { .. } => false,
            Self::Etcd { source, .. } => {
                let etcd_client::Error::GRpcStatus(status) = source else {
                    return true;
                };
                let silent = [
                    Code::Unavailable,
                    Code::DeadlineExceeded,
                    Code::Cancelled,
                    Code::Unknown,
                ];
                silent.contains(&status.code())
            }
        }
    }
}

/// A key with its value and revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The encoded message.
    pub value: Vec<u8>,
    /// Revision at which the key was created.
    pub create_revision: i64,
    /// Revision of this value.
    pub mod_revision: i64,
}

impl Entry {
    /// Takes what etcd sent; a key that is not UTF-8 is shown lossily, and is none of ours.
    #[must_use]
    pub fn of(kv: &KeyValue) -> Self {
        Self {
            key: String::from_utf8_lossy(kv.key()).into_owned(),
            value: kv.value().to_vec(),
            create_revision: kv.create_revision(),
            mod_revision: kv.mod_revision(),
        }
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// When it is not such a message.
    pub fn decode<M: Message + Default>(&self) -> Result<M, StoreError> {
        M::decode(self.value.as_slice()).map_err(|source| StoreError::Malformed {
            key: self.key.clone(),
            source,
        })
    }
}

/// Everything below a prefix at one revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The entries in key order.
    pub entries: Vec<Entry>,
    /// The revision at which this was true; a watch goes on from the next one.
    pub revision: i64,
}

/// A connection to etcd. Cheap to clone; all clones share connections and health.
#[derive(Clone)]
pub struct Store {
    client: Client,
    health: watch::Sender<bool>,
    durations: HistogramVec,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("healthy", &*self.health.borrow())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Prepares connections to `endpoints` as the identity in `tls`; nothing is sent yet.
    ///
    /// # Errors
    /// When an endpoint's URL or the certificates are unusable.
    pub async fn connect(
        endpoints: &[String],
        tls: &TlsPem,
        registry: &Registry,
    ) -> Result<Self, StoreError> {
        let tls = TlsOptions::new()
            .identity(etcd_client::Identity::from_pem(&tls.certificate, &tls.key))
            .ca_certificate(etcd_client::Certificate::from_pem(&tls.ca));
        let options = ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(Duration::from_secs(3), Duration::from_secs(3))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = Client::connect(endpoints, Some(options))
            .await
            .map_err(|source| StoreError::Etcd {
                operation: "connect",
                source,
            })?;
        let durations = request_durations(registry).map_err(|error| StoreError::Etcd {
            operation: "connect",
            source: etcd_client::Error::Internal(error.to_string()),
        })?;
        Ok(Self {
            client,
            health: watch::channel(true).0,
            durations,
        })
    }

    /// The raw client, for streams that this wrapper has no business with. Put a deadline on it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether etcd answered last time; changes are logged here, once each.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<bool> {
        self.health.subscribe()
    }

    /// Reads one key.
    ///
    /// # Errors
    /// When etcd does not answer in [`ATTEMPTS`] attempts.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let response = self
            .repeat("get", |mut client| {
                let key = key.to_owned();
                async move { client.get(key, None).await }
            })
            .await?;
        Ok(response.kvs().first().map(Entry::of))
    }

    /// Reads and decodes one key.
    ///
    /// # Errors
    /// As [`Store::get`], or when the value is malformed.
    pub async fn get_message<M: Message + Default>(
        &self,
        key: &str,
    ) -> Result<Option<M>, StoreError> {
        self.get(key).await?.map(|entry| entry.decode()).transpose()
    }

    /// Reads everything below `prefix` at one revision, in pages.
    ///
    /// # Errors
    /// When etcd does not answer a page in [`ATTEMPTS`] attempts.
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let end = end_of_prefix(prefix);
        let mut listing = Listing {
            entries: vec![],
            revision: 0,
        };
        let mut from = prefix.as_bytes().to_vec();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(listing.revision)
                .with_sort(SortTarget::Key, SortOrder::Ascend);
            let page = self
                .repeat("list", |client| {
                    let mut client = client.kv_client().max_decoding_message_size(PAGE_BYTES);
                    let (from, options) = (from.clone(), options.clone());
                    async move { client.get(from, Some(options)).await }
                })
                .await?;
            if listing.revision == 0 {
                listing.revision = page
                    .header()
                    .map_or(0, etcd_client::ResponseHeader::revision);
            }
            listing.entries.extend(page.kvs().iter().map(Entry::of));
            match page.kvs().last() {
                Some(last) if page.more() => from = [last.key(), &[0]].concat(),
                _ => return Ok(listing),
            }
        }
    }

    /// Reads what `operations` ask for at one revision. They must all be readings, for they may be repeated.
    ///
    /// # Errors
    /// When etcd does not answer in [`ATTEMPTS`] attempts.
    pub async fn read(&self, operations: Vec<TxnOp>) -> Result<TxnResponse, StoreError> {
        let txn = Txn::new().and_then(operations);
        self.repeat("read", |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        })
        .await
    }

    /// Writes one key, on a lease if one is given.
    ///
    /// # Errors
    /// When etcd does not answer in [`ATTEMPTS`] attempts, or the lease is gone.
    pub async fn put(
        &self,
        key: &str,
        value: &impl Message,
        lease: Option<i64>,
    ) -> Result<(), StoreError> {
        let value = value.encode_to_vec();
        let options = lease.map(|id| PutOptions::new().with_lease(id));
        self.repeat("put", |mut client| {
            let (key, value, options) = (key.to_owned(), value.clone(), options.clone());
            async move { client.put(key, value, options).await }
        })
        .await
        .map(drop)
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// When etcd does not answer in [`ATTEMPTS`] attempts.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.repeat("delete", |mut client| {
            let key = key.to_owned();
            async move { client.delete(key, None).await }
        })
        .await
        .map(drop)
    }

    /// Runs a transaction once. After [`StoreError::Timeout`] it may have happened.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        let mut client = self.client.clone();
        self.once("txn", async move { client.txn(txn).await }).await
    }

    /// Runs `operation` once under the deadline, counting and judging health.
    ///
    /// # Errors
    /// When etcd does not answer or answers with an error.
    pub async fn once<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = match tokio::time::timeout(OPERATION_DEADLINE, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(StoreError::Etcd { operation, source }),
            Err(_) => Err(StoreError::Timeout { operation }),
        };
        let result = if outcome.is_ok() { "ok" } else { "error" };
        let seconds = started.elapsed().as_secs_f64();
        self.durations
            .with_label_values(&[operation, result])
            .observe(seconds);
        self.judge_health(outcome.as_ref().err());
        outcome
    }

    /// Repeats an operation that changes nothing when done twice.
    async fn repeat<T, F>(
        &self,
        operation: &'static str,
        request: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(400));
        let mut attempt = 1;
        loop {
            match self.once(operation, request(self.client.clone())).await {
                Err(error) if attempt < ATTEMPTS && !error.is_lease_gone() => {
                    attempt += 1;
                    tracing::debug!(%error, operation, attempt, "asking etcd again");
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                other => return other,
            }
        }
    }

    /// An answer, even a refusal, means that etcd is there.
    fn judge_health(&self, error: Option<&StoreError>) {
        let healthy = error.is_none_or(|error| !error.is_silence());
        self.health.send_if_modified(|was| {
            let changed = *was != healthy;
            *was = healthy;
            if changed && healthy {
                tracing::info!("etcd answers again");
            } else if let (true, Some(error)) = (changed, error) {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(%error, cause, "etcd does not answer");
            }
            changed
        });
    }
}

/// The metric of etcd's answers, registered.
///
/// # Errors
/// When it is registered already.
pub fn request_durations(registry: &Registry) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(
        "evenkeel_etcd_request_duration_seconds",
        "Time etcd took to answer, by operation and result.",
    )
    .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]);
    let durations = HistogramVec::new(options, &["op", "result"])?;
    registry.register(Box::new(durations.clone()))?;
    Ok(durations)
}

/// The first key after all keys that start with `prefix`.
fn end_of_prefix(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Guards and operations of transactions, in our words.
pub mod guard {
    use super::{Compare, CompareOp, DeleteOptions, Message, TxnOp};

    /// `key` does not exist.
    #[must_use]
    pub fn absent(key: &str) -> Compare {
        Compare::create_revision(key, CompareOp::Equal, 0)
    }

    /// `key` exists and was created at `revision`: a leader's key that is still the same leadership.
    #[must_use]
    pub fn created_at(key: &str, revision: i64) -> Compare {
        Compare::create_revision(key, CompareOp::Equal, revision)
    }

    /// `key` has not been written since `revision`.
    #[must_use]
    pub fn unchanged(key: &str, revision: i64) -> Compare {
        Compare::mod_revision(key, CompareOp::Equal, revision)
    }

    /// Writes a message.
    #[must_use]
    pub fn put(key: &str, value: &impl Message) -> TxnOp {
        TxnOp::put(key, value.encode_to_vec(), None)
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(key: &str) -> TxnOp {
        TxnOp::delete(key, None::<DeleteOptions>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_right_after_its_last_key() {
        assert_eq!(end_of_prefix("a/"), b"a0");
        assert_eq!(end_of_prefix("\u{7f}"), vec![0x80]);
        assert_eq!(end_of_prefix(""), vec![0]);
    }
}
