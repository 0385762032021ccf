//! How long a node's plan, its difference and a DNS answer take, by the size of the mesh.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_benches::Mesh;
use mesh_core::diff::diff;
use mesh_core::dns::{Question, Zone};
use mesh_core::model::NodeId;
use mesh_core::plan;

fn decisions(criterion: &mut Criterion) {
    let node = NodeId::new("node1");
    for services in [10, 100, 300] {
        let mesh = Mesh::of(10, services, 5).expect("a mesh of this size fits into its network");
        let world = mesh.world();
        let network = world.networks.keys().next().expect("it has a network").clone();
        let desired = plan::desired(world, &node, 0);
        let size = |name: &str| format!("{name} of {services} services");
        criterion.bench_function(&size("one node's plan"), |bench| {
            bench.iter(|| plan::desired(black_box(world), &node, 0));
        });
        criterion.bench_function(&size("its routes compared"), |bench| {
            bench.iter(|| diff(black_box(&desired.overlay.routes), &desired.overlay.routes));
        });
        let zone = Zone::build(world, &node);
        criterion.bench_function(&size("an answer for tasks.svc1"), |bench| {
            bench.iter(|| {
                zone.answer(std::slice::from_ref(&network), "tasks.svc1", Question::A, black_box(7))
            });
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
