//! **Effect:** the socket-level balancer: one program on a cgroup, three maps.
//!
//! The invariant is the order of the writes. What an entry points to is written before the entry,
//! and taken away after it, so that a program which runs in between always finds live backends.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError},
    programs::{CgroupAttachMode, CgroupSockAddr, ProgramError},
};
use mesh_ebpf::abi::{
    self, Addr16, BACKENDS, Backend, FRONTENDS, Frontend, FrontendKey, MAX_BACKENDS, MAX_FRONTENDS, NetPort,
    SLOTS, Slots,
};

use super::{EbpfError, OBJECT, built_in, ids::Ids};

const CONNECT4: &str = "mesh_connect4";

/// The protocol of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What clients connect to. Port 0 is every port that has no entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vip {
    pub addr: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl Vip {
    fn key(&self) -> FrontendKey {
        let proto = match self.protocol {
            Protocol::Tcp => abi::TCP,
            Protocol::Udp => abi::UDP,
        };
        FrontendKey::new(Addr16::from(self.addr), NetPort::new(self.port), proto)
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", SocketAddr::new(self.addr, self.port))
    }
}

/// What a frontend holds in the other two maps.
#[derive(Debug)]
struct Held {
    table: u32,
    backends: Vec<u32>,
}

/// The loaded program and its maps. Dropping it detaches the program from every cgroup.
pub struct ConnectLb {
    // Owns the program and its links.
    ebpf: Ebpf,
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    slots: Array<MapData, Slots>,
    backends: Array<MapData, Backend>,
    tables: Ids,
    backend_ids: Ids,
    held: BTreeMap<Vip, Held>,
}

impl ConnectLb {
    /// Loads the program and creates its maps. Nothing changes for any process before [`Self::attach`].
    pub fn load() -> Result<Self, EbpfError> {
        if !built_in() {
            return Err(EbpfError::NotBuiltIn);
        }
        let mut ebpf = Ebpf::load(OBJECT).map_err(|source| EbpfError::Load(Box::new(source)))?;
        let frontends = take_map(&mut ebpf, FRONTENDS)?;
        let slots = take_map(&mut ebpf, SLOTS)?;
        let backends = take_map(&mut ebpf, BACKENDS)?;
        connect4(&mut ebpf)?.load().map_err(program_error)?;
        Ok(Self {
            ebpf,
            frontends,
            slots,
            backends,
            tables: Ids::new(0..MAX_FRONTENDS),
            // From 1: id 0 means "no backend".
            backend_ids: Ids::new(abi::NO_BACKEND + 1..MAX_BACKENDS),
            held: BTreeMap::new(),
        })
    }

    /// From now on, processes of this cgroup and of those below it reach the virtual addresses.
    pub fn attach(&mut self, cgroup: &Path) -> Result<(), EbpfError> {
        let dir = File::open(cgroup)
            .map_err(|source| EbpfError::OpenCgroup { path: cgroup.to_path_buf(), source })?;
        // `Single` is about flags that a link does not take (the kernel answers EINVAL to the
        // others). Several programs can share a cgroup all the same: a link is never exclusive.
        connect4(&mut self.ebpf)?.attach(dir, CgroupAttachMode::Single).map(drop).map_err(|source| {
            EbpfError::Attach { name: CONNECT4, path: cgroup.to_path_buf(), source: Box::new(source) }
        })
    }

    /// Gives a virtual address these backends, each an equal share. With none, clients are refused.
    ///
    /// A backend's port 0 keeps the client's. A virtual address with port 0 keeps it always.
    pub fn set(&mut self, vip: Vip, backends: &[SocketAddr]) -> Result<(), EbpfError> {
        if !vip.addr.is_ipv4() {
            return Err(EbpfError::VipNotIpv4 { vip });
        }
        if let Some(backend) = backends.iter().find(|backend| !backend.is_ipv4()) {
            return Err(EbpfError::BackendNotIpv4 { vip, backend: *backend });
        }
        let fresh = self.take_ids(vip, backends.len())?;
        match self.write(vip, &fresh, backends) {
            Ok(old) => {
                old.iter().for_each(|id| self.backend_ids.give_back(*id));
                Ok(())
            }
            Err(error) => {
                // Slots may already name the fresh ids, so they stay held: a leak of a few numbers
                // in place of a flow to a stranger. The caller's next attempt replaces them.
                self.held.entry(vip).and_modify(|held| held.backends.extend(fresh));
                Err(error)
            }
        }
    }

    /// Forgets a virtual address: it is again what the routing table says. Unknown ones are no error.
    pub fn remove(&mut self, vip: &Vip) -> Result<(), EbpfError> {
        if !self.held.contains_key(vip) {
            return Ok(());
        }
        match self.frontends.remove(&vip.key()) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(map_error(FRONTENDS, *vip, source)),
        }
        if let Some(held) = self.held.remove(vip) {
            self.tables.give_back(held.table);
            held.backends.iter().for_each(|id| self.backend_ids.give_back(*id));
        }
        Ok(())
    }

    /// All ids that a change needs, or none of them.
    fn take_ids(&mut self, vip: Vip, count: usize) -> Result<Vec<u32>, EbpfError> {
        if !self.held.contains_key(&vip) {
            let table =
                self.tables.take().ok_or(EbpfError::Full { map: FRONTENDS, vip, limit: MAX_FRONTENDS })?;
            self.held.insert(vip, Held { table, backends: Vec::new() });
        }
        if self.backend_ids.free() < count {
            return Err(EbpfError::Full { map: BACKENDS, vip, limit: MAX_BACKENDS });
        }
        Ok((0..count).filter_map(|_| self.backend_ids.take()).collect())
    }

    /// Writes backends, slots and frontend, in this order. Returns the ids that nothing names any more.
    fn write(&mut self, vip: Vip, fresh: &[u32], backends: &[SocketAddr]) -> Result<Vec<u32>, EbpfError> {
        let Some(held) = self.held.get_mut(&vip) else {
            return Ok(Vec::new());
        };
        for (id, backend) in fresh.iter().zip(backends) {
            let value = Backend::new(Addr16::from(backend.ip()), NetPort::new(backend.port()));
            self.backends.set(*id, value, 0).map_err(|source| map_error(BACKENDS, vip, source))?;
        }
        self.slots.set(held.table, Slots::deal(fresh), 0).map_err(|source| map_error(SLOTS, vip, source))?;
        let frontend = Frontend { table: held.table, backends: fresh.len() as u32 };
        self.frontends.insert(vip.key(), frontend, 0).map_err(|source| map_error(FRONTENDS, vip, source))?;
        Ok(std::mem::replace(&mut held.backends, fresh.to_vec()))
    }
}

fn connect4(ebpf: &mut Ebpf) -> Result<&mut CgroupSockAddr, EbpfError> {
    ebpf.program_mut(CONNECT4)
        .ok_or(EbpfError::Incomplete { kind: "program", name: CONNECT4 })?
        .try_into()
        .map_err(program_error)
}

fn take_map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, EbpfError>
where
    M: TryFrom<Map, Error = MapError>,
{
    ebpf.take_map(name)
        .and_then(|map| M::try_from(map).ok())
        .ok_or(EbpfError::Incomplete { kind: "map", name })
}

fn program_error(source: ProgramError) -> EbpfError {
    EbpfError::Program { name: CONNECT4, source: Box::new(source) }
}

fn map_error(map: &'static str, vip: Vip, source: MapError) -> EbpfError {
    EbpfError::Map { map, vip, source: Box::new(source) }
}
