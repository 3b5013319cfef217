//! A cluster of two fake hosts, records in memory and peers without a network, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evenkeel_daemon::{StoreError, unix_ms};
use evenkeel_proto::convert;
use evenkeel_proto::order::Order;
use evenkeel_proto::v1;
use evenkeel_types::{
    Epoch, GuestId, HostName, MigrationState, OrderId, Presence, Refusal, Whereabouts,
};
use tokio::sync::mpsc;

use super::{Driver, Figures, Running, Timings, Updates, state_of_update};
use crate::calls::Calls;
use crate::digest::Sum;
use crate::epoch::EpochFloor;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::disks::Piece;
use crate::hypervisor::fake::{Ending, FakeHypervisor, FakeWorld, Script};
use crate::incoming::{Arrival, Incomings, Luggage};
use crate::journal::{
    JournalError, Leader, Records, Refused, Seen, Stored, confirm_leader, decide, standing,
};
use crate::ledger::Ledger;
use crate::peer::{Found, Peers, Prepared};

/// The key that leads in tests, and its epoch.
pub(crate) const LEADER: &str = "/evenkeel/v1/test/scheduler/leader/1";
/// Its epoch.
pub(crate) const EPOCH: Epoch = Epoch(7);
/// The only guest.
pub(crate) const GUEST: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

/// Records in memory, with a switch for "etcd is away".
#[derive(Debug, Default)]
pub(crate) struct MemoryRecords {
    inner: Mutex<Inner>,
    pub(crate) away: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    leader: Option<Leader>,
    orders: BTreeMap<GuestId, Stored<v1::Order>>,
    journals: BTreeMap<GuestId, Stored<v1::Journal>>,
    revision: i64,
    /// Every phase that was ever written.
    phases: Vec<&'static str>,
}

impl Inner {
    fn put(&mut self, guest: &GuestId, journal: &v1::Journal) -> i64 {
        self.revision += 1;
        let phase = crate::journal::state_of(journal).map_or("?", |s| s.as_str());
        if self.phases.last() != Some(&phase) {
            self.phases.push(phase);
        }
        let stored = Stored {
            value: journal.clone(),
            revision: self.revision,
        };
        self.journals.insert(guest.clone(), stored);
        self.revision
    }
}

impl MemoryRecords {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Timeout { operation: "test" });
        }
        Ok(self.lock())
    }

    pub(crate) fn put_order(&self, order: &Order) {
        let mut inner = self.lock();
        inner.revision += 1;
        let stored = Stored {
            value: order.message.clone(),
            revision: inner.revision,
        };
        inner.orders.insert(order.guest.clone(), stored);
    }

    pub(crate) fn drop_order(&self, guest: &GuestId) {
        self.lock().orders.remove(guest);
    }

    pub(crate) fn put_journal(
        &self,
        guest: &GuestId,
        journal: &v1::Journal,
    ) -> Stored<v1::Journal> {
        let mut inner = self.lock();
        inner.put(guest, journal);
        inner.journals[guest].clone()
    }

    pub(crate) fn journal(&self, guest: &GuestId) -> Option<v1::Journal> {
        self.lock().journals.get(guest).map(|s| s.value.clone())
    }

    pub(crate) fn phases(&self) -> Vec<&'static str> {
        self.lock().phases.clone()
    }
}

impl Records for MemoryRecords {
    async fn admit(
        &self,
        order: &Order,
        leader_key: &str,
        journal: &v1::Journal,
    ) -> Result<i64, Refused> {
        let mut inner = self.reach().map_err(|e| (Refusal::NoEtcd, e.to_string()))?;
        let seen = Seen {
            leader: inner.leader.clone(),
            order: inner.orders.get(&order.guest).cloned(),
            journal: inner.journals.get(&order.guest).map(|s| Stored {
                value: standing(&s.value, &order.id),
                revision: s.revision,
            }),
        };
        decide(&seen, order, leader_key)?;
        Ok(inner.put(&order.guest, journal))
    }

    async fn confirm(&self, leader_key: &str, epoch: Epoch) -> Result<(), Refused> {
        let inner = self.reach().map_err(|e| (Refusal::NoEtcd, e.to_string()))?;
        confirm_leader(inner.leader.as_ref(), leader_key, epoch)
    }

    async fn write(
        &self,
        guest: &GuestId,
        journal: &v1::Journal,
        revision: i64,
    ) -> Result<i64, JournalError> {
        let mut inner = self.reach()?;
        assert_eq!(inner.journals[guest].revision, revision, "a write was lost");
        Ok(inner.put(guest, journal))
    }

    async fn order(&self, guest: &GuestId) -> Result<Option<v1::Order>, StoreError> {
        Ok(self.reach()?.orders.get(guest).map(|s| s.value.clone()))
    }

    async fn journal(&self, guest: &GuestId) -> Result<Option<Stored<v1::Journal>>, StoreError> {
        Ok(self.reach()?.journals.get(guest).cloned())
    }

    async fn journals(&self) -> Result<Vec<Stored<v1::Journal>>, StoreError> {
        Ok(self.reach()?.journals.values().cloned().collect())
    }

    async fn remove(&self, guest: &GuestId, revision: i64) -> Result<(), StoreError> {
        let mut inner = self.reach()?;
        if inner
            .journals
            .get(guest)
            .is_some_and(|s| s.revision == revision)
        {
            inner.journals.remove(guest);
        }
        Ok(())
    }
}

/// The other agents, asked directly.
#[derive(Debug)]
pub(crate) struct DirectPeers {
    world: FakeWorld,
    records: Arc<MemoryRecords>,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    /// Nobody answers.
    pub(crate) away: AtomicBool,
    /// etcd goes away as soon as the target has prepared.
    pub(crate) etcd_goes_after_prepare: AtomicBool,
    pub(crate) released: AtomicU32,
    /// What the target remembers.
    pub(crate) incomings: Arc<Incomings<FakeHypervisor>>,
}

impl Peers for DirectPeers {
    async fn prepare(
        &self,
        order: &Order,
        definition: String,
        luggage: &Luggage,
    ) -> Result<Prepared, Refused> {
        assert!(definition.contains(order.guest.as_str()));
        if self.away.load(Ordering::SeqCst) {
            return Err((Refusal::TargetUnreachable, "away".into()));
        }
        if let Some(reason) = *self.refusal.lock().unwrap() {
            return Err((reason, "scripted".into()));
        }
        if self.etcd_goes_after_prepare.load(Ordering::SeqCst) {
            self.records.away.store(true, Ordering::SeqCst);
        }
        self.incomings.make(&order.source, order, luggage).await?;
        Ok(Prepared {
            peer_uri: FakeWorld::peer_uri(order.target.as_str()),
            migration_uri: None,
        })
    }

    async fn release(&self, order: &Order, place: Option<Whereabouts>) -> bool {
        self.released.fetch_add(1, Ordering::SeqCst);
        if let Some(place) = place.filter(|_| !self.away.load(Ordering::SeqCst)) {
            drop(self.incomings.close(&order.id, place).await);
        }
        true
    }

    async fn copy_disk(
        &self,
        order: &Order,
        path: &str,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<Sum, String> {
        let (arrivals, arriving) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                drop(arrivals.send(Arrival::Piece(piece)).await);
            }
            drop(arrivals.send(Arrival::End).await);
        });
        let incomings = &self.incomings;
        incomings
            .receive(&order.source, &order.id, path, arriving)
            .await
    }

    async fn inspect(&self, host: &HostName, guest: &GuestId) -> Result<Found, String> {
        if self.away.load(Ordering::SeqCst) {
            return Err("away".into());
        }
        let host = self.world.host(host.as_str());
        let answer = host.presence(guest);
        let (presence, _) = answer.map_err(|e| e.to_string())?;
        let presence = convert::presence(presence.as_str()).map_err(|e| e.to_string())?;
        Ok(Found {
            presence,
            persistent: host.is_persistent(guest).unwrap_or(false),
        })
    }
}

/// The driver that is tested.
pub(crate) type BenchDriver = Driver<FakeHypervisor, MemoryRecords, DirectPeers>;

/// Two hosts with one guest on the first, and the first one's driver.
pub(crate) struct Bench {
    pub(crate) world: FakeWorld,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) peers: Arc<DirectPeers>,
    pub(crate) driver: Arc<BenchDriver>,
    _state: tempfile::TempDir,
}

/// Waits that make tests quick; the order of their lengths is that of the real ones.
fn quick() -> Timings {
    let ms = Duration::from_millis;
    Timings {
        poll: ms(3),
        progress: ms(10),
        confirm: ms(5),
        ask: (ms(2), ms(8)),
        give_up: ms(60),
        left_behind: ms(30),
        unknown: ms(15),
        abort: ms(5),
        figures: ms(50),
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let world = FakeWorld::new();
        let hypervisor = world.host("h1");
        let target = world.host("h2");
        let state = tempfile::tempdir().unwrap();
        world.add_guest("h1", &guest(), "web", 64);
        let records = Arc::new(MemoryRecords::default());
        records.lock().leader = Some(Leader {
            key: LEADER.into(),
            epoch: EPOCH,
        });
        let peers = Arc::new(DirectPeers {
            world: world.clone(),
            records: records.clone(),
            refusal: Mutex::default(),
            away: AtomicBool::default(),
            etcd_goes_after_prepare: AtomicBool::default(),
            released: AtomicU32::default(),
            incomings: Arc::new(Incomings::new(
                Calls::new(target),
                Arc::new(Ledger::open(&state.path().join("h2")).unwrap()),
            )),
        });
        let driver = Arc::new(Driver {
            host: "h1".parse().unwrap(),
            calls: Calls::new(hypervisor),
            records: records.clone(),
            peers: peers.clone(),
            floor: EpochFloor::open(state.path()).unwrap(),
            most: 2,
            timings: quick(),
            figures: Figures::new(
                &evenkeel_daemon::metrics::Registry::new(),
                &"h1".parse().unwrap(),
            )
            .unwrap(),
            running: Running::default(),
            ledger: Arc::new(Ledger::open(state.path()).unwrap()),
        });
        Self {
            world,
            records,
            peers,
            driver,
            _state: state,
        }
    }

    /// An agent that has just been started, with this bench's hypervisor and the records of `other`: it knows
    /// nothing but what stands there.
    pub(crate) fn second_driver(&self, other: &Self) -> Arc<BenchDriver> {
        let old = &self.driver;
        Arc::new(Driver {
            host: old.host.clone(),
            calls: old.calls.clone(),
            records: other.records.clone(),
            peers: self.peers.clone(),
            floor: EpochFloor::open(other._state.path()).unwrap(),
            most: old.most,
            timings: old.timings,
            figures: Figures::new(
                &evenkeel_daemon::metrics::Registry::new(),
                &"h1".parse().unwrap(),
            )
            .unwrap(),
            running: Running::default(),
            ledger: old.ledger.clone(),
        })
    }

    /// The driver of another host with the same records and peers.
    pub(crate) fn driver_of(&self, host: &str) -> BenchDriver {
        let (host, old): (HostName, _) = (host.parse().unwrap(), &self.driver);
        Driver {
            calls: Calls::new(self.world.host(host.as_str())),
            records: self.records.clone(),
            peers: self.peers.clone(),
            floor: EpochFloor::open(self._state.path()).unwrap(),
            most: old.most,
            timings: old.timings,
            figures: Figures::new(&evenkeel_daemon::metrics::Registry::new(), &host).unwrap(),
            running: Running::default(),
            ledger: old.ledger.clone(),
            host,
        }
    }

    /// The same host with an agent that has just been started.
    pub(crate) fn restarted(self) -> Self {
        let driver = self.second_driver(&self);
        Self { driver, ..self }
    }

    pub(crate) fn script(&self, ending: Ending) {
        let script = Script {
            ending,
            ..Script::default()
        };
        self.world.script("h1", script);
    }

    /// From now on copies take so long that something can be done in their middle.
    pub(crate) fn script_slow_copies(&self) {
        let script = Script {
            iterations: 150,
            ..Script::default()
        };
        self.world.script("h1", script);
    }

    /// From now on calls fail at once while their copies go on for ever.
    pub(crate) fn script_broken_calls(&self) {
        let script = Script {
            ending: Ending::NeverConverges,
            call_breaks: true,
            ..Script::default()
        };
        self.world.script("h1", script);
    }

    /// Waits until h1 has let a migration in.
    pub(crate) async fn started(&self) {
        within(async {
            while self.world.migrations_started("h1") == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until the journal's state is one that `wanted` holds for.
    pub(crate) async fn journalled(&self, wanted: impl Fn(MigrationState) -> bool) {
        within(async {
            while !self.state().is_some_and(&wanted) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Puts the order into the records and starts it.
    pub(crate) async fn order(&self, order: &Order) -> Result<Updates, Refused> {
        self.records.put_order(order);
        self.driver.start(order.clone(), LEADER.into()).await
    }

    /// What a host has of the guest.
    pub(crate) fn at(&self, host: &str) -> Presence {
        self.world.presence(host, &guest())
    }

    /// Waits until no migration is under way: the journal's end is then in the records.
    pub(crate) async fn idle(&self) {
        within(async {
            while self.driver.running.count() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// The state in the journal.
    pub(crate) fn state(&self) -> Option<MigrationState> {
        self.records
            .journal(&guest())
            .as_ref()
            .and_then(crate::journal::state_of)
    }
}

/// Waits until the migration is in a state that `wanted` holds for.
pub(crate) async fn until(
    updates: &mut Updates,
    wanted: impl Fn(MigrationState) -> bool,
) -> MigrationState {
    let seen = within(updates.wait_for(|u| state_of_update(u).is_some_and(&wanted)))
        .await
        .expect("the migration ended without it")
        .clone();
    state_of_update(&seen).unwrap()
}

/// A test that waits longer has failed.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), work)
        .await
        .expect("not within 10 s")
}

pub(crate) fn guest() -> GuestId {
    GUEST.parse().unwrap()
}

/// The n-th order for the guest, from h1 to h2, with a minute's time.
pub(crate) fn order(n: u32) -> Order {
    order_with(n, |_| {})
}

/// An order with something changed.
pub(crate) fn order_with(n: u32, change: impl FnOnce(&mut v1::Order)) -> Order {
    let mut message = v1::Order {
        id: OrderId::from_random(n.into()).to_string(),
        guest_uuid: GUEST.into(),
        guest_name: "web".into(),
        source: "h1".into(),
        target: "h2".into(),
        epoch: EPOCH.0,
        deadline_ms: unix_ms() + 60_000,
        memory_mib: 64,
        options: Some(v1::MoveOptions {
            kind: v1::MoveKind::Live.into(),
            downtime_limit_ms: 300,
            ..v1::MoveOptions::default()
        }),
        ..v1::Order::default()
    };
    change(&mut message);
    Order::try_from(message).unwrap()
}
