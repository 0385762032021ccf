//! A name means one service in each network.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use mesh_core::change::{self, AttachmentRequest, NetworkRequest, Refusal, ServiceRequest, ServiceUpdate};
use sim::Sim;

fn at(network: &str, alias: &str) -> AttachmentRequest {
    let aliases = alias.split_whitespace().map(str::to_owned).collect();
    AttachmentRequest { network: network.to_owned(), aliases }
}

fn create(sim: &mut Sim, name: &str, networks: &[AttachmentRequest]) -> Result<(), Refusal> {
    let request = ServiceRequest { networks: networks.to_vec(), ..sim::service(name) };
    sim.change(|world, fresh| change::create_service(world, request, fresh)).map(drop)
}

fn join(sim: &mut Sim, name: &str, network: AttachmentRequest) -> Result<(), Refusal> {
    let update = ServiceUpdate { network_add: vec![network], ..ServiceUpdate::default() };
    sim.change(|world, fresh| change::update_service(world, name, update, fresh)).map(drop)
}

fn conflict(result: Result<(), Refusal>) -> String {
    match result {
        Err(Refusal::Conflict(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_that_another_service_has_in_a_network_is_refused() {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    for name in ["app", "back"] {
        let request = NetworkRequest { name: name.to_owned(), ..NetworkRequest::default() };
        sim.change(|world, fresh| change::create_network(world, request, fresh)).unwrap();
    }
    create(&mut sim, "web", &[at("app", "www front")]).unwrap();
    let why = conflict(create(&mut sim, "blog", &[at("app", "www")]));
    assert_eq!(why, "alias conflicts with an existing object: www is an alias of service web in network app");
    let why = conflict(create(&mut sim, "blog", &[at("app", "web")]));
    assert_eq!(why, "alias conflicts with an existing object: web is the name of service web in network app");
    let why = conflict(create(&mut sim, "www", &[at("app", "")]));
    assert_eq!(why, "name conflicts with an existing object: www is an alias of service web in network app");
    // In another network it is another name.
    create(&mut sim, "www", &[at("back", "web")]).unwrap();
    assert!(conflict(join(&mut sim, "www", at("app", ""))).starts_with("name conflicts"));
    assert!(conflict(join(&mut sim, "web", at("back", ""))).starts_with("name conflicts"));
    create(&mut sim, "blog", &[at("app", "")]).unwrap();
    assert!(conflict(join(&mut sim, "blog", at("app", "front"))).starts_with("alias conflicts"));
    // One's own may be said again, and what is given up is free.
    join(&mut sim, "web", at("app", "front web")).unwrap();
    join(&mut sim, "blog", at("app", "www")).unwrap();
}
