//! **Decision.** Frontends and who may use them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_core::maglev::Weighted;
use mesh_core::model::{Affinity, Balancing, Protocol, ReturnPath, SharedMap, fnv64};
use mesh_core::plan::{self, Family, Pool};
use mesh_ebpf::abi::{Addr16, FrontendKey, NetPort, SourceKey, TCP, UDP};

use super::super::ids::Ids;
use super::filters::Filters;
use super::tables::{Content, Tables, order_of};
use super::{Backends, Found, Problems, Running, Sizes, Step};

/// What is known of a frontend.
#[derive(Debug)]
struct Known {
    value: mesh_ebpf::abi::Frontend,
    /// Where its table begins, if there is anybody to lead to.
    table: Option<u32>,
    sources: BTreeSet<(u32, SourceKey)>,
}

/// What a frontend is to be.
struct Asked {
    at: plan::Frontend,
    key: FrontendKey,
    /// With the backends that can be reached.
    pool: Arc<Pool>,
    /// None: there are no such.
    content: Option<Content>,
}

/// All frontends.
pub(in super::super) struct Frontends {
    /// As they were put: of the backends those that could be reached.
    pools: SharedMap<plan::Frontend, Arc<Pool>>,
    known: BTreeMap<FrontendKey, Known>,
    ids: Ids,
    tables: Tables,
    filters: Filters,
    /// Where connections lead that go on though their frontend has gone.
    former: Running,
    /// Entries that were found and cannot be ours: without a number, or with another's.
    strays: (Vec<FrontendKey>, BTreeSet<(u32, SourceKey)>),
}

impl Frontends {
    pub(super) fn open(sizes: &Sizes, found: &Found) -> Self {
        let mut all = Self {
            pools: SharedMap::default(),
            known: BTreeMap::new(),
            ids: Ids::new(1..sizes.frontends),
            tables: Tables::new(sizes.slots),
            filters: Filters::open(found),
            former: Running::new(),
            strays: Default::default(),
        };
        let mut sources: BTreeMap<u32, BTreeSet<_>> = BTreeMap::new();
        for source in &found.sources {
            sources.entry(source.1.frontend).or_default().insert(*source);
        }
        for (key, value) in &found.frontends {
            if value.id != 0 && all.ids.take_that(value.id) {
                let leads =
                    value.backends > 0 && all.tables.find(value.slots, (value.mask + 1).trailing_zeros());
                let table = leads.then_some(value.slots);
                let sources = sources.remove(&value.id).unwrap_or_default();
                all.known.insert(*key, Known { value: *value, table, sources });
                all.filters.add(key);
            } else {
                all.strays.0.push(*key);
            }
        }
        all.strays.1 = sources.into_values().flatten().collect();
        all.settle(&found.running);
        all
    }

    pub(super) fn put(
        &mut self,
        want: &SharedMap<plan::Frontend, Arc<Pool>>,
        backends: &mut Backends,
        steps: &mut Vec<Step>,
        problems: &mut Problems,
    ) {
        self.tables.begin();
        // The first round: what another agent left may be nobody's any more.
        let first = self.pools.is_empty();
        let before = std::mem::replace(&mut self.pools, want.clone());
        let (mut came, mut left, mut todo) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (at, was, is) in before.changes(want) {
            let key = key_of(at);
            let Some(wanted) = is else {
                left.push(key);
                continue;
            };
            if was.is_none() {
                came.insert(key);
            }
            let (pool, content) = reached(Arc::clone(wanted), backends);
            if !Arc::ptr_eq(&pool, wanted) {
                self.pools.insert(at.clone(), Arc::clone(&pool));
            }
            // A backend may have become known since.
            if was == Some(&pool) {
                continue;
            }
            let table = self.known.get(&key).and_then(|known| known.table);
            if let (Some(table), Some(content)) = (table, &content) {
                self.tables.announce(table, content);
            }
            todo.push(Asked { at: at.clone(), key, pool, content });
        }
        if first {
            left.extend(self.known.keys().copied());
        }
        for asked in todo {
            let Err(why) = self.put_one(&asked, backends, steps) else { continue };
            problems.insert(format!("service {}", asked.pool.service), why);
            // It is as it was, and is asked for again.
            match before.get(&asked.at) {
                Some(was) => _ = self.pools.insert(asked.at, Arc::clone(was)),
                None => _ = self.pools.remove(&asked.at),
            }
        }
        steps.extend(self.filters.mend());
        if !came.is_empty() && !self.former.is_empty() {
            // Whoever has the port now keeps it in the filter.
            let former = std::mem::take(&mut self.former);
            steps.extend(self.settle(&former));
        }
        for key in left.iter().filter(|key| !came.contains(key)) {
            self.remove(key, backends, steps);
        }
        let (frontends, sources) = std::mem::take(&mut self.strays);
        let is_stray = |key: &FrontendKey| !self.known.contains_key(key);
        steps.extend(frontends.into_iter().filter(is_stray).map(|key| Step::Frontend(key, None)));
        if !sources.is_empty() {
            let now: BTreeSet<_> = self.known.values().flat_map(|known| &known.sources).collect();
            let sources = sources.iter().filter(|source| !now.contains(source));
            steps.extend(sources.map(|(bits, source)| Step::Source(*bits, *source, false)));
        }
    }

    fn put_one(
        &mut self,
        asked: &Asked,
        backends: &mut Backends,
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let Asked { at: _, key, pool, content } = asked;
        let old = self.known.get(key);
        let own = old.and_then(|old| old.table);
        let id = match old {
            Some(old) => old.value.id,
            None => self.ids.take().ok_or("there is no room for another frontend")?,
        };
        let is_known = old.is_some();
        let mut table = None;
        if let Some(content) = content {
            table = self.tables.join(own, content, backends, steps);
            if table.is_none() {
                if !is_known {
                    self.ids.give_back(id);
                }
                return Err("there is no room for its slots; remove services that are not needed".to_owned());
            }
        }
        let value = value_of(id, table.unwrap_or_default(), content.as_ref(), pool);
        let old = self.known.remove(key);
        let sources = sources(id, &pool.allow);
        let known = old.as_ref().map(|old| old.sources.clone()).unwrap_or_default();
        steps.extend(sources.difference(&known).map(|(bits, source)| Step::Source(*bits, *source, true)));
        if old.as_ref().is_none_or(|old| old.value != value) {
            steps.push(Step::Frontend(*key, Some(value)));
        }
        steps.extend(known.difference(&sources).map(|(bits, source)| Step::Source(*bits, *source, false)));
        if old.is_none() {
            steps.extend(self.filters.add(key));
        }
        if let Some(own) = own.filter(|own| Some(*own) != table) {
            self.tables.leave(own, backends);
        }
        self.known.insert(*key, Known { value, table, sources });
        Ok(())
    }

    fn remove(&mut self, key: &FrontendKey, backends: &mut Backends, steps: &mut Vec<Step>) {
        let Some(old) = self.known.remove(key) else { return };
        steps.push(Step::Frontend(*key, None));
        self.filters.remove(key);
        steps.extend(old.sources.iter().map(|(bits, source)| Step::Source(*bits, *source, false)));
        self.ids.give_back(old.value.id);
        if let Some(table) = old.table {
            self.tables.leave(table, backends);
        }
    }

    /// Whether it is to be said which connections go on, for some frontends have gone.
    pub(super) fn is_unsettled(&self) -> bool {
        self.filters.is_unsettled()
    }

    /// Has the filters let those connections by that go on, and no others whose frontend has gone.
    pub(super) fn settle(&mut self, running: &Running) -> Vec<Step> {
        let is_known = |(addr, port): &(Addr16, NetPort)| {
            let own = FrontendKey::published(*addr, *port, TCP);
            let keys = [FrontendKey::vip(*addr), own, FrontendKey::everywhere(addr, *port, TCP)];
            keys.iter().any(|key| self.known.contains_key(key))
        };
        self.former = running.iter().filter(|to| !is_known(to)).copied().collect();
        self.filters.keep(self.former.iter().map(|(_, port)| *port).collect())
    }

    /// Where connections lead that go on though their frontend has gone.
    pub(super) fn former(&self) -> &Running {
        &self.former
    }
}

/// The part of a pool that can be reached.
fn reached(pool: Arc<Pool>, backends: &Backends) -> (Arc<Pool>, Option<Content>) {
    let share = |backend: &plan::Backend| {
        let at = (pool.vni, backend.address);
        let key = fnv64(format!("{}/{}", backend.id, pool.vni.0).as_bytes());
        Some((Weighted { key, weight: backend.weight, value: backends.id(&at)? }, at))
    };
    let mut shares: Vec<_> = pool.backends.iter().filter_map(share).collect();
    let whole = shares.len() == pool.backends.len();
    shares.sort_unstable();
    let content = (!shares.is_empty()).then(|| shares.into());
    if whole {
        return (pool, content);
    }
    let mut part = Pool::clone(&pool);
    let known = |backend: &&plan::Backend| backends.id(&(pool.vni, backend.address)).is_some();
    part.backends = pool.backends.iter().filter(known).cloned().collect();
    (Arc::new(part), content)
}

fn key_of(at: &plan::Frontend) -> FrontendKey {
    match at {
        plan::Frontend::Vip { vni: _, address } => FrontendKey::vip((*address).into()),
        plan::Frontend::Published { protocol, port, address, family } => {
            let any = match family {
                Family::V4 => Addr16::ANY_V4,
                Family::V6 => Addr16::ANY_V6,
            };
            let proto = match protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            };
            FrontendKey::published(address.map_or(any, Addr16::from), NetPort::new(*port), proto)
        }
    }
}

fn value_of(id: u32, slots: u32, content: Option<&Content>, pool: &Pool) -> mesh_ebpf::abi::Frontend {
    use mesh_ebpf::abi::{Frontend, Timeouts};
    let mut flags = match pool.balancing {
        Balancing::Random => 0,
        Balancing::Maglev => Frontend::HASHED,
        Balancing::LeastConn => Frontend::LEAST,
    };
    flags |= match pool.return_path {
        ReturnPath::Tunnel => 0,
        ReturnPath::Dsr => Frontend::DSR,
        ReturnPath::Snat => Frontend::SNAT,
    };
    if !pool.allow.is_empty() {
        flags |= Frontend::GUARDED;
    }
    if let Some(idle) = pool.idle {
        let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
        flags |= (Timeouts::step(seconds) as u16) << Frontend::IDLE;
    }
    let affinity = match pool.affinity {
        Affinity::None => 0,
        // A tick is a little more than a second.
        Affinity::ClientIp { timeout } => u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1),
    };
    Frontend {
        slots,
        mask: content.map_or(0, |content| (1 << order_of(content)) - 1),
        backends: content.map_or(0, |content| u32::try_from(content.len()).unwrap_or(u32::MAX)),
        vni: pool.vni.0,
        id,
        affinity,
        target: pool.target.map_or(NetPort::ANY, NetPort::new),
        flags,
    }
}

/// The clients of a guarded frontend, with the length of their prefixes in the trie.
fn sources(id: u32, allow: &[IpNet]) -> BTreeSet<(u32, SourceKey)> {
    allow
        .iter()
        .map(|net| {
            let mapped = if net.addr().is_ipv4() { 96 } else { 0 };
            let bits = SourceKey::FIXED_BITS + mapped + u32::from(net.prefix_len());
            (bits, SourceKey { frontend: id, addr: net.network().into() })
        })
        .collect()
}
