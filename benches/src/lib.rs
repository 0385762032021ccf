//! A mesh of any size, without a kernel: what the benchmarks decide about. And [`datapath`], with one; [`lab`] and
//! [`dns`], [`liveness`] and [`checks`], with real programs; [`cluster`], with a real store; [`scale`], with records of a large one.
#![forbid(unsafe_code)]

pub mod checks;
pub mod cluster;
pub mod datapath;
pub mod dns;
pub mod lab;
pub mod liveness;
pub mod scale;
mod times;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use mesh_core::change::{
    AttachmentRequest, Change, Fresh, Me, NetworkRequest, NodeFacts, Refusal, ServiceRequest, TaskChange,
    TaskRequest, add_task, change_task, claim_blocks, create_network, create_service, join,
};
use mesh_core::kv::{KeyValue, KvState, Listing};
use mesh_core::model::{
    Affinity, Balancing, EndpointMode, Locality, NodeId, Origin, Protocol, PublishMode, PublishedPort,
    Snapshot, TaskState,
};
use mesh_core::replica::Replica;

/// Where nodes are.
const NODES: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
/// A network with room for a block of each.
const LARGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// A store's semantics and one copy of the world.
#[derive(Default)]
pub struct Mesh {
    store: KvState,
    replica: Replica,
    made: u128,
}

impl Mesh {
    /// A mesh in one network: every service has a VIP, a published port and its tasks spread over the nodes.
    pub fn of(nodes: u16, services: u16, tasks: u16) -> Result<Self, Refusal> {
        let mut mesh = Self::default();
        let empty = Listing { cluster: "bench".to_owned(), rev: mesh.store.rev(), kvs: Vec::new() };
        mesh.replica.resync(empty, false).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let owners = (1..=nodes).map(|n| mesh.node(n)).collect::<Result<Vec<Me>, _>>()?;
        // A default network has room for 240 nodes.
        let subnets = if nodes > 200 { vec![IpNet::V4(LARGE)] } else { Vec::new() };
        let network = NetworkRequest { name: "app".to_owned(), subnets, ..NetworkRequest::default() };
        mesh.change(|world, fresh| create_network(world, network, fresh))?;
        for number in 0..services {
            mesh.service(number)?;
        }
        for me in &owners {
            mesh.change(|world, _| claim_blocks(world, me))?;
        }
        for number in 0..services {
            for task in 0..tasks {
                let me = &owners[usize::from(task) % owners.len()];
                mesh.task(me, &format!("svc{number}"))?;
            }
        }
        Ok(mesh)
    }

    /// The world as a node knows it.
    pub fn world(&self) -> &Snapshot {
        self.replica.world()
    }

    /// All records of it.
    pub fn records(&self) -> impl Iterator<Item = &KeyValue> {
        self.store.range("")
    }

    fn change<T>(
        &mut self,
        decide: impl FnOnce(&Snapshot, Fresh) -> Result<Change<T>, Refusal>,
    ) -> Result<T, Refusal> {
        self.made += 1;
        let change = decide(self.world(), Fresh { id: (self.made << 64 | self.made).to_be_bytes(), now: 0 })?;
        if let Ok(Ok(batch)) = self.store.prepare(&change.txn) {
            self.store.install(batch.clone());
            self.replica.apply(batch);
        }
        Ok(change.result)
    }

    fn node(&mut self, number: u16) -> Result<Me, Refusal> {
        let facts = NodeFacts {
            name: format!("n{number}").parse()?,
            address: IpAddr::V4(Ipv4Addr::from_bits(NODES.to_bits() + u32::from(number))),
            vxlan_port: 4789,
            boot: String::new(),
            key: String::new(),
            reflects: false,
            uplink_mtu: 1500,
            listeners: Default::default(),
            routes: Default::default(),
            version: String::new(),
        };
        let id = NodeId::new(format!("node{number}"));
        let node = self.change(|world, fresh| join(world, &id, facts, fresh))?;
        Ok(Me { id: node.id, epoch: node.epoch })
    }

    fn service(&mut self, number: u16) -> Result<(), Refusal> {
        let port = PublishedPort {
            published: 10_000 + number,
            target: 80,
            protocol: Protocol::Tcp,
            mode: PublishMode::Ingress,
            host_ip: Vec::new(),
            nodes: Vec::new(),
            allow: Vec::new(),
        };
        let request = ServiceRequest {
            name: format!("svc{number}"),
            networks: vec![AttachmentRequest { network: "app".to_owned(), aliases: Vec::new() }],
            mode: EndpointMode::Vip,
            ports: vec![port],
            balancing: Balancing::Random,
            affinity: Affinity::None,
            locality: Locality::Spread,
            drain_timeout: std::time::Duration::from_secs(30),
            return_path: Default::default(),
            idle_timeout: None,
            discovery: Default::default(),
            slow_start: Default::default(),
            passive_health: true,
            health: Default::default(),
            program: Default::default(),
            labels: Default::default(),
        };
        self.change(|world, fresh| create_service(world, request, fresh)).map(drop)
    }

    fn task(&mut self, me: &Me, service: &str) -> Result<(), Refusal> {
        let pid = u32::try_from(self.made).unwrap_or_default();
        let request = TaskRequest {
            dns: Vec::new(),
            packets_only: false,
            service: Some(service.to_owned()),
            name: None,
            networks: Vec::new(),
            origin: Origin::Process { pid, start: 1, supervised: true },
            weight: 1,
            state: TaskState::Preparing,
            slot: None,
            program: None,
        };
        let task = self.change(|world, fresh| add_task(world, me, request, fresh))?;
        let runs = TaskChange { state: Some(TaskState::Running), ..TaskChange::default() };
        self.change(|world, fresh| change_task(world, me, &task.id, runs, fresh)).map(drop)
    }
}
