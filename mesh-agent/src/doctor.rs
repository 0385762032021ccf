//! **Effect.** Measures what [`mesh_core::doctor`] judges: this node, and what comes through to others and back.
//!
//! Who else there is it reads in the node's own copy of the records, so that it needs no agent.

mod node;
mod rules;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use mesh_core::certificate::Validity;
use mesh_core::doctor::{Facts, Peer, Tunnel, inner_mtu};
use mesh_core::etcd::GATEWAY_PORT;
use mesh_core::model::{Node, NodeId, Snapshot};
use mesh_core::plan::own_address;

use crate::api::client::Client;
use crate::api::types::Status;
use crate::cluster::ClusterFile;
use crate::config::Config;
use crate::control::now;
use crate::facts::{links, sync};
use crate::pki::{Files, Tls};
use way::Way;

/// How many nodes are asked at a time.
const AT_ONCE: usize = 32;

/// All that can be found out.
pub async fn examine(client: &Client, config: &Config) -> Facts {
    let root = nix::unistd::geteuid().is_root();
    let mut facts = Facts { root, version: env!("CARGO_PKG_VERSION").to_owned(), ..Facts::default() };
    ask_agent(client, &mut facts).await;
    let world = sync::last_known(&config.node.state_dir.join("cache"));
    let id = std::fs::read_to_string(config.node.state_dir.join("node-id")).unwrap_or_default();
    let me = world.as_ref().and_then(|world| Some((world, world.nodes.get(&NodeId::new(id.trim()))?)));
    facts.tunnel_port = config.overlay.port;
    if let Some((world, me)) = me
        && let Ok((device, mtu)) = links::uplink(me.address).await
    {
        (facts.device, facts.uplink_mtu) = (device, Some(mtu));
        facts.gateway = world.is_manager(&me.id);
        facts.peers = peers(world, me, mtu, root);
    }
    facts.sysctls = node::sysctls(&facts.device);
    facts.offload = node::offload(&facts.device);
    facts.now = now();
    facts.certificate = root.then(|| certificate(&config.node.state_dir)).flatten();
    facts.disk = node::room(&config.node.state_dir);
    facts.firewall = root.then(rules::read);
    let agent = client.peer().await.filter(|_| facts.no_agent.is_none());
    let me = me.map(|(world, me)| (world, me.as_ref()));
    facts.busy = node::busy(me, facts.tunnel_port, agent).await;
    facts
}

async fn ask_agent(client: &Client, facts: &mut Facts) {
    let status: Status = match client.get("/v1/status").await {
        Ok(status) => status,
        Err(error) => {
            facts.no_agent = Some(error.to_string());
            return;
        }
    };
    if !status.store.connected {
        facts.problems.push(format!("the store is not connected: {}", status.store.problem));
    }
    for (name, plane) in &status.planes {
        for (object, error) in &plane.errors {
            let text = format!("{name}: {object}: {error}");
            if object.starts_with("DNS of task") { facts.dns.push(text) } else { facts.problems.push(text) }
        }
    }
    // Of other nodes and of the certificate is told below.
    let below = |about: &str| about.starts_with("node ") || facts.root && about == "certificate";
    let own: Vec<_> = status.problems.iter().filter(|problem| !below(&problem.about)).collect();
    facts.problems.extend(own.iter().map(|problem| format!("{}: {}", problem.about, problem.message)));
    let missing = status.features.iter().filter(|feature| feature.state == "missing");
    facts.missing = Some(missing.map(|feature| (feature.name.clone(), feature.instead.clone())).collect());
}

/// From when to when the node's certificate is good, if it is to have one.
fn certificate(state_dir: &Path) -> Option<Result<Validity, String>> {
    let file = ClusterFile::load(state_dir).map_err(|error| format!("{error:#}")).transpose()?;
    let tls = file.and_then(|_| Tls::open(Files::of(state_dir)).map_err(|error| error.to_string()));
    Some(tls.map(|tls| tls.me().validity))
}

/// Asks all other nodes, several at a time.
fn peers(world: &Snapshot, me: &Node, mtu: u32, root: bool) -> Vec<Peer> {
    let others: Vec<_> = world.nodes.values().filter(|other| other.id != me.id && !other.left).collect();
    let mut found = Vec::new();
    for some in others.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let mut asked = Vec::new();
            for other in some {
                let other: &Node = other;
                asked
                    .push(scope.spawn(move || if root { ask(world, me, other, mtu) } else { silent(other) }));
            }
            // One that broke has told why.
            found.extend(asked.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    found.sort_by(|a: &Peer, b| a.name.cmp(&b.name));
    found
}

/// A node that was not asked.
fn silent(other: &Node) -> Peer {
    Peer {
        name: other.name.to_string(),
        address: other.address,
        version: other.version.clone(),
        answers: false,
        largest: None,
        probe: None,
        gateway: None,
        tunnel: None,
        ahead: None,
    }
}

const SMALL: u32 = 100;

fn ask(world: &Snapshot, me: &Node, other: &Node, mtu: u32) -> Peer {
    let mut peer = silent(other);
    if let Ok(mut way) = Way::open(Some(me.address), other.address) {
        peer.answers = way.passes(SMALL);
        if peer.answers {
            // What the other sends itself is no larger than this.
            peer.largest = way
                .largest(mtu.min(other.uplink_mtu))
                .map(|found| if found == other.uplink_mtu { found.max(mtu) } else { found });
            peer.ahead = way.ahead();
        }
    }
    peer.probe = other.reflects.then(|| way::probed(me.address, other.address));
    peer.gateway =
        world.is_manager(&other.id).then(|| way::connects(SocketAddr::new(other.address, GATEWAY_PORT)));
    peer.tunnel = tunnel(world, me, other);
    peer
}

/// Through the tunnel of the first network that has both.
fn tunnel(world: &Snapshot, me: &Node, other: &Node) -> Option<Tunnel> {
    let (network, from, to) = world.networks.values().find_map(|network| {
        let own = |node| own_address(world, node, &network.id).map(|own| IpAddr::from(own.v4));
        Some((network, own(me)?, own(other)?))
    })?;
    // What either end makes of its uplink, as it is written down.
    let uplink = me.uplink_mtu.min(other.uplink_mtu);
    let mtu = network.mtu.map_or(u32::MAX, u32::from).min(inner_mtu(uplink, me.address));
    let mut way = Way::open(Some(from), to).ok()?;
    let answers = way.passes(SMALL);
    let largest = if answers { way.largest(mtu) } else { None };
    Some(Tunnel { mtu, answers, largest })
}
