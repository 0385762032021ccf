//! **Effect.** The eBPF data plane: programs on the node's devices balance each packet, by maps that are kept as
//! planned.
//!
//! What the programs do is in package mesh-ebpf; `books` decides what is to be written into their maps. A small
//! nftables table stays beside them: it guards what goes through the node's own stack, and masquerades.

mod active;
mod alarm;
mod books;
mod clock;
mod counts;
mod error;
mod ids;
mod kill;
mod links;
mod load;
#[expect(unsafe_code, reason = "memory that is shared with the kernel")]
mod mapped;
mod maps;
mod members;
#[expect(unsafe_code, reason = "a descriptor that is waited for")]
mod monitor;
mod pinned;
mod pins;
mod ports;
mod reflector;
mod runs;
mod signs;
mod sock;
#[expect(unsafe_code, reason = "system calls that no library has")]
mod syscall;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aya::Ebpf;
use mesh_core::plan::{Balance, Mac, Problem, VTEP_DEVICE};
use mesh_ebpf::abi::{Addr16, Config};
use mesh_ebpf::flow::WAYS;
use mesh_ebpf::verdict::Event;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use tracing::warn;

pub use clock::{CLOCK, clock, now};
pub use error::EbpfError;
pub(crate) use kill::listening;
pub use monitor::{Reader, Watching};
pub use reflector::Reflector;
pub use signs::Signs;
pub use view::{Asked, Foreseen, Live, Occupancy, Served, State, View};

use self::alarm::Alarm;
use self::books::{Books, Facts, Found, Sizes, Step};
use self::links::{Device, Hook, Links};
use self::load::{Loaded, program};
use self::maps::{Former, Limits, Maps};
use self::monitor::Monitor;
use self::pins::Pins;
use self::sock::Sockets;
use crate::config::KernelFeature;
use crate::dataplane::nft::NftPlane;
use crate::dataplane::{Feature, Features};
use crate::plane::{Applied, DIFFERS, Depth, Drift, Plane};

/// The compiled programs, as an ELF object. Empty when the build had no BPF toolchain.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-bpf.o"));

const LOOPBACK: &str = "lo";
/// For how many flows of TCP there is room, unless the configuration says otherwise.
#[doc(hidden)]
pub const FLOWS: u32 = 1 << 18;
/// How much else the maps hold: about 120 MiB. Ten thousand services of ten tasks fit, each with a VIP and a published
/// port for IPv4: 20,000 frontends, 100,000 backends, and 10.2 million slots.
const SIZES: Sizes = Sizes { backends: 131_072, slots: 24, frontends: 65_536, peers: 4096 };

/// With room for so many flows of TCP, and half as many of UDP.
const fn limits(flows: u32) -> Limits {
    let buckets = flows.next_power_of_two() / WAYS as u32;
    Limits { sizes: SIZES, tcp_buckets: buckets, udp_buckets: buckets / 2 }
}

/// How many entries an agent's maps have, by name: what is measured is to be as large.
#[doc(hidden)]
pub fn map_sizes() -> impl Iterator<Item = (&'static str, u32)> {
    limits(FLOWS).entries().into_iter()
}

/// Whether the programs are in this binary.
pub const fn built_in() -> bool {
    !cfg!(mesh_ebpf_stub)
}

/// Programs, and where they are.
struct Programs {
    ebpf: Ebpf,
    links: Links,
}

/// Keeps programs and maps as planned, and the gates beside them.
pub struct EbpfPlane {
    /// Also who makes a task's device has them be on it.
    programs: Arc<Mutex<Programs>>,
    maps: Maps,
    /// None: no flows are left to carry over.
    former: Option<Former>,
    /// Until somebody runs it.
    reader: Option<Reader>,
    /// Until somebody takes it.
    reflector: Option<Reflector>,
    /// Until somebody takes it.
    signs: Option<Signs>,
    /// None: packets alone are balanced.
    sockets: Option<Sockets>,
    features: Features,
    /// None: it is not known how far the last attempt came.
    books: Option<Books>,
    gates: NftPlane,
    view: Arc<View>,
    alarm: Alarm,
}

impl EbpfPlane {
    /// Loads the programs, and the maps that another agent left in `pins`. `cgroup` is the control group whose
    /// processes are balanced at their sockets (empty: the whole machine). Features in `without` are not used even if
    /// the kernel has them. `flows` is for how many of TCP there is to be room.
    pub fn open(
        pins: &Path,
        cgroup: &Path,
        without: &[KernelFeature],
        flows: u32,
    ) -> Result<Self, EbpfError> {
        let pins = Pins::make(pins)?;
        let mut features = Features::without(without);
        let tcx = features.attempt(KernelFeature::Tcx, links::have_tcx);
        let ends = features.attempt(KernelFeature::SockDestroy, kill::attempt);
        let leads = features.attempt(KernelFeature::SockLb, || match ends {
            true => Ok(()),
            false => Err("sockets whose task has gone could not be ended (sock_destroy)".to_owned()),
        });
        features.attempt(KernelFeature::Reflector, || Ok(()));
        let mut loaded = load::load(&pins, &limits(flows), leads, &mut features)?;
        let opened = leads.then(|| Sockets::open(&mut loaded, pins.sockets(), cgroup)).transpose();
        let sockets = opened.unwrap_or_else(|error| {
            warn!(error = error.in_full(), "packets alone are balanced");
            features.lose(KernelFeature::SockLb, error.in_full());
            None
        });
        if sockets.is_none() {
            sock::forget(&pins.sockets(), |_| true);
        }
        let Loaded { ebpf, maps, records, reflector, signs, sockets: _, former } = loaded;
        let reflector = features.uses(KernelFeature::Reflector).then_some(reflector);
        let signs = Some(signs);
        let monitor = Monitor::new(maps.config.clone());
        let reader = Some(monitor.reader(records));
        let view = Arc::new(View::open(&pins.maps(), monitor, sockets.is_some())?);
        let links = Links::open(pins.links(), if tcx { Hook::Tcx } else { Hook::Filter });
        let (gates, alarm) = (NftPlane::gates(), Alarm::default());
        let books = None;
        Ok(Self {
            programs: Arc::new(Mutex::new(Programs { ebpf, links })),
            maps,
            former,
            reader,
            reflector,
            signs,
            sockets,
            features,
            books,
            gates,
            view,
            alarm,
        })
    }

    /// Puts the program of tasks on a device of one.
    pub fn guard(&self) -> impl Fn(u32, &str) -> Result<(), String> + Send + Sync + use<> {
        let programs = Arc::clone(&self.programs);
        move |index, name| {
            let Programs { ebpf, links } = &mut *programs.lock().unwrap_or_else(PoisonError::into_inner);
            let held = links.hold(ebpf, &(index, name.to_owned()), program::FROM_TASK);
            held.map(drop).map_err(|error| error.in_full())
        }
    }

    /// Which features of the kernel are used.
    pub fn features(&self) -> impl Iterator<Item = Feature> {
        self.features.list()
    }

    /// What this plane cannot do, in words for people.
    pub fn limits() -> Vec<String> {
        [
            "a task that is reached from a node by that node's own ports or localhost sees the node's overlay address \
             instead of the client's",
            "packets with IP options or IPv6 extension headers are not balanced, and are refused",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Writes the maps and nothing else, as if the node had these devices: how long that takes is measured.
    #[doc(hidden)]
    pub fn fill(&mut self, want: &Balance, devices: BTreeMap<String, u32>) -> Result<Applied, EbpfError> {
        let mut applied = Applied::default();
        let facts = Facts { devices, ..Facts::default() };
        self.write(want, &facts, &mut applied)?;
        Ok(applied)
    }

    /// What there is to see in the kernel, for whoever asks.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Who reads what the programs tell; once.
    pub fn reader(&mut self) -> Option<Reader> {
        self.reader.take()
    }

    /// Where to say how the node fares, for its kernel to answer probes with; once, and where that is wanted.
    pub fn reflector(&mut self) -> Option<Reflector> {
        self.reflector.take()
    }

    /// What tasks make of connections, as programs count it; once.
    pub fn signs(&mut self) -> Option<Signs> {
        self.signs.take()
    }

    /// What is wrong in the kernel though all is as planned.
    pub fn problems(&self) -> Vec<Problem> {
        self.alarm.problem(Instant::now()).into_iter().collect()
    }

    /// Whether backends changed.
    fn write(&mut self, want: &Balance, facts: &Facts, applied: &mut Applied) -> Result<bool, EbpfError> {
        let mut books = match self.books.take() {
            Some(books) => books,
            None => Books::open(SIZES, self.found()?),
        };
        self.tell(want, facts);
        let steps = books.steps(want, facts, &mut applied.errors);
        applied.changed += self.maps.write(&steps)?;
        if books.is_unsettled() {
            // Looked at only now that nothing can begin there any more.
            let settled = books.settle(&self.view.running()?);
            applied.changed += self.maps.write(&settled)?;
        }
        self.books = Some(books);
        Ok(steps.iter().any(|step| matches!(step, Step::Backend(..))))
    }

    /// What the maps hold.
    fn found(&self) -> Result<Found, EbpfError> {
        let mut found = self.maps.found()?;
        if found.lets_more_by() {
            found.running = self.view.running()?;
        }
        Ok(found)
    }

    /// Sockets are led as planned; where they cannot be, the node does without until the agent starts anew.
    async fn settle_sockets(
        &mut self,
        want: &Balance,
        facts: &Facts,
        (moved, looks): (bool, bool),
        applied: &mut Applied,
    ) {
        let Some(sockets) = &mut self.sockets else { return };
        let settled = {
            let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
            sockets.settle(&mut programs.ebpf, want, facts, looks)
        };
        match settled {
            Ok(changed) => applied.changed += changed,
            Err(error) => {
                warn!(error = error.in_full(), "packets alone are balanced");
                sockets.forget();
                self.sockets = None;
                self.features.lose(KernelFeature::SockLb, error.in_full());
                return;
            }
        }
        if moved || looks {
            sockets.end_lost(&self.maps, applied).await;
        }
    }

    fn put_programs(
        &self,
        want: &BTreeMap<Device, &'static str>,
        looks: bool,
        errors: &mut BTreeMap<String, String>,
    ) -> usize {
        let Programs { ebpf, links } = &mut *self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if looks {
            links.forget_lost(ebpf);
        }
        links.settle(ebpf, want, errors)
    }

    /// From maps that programs use until now, if there are such.
    fn carry_flows(&mut self, applied: &mut Applied) {
        if let Some(Err(error)) = self.former.as_mut().map(Former::carry_flows) {
            applied.errors.insert("flows".to_owned(), error.in_full());
        }
    }

    /// Has each backend have as many flows as the tables of flows say.
    fn correct_active(&self) -> Result<(), EbpfError> {
        let before = self.maps.active()?;
        let flows = self.view.active_flows()?;
        let after = self.maps.active()?;
        self.maps.add_active(active::corrections(&flows, &before, &after))
    }

    /// What programs must know of the node itself.
    fn tell(&self, want: &Balance, facts: &Facts) {
        self.maps.config.change(|config| configure(config, want, facts));
    }

    /// What is not as planned. Writes nothing.
    async fn look(&mut self, want: &Balance, drift: &Drift) -> Applied {
        let mut applied = self.gates.reconcile(want, Depth::Look).await;
        for (object, result) in crate::overlay::apply_loopback(Some(drift)) {
            applied.record(object, result);
        }
        match observe().await {
            Ok(facts) => {
                let config = self.maps.config.get();
                let mut planned = config;
                configure(&mut planned, want, &facts);
                if config != planned {
                    drift.note("what programs know of the node", DIFFERS);
                }
                let held = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
                held.links.look(&held.ebpf, &programs(want, &facts), drift);
                drop(held);
                // Connections that have ended since the last round are no difference: the next one sees to them.
                let found = match &self.books {
                    Some(books) => {
                        self.maps.found().map(|found| Found { running: books.former().clone(), ..found })
                    }
                    None => self.found(),
                };
                let found = found.and_then(|found| {
                    let steps = Books::open(SIZES, found).steps(want, &facts, &mut applied.errors);
                    steps.iter().for_each(|step| self.maps.look(step, drift));
                    self.sockets.as_mut().map_or(Ok(()), |sockets| sockets.look(want, &facts, drift))
                });
                if let Err(error) = found {
                    applied.errors.insert("maps".to_owned(), error.in_full());
                }
            }
            Err(error) => _ = applied.errors.insert("devices".to_owned(), error),
        }
        applied.drift.extend(drift.all());
        applied
    }
}

fn configure(config: &mut Config, want: &Balance, facts: &Facts) {
    config.tunnel = facts.devices.get(VTEP_DEVICE).copied().unwrap_or_default();
    config.tunnel_mtu = want.tunnel_mtu;
    config.here = here(want.node, &facts.addresses);
    if let Some(node) = want.node {
        config.mac = Mac::of_vtep(node).0;
    }
}

/// The addresses of a node that clients use most, we suppose: that of the underlay, and one of the other family.
fn here(node: Option<IpAddr>, all: &BTreeSet<IpAddr>) -> [Addr16; 2] {
    [false, true].map(|v6| {
        let usual = |address: &&IpAddr| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        let mut known = node.iter().chain(all.iter().filter(usual));
        known.find(|address| address.is_ipv6() == v6).map_or(Addr16::ANY_V6, |address| (*address).into())
    })
}

/// Which program belongs on which device. None on one that belongs to another: what comes in by a port of a bridge comes in by
/// the bridge, and by the port no answer would find its way.
fn programs(want: &Balance, facts: &Facts) -> BTreeMap<Device, &'static str> {
    let of = |name: &str| match name {
        LOOPBACK => program::FROM_HOST,
        VTEP_DEVICE => program::FROM_MESH,
        name if want.ports.contains_key(name) => program::FROM_TASK,
        _ => program::FROM_NET,
    };
    let own = facts.devices.iter().filter(|(name, _)| !facts.ports.contains(*name));
    own.map(|(name, index)| ((*index, name.clone()), of(name))).collect()
}

/// One listing tells of all, but for a bridge's ports: the kernel takes some microseconds for each device each time it is
/// asked.
async fn observe() -> Result<Facts, String> {
    let mut facts = Facts { ports: ports::of_bridges().await?, ..Facts::default() };
    let all =
        getifaddrs().map_err(|error| format!("cannot list the node's devices and addresses: {error}"))?;
    for one in all {
        // Of a bond.
        if one.flags.contains(InterfaceFlags::IFF_SLAVE) {
            facts.ports.insert(one.interface_name.clone());
        }
        match index_of(&one) {
            Some(index) => _ = facts.devices.insert(one.interface_name, index),
            None => facts.addresses.extend(crate::dataplane::address_of(&one)),
        }
    }
    Ok(facts)
}

/// If this says that there is a device, and not which address it has.
fn index_of(one: &InterfaceAddress) -> Option<u32> {
    match &one.address {
        Some(address) => u32::try_from(address.as_link_addr()?.ifindex()).ok(),
        // A device without a link address, such as a tun.
        None => if_nametoindex(one.interface_name.as_str()).ok(),
    }
}

impl Plane for EbpfPlane {
    type Want = Balance;
    const NAME: &'static str = "ebpf";

    async fn reconcile(&mut self, want: &Balance, depth: Depth) -> Applied {
        if let Some(drift) = Drift::of(depth) {
            return self.look(want, &drift).await;
        }
        // The gates first: what programs leave to the stack is to meet them.
        let mut applied = self.gates.reconcile(want, depth).await;
        if depth == Depth::Sweep {
            // What the maps hold is read anew, and what is not as it should be is written.
            self.books = None;
        }
        if self.books.is_none() {
            for (object, result) in crate::overlay::apply_loopback(None) {
                applied.record(object, result);
            }
        }
        match observe().await {
            Ok(facts) => {
                // Connections whose frontend goes now, or has gone, are found by their flows.
                self.carry_flows(&mut applied);
                let moved = self.write(want, &facts, &mut applied).unwrap_or_else(|error| {
                    applied.errors.insert("maps".to_owned(), error.in_full());
                    true
                });
                let mut errors = BTreeMap::new();
                let looks = depth == Depth::Sweep;
                self.carry_flows(&mut applied);
                let moving = u8::from(self.former.is_some());
                self.maps.config.change(|config| config.moving = moving);
                applied.changed += self.put_programs(&programs(want, &facts), looks, &mut errors);
                // At once: until then nobody answers for what began in between.
                self.carry_flows(&mut applied);
                self.maps.config.change(|config| config.moving = 0);
                self.settle_sockets(want, &facts, (moved, looks), &mut applied).await;
                self.carry_flows(&mut applied);
                if errors.is_empty() {
                    self.former.take().into_iter().for_each(Former::forget);
                }
                applied.errors.extend(errors);
            }
            Err(error) => _ = applied.errors.insert("devices".to_owned(), error),
        }
        if depth == Depth::Sweep
            && active::counts(want)
            && let Err(error) = self.correct_active()
        {
            applied.errors.insert("flows of backends".to_owned(), error.in_full());
        }
        match self.view.count(Event::TableFull) {
            Ok(count) => self.alarm.note(count, Instant::now()),
            Err(error) => _ = applied.errors.insert("counters".to_owned(), error.in_full()),
        }
        applied
    }

    async fn remove_all(&mut self) -> Applied {
        self.gates.remove_all().await
    }
}

/// Removes what any agent left in `pins`: links, and with them programs and maps.
pub fn remove_all(pins: &Path) -> Applied {
    let mut applied = Applied::default();
    applied.changed += links::remove_filters();
    match Pins::remove(pins) {
        Ok(removed) => applied.changed += removed,
        Err(error) => _ = applied.errors.insert(format!("{}", pins.display()), error.in_full()),
    }
    applied
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or elsewhere next to version 1.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    find_cgroup2(&mounts)
}

fn find_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (dir, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(dir))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_there_exactly_when_it_was_built() {
        assert_eq!(built_in(), !OBJECT.is_empty());
    }

    #[tokio::test]
    async fn all_devices_are_observed_with_their_index() {
        let listed = nix::net::if_::if_nameindex().unwrap();
        let listed = listed.iter().map(|device| (device.name().to_str().unwrap().to_owned(), device.index()));
        let facts = observe().await.unwrap();
        assert_eq!(facts.devices, listed.collect());
        assert_eq!(facts.addresses, crate::dataplane::addresses().unwrap());
    }

    #[test]
    fn cgroup2_is_found_by_its_type_and_not_by_its_place() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup2(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup2("cgroup2 /elsewhere tmpfs rw 0 0\n"), None);
    }
}
