//! **Fact.** What the data plane counts, on the wire.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::{Snapshot, Vni};
use mesh_core::whois::Whois;
use mesh_ebpf::abi::Stats;
use mesh_ebpf::verdict::Event;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::dataplane::ebpf::{Occupancy, Served};

/// What the node's data plane counts as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Counters {
    /// How often each thing happened: `new_flow`, `no_backend`, …
    pub events: BTreeMap<String, u64>,
    /// How full the tables of flows are: `tcp`, `udp`.
    pub tables: BTreeMap<String, FlowTable>,
}

/// How full a table of flows is. A flow takes one entry on the way to its task, and one on the way back at the node
/// that translates it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct FlowTable {
    /// Entries that count.
    pub live: u64,
    /// Of those, established ones: they are never given up for others.
    pub established: u64,
    /// Entries that there is room for.
    pub slots: u64,
}

/// All that the node's data plane counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AllCounters {
    /// How often each thing happened: `new_flow`, `no_backend`, …
    pub events: BTreeMap<String, u64>,
    /// How full the tables of flows are: `tcp`, `udp`.
    pub tables: BTreeMap<String, FlowTable>,
    /// By name; what this node sent to their tasks.
    pub services: Vec<ServiceCounters>,
}

/// What a node sent to the tasks of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCounters {
    /// The service.
    pub name: String,
    /// New flows to the tasks that there are now.
    pub flows: u64,
    /// Packets to them.
    pub packets: u64,
    /// The packets' bytes, IP headers included.
    pub bytes: u64,
    /// The sums' parts.
    pub backends: Vec<BackendCounters>,
}

/// What a node sent to a task by one of its addresses, since the task came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct BackendCounters {
    /// `web.1`
    pub task: String,
    /// Where it runs.
    pub node: String,
    /// The network of its address.
    pub network: String,
    /// Its address.
    pub address: String,
    /// `active`, or `draining`: it gets no new flows.
    pub state: String,
    /// New flows.
    pub flows: u64,
    /// Packets to it.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

impl Counters {
    /// What was read.
    pub fn of(events: &[(Event, u64)], [tcp, udp]: [Occupancy; 2]) -> Self {
        let table = |Occupancy { live, established, slots }| FlowTable { live, established, slots };
        Self {
            events: events.iter().map(|(event, count)| (event.name().to_owned(), *count)).collect(),
            tables: [("tcp".to_owned(), table(tcp)), ("udp".to_owned(), table(udp))].into(),
        }
    }

    /// With what each service got, and nothing of single backends: of very many nobody is told more.
    pub fn with_sums(self, world: &Snapshot, served: &[Served]) -> AllCounters {
        // What got nothing adds nothing.
        let used = served.iter().filter(|served| served.stats != Stats::default());
        let used: HashMap<(Vni, IpAddr), Stats> =
            used.map(|served| ((served.vni, served.address), served.stats)).collect();
        let sum = |service: &Arc<mesh_core::model::Service>| {
            let mut sum = ServiceCounters { name: service.name.to_string(), ..ServiceCounters::default() };
            let tasks = world.tasks_of(&service.id).filter(|_| !used.is_empty());
            for (id, address) in tasks.flat_map(|task| &task.addresses) {
                let Some(network) = world.networks.get(id) else { continue };
                for Stats { flows, packets, bytes } in
                    address.addresses().filter_map(|address| used.get(&(network.vni, address)))
                {
                    sum.flows += flows;
                    sum.packets += packets;
                    sum.bytes += bytes;
                }
            }
            sum
        };
        let mut services: Vec<_> = world.services.values().map(sum).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        AllCounters { events: self.events, tables: self.tables, services }
    }

    /// With what each service got. A backend whose task is gone from the records belongs to none.
    pub fn with_services(self, world: &Snapshot, whois: &Whois, served: &[Served]) -> AllCounters {
        let name = |service: &mesh_core::model::Service| service.name.to_string();
        let mut services: BTreeMap<String, ServiceCounters> = world
            .services
            .values()
            .map(|service| (name(service), ServiceCounters { name: name(service), ..Default::default() }))
            .collect();
        for Served { vni, address, active, stats } in served {
            let Some(owner) = whois.task(*vni, *address) else { continue };
            let known = owner.service.as_ref().and_then(|name| services.get_mut(name.as_str()));
            let Some(service) = known else { continue };
            let Stats { flows, packets, bytes } = *stats;
            service.flows += flows;
            service.packets += packets;
            service.bytes += bytes;
            service.backends.push(BackendCounters {
                task: owner.task.clone(),
                node: owner.node.clone(),
                network: owner.network.to_string(),
                address: address.to_string(),
                state: if *active { "active" } else { "draining" }.to_owned(),
                flows,
                packets,
                bytes,
            });
        }
        let Self { events, tables } = self;
        let mut services: Vec<_> = services.into_values().collect();
        for service in &mut services {
            service.backends.sort_by(|a, b| (&a.task, &a.address).cmp(&(&b.task, &b.address)));
        }
        AllCounters { events, tables, services }
    }
}
