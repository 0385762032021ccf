//! Two nodes without a mesh: the server in a namespace of the second one, as if it were a task, on a routed network.

use std::net::Ipv4Addr;
use std::path::Path as File;

use anyhow::Result;
use mesh_tests::{Host, Lab, Netns, Node, Process};

use super::server;
use super::target::Path;

/// The server's own address.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 1);

/// Of the machine outside.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);

/// No agent runs, and nothing tracks connections unless whoever builds on this does so.
pub(super) struct Bare {
    lab: Lab,
    _server: Process,
    _inside: Netns,
}

impl Bare {
    pub(super) fn build(program: &File) -> Result<Self> {
        let lab = Lab::builder(program).nodes(2).build()?;
        let (entry, node, inside) = (lab.node("n1")?, lab.node("n2")?, Netns::new()?);
        let netns = inside.path().display().to_string();
        node.ip(&format!(
            "link add server type veth peer name eth0 netns {netns}\n\
             link set server up\n\
             address add {GATEWAY}/24 dev server\n"
        ))?;
        let within = format!(
            "ip link set eth0 up && ip address add {SERVER}/24 dev eth0 && ip route add default via {GATEWAY}"
        );
        let enter = format!("--net={netns}");
        node.exec(["nsenter", &enter, "sh", "-c", &within])?.ok()?;
        for node in [entry, node] {
            node.sysctl("net/ipv4/ip_forward", "1")?;
        }
        for host in [entry, lab.client(), lab.fabric()] {
            host.ip(&format!("route add {SERVER} via {}\n", node.address()))?;
        }
        lab.outside().ip(&format!("route add {SERVER} via {ROUTER}\n"))?;
        let mut serve = vec!["nsenter".to_owned(), enter];
        serve.extend(server::command(&lab)?);
        let server = node.spawn_daemon("server", serve)?;
        Ok(Self { lab, _server: server, _inside: inside })
    }

    /// The entry, and that of the server.
    pub(super) fn nodes(&self) -> &[Node] {
        self.lab.nodes()
    }

    /// For files.
    pub(super) fn dir(&self) -> &File {
        self.lab.dir()
    }

    /// A machine behind the router.
    pub(super) fn outside(&self) -> &Host {
        self.lab.outside()
    }

    /// From the machine beside the nodes to an address and a port of the web server.
    pub(super) fn path(&self, address: Ipv4Addr, web: u16) -> Path<'_> {
        Path { host: self.lab.client(), inside: None, address, web, cgroup: self.lab.cgroup() }
    }
}
