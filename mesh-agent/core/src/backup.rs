//! **Decision.** Records as a file: what a backup is made of, and what is taken over from one.
//!
//! Text, a line per record, so that people can read it and any engine can take it: a head, the records, and an end
//! that proves that nothing is missing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::kv::{Listing, Op, Rev, Txn};
use crate::model::{NodeId, Timestamp};
use crate::records::{self, GENERATION, to_json};

/// What this version writes and reads.
const FORMAT: u32 = 1;
/// How many records are taken over in one transaction…
const OPS: usize = 256;
/// …and how many bytes.
const BYTES: usize = 1 << 20;

/// The records of a mesh at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Which mesh.
    pub cluster: String,
    /// Which generation of its records.
    pub generation: u64,
    /// The revision.
    pub rev: Rev,
    /// Keys and values.
    pub records: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    mesh_backup: u32,
    cluster: String,
    generation: u64,
    rev: Rev,
    records: usize,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    checksum: String,
}

impl Backup {
    /// All that is worth keeping of a full listing: signs of life are not, nor who has which certificate, which comes anew
    /// with the authority of another cluster.
    pub fn of(listing: Listing) -> Self {
        let generation = records::generation(&listing.kvs);
        let kept = listing
            .kvs
            .into_iter()
            .filter(|kv| is_kept(&kv.key))
            .map(|kv| (kv.key.to_string(), kv.value.to_string()));
        Self { cluster: listing.cluster, generation, rev: listing.rev, records: kept.collect() }
    }

    /// Whether no other node has its records here. `Err` says in words which have, and what to do; `live` are the nodes that
    /// show that they live.
    pub fn is_sole(&self, me: &NodeId, live: &BTreeSet<NodeId>) -> Result<(), String> {
        let mut others = Vec::new();
        let mut own = false;
        for (key, id) in &self.records {
            let Some(name) = key.strip_prefix("idx/node/") else { continue };
            if id == me.as_str() {
                own = true;
            } else if live.contains(&NodeId::new(id.as_str())) {
                others
                    .push(format!("{name}: run 'mesh cluster leave' there, then 'mesh node rm {name}' here"));
            } else {
                others.push(format!(
                    "{name}, whose agent does not answer: 'mesh node rm {name}' here, if it is gone for good"
                ));
            }
        }
        if !others.is_empty() {
            return Err(format!(
                "{} other nodes have their records there, too, and would be left without ({})",
                others.len(),
                others.join("; ")
            ));
        }
        if own { Ok(()) } else { Err("this node has no record there: it is not of that mesh".to_owned()) }
    }

    /// As a file has it.
    pub fn to_text(&self) -> String {
        let Self { cluster, generation, rev, records } = self;
        let head = Head {
            mesh_backup: FORMAT,
            cluster: cluster.clone(),
            generation: *generation,
            rev: *rev,
            records: records.len(),
        };
        let mut text = to_json(&head) + "\n";
        for (key, value) in records {
            text.push_str(&to_json(&Line { key: key.clone(), value: value.clone() }));
            text.push('\n');
        }
        let end = End { checksum: checksum(text.as_bytes()) };
        text + &to_json(&end) + "\n"
    }

    /// Reads a file; `Err` says in words what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = text.strip_suffix('\n').ok_or("it has no end: it was cut off")?;
        let (body, last) = whole.rsplit_once('\n').ok_or("it is no backup of a mesh")?;
        let mut lines = body.lines();
        let head: Head = lines
            .next()
            .and_then(|head| serde_json::from_str(head).ok())
            .ok_or("it is no backup of a mesh")?;
        if head.mesh_backup != FORMAT {
            return Err(format!("it was written by a newer version (format {})", head.mesh_backup));
        }
        let end: End = serde_json::from_str(last).map_err(|_| "it has no end: it was cut off")?;
        if end.checksum != checksum(&text.as_bytes()[..body.len() + 1]) {
            return Err("its checksum is wrong: it was damaged or changed".to_owned());
        }
        let read = |line: &str| {
            let line: Result<Line, _> = serde_json::from_str(line);
            line.map(|Line { key, value }| (key, value)).map_err(|error| error.to_string())
        };
        let records = lines.map(read).collect::<Result<Vec<_>, _>>()?;
        if records.len() != head.records {
            return Err(format!("it has {} records of {}", records.len(), head.records));
        }
        Ok(Self { cluster: head.cluster, generation: head.generation, rev: head.rev, records })
    }

    /// The same without the nodes but one. They have no certificates of the cluster that begins with it, and join again, by
    /// other ids; one that was removed since does not. Their former records would keep their names, addresses and blocks,
    /// and lead flows to tasks that nobody answers for.
    #[must_use]
    pub fn without_others(self, me: &NodeId) -> Self {
        let is_kept = |(key, value): &(String, String)| {
            records::node_of(key, value).is_none_or(|node| node == me.as_str())
        };
        Self { records: self.records.into_iter().filter(is_kept).collect(), ..self }
    }

    /// The transactions that fill an empty store with it, the generation at last: until then it counts for nothing.
    /// `more` is what makes this node the first manager, if a cluster keeps them from then on.
    pub fn fill(&self, more: Vec<Op>, seen: u64, now: Timestamp) -> Vec<Txn> {
        let mut txns = vec![Txn::default()];
        let mut bytes = 0;
        let kept = self.records.iter().filter(|(key, _)| is_kept(key) && key != GENERATION);
        for (key, value) in kept {
            bytes += key.len() + value.len();
            if bytes > BYTES || txns.last().is_some_and(|txn| txn.ops.len() >= OPS) {
                txns.push(Txn::default());
                bytes = key.len() + value.len();
            }
            if let Some(txn) = txns.last_mut() {
                txn.put(key, value);
            }
        }
        let mut last = Txn { compares: Vec::new(), ops: more };
        last.put(GENERATION, records::generation_after(self.generation.max(seen), now).to_string());
        txns.push(last);
        txns.retain(|txn| !txn.ops.is_empty());
        txns
    }
}

fn is_kept(key: &str) -> bool {
    let of_certificates = ["identity/", "authority/", "denied/", "token/", "csr/", "cert/"];
    records::matters(key) && !of_certificates.iter().any(|kind| key.starts_with(kind))
}

/// FNV-1a: it is against torn writes and bad disks, not against people.
fn checksum(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kv::{KvState, MAX_BYTES, MAX_OPS};

    fn backup(records: Vec<(String, String)>) -> Backup {
        Backup { cluster: "c".to_owned(), generation: 3, rev: Rev(9), records }
    }

    #[test]
    fn what_is_damaged_is_told() {
        let text = backup(vec![("svc/a".to_owned(), "{}".to_owned())]).to_text();
        let wrong = |text: &str| Backup::parse(text).unwrap_err();
        assert!(wrong("").contains("cut off"));
        assert!(wrong("hello\nworld\n").contains("no backup"));
        assert!(wrong(&text[..text.len() - 1]).contains("cut off"));
        assert!(wrong(&text.replace("svc/a", "svc/b")).contains("checksum"));
        assert!(wrong(&text.replace("\"mesh_backup\":1", "\"mesh_backup\":2")).contains("newer"));
        let cut: Vec<_> = text.lines().take(2).collect();
        assert!(wrong(&(cut.join("\n") + "\n")).contains("cut off"));
    }

    #[test]
    fn records_of_other_nodes_are_not_left_behind() {
        let kv = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let me = NodeId::new("a");
        let live = [NodeId::new("a"), NodeId::new("b")].into();
        let sole = |names: &[(&str, &str)]| {
            let names = names.iter().map(|(name, id)| kv(&format!("idx/node/{name}"), id));
            backup(names.chain([kv("svc/s", "{}")]).collect()).is_sole(&me, &live)
        };
        assert_eq!(sole(&[("n1", "a")]), Ok(()));
        let why = sole(&[("n1", "a"), ("n2", "b"), ("n3", "c")]).unwrap_err();
        assert!(why.contains("2 other nodes") && why.contains("n2: run 'mesh cluster leave' there"), "{why}");
        assert!(why.contains("n3, whose agent does not answer"), "{why}");
        assert!(sole(&[]).unwrap_err().contains("no record there"));
    }

    /// It has to join again anyway, by another id; and whoever was removed since the backup was made is not to come back.
    #[test]
    fn of_nodes_only_the_one_that_restores_it_comes_back() {
        let kv = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = backup(vec![
            kv("claim/block/net/3", "{}"),
            kv("down/b", "{}"),
            kv("guard/node/a", "blocks"),
            kv("guard/node/b", "blocks"),
            kv("idx/node/n1", "a"),
            kv("idx/node/n2", "b"),
            kv("node/a", "{}"),
            kv("node/b", "{}"),
            kv("nodespec/a", "{}"),
            kv("nodespec/b", "{}"),
            kv("task/t", "{}"),
        ]);
        let restored = all.without_others(&NodeId::new("a"));
        let keys: Vec<_> = restored.records.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            ["claim/block/net/3", "guard/node/a", "idx/node/n1", "node/a", "nodespec/a", "task/t"],
            "what nobody holds any more goes by itself"
        );
    }

    #[test]
    fn signs_of_life_and_former_managers_are_left_behind() {
        let kv = |key: &str| (key.to_owned(), "{}".to_owned());
        let all = backup(
            ["live/a", "csr/a", "cert/a", "identity/a", "token/worker", "denied/1", "net/a"].map(kv).to_vec(),
        );
        let more = Op::Put { key: "identity/b".to_owned(), value: "{}".to_owned(), lease: None };
        let txns = all.fill(vec![more], 5, 0);
        let keys: Vec<_> = txns.iter().flat_map(|txn| &txn.ops).map(Op::key).collect();
        assert_eq!(keys, ["net/a", "identity/b", GENERATION]);
        assert!(matches!(&txns[1].ops[1], Op::Put { value, .. } if value == "6"));
    }

    proptest! {
        /// Whatever is in a store, another one has the same after a backup was made, written, read and taken over.
        #[test]
        fn nothing_is_lost(records in prop::collection::btree_map("(net|svc|task)/[a-z]{1,6}", ".{0,40}", 0..700)) {
            let records: Vec<_> = records.into_iter().collect();
            let made = backup(records.clone());
            let read = Backup::parse(&made.to_text()).unwrap();
            prop_assert_eq!(&read, &made);
            let mut state = KvState::default();
            for txn in read.fill(Vec::new(), 0, 0) {
                prop_assert!(txn.ops.len() <= MAX_OPS && to_json(&txn).len() <= 2 * MAX_BYTES);
                let batch = state.prepare(&txn).unwrap().unwrap();
                state.install(batch);
            }
            let there = state.range("").filter(|kv| *kv.key != *GENERATION);
            let there: Vec<_> = there.map(|kv| (kv.key.to_string(), kv.value.to_string())).collect();
            prop_assert_eq!(there, records);
        }
    }
}
