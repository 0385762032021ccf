//! **Effect.** What running flows need is carried over from maps of another size or layout.
//!
//! What they refer to goes first, when the new maps are made: nobody uses those yet. The flows follow right before the
//! programs are replaced, and once more right after, for what began in between. Each may be done again: what is known
//! already is left alone, or learns what happened to it since.

use std::fs;
use std::hash::Hash;

use aya::Pod;
use aya::maps::{HashMap, MapData, PerCpuArray};
use mesh_ebpf::abi::{
    AffinityKey, AffinityValue, Config, Frontend, SocketChoice, SocketKey, SocketOrigin, TCP, UDP, map,
};
use mesh_ebpf::flow::{Bucket, Head};
use mesh_ebpf::hash;

use super::super::EbpfError;
use super::super::books::{Found, Step};
use super::super::clock::now;
use super::super::mapped::Mapped;
use super::super::pinned::Pinned;
use super::{Maps, all, map_error};

/// Maps that flows are still to be carried over from, and those that they go to.
pub(in super::super) struct Former {
    pinned: Pinned,
    old: Tables,
    new: Tables,
    config: Mapped<Config>,
}

/// What is remembered of flows.
struct Tables {
    tcp: Mapped<Bucket>,
    udp: Mapped<Bucket>,
    affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    origins: HashMap<MapData, SocketKey, SocketOrigin>,
    choices: HashMap<MapData, SocketKey, SocketChoice>,
}

impl Former {
    /// Those that were set aside, and those that programs are to use.
    pub(in super::super) fn open(pinned: Pinned, new: &Pinned) -> Result<Self, EbpfError> {
        Ok(Self {
            old: Tables::open(&pinned)?,
            new: Tables::open(new)?,
            config: new.mapped(map::CONFIG)?,
            pinned,
        })
    }

    /// Has the new maps know what flows refer to under the same numbers, unless they do.
    pub(in super::super) fn carry_numbers(&self, new: &mut Maps) -> Result<(), EbpfError> {
        if new.config.get().tcp_mask != 0 {
            return Ok(());
        }
        let old = Maps::open(&self.pinned)?;
        new.write(&numbers(old.found()?).collect::<Vec<_>>())?;
        copy_counts(map::STATS, &old.stats, &mut new.stats)?;
        copy_counts(map::EVENTS, &old.events, &mut new.events)?;
        // Last: it says that all this was done.
        new.config.change(|config| *config = old.config.get());
        Ok(())
    }

    /// Has the new maps know the flows.
    pub(in super::super) fn carry_flows(&mut self) -> Result<(), EbpfError> {
        let config = self.config.get(0);
        carry_table(&self.old.tcp, &self.new.tcp, TCP, &config);
        carry_table(&self.old.udp, &self.new.udp, UDP, &config);
        copy_missing(map::AFFINITY, &self.old.affinity, &mut self.new.affinity)?;
        copy_missing(map::SOCK_REV, &self.old.origins, &mut self.new.origins)?;
        copy_missing(map::SOCK_FWD, &self.old.choices, &mut self.new.choices)
    }

    /// Nobody uses the old ones any more.
    pub(in super::super) fn forget(self) {
        // Whoever starts next tries again.
        let _ = fs::remove_dir_all(self.pinned.dir());
    }
}

impl Tables {
    fn open(maps: &Pinned) -> Result<Self, EbpfError> {
        Ok(Self {
            tcp: maps.mapped(map::FLOWS_TCP)?,
            udp: maps.mapped(map::FLOWS_UDP)?,
            affinity: maps.open(map::AFFINITY)?,
            origins: maps.open(map::SOCK_REV)?,
            choices: maps.open(map::SOCK_FWD)?,
        })
    }
}

/// Backends, nodes, frontends and the filters in front of them. Frontends lead nowhere until the first round writes their slots.
fn numbers(found: Found) -> impl Iterator<Item = Step> {
    let backends = found.backends.into_iter().map(|(id, backend)| Step::Backend(id, backend));
    let peers = found
        .peers
        .into_iter()
        .flat_map(|(addr, number, peer)| [Step::Peer(number, peer), Step::PeerId(addr, Some(number))]);
    let frontends = found.frontends.into_iter().map(|(key, frontend)| {
        Step::Frontend(key, Some(Frontend { backends: 0, slots: 0, mask: 0, ..frontend }))
    });
    // What lets connections by whose frontend has gone already.
    let ports = found.ports.into_iter().map(|(index, word)| Step::PortWord(index, word));
    let vips = found.vips.into_iter().map(|(index, word)| Step::VipWord(index, word));
    backends.chain(peers).chain(frontends).chain(ports).chain(vips)
}

fn carry_table(old: &Mapped<Bucket>, new: &Mapped<Bucket>, proto: u8, config: &Config) {
    let now = now();
    for flow in old.flows() {
        let head = Head(flow.head);
        let Some(role) = head.role().filter(|_| head.age(now) <= head.timeout(proto, &config.timeouts))
        else {
            continue;
        };
        let place = hash::place(&flow.tuple, config.table_seed) as usize & (new.len() - 1);
        let bucket = new.bucket(place);
        match bucket.find(&flow.tuple, role) {
            Some(known) => _ = known.set(known.head.joined(head, now)),
            None => _ = bucket.insert(&flow, proto, now, &config.timeouts),
        }
    }
}

fn copy_missing<K: Pod + Eq + Hash, V: Pod>(
    name: &'static str,
    old: &HashMap<MapData, K, V>,
    new: &mut HashMap<MapData, K, V>,
) -> Result<(), EbpfError> {
    for (key, value) in all(old, name)? {
        if new.get(&key, 0).is_err() {
            new.insert(key, value, 0).map_err(|source| map_error(name, source))?;
        }
    }
    Ok(())
}

fn copy_counts<V: Pod>(
    name: &'static str,
    old: &PerCpuArray<MapData, V>,
    new: &mut PerCpuArray<MapData, V>,
) -> Result<(), EbpfError> {
    for index in 0..old.len().min(new.len()) {
        let copied = old.get(&index, 0).and_then(|values| new.set(index, values, 0));
        copied.map_err(|source| map_error(name, source))?;
    }
    Ok(())
}
