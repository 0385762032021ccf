//! **Effect.** What tasks make of connections, as programs count it.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData};
use mesh_core::model::{Protocol, TaskId};
use mesh_core::passive::{Counts, Place};
use mesh_ebpf::abi::map::{SERVED, SIGNS};
use mesh_ebpf::abi::{self, JUDGED, NetPort, Served, ServedKey, Sign, TCP, UDP};

use super::EbpfError;
use super::mapped::Mapped;
use super::maps::{map_error, take};

/// The maps that say what is counted, and what was.
pub struct Signs {
    served: HashMap<MapData, ServedKey, Served>,
    counts: Mapped<abi::Signs>,
    /// Whose counts are where.
    places: BTreeMap<TaskId, u32>,
    written: BTreeMap<ServedKey, Served>,
}

impl Signs {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        let served = take(ebpf, SERVED)?;
        let counts = ebpf.take_map(SIGNS).ok_or(EbpfError::Incomplete { kind: "map", name: SIGNS })?;
        let Map::Array(counts) = counts else {
            return Err(EbpfError::Incomplete { kind: "array", name: SIGNS });
        };
        let counts =
            Mapped::new(counts.fd(), JUDGED).map_err(|source| EbpfError::Share { map: SIGNS, source })?;
        Ok(Self { served, counts, places: BTreeMap::new(), written: BTreeMap::new() })
    }

    /// From now on these are counted. Those that there is no room for are not.
    pub fn count(&mut self, judged: &BTreeMap<TaskId, BTreeSet<Place>>) -> Result<(), EbpfError> {
        self.places.retain(|id, _| judged.contains_key(id));
        let used: BTreeSet<u32> = self.places.values().copied().collect();
        let mut free = (0..JUDGED).filter(|index| !used.contains(index));
        for id in judged.keys() {
            if !self.places.contains_key(id)
                && let Some(index) = free.next()
            {
                self.places.insert(id.clone(), index);
            }
        }
        let mut wanted = BTreeMap::new();
        for (id, places) in judged {
            let Some(index) = self.places.get(id) else { continue };
            for Place { vni, address, port, protocol } in places {
                let key = ServedKey::new((*address).into(), NetPort::new(*port), number(*protocol));
                wanted.insert(key, Served { index: *index, vni: vni.0 });
            }
        }
        let failed = |source| map_error(SERVED, source);
        let gone: Vec<_> = self.written.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            self.served.remove(&key).map_err(failed)?;
            self.written.remove(&key);
        }
        for (key, value) in wanted {
            if self.written.get(&key) != Some(&value) {
                self.served.insert(key, value, 0).map_err(failed)?;
                self.written.insert(key, value);
            }
        }
        Ok(())
    }

    /// What was counted of a task.
    pub fn of(&self, task: &TaskId) -> Option<Counts> {
        let signs = self.counts.get(*self.places.get(task)? as usize);
        Some(Counts {
            begun: signs.of(Sign::Begun),
            answered: signs.of(Sign::Answered),
            refused: signs.of(Sign::Refused),
            unreachable: signs.of(Sign::Unreachable),
        })
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}
