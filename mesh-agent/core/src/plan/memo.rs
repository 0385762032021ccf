//! **Decision.** What the last plan made of which records: the same records make the same again.
//!
//! A plan that is made with it shares what stayed with the last one. Who compares the two need not look at that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::balance::{Frontend, Pool, Site};
use crate::model::{Network, NetworkId, Node, NodeId, Service, ServiceId, SharedMap, Snapshot, Task, Vni};

/// What a service adds to the balance.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) frontends: Vec<(Frontend, Arc<Pool>)>,
    pub(super) sites: Vec<((Vni, IpAddr), Arc<Site>)>,
}

/// What it was made of: the service, and its tasks with whether each is in the balance.
type Records = (Arc<Service>, Vec<(Arc<Task>, bool)>);

/// Parts, and what each was made of.
#[derive(Debug, Default)]
pub(super) struct Memo {
    around: Option<Around>,
    last: BTreeMap<ServiceId, (Records, Part)>,
    parts: BTreeMap<ServiceId, (Records, Part)>,
}

/// What every part depends on.
#[derive(Debug, PartialEq, Eq)]
struct Around {
    me: NodeId,
    nodes: SharedMap<NodeId, Arc<Node>>,
    networks: SharedMap<NetworkId, Arc<Network>>,
}

impl Memo {
    /// A plan begins.
    pub(super) fn begin(&mut self, world: &Snapshot, me: &Node) {
        let (nodes, networks) = (world.nodes.clone(), world.networks.clone());
        let around = Some(Around { me: me.id.clone(), nodes, networks });
        self.last = std::mem::take(&mut self.parts);
        if self.around != around {
            self.last.clear();
            self.around = around;
        }
    }

    /// The part of a service: the last plan's, or a new one.
    pub(super) fn part(
        &mut self,
        service: &Arc<Service>,
        tasks: Vec<(Arc<Task>, bool)>,
        make: impl FnOnce(&[(Arc<Task>, bool)]) -> Part,
    ) -> &Part {
        let records = (Arc::clone(service), tasks);
        let last = self.last.remove(&service.id).filter(|(last, _)| *last == records);
        let part = last.unwrap_or_else(|| {
            let part = make(&records.1);
            (records, part)
        });
        &self.parts.entry(service.id.clone()).insert_entry(part).into_mut().1
    }
}
