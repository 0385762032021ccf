//! **Decision.** What is put right in records that one manager has saved alone, when most are lost.

use std::collections::BTreeSet;

use crate::kv::{KeyValue, MAX_OPS, Txn};
use crate::model::{Identity, Node, NodeId, Role, Snapshot, Timestamp};
use crate::records::{self, GENERATION, to_json};

/// What a manager that goes on alone writes first, by what its member still has and by what the node has seen.
///
/// The others are managers no more; one that comes back all the same has no more rights than a worker. The member may be
/// behind what this node has seen: of itself, and an epoch that was given out once is not given out again, for it fences;
/// of removed nodes, which stay removed. The new generation says that all this is meant.
pub fn go_on_alone(kvs: &[KeyValue], world: &Snapshot, me: &NodeId, now: Timestamp) -> Txn {
    let mut txn = Txn::default();
    let own = records::identity(me);
    let removed: BTreeSet<_> = world.denied.values().map(|denied| denied.node.as_str()).collect();
    let identities = kvs.iter().filter(|kv| kv.key.starts_with("identity/") && *kv.key != *own);
    for kv in identities.filter(|kv| !kv.key.strip_prefix("identity/").is_some_and(|id| removed.contains(id)))
    {
        if let Ok(identity) = serde_json::from_str::<Identity>(&kv.value)
            && identity.role == Role::Manager
        {
            txn.put(&*kv.key, to_json(&Identity { role: Role::Worker, ..identity }));
        }
    }
    remove_again(kvs, world, &removed, &mut txn);
    let key = records::node(me);
    let saved = kvs.iter().find(|kv| *kv.key == *key);
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

/// A removal that only the lost ones had written down.
fn remove_again(kvs: &[KeyValue], world: &Snapshot, removed: &BTreeSet<&str>, txn: &mut Txn) {
    let there: BTreeSet<_> = kvs.iter().map(|kv| &*kv.key).collect();
    for (serial, denied) in &world.denied {
        let key = records::denied(serial);
        if !there.contains(key.as_str()) && txn.ops.len() < MAX_OPS / 2 {
            txn.put(key, to_json(denied));
        }
    }
    for KeyValue { key, value, .. } in kvs {
        let of = key.strip_prefix("identity/").or_else(|| records::node_of(key, value));
        if of.is_some_and(|node| removed.contains(node)) && txn.ops.len() < MAX_OPS - 8 {
            txn.delete(&**key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Fresh, NodeFacts, identity, join, remove_node};
    use crate::kv::{KvState, Listing};
    use crate::model::Certificate;
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

    #[test]
    fn who_was_removed_stays_removed_though_only_the_lost_ones_had_written_it_down() {
        let (mut store, mut replica) = (KvState::default(), Replica::default());
        let empty = Listing { cluster: "c".to_owned(), rev: store.rev(), kvs: Vec::new() };
        replica.resync(empty, false).unwrap();
        let mut commit = |replica: &mut Replica, txn: &Txn| {
            let batch = store.prepare(txn).unwrap().unwrap();
            store.install(batch.clone());
            replica.apply(batch);
            store.range("").cloned().collect::<Vec<_>>()
        };
        let (me, gone, fresh) = (NodeId::new("n1"), NodeId::new("n2"), Fresh { id: [1; 16], now: 0 });
        for (id, address) in [(&me, "192.0.2.1"), (&gone, "192.0.2.2")] {
            let certificate = Certificate { serial: format!("of-{id}"), until: 100 };
            commit(&mut replica, &identity::begin(&Snapshot::default(), id, certificate, fresh).txn);
            let facts = NodeFacts {
                name: id.as_str().parse().unwrap(),
                address: address.parse().unwrap(),
                ..facts()
            };
            let joined = join(replica.world(), id, facts, fresh).unwrap().txn;
            commit(&mut replica, &joined);
        }
        let demoted = identity::set_role(replica.world(), &gone, Role::Worker).unwrap().txn;
        let behind = commit(&mut replica, &demoted);
        let removed = remove_node(replica.world(), "n2", true).unwrap().txn;
        commit(&mut replica, &removed);

        let txn = go_on_alone(&behind, replica.world(), &me, 5);
        let mut member = KvState::restore(store.rev(), behind);
        let batch = member.prepare(&txn).unwrap().unwrap();
        member.install(batch);
        let keys: Vec<_> = member.range("").map(|kv| &*kv.key).collect();
        assert_eq!(keys, ["denied/of-n2", "identity/n1", "idx/node/n1", GENERATION, "node/n1"]);
    }
}
