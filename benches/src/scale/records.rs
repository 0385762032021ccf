//! The records of a large mesh, written down at once: to decide on a hundred thousand tasks one after the other takes
//! longer than all that is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_core::kv::{KeyValue, Listing, Rev};
use mesh_core::model::{
    Affinity, Attachment, Balancing, Block, EndpointMode, Health, Locality, Network, NetworkId, Node, NodeId,
    Origin, Protocol, PublishMode, PublishedPort, Service, ServiceId, Task, TaskId, TaskState, Vni,
};
use mesh_core::records::{self, Claim, to_json};

/// The first published port.
pub(super) const FIRST_PORT: u16 = 10_000;
/// Tasks of each service.
pub(super) const TASKS: u32 = 10;
/// Nodes that are records and nothing else.
const NODES: u32 = 10;
/// Room for all.
pub(crate) const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);
const VNI: Vni = Vni(4096);

/// A mesh of one network, as records.
pub(crate) struct Records {
    /// By service, each with its tasks by slot.
    pub(crate) services: Vec<(Service, Vec<Task>)>,
    network: Network,
    pub(crate) nodes: Vec<Node>,
    blocks: Vec<(Block, NodeId)>,
}

impl Records {
    /// Every service has a VIP, a published port, and its tasks spread over nodes, the first of which is at `first`.
    pub(crate) fn of(services: u16, first: Ipv4Addr) -> Self {
        let nodes: Vec<Node> = (0..NODES).map(|number| node(number, first)).collect();
        let network = network();
        let places: Vec<u32> = network.task_places().collect();
        let mut blocks = Vec::new();
        let mut next = vec![places.len(); nodes.len()];
        let mut block = vec![Block(0); nodes.len()];
        let services = (0..services)
            .map(|number| {
                let service = service(number, &network);
                let tasks = (0..TASKS)
                    .map(|place| {
                        let owner = (u32::from(number) + place) as usize % nodes.len();
                        if next[owner] == places.len() {
                            block[owner] = Block(network.blocks().start + blocks.len() as u32);
                            blocks.push((block[owner], nodes[owner].id.clone()));
                            next[owner] = 0;
                        }
                        let address = network.address_in(block[owner], places[next[owner]]);
                        next[owner] += 1;
                        let addresses = [(network.id.clone(), address)].into();
                        task(&service, place + 1, &nodes[owner].id, addresses)
                    })
                    .collect();
                (service, tasks)
            })
            .collect();
        Self { services, network, nodes, blocks }
    }

    /// Keys and values.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let Self { services, network, nodes, blocks } = self;
        let mut all = vec![
            (records::network(&network.id), to_json(network)),
            (records::network_name(&network.name), network.id.to_string()),
            (records::vni_claim(network.vni), Claim::held(network.id.as_str())),
        ];
        for node in nodes {
            all.push((records::node(&node.id), to_json(node)));
            all.push((records::node_name(&node.name), node.id.to_string()));
        }
        for (block, owner) in blocks {
            all.push((records::block_claim(&network.id, *block), Claim::held(owner.as_str())));
        }
        for ((service, tasks), place) in services.iter().zip(1..) {
            all.push((records::service(&service.id), to_json(service)));
            all.push((records::service_name(&service.name), service.id.to_string()));
            all.push((records::vip_claim(&network.id, place), Claim::held(service.id.as_str())));
            for task in tasks {
                all.push((records::task(&task.id), to_json(task)));
                all.push((records::slot_claim(&service.id, task.slot), Claim::held(task.id.as_str())));
            }
        }
        all
    }

    /// As a store lists them that took them in one go.
    pub(crate) fn listing(&self) -> Listing {
        let kv = |(key, value): (String, String)| KeyValue {
            key: key.into(),
            value: value.into(),
            created: Rev(1),
            modified: Rev(1),
            lease: None,
        };
        Listing { cluster: "bench".to_owned(), rev: Rev(1), kvs: self.all().into_iter().map(kv).collect() }
    }
}

/// As random as an id, and the same each time.
fn random(kind: u64, number: u64) -> [u8; 16] {
    let half = |salt: u64| {
        let mixed = (kind << 56 | salt << 48 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    (u128::from(half(1)) << 64 | u128::from(half(2))).to_be_bytes()
}

fn network() -> Network {
    Network {
        id: NetworkId::from_random(random(1, 0)),
        name: name("app"),
        v4: SUBNET,
        v6: None,
        vni: VNI,
        mtu: None,
        internal: false,
        encrypted: false,
        labels: BTreeMap::new(),
        created: 0,
    }
}

fn node(number: u32, first: Ipv4Addr) -> Node {
    Node {
        id: NodeId::from_random(random(2, number.into())),
        name: name(&format!("sim{number}")),
        address: IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + number)),
        vxlan_port: 4789,
        epoch: 1,
        boot: String::new(),
        uplink_mtu: 1500,
        listeners: BTreeSet::new(),
        routes: BTreeSet::new(),
        version: String::new(),
        started: 0,
        key: String::new(),
        reflects: false,
        left: false,
    }
}

fn service(number: u16, network: &Network) -> Service {
    let port = PublishedPort {
        published: FIRST_PORT + number,
        target: 80,
        protocol: Protocol::Udp,
        mode: PublishMode::Ingress,
        host_ip: Vec::new(),
        nodes: Vec::new(),
        allow: Vec::new(),
    };
    let vip = network.vip(u32::from(number) + 1);
    Service {
        id: ServiceId::from_random(random(3, number.into())),
        name: name(&format!("svc{number}")),
        mode: EndpointMode::Vip,
        networks: vec![Attachment { network: network.id.clone(), vip: Some(vip), aliases: Vec::new() }],
        ports: vec![port],
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: std::time::Duration::from_secs(30),
        return_path: Default::default(),
        idle_timeout: None,
        slow_start: Default::default(),
        health: None,
        passive_health: true,
        discovery: Default::default(),
        program: None,
        labels: BTreeMap::new(),
        version: 1,
        created: 0,
        updated: 0,
    }
}

fn task(
    service: &Service,
    slot: u32,
    node: &NodeId,
    addresses: mesh_core::model::Few<NetworkId, mesh_core::model::TaskAddress>,
) -> Task {
    let seed = fnv(service.id.as_str()) ^ u64::from(slot);
    Task {
        id: TaskId::from_random(random(4, seed & 0xffff_ffff_ffff)),
        service: Some(service.id.clone()),
        slot,
        name: None,
        node: node.clone(),
        epoch: 1,
        addresses,
        state: TaskState::Running,
        health: Health::None,
        checked: false,
        ejected: None,
        weight: 1,
        draining: false,
        message: String::new(),
        origin: Origin::Process { pid: 1000 + slot, start: 1, supervised: true },
        dns: Vec::new(),
        packets_only: false,
        program: None,
        ready_since: 0,
        created: 0,
        updated: 0,
    }
}

fn fnv(text: &str) -> u64 {
    mesh_core::model::fnv64(text.as_bytes())
}

fn name(text: &str) -> mesh_core::model::Name {
    text.parse().unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests {
    use mesh_core::plan;
    use mesh_core::replica::Replica;

    use super::*;
    use crate::Mesh;

    #[test]
    fn they_are_such_as_decisions_make() {
        let records = Records::of(30, Ipv4Addr::new(172, 16, 0, 1));
        let all = records.all();
        let kinds = |keys: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> {
            keys.map(|key| {
                key.split('/')
                    .take(if key.starts_with("task") { 1 } else { 2 })
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
        };
        let decided = Mesh::of(10, 30, 10).expect("a mesh");
        let mut known: BTreeSet<String> = kinds(&mut decided.records().map(|kv| &*kv.key));
        known.remove("guard");
        assert_eq!(kinds(&mut all.iter().map(|(key, _)| key.as_str())), known);
        let mut replica = Replica::default();
        replica.resync(records.listing(), true).expect("a listing");
        let world = replica.world();
        assert!(world.poison.is_empty(), "{:?}", world.poison);
        assert_eq!((world.services.len(), world.tasks.len()), (30, 300));
        let node = &records.nodes[3].id;
        let (ours, theirs) =
            (plan::desired(world, node, 0), plan::desired(decided.world(), &NodeId::new("node4"), 0));
        assert!(ours.problems.is_empty(), "{:?}", ours.problems);
        assert_eq!(ours.balance.frontends.len(), theirs.balance.frontends.len());
        assert_eq!(ours.balance.sites.len(), theirs.balance.sites.len());
    }
}
