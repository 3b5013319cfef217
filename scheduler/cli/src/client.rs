//! Talking to the schedulers: any replica answers, the next one is tried when one does not.
//!
//! Reads go on to the next replica until one answers. A change is sent once: a lost answer does not say
//! whether it was carried out, and sending it again could do it twice.

mod fault;
mod probe;

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use evenkeel_proto::identity::TlsPem;
use evenkeel_proto::v1::scheduler_service_client::SchedulerServiceClient;
use evenkeel_proto::{Code, v1};
use jiff::Timestamp;
use rand::seq::SliceRandom;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::config::{Config, ConfigError, Replica};

use fault::{Attempt, Silence};
pub use fault::{ClientError, NoAnswer};

/// A scheduler, ready to be called.
pub type Scheduler = SchedulerServiceClient<Channel>;

/// A snapshot or plan of 20,000 guests has about 10 MB; far above that something is wrong.
const MAX_MESSAGE_BYTES: usize = 256 * 1024 * 1024;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one replica's answer.
    pub call: Duration,
    /// For any answer.
    pub total: Duration,
}

/// For what a scheduler knows by heart: an operator looks at a dead terminal meanwhile.
pub const QUICK: Patience = Patience {
    call: Duration::from_secs(5),
    total: Duration::from_secs(10),
};
/// For what must be computed first: a plan of a thousand hosts takes seconds.
pub const THOROUGH: Patience = Patience {
    call: Duration::from_secs(30),
    total: Duration::from_secs(60),
};

/// The replicas in the order in which they are tried.
#[derive(Debug)]
pub struct Client {
    replicas: Vec<(Replica, Scheduler)>,
    pem: TlsPem,
    /// Who answered last: asked first the next time.
    current: Cell<usize>,
}

impl Client {
    /// Prepares to talk; nothing is connected yet. `file` is where the configuration came from.
    ///
    /// # Errors
    /// When the TLS files cannot be read or used.
    pub fn new(config: &Config, file: &str) -> Result<Self, ConfigError> {
        let pem = config.tls.read()?;
        let mut replicas = vec![];
        for replica in &config.schedulers {
            let channel = pem
                .channel(&replica.address.to_string(), &replica.server_name)
                .map_err(|source| ConfigError::Unusable {
                    path: file.to_owned(),
                    source,
                })?;
            let scheduler = Scheduler::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
            replicas.push((replica.clone(), scheduler));
        }
        replicas.shuffle(&mut rand::rng());
        Ok(Self {
            replicas,
            pem,
            current: Cell::new(0),
        })
    }

    /// Asks the replicas in turn until one answers.
    ///
    /// # Errors
    /// When none answers in time, or the first answer is a refusal.
    pub async fn read<T, F>(
        &self,
        patience: Patience,
        call: impl Fn(Scheduler) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + patience.total;
        let mut silent = vec![];
        for turn in 0..self.replicas.len() {
            let at = (self.current.get() + turn) % self.replicas.len();
            let Some((replica, scheduler)) = self.replicas.get(at) else {
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                silent.push(NoAnswer::out_of_time(&replica.address));
                continue;
            }
            match attempt(call(scheduler.clone()), patience.call.min(left)).await {
                Attempt::Answer(answer) => {
                    self.current.set(at);
                    return Ok(answer);
                }
                Attempt::Refusal(status) => return Err(ClientError::Refused(status)),
                Attempt::Silence(why) => silent.push(self.examined(replica, why).await),
            }
        }
        Err(ClientError::Unreachable(silent))
    }

    /// Asks every replica, each within `limit`, one after the other.
    ///
    /// # Errors
    /// When one refuses: another would say the same.
    pub async fn each<T, F>(
        &self,
        limit: Duration,
        call: impl Fn(Scheduler) -> F,
    ) -> Result<Vec<Result<T, NoAnswer>>, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut answers = vec![];
        for (replica, scheduler) in &self.replicas {
            answers.push(match attempt(call(scheduler.clone()), limit).await {
                Attempt::Answer(answer) => Ok(answer),
                Attempt::Refusal(status) => return Err(ClientError::Refused(status)),
                Attempt::Silence(why) => Err(self.examined(replica, why).await),
            });
        }
        Ok(answers)
    }

    /// When our own certificate ends; `None`: it cannot be read.
    #[must_use]
    pub fn certificate_ends(&self) -> Option<Timestamp> {
        let seconds = self.pem.ends_at_unix_seconds()?;
        Timestamp::from_second(seconds).ok()
    }

    /// Finds a replica that knows a leader and reaches etcd, and sends the change through it, once.
    ///
    /// # Errors
    /// When none answers, none knows a leader, the leader refuses, or its answer is lost.
    pub async fn write<T, F>(&self, call: impl Fn(Scheduler) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.read(QUICK, async |mut scheduler: Scheduler| {
            let answer = scheduler.get_status(v1::GetStatusRequest {}).await?;
            let status = answer.get_ref();
            if status.leader.is_empty() {
                let message = format!("{} knows of no leader", status.replica);
                return Err(Status::unavailable(message));
            }
            if !status.etcd_reachable {
                let message = format!("{} does not reach etcd", status.replica);
                return Err(Status::unavailable(message));
            }
            Ok(answer)
        })
        .await?;
        let Some((replica, scheduler)) = self.replicas.get(self.current.get()) else {
            return Err(ClientError::Unreachable(vec![]));
        };
        let address = replica.address.clone();
        match attempt(call(scheduler.clone()), QUICK.call).await {
            Attempt::Answer(answer) => Ok(answer),
            // A deadline that passes between two schedulers arrives as a cancellation.
            Attempt::Refusal(status)
                if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) =>
            {
                let why = Silence::Unsettled(status.message().to_owned());
                Err(ClientError::Lost(NoAnswer { address, why }))
            }
            Attempt::Refusal(status) => Err(ClientError::Refused(status)),
            // It said itself that it could not, or never heard of it.
            Attempt::Silence(why @ (Silence::Unable(_) | Silence::Unconnected(_))) => {
                Err(ClientError::Unable(NoAnswer { address, why }))
            }
            Attempt::Silence(why) => Err(ClientError::Lost(NoAnswer { address, why })),
        }
    }

    /// Looks closer at a connection that was closed without a word.
    async fn examined(&self, replica: &Replica, why: Silence) -> NoAnswer {
        let address = replica.address.clone();
        if !matches!(why, Silence::Closed(_)) {
            return NoAnswer { address, why };
        }
        let (pem, replica) = (self.pem.clone(), replica.clone());
        let probed = tokio::task::spawn_blocking(move || probe::refusal(&pem, &replica)).await;
        match probed {
            Ok(Some(alert)) => NoAnswer {
                address,
                why: Silence::Unwelcome(alert),
            },
            Ok(None) | Err(_) => NoAnswer { address, why },
        }
    }

    /// Asks another replica first the next time.
    pub fn turn_away(&self) {
        let count = self.replicas.len().max(1);
        self.current.set((self.current.get() + 1) % count);
    }
}

async fn attempt<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    limit: Duration,
) -> Attempt<T> {
    match timeout(limit, call).await {
        Ok(Ok(answer)) => Attempt::Answer(answer.into_inner()),
        Ok(Err(status)) => Attempt::of(status),
        Err(_) => Attempt::Silence(Silence::Late(limit)),
    }
}
