//! Two nodes with a cable between them, each a network namespace, and tasks in namespaces of their own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_agent::netns::{Netns, start_of};
use mesh_agent::overlay::OverlayPlane;
use mesh_agent::plane::{Applied, Depth, Plane};
use mesh_core::model::{
    Affinity, Attachment, Balancing, Block, EndpointMode, Few, Health, Locality, Network, NetworkId, Node,
    NodeId, Origin, Service, ServiceId, Snapshot, Task, TaskAddress, TaskId, TaskState, Vni,
};
use mesh_core::plan::{Overlay, desired, endpoint_device};

/// A network namespace that lives as long as a sleeping process in it.
pub(crate) struct Space {
    child: Child,
    pub(crate) netns: Netns,
}

impl Space {
    pub(crate) fn new() -> Self {
        let own = Netns::own().unwrap();
        let child =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // Until `unshare` did its work the process is still in our own.
            let netns = Netns::of_process(child.id(), start_of(child.id()).unwrap());
            match netns {
                Ok(netns) if !netns.is(&own) => return Self { child, netns },
                other => assert!(Instant::now() < deadline, "no namespace (is this root?): {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::Process { pid: self.pid(), start: start_of(self.pid()).unwrap(), supervised: false }
    }

    fn output(&self, command: &str) -> Output {
        self.netns.run(|| Command::new("sh").args(["-c", command]).output().unwrap()).unwrap()
    }

    /// Runs a command inside, which must succeed.
    pub(crate) fn sh(&self, command: &str) -> String {
        let output = self.output(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Starts a command inside.
    pub(crate) fn start(&self, command: &str) -> Child {
        let start = || Command::new("sh").args(["-c", command]).stdout(Stdio::piped()).spawn().unwrap();
        self.netns.run(start).unwrap()
    }

    /// Whether a ping is answered. A veth carries a moment after it is up (kernel net/core/link_watch.c).
    pub(crate) fn pings(&self, target: impl std::fmt::Display) -> bool {
        (0..3u64).any(|attempt| {
            std::thread::sleep(Duration::from_millis(100 * attempt));
            self.output(&format!("ping -c1 -W1 {target}")).status.success()
        })
    }

    /// A ping must fail and be told so, not left waiting.
    pub(crate) fn is_refused(&self, target: impl std::fmt::Display) {
        for _ in 0..4 {
            let output = self.output(&format!("ping -c1 -W1 {target} 2>&1"));
            assert!(!output.status.success(), "{target} answers");
            let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
            if text.contains("unreachable") || text.contains("no route to host") {
                return;
            }
            // A kernel tells one peer five times, then once in two seconds (icmp(7), icmp_ratelimit).
            std::thread::sleep(Duration::from_secs(3));
        }
        panic!("{target} is not refused but silent");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const APP: &str = "app";
/// Without a way to the world, and without IPv6.
pub(crate) const DARK: &str = "dark";

pub(crate) struct Site {
    pub(crate) nodes: [Space; 2],
    pub(crate) planes: [OverlayPlane; 2],
    pub(crate) world: Snapshot,
}

impl Site {
    /// Nodes at `PREFIX1` and `PREFIX2`, with both networks, a block of each for each node, and one service.
    pub(crate) fn new(prefix: &str, length: u8) -> Self {
        let nodes = [Space::new(), Space::new()];
        let peer = nodes[1].pid();
        nodes[0].sh(&format!("ip link add uplink type veth peer name uplink netns {peer}"));
        let mut world = Snapshot::default();
        for net in
            [network(APP, "10.0.0.0/16", Some("fd00:1::/64"), 4096), network(DARK, "10.1.0.0/16", None, 4097)]
        {
            world.networks.insert(net.id.clone(), Arc::new(net));
        }
        for (index, space) in nodes.iter().enumerate() {
            let address: IpAddr = format!("{prefix}{}", index + 1).parse().unwrap();
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            space.sh("ip link set lo up && ip link set uplink up");
            space.sh(&format!("ip address add {address}/{length} {nodad} dev uplink"));
            let node = node(index, address);
            for net in [APP, DARK] {
                world.blocks.insert((NetworkId::new(net), Block(16 + index as u32)), node.id.clone());
            }
            world.nodes.insert(node.id.clone(), Arc::new(node));
        }
        let service = service(&world);
        world.services.insert(service.id.clone(), Arc::new(service));
        let planes = [0, 1].map(|node| OverlayPlane::of_node(nodes[node].origin_netns()));
        Self { nodes, planes, world }
    }

    /// Adds a task at the node's place `place` of each network.
    pub(crate) fn task(
        &mut self,
        id: &str,
        node: usize,
        place: u32,
        networks: &[&str],
        origin: Origin,
    ) -> TaskAddress {
        let addresses: Few<_, _> = networks
            .iter()
            .map(|name| {
                let network = &self.world.networks[&NetworkId::new(*name)];
                (network.id.clone(), network.address_in(Block(16 + node as u32), place))
            })
            .collect();
        let first = addresses[&NetworkId::new(networks[0])];
        let task = Task {
            id: TaskId::new(id),
            service: Some(ServiceId::new("web")),
            slot: place,
            name: None,
            node: node_id(node),
            epoch: 1,
            addresses,
            state: TaskState::Running,
            health: Health::None,
            weight: 1,
            draining: false,
            message: String::new(),
            origin,
            checked: false,
            dns: vec![],
            packets_only: false,
            program: None,
            ejected: None,
            ready_since: 0,
            created: 0,
            updated: 0,
        };
        self.world.tasks.insert(task.id.clone(), Arc::new(task));
        first
    }

    pub(crate) fn change_tasks(&mut self, change: impl Fn(&mut Task)) {
        for mut task in self.world.tasks.values().cloned().collect::<Vec<_>>() {
            change(Arc::make_mut(&mut task));
            self.world.tasks.insert(task.id.clone(), task);
        }
    }

    pub(crate) fn want(&self, node: usize) -> Overlay {
        desired(&self.world, &node_id(node), 0).overlay
    }

    pub(crate) async fn round(&mut self, node: usize, depth: Depth) -> Applied {
        let want = self.want(node);
        self.planes[node].reconcile(&want, depth).await
    }

    /// A round on both nodes that must go without an error.
    pub(crate) async fn settle(&mut self, depth: Depth) -> usize {
        let mut changed = 0;
        for node in [0, 1] {
            let applied = self.round(node, depth).await;
            assert_eq!(applied.errors, BTreeMap::new(), "node {node}");
            changed += applied.changed;
        }
        changed
    }

    /// Whether a look finds that a kernel is not as planned.
    pub(crate) async fn differs(&mut self) -> bool {
        let mut differs = false;
        for node in [0, 1] {
            let Applied { changed: _, errors, drift } = self.round(node, Depth::Look).await;
            differs |= !drift.is_empty() || !errors.is_empty();
        }
        differs
    }

    /// Nothing is left to do, whether one looks closely or not.
    pub(crate) async fn is_settled(&mut self) {
        for depth in [Depth::Delta, Depth::Sweep, Depth::Delta] {
            for node in [0, 1] {
                let applied = self.round(node, depth).await;
                assert_eq!(applied, Applied::default(), "node {node}, {depth:?}");
            }
        }
    }
}

impl Space {
    /// A second way to the same namespace.
    pub(crate) fn origin_netns(&self) -> Netns {
        Netns::of_origin(&self.origin()).unwrap()
    }
}

pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId::new(format!("n{}", node + 1))
}

/// The name of the host's end of a task's veth.
pub(crate) fn device(task: &str, network: &str) -> String {
    endpoint_device(&TaskId::new(task), &NetworkId::new(network))
}

fn network(name: &str, v4: &str, v6: Option<&str>, vni: u32) -> Network {
    Network {
        id: NetworkId::new(name),
        name: name.parse().unwrap(),
        v4: v4.parse().unwrap(),
        v6: v6.map(|net| net.parse().unwrap()),
        vni: Vni(vni),
        mtu: None,
        internal: name == DARK,
        encrypted: false,
        labels: BTreeMap::new(),
        created: 0,
    }
}

fn node(index: usize, address: IpAddr) -> Node {
    Node {
        id: node_id(index),
        name: format!("n{}", index + 1).parse().unwrap(),
        address,
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
    }
}

fn service(world: &Snapshot) -> Service {
    let app = &world.networks[&NetworkId::new(APP)];
    Service {
        id: ServiceId::new("web"),
        name: "web".parse().unwrap(),
        mode: EndpointMode::Vip,
        networks: vec![Attachment { network: app.id.clone(), vip: Some(app.vip(1)), aliases: Vec::new() }],
        ports: Vec::new(),
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: Duration::from_secs(10),
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Default::default(),
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: BTreeMap::new(),
        version: 1,
        created: 0,
        updated: 0,
    }
}
