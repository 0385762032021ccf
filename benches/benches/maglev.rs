//! How long it takes to fill the tables of services.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_core::maglev::{Weighted, fill, size};

/// Services of so many backends each, none like another: the processor must not learn a table by heart.
fn services(count: u64, backends: u32) -> Vec<Vec<Weighted>> {
    let service = |number: u64| {
        let backend = |value| Weighted { key: (number << 32) + u64::from(value), weight: 100, value };
        (0..backends).map(backend).collect()
    };
    (0..count).map(service).collect()
}

fn tables(criterion: &mut Criterion) {
    for backends in [10, 100] {
        let services = services(500, backends);
        let mut slots = vec![0; size(backends as usize) as usize];
        let mut turn = services.iter().cycle();
        criterion.bench_function(&format!("{backends} backends into {} slots", slots.len()), |bench| {
            bench.iter(|| {
                fill(turn.next().expect("a cycle has no end"), &mut slots);
                black_box(&slots);
            });
        });
    }
    let services = services(10_000, 10);
    let mut slots = vec![0; size(10) as usize];
    let mut group = criterion.benchmark_group("all");
    group.sample_size(10).bench_function("10,000 services of 10 backends", |bench| {
        bench.iter(|| {
            for service in &services {
                fill(service, &mut slots);
                black_box(&slots);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, tables);
criterion_main!(benches);
