//! `cargo bench -p drover-bench`: the planner on the cases of record.

#![allow(missing_docs, reason = "criterion's macros make public items without documentation")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use drover_bench::{Billing, Case, Mix, Workload};
use drover_core::planner::draft;

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for mix in Mix::ALL {
        for pods in [1_000, 10_000, 100_000] {
            for nodes in [0, 5_000] {
                bench(&mut group, Case { mix, pods, nodes, billing: Billing::OnDemand });
            }
        }
    }
    for (pods, nodes) in [(10_000, 0), (100_000, 0)] {
        bench(&mut group, Case { mix: Mix::Realistic, pods, nodes, billing: Billing::Spot });
    }
    // What a batch costs in a cluster that runs.
    bench(
        &mut group,
        Case { mix: Mix::Realistic, pods: 50, nodes: 5_000, billing: Billing::OnDemand },
    );
}

type Group<'c> = criterion::BenchmarkGroup<'c, criterion::measurement::WallTime>;

fn bench(group: &mut Group<'_>, case: Case) {
    let workload = Workload::new(case);
    group.throughput(Throughput::Elements(case.pods as u64));
    group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
        bencher.iter(|| draft(&workload.input()));
    });
}

criterion_group!(benches, plans);
criterion_main!(benches);
