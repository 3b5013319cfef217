use std::sync::atomic::Ordering::SeqCst;

use evenkeel_types::Presence;

use super::*;
use crate::driver::bench::{Bench, GUEST, MemoryRecords, guest, order_with};
use crate::hypervisor::fake::FakeHypervisor;

/// The bench's second host as a target of 100 MiB with one guest of 30 MiB.
struct Receiving {
    bench: Bench,
    target: Target<FakeHypervisor, MemoryRecords>,
    _own: watch::Sender<v1::Inventory>,
}

fn receiving() -> Receiving {
    let bench = Bench::new();
    let resident = "11111111-0000-0000-0000-000000000000".parse().unwrap();
    bench.world.add_guest("h2", &resident, "resident", 30);
    let (own, known) = watch::channel(v1::Inventory {
        memory_mib: 100,
        ..v1::Inventory::default()
    });
    let target = Target::new(
        "h2".parse().unwrap(),
        Calls::new(bench.world.host("h2")),
        bench.records.clone(),
        known,
        (4, bench.peers.incomings.clone()),
        &Registry::new(),
    );
    Receiving {
        bench,
        target: target.unwrap(),
        _own: own,
    }
}

impl Receiving {
    async fn prepare(&self, source: &str, order: &Order) -> Result<(), Refusal> {
        let definition = format!("<domain><uuid>{}</uuid></domain>", order.guest);
        self.prepare_as(source, order, &definition).await
    }

    async fn prepare_as(&self, source: &str, order: &Order, xml: &str) -> Result<(), Refusal> {
        let source = source.parse().unwrap();
        let arriving = Arriving {
            definition: xml.to_owned(),
            ..Arriving::default()
        };
        let outcome = self.target.prepare(&source, order, arriving).await;
        outcome.map_err(|(reason, _)| reason)
    }
}

#[tokio::test]
async fn memory_is_held_until_the_source_releases_it() {
    let r = receiving();
    let order = order_with(1, |_| {});
    r.bench.records.put_order(&order);
    assert_eq!(r.prepare("h1", &order).await, Ok(()));
    assert_eq!(
        r.prepare("h1", &order).await,
        Ok(()),
        "asking again changes nothing"
    );
    assert_eq!(r.target.promised(), (1, 64));
    r.target
        .release(&order.id, &"h3".parse().unwrap(), None)
        .await;
    assert_eq!(r.target.promised(), (1, 64), "another host cannot");
    r.target
        .release(&order.id, &"h1".parse().unwrap(), None)
        .await;
    assert_eq!(r.target.promised(), (0, 0));
}

#[tokio::test]
async fn what_libvirt_defines_of_a_guest_that_does_not_come_goes_with_its_order() {
    // Whether it was here before, where it is in the end, what it is here then; what is left.
    use Presence::{Absent, Running, ShutOff};
    let (source, target) = (Some(Whereabouts::Source), Some(Whereabouts::Target));
    let cases = [
        (false, source, ShutOff, Absent),
        (true, source, ShutOff, ShutOff),
        (false, None, ShutOff, ShutOff),
        (false, target, Running, Running),
        (false, source, Running, Running),
    ];
    for (was_here, place, here, left) in cases {
        let r = receiving();
        let order = order_with(1, |_| {});
        r.bench.records.put_order(&order);
        if was_here {
            r.bench.world.add_guest("h2", &guest(), "web", 30);
            r.bench.world.set_presence("h2", &guest(), ShutOff);
        }
        assert_eq!(r.prepare("h1", &order).await, Ok(()));
        r.bench.world.add_guest("h2", &guest(), "web", 30);
        r.bench.world.set_presence("h2", &guest(), here);
        let from = "h1".parse().unwrap();
        r.target.release(&order.id, &from, place).await;
        assert_eq!(r.bench.at("h2"), left, "{was_here} {place:?} {here}");
        assert_eq!(r.target.promised(), (0, 0));
    }
}

#[tokio::test]
async fn a_guest_that_does_not_fit_is_refused_with_numbers() {
    let r = receiving();
    let order = order_with(1, |o| o.memory_mib = 71);
    r.bench.records.put_order(&order);
    let definition = format!("<domain><uuid>{GUEST}</uuid></domain>");
    let source = "h1".parse().unwrap();
    let (reason, detail) = r
        .target
        .prepare(
            &source,
            &order,
            Arriving {
                definition,
                ..Arriving::default()
            },
        )
        .await
        .unwrap_err();
    assert_eq!(reason, Refusal::NoMemory);
    assert!(
        detail.contains("71 MiB needed, 70 MiB free of 100 MiB"),
        "{detail}"
    );
}

#[tokio::test]
async fn nothing_is_promised_while_a_guests_memory_is_unknown() {
    let r = receiving();
    let order = order_with(1, |_| {});
    r.bench.records.put_order(&order);
    let silent = "22222222-0000-0000-0000-000000000000".parse().unwrap();
    r.bench.world.add_guest("h2", &silent, "silent", 0);
    assert_eq!(r.prepare("h1", &order).await, Err(Refusal::NoMemory));
    assert_eq!(r.target.promised(), (0, 0));
    r.bench.world.set_presence("h2", &silent, Presence::ShutOff);
    assert_eq!(r.prepare("h1", &order).await, Ok(()));
}

#[tokio::test]
async fn only_the_source_of_an_order_that_stands_is_heard() {
    let r = receiving();
    let order = order_with(1, |_| {});
    assert_eq!(
        r.prepare("h1", &order).await,
        Err(Refusal::NoSuchOrder),
        "none stands"
    );
    r.bench.records.put_order(&order);
    assert_eq!(
        r.prepare("h3", &order).await,
        Err(Refusal::NoSuchOrder),
        "not its source"
    );
    let bigger = order_with(1, |o| o.memory_mib = 1);
    assert_eq!(
        r.prepare("h1", &bigger).await,
        Err(Refusal::NoSuchOrder),
        "altered"
    );
    let elsewhere = order_with(1, |o| o.target = "h3".into());
    r.bench.records.put_order(&elsewhere);
    assert_eq!(
        r.prepare("h1", &elsewhere).await,
        Err(Refusal::NoSuchOrder),
        "not for us"
    );
    r.bench.records.away.store(true, SeqCst);
    assert_eq!(r.prepare("h1", &order).await, Err(Refusal::NoEtcd));
    assert_eq!(r.target.promised(), (0, 0));
}

#[tokio::test]
async fn what_the_hypervisor_does_not_admit_holds_no_memory() {
    let r = receiving();
    let order = order_with(1, |_| {});
    r.bench.records.put_order(&order);
    let other = "<domain><uuid>22222222-0000-0000-0000-000000000000</uuid></domain>";
    for xml in ["", "<domain/>", other] {
        assert_eq!(
            r.prepare_as("h1", &order, xml).await,
            Err(Refusal::Unsupported),
            "{xml}"
        );
    }
    let cpu = (Refusal::IncompatibleCpu, "no avx".to_owned());
    r.bench.world.refuse("h2", Some(cpu));
    assert_eq!(r.prepare("h1", &order).await, Err(Refusal::IncompatibleCpu));
    r.bench.world.refuse("h2", None);
    r.bench.world.add_guest("h2", &guest(), "web", 1);
    assert_eq!(r.bench.at("h2"), Presence::Running);
    assert_eq!(r.prepare("h1", &order).await, Err(Refusal::NameClash));
    r.bench.world.set_up("h2", false);
    assert_eq!(r.prepare("h1", &order).await, Err(Refusal::NoLibvirt));
    assert_eq!(r.target.promised(), (0, 0));
}

#[tokio::test]
async fn what_an_earlier_order_had_made_is_not_in_the_way_of_the_next() {
    use crate::hypervisor::disks::Disks as _;
    let r = receiving();
    let path = "/pool/web.raw";
    r.bench.world.add_disk("h1", &guest(), path, &[1; 100]);
    let disks = r.bench.world.host("h1").local_disks(&guest()).unwrap();
    let disks = disks.unwrap();
    let with_disk = |n| {
        order_with(n, |message| {
            message.options.get_or_insert_default().disks = v1::DiskCopy::Whole.into();
        })
    };
    for n in 1..=2 {
        let order = with_disk(n);
        r.bench.records.put_order(&order);
        let arriving = Arriving {
            definition: format!("<domain><uuid>{GUEST}</uuid></domain>"),
            luggage: Luggage {
                disks: disks.clone(),
                autostart: false,
            },
            ..Arriving::default()
        };
        let source = "h1".parse().unwrap();
        let outcome = r.target.prepare(&source, &order, arriving).await;
        assert_eq!(outcome, Ok(()), "order {n}");
        r.target.release(&order.id, &source, None).await;
        let noted: Vec<_> = r
            .bench
            .peers
            .incomings
            .all()
            .into_iter()
            .map(|i| i.order)
            .collect();
        assert_eq!(noted, [order.id], "order {n}");
    }
    assert!(r.bench.world.file("h2", path).is_some());
}
