//! How long a plan takes, with the default policy on skewed fleets of growing size.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_fleets::family::{Family, generate_with};
use evenkeel_fleets::speed::{GUESTS, SIZES};
use evenkeel_planner::{Options, Policy, plan};

fn planning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    group.warm_up_time(Duration::from_secs(1));
    let (policy, options) = (Policy::default(), Options::default());
    for (hosts, _) in SIZES {
        let snapshot = generate_with(Family::RandomSkew, hosts, 1, Some(GUESTS)).snapshot;
        let guests = u64::try_from(snapshot.guests.len()).unwrap_or(0);
        group.throughput(Throughput::Elements(guests));
        let name = BenchmarkId::from_parameter(format!("{hosts} hosts"));
        group.bench_with_input(name, &snapshot, |bencher, snapshot| {
            bencher.iter(|| plan(black_box(snapshot), &policy, &options));
        });
    }
    group.finish();
}

criterion_group!(benches, planning);
criterion_main!(benches);
