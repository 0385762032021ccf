//! What those who watch are told of packets.

use super::life::{at, client};
use super::world::{Service, World, device, own, task, vip};
use crate::abi::{NO_BACKEND, Record, TCP};
use crate::packet::tcp::{ACK, SYN};
use crate::pipeline;
use crate::testing::tcp;
use crate::verdict::Event;

/// Node 0 has a task of a service, and one of none; the second service has no task.
fn world() -> World {
    let web = Service { tasks: vec![0], target: 80, ..Service::default() };
    World::new(1, &[0, 0], vec![web, Service::default()])
}

/// What is told of a packet from outside.
fn told(world: &World, src: &std::net::SocketAddr, dst: &std::net::SocketAddr, flags: u8) -> Option<Record> {
    let mut packet = tcp(&src.to_string(), &dst.to_string(), flags).packet();
    let verdict = pipeline::from_net(&world.nodes[0], &mut packet, 7);
    let event = Record::event(&packet, verdict);
    (event != Record::NOTHING).then(|| Record::new(&packet, event))
}

#[test]
fn a_flow_is_told_of_once_with_its_backend() {
    let world = world();
    let (src, dst) = (client(false, 1000), at(own(0, false), 8000));
    let record = told(&world, &src, &dst, SYN).unwrap();
    assert_eq!((record.event, record.proto), (Event::NewFlow as u32, TCP));
    assert_eq!(world.nodes[0].backends[record.backend as usize].addr, task(0, 0, false).into());
    assert_eq!(record.tuple.sport().number(), 1000);
    assert_eq!(told(&world, &src, &dst, ACK), None);
    let middle = told(&world, &client(false, 1001), &dst, ACK).unwrap();
    assert_eq!(middle.event, Event::MidFlow as u32);
    assert_ne!(middle.backend, NO_BACKEND);
}

#[test]
fn refusals_are_told_with_their_reason_and_the_rest_is_not() {
    let world = world();
    let nobody = told(&world, &client(false, 1000), &at(own(0, false), 8001), SYN).unwrap();
    assert_eq!((nobody.event, nobody.backend), (Event::NoBackend as u32, NO_BACKEND));
    assert_eq!(told(&world, &client(false, 1000), &at(own(0, false), 22), SYN), None);
    let mut packet =
        tcp(&at(task(0, 0, false), 9).to_string(), &at(vip(0, false), 80).to_string(), SYN).packet();
    let verdict = pipeline::from_task(&world.nodes[0], &mut packet, device(1));
    assert_eq!(Record::event(&packet, verdict), Event::Prohibited as u32);
}
