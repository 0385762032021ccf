//! **Effect.** Names are answered before anything else is done: what was asked while no agent ran has waited for long enough.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::dns::Zone;
use mesh_core::model::{NodeId, Snapshot, Task};
use mesh_core::plan;
use tokio::task::spawn_blocking;

use crate::attempts::guarded;
use crate::dns::DnsServer;
use crate::facts::sync;
use crate::netns::Netns;

/// Goes on with the sockets of an agent before, by what it knew last. What cannot be gone on with is left to the first round.
pub(super) async fn go_on(dns: &DnsServer, zone: &ArcSwap<Zone>, cache: PathBuf, node: &NodeId) {
    if !dns.is_to_go_on() {
        return;
    }
    let here = node.clone();
    let known = spawn_blocking(move || {
        // It may be what the agent before broke by.
        guarded(|| sync::last_known(&cache).map(|world| (Zone::build(&world, &here), world))).ok().flatten()
    });
    let Ok(Some((known, world))) = known.await else { return };
    zone.store(Arc::new(known));
    let own = world.tasks.values().filter(|task| task.node == *node && !task.state.is_terminal());
    for task in own {
        serve(dns, &world, task).await;
    }
    tracing::info!(tasks = dns.serving().len(), "names are answered again, by what was known last");
}

async fn serve(dns: &DnsServer, world: &Snapshot, task: &Task) {
    // One that is gone, or cannot be looked at, is the first round's to tell of.
    let Ok(netns) = Netns::of_origin(&task.origin) else { return };
    let upstreams = task.dns.iter().map(|server| SocketAddr::new(*server, 53)).collect();
    let networks = plan::networks(world, task);
    if !networks.is_empty() {
        let _ = dns.go_on(&task.id, netns.into_file(), networks, upstreams).await;
    }
}
