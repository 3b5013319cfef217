//! Blocks of migrations, one way or the other.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etcd_client::EventType;
use evenkeel_daemon::unix_ms;
use evenkeel_proto::v1::scheduler_service_client::SchedulerServiceClient;
use evenkeel_proto::v1::{
    GuestView, Journal, ListGuestsRequest, MigrationPhase, OperatorMigrateRequest,
};
use evenkeel_tests::Lab;
use evenkeel_tests::etcd::{guest_id, host, keys};
use evenkeel_tests::network::Caller;
use evenkeel_tests::schedulers::{answer, ask};
use tokio::sync::Semaphore;
use tonic::transport::Channel;

/// A migration of a small guest is over within this time on any machine.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks: seldom enough to cost nothing, and no figure depends on it.
const LOOK: Duration = Duration::from_millis(50);

/// Who migrates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `virsh migrate` on the source, with the flags that agents use.
    Virsh,
    /// The leader, asked by an operator.
    Evenkeel,
}

/// One migration, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timed {
    /// From the wish to the end: virsh has returned; the journal is closed on both hosts' word, and the order gone.
    pub(crate) whole: f64,
    /// From the wish until the source agent has taken the order up; 0 with virsh.
    pub(crate) ordered: f64,
    /// libvirt's job by its own account.
    pub(crate) job: f64,
    /// The guest's pause, by libvirt's account.
    pub(crate) pause: f64,
}

/// A guest that is migrated.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) uuid: String,
}

/// So many migrations, some at a time.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) way: Way,
    pub(crate) timed: Vec<Timed>,
    pub(crate) took: Duration,
}

/// Migrates guests to and fro, `at_a_time`, until `count` migrations are over.
///
/// What is done between two migrations of a guest (connections, the wait until it is at rest, reading figures) holds up
/// no other: with more guests than `at_a_time` so many are under way at each moment, both ways. Migrations share the
/// machine, so that one of three takes longer than one of two and a half.
pub(crate) fn block(
    lab: &Lab,
    way: Way,
    guests: &[Guest],
    at_a_time: usize,
    count: usize,
) -> Block {
    let slots = Semaphore::new(at_a_time);
    let (next, timed) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let leader = lab.some_leader();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for guest in guests {
            scope.spawn(|| {
                let mut source = lab.running_on(&guest.name).concat();
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    let target = if source == "h1" { "h2" } else { "h1" };
                    let one = match way {
                        Way::Virsh => by_virsh(lab, &slots, guest, &source, target),
                        Way::Evenkeel => by_evenkeel(lab, &slots, &leader, guest, &source, target),
                    };
                    timed.lock().expect("no worker has panicked").push(one);
                    target.clone_into(&mut source);
                }
            });
        }
    });
    let took = began.elapsed();
    let timed = timed.into_inner().expect("no worker has panicked");
    Block { way, timed, took }
}

/// virsh on the router, which asks the source's libvirtd: the lab's own command would take longer than the migration.
fn virsh(lab: &Lab, host: &str, words: &[&str]) -> String {
    let namespace = format!("{}-rt", lab.id());
    let uri = uri(host);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace, "virsh", "-q", "-c", &uri]);
    let done = command.args(words).output().expect("virsh");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let why = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "virsh {words:?} on {host}: {why}");
    said
}

fn uri(host: &str) -> String {
    format!("qemu+tcp://10.90.0.{}/system", number_of(host))
}

/// The last part of a host's addresses.
fn number_of(host: &str) -> u32 {
    let number: u32 = host.trim_start_matches('h').parse().expect("h1, h2 …");
    10 + number
}

fn by_virsh(lab: &Lab, slots: &Semaphore, guest: &Guest, source: &str, target: &str) -> Timed {
    let name = guest.name.as_str();
    let (to, stream) = (uri(target), format!("tcp://10.90.1.{}", number_of(target)));
    let flags = [
        "--live",
        "--p2p",
        "--persistent",
        "--undefinesource",
        "--abort-on-error",
    ];
    let words = [&["migrate"], &flags[..], &[name, &to, &stream]].concat();
    let slot = lab.inside(|| async { slots.acquire().await.expect("slots are never closed") });
    let began = Instant::now();
    drop(virsh(lab, source, &words));
    let whole = began.elapsed().as_secs_f64() * 1000.0;
    drop(slot);
    let stats = virsh(
        lab,
        target,
        &["domjobinfo", name, "--completed", "--rawstats"],
    );
    let number = |key: &str| -> f64 {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {key} of {name}: {stats}"))
    };
    Timed {
        whole,
        ordered: 0.0,
        job: number("time_elapsed"),
        pause: number("downtime"),
    }
}

fn by_evenkeel(
    lab: &Lab,
    slots: &Semaphore,
    leader: &str,
    guest: &Guest,
    source: &str,
    target: &str,
) -> Timed {
    let (asked, gone, journal) = lab.inside(|| async {
        let mut client = lab.scheduler(Caller::Operator, leader);
        let store = lab.store(Caller::Operator).await;
        rested(&mut client, guest, source).await;
        let request = OperatorMigrateRequest {
            guest: guest.name.clone(),
            target: target.to_owned(),
            reason: "to measure".to_owned(),
            ..Default::default()
        };
        let key = keys().order(&guest_id(&guest.uuid));
        let watch = store.client().watch(key, None).await;
        let mut changes = watch.expect("a watch of the order");
        let slot = slots.acquire().await.expect("slots are never closed");
        let asked = unix_ms();
        let ordered = answer(client.migrate(ask(request))).await;
        let order = ordered.expect("the leader orders it").order;
        let order = order.expect("an order").id;
        loop {
            let change = tokio::time::timeout(SOON, changes.message()).await;
            let change = change.expect("an end in time").expect("etcd answers");
            let change = change.expect("an open watch");
            let mut events = change.events().iter();
            if events.any(|event| event.event_type() == EventType::Delete) {
                break;
            }
        }
        let gone = unix_ms();
        drop(slot);
        let key = keys().journal(&host(source), &guest_id(&guest.uuid));
        let journal: Option<Journal> = store.get_message(&key).await.expect("etcd answers");
        let journal = journal.expect("a closed journal stands until the next order");
        assert!(journal.order.as_ref().is_some_and(|o| o.id == order));
        (asked, gone, journal)
    });
    let state = journal.state.clone().unwrap_or_default();
    assert_eq!(state.phase(), MigrationPhase::Done, "{journal:?}");
    let since = |ms: i64| f64::from(i32::try_from(ms - asked).unwrap_or(i32::MAX));
    let progress = journal.progress.unwrap_or_default();
    let milliseconds = |ms: u64| f64::from(u32::try_from(ms).unwrap_or(u32::MAX));
    Timed {
        whole: since(gone),
        ordered: since(journal.started_at_ms),
        job: milliseconds(progress.elapsed_ms),
        pause: milliseconds(progress.downtime_ms),
    }
}

/// Until the leader knows where the guest is: the next order can be given then.
async fn rested(client: &mut SchedulerServiceClient<Channel>, guest: &Guest, here: &str) {
    let began = Instant::now();
    loop {
        let known = answer(client.list_guests(ask(ListGuestsRequest {}))).await;
        let known = known.expect("the leader answers").guests;
        let all: Vec<&GuestView> = known.iter().filter(|g| g.name == guest.name).collect();
        if let [one] = all[..]
            && one.host == here
            && one.migrating_to.is_empty()
        {
            return;
        }
        assert!(
            began.elapsed() < SOON,
            "{} is not at rest: {all:?}",
            guest.name
        );
        tokio::time::sleep(LOOK).await;
    }
}
