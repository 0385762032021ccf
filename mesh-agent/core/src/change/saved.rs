//! **Decision.** What is put right in records that one manager has saved alone, when most are lost.

use crate::kv::{KeyValue, Txn};
use crate::model::{Identity, Node, NodeId, Role, Snapshot, Timestamp};
use crate::records::{self, GENERATION, to_json};

/// What a manager that goes on alone writes first, by what its member still has and by what the node has seen.
///
/// The others are managers no more; one that comes back all the same has no more rights than a worker. The member may be
/// behind what this node has seen of itself: an epoch that was given out once is not given out again, for it fences.
/// The new generation says that all this is meant.
pub fn go_on_alone(kvs: &[KeyValue], world: &Snapshot, me: &NodeId, now: Timestamp) -> Txn {
    let mut txn = Txn::default();
    let own = records::identity(me);
    for kv in kvs.iter().filter(|kv| kv.key.starts_with("identity/") && kv.key != own) {
        if let Ok(identity) = serde_json::from_str::<Identity>(&kv.value)
            && identity.role == Role::Manager
        {
            txn.put(kv.key.clone(), to_json(&Identity { role: Role::Worker, ..identity }));
        }
    }
    let key = records::node(me);
    let saved = kvs.iter().find(|kv| kv.key == key);
    let saved = saved.and_then(|kv| serde_json::from_str::<Node>(&kv.value).ok());
    if let Some(node) = world.nodes.get(me)
        && saved.is_none_or(|saved| saved.epoch < node.epoch)
    {
        txn.put(key, to_json(node));
    }
    let generation = records::generation(kvs).max(world.generation);
    txn.put(GENERATION, records::generation_after(generation, now).to_string());
    txn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Fresh, NodeFacts, join};
    use crate::kv::{KvState, Listing};
    use crate::replica::Replica;

    fn facts() -> NodeFacts {
        NodeFacts {
            name: "n1".parse().unwrap(),
            address: "192.0.2.1".parse().unwrap(),
            vxlan_port: 4789,
            boot: String::new(),
            uplink_mtu: 1500,
            listeners: Default::default(),
            routes: Default::default(),
            version: String::new(),
            key: String::new(),
            reflects: false,
        }
    }

    #[test]
    fn an_epoch_that_only_the_lost_ones_had_written_down_is_not_given_out_again() {
        let (mut store, mut replica, me) = (KvState::default(), Replica::default(), NodeId::new("n1"));
        let empty = Listing { cluster: "c".to_owned(), rev: store.rev(), kvs: Vec::new() };
        replica.resync(empty, false).unwrap();
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept = store.range("").cloned().collect();
            let txn = join(replica.world(), &me, facts(), Fresh { id: [1; 16], now: 0 }).unwrap().txn;
            let batch = store.prepare(&txn).unwrap().unwrap();
            store.install(batch.clone());
            replica.apply(batch);
        }
        let seen = replica.world().nodes[&me].epoch;
        let txn = go_on_alone(&kept, replica.world(), &me, 5);
        let node = txn.ops.iter().find(|op| op.key() == "node/n1").expect("it is put right");
        assert!(format!("{node:?}").contains(&format!("\\\"epoch\\\":{seen}")), "{node:?}");
        // Where nothing is behind there is nothing to put right but the generation.
        let whole: Vec<_> = store.range("").cloned().collect();
        let keys: Vec<_> = go_on_alone(&whole, replica.world(), &me, 5).ops;
        assert_eq!(keys.iter().map(|op| op.key()).collect::<Vec<_>>(), [GENERATION]);
    }
}
