//! Nodes, tasks and the world, made of namespaces that nobody has to clean up.

use std::fs::File;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mesh_agent::dns::{DnsConfig, DnsServer};
use mesh_core::dns::Zone;
use mesh_core::model::*;
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as its file is open.
#[derive(Clone)]
pub(crate) struct Namespace(pub(crate) Arc<File>);

impl Namespace {
    pub(crate) fn new() -> Self {
        let inside = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests need root");
            loopback_up();
            Self(Arc::new(File::open("/proc/thread-self/ns/net").unwrap()))
        });
        inside.join().unwrap()
    }

    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = Arc::clone(&self.0);
        let inside = std::thread::spawn(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        inside.join().unwrap()
    }

    /// What `dig` prints in here; it asks 127.0.0.11 unless told otherwise.
    pub(crate) fn dig(&self, args: &str) -> String {
        let server = if args.contains('@') { "" } else { "@127.0.0.11 " };
        let args: Vec<String> = format!("{server}{args}").split_whitespace().map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("dig")
                .args(["+tries=1", "+time=6", "+nocookie"])
                .args(&args)
                .output()
                .expect("dig must be installed");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// The data of the answer's records, in their order.
    pub(crate) fn short(&self, args: &str) -> Vec<String> {
        self.dig(&format!("+short {args}")).lines().map(str::to_owned).collect()
    }
}

fn loopback_up() {
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

/// Runs a test on a node of its own: a namespace in which all threads of the runtime are.
pub(crate) fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let node = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests need root");
        loopback_up();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(test());
    });
    node.join().unwrap();
}

/// A dnsmasq in the calling thread's namespace; it ends with the test.
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    pub(crate) fn start(port: u16, args: &[&str]) -> Self {
        let mut child = Command::new("/usr/sbin/dnsmasq")
            .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
            .args(["--no-resolv", "--no-hosts", &format!("--port={port}")])
            .args(args)
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq must be installed");
        let until = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "dnsmasq ended");
            assert!(Instant::now() < until, "dnsmasq does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn network(id: &str, v4: &str, v6: Option<&str>, vni: u32) -> Network {
    Network {
        id: NetworkId::new(id),
        name: id.parse().unwrap(),
        v4: v4.parse().unwrap(),
        v6: v6.map(|net| net.parse().unwrap()),
        vni: Vni(vni),
        mtu: None,
        internal: false,
        encrypted: false,
        labels: Default::default(),
        created: 0,
    }
}

/// Adds a service with tasks in one network; its VIP is place `place` of it, its tasks are in block 15 + `place`.
pub(crate) fn add(
    world: &mut Snapshot,
    name: &str,
    network: &str,
    mode: EndpointMode,
    place: u32,
    tasks: u32,
) {
    let net = Arc::clone(&world.networks[&NetworkId::new(network)]);
    let service = Service {
        id: ServiceId::new(name),
        name: name.parse().unwrap(),
        mode,
        networks: vec![Attachment {
            network: net.id.clone(),
            vip: (mode == EndpointMode::Vip).then(|| net.vip(place)),
            aliases: vec![],
        }],
        ports: vec![],
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: Duration::ZERO,
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Default::default(),
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: Default::default(),
        version: 1,
        created: 0,
        updated: 0,
    };
    for slot in 1..=tasks {
        let id = TaskId::new(format!("{name:0>20}{slot:05}"));
        let task = Task {
            id: id.clone(),
            service: Some(service.id.clone()),
            slot,
            name: None,
            node: NodeId::new("n1"),
            epoch: 1,
            addresses: [(net.id.clone(), net.address_in(Block(15 + place), 1 + slot))].into(),
            state: TaskState::Running,
            health: Health::None,
            weight: 1,
            draining: false,
            message: String::new(),
            origin: Origin::Process { pid: 1, start: 1, supervised: false },
            checked: false,
            dns: vec![],
            packets_only: false,
            program: None,
            ejected: None,
            ready_since: 0,
            created: 0,
            updated: 0,
        };
        world.tasks.insert(id, Arc::new(task));
    }
    world.services.insert(service.id.clone(), Arc::new(service));
}

/// Network `app` with `web` (VIP 10.1.0.1, three tasks), `rr` (dnsrr, three) and `many` (dnsrr, 200), dual-stack
/// network `six` with `dual`, and network `other` with `secret`.
pub(crate) fn world() -> Snapshot {
    let mut world = Snapshot::default();
    for network in [
        network("app", "10.1.0.0/16", None, 4096),
        network("six", "10.6.0.0/16", Some("fd06::/64"), 4097),
        network("other", "10.2.0.0/16", None, 4098),
    ] {
        world.networks.insert(network.id.clone(), Arc::new(network));
    }
    let node = Node {
        id: NodeId::new("n1"),
        name: "n1".parse().unwrap(),
        address: "192.0.2.1".parse().unwrap(),
        vxlan_port: 4789,
        epoch: 1,
        boot: String::new(),
        key: String::new(),
        reflects: false,
        left: false,
        uplink_mtu: 1500,
        listeners: Default::default(),
        routes: Default::default(),
        version: String::new(),
        started: 0,
    };
    world.nodes.insert(node.id.clone(), Arc::new(node));
    add(&mut world, "web", "app", EndpointMode::Vip, 1, 3);
    add(&mut world, "rr", "app", EndpointMode::Dnsrr, 2, 3);
    add(&mut world, "many", "app", EndpointMode::Dnsrr, 3, 200);
    add(&mut world, "dual", "six", EndpointMode::Vip, 1, 1);
    add(&mut world, "secret", "other", EndpointMode::Vip, 1, 1);
    world
}

pub(crate) fn nets(names: &str) -> Vec<NetworkId> {
    names.split_whitespace().map(NetworkId::new).collect()
}

/// A server of [`world`] that serves nobody yet, and the zone that it looks into.
pub(crate) fn server(config: DnsConfig) -> (DnsServer, Arc<ArcSwap<Zone>>) {
    let zone = Arc::new(ArcSwap::from_pointee(Zone::build(&world(), &NodeId::new("n1"))));
    (DnsServer::new(config, Arc::clone(&zone)).unwrap(), zone)
}

/// A configuration with upstreams on these ports of the node.
pub(crate) fn upstreams(ports: &[u16]) -> DnsConfig {
    let upstreams = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect();
    DnsConfig { upstreams, ..DnsConfig::default() }
}

#[track_caller]
pub(crate) fn has(output: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(output.contains(part), "no '{part}' in:\n{output}");
    }
}
