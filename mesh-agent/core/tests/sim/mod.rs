//! A mesh without a kernel: the store's semantics, one copy of the world, and the decisions in between.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use mesh_core::change::{
    self, AttachmentRequest, Change, Fresh, Me, NodeFacts, Refusal, ServiceRequest, TaskChange, TaskRequest,
};
use mesh_core::kv::{KvState, Listing, Txn};
use mesh_core::model::{
    Affinity, Balancing, EndpointMode, Locality, NodeId, Origin, Role, Snapshot, Task, TaskId, TaskState,
};
use mesh_core::replica::Replica;
use mesh_core::rights::{self, Caller};

/// A service of network `app`, and nothing special about it.
pub(crate) fn service(name: &str) -> ServiceRequest {
    ServiceRequest {
        name: name.to_owned(),
        networks: vec![AttachmentRequest { network: "app".to_owned(), aliases: Vec::new() }],
        mode: EndpointMode::Vip,
        ports: Vec::new(),
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: Duration::from_secs(1),
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Default::default(),
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: Default::default(),
    }
}

#[derive(Default)]
pub(crate) struct Sim {
    pub(crate) store: KvState,
    replica: Replica,
    next: u16,
    waited: u64,
}

impl Sim {
    pub(crate) fn new() -> Self {
        let mut sim = Self::default();
        let empty = Listing { cluster: "sim".to_owned(), rev: sim.store.rev(), kvs: Vec::new() };
        sim.replica.resync(empty, false).unwrap();
        sim
    }

    pub(crate) fn world(&self) -> &Snapshot {
        self.replica.world()
    }

    pub(crate) fn fresh(&mut self) -> Fresh {
        self.next += 1;
        let [high, low] = self.next.to_be_bytes();
        let mut id = [low; 16];
        id[0] ^= high;
        Fresh { id, now: self.now() }
    }

    /// The time: each change takes a second.
    pub(crate) fn now(&self) -> u64 {
        (u64::from(self.next) + self.waited) * 1000
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.waited += seconds;
    }

    /// Commits a transaction; false when a condition does not hold.
    pub(crate) fn commit(&mut self, txn: &Txn) -> bool {
        let Ok(batch) = self.store.prepare(txn).expect("transactions of decisions are valid") else {
            return false;
        };
        self.store.install(batch.clone());
        self.replica.apply(batch);
        true
    }

    pub(crate) fn change<T>(
        &mut self,
        decide: impl FnOnce(&Snapshot, Fresh) -> Result<Change<T>, Refusal>,
    ) -> Result<T, Refusal> {
        let fresh = self.fresh();
        let change = decide(self.world(), fresh)?;
        assert!(self.commit(&change.txn), "a decision on the newest world commits");
        Ok(change.result)
    }

    /// A change that a node makes of its own: it may do so as a worker, and no other worker may.
    pub(crate) fn own_change<T>(
        &mut self,
        node: &NodeId,
        decide: impl FnOnce(&Snapshot, Fresh) -> Result<Change<T>, Refusal>,
    ) -> Result<T, Refusal> {
        let fresh = self.fresh();
        let change = decide(self.world(), fresh)?;
        let judged =
            |node| rights::may_commit(self.world(), &Caller::Node(node, Role::Worker), change.txn.clone());
        let txn = judged(node.clone()).expect("a worker may write what is its own");
        if !txn.ops.is_empty() {
            judged(NodeId::new("stranger")).expect_err("another worker may not");
        }
        assert!(self.commit(&txn), "a decision on the newest world commits");
        Ok(change.result)
    }

    pub(crate) fn join(&mut self, name: &str, address: &str) -> Result<NodeId, Refusal> {
        let id = NodeId::new(format!("{name}id"));
        let facts = NodeFacts {
            name: name.parse()?,
            address: address.parse().expect("an address"),
            vxlan_port: 4789,
            boot: "boot".to_owned(),
            key: String::new(),
            reflects: false,
            uplink_mtu: 1500,
            listeners: Default::default(),
            routes: Default::default(),
            version: "0".to_owned(),
        };
        self.own_change(&id.clone(), |world, fresh| change::join(world, &id, facts, fresh))?;
        Ok(id)
    }

    pub(crate) fn me(&self, name: &str) -> Me {
        let node = self.world().node(name).expect("a node of this name");
        Me { id: node.id.clone(), epoch: node.epoch }
    }

    pub(crate) fn claim_blocks(&mut self) {
        for id in self.world().nodes.keys().cloned().collect::<Vec<_>>() {
            let me = Me { epoch: self.world().nodes[&id].epoch, id };
            self.own_change(&me.id, |world, _| change::claim_blocks(world, &me)).unwrap();
        }
    }

    /// What every node's agent does by itself after a change.
    pub(crate) fn reattach(&mut self) {
        for task in self.world().tasks.values().cloned().collect::<Vec<_>>() {
            if let Some(node) = self.world().nodes.get(&task.node) {
                let me = Me { id: node.id.clone(), epoch: node.epoch };
                // An exhausted pool is a fine reason.
                let _ = self
                    .own_change(&me.id, |world, fresh| change::reattach_task(world, &me, &task.id, fresh));
            }
        }
    }

    /// A task that runs.
    pub(crate) fn task(&mut self, service: &str, node: &str) -> Result<Task, Refusal> {
        let me = self.me(node);
        let origin = Origin::Process { pid: u32::from(self.next), start: 1, supervised: true };
        let request = TaskRequest {
            dns: Vec::new(),
            packets_only: false,
            service: Some(service.to_owned()),
            name: None,
            networks: Vec::new(),
            origin,
            weight: 1,
            state: TaskState::Preparing,
            slot: None,
            program: None,
        };
        let task = self.own_change(&me.id, |world, fresh| change::add_task(world, &me, request, fresh))?;
        self.set(node, &task.id, TaskChange { state: Some(TaskState::Running), ..TaskChange::default() })
    }

    pub(crate) fn set(&mut self, node: &str, id: &TaskId, wanted: TaskChange) -> Result<Task, Refusal> {
        let me = self.me(node);
        self.own_change(&me.id, |world, fresh| change::change_task(world, &me, id, wanted, fresh))
    }
}
